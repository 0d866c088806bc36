//! Databases in which a role with few rights waits for one with more: none of its functions may run with the agent's
//! rights.

use fairway_protocol::{Level, MigrationOutcome, PreflightReport, PreflightTask, Reason, Task};
use rstest::rstest;
use tokio_postgres::Client;

use crate::{
    harness::{Pod, migration, requester, settle},
    postgres::{Database, value},
};

/// A database in which a role with few rights may create tables and has a function that says when it runs.
struct Hostile {
    database: Database,
    admin: Client,
}

impl Hostile {
    async fn new() -> Self {
        let database = Database::new().await;
        let admin = database.admin().await;
        let name = &database.name;
        admin
            .batch_execute(&format!(
                "create role weak_{name}; grant create on database {name} to weak_{name};
                 create schema trap authorization weak_{name}; grant usage on schema trap to public"
            ))
            .await
            .expect("a role");
        let hostile = Self { database, admin };
        hostile
            .set(
                "create function trap.spring() returns boolean language plpgsql as \
                 $$ begin raise log 'sprung in %', current_database(); return true; end $$; \
                 create function trap.on_row() returns trigger language plpgsql as \
                 $$ begin perform trap.spring(); return new; end $$; \
                 grant execute on all functions in schema trap to public",
            )
            .await;
        hostile
    }

    /// Does something as the role with few rights.
    async fn set(&self, sql: &str) {
        let weak = format!(
            "set role weak_{}; set search_path = trap; {sql}; reset role; reset search_path",
            self.database.name
        );
        self.admin.batch_execute(&weak).await.expect(sql);
    }

    /// How often its function ran.
    fn sprung(&self) -> usize {
        let log = self.database.server().folder.join("server.log");
        let log = std::fs::read_to_string(log).expect("the server's log");
        let line = format!("sprung in {}\n", self.database.name);
        log.matches(&line).count()
    }

    /// A pod whose connection is a superuser's.
    fn superuser(&self) -> Pod {
        let Database { name } = &self.database;
        let server = self.database.server();
        let url = format!(
            "postgresql:///{name}?host={}&port={}&user=postgres",
            server.folder.display(),
            server.port
        );
        Pod::new(&self.database, "pod-1").with("FAIRWAY_DATABASE_URL", &url)
    }

    /// Lets the agent look at the database, and migrate it, as a superuser and as its owner.
    async fn attack(&self) {
        for (run, pod) in [
            ("run-1", self.superuser()),
            ("run-2", Pod::new(&self.database, "pod-2")),
        ] {
            let report: PreflightReport = pod.run(&preflight()).await.report();
            assert_eq!(report.failure, None, "{run}");
            let run = pod.run(&Task::Migrate(migration(run, "sha256:a", "true"))).await;
            let outcome = run.migration().outcome;
            let applied = [MigrationOutcome::Applied, MigrationOutcome::AlreadyApplied];
            assert!(applied.contains(&outcome), "{}", run.log);
            self.admin
                .batch_execute(
                    "alter schema fairway owner to crm; alter table fairway.owner owner to crm; \
                    alter table fairway.migration_run owner to crm; alter table fairway.ledger owner to crm",
                )
                .await
                .expect("owners");
        }
        assert_eq!(self.sprung(), 0);
    }
}

impl Hostile {
    /// Proves that an agent neither reads the ledger nor runs anything.
    async fn is_refused(&self, pod: &Pod, what: &str) {
        let report: PreflightReport = pod.run(&preflight()).await.report();
        let run = migration("run-1", "sha256:a", "false");
        let migrate = pod.run(&Task::Migrate(run)).await.migration();
        let settle = pod
            .run(&Task::Settle(settle("run-1", "sha256:a")))
            .await
            .migration();
        assert_eq!(migrate.outcome, MigrationOutcome::NotStarted);
        assert_eq!(settle.outcome, MigrationOutcome::Undecided);
        for failure in [report.failure, migrate.failure, settle.failure] {
            let failure = failure.expect("a failure");
            assert_eq!(failure.reason, Reason::LedgerNotPermitted, "{}", failure.message);
            assert!(failure.message.contains(what), "{}", failure.message);
        }
    }
}

fn preflight() -> Task {
    Task::Preflight(PreflightTask {
        requester: requester("crm"),
        migrates: true,
        store: None,
        verify: Level::Decoded,
    })
}

