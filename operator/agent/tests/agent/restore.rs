//! A backup is put in the place of the database in use: all of it or nothing, and nothing that was in use is removed.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use fairway_protocol::{
    BackupReport, BackupTask, Failure, Loss, MigrationOutcome, Reason, RestoreReport, RestoreStep,
    RestoreTask, SettleTask, SqlCheck, Task,
};
use rstest::rstest;
use tokio_postgres::{Client, Config, NoTls};

use crate::{
    harness::{Pod, migration, requester, settle, store},
    postgres::{Database, PASSWORD, PASSWORD_IN_URL, until, value},
    proxy::Tap,
};

const BACKUP: &str = "1a2b3c4d-0000-4000-8000-000000000000";
const SET: &str = "shop/crm/nightly-1a2b3c4d";

/// What the application has before the backup.
const CONTENT: &str = "
    create table lead (id serial primary key, name text not null check (length(name) > 0), note text);
    create index lead_name on lead (lower(name)); insert into lead (name) select 'lead ' || i from generate_series(1, 500) i;
    create table contract (id int4 primary key, lead int4 references lead); insert into contract values (1, 1), (2, 2);
    create view named as select id, name from lead; create sequence counter start 5;
    create function touch() returns trigger language plpgsql as $$ begin return new; end $$;
    create trigger touched before update on lead for each row execute function touch();
    select lo_from_bytea(0, '\\x0102');";

/// The night: a table is dropped at noon, and the application goes on writing.
const NOON: &str = "drop table contract; update lead set note = 'late' where id <= 10; insert into lead (name) values ('new')";

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The database's owner, who may create databases.
    Owner,
    /// A superuser; the owner is none.
    Superuser,
    /// A superuser who owns the database.
    SuperuserAndOwner,
}

/// A database with a backup.
struct Case {
    database: Database,
    /// The connection's role.
    role: String,
    owner: String,
    pod: Pod,
}

impl Case {
    async fn new(role: Role) -> Self {
        Self::named(role, "").await
    }

    /// A database whose name begins with that.
    async fn named(role: Role, prefix: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let server = postgres().await;
        let user = format!("restorer_{number}");
        let (attributes, owner) = match role {
            Role::Owner => ("createdb", user.clone()),
            Role::Superuser => ("superuser", format!("owner_{number}")),
            Role::SuperuserAndOwner => ("superuser", user.clone()),
        };
        let create = format!("create role {user} login {attributes} password '{PASSWORD}'");
        server.batch_execute(&create).await.expect("a role");
        if owner != user {
            server
                .batch_execute(&format!("create role {owner}"))
                .await
                .expect("a role");
        }
        let database = Database {
            name: format!("{prefix}restored_{number}"),
        };
        let quoted = quoted(&database.name);
        let create = format!("create database {quoted} owner {owner}");
        server.batch_execute(&create).await.expect("a database");
        let settings = format!(
            "alter database {quoted} set work_mem = '7MB'; alter database {quoted} set search_path = \"$user\", public; \
             alter role {user} in database {quoted} set statement_timeout = '1h'; alter database {quoted} connection limit 90; \
             grant connect on database {quoted} to pg_monitor with grant option; revoke temporary on database {quoted} \
             from public; comment on database {quoted} is 'the CRM''s'"
        );
        server.batch_execute(&settings).await.expect("settings");
        let admin = database.admin().await;
        admin
            .batch_execute(&format!("create extension pg_trgm; set role {owner}; {CONTENT}"))
            .await
            .expect("content");
        let pod =
            Pod::new(&database, "pod-1").with("FAIRWAY_DATABASE_URL", &url(&user, &database.name, port()));
        Self {
            database,
            role: user,
            owner,
            pod,
        }
    }

    /// A case whose backup was taken.
    async fn backed_up(role: Role, scratch: bool) -> Self {
        let case = Self::new(role).await;
        case.back_up(scratch).await;
        case
    }

