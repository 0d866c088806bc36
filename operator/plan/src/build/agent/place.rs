//! Where the agent's pods run, and as whom: what they take from the component that they work for, and what the chart and
//! the App say.
//!
//! | | from the component | over it |
//! |---|---|---|
//! | nodes | node selector, node affinity | the App's `agent.nodeSelector` takes their place, except where the pod proves that the component's images run; the chart's adds what neither says |
//! | other pods | a required anti-affinity, where the pod proves that the candidate fits beside the previous version | |
//! | taints | tolerations | those of the chart and the App are added |
//! | network | host aliases, DNS policy and DNS settings | |
//! | images | pull secrets, service account (without its token) | those of the chart and the App are added |
//! | kubelet and scheduler | runtime class, scheduler, priority class | the App's, else the component's, else the chart's priority class |
//! | user, resources | | the App's, else the chart's, else Fairway's |

use crate::build::template;
use crate::observed::Settings;
use crate::snapshot::Snapshot;
use fairway_crds::agent::{Resources, Toleration as Tolerated, User};
use fairway_crds::component::{Component, Strategy};
use k8s_openapi::api::core::v1::{
    Affinity, HostAlias, LocalObjectReference, PodAffinityTerm, PodAntiAffinity, PodDNSConfig, PodOS,
    PodSecurityContext, PodSpec, ResourceRequirements, SeccompProfile, SecurityContext, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The user of the agent's work in images that are not the application's: PostgreSQL's tools run under any.
const USER: i64 = 65_532;
/// The label of a node's operating system.
const OS: &str = "kubernetes.io/os";
const LINUX: &str = "linux";

/// What ties the pods of a component to their place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Place {
    node_selector: BTreeMap<String, String>,
    node_affinity: Option<Affinity>,
    /// What keeps the pods of a component off the nodes of those that they run beside.
    apart_from: Vec<PodAffinityTerm>,
    tolerations: Vec<Toleration>,
    runtime_class: Option<String>,
    scheduler: Option<String>,
    priority_class: Option<String>,
    host_aliases: Option<Vec<HostAlias>>,
    dns_policy: Option<String>,
    dns_config: Option<PodDNSConfig>,
    pull_secrets: Vec<LocalObjectReference>,
    service_account: Option<String>,
}

impl Place {
    /// The place of a component's pods; without ties where the template cannot be read, which another message says.
    pub(super) fn of(component: &Component) -> Self {
        let Ok((_, spec)) = template::read(component) else {
            return Self::default();
        };
        Self {
            node_selector: spec.node_selector.unwrap_or_default(),
            node_affinity: node_affinity(spec.affinity),
            apart_from: Vec::new(),
            tolerations: spec.tolerations.unwrap_or_default(),
            runtime_class: spec.runtime_class_name,
            scheduler: spec.scheduler_name,
            priority_class: spec.priority_class_name,
            host_aliases: spec.host_aliases,
            dns_policy: spec.dns_policy,
            dns_config: spec.dns_config,
            pull_secrets: spec.image_pull_secrets.unwrap_or_default(),
            service_account: spec.service_account_name,
        }
    }

    /// The place of work on the database: that of the component that migrates, or of the first. The database's image has
    /// no pull secrets of its own, so that those of all components are tried.
    pub(super) fn of_database_work(snapshot: &Snapshot) -> Self {
        let mut place = worker(snapshot).map(Self::of).unwrap_or_default();
        for other in snapshot.components.iter().map(Self::of) {
            for secret in other.pull_secrets {
                if !place.pull_secrets.contains(&secret) {
                    place.pull_secrets.push(secret);
                }
            }
        }
        place
    }

    /// The place of a pod that proves whether the candidate's pods fit beside those of the previous version: off the nodes
    /// that a required anti-affinity of the component excludes. One that only excludes pods of the same version
    /// (`matchLabelKeys: [pod-template-hash]`) does not count.
    pub(super) fn beside_previous(mut self, component: &Component) -> Self {
        if component.strategy == Strategy::BlueGreen
            && let Ok((_, spec)) = template::read(component)
        {
            let apart = spec.affinity.and_then(|affinity| affinity.pod_anti_affinity);
            let terms = apart.and_then(|apart| apart.required_during_scheduling_ignored_during_execution);
            self.apart_from = terms.unwrap_or_default();
            self.apart_from
                .retain(|term| term.match_label_keys.is_none() && term.mismatch_label_keys.is_none());
        }
        self
    }

    /// The nodes that the App names for the agent's pods, instead of the component's.
    pub(super) fn on_nodes_of_app(mut self, settings: &Settings) -> Self {
        let nodes = &settings.agent_of_app.node_selector;
        if !nodes.is_empty() {
            self.node_selector = nodes.clone();
            self.node_affinity = None;
        }
        self
    }

    /// Puts a pod of the agent in this place.
    pub(super) fn put(self, pod: &mut PodSpec, settings: &Settings) {
        pod.os = Some(PodOS {
            name: LINUX.to_owned(),
        });
        pod.node_selector = Some(self.node_selector);
        pod.affinity = self.node_affinity;
        if !self.apart_from.is_empty() {
            pod.affinity.get_or_insert_default().pod_anti_affinity = Some(PodAntiAffinity {
                required_during_scheduling_ignored_during_execution: Some(self.apart_from),
                ..PodAntiAffinity::default()
            });
        }
        pod.tolerations = Some(self.tolerations);
        pod.runtime_class_name = self.runtime_class;
        pod.scheduler_name = self.scheduler;
        let of_app = settings.agent_of_app.priority_class_name.clone();
        pod.priority_class_name = of_app.or(self.priority_class);
        pod.host_aliases = self.host_aliases;
        pod.dns_policy = self.dns_policy;
        pod.dns_config = self.dns_config;
        pod.image_pull_secrets = with_pull_secrets(settings, &self.pull_secrets);
        pod.service_account_name = self.service_account;
        complete(pod, settings);
    }
}

