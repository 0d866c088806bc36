//! A migration by a command: once, and with an outcome that can be trusted.

use fairway_protocol::{MigrationOutcome, Reason, SqlCheck, Task};

use crate::{
    harness::{Pod, identity, migration, psql, psql_in_background, requester},
    postgres::{Database, value},
};

/// A migration without any guard of its own: run twice, it leaves two rows.
const APPEND: &str = "create table if not exists log (line text); insert into log values ('ran');";

async fn rows(database: &Database) -> String {
    value(&database.admin().await, "select count(*) from log").await
}

#[tokio::test]
async fn a_migration_is_applied_and_recorded() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let outcome = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", &psql(APPEND))))
        .await;
    let report = outcome.migration();
    assert_eq!(
        (outcome.code, report.outcome),
        (Some(0), MigrationOutcome::Applied),
        "{}",
        outcome.log
    );
    assert_eq!(
        (report.failure, report.exit_code, report.failed_check),
        (None, Some(0), None)
    );
    assert_ne!(report.before, report.after);
    let row = "select concat_ws(' ', state, release, pod_uid, client_address) from fairway.migration_run";
    assert_eq!(
        value(&database.admin().await, row).await,
        "committed crm-1 pod-1 127.0.0.1"
    );
}

#[tokio::test]
async fn two_agents_at_once_run_it_once() {
    let database = Database::new().await;
    let task = Task::Migrate(migration("run-1", "sha256:a", &psql(APPEND)));
    let pods = ["pod-1", "pod-2"].map(|uid| Pod::new(&database, uid));
    let (first, second) = tokio::join!(pods[0].run(&task), pods[1].run(&task));
    for outcome in [first, second] {
        assert_eq!(
            outcome.migration().outcome,
            MigrationOutcome::Applied,
            "{}",
            outcome.log
        );
    }
    assert_eq!(rows(&database).await, "1");
}

#[tokio::test]
async fn the_same_image_and_command_are_not_run_again() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    for (run, digest, expected, ahead, count) in [
        ("run-1", "sha256:a", MigrationOutcome::Applied, false, "1"),
        ("run-2", "sha256:a", MigrationOutcome::AlreadyApplied, false, "1"),
        ("run-3", "sha256:b", MigrationOutcome::Applied, false, "2"),
        ("run-4", "sha256:a", MigrationOutcome::AlreadyApplied, true, "2"),
        ("run-3", "sha256:b", MigrationOutcome::Applied, false, "2"),
    ] {
        let outcome = pod
            .run(&Task::Migrate(migration(run, digest, &psql(APPEND))))
            .await;
        let report = outcome.migration();
        assert_eq!(
            (report.outcome, report.schema_ahead),
            (expected, ahead),
            "{run}: {}",
            outcome.log
        );
        assert_eq!(rows(&database).await, count, "{run}");
    }
}

#[tokio::test]
async fn a_migration_that_does_nothing_keeps_the_fingerprint() {
    let database = Database::new().await;
    let report = Pod::new(&database, "pod-1")
        .run(&Task::Migrate(migration("run-1", "sha256:a", "true")))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::Applied);
    assert!(report.before.is_some() && report.before == report.after);
}

#[tokio::test]
async fn a_failure_says_why_and_hides_secrets() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1").with("API_KEY", "hunter2-hunter2");
    let script = psql("\\set VERBOSITY verbose\nselect 'hunter2-hunter2'::int4;") + "\nexit 3";
    let outcome = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", &script)))
        .await;
    let report = outcome.migration();
    assert_eq!(
        (outcome.code, report.outcome),
        (Some(1), MigrationOutcome::Failed)
    );
    assert_eq!(report.before, report.after);
    assert_eq!(
        (report.exit_code, report.sqlstate.as_deref()),
        (Some(3), Some("22P02")),
        "{}",
        outcome.log
    );
    let line = report.last_error.expect("an error line");
    assert!(
        line.contains("invalid input syntax") && line.contains("***"),
        "{line}"
    );
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::MigrationFailed);
    assert!(
        failure.message.starts_with("The migration exited with code 3: "),
        "{}",
        failure.message
    );
    assert!(!outcome.message().contains("hunter2"));
}