    async fn back_up(&self, scratch: bool) {
        // What a session has changed is counted when it has ended.
        let alone = format!(
            "not exists (select from pg_stat_activity where datname = {} and usesysid is not null)",
            literal(&self.database.name)
        );
        until(&postgres().await, &alone).await;
        let outcome = self
            .pod
            .run(&Task::Backup(BackupTask {
                requester: requester("crm"),
                store: store(),
                set: SET.into(),
                scratch,
                images: [].into(),
                backup_uid: BACKUP.into(),
            }))
            .await;
        let report: BackupReport = outcome.report();
        assert_eq!(report.failure, None, "{}", outcome.log);
    }

    async fn sql(&self, sql: &str) {
        let admin = self.database.admin().await;
        let sql = format!("set role {}; {sql}", self.owner);
        admin.batch_execute(&sql).await.expect("the statements");
    }

    async fn as_superuser(&self, sql: &str) {
        let admin = self.database.admin().await;
        admin.batch_execute(sql).await.expect(sql);
    }

    async fn value(&self, sql: &str) -> String {
        value(&self.database.admin().await, sql).await
    }

    async fn run(&self, uid: &str, step: RestoreStep) -> RestoreReport {
        let outcome = self.pod.run(&restore(uid, step)).await;
        eprintln!("{}", outcome.log);
        outcome.report()
    }

    async fn prepare(&self, uid: &str) -> Loss {
        let report = self.run(uid, RestoreStep::Prepare).await;
        assert_eq!(report.failure, None);
        report.loss.expect("a count")
    }

    async fn swap(&self, uid: &str) -> String {
        let report = self.run(uid, RestoreStep::Swap { agreed_rows: None }).await;
        assert_eq!(report.failure, None);
        report.swapped.expect("a swap").replaced
    }