/// Adds to a pod that has a place what the agent needs wherever it runs: nodes for its binary, and the tolerations and
/// priority class that the chart and the App say.
pub(super) fn complete(pod: &mut PodSpec, settings: &Settings) {
    let Settings {
        agent_pods: chart,
        agent_of_app: app,
        ..
    } = settings;
    let nodes = pod.node_selector.get_or_insert_default();
    for (label, value) in &chart.node_selector {
        nodes.entry(label.clone()).or_insert_with(|| value.clone());
    }
    nodes.entry(OS.to_owned()).or_insert_with(|| LINUX.to_owned());
    let tolerations = pod.tolerations.get_or_insert_default();
    for tolerated in chart.tolerations.iter().chain(&app.tolerations) {
        let toleration = toleration(tolerated);
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    pod.tolerations.take_if(|tolerations| tolerations.is_empty());
    if pod.priority_class_name.is_none() {
        pod.priority_class_name = chart.priority_class_name.clone();
    }
}

/// Pull secrets of a pod that uses the agent's image besides others.
pub(super) fn with_pull_secrets(
    settings: &Settings,
    others: &[LocalObjectReference],
) -> Option<Vec<LocalObjectReference>> {
    let mut secrets = others.to_vec();
    let of_app = &settings.agent_of_app.pull_secrets;
    for name in settings.agent_pull_secrets.iter().chain(of_app) {
        if !secrets.iter().any(|secret| secret.name == *name) {
            secrets.push(LocalObjectReference { name: name.clone() });
        }
    }
    (!secrets.is_empty()).then_some(secrets)
}

/// The component on whose behalf the agent works on the database: the one that migrates, or the first.
pub(super) fn worker(snapshot: &Snapshot) -> Option<&Component> {
    let migrates = snapshot.migration.as_ref();
    migrates
        .and_then(|migration| snapshot.component(&migration.component))
        .or_else(|| snapshot.components.first())
}

/// What ties a pod to nodes; what ties it to other pods is for the pods that stay.
pub(super) fn node_affinity(affinity: Option<Affinity>) -> Option<Affinity> {
    let node_affinity = affinity?.node_affinity?;
    Some(Affinity {
        node_affinity: Some(node_affinity),
        ..Affinity::default()
    })
}

/// The user and group of Fairway's containers; `None` where the cluster assigns one.
fn user(settings: &Settings) -> Option<i64> {
    let said = settings.agent_of_app.user.as_ref();
    match said.or(settings.agent_pods.user.as_ref()) {
        None => Some(USER),
        Some(User { id, assigned: _ }) => *id,
    }
}

/// The security context of a pod of Fairway's own.
pub(super) fn pod_security(settings: &Settings) -> PodSecurityContext {
    let user = user(settings);
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: user,
        run_as_group: user,
        fs_group: user,
        // A large store is not walked file by file each time it is mounted.
        fs_group_change_policy: user.map(|_| "OnRootMismatch".to_owned()),
        seccomp_profile: Some(runtime_default()),
        ..PodSecurityContext::default()
    }
}

/// What `container` asks, for a container of Fairway's in a pod of the team's, whose pod-wide settings are theirs.
pub(super) fn as_own_user(container: SecurityContext, settings: &Settings) -> SecurityContext {
    let user = user(settings);
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: user,
        run_as_group: user,
        seccomp_profile: Some(runtime_default()),
        ..container
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        localhost_profile: None,
    }
}

/// Resources of a container of Fairway's. Without a word: little enough that it fits anywhere, and not nothing, which
/// would be evicted first.
pub(super) fn resources(settings: &Settings) -> ResourceRequirements {
    resources_or(settings, None)
}

/// Resources of a container that has some of its own, else as every container of Fairway's.
pub(super) fn resources_or(settings: &Settings, own: Option<&Resources>) -> ResourceRequirements {
    let said = own.or(settings.agent_of_app.resources.as_ref());
    let said = said.or(settings.agent_pods.resources.as_ref());
    let Resources { requests, limits } = said.cloned().unwrap_or_default();
    let quantities = |amounts: BTreeMap<String, String>| -> BTreeMap<String, Quantity> {
        amounts
            .into_iter()
            .map(|(name, amount)| (name, Quantity(amount)))
            .collect()
    };
    let mut requests = quantities(requests);
    let limits = quantities(limits);
    for (name, least) in [("cpu", "5m"), ("memory", "16Mi")] {
        // What has a limit alone asks for that much.
        if !requests.contains_key(name) && !limits.contains_key(name) {
            requests.insert(name.to_owned(), Quantity(least.to_owned()));
        }
    }
    ResourceRequirements {
        requests: Some(requests).filter(|requests| !requests.is_empty()),
        limits: Some(limits).filter(|limits| !limits.is_empty()),
        claims: None,
    }
}

fn toleration(tolerated: &Tolerated) -> Toleration {
    let Tolerated {
        key,
        operator,
        value,
        effect,
        toleration_seconds,
    } = tolerated.clone();
    Toleration {
        key,
        operator,
        value,
        effect,
        toleration_seconds,
    }
}
