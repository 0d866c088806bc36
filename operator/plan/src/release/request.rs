//! What a user asks of a Release by an annotation, whose value counts once.

use crate::requester;
use fairway_crds::Release;
use fairway_crds::release::{ReleaseStatus, annotation};
use kube::ResourceExt;

/// What a user asks of a Release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// To abort it.
    Abort,
    /// To roll it back.
    Rollback,
    /// To retry it after it has failed.
    Retry,
    /// To resolve its migration.
    Resolve,
}

impl Request {
    /// The value that a user has given, if it has not been handled.
    pub(crate) fn pending<'a>(self, release: &'a Release, status: &ReleaseStatus) -> Option<&'a str> {
        requester::pending(self.value(release), self.handled(status))
    }

    /// Returns the unhandled value, if there is one, and records it as handled.
    pub(crate) fn take<'a>(self, release: &'a Release, status: &mut ReleaseStatus) -> Option<&'a str> {
        requester::take(self.value(release), self.handled_mut(status))
    }

    /// Whether the value that a user has given has been handled.
    pub(crate) fn has_been_handled(self, release: &Release, status: &ReleaseStatus) -> bool {
        let value = self.value(release);
        value.is_some() && value == self.handled(status)
    }

    fn value(self, release: &Release) -> Option<&String> {
        release.annotations().get(match self {
            Self::Abort => annotation::ABORT,
            Self::Rollback => annotation::ROLLBACK,
            Self::Retry => annotation::RETRY,
            Self::Resolve => annotation::RESOLVE,
        })
    }

    fn handled(self, status: &ReleaseStatus) -> Option<&String> {
        match self {
            Self::Abort => status.last_handled_abort.as_ref(),
            Self::Rollback => status.last_handled_rollback.as_ref(),
            Self::Retry => status.last_handled_retry.as_ref(),
            Self::Resolve => status.last_handled_resolve.as_ref(),
        }
    }

    fn handled_mut(self, status: &mut ReleaseStatus) -> &mut Option<String> {
        match self {
            Self::Abort => &mut status.last_handled_abort,
            Self::Rollback => &mut status.last_handled_rollback,
            Self::Retry => &mut status.last_handled_retry,
            Self::Resolve => &mut status.last_handled_resolve,
        }
    }
}