    /// The databases of restores of this one: whether each accepts connections, and its name.
    async fn others(&self) -> Vec<String> {
        let sql = format!(
            "select coalesce(string_agg(datallowconn || ' ' || datname, ',' order by datname), '') from pg_database \
             where starts_with(datname, {}) and datname ~ '_fairway_'",
            literal(&self.database.name)
        );
        let names = value(&postgres().await, &sql).await;
        names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Roles that load backups for the owner.
    async fn loaders(&self) -> String {
        let sql = format!(
            "select count(*) from pg_auth_members where pg_get_userbyid(roleid) = {} \
             and pg_get_userbyid(member) ~ '^fairway_restore_'",
            literal(&self.owner)
        );
        self.value(&sql).await
    }

    /// A session of the application.
    async fn session(&self) -> Client {
        let (client, connection) = Config::new()
            .host("127.0.0.1")
            .port(port())
            .user(&self.role)
            .password(PASSWORD)
            .dbname(&self.database.name)
            .connect(NoTls)
            .await
            .expect("a session");
        tokio::spawn(connection);
        client
    }

    /// All that belongs to the database's name.
    async fn properties(&self) -> String {
        let sql = format!(
            "select row(pg_get_userbyid(datdba), datconnlimit, datallowconn, datcollate, datctype, encoding, \
             shobj_description(oid, 'pg_database'), \
             (select array_agg(row(a.grantee, a.privilege_type, a.is_grantable)::text order by a.grantee, a.privilege_type) \
              from aclexplode(coalesce(datacl, acldefault('d', datdba))) a), \
             (select array_agg(row(setrole, setconfig)::text order by setrole) from pg_db_role_setting \
              where setdatabase = d.oid))::text from pg_database d where datname = {}",
            literal(&self.database.name)
        );
        value(&postgres().await, &sql).await
    }
}

/// A superuser's session in no database of a test.
async fn postgres() -> Client {
    let postgres = Database {
        name: "postgres".into(),
    };
    postgres.admin().await
}

fn port() -> u16 {
    Database::server_of_all().port
}

fn url(role: &str, database: &str, port: u16) -> String {
    let database: String = database.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("postgres://{role}:{PASSWORD_IN_URL}@127.0.0.1:{port}/{database}?sslmode=disable")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn restore(uid: &str, step: RestoreStep) -> Task {
    Task::Restore(task(uid, step))
}

fn task(uid: &str, step: RestoreStep) -> RestoreTask {
    RestoreTask {
        requester: requester("crm"),
        restore_uid: uid.into(),
        backup_uid: BACKUP.into(),
        store: store(),
        set: SET.into(),
        scratch: true,
        checks: vec![SqlCheck {
            name: "leads".into(),
            sql: "select count(*) > 0 from lead".into(),
            expect: "true".into(),
        }],
        may_revert: false,
        step,
    }
}

fn failure(report: RestoreReport) -> Failure {
    report.failure.expect("a failure")
}

#[rstest]
#[tokio::test]
async fn a_dropped_table_comes_back_with_all_that_belongs_to_the_database(
    #[values(Role::Owner, Role::Superuser, Role::SuperuserAndOwner)] role: Role,
    #[values(false, true)] scratch: bool,
) {
    let case = Case::backed_up(role, scratch).await;
    let before = case.properties().await;
    case.sql(NOON).await;
    let application = case.session().await;

    let loss = case.prepare("r1").await;
    assert_eq!(loss.uncounted, None);
    assert_eq!(
        case.value("select count(*) from lead").await,
        "501",
        "not touched"
    );
    assert!(application.batch_execute("select 1").await.is_ok(), "nor closed");
    let others = case.others().await;
    let [beside] = &others[..] else {
        panic!("{others:?}");
    };
    let entry = format!(
        "has_database_privilege('crm', {}, 'connect')",
        literal(&beside[5..])
    );
    let may_enter = case.value(&format!("select {entry}")).await;
    assert_eq!(
        may_enter, "f",
        "nobody reads what is restored before it is in use"
    );

    let report = case
        .run(
            "r1",
            RestoreStep::Swap {
                agreed_rows: Some(11),
            },
        )
        .await;
    assert_eq!(report.failure, None);
    let loss = report.loss.expect("a count");
    assert_eq!(
        (loss.rows, loss.tables),
        (11, 1),
        "ten updates and one insert: {loss:?}"
    );
    assert_eq!(loss.largest, [("public.lead".to_owned(), 11)]);
    let swapped = report.swapped.expect("a swap");
    assert!(
        swapped
            .refused_milliseconds
            .is_some_and(|refused| refused < 20_000)
    );
    assert!(
        application.batch_execute("select 1").await.is_err(),
        "it was ended"
    );

    assert_eq!(case.properties().await, before);
    assert_eq!(
        case.value("select count(*) || ' ' || count(note) from lead")
            .await,
        "500 0"
    );
    assert_eq!(case.value("select count(*) from contract").await, "2");
    assert_eq!(
        case.value("select count(*) from pg_largeobject_metadata").await,
        "1"
    );
    let owner = "select tableowner from pg_tables where tablename = 'lead'";
    assert_eq!(case.value(owner).await, case.owner);
    assert_eq!(case.loaders().await, "0");
    assert_eq!(
        case.others().await,
        [format!("false {}", swapped.replaced)],
        "closed and kept"
    );
    let reopen = format!(
        "alter database {} allow_connections true",
        quoted(&swapped.replaced)
    );
    case.database
        .admin()
        .await
        .batch_execute(&reopen)
        .await
        .expect("its owner may look");
    let replaced = Database {
        name: swapped.replaced,
    }
    .admin()
    .await;
    assert_eq!(
        value(&replaced, "select count(*) from lead").await,
        "501",
        "every row"
    );
    let analyzed = "select count(*) from pg_stats where tablename = 'lead'";
    assert_ne!(case.value(analyzed).await, "0");
}

#[tokio::test]
async fn a_swap_that_is_asked_for_again_is_not_repeated() {
    let case = Case::backed_up(Role::Owner, false).await;
    case.prepare("r1").await;
    let again = case.run("r1", RestoreStep::Prepare).await;
    assert_eq!(
        again.prepared.expect("prepared").seconds,
        0.0,
        "an earlier pod has done it"
    );
    let first = case.swap("r1").await;
    case.sql("insert into lead (name) values ('after')").await;
    assert_eq!(case.swap("r1").await, first);
    assert_eq!(
        case.value("select count(*) from lead").await,
        "501",
        "what was written since stays"
    );
    let again = failure(case.run("r1", RestoreStep::Prepare).await);
    assert_eq!(again.reason, Reason::RestoreFailed);
    let given_up = case.run("r1", RestoreStep::Discard).await;
    assert_eq!(given_up.failure, None);
    assert_eq!(
        given_up.swapped.map(|swapped| swapped.replaced),
        Some(first),
        "what is in use is not removed"
    );
}

/// Statements that the agent sends in a step that another pod of this Restore has not begun.
async fn statements(case: &Case, tap: &Tap, step: RestoreStep) -> usize {
    tap.stop_at(usize::MAX);
    let outcome = tapped(case, tap).run(&restore("whole", step)).await;
    let failure = outcome.report::<RestoreReport>().failure;
    assert_eq!(failure, None, "{}", outcome.log);
    tap.statements()
}

/// A pod whose way to the database is that tap.
fn tapped(case: &Case, tap: &Tap) -> Pod {
    Pod::new(&case.database, "pod-2")
        .with(
            "FAIRWAY_DATABASE_URL",
            &url(&case.role, &case.database.name, tap.port),
        )
        .with(
            "FAIRWAY_STORE_DIRECTORY",
            &case.pod.path("store").display().to_string(),
        )
}

/// Starts a step, and kills the agent after that statement.
async fn killed(case: &Case, tap: &Tap, uid: &str, step: RestoreStep, last: usize) {
    tap.stop_at(last);
    let running = tapped(case, tap).start(&restore(uid, step));
    tap.reached().await;
    running.killed().await;
}

#[tokio::test]
async fn a_preparation_that_is_killed_after_any_statement_goes_on() {
    let case = Case::backed_up(Role::Superuser, false).await;
    let tap = Tap::start().await;
    let whole = statements(&case, &tap, RestoreStep::Prepare).await;
    assert!(whole > 10, "{whole} statements");
    // Three more remove what the pod before has left.
    for last in 1..=whole + 3 {
        killed(&case, &tap, "r1", RestoreStep::Prepare, last).await;
    }
    case.prepare("r1").await;
    case.sql("drop table contract").await;
    case.swap("r1").await;
    assert_eq!(case.value("select count(*) from contract").await, "2");
    assert_eq!(case.run("whole", RestoreStep::Discard).await.failure, None);
    assert_eq!(case.others().await.len(), 1, "only what was replaced is left");
    assert_eq!(case.loaders().await, "0");
}

#[tokio::test]
async fn a_swap_that_is_killed_after_any_statement_goes_on() {
    let case = Case::backed_up(Role::Owner, false).await;
    let tap = Tap::start().await;
    case.prepare("whole").await;
    let swap = RestoreStep::Swap { agreed_rows: None };
    let whole = statements(&case, &tap, swap.clone()).await;
    assert!(whole > 20, "{whole} statements");
    let properties = case.properties().await;
    for last in 1..=whole {
        let uid = format!("swap-{last}");
        case.prepare(&uid).await;
        case.sql("delete from contract").await;
        killed(&case, &tap, &uid, swap.clone(), last).await;
        let replaced = case.swap(&uid).await;
        assert_eq!(case.properties().await, properties, "after statement {last}");
        assert_eq!(case.value("select count(*) from contract").await, "2");
        let drop = format!("drop database {}", quoted(&replaced));
        postgres().await.batch_execute(&drop).await.expect(&drop);
        assert_eq!(case.others().await.len(), 1, "after statement {last}");
    }
}

#[tokio::test]
async fn a_swap_that_is_killed_after_any_statement_can_be_given_up() {
    let case = Case::backed_up(Role::Owner, false).await;
    let tap = Tap::start().await;
    case.prepare("whole").await;
    let swap = RestoreStep::Swap { agreed_rows: None };
    let whole = statements(&case, &tap, swap.clone()).await;
    let properties = case.properties().await;
    let mut ends = [0, 0];
    for last in 1..=whole {
        let uid = format!("swap-{last}");
        case.prepare(&uid).await;
        case.sql("delete from contract").await;
        killed(&case, &tap, &uid, swap.clone(), last).await;
        let report = case.run(&uid, RestoreStep::Discard).await;
        assert_eq!(report.failure, None, "after statement {last}");
        assert_eq!(case.properties().await, properties, "after statement {last}");
        let contracts = case.value("select count(*) from contract").await;
        match &report.swapped {
            // The last statement had put it in place.
            Some(swapped) => {
                assert_eq!(contracts, "2", "after statement {last}");
                let drop = format!("drop database {}", quoted(&swapped.replaced));
                postgres().await.batch_execute(&drop).await.expect(&drop);
            }
            None => {
                assert_eq!(contracts, "0", "after statement {last}");
                case.sql("insert into contract values (1, 1), (2, 2)").await;
            }
        }
        ends[usize::from(report.swapped.is_some())] += 1;
        assert_eq!(case.others().await.len(), 1, "after statement {last}");
    }
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
}

/// Writes rows through new sessions until it is stopped; returns how many were acknowledged, and how many may have been.
async fn writes(role: String, database: String, stopped: Arc<AtomicBool>) -> (u64, u64) {
    let (mut acknowledged, mut open) = (0, 0);
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(port())
        .user(&role)
        .password(PASSWORD)
        .dbname(&database);
    while !stopped.load(Ordering::SeqCst) {
        let Ok((client, connection)) = config.connect(NoTls).await else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(connection);
        while !stopped.load(Ordering::SeqCst) {
            let write = "insert into lead (name) values ('written')";
            if client.batch_execute(write).await.is_err() {
                open += 1;
                break;
            }
            acknowledged += 1;
        }
    }
    (acknowledged, open)
}

/// Complaint 26: databases are swapped by name while sessions come in between.
#[tokio::test]
async fn c26_each_row_that_was_written_meanwhile_is_in_one_of_the_databases() {
    let case = Case::backed_up(Role::Owner, false).await;
    case.prepare("r1").await;
    let stopped = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let (role, name) = (case.role.clone(), case.database.name.clone());
            tokio::spawn(writes(role, name, stopped.clone()))
        })
        .collect();
    let is_written = "exists (select from lead where name = 'written')";
    until(&case.database.admin().await, is_written).await;
    let replaced = case.swap("r1").await;
    until(&case.database.admin().await, is_written).await;
    stopped.store(true, Ordering::SeqCst);
    let (mut acknowledged, mut open) = (0, 0);
    for writer in writers {
        let (of_writer, may_be) = writer.await.expect("a writer");
        acknowledged += of_writer;
        open += may_be;
    }
    let reopen = format!("alter database {} allow_connections true", quoted(&replaced));
    postgres().await.batch_execute(&reopen).await.expect(&reopen);
    let mut written = 0;
    for name in [&case.database.name, &replaced] {
        let database = Database { name: name.clone() };
        let rows = value(
            &database.admin().await,
            "select count(*) from lead where name = 'written'",
        )
        .await;
        written += rows.parse::<u64>().expect("a number");
    }
    assert!(
        (acknowledged..=acknowledged + open).contains(&written),
        "{written} rows of {acknowledged} that were acknowledged and {open} that may have been"
    );
}

