//! The task `migrate`: a migration by a command of its own, as a child of the agent.

use std::{io, time::Duration};

use fairway_protocol::{Failure, MigrationReport, MigrationTask, Reason};
use tokio::time::Instant;

use crate::{
    child::Child,
    environment::Environment,
    program,
    report::not_started,
    run::{Claim, Observed, Processes, Request, Run, StopReason, Verdict},
    termination::Termination,
};

/// Runs the migration to its end, and settles an earlier attempt at it that was interrupted.
pub(crate) async fn run(task: MigrationTask, environment: &Environment) -> MigrationReport {
    // Received from the first moment to the last, also while the ledger is asked.
    let mut termination = Termination::listen();
    let request = Request::new(environment, &task.run);
    match Run::claim(&request, &mut termination).await {
        Ok(Claim::Begun(mut run)) => {
            let observed = execute(&task, &request, &mut run, &mut termination).await;
            run.conclude(&observed).await
        }
        Ok(Claim::Interrupted(mut run)) => run.settle().await,
        Ok(Claim::Settled(report)) => *report,
        Err(failure) => not_run(failure),
    }
}

/// The answer to a task that was not started.
pub(crate) fn not_run(failure: Failure) -> MigrationReport {
    not_started(failure)
}

/// How the child ended.
struct End {
    code: i32,
    /// Why the agent stopped the child; none when it ended by itself.
    stopped: Option<StopReason>,
}

async fn execute(
    task: &MigrationTask,
    request: &Request<'_>,
    run: &mut Run<'_>,
    termination: &mut Termination,
) -> Observed {
    let mut child = match Child::spawn(&task.command) {
        Ok(child) => child,
        Err(error) => return not_spawned(task, &error, request.environment),
    };
    tracing::info!("run {} started", run.id());
    let End { code, stopped } = supervise(&mut child, run, request.limit, termination).await;
    let tail = child.clean_up().await;
    let verdict = match (stopped, code) {
        (None, 0) => Verdict::Success,
        (None, code) => {
            let program = task.command.first().map_or("", String::as_str);
            let what = match program::why_exited(program, code, request.environment) {
                Some(why) => format!("{}: {why}", exited(code)),
                None => exited(code),
            };
            Verdict::failed(Reason::MigrationFailed, what)
        }
        (Some(stop), _) => Verdict::failed(stop.reason(), stop.to_string()),
    };
    let (sqlstate, last_error) = match verdict {
        Verdict::Success => (None, None),
        Verdict::Failure { .. } => (tail.sqlstate(), tail.last_error(&request.environment.redactor())),
    };
    Observed {
        exit_code: Some(code),
        sqlstate,
        last_error,
        ..Observed::new(verdict, Processes::Gone)
    }
}

fn exited(code: i32) -> String {
    match code {
        137 => "The migration was killed by SIGKILL (out of memory?)".to_owned(),
        // A shell's convention, and ours: 128 and the signal's number, of which there are 64.
        129..=192 => format!("The migration was killed by signal {}", code - 128),
        _ => format!("The migration exited with code {code}"),
    }
}

fn not_spawned(task: &MigrationTask, error: &io::Error, environment: &Environment) -> Observed {
    let program = task.command.first().map_or("", String::as_str);
    let why = program::why_not(program, error, environment, &task.container);
    // As a shell has it.
    let code = match error.kind() {
        io::ErrorKind::NotFound => 127,
        _ => 126,
    };
    let verdict = Verdict::not_started(
        Reason::CommandNotFound,
        format!("The migration could not start: {why}"),
    );
    Observed {
        exit_code: Some(code),
        ..Observed::new(verdict, Processes::Gone)
    }
}

/// Waits for the end of the child, and stops it after `limit` or when the migration lock is lost for good.
async fn supervise(
    child: &mut Child,
    run: &mut Run<'_>,
    limit: Duration,
    termination: &mut Termination,
) -> End {
    let deadline = Instant::now() + limit;
    let mut lock = run.watch_lock();
    let stop = loop {
        tokio::select! {
            biased;
            code = child.ended() => return End { code, stopped: None },
            () = tokio::time::sleep_until(deadline) => break StopReason::TimedOut(limit),
            () = termination.requested() => {
                tracing::warn!("the pod was asked to end: the migration is not interrupted, it goes on to its end");
            }
            stop = lock.lost() => break stop,
        }
    };
    End {
        code: child.stop().await,
        stopped: Some(stop),
    }
}