#[tokio::test]
async fn a_partial_migration_blocks_until_it_is_resolved() {
    use fairway_protocol::{Resolution, SettleTask};
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let broken = psql("create table half (a int4); insert into missing values (1);");
    let report = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", &broken)))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::Partial);
    assert_eq!(
        report.failure.expect("a failure").reason,
        Reason::MigrationPartial
    );

    let next = Task::Migrate(migration("run-2", "sha256:b", &psql(APPEND)));
    let report = pod.run(&next).await.migration();
    assert_eq!(report.outcome, MigrationOutcome::Blocked);
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::MigrationUnresolved);
    assert!(
        failure.message.contains("run-1 of Release crm-1"),
        "{}",
        failure.message
    );

    let verdict = SettleTask {
        resolution: Some(Resolution::NotApplied),
        resolution_token: Some("token-1".into()),
        ..crate::harness::settle("run-1", "sha256:a")
    };
    let report = pod.run(&Task::Settle(verdict)).await.migration();
    assert_eq!(report.outcome, MigrationOutcome::Failed);
    assert_eq!(
        report.failure.expect("a failure").reason,
        Reason::MigrationNotApplied
    );
    assert_eq!(
        pod.run(&next).await.migration().outcome,
        MigrationOutcome::Applied
    );
}

/// One of its sessions keeps everyone from the rows of the history, which tell what has become of it: judged before
/// they are ended, it would be judged never.
#[tokio::test]
async fn a_hanging_migration_is_judged_without_its_sessions() {
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute("set role crm; create table schema_migrations (version text); reset role")
        .await
        .expect("a table");
    let pod = Pod::new(&database, "pod-1");
    let hang = "begin; create table late (a int4); select pg_sleep(600); commit;";
    let locking = hang.replacen(
        "begin;",
        "begin; lock table schema_migrations in access exclusive mode;",
        1,
    );
    let script = psql_in_background(&locking) + "\n" + &psql(hang);
    let mut task = migration("run-1", "sha256:a", &script);
    task.timeout_seconds = 1;
    let outcome = pod.run(&Task::Migrate(task)).await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Failed, "{}", outcome.log);
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::MigrationTimedOut);
    assert!(
        failure.message.contains("did not end within 1 s"),
        "{}",
        failure.message
    );
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() and usename = 'crm' \
         and application_name <> 'fairway-agent'";
    assert_eq!(value(&admin, sessions).await, "0");
    let late = "select count(*) from pg_tables where tablename = 'late'";
    assert_eq!(value(&admin, late).await, "0");
}

#[tokio::test]
async fn nothing_that_the_migration_started_outlives_it() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let file = pod.path("pid").display().to_string();
    let script = format!(
        "setsid sh -c 'echo $$ >{file}.new; mv {file}.new {file}; exec sleep 600' &\n\
         until test -e {file}; do :; done"
    );
    let report = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", &script)))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::Applied);
    let pid = std::fs::read_to_string(&file).expect("the daemon's pid");
    assert!(
        !std::path::Path::new("/proc").join(pid.trim()).exists(),
        "process {pid} is alive"
    );
}

#[tokio::test]
async fn sigterm_does_not_interrupt_a_migration() {
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute("select pg_advisory_lock(42)")
        .await
        .expect("the lock");
    let mut started = database.listen("started").await;
    let pod = Pod::new(&database, "pod-1");
    let script = psql(&format!("notify started; select pg_advisory_lock(42); {APPEND}"));
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    container.signal("TERM");
    admin
        .batch_execute("select pg_advisory_unlock(42)")
        .await
        .expect("the lock");
    let outcome = container.end().await;
    assert_eq!(outcome.migration().outcome, MigrationOutcome::Applied);
    assert_eq!(rows(&database).await, "1");
}

#[tokio::test]
async fn a_migration_survives_the_loss_of_its_lock_session() {
    let database = Database::new().await;
    // It goes on when somebody holds the migration's lock again: the agent, on another session. The first one is
    // waited for to its end, as until then it is a holder like any other.
    let holder = "select pid from pg_locks where locktype = 'advisory' and granted and database = \
                  (select oid from pg_database where datname = current_database())";
    let script = psql(&format!(
        "select pg_terminate_backend(pid, 60000) from ({holder}) as a;\n\
         do $$ begin while not exists ({holder}) loop end loop; end $$;\n{APPEND}"
    ));
    let outcome = Pod::new(&database, "pod-1")
        .run(&Task::Migrate(migration("run-1", "sha256:a", &script)))
        .await;
    assert_eq!(
        outcome.migration().outcome,
        MigrationOutcome::Applied,
        "{}",
        outcome.log
    );
    assert!(outcome.log.contains("taking the lock again"), "{}", outcome.log);
    let state = value(&database.admin().await, "select state from fairway.migration_run").await;
    assert_eq!(state, "committed");
}