#[tokio::test]
async fn a_pod_that_is_stopped_opens_the_database_again() {
    let case = Case::backed_up(Role::Superuser, false).await;
    case.prepare("r1").await;
    // A process that does not answer cannot be ended.
    let stuck = case.database.admin().await;
    let pid = value(&stuck, "select pg_backend_pid()").await;
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status();
        assert!(sent.expect("kill").success());
    };
    signal("STOP");
    let running = case
        .pod
        .start(&restore("r1", RestoreStep::Swap { agreed_rows: None }));
    let postgres = postgres().await;
    let closed = format!(
        "exists (select from pg_database where datname = {} and not datallowconn)",
        literal(&case.database.name)
    );
    until(&postgres, &closed).await;
    running.signal("TERM");
    let outcome = running.end().await;
    signal("CONT");
    let report: RestoreReport = outcome.report();
    assert_eq!(failure(report).reason, Reason::AgentFailed, "{}", outcome.log);
    assert_eq!(case.value("select count(*) from lead").await, "500", "it is open");
    case.swap("r1").await;
}

#[rstest]
#[case::more_rows(Some(10), "more than the 10 that were agreed to")]
#[case::none(Some(0), "more than the 0 that were agreed to")]
#[tokio::test]
async fn a_restore_that_loses_more_than_was_agreed_to_changes_nothing(
    #[case] agreed_rows: Option<u64>,
    #[case] said: &str,
) {
    let case = Case::backed_up(Role::Owner, false).await;
    case.prepare("r1").await;
    case.sql(NOON).await;
    let report = case.run("r1", RestoreStep::Swap { agreed_rows }).await;
    assert_eq!(report.loss.as_ref().map(|loss| loss.rows), Some(11));
    let failure = failure(report);
    assert_eq!(failure.reason, Reason::RestoreLosesMore);
    assert!(failure.message.contains(said), "{}", failure.message);
    assert_eq!(case.value("select count(*) from lead").await, "501");
    case.swap("r1").await;
}

