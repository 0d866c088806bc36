//! Two builds of the agent, this version and the next one, which takes every step of ledger and protocol that this one
//! takes and one more.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use fairway_protocol::{
    FIRST_PROTOCOL_VERSION, Failure, Level, MigrationOutcome, NewerReport, PROTOCOL_VERSION, PreflightReport,
    PreflightTask, Reason, Task, read_report,
};
use serde_json::Value;

use crate::{
    guard,
    harness::{Outcome, Pod, migration, psql, requester, settle},
    postgres::{Database, release_lock, until, value},
};

/// The build of the next version.
static NEXT: LazyLock<PathBuf> = LazyLock::new(|| {
    const NAME: &str = "fairway-agent-next";
    let built = Path::new(env!("CARGO_BIN_EXE_fairway-agent"));
    let folder = built.parent().expect("the folder of the profile");
    let mut cargo = Command::new(env!("CARGO"));
    // What `cargo test` sets, and build scripts read: ring's would run again, with all that depends on it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    let status = cargo
        .args(["build", "--locked", "--package", "fairway-agent"])
        .args(["--features", "next-version", "--bin", NAME, "--target-dir"])
        .arg(folder.parent().expect("the target folder"))
        .status()
        .expect("cargo");
    assert!(status.success(), "the next version does not compile");
    folder.join(NAME)
});

const APPEND: &str = "create table if not exists log (line text); insert into log values ('ran');";

/// A pod of an operator and an agent of this version.
fn present(database: &Database, uid: &str) -> Pod {
    of_operator(Pod::new(database, uid), PROTOCOL_VERSION)
}

/// A pod of an operator and an agent of the next version.
fn next(database: &Database, uid: &str) -> Pod {
    of_operator(Pod::new(database, uid).with_agent(&NEXT), PROTOCOL_VERSION + 1)
}

fn of_operator(pod: Pod, protocol: u32) -> Pod {
    pod.with("FAIRWAY_PROTOCOL", &protocol.to_string())
}

fn migrate(run: &str, digest: &str) -> Task {
    Task::Migrate(migration(run, digest, &psql(APPEND)))
}

fn preflight() -> Task {
    Task::Preflight(PreflightTask {
        requester: requester("crm"),
        migrates: true,
        store: None,
        verify: Level::Decoded,
    })
}

/// Of a report of any version.
fn outcome(outcome: &Outcome) -> MigrationOutcome {
    let report: Value = outcome.report();
    serde_json::from_value(report["outcome"].clone()).expect("an outcome")
}

fn protocol(outcome: &Outcome) -> u64 {
    outcome.report::<Value>()["protocol"].as_u64().expect("a version")
}

