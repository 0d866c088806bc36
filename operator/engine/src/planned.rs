//! What planning needs to know of our own kinds.

use crate::caches::Cached;
use crate::for_each_kind;
use crate::kinds::*;
use fairway_crds::condition::{READY, SUCCEEDED};
use fairway_crds::{AppStatus, BackupStatus, MigrationStatus, ReleaseStatus, RestoreStatus};
use fairway_plan::Decision;
use fairway_plan::observed::{
    AppObserved, BackupObserved, MigrationObserved, ReleaseObserved, RestoreObserved, Settings,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::sync::Arc;

/// A kind of our own: planned, and with a status.
pub(crate) trait Planned: Cached<Kept = Self> {
    /// Status of the kind.
    type Status: Clone + PartialEq + Send + Sync;
    /// What its planner sees.
    type Observed: Send + Sync;

    /// The condition that sums an object up: its reasons become Events.
    const HEADLINE: &'static str;

    /// The object in what was observed.
    fn of(observed: &Self::Observed) -> &Arc<Self>;

    /// What is to be done, by the kind's planner.
    fn plan(observed: &Self::Observed, settings: &Settings, now: Timestamp) -> Decision<Self::Status>;

    /// Status of the object.
    fn status(&self) -> Option<&Self::Status>;

    /// The same object with another status.
    fn with_status(&self, status: Self::Status) -> Self;

    /// Conditions of a status.
    fn conditions(status: &Self::Status) -> &[Condition];

    /// The outcome in a status.
    fn outcome(status: &Self::Status) -> Option<String>;
}

macro_rules! planned {
    (
        ()
        own { $($own:ident $own_store:ident $member:ident { $($row:tt)* })* }
        $($rest:tt)*
    ) => {
        $(
            impl Planned for $own {
                type Status = cell!(status; $($row)*);
                type Observed = cell!(observed; $($row)*);
                const HEADLINE: &'static str = cell!(headline; $($row)*);

                fn of(observed: &Self::Observed) -> &Arc<Self> {
                    &observed.$member
                }

                fn plan(observed: &Self::Observed, settings: &Settings, now: Timestamp) -> Decision<Self::Status> {
                    fairway_plan::$member::plan(observed, settings, now)
                }

                fn status(&self) -> Option<&Self::Status> {
                    self.status.as_ref()
                }

                fn with_status(&self, status: Self::Status) -> Self {
                    Self { status: Some(status), ..self.clone() }
                }

                fn conditions(status: &Self::Status) -> &[Condition] {
                    &status.conditions
                }

                fn outcome(status: &Self::Status) -> Option<String> {
                    let outcome: fn(&Self::Status) -> Option<String> = cell!(outcome; $($row)*);
                    outcome(status)
                }
            }
        )*
    };
}

for_each_kind!(planned);