#[tokio::test]
async fn a_truncated_table_cannot_be_counted_and_is_not_agreed_to_by_a_number() {
    let case = Case::backed_up(Role::Owner, false).await;
    case.sql("truncate contract").await;
    let loss = case.prepare("r1").await;
    assert!(
        loss.uncounted
            .is_some_and(|why| why.contains("public.contract was truncated"))
    );
    let agreed_rows = Some(1_000_000);
    let refused = case.run("r1", RestoreStep::Swap { agreed_rows }).await;
    assert_eq!(failure(refused).reason, Reason::RestoreLosesMore);
    case.swap("r1").await;
    assert_eq!(case.value("select count(*) from contract").await, "2");
}

#[tokio::test]
async fn what_a_role_lacks_is_said_before_anything_is_done() {
    let case = Case::backed_up(Role::Owner, false).await;
    let less = format!(
        "alter role {} nocreatedb; alter role crm in database {} set work_mem = '9MB'",
        case.role,
        quoted(&case.database.name)
    );
    case.as_superuser(&less).await;
    let failure = failure(case.run("r1", RestoreStep::Prepare).await);
    assert_eq!(failure.reason, Reason::RestoreNotPermitted);
    for missing in ["lacks CREATEDB", "has set something for crm"] {
        assert!(failure.message.contains(missing), "{}", failure.message);
    }
    assert_eq!(case.others().await, [""; 0]);
}

