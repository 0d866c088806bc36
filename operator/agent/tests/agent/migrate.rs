//! A migration by a command: once, and with an outcome that can be trusted.

use fairway_protocol::{MigrationOutcome, PROTOCOL_VERSION, Reason, SqlCheck, Task};

use rstest::rstest;

use crate::{
    harness::{Pod, identity, migration, psql, psql_in_background, requester, settle},
    postgres::{Database, release_lock, until, value},
    proxy::Proxy,
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
async fn a_missing_right_is_named_by_what_needs_it() {
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute("revoke select on pg_stat_activity from public")
        .await
        .expect("no right");
    let outcome = Pod::new(&database, "pod-1")
        .run(&Task::Migrate(migration("run-1", "sha256:a", &psql(APPEND))))
        .await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::NotStarted, "{}", outcome.log);
    let message = report.failure.expect("a failure").message;
    assert!(
        message.contains("while reading the database's sessions ("),
        "{message}"
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

/// SQL in a ConfigMap, or in a literal variable: image and command stay.
#[tokio::test]
async fn f5_a_migration_runs_again_when_its_inputs_change() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let folder = pod.path("inputs/0/..2026");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::os::unix::fs::symlink("..2026/2.sql", pod.path("inputs/0/2.sql")).expect("a link");
    let inputs = pod.path("inputs").display().to_string();
    let pod = pod.with("FAIRWAY_INPUTS_DIRECTORY", &inputs);
    let ran = MigrationOutcome::Applied;
    let skipped = MigrationOutcome::AlreadyApplied;
    for (run, content, literals, expected) in [
        ("run-1", "create table a ();", Some("one"), ran),
        ("run-2", "create table a ();", Some("one"), skipped),
        ("run-3", "create table b ();", Some("one"), ran),
        ("run-4", "create table b ();", Some("two"), ran),
        ("run-5", "create table a ();", Some("one"), skipped),
        // An operator that does not know of inputs.
        ("run-6", "create table c ();", None, skipped),
    ] {
        std::fs::write(folder.join("2.sql"), content).expect("a file");
        let mut task = migration(run, "sha256:a", &psql(APPEND));
        task.run.literals_hash = literals.map(str::to_owned);
        let outcome = pod.run(&Task::Migrate(task)).await;
        assert_eq!(outcome.migration().outcome, expected, "{run}: {}", outcome.log);
    }
    assert_eq!(rows(&database).await, "3");
    let of_an_earlier_version = "update fairway.migration_run set inputs_hash = null";
    let admin = database.admin().await;
    admin.batch_execute(of_an_earlier_version).await.expect("rows");
    let mut task = migration("run-7", "sha256:a", &psql(APPEND));
    task.run.literals_hash = Some("three".to_owned());
    let report = pod.run(&Task::Migrate(task)).await.migration();
    assert_eq!(report.outcome, skipped);
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

    let by_hand = "update fairway.migration_run set release = ''";
    database
        .admin()
        .await
        .batch_execute(by_hand)
        .await
        .expect("a row");
    let message = pod
        .run(&next)
        .await
        .migration()
        .failure
        .expect("a failure")
        .message;
    assert!(
        message.contains("run-1, which was applied by hand, failed")
            && message.contains("resolve the Migration with status.runId run-1."),
        "{message}"
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
    task.run.timeout_seconds = 1;
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
    let admin = database.holding_lock().await;
    let mut started = database.listen("started").await;
    let pod = Pod::new(&database, "pod-1");
    let script = psql(&format!("notify started; select pg_advisory_lock(42); {APPEND}"));
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    container.signal("TERM");
    release_lock(&admin).await;
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

/// The migration lock is held by a session in the database of the test.
const LOCK_IS_HELD: &str = "exists (select from pg_locks where locktype = 'advisory' and granted and database = (select \
     oid from pg_database where datname = current_database()) and (classid::int8 << 32) | objid::int8 = \
     x'66616972776179'::int8)";

#[tokio::test]
async fn a_migration_goes_on_when_the_database_is_back() {
    let database = Database::new().await;
    let (admin, mut started) = (database.holding_lock().await, database.listen("started").await);
    let proxy = Proxy::start(&database).await;
    let pod = Pod::new(&database, "pod-1").with("FAIRWAY_DATABASE_URL", &proxy.url);
    let script = psql(&format!("notify started; select pg_advisory_lock(42); {APPEND}"));
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    proxy.cut();
    until(&admin, &format!("not {LOCK_IS_HELD}")).await;
    proxy.restore();
    until(&admin, LOCK_IS_HELD).await;
    release_lock(&admin).await;
    let outcome = container.end().await;
    assert_eq!(
        outcome.migration().outcome,
        MigrationOutcome::Applied,
        "{}",
        outcome.log
    );
    assert!(outcome.log.contains("taking the lock again"), "{}", outcome.log);
    assert_eq!(rows(&database).await, "1");
}

#[tokio::test]
async fn a_deadline_is_kept_while_the_database_is_away() {
    let database = Database::new().await;
    let (mut started, mut stopped) = (database.listen("started").await, database.listen("stopped").await);
    let proxy = Proxy::start(&database).await;
    let pod = Pod::new(&database, "pod-1").with("FAIRWAY_DATABASE_URL", &proxy.url);
    let script = "say() { psql -qX \"${DATABASE_URL%%\\?*}\" -c \"notify $1\"; }\n\
                  trap 'say stopped; exit 1' TERM\nsay started\nsleep 600 &\nwait";
    let mut task = migration("run-1", "sha256:a", script);
    task.run.timeout_seconds = 3;
    let container = pod.start(&Task::Migrate(task));
    started.next().await;
    proxy.cut();
    stopped.next().await;
    proxy.restore();
    let outcome = container.end().await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Failed, "{}", outcome.log);
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::MigrationTimedOut);
    assert!(outcome.log.contains("taking the lock again"), "{}", outcome.log);
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
    assert_eq!(
        failure.message,
        "The migration could not start: \"node\" is not in the image of container web (shop/crm@sha256:a); if it is in that of \
         another container (proxy), set migration.container (nothing was executed)."
    );
}

/// The kernel says of a script that there is no such file, and means its interpreter.
#[rstest]
#[case::crlf("#!/bin/sh\r\ntrue\r\n", 127, "the first line of \"PROGRAM\" ends with CR LF")]
#[case::crlf_after_env(
    "#!/usr/bin/env sh\r\ntrue\r\n",
    127,
    "the first line of \"PROGRAM\" ends with CR LF"
)]
#[case::no_interpreter(
    "#!/opt/bin/bash -e\ntrue\n",
    127,
    "\"/opt/bin/bash\", the interpreter of \"PROGRAM\", is not in the image of container web (shop/crm@sha256:a)"
)]
#[case::no_first_line(
    "true\n",
    126,
    "\"PROGRAM\" in the image of container web (shop/crm@sha256:a) is neither a program"
)]
#[tokio::test]
async fn f18_a_script_that_cannot_be_executed_names_what_it_lacks(
    #[case] script: &str,
    #[case] code: i32,
    #[case] why: &str,
) {
    use std::os::unix::fs::PermissionsExt as _;
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let program = pod.path("migrate.sh");
    std::fs::write(&program, script).expect("a file");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let program = program.display().to_string();
    let mut task = migration("run-1", "sha256:a", "");
    task.command = vec![program.clone()];
    let outcome = pod.run(&Task::Migrate(task)).await;
    let report = outcome.migration();
    assert_eq!(
        (report.outcome, report.exit_code),
        (MigrationOutcome::Failed, Some(code)),
        "{}",
        outcome.log
    );
    let message = report.failure.expect("a failure").message;
    assert!(message.contains(&why.replace("PROGRAM", &program)), "{message}");
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
    task.run.checks = vec![
        check("has-log", "select count(*) from log;", "1"),
        check("no-lines", "select count(*) from log where line <> 'ran'", "3"),
    ];
    let expected = Some("check no-lines returned another value than \"3\"".to_owned());
    let outcome = pod.run(&Task::Migrate(task.clone())).await;
    assert_eq!(
        (outcome.code, outcome.migration().failed_check),
        (Some(1), expected.clone())
    );
    task.run.identity = identity("run-2", "sha256:a");
    let again = pod.run(&Task::Migrate(task.clone())).await.migration();
    assert_eq!(
        (again.outcome, again.failed_check),
        (MigrationOutcome::AlreadyApplied, expected)
    );

    task.run.identity = identity("run-3", "sha256:a");
    task.run.checks = vec![check("writes", "delete from log returning 1", "1")];
    let refused = pod
        .run(&Task::Migrate(task))
        .await
        .migration()
        .failed_check
        .expect("a refusal");
    assert!(refused.starts_with("check writes failed: 42601"), "{refused}");
    assert_eq!(rows(&database).await, "1");
}

