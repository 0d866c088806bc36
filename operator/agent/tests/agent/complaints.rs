//! What users of other tools complain of, where no other test shows that it does not happen here: see e2e/complaints.md.

use std::fs;

use fairway_protocol::{MigrationOutcome, Task};

use crate::{
    harness::{Pod, migration, psql},
    postgres::{Database, until, value},
};

#[tokio::test]
async fn c3_a_waiting_agent_does_not_hold_up_a_concurrent_index() {
    let database = Database::new().await;
    let mut started = database.listen("started").await;
    let pods = ["pod-1", "pod-2"].map(|uid| Pod::new(&database, uid));
    let go = pods[0].path("go");
    let script = format!(
        "{}\nuntil test -e {}; do :; done\n{}",
        psql("create table log (line text); notify started;"),
        go.display(),
        psql("create index concurrently log_line on log (line);")
    );
    let task = Task::Migrate(migration("run-1", "sha256:a", &script));
    let first = pods[0].start(&task);
    started.next().await;
    let second = pods[1].start(&task);
    let admin = database.admin().await;
    until(
        &admin,
        "exists (select from pg_stat_activity where datname = current_database() and state = 'idle' \
         and query like 'select pg_try_advisory_lock%')",
    )
    .await;
    fs::write(go, "").expect("a file");
    for container in [first, second] {
        let outcome = container.end().await;
        assert_eq!(
            outcome.migration().outcome,
            MigrationOutcome::Applied,
            "{}",
            outcome.log
        );
    }
    let valid = "select indisvalid from pg_index where indexrelid = 'log_line'::regclass";
    assert_eq!(value(&admin, valid).await, "t");
}