#[tokio::test]
async fn an_extension_that_only_a_superuser_may_create_is_named() {
    let case = Case::new(Role::Owner).await;
    case.as_superuser("create extension pg_stat_statements").await;
    case.back_up(false).await;
    let failure = failure(case.run("r1", RestoreStep::Prepare).await);
    assert_eq!(failure.reason, Reason::RestoreNotPermitted);
    let missing = "create the extension pg_stat_statements";
    assert!(failure.message.contains(missing), "{}", failure.message);
    assert_eq!(case.others().await, [""; 0]);
}

#[tokio::test]
async fn a_session_that_the_role_may_not_end_is_named_and_the_database_stays_open() {
    let case = Case::backed_up(Role::Owner, false).await;
    case.prepare("r1").await;
    let admin = case.database.admin().await;
    let failure = failure(case.run("r1", RestoreStep::Swap { agreed_rows: None }).await);
    assert_eq!(failure.reason, Reason::SessionsRemain);
    for said in ["role postgres", "pg_signal_backend"] {
        assert!(failure.message.contains(said), "{}", failure.message);
    }
    assert!(admin.batch_execute("select 1").await.is_ok());
    drop(admin);
    case.swap("r1").await;
}

#[tokio::test]
async fn a_prepared_transaction_is_named() {
    let case = Case::backed_up(Role::Superuser, false).await;
    let admin = case.database.admin().await;
    let setting = "select setting::int4 from pg_settings where name = 'max_prepared_transactions'";
    if value(&admin, setting).await == "0" {
        eprintln!("not proven here: the server has no prepared transactions");
        return;
    }
    admin
        .batch_execute("begin; delete from contract; prepare transaction 'stuck'")
        .await
        .expect("a prepared transaction");
    let failure = failure(case.run("r1", RestoreStep::Prepare).await);
    admin
        .batch_execute("rollback prepared 'stuck'")
        .await
        .expect("its end");
    assert_eq!(failure.reason, Reason::RestoreNotPermitted);
    assert!(failure.message.contains("stuck"), "{}", failure.message);
}

