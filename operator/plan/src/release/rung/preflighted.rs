//! Preflighted: the database and the backup store are fit for this release.

use crate::Object;
use crate::attempt::{Failed, SLOW_START};
use crate::build::agent;
use crate::protocol::PreflightReport;
use crate::release::attempted::{self, Attempted, Work};
use crate::release::history::happened;
use crate::release::verdict::Verdict;
use crate::release::view::View;
use crate::tasks::PREFLIGHT;
use fairway_crds::Reason;
use fairway_crds::release::{CheckVerdict, MilestoneKind, ReleaseStatus};
use jiff::SignedDuration;

/// The work of this rung. The environment has an hour altogether to become fit.
const WORK: Work = Work {
    rung: "Preflighted",
    task: &PREFLIGHT,
    part: "",
    deadline: SignedDuration::from_hours(1),
    working_reason: Reason::CheckingDatabase,
    working_message: "Checking that the database is reachable and fit for this release.",
    blocked_reason: |_| Reason::PodNotStarting,
    slow_start: Some(SLOW_START),
};

/// Met when the database is reachable and fit, and the backup store can be written.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let past = happened(status, MilestoneKind::Migrating).is_some();
    if view.snapshot.database.is_none() || past || !status.evidence.preflight.is_empty() {
        return Verdict::Met;
    }
    let create = |attempt| {
        let backup = view.today().and_then(|today| today.backup);
        let release = view.release();
        Object::Job(agent::preflight_job(
            view.settings,
            release,
            view.snapshot,
            backup.as_ref(),
            attempt,
        ))
    };
    match attempted::advance(view, status, &WORK, |child| child.outcome(), create, judge) {
        Attempted::NotYet(verdict) => verdict,
        Attempted::Done(checks) => {
            status.evidence.preflight = checks;
            Verdict::Met
        }
    }
}

fn judge(report: PreflightReport) -> Result<Vec<CheckVerdict>, Failed> {
    if let Some(failure) = report.failure {
        return Err(Failed {
            cause: failure.cause,
            reason: failure.reason(),
            message: failure.message,
        });
    }
    let checks = report.checks.into_iter();
    Ok(checks
        .map(|(name, passed)| CheckVerdict { name, passed })
        .collect())
}