/// The text of a check's expectation is read as the type of its result reads it.
#[tokio::test]
async fn f8_a_check_compares_by_meaning() {
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute("create domain flag as boolean; create type mood as enum ('true', 't')")
        .await
        .expect("types");
    let pod = Pod::new(&database, "pod-1");
    for (number, (sql, expect, holds)) in [
        ("select true", "true", true),
        ("select true", "t", true),
        ("select true", "TRUE", true),
        ("select false", "true", false),
        ("select true::flag", "true", true),
        ("select array[true, false]", "{true,false}", true),
        ("select 't'::text", "true", false),
        ("select 't'::mood", "true", false),
        ("select 1", "1", true),
        ("select 1", "1.0", false),
        ("select 1", "one", false),
        ("select 1.0", "1", true),
        ("select 1.50::numeric", "1.5", true),
        ("select 1::float8", "1.0", true),
        ("select '1.0'::text", "1", false),
        ("select 'ab'::char(4)", "ab", true),
        (
            r#"select '{"b": 1, "a": [true]}'::json"#,
            r#"{"a":[true],"b":1}"#,
            true,
        ),
        (
            r#"select '{"b": 1, "a": [true]}'::jsonb"#,
            r#"{"b":1,"a":[true]}"#,
            true,
        ),
        (
            "select '7D444840-9DC0-11D1-B245-5FFDCE74FAD2'::uuid",
            "7D4448409DC011D1B2455FFDCE74FAD2",
            true,
        ),
        ("select '2026-01-02'::date", "January 2, 2026", true),
        ("select interval '90 minutes'", "1.5 hours", true),
        ("select null::boolean", "null", true),
        ("select null::boolean", "false", false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut task = migration(&format!("run-{number}"), "sha256:a", "true");
        task.run.checks = vec![SqlCheck {
            name: "one".into(),
            sql: sql.into(),
            expect: expect.into(),
        }];
        let outcome = pod.run(&Task::Migrate(task)).await;
        let failed = outcome.migration().failed_check;
        assert_eq!(
            failed.is_none(),
            holds,
            "{sql} is {expect:?}: {failed:?}\n{}",
            outcome.log
        );
    }
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
    task.run.timeout_seconds = 1800;
    task.run.checks = vec![
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
    task.run.checks = vec![SqlCheck {
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

/// Whatever a check or a migration meets in the rows, no part of it leaves the pod by its report or the ledger.
#[tokio::test]
async fn s18e_no_value_of_a_row_is_reported() {
    const VALUE: &str = "ann@example.org";
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute(&format!(
            "set role crm; create table users (email text unique); insert into users values ('{VALUE}'); \
             create function raise() returns int4 language plpgsql as \
             $$ begin raise exception 'user % is odd', (select email from users); end $$; reset role"
        ))
        .await
        .expect("a table");
    let pod = Pod::new(&database, "pod-1");
    for (number, (sql, why)) in [
        ("select email from users", "returned another value than \"t\""),
        (
            "select email::int4 from users",
            "failed: 22P02: invalid input syntax",
        ),
        ("select raise() from users", "failed: P0001"),
        (
            "select nothing from users",
            "failed: 42703: column \"nothing\" does not exist",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut task = migration(&format!("run-{number}"), "sha256:a", "true");
        task.run.checks = vec![SqlCheck {
            name: "one".into(),
            sql: sql.into(),
            expect: "t".into(),
        }];
        let outcome = pod.run(&Task::Migrate(task)).await;
        let failed = outcome
            .migration()
            .failed_check
            .expect("a check that does not hold");
        assert!(failed.starts_with(&format!("check one {why}")), "{failed}");
        assert!(
            !outcome.message().contains(VALUE) && !outcome.log.contains(VALUE),
            "{failed}"
        );
    }

    for (number, statement) in [
        "insert into users select email from users",
        "alter table users alter email type int4 using email::int4",
        "alter table users add check (email <> (email || ''))",
    ]
    .into_iter()
    .enumerate()
    {
        // As programs print it: everything on one line.
        let statement = psql(&format!("\\set VERBOSITY verbose\n{statement};"));
        let script = format!("exec 2>&1\n{{ {statement}\n}} | tr '\\n' ' '\nexit 3");
        let outcome = pod
            .run(&Task::Migrate(migration(
                &format!("bad-{number}"),
                &format!("sha256:{number}"),
                &script,
            )))
            .await;
        assert_eq!(
            outcome.migration().outcome,
            MigrationOutcome::Failed,
            "{statement}"
        );
        assert!(
            !outcome.message().contains(VALUE),
            "{statement}: {}",
            outcome.message()
        );
    }
    let ledger = "select count(*) from fairway.migration_run r where r::text like '%ann@%'";
    assert_eq!(value(&admin, ledger).await, "0");
}

/// The index of a partitioned table alone is invalid, as it should be.
#[tokio::test]
async fn f6_an_index_on_only_the_parent_is_no_leftover() {
    let database = Database::new().await;
    let script = psql(
        "create table parts (a int4) partition by range (a);\n\
         create table part_1 partition of parts for values from (0) to (10);\n\
         create index parts_a on only parts (a);",
    );
    let report = Pod::new(&database, "pod-1")
        .run(&Task::Migrate(migration("run-1", "sha256:a", &script)))
        .await
        .migration();
    assert_eq!(
        (report.outcome, report.failed_check),
        (MigrationOutcome::Applied, None)
    );
}

/// A concurrent build waits for the transactions that were there before it.
#[tokio::test]
async fn f6_an_index_that_somebody_else_builds_is_no_leftover() {
    let database = Database::new().await;
    let (admin, blocker) = (database.admin().await, database.admin().await);
    admin
        .batch_execute("create table other (a int4)")
        .await
        .expect("a table");
    blocker
        .batch_execute("begin; insert into other values (1)")
        .await
        .expect("a transaction");
    let pod = Pod::new(&database, "pod-1");
    let go = pod.path("go");
    let mut started = database.listen("started").await;
    let script = format!(
        "{}\nuntil test -e {}; do :; done",
        psql("notify started;"),
        go.display()
    );
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    let builder = database.admin().await;
    let build = tokio::spawn(async move {
        builder
            .batch_execute("create index concurrently other_a on other (a)")
            .await
    });
    until(&admin, "exists (select from pg_class where relname = 'other_a')").await;
    std::fs::write(go, "").expect("a file");
    let report = container.end().await.migration();
    assert_eq!(
        (report.outcome, report.failed_check),
        (MigrationOutcome::Applied, None)
    );
    blocker.batch_execute("rollback").await.expect("a rollback");
    build.await.expect("a task").expect("an index");
}

/// An index that others left invalid since does not concern the run that the ledger knows.
#[tokio::test]
async fn f6_an_index_that_others_left_later_is_not_this_runs() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    pod.run(&Task::Migrate(migration("run-1", "sha256:a", &psql(APPEND))))
        .await;
    let admin = database.admin().await;
    admin
        .batch_execute("insert into log values ('ran')")
        .await
        .expect("a row");
    let built = admin
        .batch_execute("create unique index concurrently log_line on log (line)")
        .await;
    assert!(built.is_err(), "a duplicate leaves the index invalid");
    let report = pod
        .run(&Task::Migrate(migration("run-2", "sha256:a", &psql(APPEND))))
        .await
        .migration();
    assert_eq!(
        (report.outcome, report.failed_check),
        (MigrationOutcome::AlreadyApplied, None)
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
    task.run.requester = requester("blog");
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
    task.run.timeout_seconds = 1;
    let outcome = pod.run(&Task::Migrate(task)).await;
    let report = outcome.migration();
    assert_eq!(
        (outcome.code, report.outcome),
        (Some(1), MigrationOutcome::NotStarted)
    );
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::DatabaseUnreachable);
    assert!(
        failure.message.contains("refused") && !outcome.log.contains("s3cret"),
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
    task.run.timeout_seconds = 1;
    let outcome = Pod::new(&database, "pod-1").run(&Task::Migrate(task)).await;
    let report = outcome.migration();
    assert_eq!(
        (outcome.code, report.outcome),
        (Some(75), MigrationOutcome::NotStarted)
    );
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::MigrationRunning);
    // The server hides the rest of another role's session.
    let pid = value(&admin, "select pg_backend_pid()").await;
    let holder = format!("(pid {pid} of role postgres)");
    assert!(failure.message.contains(&holder), "{}", failure.message);
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

#[tokio::test]
async fn s17_a_migration_cannot_read_the_agents_variables() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1").with(
        "FAIRWAY_DATABASE_URL",
        &format!("{}&application_name=canary", database.url()),
    );
    // Whatever the agent's process shows, under its own user and, in the tests of a container, as root.
    let look = "for file in environ cmdline maps auxv; do cat /proc/$PPID/$file || true; done; \
                ls -l /proc/$PPID/fd /proc/$PPID/cwd || true; env";
    for container in [
        pod.start_as_user(&look_task("run-1", look)),
        pod.start(&look_task("run-2", look)),
    ] {
        let outcome = container.end().await;
        assert_eq!(
            outcome.migration().outcome,
            MigrationOutcome::Applied,
            "{}",
            outcome.log
        );
        assert!(
            outcome.output.contains("PGAPP=crm-migrator"),
            "the migration has its own: {}",
            outcome.output
        );
        for secret in ["canary", "FAIRWAY_DATABASE_URL"] {
            assert!(!outcome.output.contains(secret), "{}", outcome.output);
        }
    }
    let memory = "cat /proc/$PPID/environ && exit 3; head -c1 /proc/$PPID/mem && exit 3; ls /proc/$PPID/fd && exit 3; true";
    let run = pod.start_as_user(&look_task("run-3", memory)).end().await;
    assert_eq!(run.migration().outcome, MigrationOutcome::Applied, "{}", run.log);
}

fn look_task(run: &str, script: &str) -> Task {
    Task::Migrate(migration(run, run, script))
}

#[tokio::test]
async fn s18f_a_task_of_any_size_is_done() {
    let database = Database::new().await;
    let mut task = migration("run-1", "sha256:a", "true");
    let padding = "x".repeat(20_000);
    task.run.checks = (0..20)
        .map(|number| SqlCheck {
            name: format!("check-{number}"),
            sql: format!("select {number} /* {padding} */"),
            expect: number.to_string(),
        })
        .collect();
    let run = Pod::new(&database, "pod-1").run(&Task::Migrate(task)).await;
    assert_eq!(run.migration().outcome, MigrationOutcome::Applied, "{}", run.log);
    assert_eq!(run.migration().failed_check, None);
}

#[tokio::test]
async fn w20e_an_older_agent_refuses_the_task_of_a_newer_operator() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1").with("FAIRWAY_PROTOCOL", &(PROTOCOL_VERSION + 1).to_string());
    let report = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", "true")))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::NotStarted);
    let failure = report.failure.expect("a failure");
    assert!(failure.message.contains("agent.image"), "{}", failure.message);
}

#[tokio::test]
async fn w20e_an_older_agent_starts_nothing_on_a_newer_ledger() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let first = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", "true")))
        .await;
    assert_eq!(first.migration().outcome, MigrationOutcome::Applied);
    let admin = database.admin().await;
    let upgrade = "alter table fairway.migration_run add column rehearsal text; \
                   update fairway.ledger set version = version + 1";
    admin.batch_execute(upgrade).await.expect("an upgrade");
    let outcomes = [
        pod.run(&Task::Migrate(migration("run-2", "sha256:b", "false")))
            .await
            .migration(),
        pod.run(&Task::Settle(settle("run-1", "sha256:a")))
            .await
            .migration(),
    ];
    for report in outcomes {
        let failure = report.failure.expect("a failure");
        assert_eq!(failure.reason, Reason::LedgerNewer);
        assert!(failure.message.contains("Upgrade Fairway"), "{}", failure.message);
    }
    assert_eq!(
        value(&admin, "select count(*) from fairway.migration_run").await,
        "1"
    );
}