#[tokio::test]
async fn a_replication_slot_that_would_stay_behind_is_named() {
    let case = Case::backed_up(Role::Superuser, false).await;
    let admin = case.database.admin().await;
    let setting = "select setting from pg_settings where name = 'wal_level'";
    if value(&admin, setting).await != "logical" {
        eprintln!("not proven here: the server has no logical replication");
        return;
    }
    let create = "select pg_create_logical_replication_slot('of_a_reader', 'pgoutput')";
    admin.batch_execute(create).await.expect(create);
    let failure = failure(case.run("r1", RestoreStep::Prepare).await);
    let drop = "select pg_drop_replication_slot('of_a_reader')";
    admin.batch_execute(drop).await.expect(drop);
    assert_eq!(failure.reason, Reason::RestoreNotPermitted);
    assert!(failure.message.contains("of_a_reader"), "{}", failure.message);
}

#[rstest]
#[case::truncated(Reason::StoreCorrupt, |set: &Path| {
    let dump = set.join("database.dump.zst");
    let bytes = fs::read(&dump).unwrap();
    fs::write(&dump, &bytes[..bytes.len() / 2]).unwrap();
})]
#[case::flipped_bit(Reason::StoreCorrupt, |set: &Path| {
    let dump = set.join("database.dump.zst");
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes).unwrap();
})]
#[case::empty(Reason::StoreCorrupt, |set: &Path| fs::write(set.join("database.dump.zst"), "").unwrap())]
#[case::swapped(Reason::StoreCorrupt, |set: &Path| {
    fs::copy(set.join("globals.sql.zst"), set.join("database.dump.zst")).unwrap();
})]
#[case::forged(Reason::StoreCorrupt, |set: &Path| {
    let manifest = fs::read_to_string(set.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["takenAt"] = "2020-01-01T00:00:00.000Z".into();
    fs::write(set.join("manifest.json"), manifest.to_string()).unwrap();
})]
#[case::half_uploaded(Reason::RestoreFailed, |set: &Path| fs::remove_file(set.join("manifest.json")).unwrap())]
#[tokio::test]
async fn a_set_that_is_not_the_backups_own_is_refused(#[case] reason: Reason, #[case] spoil: fn(&Path)) {
    let case = Case::backed_up(Role::Superuser, false).await;
    spoil(&case.pod.path("store").join(SET));
    let refused = failure(case.run("r1", RestoreStep::Prepare).await);
    assert_eq!(refused.reason, reason, "{}", refused.message);
    assert_eq!(case.others().await, [""; 0], "nothing was created");
    assert_eq!(case.loaders().await, "0");
}

#[rstest]
#[case::quotes("we\"ird 'näme' \\ ")]
#[case::conninfo("dbname=postgres host=x ")]
#[case::url("postgres://x/")]
#[case::long("ünïcödé-ünïcödé-ünïcödé-")]
#[tokio::test]
async fn a_database_with_an_odd_name_is_restored(#[case] name: &str) {
    let case = Case::named(Role::Superuser, name).await;
    case.back_up(false).await;
    case.sql("drop table contract").await;
    let before = case.properties().await;
    case.prepare("r1").await;
    case.swap("r1").await;
    assert_eq!(case.value("select count(*) from contract").await, "2");
    assert_eq!(case.properties().await, before);
}

/// What a role with few rights has written must not run as a superuser when it is restored.
#[tokio::test]
async fn code_in_a_backup_gets_no_more_rights_than_the_owner() {
    let case = Case::new(Role::Superuser).await;
    let attack = "create function become() returns bool language plpgsql as $$ begin
          perform set_config('role', 'none', false); perform set_config('session_authorization', 'postgres', false);
          execute 'alter role {role} connection limit 7'; return true;
        exception when others then return true; end $$;
        create table trap (a int4 check (become())); insert into trap values (1)"
        .replace("{role}", &case.role);
    case.sql(&attack).await;
    let limit = format!(
        "select rolconnlimit from pg_roles where rolname = '{}'",
        case.role
    );
    assert_eq!(case.value(&limit).await, "7", "in a superuser's session it works");
    case.as_superuser(&format!("alter role {} connection limit -1", case.role))
        .await;
    case.back_up(false).await;
    case.prepare("r1").await;
    assert_eq!(case.value(&limit).await, "-1");
}

