//! What planners see: objects as last observed, and what probes found.

use crate::message::{quoting, sentences};
use crate::probe_token::{ProbeKey, ProbeToken};
use crate::retention::Candidate;
use crate::snapshot::Snapshot;
use crate::{ObjectRef, Step};
use fairway_crds::agent::AgentPods;
use fairway_crds::{App, Backup, Migration, Release, Restore};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::borrow::Cow;
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
    /// How the agent's pods run, as the chart says.
    pub agent_pods: AgentPods,
    /// How the agent's pods run, as the App of the pass says: see [`Settings::of_app`].
    pub agent_of_app: AgentPods,
    /// The key of the tokens with which this process speaks to its probe pods.
    pub probe_key: ProbeKey,
}

impl Settings {
    /// The settings for objects of that App; those of the chart alone when it is gone.
    pub fn of_app(&self, app: Option<&App>) -> Cow<'_, Self> {
        match app.and_then(|app| app.spec.agent.as_ref()) {
            None => Cow::Borrowed(self),
            Some(agent) => Cow::Owned(Self {
                agent_of_app: agent.clone(),
                ..self.clone()
            }),
        }
    }
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
    /// Every Backup of the App, if its spec has a schedule or a user asks for a final one.
    pub backups: Vec<Arc<Backup>>,
    /// Answers of the API server to this process's last writes that were refused, by `Kind/name#hash`.
    pub refused: BTreeMap<String, Refusal>,
}

/// For [`crate::release::plan`].
#[derive(Clone, Debug)]
pub struct ReleaseObserved {
    /// The Release.
    pub release: Arc<Release>,
    /// The App of the Release; absent when the App is gone or being deleted.
    pub app: Option<Arc<App>>,
    /// The other Releases of the App that are not being deleted, in order of revision.
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
    /// Pods of Deployments of the team from which components take over, by Deployment: while the Release does so.
    pub legacy_pods: BTreeMap<String, Vec<Arc<Pod>>>,
    /// Services by name: those that the components of any observed snapshot serve, as far as they exist.
    pub services: BTreeMap<String, Arc<Service>>,
    /// By Service that a release of this App serves: the other Apps that exist and serve it.
    pub served_by_others: BTreeMap<String, BTreeSet<String>>,
    /// EndpointSlices of those Services.
    pub endpoint_slices: Vec<Arc<EndpointSlice>>,
    /// Claims by name, as far as they exist: those of [`crate::release::claims::mounts`] and of
    /// [`crate::release::claims::of_migration`], while the Release has not begun.
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    /// ResourceQuotas of the namespace, while the Release has not begun.
    pub quotas: Vec<Arc<ResourceQuota>>,
    /// The probe pod of this process: the one that it created, or the one that it may create.
    pub probe_pod: OwnProbePod,
    /// What the probes of this operator process found, by pod UID.
    pub probes: BTreeMap<String, PodHealth>,
    /// Answers of the API server to this process's last writes that were refused, by `Kind/name#hash`.
    pub refused: BTreeMap<String, Refusal>,
    /// Dry runs of this process that passed, as `Kind/name#hash`.
    pub dry_run_passed: BTreeSet<String>,
    /// What the API server warned of in dry runs that passed, by `Kind/name#hash`.
    pub warnings: BTreeMap<String, Vec<String>>,
}

/// A write that the API server refused, until it is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The API server's words, without values.
    pub message: String,
    /// Paths of the fields that another field manager owns (409), such as `.spec.selector`; none of an object that was refused
    /// for what it is (400, 403, 422).
    pub conflicts: Vec<String>,
    /// A fix elsewhere can help (a quota, a role, an admission policy): a release waits for that instead of failing.
    pub may_pass: bool,
}

/// How the API server says that a ResourceQuota has no room, beside a status that many refusals have:
/// <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.
const EXCEEDED_QUOTA: &str = "exceeded quota";

impl Refusal {
    /// Whether a ResourceQuota has no room for the object.
    pub fn exceeds_quota(&self) -> bool {
        self.message.contains(EXCEEDED_QUOTA)
    }

    /// That the API server refused to create the object of a step, and why, as one sentence.
    pub fn of_creating(&self, step: &Step) -> String {
        let statement = format!("The API server refused to create {}", step.object_name());
        quoting(&statement, Some(&self.message))
    }

    /// That the API server refused to create or change the object of a step, why, and that it is asked again, as sentences.
    pub fn retried(&self, step: &Step) -> String {
        let said = match step {
            Step::Create(_) => self.of_creating(step),
            _ => {
                let statement = format!("The API server refused to change {}", step.object_name());
                quoting(&statement, Some(&self.message))
            }
        };
        sentences([&*said, "Fairway retries automatically."])
    }
}

