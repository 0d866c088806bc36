//! What became of this release and of the others of its App.

use super::verdict::Failure;
use super::view::View;
use crate::observed::ReleaseObserved;
use crate::time::to_milliseconds;
use crate::{ObjectRef, Step, names, object::Kind};
use fairway_crds::release::{Milestone, MilestoneKind, ReleaseOutcome, ReleaseStatus};
use fairway_crds::{Reason, Release};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Ended Releases that are kept besides the one that serves and the one before it.
pub(super) const HISTORY: usize = 10;

/// The Releases, in order of revision, that an App at the recorded revision takes up: those that follow it without a gap
/// and have not ended.
pub fn following(recorded: i64, releases: &[Arc<Release>]) -> impl Iterator<Item = &Arc<Release>> {
    let beyond = releases
        .iter()
        .filter(move |release| release.spec.revision > recorded);
    beyond
        .zip(recorded + 1..)
        .take_while(|(release, revision)| release.spec.revision == *revision)
        .map(|(release, _)| release)
        .filter(|release| !has_ended(release))
}

/// The first revision after the recorded one that no Release has.
pub fn free_revision(recorded: i64, releases: &[Arc<Release>]) -> i64 {
    let taken: BTreeSet<_> = releases.iter().map(|release| release.spec.revision).collect();
    (recorded + 1..)
        .find(|revision| !taken.contains(revision))
        .unwrap_or(recorded + 1)
}

/// The Release that serves: the newest one whose traffic has moved, or that succeeded, and that has not been
/// rolled back. One that rolls back serves until its traffic has returned.
pub fn live<'a>(releases: impl IntoIterator<Item = &'a Arc<Release>>) -> Option<&'a Arc<Release>> {
    releases
        .into_iter()
        .filter(|release| is_live(release) && release.metadata.deletion_timestamp.is_none())
        .max_by_key(|release| release.spec.revision)
}

/// Whether the Release that is observed is the one that serves.
pub fn serves(observed: &ReleaseObserved) -> bool {
    let all = observed.siblings.iter().chain([&observed.release]);
    live(all).is_some_and(|live| live.name_any() == observed.release.name_any())
}

fn is_live(release: &Release) -> bool {
    let Some(status) = &release.status else {
        return false;
    };
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let serves = status.outcome == Some(ReleaseOutcome::Succeeded) || moved;
    let goes_back = happened(status, MilestoneKind::RollingBack).is_some();
    let returning = moved && happened(status, MilestoneKind::TrafficReturned).is_none();
    serves && (!goes_back || returning)
}

/// The milestone of that kind, if it is recorded.
pub fn happened(status: &ReleaseStatus, kind: MilestoneKind) -> Option<&Milestone> {
    status.milestones.iter().find(|milestone| milestone.kind == kind)
}

/// A milestone of this moment, without a reason.
pub(super) fn milestone(kind: MilestoneKind, at: Timestamp) -> Milestone {
    Milestone {
        kind,
        at: to_milliseconds(at),
        reason: None,
        message: None,
        outcome: None,
    }
}

/// Whether a release has done something that must be finished or rolled back before another may begin.
pub fn has_begun(release: &Release) -> bool {
    use MilestoneKind::{HandingOver, Migrating, RollingBack, TrafficMoved};
    release.status.as_ref().is_some_and(|status| {
        [Migrating, HandingOver, TrafficMoved, RollingBack]
            .into_iter()
            .any(|kind| happened(status, kind).is_some())
    })
}

/// Whether a release has been accepted and its previous release recorded: from then on it looks after both sides.
pub fn previous_is_known(release: &Release) -> bool {
    release
        .status
        .as_ref()
        .is_some_and(|status| status.previous.is_some())
}

/// Whether the App has ever accepted the Release: only then is anything recorded of it.
pub(crate) fn is_accepted(status: &ReleaseStatus) -> bool {
    !status.milestones.is_empty() || !status.digests.is_empty()
}

/// Whether a release has ended.
pub fn has_ended(release: &Release) -> bool {
    release
        .status
        .as_ref()
        .is_some_and(|status| status.outcome.is_some())
}

pub(super) fn newer(view: &View) -> Option<String> {
    let revision = view.release().spec.revision;
    view.observed
        .siblings
        .iter()
        .filter(|sibling| sibling.spec.revision > revision && view.has_been_accepted(sibling))
        .map(|sibling| sibling.name_any())
        .next_back()
}

/// The newest of the newer Releases that is in progress, and is not about to go.
pub(super) fn newer_in_progress<'a>(view: &View<'a>) -> Option<&'a Arc<Release>> {
    let revision = view.release().spec.revision;
    let mut siblings = view.observed.siblings.iter().rev();
    siblings.find(|sibling| {
        sibling.spec.revision > revision
            && !has_ended(sibling)
            && sibling.metadata.deletion_timestamp.is_none()
    })
}

/// Whether a Release changes nothing any more, because that newer one takes over from it.
pub fn is_taken_over(release: &Release, by: &str) -> bool {
    let status = release.status.as_ref();
    status.and_then(|status| status.taken_over_by.as_deref()) == Some(by)
}

