//! The task `migrate`: a migration by a command of its own, as a child of the agent.

use std::io::ErrorKind;

use fairway_protocol::{Failure, MigrationReport, MigrationTask, Reason};
use tokio::time::Instant;

use crate::{
    child::Child,
    environment::Environment,
    report::not_started,
    run::{Claim, Observed, Processes, Request, Run, Verdict},
    termination::Termination,
};

/// Runs the migration to its end, and settles an earlier attempt at it that was interrupted.
pub(crate) async fn run(task: MigrationTask, environment: &Environment) -> MigrationReport {
    // Received from the first moment to the last, also while the ledger is asked.
    let mut termination = Termination::listen();
    let request = Request::of_migration(&task, environment);
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

/// How the child ended, with its exit code.
enum End {
    ByItself(i32),
    TimedOut(i32),
    /// Another agent took the lock, or the database could not be asked who has it.
    LockLost(i32),
}

async fn execute(
    task: &MigrationTask,
    request: &Request<'_>,
    run: &mut Run<'_>,
    termination: &mut Termination,
) -> Observed {
    let mut child = match Child::spawn(&task.command) {
        Ok(child) => child,
        Err(error) => return not_spawned(&task.command, &error),
    };
    tracing::info!("run {} started", run.id());
    let deadline = Instant::now() + request.limit;
    let end = supervise(&mut child, run, deadline, termination).await;
    let tail = child.clean_up().await;
    let (verdict, code) = match end {
        End::ByItself(0) => (Verdict::Success, 0),
        End::ByItself(code) => (Verdict::failed(Reason::MigrationFailed, exited(code)), code),
        End::TimedOut(code) => {
            let what = format!(
                "The migration did not end within {} s and was stopped",
                task.timeout_seconds
            );
            (Verdict::failed(Reason::MigrationTimedOut, what), code)
        }
        End::LockLost(code) => {
            let what = "The migration was stopped because its lock on the database was lost".to_owned();
            (Verdict::failed(Reason::MigrationFailed, what), code)
        }
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

fn not_spawned(command: &[String], error: &std::io::Error) -> Observed {
    let program = command.first().map_or("", String::as_str);
    let (what, code) = match error.kind() {
        ErrorKind::NotFound => (
            format!("The migration could not start: {program:?} is not in the image"),
            127,
        ),
        ErrorKind::PermissionDenied => (
            format!("The migration could not start: {program:?} is not executable"),
            126,
        ),
        _ => (format!("The migration could not start {program:?}: {error}"), 126),
    };
    let verdict = Verdict::not_started(Reason::CommandNotFound, what);
    Observed {
        exit_code: Some(code),
        ..Observed::new(verdict, Processes::Gone)
    }
}

async fn supervise(
    child: &mut Child,
    run: &mut Run<'_>,
    deadline: Instant,
    termination: &mut Termination,
) -> End {
    loop {
        tokio::select! {
            biased;
            code = child.ended() => return End::ByItself(code),
            () = tokio::time::sleep_until(deadline) => return End::TimedOut(child.stop().await),
            () = termination.requested() => {
                tracing::warn!("the pod was asked to end: the migration is not interrupted, it goes on to its end");
            }
            () = run.lock_lost() => if !run.regain_lock().await {
                return End::LockLost(child.stop().await);
            },
        }
    }
}