#[tokio::test]
async fn a_run_settled_elsewhere_is_stopped_and_not_overwritten() {
    let database = Database::new().await;
    let holder = "select pid from pg_locks where locktype = 'advisory' and granted and database = \
                  (select oid from pg_database where datname = current_database())";
    let script = psql(&format!(
        "update fairway.migration_run set state = 'unknown', message = 'Settled elsewhere.';\n\
         select pg_terminate_backend(pid) from ({holder}) as a;\nselect pg_sleep(600);"
    ));
    let outcome = Pod::new(&database, "pod-1")
        .run(&Task::Migrate(migration("run-1", "sha256:a", &script)))
        .await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Unknown, "{}", outcome.log);
    assert_eq!(report.failure.expect("a failure").message, "Settled elsewhere.");
}

#[tokio::test]
async fn the_migration_does_not_see_the_agents_variables() {
    let database = Database::new().await;
    let task = migration("run-1", "sha256:a", "if env | grep ^FAIRWAY_; then exit 1; fi");
    let report = Pod::new(&database, "pod-1")
        .run(&Task::Migrate(task))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::Applied);
}

#[tokio::test]
async fn a_program_that_is_not_in_the_image_is_named() {
    let database = Database::new().await;
    let mut task = migration("run-1", "sha256:a", "");
    task.command = vec!["node".into(), "migrate.js".into()];
    let pod = Pod::new(&database, "pod-1").with("PATH", "/nowhere");
    let report = pod.run(&Task::Migrate(task)).await.migration();
    assert_eq!(
        (report.outcome, report.exit_code),
        (MigrationOutcome::Failed, Some(127))
    );
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::CommandNotFound);
    assert!(
        failure.message.contains("\"node\" is not in the image"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn checks_are_made_again_when_the_migration_is_not_run() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let mut task = migration("run-1", "sha256:a", &psql(APPEND));
    let check = |name: &str, sql: &str, expect: &str| SqlCheck {
        name: name.into(),
        sql: sql.into(),
        expect: expect.into(),
    };
    task.checks = vec![
        check("has-log", "select count(*) from log;", "1"),
        check("no-lines", "select count(*) from log where line <> 'ran'", "3"),
    ];
    let expected = Some("check no-lines returned \"0\", expected \"3\"".to_owned());
    let outcome = pod.run(&Task::Migrate(task.clone())).await;
    assert_eq!(
        (outcome.code, outcome.migration().failed_check),
        (Some(1), expected.clone())
    );
    task.run = identity("run-2", "sha256:a");
    let again = pod.run(&Task::Migrate(task.clone())).await.migration();
    assert_eq!(
        (again.outcome, again.failed_check),
        (MigrationOutcome::AlreadyApplied, expected)
    );

    task.run = identity("run-3", "sha256:a");
    task.checks = vec![check("writes", "delete from log returning 1", "1")];
    let refused = pod
        .run(&Task::Migrate(task))
        .await
        .migration()
        .failed_check
        .expect("a refusal");
    assert!(refused.starts_with("check writes failed: 42601"), "{refused}");
    assert_eq!(rows(&database).await, "1");
}

#[tokio::test]
async fn checks_have_the_time_of_the_migration() {
    let database = Database::new().await;
    let setting = |name: &str, holds: &str| SqlCheck {
        name: name.into(),
        sql: format!("select setting::int8 {holds} from pg_settings where name = '{name}'"),
        expect: "t".into(),
    };
    let mut task = migration("run-1", "sha256:a", "true");
    task.timeout_seconds = 1800;
    task.checks = vec![
        setting("lock_timeout", "= 0"),
        setting("statement_timeout", "between 1700000 and 1800000"),
    ];
    let report = Pod::new(&database, "pod-1")
        .run(&Task::Migrate(task))
        .await
        .migration();
    assert_eq!(
        (report.outcome, report.failed_check),
        (MigrationOutcome::Applied, None)
    );
}

#[tokio::test]
async fn a_check_that_could_not_be_made_is_repeated() {
    let database = Database::new().await;
    let (admin, locker) = (database.admin().await, database.admin().await);
    admin
        .batch_execute("set role crm; create table locked (a int4); reset role")
        .await
        .expect("a table");
    locker
        .batch_execute("begin; lock table locked in access exclusive mode")
        .await
        .expect("a lock");
    let mut task = migration("run-1", "sha256:a", "true");
    task.checks = vec![SqlCheck {
        name: "empty".into(),
        sql: "select count(*) from locked".into(),
        expect: "0".into(),
    }];
    let pod = Pod::new(&database, "pod-1");
    let running = pod.start(&Task::Migrate(task));
    let cancel = "select count(pg_cancel_backend(pid)) from pg_stat_activity \
                  where datname = current_database() and wait_event_type = 'Lock'";
    while value(&admin, cancel).await == "0" {}
    locker.batch_execute("rollback").await.expect("no lock");
    let report = running.end().await.migration();
    assert_eq!(
        (report.outcome, report.failed_check),
        (MigrationOutcome::Applied, None)
    );
}

#[tokio::test]
async fn an_index_that_was_left_invalid_fails_the_checks() {
    let database = Database::new().await;
    let script = psql(
        "create table twice (a int4); insert into twice values (1), (1);\n\
         \\set ON_ERROR_STOP off\ncreate unique index concurrently twice_a on twice (a);",
    );
    let pod = Pod::new(&database, "pod-1");
    let invalid = Some("index public.twice_a is invalid; drop it and create it again");
    let report = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", &script)))
        .await
        .migration();
    assert_eq!(
        (report.outcome, report.failed_check.as_deref()),
        (MigrationOutcome::Applied, invalid)
    );
    let again = pod
        .run(&Task::Migrate(migration("run-2", "sha256:a", &script)))
        .await
        .migration();
    assert_eq!(
        (again.outcome, again.failed_check.as_deref()),
        (MigrationOutcome::AlreadyApplied, invalid),
        "a retry does not step over it"
    );
}

#[tokio::test]
async fn an_exit_code_that_is_no_signal_is_reported_as_it_is() {
    let database = Database::new().await;
    let report = Pod::new(&database, "pod-1")
        .run(&Task::Migrate(migration("run-1", "sha256:a", "exit 255")))
        .await
        .migration();
    let message = report.failure.expect("a failure").message;
    assert!(message.contains("exited with code 255"), "{message}");
}

#[tokio::test]
async fn another_app_is_refused() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    pod.run(&Task::Migrate(migration("run-1", "sha256:a", "true")))
        .await;
    let mut task = migration("run-2", "sha256:a", "true");
    task.requester = requester("blog");
    let report = pod.run(&Task::Migrate(task)).await.migration();
    assert_eq!(report.outcome, MigrationOutcome::NotStarted);
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::DatabaseOwned);
    assert!(failure.message.contains("App shop/crm"), "{}", failure.message);
}

