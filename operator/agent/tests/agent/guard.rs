//! A migration that the application makes itself when it starts.

use std::net::Ipv4Addr;

use axum::{Router, http::StatusCode, routing::get};
use fairway_protocol::{GuardTask, HttpRequest, MigrationOutcome, Reason, Scheme, Task};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    harness::{Container, Pod, migration, psql, requested, settle},
    postgres::{Database, release_lock, until, value},
    proxy::Proxy,
};

/// An application beside the guard, which a test makes healthy.
pub(crate) struct Application {
    port: u16,
    healthy: watch::Sender<bool>,
    asked: watch::Receiver<u32>,
}

impl Application {
    pub(crate) async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    async fn start_at(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (healthy, state) = watch::channel(false);
        let (count, asked) = watch::channel(0);
        let health = move || async move {
            count.send_modify(|count| *count += 1);
            match *state.borrow() {
                true => (StatusCode::OK, r#"{"ok":true}"#),
                false => (StatusCode::SERVICE_UNAVAILABLE, r#"{"ok":false}"#),
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/health", get(health))).await });
        Self { port, healthy, asked }
    }

    /// Returns when the guard has asked once more.
    async fn asked(&mut self) {
        self.asked.changed().await.expect("the application serves");
    }
}

pub(crate) fn guard(run: &str, application: &Application) -> GuardTask {
    GuardTask {
        run: requested(run, "sha256:a"),
        health: vec![(
            application.port,
            HttpRequest {
                scheme: Scheme::Http,
                path: "/health".into(),
                host: None,
                headers: Vec::new(),
                status: 200,
                json: [("/ok".to_owned(), "true".to_owned())].into(),
            },
        )],
        success_threshold: 3,
        period_milliseconds: 10,
    }
}

fn may_start(pod: &Pod) -> bool {
    pod.command(&["started"]).status().expect("the agent").success()
}

/// What the application does to the database when it starts.
async fn migrate(database: &Database) {
    database
        .admin()
        .await
        .batch_execute("create table made_at_start (a int4)")
        .await
        .expect("a table");
}

#[tokio::test]
async fn passing_health_is_success_and_reported_after_a_restart() {
    let database = Database::new().await;
    let mut application = Application::start().await;
    let pod = Pod::new(&database, "pod-1");
    assert!(!may_start(&pod));
    let task = Task::Guard(guard("run-1", &application));
    let container = pod.start(&task);
    application.asked().await;
    assert!(
        may_start(&pod),
        "health is only asked for after the application may start"
    );
    assert_eq!(
        value(&database.admin().await, "select state from fairway.migration_run").await,
        "running"
    );
    migrate(&database).await;
    application.healthy.send_replace(true);
    let outcome = container.end().await;
    let report = outcome.migration();
    assert_eq!(
        (outcome.code, report.outcome),
        (Some(0), MigrationOutcome::Applied),
        "{}",
        outcome.log
    );
    assert_ne!(report.before, report.after);

    let restarted = pod.start(&task);
    restarted.terminated().await;
    assert_eq!(restarted.end().await.migration(), report);
}

#[tokio::test]
async fn an_application_that_ends_before_it_is_healthy_fails() {
    let database = Database::new().await;
    let mut application = Application::start().await;
    let pod = Pod::new(&database, "pod-1");
    let container = pod.start(&Task::Guard(guard("run-1", &application)));
    application.asked().await;
    application.asked().await;
    container.signal("TERM");
    let outcome = container.end().await;
    let report = outcome.migration();
    assert_eq!(
        (outcome.code, report.outcome),
        (Some(1), MigrationOutcome::Failed)
    );
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::MigrationFailed);
    let why = "The application exited or was stopped before its migration was seen to be complete (GET /health answered 503, expected 200)";
    assert!(failure.message.contains(why), "{}", failure.message);
}

#[tokio::test]
async fn a_killed_guard_goes_on_watching_after_its_restart() {
    let database = Database::new().await;
    let mut application = Application::start().await;
    let pod = Pod::new(&database, "pod-1");
    let task = Task::Guard(guard("run-1", &application));
    let container = pod.start(&task);
    application.asked().await;
    container.killed().await;
    migrate(&database).await;
    application.healthy.send_replace(true);
    let outcome = pod.run(&task).await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Applied, "{}", outcome.log);
    assert_ne!(report.before, report.after);
    assert_eq!(
        value(
            &database.admin().await,
            "select count(*) from fairway.migration_run"
        )
        .await,
        "1"
    );
}

#[tokio::test]
async fn a_restarted_guard_without_its_database_does_not_say_that_nothing_ran() {
    let database = Database::new().await;
    let mut application = Application::start().await;
    let pod = Pod::new(&database, "pod-1");
    let mut task = guard("run-1", &application);
    let container = pod.start(&Task::Guard(task.clone()));
    application.asked().await;
    container.killed().await;
    // Time to connect is cut to that of the run.
    task.run.timeout_seconds = 1;
    let away = pod.with("FAIRWAY_DATABASE_URL", "postgres://crm:p@127.0.0.1:9/crm");
    let outcome = away.run(&Task::Guard(task)).await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Undecided, "{}", outcome.log);
    let failure = report.failure.expect("a failure");
    assert!(
        failure.message.contains("could not go on watching"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_guard_that_cannot_let_the_application_start_says_that_nothing_ran() {
    let database = Database::new().await;
    let application = Application::start().await;
    let pod = Pod::new(&database, "pod-1");
    // A link that leads nowhere cannot be written.
    let started = pod.folder.path().join("guard/guard.started");
    std::os::unix::fs::symlink("nowhere/file", started).expect("a link");
    let outcome = pod.run(&Task::Guard(guard("run-1", &application))).await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Failed, "{}", outcome.log);
    let failure = report.failure.expect("a failure");
    assert!(
        failure.message.contains("(nothing was executed)"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn an_application_out_of_time_is_judged_when_it_is_gone() {
    let database = Database::new().await;
    let application = Application::start().await;
    let pod = Pod::new(&database, "pod-1");
    let mut task = guard("run-1", &application);
    task.run.timeout_seconds = 1;
    let task = Task::Guard(task);
    let outcome = pod.run(&task).await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Undecided, "{}", outcome.log);
    assert_eq!(
        report.failure.clone().expect("a failure").reason,
        Reason::MigrationTimedOut
    );

    // The kubelet starts the guard again, and the application changes the schema after all.
    let restarted = pod.start(&task);
    migrate(&database).await;
    restarted.terminated().await;
    assert_eq!(restarted.end().await.migration(), report);
    let settled = Pod::new(&database, "pod-2")
        .run(&Task::Settle(settle("run-1", "sha256:a")))
        .await
        .migration();
    assert_eq!(settled.outcome, MigrationOutcome::Partial);
    let message = settled.failure.expect("a failure").message;
    assert!(
        message.starts_with("The migration was not seen to be complete within 1 s")
            && message.contains("The schema has changed."),
        "{message}"
    );
}

#[tokio::test]
async fn an_application_out_of_time_without_effect_has_failed() {
    let database = Database::new().await;
    let application = Application::start().await;
    let mut task = guard("run-1", &application);
    task.run.timeout_seconds = 1;
    Pod::new(&database, "pod-1").run(&Task::Guard(task)).await;
    let settled = Pod::new(&database, "pod-2")
        .run(&Task::Settle(settle("run-1", "sha256:a")))
        .await
        .migration();
    assert_eq!(settled.outcome, MigrationOutcome::Failed);
    assert_eq!(
        settled.failure.expect("a failure").reason,
        Reason::MigrationTimedOut
    );
}

/// The application answers from the first moment on, and migrates behind that.
#[tokio::test]
async fn f10_a_healthy_application_in_a_transaction_has_not_migrated() {
    let database = Database::new().await;
    let mut application = Application::start().await;
    application.healthy.send_replace(true);
    let pod = Pod::new(&database, "pod-1");
    let hold = database.holding_lock().await;
    let mut started = database.listen("started").await;
    let mut task = guard("run-1", &application);
    task.success_threshold = 100;
    let container = pod.start(&Task::Guard(task));
    application.asked().await;
    let mut migrating = pod.psql(
        "begin; create table first (a int4); notify started; commit; \
         begin; create table second (a int4); select pg_advisory_lock(42); create table third (a int4); commit;",
    );
    started.next().await;
    for _ in 0..200 {
        application.asked().await;
    }
    let state = "select state from fairway.migration_run";
    assert_eq!(
        value(&hold, state).await,
        "running",
        "the second transaction is open"
    );
    release_lock(&hold).await;
    let outcome = container.end().await;
    assert_eq!(
        outcome.migration().outcome,
        MigrationOutcome::Applied,
        "{}",
        outcome.log
    );
    assert!(
        outcome
            .log
            .contains("it is in the middle of a transaction: database sessions (pid "),
        "{}",
        outcome.log
    );
    assert!(migrating.wait().expect("psql").success());
    let third = "select to_regclass('third') is not null";
    assert_eq!(value(&hold, third).await, "t");
}

/// The server hides where sessions of another role come from.
#[tokio::test]
async fn f10_a_transaction_of_another_role_is_waited_for() {
    let database = Database::new().await;
    let mut application = Application::start().await;
    application.healthy.send_replace(true);
    let hold = database.holding_lock().await;
    hold.batch_execute(
        "create role f10_application login password 'x'; grant create on schema public to f10_application",
    )
    .await
    .expect("a role");
    let (port, name) = (database.server().port, &database.name);
    let pod = Pod::new(&database, "pod-1").with(
        "DATABASE_URL",
        &format!("postgres://f10_application:x@127.0.0.1:{port}/{name}"),
    );
    let mut started = database.listen("started").await;
    let mut task = guard("run-1", &application);
    task.success_threshold = 100;
    let container = pod.start(&Task::Guard(task));
    application.asked().await;
    let mut migrating = pod.psql(
        "begin; create table first (a int4); notify started; commit; \
         begin; create table second (a int4); select pg_advisory_lock(42); create table third (a int4); commit;",
    );
    started.next().await;
    let waiting = "exists (select from pg_locks where locktype = 'advisory' and not granted)";
    until(&database.admin().await, waiting).await;
    for _ in 0..3 {
        application.asked().await;
    }
    let state = "select state from fairway.migration_run";
    assert_eq!(
        value(&hold, state).await,
        "running",
        "the second transaction is open"
    );
    release_lock(&hold).await;
    let outcome = container.end().await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Applied, "{}", outcome.log);
    assert_eq!(report.note, None);
    let why = "which may be its own, are in the middle of a transaction that writes";
    assert!(outcome.log.contains(why), "{}", outcome.log);
    assert!(migrating.wait().expect("psql").success());
    let third = "select to_regclass('third') is not null";
    assert_eq!(value(&hold, third).await, "t");
}

/// A pod that the server sees at an address that is not its own, as behind address translation.
fn translated(database: &Database) -> (Pod, Ipv4Addr) {
    let own = Ipv4Addr::new(127, 0, 0, 9);
    (
        Pod::new(database, "pod-1").with("FAIRWAY_POD_IP", &own.to_string()),
        own,
    )
}

#[tokio::test]
async fn f10_behind_a_translated_address_a_transaction_that_writes_is_waited_for() {
    let database = Database::new().await;
    let (pod, own) = translated(&database);
    let mut application = Application::start_at(own).await;
    let hold = database.holding_lock().await;
    let mut task = guard("run-1", &application);
    task.run.timeout_seconds = 8;
    task.success_threshold = 1;
    let mut started = database.listen("started").await;
    let container = pod.start(&Task::Guard(task));
    application.asked().await;
    let mut migrating = pod.psql(
        "begin; create table first (a int4); notify started; commit; \
         begin; create table second (a int4); select pg_advisory_lock(42); commit;",
    );
    started.next().await;
    application.healthy.send_replace(true);
    let outcome = container.end().await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Undecided, "{}", outcome.log);
    let message = report.failure.expect("a failure").message;
    assert!(
        message.contains("which may be its own, are in the middle of a transaction that writes"),
        "{message}"
    );
    release_lock(&hold).await;
    assert!(migrating.wait().expect("psql").success());
}

#[tokio::test]
async fn f10_behind_a_translated_address_short_transactions_of_others_hold_nothing_up() {
    let database = Database::new().await;
    let (pod, own) = translated(&database);
    let mut application = Application::start_at(own).await;
    let hold = database.holding_lock().await;
    let mut started = database.listen("started").await;
    let container = pod.start(&Task::Guard(guard("run-1", &application)));
    application.asked().await;
    let mut serving = pod.psql(
        "begin; create table orders (a int4); notify started; commit; \
         begin; insert into orders values (2); select pg_advisory_lock(42); commit;",
    );
    started.next().await;
    application.healthy.send_replace(true);
    application.asked().await;
    release_lock(&hold).await;
    let outcome = container.end().await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Applied, "{}", outcome.log);
    assert_eq!(report.note, None);
    assert!(serving.wait().expect("psql").success());
}

#[tokio::test]
async fn f10_behind_a_translated_address_a_report_of_others_is_noted() {
    let database = Database::new().await;
    let (pod, own) = translated(&database);
    let mut application = Application::start_at(own).await;
    let hold = database.holding_lock().await;
    let mut started = database.listen("started").await;
    let mut task = guard("run-1", &application);
    task.run.timeout_seconds = 8;
    task.success_threshold = 1;
    let container = pod.start(&Task::Guard(task));
    application.asked().await;
    let mut reading = pod.psql(
        "begin; create table orders (a int4); notify started; commit; \
         begin; select count(*) from orders; select pg_advisory_lock(42); commit;",
    );
    started.next().await;
    application.healthy.send_replace(true);
    let outcome = container.end().await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Applied, "{}", outcome.log);
    let note = report.note.expect("a note");
    assert!(note.starts_with("That it was over when the health requests passed is not proven"));
    assert!(
        note.contains("grant the role of database.connection pg_read_all_stats"),
        "{note}"
    );
    let recorded = "select message from fairway.migration_run";
    assert_eq!(value(&hold, recorded).await, note, "the ledger has it, too");
    release_lock(&hold).await;
    assert!(reading.wait().expect("psql").success());
}

#[tokio::test]
async fn a_deadline_is_kept_while_the_database_is_away() {
    let database = Database::new().await;
    let mut application = Application::start().await;
    let proxy = Proxy::start(&database).await;
    let mut task = guard("run-1", &application);
    task.run.timeout_seconds = 3;
    let pod = Pod::new(&database, "pod-1").with("FAIRWAY_DATABASE_URL", &proxy.url);
    let container = pod.start(&Task::Guard(task));
    application.asked().await;
    proxy.cut();
    let outcome = container.end().await;
    let report = outcome.migration();
    assert_eq!(report.outcome, MigrationOutcome::Undecided, "{}", outcome.log);
    assert_eq!(
        report.failure.expect("a failure").reason,
        Reason::MigrationTimedOut
    );
    assert!(outcome.log.contains("taking the lock again"), "{}", outcome.log);
}

#[tokio::test]
async fn health_requests_go_to_the_pods_own_address() {
    let database = Database::new().await;
    // Not 127.0.0.1: the application of this pod does not listen there.
    let own = Ipv4Addr::new(127, 0, 0, 9);
    let application = Application::start_at(own).await;
    application.healthy.send_replace(true);
    let outcome = Pod::new(&database, "pod-1")
        .with("FAIRWAY_POD_IP", "127.0.0.9,::1")
        .run(&Task::Guard(guard("run-1", &application)))
        .await;
    assert_eq!(
        outcome.migration().outcome,
        MigrationOutcome::Applied,
        "{}",
        outcome.log
    );
}

#[tokio::test]
async fn an_application_that_must_not_migrate_is_never_started() {
    let database = Database::new().await;
    let application = Application::start().await;
    let broken = psql("create table half (a int4); insert into missing values (1);");
    Pod::new(&database, "pod-0")
        .run(&Task::Migrate(migration("run-0", "sha256:0", &broken)))
        .await;
    let pod = Pod::new(&database, "pod-1");
    let outcome = pod.run(&Task::Guard(guard("run-1", &application))).await;
    assert_eq!(outcome.migration().outcome, MigrationOutcome::Blocked);
    assert!(!may_start(&pod));
}

impl Container {
    /// Asks the agent to end, once it can hear it.
    async fn terminated(&self) {
        self.hears_termination().await;
        self.signal("TERM");
    }
}
