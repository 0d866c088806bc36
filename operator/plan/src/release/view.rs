//! What the rungs look at.

use super::verdict::Wait;
use crate::ObjectRef;
use crate::answers::Answers;
use crate::observed::{PodHealth, ReleaseObserved, Settings};
use crate::readings::owned_by;
use crate::snapshot::{Snapshot, Today};
use fairway_crds::release::ReleaseStatus;
use fairway_crds::{Reason, Release};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::sync::Arc;

/// What one pass of a release looks at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What was observed.
    pub observed: &'a ReleaseObserved,
    /// Settings of this process.
    pub settings: &'a Settings,
    /// The time of this pass.
    pub now: Timestamp,
    /// What this release releases; when its ControllerRevision was deleted, what its Deployments show of that.
    pub snapshot: &'a Snapshot,
}

impl<'a> View<'a> {
    /// The view of a pass at that time.
    pub fn new(
        observed: &'a ReleaseObserved,
        settings: &'a Settings,
        now: Timestamp,
        snapshot: &'a Snapshot,
    ) -> Self {
        Self {
            observed,
            settings,
            now,
            snapshot,
        }
    }

    /// The Release of this pass.
    pub fn release(&self) -> &'a Release {
        &self.observed.release
    }

    /// Whether the Release is being deleted.
    pub fn is_being_deleted(&self) -> bool {
        self.observed.release.metadata.deletion_timestamp.is_some()
    }

    /// Name of the Release of this pass.
    pub fn name(&self) -> &'a str {
        self.observed.release.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether this very Release owns an object; a Release of the same name that is gone does not count.
    pub fn owns(&self, owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]) -> bool {
        owned_by(owners, self.uid())
    }

    /// Name of the App of the Release.
    pub fn app_name(&self) -> &'a str {
        &self.observed.release.spec.app
    }

    /// Namespace of the Release.
    pub fn namespace(&self) -> &'a str {
        self.observed
            .release
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    /// UID of the Release.
    pub fn uid(&self) -> &'a str {
        self.observed.release.metadata.uid.as_deref().unwrap_or_default()
    }

    /// What the spec of the App says today of what takes effect at once; `None` when the App is gone.
    pub fn today(&self) -> Option<Today> {
        self.observed.app.as_ref().map(|app| Today::of(&app.spec))
    }

    /// Whether the App has taken up another of its Releases: one with a revision beyond the App's does not count.
    pub fn has_been_accepted(&self, sibling: &Release) -> bool {
        let app = self.observed.app.as_ref();
        let recorded = app.and_then(|app| app.status.as_ref()?.revision);
        recorded.is_some_and(|recorded| sibling.spec.revision <= recorded)
    }

    /// Whether the App says that releases hold.
    pub fn suspended(&self) -> bool {
        self.observed.app.as_ref().is_some_and(|app| app.spec.suspend)
    }

    /// The wait of a release that the App holds before a step that cannot be undone.
    pub fn held(&self, before: &str) -> Wait {
        Wait::user(
            Reason::Suspended,
            format!(
                "Release {} waits before {before}, because App {} is suspended. To continue, set spec.suspend to false.",
                self.name(),
                self.app_name()
            ),
        )
    }

    /// Whether a Release is the App's that is there now: one of a former App of the same name is about to go.
    pub fn is_of_this_app(&self, release: &Release) -> bool {
        let app = self
            .observed
            .app
            .as_ref()
            .and_then(|app| app.metadata.uid.as_deref());
        let owners = release.owner_references();
        app.is_none() || owners.is_empty() || owners.iter().any(|owner| Some(owner.uid.as_str()) == app)
    }

    /// The release that served when this one began.
    pub fn previous(&self, status: &ReleaseStatus) -> Option<&'a Arc<Release>> {
        let name = status.previous.as_deref()?;
        self.observed
            .siblings
            .iter()
            .find(|sibling| sibling.name_any() == name)
    }

    /// Snapshot of a Release by name, as far as it exists.
    pub fn snapshot_of(&self, release: &str) -> Option<&'a Snapshot> {
        self.observed.snapshots.get(release).map(Arc::as_ref)
    }

    /// The ControllerRevision that holds the snapshot of a Release.
    pub fn revision_of(&self, release: &str) -> Option<&'a ObjectRef> {
        self.observed
            .revisions
            .iter()
            .find(|revision| revision.name == release)
    }

    /// The API server's answers to earlier writes.
    pub fn answers(&self) -> Answers<'a> {
        Answers::of(self.observed)
    }

    /// What the probes found about a pod.
    pub fn health(&self, pod: &Pod) -> Option<&'a PodHealth> {
        self.observed.probes.get(pod.metadata.uid.as_deref()?)
    }
}
