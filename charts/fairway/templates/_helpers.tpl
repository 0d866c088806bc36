{{/* Name of every object: the name of the Helm release, with the chart's name added unless it contains it. */}}
{{- define "fairway.name" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $chart .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $chart | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "fairway.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "fairway.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "set serviceAccount.name to a service account that exists, because serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The user that the API server sees when the operator asks it for something. */}}
{{- define "fairway.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "fairway.serviceAccount" . }}
{{- end -}}

{{/* Selector of the namespaces whose Apps this installation manages; empty for all, so that installations for different
namespaces do not refuse each other's writes. */}}
{{- define "fairway.watchedNamespaces" -}}
{{- with .Values.watchNamespaces -}}
matchExpressions:
- key: kubernetes.io/metadata.name
  operator: In
  values: {{ toJson . }}
{{- end -}}
{{- end -}}

{{/* Labels by which the Service and the Deployment select the operator's pods; they never change. */}}
{{- define "fairway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "fairway.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: fairway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Annotations of an object: those of every object, and `more`. */}}
{{- define "fairway.annotations" -}}
{{- with merge (dict) (default (dict) .more) .root.Values.commonAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "fairway.image" -}}
{{- $repository := required "set image.repository, such as --set image.repository=registry.example.com/team/fairway: no image is published yet; docs/getting-started.md shows how to build one" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Pod Security "restricted". */}}
{{- define "fairway.podSecurity" -}}
runAsNonRoot: true
{{- if not (hasKey .Values.user "assigned") }}
runAsUser: {{ int64 (default 65532 .Values.user.id) }}
runAsGroup: {{ int64 (default 65532 .Values.user.id) }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "fairway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* How the agent's pods run, as JSON; empty where the values say nothing of it. */}}
{{- define "fairway.agentPods" -}}
{{- $pods := dict -}}
{{- range $member := list "resources" "user" "nodeSelector" "tolerations" "priorityClassName" -}}
{{- with index $.Values.agent $member -}}
{{- $_ := set $pods $member . -}}
{{- end -}}
{{- end -}}
{{- if $pods -}}
{{- toJson $pods -}}
{{- end -}}
{{- end -}}
