//! Preflighted: the database and the backup store are fit for this release.

use crate::build::agent::{self, Outcome};
use crate::protocol::{Cause, PreflightReport};
use crate::release::attempts::{self, Retry};
use crate::release::history::happened;
use crate::release::verdict::{Failure, Verdict, Wait};
use crate::release::view::View;
use crate::{Object, ObjectRef, names, object::Kind};
use fairway_crds::Reason;
use fairway_crds::release::{CheckVerdict, MilestoneKind, ReleaseStatus};
use jiff::SignedDuration;
use kube::ResourceExt;

/// Time that the environment has to become fit altogether.
const PREFLIGHT_DEADLINE: SignedDuration = SignedDuration::from_hours(1);

/// Met when the database is reachable and fit, and the backup store can be written.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let past = happened(status, MilestoneKind::Migrating).is_some();
    if view.snapshot.database.is_none() || past || !status.evidence.preflight.is_empty() {
        return Verdict::Met;
    }
    let attempt = match attempts::current(status, "Preflighted", PREFLIGHT_DEADLINE, view.now) {
        Ok(attempt) => attempt,
        Err(verdict) => return verdict,
    };
    let retry = Retry {
        name: "Preflighted",
        deadline: PREFLIGHT_DEADLINE,
        now: view.now,
    };
    let name = names::preflight_job(view.name(), attempt);
    let job = view
        .observed
        .jobs
        .iter()
        .find(|job| job.name_any() == name && view.owns(job.owner_references()));
    let waiting = Wait::machine(
        Reason::CheckingDatabase,
        "checking that the database is reachable and fit for this release",
    );
    let Some(job) = job else {
        let store = view
            .today()
            .and_then(|today| today.backup)
            .map(|backup| backup.store);
        let job = agent::preflight_job(
            view.settings,
            view.release(),
            view.snapshot,
            store.as_ref(),
            attempt,
        );
        return attempts::create(view, status, &retry, Object::Job(job), waiting);
    };
    let used = ObjectRef::of(Kind::Job, &job.metadata);
    match agent::job_report::<PreflightReport>(Some(job), &view.observed.pods, &name) {
        Outcome::Reported(PreflightReport {
            failure: None,
            checks,
            ..
        }) => {
            status.evidence.preflight = checks
                .into_iter()
                .map(|(name, passed)| CheckVerdict { name, passed })
                .collect();
            attempts::forget(status, "Preflighted");
            Verdict::Met
        }
        Outcome::Reported(PreflightReport {
            failure: Some(failure),
            ..
        }) => match failure.cause {
            Cause::Environment => attempts::failed(status, &retry, failure.reason(), &failure.message, used),
            Cause::Version => Failure::new(failure.reason(), failure.message).verdict(),
        },
        Outcome::Lost { reason } => attempts::failed(
            status,
            &retry,
            Reason::PodLost,
            &format!("the checking pod ended without an answer: {reason}"),
            used,
        ),
        Outcome::Running {
            waiting: Some((_, message)),
        } => {
            attempts::note(status, "Preflighted", Reason::PodNotStarting, &message);
            attempts::overdue(status, &retry).unwrap_or_else(|| {
                let until = attempts::deadline(status, "Preflighted", PREFLIGHT_DEADLINE);
                Verdict::Wait(Wait {
                    until,
                    ..Wait::machine(Reason::PodNotStarting, message)
                })
            })
        }
        Outcome::NotThere | Outcome::Running { waiting: None } => attempts::overdue(status, &retry)
            .unwrap_or_else(|| {
                let until = attempts::deadline(status, "Preflighted", PREFLIGHT_DEADLINE);
                Verdict::Wait(Wait { until, ..waiting })
            }),
    }
}