#[tokio::test]
async fn code_of_others_is_not_loaded_for_an_owner_who_is_a_superuser() {
    let case = Case::new(Role::SuperuserAndOwner).await;
    let admin = case.database.admin().await;
    admin
        .batch_execute("create table of_crm (a int4); alter table of_crm owner to crm")
        .await
        .expect("a table of another role");
    case.back_up(false).await;
    let failure = failure(case.run("r1", RestoreStep::Prepare).await);
    assert_eq!(failure.reason, Reason::RestoreFailed);
    assert!(failure.message.contains("belong to crm"), "{}", failure.message);
    assert_eq!(case.run("r1", RestoreStep::Discard).await.failure, None);
    assert_eq!(case.others().await, [""; 0]);
}

#[rstest]
#[tokio::test]
async fn w2_the_restored_ledger_knows_which_runs_are_gone(
    #[values(Role::Owner, Role::Superuser)] role: Role,
) {
    let case = Case::new(role).await;
    let migrate = async |run: &str, digest: &str| {
        let outcome = case
            .pod
            .run(&Task::Migrate(migration(run, digest, "exit 0")))
            .await;
        outcome.migration().outcome
    };
    assert_eq!(migrate("first", "sha256:a").await, MigrationOutcome::Applied);
    case.back_up(false).await;
    case.prepare("r1").await;
    assert_eq!(migrate("second", "sha256:b").await, MigrationOutcome::Applied);

    // The version that runs needs what the second migration did.
    for step in [RestoreStep::Prepare, RestoreStep::Swap { agreed_rows: None }] {
        let refused = failure(case.run("r1", step).await);
        assert_eq!(refused.reason, Reason::RestoreRevertsMigration);
        assert!(refused.message.contains("Release crm-1"), "{}", refused.message);
    }
    let allowed = RestoreTask {
        may_revert: true,
        ..task("r1", RestoreStep::Swap { agreed_rows: None })
    };
    let report: RestoreReport = case.pod.run(&Task::Restore(allowed)).await.report();
    assert_eq!(report.failure, None);

    let runs = "select string_agg(run_id, ',') from fairway.migration_run";
    assert_eq!(case.value(runs).await, "first");
    let reverted = "select string_agg(run_id || ' by ' || restore_uid, ',') from fairway.reverted_run";
    assert_eq!(case.value(reverted).await, "second by r1");
    // A run that is known to have begun, and whose row is gone.
    let lost = SettleTask {
        before: Some("a".into()),
        ..settle("second", "sha256:b")
    };
    let settled = case.pod.run(&Task::Settle(lost)).await.migration();
    assert_eq!(settled.outcome, MigrationOutcome::Failed);
    assert_eq!(
        settled.failure.map(|failure| failure.reason),
        Some(Reason::MigrationNotApplied)
    );
    let lost = SettleTask {
        before: Some("a".into()),
        ..settle("of-nobody", "sha256:c")
    };
    let settled = case.pod.run(&Task::Settle(lost)).await.migration();
    assert_eq!(settled.outcome, MigrationOutcome::Unknown, "nothing explains it");
    let resolve = "update fairway.migration_run set resolution = 'notApplied' where run_id = 'of-nobody'";
    case.as_superuser(resolve).await;
    // Neither skipped nor repeated.
    assert_eq!(
        migrate("third", "sha256:a").await,
        MigrationOutcome::AlreadyApplied
    );
    assert_eq!(migrate("fourth", "sha256:b").await, MigrationOutcome::Applied);
}

#[tokio::test]
async fn a_restore_waits_for_a_migration_that_runs() {
    let case = Case::backed_up(Role::Owner, false).await;
    case.prepare("r1").await;
    let session = case.database.admin().await;
    let lock = "select pg_advisory_lock(x'66616972776179'::int8)";
    session.batch_execute(lock).await.expect("the migration lock");
    let refused = case.run("r1", RestoreStep::Swap { agreed_rows: None }).await;
    assert_eq!(failure(refused).reason, Reason::MigrationRunning);
    drop(session);
    assert_eq!(case.value("select count(*) from lead").await, "500");
}