/// Schema `fairway` and its rows.
fn ledger(database: &Database) -> String {
    let server = database.server();
    let dump = Command::new(server.programs.join("pg_dump"))
        .args(["--schema=fairway", "--inserts", "--username=postgres", "--host"])
        .arg(&server.folder)
        .args(["--port", &server.port.to_string(), &database.name])
        .output()
        .expect("pg_dump");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8(dump.stdout).expect("UTF-8");
    // Of newer versions of pg_dump, each with a key of its own.
    let lines = dump
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Version of the ledger.
async fn version(database: &Database) -> usize {
    let version = value(&database.admin().await, "select version from fairway.ledger").await;
    version.parse().expect("a number")
}

#[tokio::test]
#[ignore = "make test-long PART=versions"]
async fn w20e_the_next_version_upgrades_the_ledger_and_this_one_then_refuses_it() {
    let database = Database::new().await;
    let run = present(&database, "pod-1")
        .run(&migrate("run-1", "sha256:a"))
        .await;
    assert_eq!(outcome(&run), MigrationOutcome::Applied, "{}", run.log);
    let known = version(&database).await;

    // The next version looks, which changes nothing, and then migrates.
    let before = ledger(&database);
    let pod = next(&database, "pod-2");
    let looked = pod.run(&preflight()).await;
    assert_eq!(looked.report::<PreflightReport>().failure, None, "{}", looked.log);
    assert_eq!(ledger(&database), before);
    let run = pod.run(&migrate("run-2", "sha256:b")).await;
    assert_eq!(outcome(&run), MigrationOutcome::Applied, "{}", run.log);
    assert_eq!(version(&database).await, known + 1);

    // This version does nothing.
    let before = ledger(&database);
    let pod = present(&database, "pod-3");
    let application = guard::Application::start().await;
    let refusals: [Option<Failure>; 4] = [
        pod.run(&preflight()).await.report::<PreflightReport>().failure,
        pod.run(&migrate("run-3", "sha256:c")).await.migration().failure,
        pod.run(&Task::Guard(guard::guard("run-3", &application)))
            .await
            .migration()
            .failure,
        pod.run(&Task::Settle(settle("run-2", "sha256:b")))
            .await
            .migration()
            .failure,
    ];
    for refusal in refusals {
        let failure = refusal.expect("a failure");
        assert_eq!(failure.reason, Reason::LedgerNewer);
        assert_eq!(
            failure.message,
            format!(
                "The ledger in schema fairway has version {}, and this Fairway knows versions up to {known}: a newer Fairway has \
                 upgraded it. Upgrade Fairway in this cluster.",
                known + 1
            )
        );
    }
    assert_eq!(ledger(&database), before);
    let rows = value(&database.admin().await, "select count(*) from log").await;
    assert_eq!(rows, "2", "run-3 did not run");

    // The next version knows what both have done.
    let pod = next(&database, "pod-4");
    for digest in ["sha256:a", "sha256:b"] {
        let run = pod.run(&migrate("run-4", digest)).await;
        assert_eq!(outcome(&run), MigrationOutcome::AlreadyApplied, "{}", run.log);
    }
}

#[tokio::test]
#[ignore = "make test-long PART=versions"]
async fn w20e_the_ledger_is_upgraded_under_the_lock() {
    let database = Database::new().await;
    // Before anything runs that has a timeout: the next version is compiled.
    let pods = ["pod-2", "pod-3"].map(|uid| next(&database, uid));
    let hold = database.holding_lock().await;
    let mut started = database.listen("started").await;
    let script = psql("notify started; select pg_advisory_lock(42); create table slow ();");
    let pod = present(&database, "pod-1");
    let running = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    let known = version(&database).await;

    // Two of the next version wait for the lock that the first one holds.
    let waiting = pods
        .each_ref()
        .map(|pod| pod.start(&migrate("run-2", "sha256:b")));
    let waiters = "(select count(*) from pg_stat_activity where datname = current_database() \
                   and application_name = 'fairway-agent' and query like 'select pg_try_advisory_lock%') = 2";
    until(&hold, waiters).await;
    assert_eq!(version(&database).await, known);

    release_lock(&hold).await;
    let run = running.end().await;
    assert_eq!(outcome(&run), MigrationOutcome::Applied, "{}", run.log);
    for container in waiting {
        let run = container.end().await;
        assert_eq!(outcome(&run), MigrationOutcome::Applied, "{}", run.log);
    }
    assert_eq!(version(&database).await, known + 1);
    assert_eq!(
        value(&hold, "select count(*) from log").await,
        "1",
        "run-2 ran once"
    );
}

#[tokio::test]
#[ignore = "make test-long PART=versions"]
async fn w20e_operator_and_agent_of_two_versions_understand_or_refuse_each_other() {
    let database = Database::new().await;
    let newer = PROTOCOL_VERSION + 1;

    // A newer agent answers an older operator in that one's version.
    for asked in [FIRST_PROTOCOL_VERSION, PROTOCOL_VERSION] {
        let pod = of_operator(Pod::new(&database, "pod-1").with_agent(&NEXT), asked);
        let looked = pod.run(&preflight()).await;
        assert_eq!(protocol(&looked), u64::from(asked));
        let report = read_report::<PreflightReport>(looked.message()).expect("of a known version");
        assert_eq!(report.expect("a report").failure, None);
    }

    // A newer operator's pod is left to an older one, which does not read what it may misunderstand.
    let looked = next(&database, "pod-2").run(&preflight()).await;
    let refusal = read_report::<PreflightReport>(looked.message()).expect_err("of a newer version");
    assert_eq!(refusal, NewerReport { protocol: newer });
    assert_eq!(
        refusal.to_string(),
        format!(
            "an agent of a newer Fairway left one in version {newer} of the protocol, and this Fairway reads versions up to \
             {PROTOCOL_VERSION}. Upgrade Fairway in this cluster"
        )
    );

    // An older agent refuses a newer operator, in its own version, which that one reads.
    let pod = of_operator(Pod::new(&database, "pod-3"), newer);
    for task in [preflight(), migrate("run-1", "sha256:a")] {
        let refused = pod.run(&task).await;
        assert_eq!(protocol(&refused), u64::from(PROTOCOL_VERSION));
        assert_eq!(
            refused.report::<Value>()["failure"]["message"],
            format!(
                "The operator speaks version {newer} of the protocol, and this agent knows versions up to {PROTOCOL_VERSION}. Set \
                 agent.image of the chart to the operator's own version."
            )
        );
    }
    let admin = database.admin().await;
    assert_eq!(value(&admin, "select to_regclass('log') is null").await, "t");
}
