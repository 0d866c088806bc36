//! Runs that were cut off: settled by what is in the database, never by running them again.

use fairway_protocol::{MigrationOutcome, Reason, Resolution, SettleTask, Task};

use crate::{
    harness::{Pod, migration, psql, psql_in_background, settle},
    postgres::{Database, release_lock, until, value},
};

/// Starts a migration, waits until it is past `first`, and kills the agent; the migration's own processes live on. Returns
/// the agent's pod.
async fn interrupted_after(database: &Database, first: &str) -> Pod {
    let admin = database.holding_lock().await;
    let mut started = database.listen("started").await;
    let script = psql(&format!(
        "{first}\nnotify started; select pg_advisory_lock(42); create table too_late (a int4);"
    ));
    let pod = Pod::new(database, "pod-1");
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    container.killed().await;
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() and usename = 'crm' \
                    and application_name = 'psql'";
    assert_eq!(
        value(&admin, sessions).await,
        "1",
        "the migration's session outlives the agent"
    );
    pod
}

const ROW: &str = "insert into log values ('ran');";

async fn with_log() -> Database {
    let database = Database::new().await;
    database
        .admin()
        .await
        .batch_execute("create table log (line text); grant all on log to crm")
        .await
        .expect("a table");
    database
}

#[tokio::test]
async fn an_interrupted_run_without_effect_failed_and_is_not_rerun() {
    let database = with_log().await;
    interrupted_after(&database, ROW).await;
    let pod = Pod::new(&database, "pod-2");
    let report = pod
        .run(&Task::Settle(settle("run-1", "sha256:a")))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::Failed);
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::MigrationInterrupted);
    assert!(
        failure.message.contains("rows may have changed"),
        "{}",
        failure.message
    );

    let again = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", &psql(ROW))))
        .await
        .migration();
    assert_eq!(again.outcome, MigrationOutcome::Failed);
    let admin = database.admin().await;
    assert_eq!(value(&admin, "select count(*) from log").await, "1");
    assert_eq!(
        value(&admin, "select to_regclass('too_late') is null").await,
        "t",
        "its session was ended"
    );
}

#[tokio::test]
async fn the_next_pod_of_an_interrupted_run_settles_it() {
    let database = with_log().await;
    interrupted_after(&database, ROW).await;
    let pod = Pod::new(&database, "pod-2");
    let report = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", &psql(ROW))))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::Failed);
    assert_eq!(
        value(&database.admin().await, "select count(*) from log").await,
        "1"
    );
}

#[tokio::test]
async fn an_interrupted_run_with_effect_is_unknown_until_resolved() {
    let database = with_log().await;
    interrupted_after(&database, "create table half (a int4);").await;
    let pod = Pod::new(&database, "pod-2");
    let report = pod
        .run(&Task::Settle(settle("run-1", "sha256:a")))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::Unknown);
    assert_eq!(
        report.failure.expect("a failure").reason,
        Reason::MigrationUnknown
    );
    let blocked = pod
        .run(&Task::Migrate(migration("run-2", "sha256:b", "true")))
        .await
        .migration();
    assert_eq!(blocked.outcome, MigrationOutcome::Blocked);

    let verdict = SettleTask {
        resolution: Some(Resolution::Applied),
        resolution_token: Some("token-1".into()),
        ..settle("run-1", "sha256:a")
    };
    let report = pod.run(&Task::Settle(verdict.clone())).await.migration();
    assert_eq!(
        (report.outcome, report.failure),
        (MigrationOutcome::Applied, None)
    );
    let other = SettleTask {
        resolution: Some(Resolution::NotApplied),
        ..verdict
    };
    let report = pod.run(&Task::Settle(other)).await.migration();
    assert_eq!(
        report.outcome,
        MigrationOutcome::Applied,
        "the first verdict stays"
    );
    let again = pod
        .run(&Task::Migrate(migration("run-2", "sha256:a", "false")))
        .await
        .migration();
    assert_eq!(again.outcome, MigrationOutcome::AlreadyApplied);
}

#[tokio::test]
async fn a_run_of_a_deleted_release_is_settled_by_the_next_one() {
    let database = with_log().await;
    interrupted_after(&database, ROW).await;
    let pod = Pod::new(&database, "pod-2");
    let next = Task::Migrate(migration("run-2", "sha256:b", "true"));
    assert_eq!(
        pod.run(&next).await.migration().outcome,
        MigrationOutcome::Applied
    );
    let states = "select string_agg(state, ' ' order by ordinal) from fairway.migration_run";
    assert_eq!(value(&database.admin().await, states).await, "failed committed");
}

#[tokio::test]
async fn without_a_row_nothing_ran() {
    let database = Database::new().await;
    let report = Pod::new(&database, "pod-1")
        .run(&Task::Settle(settle("run-1", "sha256:a")))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::NotStarted);
    assert_eq!(
        report.failure.expect("a failure").reason,
        Reason::MigrationNotStarted
    );
    let schemas = "select count(*) from pg_namespace where nspname = 'fairway'";
    assert_eq!(
        value(&database.admin().await, schemas).await,
        "0",
        "reading creates nothing"
    );
}