#[tokio::test]
async fn a_database_that_does_not_answer_starts_nothing() {
    let database = Database::new().await;
    let url = "postgres://crm:s3cret@127.0.0.1:1/crm";
    let pod = Pod::new(&database, "pod-1").with("FAIRWAY_DATABASE_URL", url);
    let mut task = migration("run-1", "sha256:a", "true");
    task.timeout_seconds = 1;
    let outcome = pod.run(&Task::Migrate(task)).await;
    let report = outcome.migration();
    assert_eq!(
        (outcome.code, report.outcome),
        (Some(1), MigrationOutcome::NotStarted)
    );
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::DatabaseUnreachable);
    assert!(
        failure.message.contains("127.0.0.1:1") && !outcome.log.contains("s3cret"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_run_whose_lock_is_held_exits_75() {
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute("select pg_advisory_lock(x'66616972776179'::int8)")
        .await
        .expect("the lock");
    let mut task = migration("run-1", "sha256:a", "true");
    task.timeout_seconds = 1;
    let outcome = Pod::new(&database, "pod-1").run(&Task::Migrate(task)).await;
    let report = outcome.migration();
    assert_eq!(
        (outcome.code, report.outcome),
        (Some(75), MigrationOutcome::NotStarted)
    );
    assert_eq!(
        report.failure.expect("a failure").reason,
        Reason::MigrationRunning
    );
}

#[tokio::test]
async fn a_pod_that_is_stopped_while_it_waits_starts_nothing() {
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute("select pg_advisory_lock(x'66616972776179'::int8)")
        .await
        .expect("the lock");
    let pod = Pod::new(&database, "pod-1");
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &psql(APPEND))));
    container.hears_termination().await;
    container.signal("TERM");
    let report = container.end().await.migration();
    assert_eq!(report.outcome, MigrationOutcome::NotStarted);
    assert_eq!(report.failure.expect("a failure").reason, Reason::AgentFailed);
    assert_eq!(value(&admin, "select to_regclass('log') is null").await, "t");
}

#[tokio::test]
async fn as_process_1_it_reaps_orphans_and_ends_daemons() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let script = format!("(true &)\nsetsid sleep 600 &\n{}", psql(APPEND));
    let task =
        serde_json::to_string(&Task::Migrate(migration("run-1", "sha256:a", &script))).expect("a task");
    let mut container = std::process::Command::new("unshare");
    container.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    let possible = container
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        eprintln!("not proven here: only root may make a process namespace");
        return;
    }
    let agent = pod.command(&["run"]);
    let mut container = std::process::Command::new("unshare");
    container
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(agent.get_program());
    container
        .args(agent.get_args())
        .env_clear()
        .env("FAIRWAY_TASK", task);
    container.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = tokio::task::spawn_blocking(move || container.output())
        .await
        .expect("a thread")
        .expect("unshare");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert_eq!(rows(&database).await, "1");
}