/// The failure of a release that has not begun when a newer one exists.
pub(super) fn superseded(view: &View) -> Option<Failure> {
    let newer = newer(view).filter(|_| !has_begun(view.release()))?;
    let message = format!("{newer} superseded {}.", view.name());
    Some(Failure {
        outcome: ReleaseOutcome::Superseded,
        ..Failure::new(Reason::Superseded, message)
    })
}

/// Ended Releases beyond the history that is kept, and the snapshots of those that are gone. What they own goes
/// with them; Backups stay.
pub(super) fn pruned(view: &View, status: &ReleaseStatus) -> Vec<Step> {
    let mut ended: Vec<_> = view
        .observed
        .siblings
        .iter()
        .filter(|release| has_ended(release) && Some(release.name_any()) != status.previous)
        .filter(|release| release.spec.revision < view.release().spec.revision)
        .filter(|release| release.metadata.deletion_timestamp.is_none())
        .collect();
    ended.sort_by_key(|release| std::cmp::Reverse(release.spec.revision));
    let old: Vec<_> = ended.into_iter().skip(HISTORY).collect();
    let kept: BTreeSet<_> = view
        .observed
        .siblings
        .iter()
        .filter(|release| !old.contains(release))
        .map(|release| release.name_any())
        .collect();
    let specs = view.observed.revisions.iter().filter(|revision| {
        // A newer one is created before its Release.
        let number = names::revision(view.app_name(), &revision.name);
        number.is_some_and(|number| number < view.release().spec.revision) && !kept.contains(&revision.name)
    });
    old.iter()
        .filter_map(|release| ObjectRef::of(Kind::Release, &release.metadata))
        .chain(specs.cloned())
        .map(Step::Delete)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rstest::rstest;
    use serde_json::json;

    fn release(revision: i64, outcome: Option<&str>, milestones: &[&str]) -> Arc<Release> {
        let milestones = milestones.iter();
        let milestones: Vec<_> = milestones
            .map(|kind| json!({"type": kind, "at": "2026-01-01T12:00:00Z"}))
            .collect();
        let release = json!({
            "apiVersion": "fairway.dev/v1alpha1",
            "kind": "Release",
            "metadata": {"name": format!("crm-{revision}")},
            "spec": {"app": "crm", "revision": revision},
            "status": {"outcome": outcome, "milestones": milestones},
        });
        Arc::new(serde_json::from_value(release).unwrap())
    }

    #[rstest]
    #[case::in_its_handover(None, &["Migrated", "HandingOver"], "crm-1")]
    #[case::with_the_traffic(None, &["TrafficMoved"], "crm-2")]
    #[case::succeeded(Some("Succeeded"), &["TrafficMoved", "Baked"], "crm-2")]
    #[case::before_its_traffic_returned(None, &["TrafficMoved", "RollingBack"], "crm-2")]
    #[case::after_its_traffic_returned(None, &["TrafficMoved", "RollingBack", "TrafficReturned"], "crm-1")]
    #[case::rolled_back_without_traffic(Some("Failed"), &["HandingOver", "RollingBack"], "crm-1")]
    #[case::failed(Some("Failed"), &["Migrating"], "crm-1")]
    #[case::failed_with_nothing_to_return_to(Some("Failed"), &["TrafficMoved"], "crm-2")]
    fn the_newest_release_that_has_the_traffic_serves(
        #[case] outcome: Option<&str>,
        #[case] milestones: &[&str],
        #[case] expected: &str,
    ) {
        let first = release(1, Some("Succeeded"), &["TrafficMoved", "Baked"]);
        let mut releases = [first, release(2, outcome, milestones)];
        let serves = |releases: &[Arc<Release>]| live(releases).map(|release| release.name_any());
        assert_eq!(serves(&releases).as_deref(), Some(expected));

        let deleted = Time(Timestamp::UNIX_EPOCH);
        Arc::make_mut(&mut releases[1]).metadata.deletion_timestamp = Some(deleted);
        assert_eq!(serves(&releases).as_deref(), Some("crm-1"));
    }

    #[rstest]
    #[case::migrates(None, &["Migrating"], (true, false))]
    #[case::hands_over(None, &["HandingOver"], (true, false))]
    #[case::has_the_traffic(None, &["TrafficMoved"], (true, false))]
    #[case::rolls_back(None, &["RollingBack"], (true, false))]
    #[case::rolled_back(Some("RolledBack"), &["TrafficMoved", "RollingBack"], (true, true))]
    fn a_release_has_begun_with_what_must_be_finished(
        #[case] outcome: Option<&str>,
        #[case] milestones: &[&str],
        #[case] expected: (bool, bool),
    ) {
        let release = release(1, outcome, milestones);
        assert_eq!((has_begun(&release), has_ended(&release)), expected);
    }

    #[test]
    fn a_release_without_milestones_has_not_begun() {
        assert!(!has_begun(&release(1, None, &[])));
        assert!(!has_begun(&Release::new(
            "crm-1",
            release(1, None, &[]).spec.clone()
        )));
    }
}