#[tokio::test]
async fn a_live_run_is_not_settled() {
    let database = Database::new().await;
    let admin = database.holding_lock().await;
    let mut started = database.listen("started").await;
    let pod = Pod::new(&database, "pod-1");
    let script = psql("notify started; select pg_advisory_lock(42);");
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    let task = SettleTask {
        timeout_seconds: 1,
        ..settle("run-1", "sha256:a")
    };
    let outcome = Pod::new(&database, "pod-2").run(&Task::Settle(task)).await;
    let report = outcome.migration();
    assert_eq!(
        (outcome.code, report.outcome),
        (Some(75), MigrationOutcome::Undecided)
    );
    assert_eq!(
        report.failure.expect("a failure").reason,
        Reason::MigrationRunning
    );
    release_lock(&admin).await;
    assert_eq!(
        container.end().await.migration().outcome,
        MigrationOutcome::Applied
    );
    let report = pod
        .run(&Task::Settle(settle("run-1", "sha256:a")))
        .await
        .migration();
    assert_eq!(report.outcome, MigrationOutcome::Applied);
}

#[tokio::test]
async fn sessions_of_another_address_are_waited_for_not_ended() {
    let database = with_log().await;
    let admin = database.holding_lock().await;
    // The pod's own address is not the one that the server sees, so no session may be taken for the migration's.
    let pod = Pod::new(&database, "pod-1").with("FAIRWAY_POD_IP", "10.0.0.9");
    let insert = psql_in_background("insert into log select 'slow' from pg_advisory_lock(42);");
    let go = pod.path("go");
    let script = format!("{insert}\nuntil test -e {}; do :; done; exit 1", go.display());
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    until(
        &admin,
        "exists (select from pg_stat_activity where datname = current_database() and wait_event = 'advisory')",
    )
    .await;
    std::fs::write(go, "").expect("a file");
    until(&admin, LOOKS_FOR_WORK).await;
    release_lock(&admin).await;
    let report = container.end().await.migration();
    assert_eq!(report.outcome, MigrationOutcome::Failed);
    assert_eq!(
        value(&admin, "select count(*) from log").await,
        "1",
        "the statement was let to its end"
    );
}

#[tokio::test]
async fn later_work_of_another_role_is_waited_for() {
    let database = with_log().await;
    let (mut admin, watching) = (database.admin().await, database.admin().await);
    let pod = Pod::new(&database, "pod-1");
    let go = pod.path("go");
    let mut started = database.listen("started").await;
    let notify = psql("notify started;");
    let script = format!("{notify}\nuntil test -e {}; do :; done; exit 1", go.display());
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    // As a pooler's session or one of a role that the migration takes on: nobody can tell whose it is.
    let work = admin.transaction().await.expect("a transaction");
    work.batch_execute("create table late (a int4)")
        .await
        .expect("a table");
    std::fs::write(go, "").expect("a file");
    until(&watching, LOOKS_FOR_WORK).await;
    work.commit().await.expect("a commit");
    let report = container.end().await.migration();
    assert_eq!(report.outcome, MigrationOutcome::Partial, "{:?}", report.failure);
}

#[tokio::test]
async fn work_that_began_before_the_run_is_not_waited_for() {
    let database = with_log().await;
    let mut admin = database.admin().await;
    let other = admin.transaction().await.expect("a transaction");
    other
        .batch_execute("insert into log values ('of somebody else')")
        .await
        .expect("a row");
    let pod = Pod::new(&database, "pod-1");
    let failed = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", "exit 1")))
        .await
        .migration();
    assert_eq!(failed.outcome, MigrationOutcome::Failed, "{:?}", failed.failure);
    let applied = pod
        .run(&Task::Migrate(migration("run-2", "sha256:b", "true")))
        .await
        .migration();
    assert_eq!(
        applied.outcome,
        MigrationOutcome::Applied,
        "{:?}",
        applied.failure
    );
    other.rollback().await.expect("a rollback");
}

/// A report of another role holds locks for as long as it reads, and longer than anybody waits for.
#[tokio::test]
async fn f9_a_report_of_another_role_is_not_waited_for() {
    let database = with_log().await;
    let mut admin = database.admin().await;
    let pod = Pod::new(&database, "pod-1");
    let go = pod.path("go");
    let mut started = database.listen("started").await;
    let script = format!(
        "{}\nuntil test -e {}; do :; done; exit 1",
        psql("notify started;"),
        go.display()
    );
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    let report = admin.transaction().await.expect("a transaction");
    report
        .batch_execute("lock table log in access share mode; select count(*) from log")
        .await
        .expect("a report");
    std::fs::write(go, "").expect("a file");
    let failed = container.end().await.migration();
    assert_eq!(failed.outcome, MigrationOutcome::Failed, "{:?}", failed.failure);
    report.rollback().await.expect("a rollback");
}

