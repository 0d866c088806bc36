//! What a Backup or a Migration names that does not exist, or not yet: tools apply objects in any order, and caches show
//! them in any order.

use crate::attempt::{Impossible, Planned};
use crate::conditions::Progress;
use crate::message::{moment, sentences};
use crate::release::history;
use fairway_crds::{Reason, Release};
use jiff::{SignedDuration, Timestamp};
use kube::core::ObjectMeta;

/// Time in which what an object names may be applied after the object.
pub(crate) const APPLIED_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// Until when an object waits for what it names; `None` when that time has passed.
pub(crate) fn awaited_until(meta: &ObjectMeta, now: Timestamp) -> Option<Timestamp> {
    let created = meta.creation_timestamp.as_ref()?.0;
    let until = created.checked_add(APPLIED_WITHIN).ok()?;
    (now < until).then_some(until)
}

/// Something that work cannot begin without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Final reason of the work if it stays missing.
    pub(crate) reason: Reason,
    /// What is missing: a sentence without its full stop.
    pub(crate) what: String,
    /// What a user does when the work has failed.
    pub(crate) fix: String,
    /// Whether it may still come.
    pub(crate) comes: Comes,
}

/// Whether what is missing may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comes {
    /// It may be applied together with the work.
    Perhaps,
    /// It was there and was deleted.
    Never,
}

impl Missing {
    /// The App of the work.
    pub(crate) fn app(app: &str, fix: impl Into<String>) -> Self {
        Self {
            reason: Reason::AppMissing,
            what: format!("App {app} does not exist or is being deleted"),
            fix: fix.into(),
            comes: Comes::Perhaps,
        }
    }

    /// The snapshot of the Release for which the work is done, which the App creates when it accepts that Release.
    pub(crate) fn snapshot(app: &str, name: &str, found: Option<&Release>, fix: impl Into<String>) -> Self {
        let status = found.and_then(|release| release.status.as_ref());
        let (reason, what, comes) = match found {
            None => (
                Reason::AppMissing,
                format!("Release {name} does not exist"),
                Comes::Perhaps,
            ),
            Some(_) if !status.is_some_and(history::is_accepted) => (
                Reason::AppMissing,
                format!("App {app} has not accepted Release {name}"),
                Comes::Perhaps,
            ),
            Some(_) => (
                Reason::SnapshotMissing,
                format!("ControllerRevision {name} was deleted"),
                Comes::Never,
            ),
        };
        Self {
            reason,
            what,
            fix: fix.into(),
            comes,
        }
    }

    /// The wait of an object of that kind, such as `Backup`, for what may still come; `None` when its time is over.
    pub(crate) fn wait(&self, kind: &str, meta: &ObjectMeta, now: Timestamp) -> Option<Planned> {
        let until = awaited_until(meta, now).filter(|_| self.comes == Comes::Perhaps)?;
        let end = format!("If that is still so at {}, this {kind} fails", moment(until));
        let message = sentences([&*self.what, &end]);
        let progress = Progress::running(Reason::WaitingForApp, message);
        Some(Planned::new(progress).until(until))
    }
}

impl From<Missing> for Impossible {
    fn from(missing: Missing) -> Self {
        Self {
            reason: missing.reason,
            message: sentences([missing.what, missing.fix]),
        }
    }
}
