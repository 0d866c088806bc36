//! What planners see: objects as last observed, and what probes found.

use crate::snapshot::Snapshot;
use crate::{ObjectRef, Step};
use fairway_crds::{App, Backup, Migration, Release};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the chart and the process fix for a whole run of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image that holds the agent at `/fairway-agent`; an init container of it copies the agent into other images' pods.
    pub agent_image: String,
    /// Pull secrets of the agent's image, in the App's namespace.
    pub agent_pull_secrets: Vec<String>,
    /// Pull policy of the agent's image.
    pub agent_pull_policy: String,
    /// SHA-256 (hex) of the token with which this process speaks to its probe pods.
    pub probe_token_sha256: String,
}

/// For [`crate::app::plan`].
#[derive(Clone, Debug)]
pub struct AppObserved {
    /// The App.
    pub app: Arc<App>,
    /// Every Release whose `spec.app` names it, in order of revision.
    pub releases: Vec<Arc<Release>>,
    /// Snapshots by Release name, as far as they exist.
    pub snapshots: BTreeMap<String, Arc<Snapshot>>,
    /// Every Deployment labelled with the App.
    pub deployments: Vec<Arc<Deployment>>,
    /// Every pod labelled with the App.
    pub pods: Vec<Arc<Pod>>,
    /// Every Migration of the App.
    pub migrations: Vec<Arc<Migration>>,
}

/// For [`crate::release::plan`].
#[derive(Clone, Debug)]
pub struct ReleaseObserved {
    /// The Release.
    pub release: Arc<Release>,
    /// The App of the Release; absent when the App is gone.
    pub app: Option<Arc<App>>,
    /// The other Releases of the App, in order of revision.
    pub siblings: Vec<Arc<Release>>,
    /// Snapshots by Release name, as far as they exist: of this Release and of the others.
    pub snapshots: BTreeMap<String, Arc<Snapshot>>,
    /// The ControllerRevisions that hold the snapshots.
    pub revisions: Vec<ObjectRef>,
    /// Every Migration of the App.
    pub migrations: Vec<Arc<Migration>>,
    /// Every Backup of the App.
    pub backups: Vec<Arc<Backup>>,
    /// Every Deployment labelled with the App.
    pub deployments: Vec<Arc<Deployment>>,
    /// Every pod labelled with the App, the agent's included.
    pub pods: Vec<Arc<Pod>>,
    /// Every Job labelled with the App.
    pub jobs: Vec<Arc<Job>>,
    /// Services by name: those that the components of any observed snapshot serve, as far as they exist.
    pub services: BTreeMap<String, Arc<Service>>,
    /// EndpointSlices of those Services.
    pub endpoint_slices: Vec<Arc<EndpointSlice>>,
    /// Claims by name, as far as they exist: those of [`crate::release::claims::mounts`], while the Release has not
    /// begun.
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    /// What the probes of this operator process found, by pod UID.
    pub probes: BTreeMap<String, PodHealth>,
    /// Answers of the API server to this process's last writes that were refused, by `Kind/name`.
    pub refused: BTreeMap<String, Refusal>,
    /// Dry runs of this process that passed, as `Kind/name#hash`.
    pub dry_run_passed: BTreeSet<String>,
}

/// A write that the API server refused, until it is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Hash of the object that was refused (the value of the annotation `fairway.dev/applied-hash`): an
    /// edited object is written again.
    pub hash: String,
    /// The API server's words, without values.
    pub message: String,
    /// Another field manager owns a field (409), as against an invalid object (400, 403, 422).
    pub conflict: bool,
    /// A fix elsewhere can help (a quota, a role, an admission policy): a release waits for that instead of failing.
    pub may_pass: bool,
}

/// The API server's last answer to this very write, when it was a refusal.
pub fn refusal<'a>(refused: &'a BTreeMap<String, Refusal>, step: &Step) -> Option<&'a Refusal> {
    refused
        .get(&step.id())
        .filter(|refusal| refusal.hash == step.hash())
}

/// What probes found about one pod since this process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodHealth {
    /// Rounds in a row in which every request passed.
    pub passes: u32,
    /// Whether the pod has ever passed as often in a row as it has to.
    pub proven: bool,
    /// Rounds in a row in which one failed (an answer that was wrong, or none in time).
    pub failures: u32,
    /// Rounds in a row in which no connection could be made.
    pub unreachable: u32,
    /// What the last round that did not pass found: one sentence.
    pub last_failure: Option<String>,
    /// Rounds that passed, of all.
    pub passed: u64,
    /// Rounds that did not, of all.
    pub failed: u64,
}

/// For [`crate::migration::plan`].
#[derive(Clone, Debug)]
pub struct MigrationObserved {
    /// The Migration.
    pub migration: Arc<Migration>,
    /// The App of the Migration.
    pub app: Option<Arc<App>>,
    /// The Release for which the migration runs.
    pub release: Option<Arc<Release>>,
    /// The snapshot of that Release, or the App's spec of the moment for one applied by hand.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Jobs whose label `fairway.dev/work-for` names the object.
    pub jobs: Vec<Arc<Job>>,
    /// Pods whose label `fairway.dev/work-for` names the object.
    pub pods: Vec<Arc<Pod>>,
    /// Answers of the API server to this process's last writes that were refused, by `Kind/name`.
    pub refused: BTreeMap<String, Refusal>,
}

/// For [`crate::backup::plan`].
#[derive(Clone, Debug)]
pub struct BackupObserved {
    /// The Backup.
    pub backup: Arc<Backup>,
    /// The App of the Backup.
    pub app: Option<Arc<App>>,
    /// The Release for which the backup is made.
    pub release: Option<Arc<Release>>,
    /// The snapshot of that Release, or the App's spec of the moment for one applied by hand.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Jobs whose label `fairway.dev/work-for` names the object.
    pub jobs: Vec<Arc<Job>>,
    /// Pods whose label `fairway.dev/work-for` names the object.
    pub pods: Vec<Arc<Pod>>,
    /// Answers of the API server to this process's last writes that were refused, by `Kind/name`.
    pub refused: BTreeMap<String, Refusal>,
}

/// A pod that the operator should send health requests to.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeTarget {
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the pod, for messages.
    pub pod_name: String,
    /// Address of the pod.
    pub address: std::net::IpAddr,
    /// The requests, with ports. Requests with a header from a Secret go through `via`.
    pub requests: Vec<(u16, crate::protocol::HttpRequest)>,
    /// Index of each request among those of the probe pod, for those that need it.
    pub via: Option<ProbePod>,
    /// Time between two rounds.
    pub period: std::time::Duration,
    /// Passes in a row that are news.
    pub success_threshold: u32,
    /// Failures in a row that are news.
    pub failure_threshold: u32,
}

/// The pod through which requests with a header from a Secret are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePod {
    /// Address of the probe pod; absent until it runs.
    pub address: Option<std::net::IpAddr>,
    /// For each request of the target: its index in the probe pod's list, or `None` when the operator asks itself.
    pub indexes: Vec<Option<usize>>,
}
