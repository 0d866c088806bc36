//! The ledger under agents of several versions, on a real PostgreSQL.

use fairway_protocol::Reason;
use tokio_postgres::{Client, Config, NoTls};

use super::{
    Found, VERSIONS, ensure_of, find_of,
    postgres::{Database, PASSWORD, ROLE, value},
};

/// What an agent of the next version knows.
fn next() -> Vec<&'static str> {
    let upgrade = "alter table fairway.migration_run add column rehearsal text";
    VERSIONS.iter().copied().chain([upgrade]).collect()
}

async fn session(database: &Database) -> Client {
    let client = database.admin().await;
    client
        .batch_execute("set search_path = pg_catalog")
        .await
        .unwrap();
    client
}

/// A session as the agent has it, of the role that owns the database.
async fn as_role(database: &Database) -> Client {
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(database.server().port)
        .user(ROLE)
        .password(PASSWORD)
        .dbname(&database.name)
        .options("-csearch_path=pg_catalog");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn version(client: &Client) -> String {
    value(client, "select version from fairway.ledger").await
}

#[tokio::test]
async fn w20e_an_older_agent_leaves_a_newer_ledger_alone() {
    let database = Database::new().await;
    let mut client = session(&database).await;
    ensure_of(&mut client, VERSIONS).await.unwrap();
    let row = "insert into fairway.owner (namespace, app) values ('shop', 'crm')";
    client.batch_execute(row).await.unwrap();

    ensure_of(&mut client, &next()).await.unwrap();
    assert_eq!(version(&client).await, next().len().to_string());
    assert_eq!(value(&client, "select app from fairway.owner").await, "crm");

    for refusal in [
        ensure_of(&mut client, VERSIONS).await.err(),
        find_of(&client, VERSIONS).await.err(),
    ] {
        let failure = refusal.unwrap();
        assert_eq!(failure.reason, Reason::LedgerNewer);
        assert!(failure.message.contains("Upgrade Fairway"), "{}", failure.message);
    }
    assert_eq!(
        version(&client).await,
        next().len().to_string(),
        "nothing was changed"
    );
    assert_eq!(find_of(&client, &next()).await, Ok(Found::Current));
}

#[tokio::test]
async fn w20e_every_earlier_version_is_upgraded() {
    for earlier in 1..VERSIONS.len() {
        let database = Database::new().await;
        let mut client = session(&database).await;
        client.batch_execute("create schema fairway").await.unwrap();
        for step in &VERSIONS[..earlier] {
            client.batch_execute(step).await.unwrap();
        }
        if earlier > 1 {
            let numbered = format!("update fairway.ledger set version = {earlier}");
            client.batch_execute(&numbered).await.unwrap();
        }
        assert_eq!(find_of(&client, VERSIONS).await, Ok(Found::Earlier(earlier)));
        ensure_of(&mut client, VERSIONS).await.unwrap();
        assert_eq!(find_of(&client, VERSIONS).await, Ok(Found::Current));
    }
}

#[tokio::test]
async fn a_role_that_does_not_own_the_ledger_gets_the_statements() {
    let database = Database::new().await;
    let admin = session(&database).await;
    let earlier = VERSIONS[..2].join(";");
    admin
        .batch_execute(&format!(
            "create schema fairway; {earlier}; update fairway.ledger set version = 2; \
             grant usage, create on schema fairway to {ROLE}; grant all on all tables in schema fairway to {ROLE}"
        ))
        .await
        .unwrap();
    let mut client = as_role(&database).await;
    let failure = ensure_of(&mut client, VERSIONS).await.unwrap_err();
    assert_eq!(failure.reason, Reason::LedgerNotPermitted);
    let (_, statements) = failure.message.split_once("in place of ROLE, run: ").unwrap();
    assert_eq!(
        statements,
        "ALTER TABLE fairway.ledger OWNER TO ROLE; ALTER TABLE fairway.migration_run OWNER TO ROLE; \
         ALTER TABLE fairway.owner OWNER TO ROLE."
    );
    let statements = statements.trim_end_matches('.').replace("ROLE", ROLE);
    admin.batch_execute(&statements).await.unwrap();
    ensure_of(&mut client, VERSIONS).await.unwrap();
    assert_eq!(find_of(&client, VERSIONS).await, Ok(Found::Current));
}
