//! Connection strings from the documentation of the libraries that write them.

use rstest::rstest;

use super::*;

fn parse(text: &str) -> Connection {
    Connection::parse(text).expect(text)
}

#[rstest]
#[case("postgres://crm:s3cret@db:5433/shop")]
#[case("postgresql://crm:s3cret@db:5433/shop?schema=public&connection_limit=5&pgbouncer=false")]
#[case("postgresql+asyncpg://crm:s3cret@db:5433/shop?prepared_statement_cache_size=0")]
#[case("jdbc:postgresql://db:5433/shop?user=crm&password=s3cret&ApplicationName=x")]
#[case("host=db port=5433 dbname=shop user=crm password='s3cret'")]
#[case("Host=db;Port=5433;Database=shop;Username=crm;Password=s3cret;Pooling=true")]
#[case("postgres://crm:s3cret@db:5433/shop\n")]
fn every_common_form_reads_the_same(#[case] text: &str) {
    let connection = parse(text);
    assert_eq!(
        connection.hosts,
        vec![Host {
            name: "db".into(),
            port: 5433
        }]
    );
    assert_eq!(connection.database, "shop");
    assert_eq!(connection.user, "crm");
    assert_eq!(connection.password.as_deref(), Some("s3cret"));
    assert_eq!(connection.tls, TlsMode::Prefer);
}

#[rstest]
#[case("postgres://u:p%40ss%2Fword@h/d", "p@ss/word")]
#[case("postgres://u:p@ss@h/d", "p@ss")]
#[case("postgres://u:a:b@h/d", "a:b")]
#[case("postgres://u:p#1@h/d", "p#1")]
#[case(r"host=h user=u password='it\'s a' dbname=d", "it's a")]
fn passwords_survive_their_encoding(#[case] text: &str, #[case] password: &str) {
    assert_eq!(parse(text).password.as_deref(), Some(password));
}

#[rstest]
#[case("?sslmode=disable", TlsMode::Disable)]
#[case("?sslmode=prefer", TlsMode::Prefer)]
#[case("?sslmode=require", TlsMode::Require)]
#[case("?sslmode=no-verify", TlsMode::Require)]
#[case("?ssl=true", TlsMode::Require)]
#[case("?sslmode=require&sslrootcert=/ca.pem", TlsMode::VerifyCa)]
#[case("?sslmode=require&sslaccept=strict&sslcert=/ca.pem", TlsMode::VerifyFull)]
#[case(
    "?sslmode=require&sslaccept=accept_invalid_certs&sslcert=/ca.pem",
    TlsMode::Require
)]
#[case("?sslmode=verify-ca&sslrootcert=/ca.pem", TlsMode::VerifyCa)]
#[case("?sslmode=verify-full&sslrootcert=system", TlsMode::VerifyFull)]
fn tls_means_what_the_driver_means(#[case] query: &str, #[case] mode: TlsMode) {
    let connection = parse(&format!("postgres://u:p@h/d{query}"));
    assert_eq!(connection.tls, mode);
    assert_eq!(
        connection.root_certificates,
        query.contains("/ca.pem").then(|| PathBuf::from("/ca.pem"))
    );
}

#[rstest]
#[case("VerifyCA", TlsMode::VerifyCa)]
#[case("VerifyFull", TlsMode::VerifyFull)]
#[case("Require", TlsMode::VerifyCa)]
fn tls_means_what_npgsql_means(#[case] mode: &str, #[case] means: TlsMode) {
    let connection = parse(&format!(
        "Host=h;Username=u;SSL Mode={mode};Root Certificate=/ca.pem"
    ));
    assert_eq!(connection.tls, means);
    assert_eq!(connection.root_certificates, Some(PathBuf::from("/ca.pem")));
}

#[test]
fn several_hosts_and_sockets_are_read_as_libpq_reads_them() {
    let connection = parse("postgres://u@a:1,b/d");
    assert_eq!(connection.address(), "a:1, b:5432");
    let connection = parse("postgres://u@/d?host=/run/postgresql&port=6000");
    assert_eq!(
        connection.hosts,
        vec![Host {
            name: "/run/postgresql".into(),
            port: 6000
        }]
    );
    assert_eq!(parse("postgres://u@[::1]:7/d").address(), "[::1]:7");
}

#[rstest]
#[case("postgres://u@h/d?schema=shop", &["shop"])]
#[case("postgres://u@h/d?schema=a,b", &["a,b"])]
#[case("jdbc:postgresql://h/d?user=u&currentSchema=shop,%20public", &["shop", "public"])]
#[case("Host=h;Username=u;Search Path=\"Shop\",public", &["Shop", "public"])]
#[case("postgres://u@h/d", &[])]
fn the_schemas_are_those_of_the_application(#[case] text: &str, #[case] schemas: &[&str]) {
    assert_eq!(parse(text).schemas, schemas);
}

#[test]
fn options_are_kept() {
    let connection = parse("postgres://u:p@h/d?options=-c%20role%3Downer");
    assert_eq!(connection.libpq_variables()["PGOPTIONS"], "-c role=owner");
}

#[rstest]
#[case("mysql://u:p@h/d", ConnectionError::NotPostgres)]
#[case("hello", ConnectionError::NotPostgres)]
#[case("postgres://h/d", ConnectionError::Missing("user"))]
#[case("postgres://u:p@/d", ConnectionError::Missing("host"))]
#[case("postgres://u:p@h:port/d", ConnectionError::Invalid("port"))]
#[case("postgres://u:p@h/d?sslmode=maybe", ConnectionError::Invalid("sslmode"))]
fn a_connection_that_cannot_be_used_names_the_part(#[case] text: &str, #[case] error: ConnectionError) {
    assert_eq!(Connection::parse(text), Err(error));
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
    assert_eq!(connection.address(), "db:5432");
    assert_eq!(
        Connection::from_variables(|_| None),
        Err(ConnectionError::Nothing)
    );
}

#[test]
fn debug_hides_the_password() {
    let text = format!("{:?}", parse("postgres://crm:s3cret@db/shop"));
    assert!(text.contains("***") && !text.contains("s3cret"), "{text}");
}