/// The API server's last answer to this very write, when it was a refusal.
pub fn refusal<'a>(refused: &'a BTreeMap<String, Refusal>, step: &Step) -> Option<&'a Refusal> {
    refused.get(&step.key())
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
    /// Whether the last of them was refused, as against unanswered.
    pub refused: bool,
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
    /// The App of the Migration; absent when the App is gone or being deleted.
    pub app: Option<Arc<App>>,
    /// The Release for which the migration runs.
    pub release: Option<Arc<Release>>,
    /// The snapshot of that Release, or the App's spec of the moment for one applied by hand.
    pub snapshot: Option<Arc<Snapshot>>,
    /// A Backup of the App under way: no migration begins beside it.
    pub backup: Option<String>,
    /// Jobs whose label `fairway.dev/work-for` names the object.
    pub jobs: Vec<Arc<Job>>,
    /// Pods whose label `fairway.dev/work-for` names the object.
    pub pods: Vec<Arc<Pod>>,
    /// Answers of the API server to this process's last writes that were refused, by `Kind/name#hash`.
    pub refused: BTreeMap<String, Refusal>,
    /// Dry runs of this process that passed, as `Kind/name#hash`.
    pub dry_run_passed: BTreeSet<String>,
}

/// For [`crate::backup::plan`].
#[derive(Clone, Debug)]
pub struct BackupObserved {
    /// The Backup.
    pub backup: Arc<Backup>,
    /// The other Backups of the App that have not ended, and that have begun or could.
    pub others: Vec<Arc<Backup>>,
    /// The Backup of the App that was applied by hand and ended last, by name, and when it ended.
    pub last_by_hand: Option<(String, Timestamp)>,
    /// The Migration of the App that is about to run, or runs.
    pub migration: Option<String>,
    /// All Backups of the App as retention sees them, once this one has ended, if the App's spec says which are kept.
    pub candidates: Vec<Candidate>,
    /// The other Backups of the App that retention removes, once this one has ended.
    pub removals: Vec<Arc<Backup>>,
    /// The App of the Backup; absent when the App is gone or being deleted.
    pub app: Option<Arc<App>>,
    /// The Release for which the backup is made.
    pub release: Option<Arc<Release>>,
    /// The snapshot of that Release, or the App's spec of the moment for one applied by hand.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Jobs whose label `fairway.dev/work-for` names the object.
    pub jobs: Vec<Arc<Job>>,
    /// Pods whose label `fairway.dev/work-for` names the object.
    pub pods: Vec<Arc<Pod>>,
    /// Answers of the API server to this process's last writes that were refused, by `Kind/name#hash`.
    pub refused: BTreeMap<String, Refusal>,
    /// Dry runs of this process that passed, as `Kind/name#hash`.
    pub dry_run_passed: BTreeSet<String>,
}

/// For [`crate::restore::plan`].
#[derive(Clone, Debug)]
pub struct RestoreObserved {
    /// The Restore.
    pub restore: Arc<Restore>,
    /// The other Restores of the App that have not ended.
    pub others: Vec<Arc<Restore>>,
    /// The App of the Restore; absent when the App is gone or being deleted.
    pub app: Option<Arc<App>>,
    /// What the App's spec says now.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The Backup that is restored, as far as it exists.
    pub backup: Option<Arc<Backup>>,
    /// Jobs whose label `fairway.dev/work-for` names the object.
    pub jobs: Vec<Arc<Job>>,
    /// Pods whose label `fairway.dev/work-for` names the object.
    pub pods: Vec<Arc<Pod>>,
    /// Answers of the API server to this process's last writes that were refused, by `Kind/name#hash`.
    pub refused: BTreeMap<String, Refusal>,
    /// Dry runs of this process that passed, as `Kind/name#hash`.
    pub dry_run_passed: BTreeSet<String>,
}

/// A probe pod of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnProbePod {
    /// What it is created with.
    pub identity: ProbeIdentity,
    /// The UID that the API server gave it when this process created it; absent before.
    pub uid: Option<String>,
}

/// Name and token of a probe pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeIdentity {
    /// Name of the pod.
    pub name: String,
    /// What the operator shows to the pod.
    pub token: ProbeToken,
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
    /// What the operator shows to that pod.
    pub token: ProbeToken,
    /// For each request of the target: its index in the probe pod's list, or `None` when the operator asks itself.
    pub indexes: Vec<Option<usize>>,
}
