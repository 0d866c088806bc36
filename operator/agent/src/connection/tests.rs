//! The table of connection strings, and what it cannot say.

use std::{collections::BTreeMap, net::IpAddr};

use rstest::rstest;
use serde::Deserialize;

use super::{authentication::Methods, *};

/// A row of the table; tests/agent/strings.rs compares those of libpq with psql.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    text: String,
    by: String,
    reads: Option<Values>,
    refuses: Option<String>,
    driver: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Values {
    at: String,
    user: String,
    password: Option<String>,
    database: String,
    tls: String,
    authorities: Option<String>,
    options: Option<String>,
    path: Option<String>,
    methods: Option<String>,
    versions: Option<String>,
    binding: Option<String>,
    address: Option<IpAddr>,
}

impl Values {
    fn of(connection: &Connection) -> Self {
        let name = |version: TlsVersion| version.as_libpq().trim_start_matches("TLSv");
        let TlsVersions { least, most } = connection.tls_versions;
        let versions = [least, most].map(|version| version.map_or("", name)).join("-");
        let binding = connection.channel_binding.as_libpq().to_owned();
        Self {
            at: connection.address(),
            user: connection.user.clone(),
            password: connection.password.clone(),
            database: connection.database.clone(),
            tls: connection.tls.as_libpq().to_owned(),
            authorities: connection
                .root_certificates
                .as_ref()
                .map(|path| path.display().to_string()),
            options: connection.options.clone(),
            path: connection.search_path.clone(),
            methods: connection.methods.as_ref().map(Methods::as_libpq),
            versions: Some(versions).filter(|versions| versions != "-"),
            binding: Some(binding).filter(|binding| binding != "prefer"),
            address: connection.hosts.first().and_then(|host| host.address),
        }
    }
}

fn table() -> Vec<Row> {
    serde_saphyr::from_str(include_str!("../../tests/connection-strings.yaml")).expect("a table")
}

fn parse(text: &str) -> Connection {
    Connection::parse(text).expect(text)
}