#[rstest]
#[case::a_type_that_casts_itself(
    "create type lock as enum ('t', 'f');
     create function is_locked(lock) returns boolean language sql as 'select trap.spring()';
     create cast (lock as boolean) with function is_locked(lock) as implicit;
     create table databasechangeloglock (id int4, locked lock);
     insert into databasechangeloglock values (1, 't');
     grant select on databasechangeloglock to crm",
    "select bool_or(locked) from trap.databasechangeloglock"
)]
#[case::a_row_that_casts_itself(
    "create table schema_migrations (version text); insert into schema_migrations values ('1');
     create function written(schema_migrations) returns text language sql as 'select trap.spring()::text';
     create cast (schema_migrations as text) with function written(schema_migrations) as assignment;
     grant select on schema_migrations to crm",
    "select h::text from trap.schema_migrations h"
)]
#[case::a_policy(
    "create table schema_migrations (version text); insert into schema_migrations values ('1');
     create table databasechangeloglock (locked boolean); insert into databasechangeloglock values (true);
     alter table schema_migrations enable row level security, force row level security;
     alter table databasechangeloglock enable row level security, force row level security;
     create policy p on schema_migrations using (trap.spring());
     create policy p on databasechangeloglock using (trap.spring());
     grant select on schema_migrations, databasechangeloglock to crm",
    "set role crm; select * from trap.schema_migrations"
)]
#[case::a_view(
    "create view schema_migrations as select trap.spring() as version;
     create view databasechangeloglock as select trap.spring() as locked;
     grant select on schema_migrations, databasechangeloglock to crm",
    "select * from trap.databasechangeloglock"
)]
#[case::names_of_the_catalog(
    "create function lower(name) returns text language sql as 'select trap.spring()::text';
     create operator = (leftarg = name, rightarg = name, function = nameeq);
     create table schema_migrations (version text default trap.spring(), check (trap.spring()));
     grant select on schema_migrations to crm",
    "select trap.spring()"
)]
#[tokio::test]
async fn s3_nothing_of_a_weak_role_runs_as_the_agent(#[case] trap: &str, #[case] control: &str) {
    let hostile = Hostile::new().await;
    hostile.set(trap).await;
    hostile.attack().await;
    hostile.admin.batch_execute(control).await.expect(control);
    assert!(hostile.sprung() > 0, "the trap works");
}

#[tokio::test]
async fn s3_a_table_that_nobody_may_trust_is_no_history() {
    let hostile = Hostile::new().await;
    hostile
        .set("create table schema_migrations (version text); grant select on schema_migrations to crm")
        .await;
    let fails = |run: &str, digest: &str, version: &str| {
        let insert = format!("insert into trap.schema_migrations values ('{version}')");
        (migration(run, digest, "exit 1"), insert)
    };
    let pod = Pod::new(&hostile.database, "pod-1");
    let (task, _) = fails("run-1", "sha256:a", "1");
    let first = pod.run(&Task::Migrate(task)).await.migration();
    let (task, insert) = fails("run-2", "sha256:b", "2");
    hostile.set(&insert).await;
    let second = pod.run(&Task::Migrate(task)).await.migration();
    assert_eq!(first.before, second.before, "another role's table");
    hostile
        .admin
        .batch_execute("alter table trap.schema_migrations owner to crm")
        .await
        .expect("an owner");
    let third = pod
        .run(&Task::Migrate(migration("run-3", "sha256:c", "exit 1")))
        .await
        .migration();
    assert_ne!(second.before, third.before, "a table of the agent's role");
}

#[rstest]
#[case::a_schema_of_its_own(
    "create schema fairway; grant all on schema fairway to crm",
    "schema fairway belongs to another role"
)]
#[case::a_forged_ledger(
    "create schema fairway; grant all on schema fairway to public;
     create table fairway.owner (singleton boolean primary key, namespace text, app text);
     create table fairway.migration_run (run_id text primary key, state text, resolution text);
     insert into fairway.owner values (true, 'shop', 'crm');
     insert into fairway.migration_run values ('run-1', 'committed', null);
     grant all on all tables in schema fairway to public",
    "schema fairway belongs to another role"
)]
#[tokio::test]
async fn s4_a_ledger_of_a_weak_role_is_not_trusted(#[case] trap: &str, #[case] what: &str) {
    let hostile = Hostile::new().await;
    hostile.set(trap).await;
    for pod in [hostile.superuser(), Pod::new(&hostile.database, "pod-1")] {
        hostile.is_refused(&pod, what).await;
    }
}