/// A client that is busy all the time makes one transaction after the other: each of them ends.
#[tokio::test]
async fn f9_a_busy_client_is_waited_for_by_its_transaction() {
    let database = with_log().await;
    let (admin, busy) = (database.admin().await, database.admin().await);
    let pod = Pod::new(&database, "pod-1");
    let go = pod.path("go");
    let mut started = database.listen("started").await;
    let script = format!(
        "{}\nuntil test -e {}; do :; done; exit 1",
        psql("notify started;"),
        go.display()
    );
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let client = tokio::spawn(async move {
        while stopped.try_recv().is_err() {
            busy.batch_execute("commit; begin; insert into log values ('busy')")
                .await
                .expect("another transaction");
        }
    });
    until(
        &admin,
        "exists (select from pg_locks where locktype = 'transactionid')",
    )
    .await;
    std::fs::write(go, "").expect("a file");
    let failed = container.end().await.migration();
    assert_eq!(failed.outcome, MigrationOutcome::Failed, "{:?}", failed.failure);
    stop.send(()).expect("the client is busy");
    client.await.expect("a client");
}

/// Whether an agent looks for sessions that are still at work, after its own look at the beginning of the run.
const LOOKS_FOR_WORK: &str = "exists (select from pg_stat_activity where query like '%virtualtransaction%' \
    and application_name = 'fairway-agent' and datname = current_database())";

/// Deletes what the ledger knows, as a failover or a migration may.
const LOSSES: [&str; 2] = ["delete from fairway.migration_run", "drop schema fairway cascade"];

#[tokio::test]
async fn w2_a_run_that_began_and_has_no_row_is_not_run_again() {
    for loss in LOSSES {
        let database = with_log().await;
        interrupted_after(&database, ROW).await;
        let admin = database.admin().await;
        let before = value(&admin, "select pre_fingerprint from fairway.migration_run").await;
        admin.batch_execute(loss).await.expect(loss);
        let pod = Pod::new(&database, "pod-2");
        let known = SettleTask {
            before: Some(before.clone()),
            ..settle("run-1", "sha256:a")
        };
        let report = pod.run(&Task::Settle(known.clone())).await.migration();
        assert_eq!(report.outcome, MigrationOutcome::Unknown, "{loss}");
        assert_eq!(report.before, Some(before));
        for (run, outcome) in [
            ("run-1", MigrationOutcome::Unknown),
            ("run-2", MigrationOutcome::Blocked),
        ] {
            let again = migration(run, "sha256:a", &psql(ROW));
            assert_eq!(pod.run(&Task::Migrate(again)).await.migration().outcome, outcome);
        }
        let verdict = SettleTask {
            resolution: Some(Resolution::Applied),
            ..known
        };
        let report = pod.run(&Task::Settle(verdict)).await.migration();
        assert_eq!(report.outcome, MigrationOutcome::Applied);
        let next = migration("run-2", "sha256:a", &psql(ROW));
        let next = pod.run(&Task::Migrate(next)).await.migration();
        assert_eq!(
            next.outcome,
            MigrationOutcome::AlreadyApplied,
            "the ledger has the row that was resolved"
        );
        assert_eq!(value(&admin, "select count(*) from log").await, "1");
    }
}

/// Nobody has asked before: the verdict itself writes the row, which the next release finds.
#[tokio::test]
async fn w2_a_verdict_on_a_run_without_a_row_writes_one() {
    for (resolution, expected) in [
        (Resolution::Applied, MigrationOutcome::AlreadyApplied),
        (Resolution::NotApplied, MigrationOutcome::Applied),
    ] {
        let database = with_log().await;
        let pod = Pod::new(&database, "pod-1");
        let verdict = SettleTask {
            resolution: Some(resolution),
            resolution_token: Some("token-1".into()),
            ..settle("run-1", "sha256:a")
        };
        pod.run(&Task::Settle(verdict)).await;
        let row = "select concat_ws(' ', run_id, state, resolution_token) from fairway.migration_run";
        assert_eq!(value(&database.admin().await, row).await, "run-1 unknown token-1");
        let next = migration("run-2", "sha256:a", &psql(ROW));
        assert_eq!(pod.run(&Task::Migrate(next)).await.migration().outcome, expected);
    }
}

#[tokio::test]
async fn w2_a_migration_that_removes_its_row_is_unknown_at_once() {
    for loss in LOSSES {
        let database = Database::new().await;
        let run = migration("run-1", "sha256:a", &psql(loss));
        let start = std::time::Instant::now();
        let report = Pod::new(&database, "pod-1")
            .run(&Task::Migrate(run))
            .await
            .migration();
        assert_eq!(report.outcome, MigrationOutcome::Unknown, "{loss}");
        assert!(report.before.is_some(), "it says that it began");
        assert!(start.elapsed() < std::time::Duration::from_secs(60));
    }
}

#[tokio::test]
async fn w2_a_killed_agent_leaves_word_that_the_run_began() {
    let database = with_log().await;
    let pod = interrupted_after(&database, ROW).await;
    let message = std::fs::read(pod.path("termination-log")).expect("a message");
    let left: fairway_protocol::Begun = serde_json::from_slice(&message).expect("a note");
    let admin = database.admin().await;
    let before = value(&admin, "select pre_fingerprint from fairway.migration_run").await;
    assert_eq!(left.begun, before);
}
