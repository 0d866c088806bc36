//! Copies of a proven backup.

use super::*;
use crate::protocol::{CopyEvidence, CopyReport};
use fairway_crds::app::FurtherStore;
use fairway_crds::backup::CopyState::{self, Failed, Pending, Verified};
use fairway_crds::condition::{COPY_MISSING, READY};

fn claim(name: &str) -> Store {
    Store::Volume(VolumeStore {
        claim_name: name.into(),
    })
}

/// A backup that is proven, with copies of these names, each in a claim of its name.
fn proven_with(copies: &[&str]) -> Story {
    let mut story = Story::new();
    let further = |name: &&str| FurtherStore {
        name: (*name).into(),
        store: claim(name),
    };
    *asked(&mut story) = copies.iter().map(further).collect();
    story.settle();
    story.answer(1, &proven());
    story
}

fn asked(story: &mut Story) -> &mut Vec<FurtherStore> {
    &mut story.app.as_mut().unwrap().spec.backup.as_mut().unwrap().copies
}

fn copied() -> CopyReport {
    CopyReport {
        evidence: Some(CopyEvidence {
            bytes: 4711,
            note: None,
        }),
        failure: None,
    }
}

fn refused(reason: &str) -> CopyReport {
    CopyReport {
        evidence: None,
        failure: failure(Cause::Environment, reason).failure,
    }
}

fn states(story: &Story) -> Vec<CopyState> {
    story.status().copies.iter().map(|copy| copy.state).collect()
}

fn condition<'a>(story: &'a Story, type_: &str) -> Option<&'a Condition> {
    let mut conditions = story.status().conditions.iter();
    conditions.find(|condition| condition.type_ == type_)
}

fn answer(story: &mut Story, job: &str, report: &CopyReport) {
    story.bench.answer(job, report);
    story.settle();
}

#[test]
fn a_backup_has_succeeded_before_it_is_copied() {
    let story = proven_with(&["offsite", "vault"]);
    assert_eq!(story.status().outcome, Some(BackupOutcome::Succeeded));
    assert_eq!(condition(&story, READY).unwrap().status, "True");
    assert_eq!(states(&story), [Pending, Pending]);
    assert_eq!(story.bench.names(), ["nightly-copy1-1", "nightly-copy2-1"]);
    let missing = condition(&story, COPY_MISSING).unwrap();
    assert_eq!((&*missing.status, &*missing.reason), ("True", "Copying"));
    assert_eq!(
        missing.message,
        "Of 2 copies of this backup, 2 are not verified. Copy offsite in claim offsite: Copying the backup and reading the copy back."
    );
}

#[test]
fn an_attempt_at_a_copy_is_recorded_before_its_job_exists() {
    let mut story = Story::new();
    *asked(&mut story) = vec![FurtherStore {
        name: "offsite".into(),
        store: claim("offsite"),
    }];
    story.settle();
    story.bench.answer("nightly-backup-1", &proven());
    let proven = story.pass();
    assert_eq!(proven.status.copies[0].attempts, None);
    story.backup.status = Some(proven.status);
    let recorded = story.pass();
    assert_eq!(recorded.status.copies[0].attempts.as_ref().unwrap().current, 1);
    let creates = |steps: &[Step]| steps.iter().any(|step| matches!(step, Step::Create(_)));
    assert!(!creates(&recorded.steps), "{:?}", recorded.steps);
    story.bench.execute(&recorded.steps);
    story.backup.status = Some(recorded.status);
    assert!(creates(&story.pass().steps));
}

#[test]
fn a_backup_whose_copies_are_verified_leaves_no_job() {
    let mut story = proven_with(&["offsite"]);
    story.bench.answer("nightly-copy1-1", &copied());
    let decision = story.pass();
    assert_eq!(
        decision.steps,
        [],
        "the report is recorded before its Job is removed"
    );
    story.settle();
    let copy = &story.status().copies[0];
    assert_eq!(
        (copy.state, copy.verified_at.as_deref()),
        (Verified, Some("2026-01-01T00:00:00Z"))
    );
    assert_eq!(
        copy.message.as_deref(),
        Some("Copied 4711 bytes to shop/crm/nightly-0f1e2d3c of claim offsite, and read them back.")
    );
    assert_eq!(condition(&story, COPY_MISSING), None);
    assert_eq!(story.bench.names(), [""; 0]);
    assert_eq!(story.pass().wake, Wake::OnChange);
}