/// F1: no key is dropped, and no database is taken by default.
/// F2: quotes, encodings, aliases and lists of hosts are those of each driver.
#[test]
fn every_string_reads_as_its_driver_reads_it() {
    let wrong = |row: &Row| {
        let read = Connection::parse(&row.text);
        let fits = match (&read, &row.reads, &row.refuses) {
            (Ok(connection), Some(values), None) => Values::of(connection) == *values,
            (Err(error), None, Some(part)) => error.to_string().contains(part.as_str()),
            _ => false,
        };
        let read = read.map(|connection| Values::of(&connection));
        (!fits).then(|| format!("{} ({}): {read:?}", row.text, row.by))
    };
    let wrong: Vec<_> = table().iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_every_reader() {
    let rows = table();
    assert!(rows.len() >= 60, "{}", rows.len());
    for reader in [
        "libpq",
        "pgx",
        "node-postgres",
        "prisma",
        "SQLAlchemy",
        "dj-database-url",
        "ActiveRecord",
        "pgjdbc",
        "Npgsql",
    ] {
        assert!(rows.iter().any(|row| row.by.contains(reader)), "{reader}");
    }
    let silent = rows
        .iter()
        .filter(|row| row.driver.as_deref() == Some(""))
        .count();
    assert_eq!(silent, 0, "a difference says why");
}

#[test]
fn a_refusal_shows_no_value() {
    for row in table() {
        if let Err(error) = Connection::parse(&row.text.replace("=p", "=canary").replace(":p", ":canary")) {
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}

#[rstest]
#[case("host=db user=crm password=abc def1=ghi dbname=d")]
#[case("postgres://u@h/d?password=abc&def1=ghi")]
#[case("Host=h;Username=u;Database=d;Password=abc;def1=ghi")]
fn the_rest_of_a_password_is_not_shown_as_a_key(#[case] text: &str) {
    let error = Connection::parse(text).expect_err(text).to_string();
    assert!(!error.contains("def1") && !error.contains("ghi"), "{error}");
    assert!(error.to_lowercase().contains("next to password"), "{error}");
}

#[test]
fn the_tools_get_what_the_agent_reads() {
    let text = "host=a,b hostaddr=10.0.0.1,10.0.0.2 user=u password=p dbname=d sslmode=require \
                ssl_min_protocol_version=TLSv1.3 require_auth=scram-sha-256 channel_binding=require \
                options='-c role=owner'";
    let variables = parse(text).libpq_variables();
    for (name, value) in [
        ("PGHOST", "a,b"),
        ("PGHOSTADDR", "10.0.0.1,10.0.0.2"),
        ("PGSSLMODE", "require"),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1.3"),
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGCHANNELBINDING", "require"),
        ("PGOPTIONS", "-c role=owner"),
        ("PGTARGETSESSIONATTRS", "read-write"),
    ] {
        assert_eq!(variables[name], value, "{name}");
    }
}

#[test]
fn a_connection_is_read_from_its_parts() {
    let variables = BTreeMap::from([
        (protocol::DATABASE_HOST_VARIABLE, "db"),
        (protocol::DATABASE_NAME_VARIABLE, "shop"),
        (protocol::DATABASE_USER_VARIABLE, "crm"),
        (protocol::DATABASE_PASSWORD_VARIABLE, "p%40"),
    ]);
    let connection =
        Connection::from_variables(|name| variables.get(name).map(|value| (*value).to_owned())).unwrap();
    assert_eq!(
        connection.password.as_deref(),
        Some("p%40"),
        "parts are not encoded"
    );
    assert_eq!(connection.place(), " at db:5432", "the App says it");
    assert_eq!(
        Connection::from_variables(|_| None),
        Err(ConnectionError::Nothing)
    );
}

/// What follows a `?` in a password that is not encoded is read as a key. It is not shown.
#[test]
fn a_part_of_a_password_is_not_shown_as_a_key_with_a_plus() {
    for query in ["s3cr3t-\u{11}!=a+b", "s3cr3t-\u{11}!=a&b=c+d"] {
        let error = Connection::parse(&format!("postgres://crm@db/shop?{query}")).unwrap_err();
        assert_eq!(error, ConnectionError::NotAKey("host".to_owned()));
    }
}

#[test]
fn a_key_of_npgsql_is_shown_with_single_spaces() {
    let name = format!("SSL\t{}Negotiation", " ".repeat(1000));
    let error = Connection::parse(&format!("Host=db;Database=shop;Username=crm;{name}=odd")).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("SSL Negotiation"), "{message}");
}

/// S18d: the text of a server or a program keeps the names that only a Secret says.
#[test]
fn what_only_a_secret_says_is_concealed() {
    let connection = parse("postgres://crm:p@db.internal/shop");
    assert_eq!(connection.place(), "");
    assert_eq!(
        connection.conceal("no entry for user \"crm\" on db.internal, database \"shop\""),
        "no entry for user \"***\" on ***, database \"shop\""
    );
}

#[test]
fn debug_hides_the_password() {
    let text = format!("{:?}", parse("postgres://crm:s3cret@db/shop"));
    assert!(text.contains("***") && !text.contains("s3cret"), "{text}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        start in "(postgres://|jdbc:postgresql://|)",
        text in "[a-z;:@/?#&=%'\"\\\\,+ 0\\[\\]é]{0,40}",
        end in "(&user=u|;User=u|)"
    ) {
        let text = start + &text + &end;
        let again = || Connection::parse(&text);
        proptest::prop_assert_eq!(again(), again());
        if let Ok(connection) = again() {
            proptest::prop_assert!(!connection.user.is_empty() && !connection.database.is_empty());
            proptest::prop_assert!(connection.hosts.iter().all(|host| !host.name.is_empty() && host.port > 0));
        }
    }
}

/// `UPDATE_SEEDS=1` writes them.
#[test]
fn the_seeds_of_the_fuzz_target_are_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/connection.txt");
    let seeds: String = table()
        .iter()
        .map(|row| row.text.replace('\n', "\\n") + "\n")
        .collect();
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        std::fs::write(path, &seeds).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == seeds,
        "UPDATE_SEEDS=1 writes {path}"
    );
}