#[rstest]
#[case::a_table_of_its_own(
    "alter table fairway.owner owner to {weak}",
    "fairway.owner belongs to another role"
)]
#[case::another_table(
    "create table fairway.more (a int4); alter table fairway.more owner to {weak}",
    "fairway.more belongs to another role"
)]
#[case::a_trigger(
    "create trigger spring before insert or update on fairway.migration_run for each row execute function trap.on_row()",
    "fairway.migration_run has the trigger spring"
)]
#[case::a_rule(
    "create rule spring as on insert to fairway.owner do also select trap.spring()",
    "fairway.owner has the rule spring"
)]
#[case::a_policy(
    "create policy spring on fairway.migration_run using (trap.spring()); \
     alter table fairway.migration_run enable row level security",
    "fairway.migration_run has row security"
)]
#[case::an_heir(
    "create table fairway.more () inherits (fairway.owner)",
    "fairway.owner is not a plain table"
)]
#[case::a_view(
    "alter table fairway.owner rename to real; create view fairway.owner as select *, trap.spring() from fairway.real",
    "fairway.owner is not a plain table"
)]
#[case::a_generated_column(
    "alter table fairway.owner add column more boolean generated always as (app = 'crm') stored",
    "fairway.owner has the generated column more"
)]
#[case::a_type(
    "create domain trap.word as text check (trap.spring()); alter table fairway.migration_run add column more trap.word",
    "the column more of fairway.migration_run has a type of its own"
)]
#[case::a_default(
    "alter table fairway.migration_run alter column last_error set default trap.spring()::text",
    "fairway.migration_run depends on an object that is not part of it"
)]
#[case::a_constraint(
    "alter table fairway.migration_run add check (trap.spring())",
    "fairway.migration_run depends on an object that is not part of it"
)]
#[case::an_index(
    "create function trap.sprung(text) returns boolean immutable language sql as 'select true'; \
     create index on fairway.migration_run (trap.sprung(app))",
    "fairway.migration_run depends on an object that is not part of it"
)]
#[case::a_grant(
    "grant trigger on fairway.owner to {weak}",
    "another role may write to fairway.owner"
)]
#[case::a_grant_of_a_column(
    "grant update (state) on fairway.migration_run to {weak}",
    "another role may write to fairway.migration_run"
)]
#[tokio::test]
async fn s4_a_ledger_that_was_tampered_with_is_not_trusted(#[case] trap: &str, #[case] what: &str) {
    let hostile = Hostile::new().await;
    let run = Pod::new(&hostile.database, "pod-1")
        .run(&Task::Migrate(migration("run-0", "sha256:0", "true")))
        .await;
    assert_eq!(run.migration().outcome, MigrationOutcome::Applied);
    let trap = trap.replace("{weak}", &format!("weak_{}", hostile.database.name));
    hostile.admin.batch_execute(&trap).await.expect(&trap);
    let before = hostile.sprung();
    hostile
        .is_refused(&Pod::new(&hostile.database, "pod-1"), what)
        .await;
    assert_eq!(hostile.sprung(), before);
}

#[tokio::test]
async fn s4_default_privileges_give_nobody_the_ledger() {
    let hostile = Hostile::new().await;
    let weak = format!("weak_{}", hostile.database.name);
    let defaults = format!("alter default privileges for role crm grant all on tables to {weak}, public");
    hostile.admin.batch_execute(&defaults).await.expect("defaults");
    let pod = Pod::new(&hostile.database, "pod-1");
    for run in ["run-1", "run-2"] {
        let run = pod.run(&Task::Migrate(migration(run, run, "true"))).await;
        assert_eq!(run.migration().outcome, MigrationOutcome::Applied, "{}", run.log);
    }
    let may = format!(
        "select bool_or(has_table_privilege('{weak}', oid, 'select')) from pg_class where relnamespace = 'fairway'::regnamespace and relkind = 'r'"
    );
    assert_eq!(value(&hostile.admin, &may).await, "f");
}

#[tokio::test]
async fn f4_an_event_trigger_is_found_before_anything_is_done() {
    let hostile = Hostile::new().await;
    hostile
        .admin
        .batch_execute(
            "create table public.ddl_log (tag text); grant insert on public.ddl_log to public;
             create function public.log_ddl() returns event_trigger language plpgsql as
             $$ begin insert into ddl_log values (tg_tag); end $$;
             create event trigger log_ddl on ddl_command_end execute function public.log_ddl()",
        )
        .await
        .expect("an event trigger");
    let pod = Pod::new(&hostile.database, "pod-1");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::LedgerNotPermitted);
    assert!(failure.message.contains("event trigger"), "{}", failure.message);

    hostile
        .admin
        .batch_execute("alter function public.log_ddl() set search_path = public")
        .await
        .expect("the fix");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure, None);
    assert_eq!(
        value(&hostile.admin, "select to_regnamespace('fairway') is null").await,
        "t"
    );
    assert_eq!(
        value(&hostile.admin, "select count(*) from public.ddl_log").await,
        "1",
        "only the fix itself"
    );
}

#[tokio::test]
async fn f4_a_liquibase_lock_in_a_closed_schema_is_passed_over() {
    let hostile = Hostile::new().await;
    hostile
        .admin
        .batch_execute(
            "create schema closed; create table closed.databasechangeloglock (locked bool); \
             alter table closed.databasechangeloglock owner to crm; grant select on closed.databasechangeloglock to crm",
        )
        .await
        .expect("a table");
    let report: PreflightReport = Pod::new(&hostile.database, "pod-1")
        .run(&preflight())
        .await
        .report();
    assert_eq!(report.failure, None);
}