#[test]
fn a_store_that_fails_holds_up_no_other_copy() {
    let mut story = proven_with(&["offsite", "vault"]);
    answer(&mut story, "nightly-copy1-1", &refused("StoreUnreachable"));
    answer(&mut story, "nightly-copy2-1", &copied());
    assert_eq!(states(&story), [Pending, Verified]);
    let next = story.bench.now + SignedDuration::from_secs(5);
    assert_eq!(story.pass().wake, Wake::At(next));
    let missing = condition(&story, COPY_MISSING).unwrap();
    assert!(
        missing
            .message
            .starts_with("Of 2 copies of this backup, 1 is not verified."),
        "{}",
        missing.message
    );
    assert!(
        missing.message.contains("StoreUnreachable happened."),
        "{}",
        missing.message
    );
    assert_eq!(condition(&story, READY).unwrap().status, "True");

    story.bench.now = next;
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-copy1-2"]);
    answer(&mut story, "nightly-copy1-2", &copied());
    assert_eq!(states(&story), [Verified, Verified]);
    assert_eq!(condition(&story, COPY_MISSING), None);
}

#[test]
fn a_week_of_attempts_ends_a_copy_with_the_last_reason() {
    let mut story = proven_with(&["offsite"]);
    for attempt in 1..3000 {
        let job = format!("nightly-copy1-{attempt}");
        answer(&mut story, &job, &refused("StoreAccessDenied"));
        if states(&story) == [Failed] {
            break;
        }
        let attempts = story.status().copies[0].attempts.as_ref().unwrap();
        story.bench.now = attempts.next.unwrap();
        story.settle();
    }
    let copy = &story.status().copies[0];
    assert_eq!(
        (copy.state, copy.reason.as_deref()),
        (Failed, Some("StoreAccessDenied"))
    );
    let message = copy.message.as_deref().unwrap();
    assert!(
        message.ends_with("No attempt succeeded within 168h."),
        "{message}"
    );
    assert_eq!(story.status().outcome, Some(BackupOutcome::Succeeded));
    assert_eq!(
        condition(&story, COPY_MISSING).unwrap().reason,
        "StoreAccessDenied"
    );
    assert_eq!(story.bench.names(), [""; 0]);
}

#[test]
fn a_corrected_store_is_used_by_the_next_attempt() {
    let mut story = proven_with(&["offsite"]);
    answer(&mut story, "nightly-copy1-1", &refused("StoreMissing"));
    asked(&mut story)[0].store = claim("vault");
    story.bench.later(SignedDuration::from_secs(5));
    story.settle();
    assert_eq!(story.status().copies[0].store, claim("vault"));
    let mounted = |job: &Job| {
        let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let volumes = pod.volumes.iter().flatten();
        let claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
        claims.map(|claim| claim.claim_name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(mounted(&story.bench.jobs[0]), ["backups", "vault"]);
}

#[rstest]
#[case::copy(|story: &mut Story| asked(story).clear(), "App crm does not name offsite in spec.backup.copies any more.")]
#[case::app(|story: &mut Story| story.app = None, "App crm does not exist or is being deleted, so that nothing is copied any more.")]
fn what_nobody_asks_for_any_more_is_not_attempted_again(#[case] drop: fn(&mut Story), #[case] message: &str) {
    let mut story = proven_with(&["offsite"]);
    answer(&mut story, "nightly-copy1-1", &refused("StoreFull"));
    drop(&mut story);
    story.bench.later(SignedDuration::from_secs(5));
    story.settle();
    let copy = &story.status().copies[0];
    assert_eq!((copy.state, copy.reason.as_deref()), (Failed, Some("AppMissing")));
    assert_eq!(copy.message.as_deref(), Some(message));
}

#[test]
fn copies_that_are_asked_for_later_are_those_of_later_backups() {
    let mut story = proven_with(&[]);
    *asked(&mut story) = vec![FurtherStore {
        name: "offsite".into(),
        store: claim("offsite"),
    }];
    story.settle();
    assert_eq!(story.status().copies, []);
    assert_eq!(story.bench.names(), [""; 0]);
}
