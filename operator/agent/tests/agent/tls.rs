//! TLS and authentication as libpq has them, on a server of their own whose certificate and rules change.

use std::{fs, process::Command};

use fairway_protocol::{Level, PreflightReport, PreflightTask, Reason, Task};
use tokio_postgres::{Client, Config, NoTls};

use crate::{
    harness::{Pod, requester},
    postgres::{Database, PASSWORD, PASSWORD_IN_URL, ROLE, Server, as_server_user},
};

/// What an administrator types, in the server's folder.
const SELF_SIGNED: &str = "openssl req -x509 -newkey rsa:2048 -nodes -keyout server.key -out server.crt -days 2 \
    -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1";
const P_521: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes -keyout server.key \
    -out server.crt -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1";
/// The recipe of PostgreSQL's documentation, <https://www.postgresql.org/docs/current/ssl-tcp.html>.
const RECIPE: &str = "printf '[v3_ca]\\nbasicConstraints=critical,CA:true\\n' >v3.cnf
    openssl req -new -nodes -out root.csr -keyout root.key -subj /CN=root.example
    openssl x509 -req -in root.csr -days 2 -extfile v3.cnf -extensions v3_ca -signkey root.key -out ca.crt
    openssl req -new -nodes -out server.csr -keyout server.key -subj /CN=localhost
    openssl x509 -req -in server.csr -days 2 -CA ca.crt -CAkey root.key -CAcreateserial -out server.crt";
const EXPIRED: &str =
    "openssl req -new -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1
    openssl x509 -req -in server.csr -signkey server.key -days -1 -out server.crt";

const SCRAM: &str = "host all all all scram-sha-256";

/// What psql and the agent are to make of a server.
struct Case {
    certificate: &'static str,
    rules: &'static str,
    host: &'static str,
    query: &'static str,
    refusal: Option<(Reason, &'static str)>,
}

const fn case(
    certificate: &'static str,
    host: &'static str,
    query: &'static str,
    refusal: Option<(Reason, &'static str)>,
) -> Case {
    Case {
        certificate,
        rules: SCRAM,
        host,
        query,
        refusal,
    }
}

const fn rule(rules: &'static str, query: &'static str, refusal: Option<(Reason, &'static str)>) -> Case {
    Case {
        certificate: SELF_SIGNED,
        rules,
        host: "127.0.0.1",
        query,
        refusal,
    }
}

const NO_TLS: &str = "hostnossl all all all scram-sha-256";
const ONLY_TLS: &str = "hostssl all all all scram-sha-256";
const CLEAR: &str = "host all all all password";
const TRUST: &str = "host all all all trust";

/// Cases that libpq of any version has: psql must agree.
const CASES: &[Case] = &[
    case(P_521, "127.0.0.1", "?sslmode=require", None),
    case(
        P_521,
        "127.0.0.1",
        "?sslmode=verify-full&sslrootcert={server}",
        None,
    ),
    case(
        SELF_SIGNED,
        "127.0.0.1",
        "?sslmode=require&sslrootcert={server}",
        None,
    ),
    case(
        SELF_SIGNED,
        "127.0.0.1",
        "?sslmode=verify-ca&sslrootcert={server}",
        None,
    ),
    case(
        SELF_SIGNED,
        "127.0.0.1",
        "?sslmode=verify-full&sslrootcert={server}",
        None,
    ),
    case(
        SELF_SIGNED,
        "localhost",
        "?sslmode=verify-ca&sslrootcert={server}",
        None,
    ),
    case(
        SELF_SIGNED,
        "localhost",
        "?sslmode=verify-full&sslrootcert={server}",
        Some((Reason::TlsFailed, "not valid for name")),
    ),
    case(
        SELF_SIGNED,
        "127.0.0.1",
        "?sslmode=verify-full&sslrootcert={server}&ssl_min_protocol_version=TLSv1.3",
        None,
    ),
    case(EXPIRED, "127.0.0.1", "?sslmode=require", None),
    case(
        EXPIRED,
        "127.0.0.1",
        "?sslmode=verify-ca&sslrootcert={server}",
        Some((Reason::TlsFailed, "TLS handshake")),
    ),
    case(RECIPE, "localhost", "?sslmode=require", None),
    case(RECIPE, "localhost", "?sslmode=verify-full&sslrootcert={ca}", None),
    case(RECIPE, "127.0.0.1", "?sslmode=verify-ca&sslrootcert={ca}", None),
    case(
        RECIPE,
        "127.0.0.1",
        "?sslmode=verify-full&sslrootcert={ca}",
        Some((Reason::TlsFailed, "not valid for name")),
    ),
    case(
        RECIPE,
        "localhost",
        "?sslmode=verify-full&sslrootcert={other}",
        Some((Reason::TlsFailed, "TLS handshake")),
    ),
    case(
        RECIPE,
        "localhost",
        "?sslmode=verify-full&sslrootcert=/no/ca.pem",
        Some((
            Reason::TlsFailed,
            "/no/ca.pem, which the connection string names, does not exist",
        )),
    ),
    rule(NO_TLS, "", None),
    rule(NO_TLS, "?sslmode=prefer", None),
    rule(
        NO_TLS,
        "?sslmode=require",
        Some((Reason::PasswordRejected, "pg_hba.conf")),
    ),
    rule(ONLY_TLS, "", None),
    rule(
        ONLY_TLS,
        "?sslmode=disable",
        Some((Reason::PasswordRejected, "no encryption")),
    ),
    rule("", "", Some((Reason::PasswordRejected, "pg_hba.conf"))),
];

/// Cases of `require_auth`, which psql knows since PostgreSQL 16.
const METHODS: &[Case] = &[
    rule(SCRAM, "?require_auth=scram-sha-256", None),
    rule(SCRAM, "?sslmode=disable&require_auth=scram-sha-256", None),
    rule(SCRAM, "?sslmode=require&require_auth=!password", None),
    rule(NO_TLS, "?require_auth=scram-sha-256", None),
    rule(CLEAR, "?require_auth=password", None),
    rule(
        CLEAR,
        "?require_auth=scram-sha-256",
        Some((Reason::ConnectionInvalid, "by password")),
    ),
    rule(
        CLEAR,
        "?sslmode=disable&require_auth=!password",
        Some((Reason::ConnectionInvalid, "by password")),
    ),
    rule(
        CLEAR,
        "?sslmode=require&require_auth=scram-sha-256",
        Some((Reason::ConnectionInvalid, "by password")),
    ),
    rule(
        TRUST,
        "?sslmode=require&require_auth=scram-sha-256",
        Some((Reason::ConnectionInvalid, "by none")),
    ),
    rule(TRUST, "?require_auth=none", None),
    rule(
        TRUST,
        "?sslmode=require&channel_binding=require",
        Some((Reason::ConnectionInvalid, "channel binding")),
    ),
];

fn shell(server: &Server, script: &str) {
    let output = as_server_user("sh")
        .args(["-ec", script])
        .current_dir(&server.folder)
        .output()
        .expect("a shell");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn admin(server: &Server) -> Client {
    let mut config = Config::new();
    config
        .host_path(&server.folder)
        .port(server.port)
        .user("postgres")
        .dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.expect("a session");
    tokio::spawn(connection);
    client
}

/// Gives the server a certificate and rules, and waits until it has them.
async fn configure(server: &Server, case: &Case) {
    let rules = format!("local all all trust\n{}\n", case.rules);
    shell(
        server,
        &format!(
            "{}\nchmod 600 server.key\nprintf '%s' '{rules}' >data/pg_hba.conf",
            case.certificate
        ),
    );
    let loaded = "select pg_conf_load_time()::text";
    let before: String = admin(server)
        .await
        .query_one(loaded, &[])
        .await
        .expect("a time")
        .get(0);
    admin(server)
        .await
        .batch_execute("select pg_reload_conf()")
        .await
        .expect("a signal");
    loop {
        let now: String = admin(server)
            .await
            .query_one(loaded, &[])
            .await
            .expect("a time")
            .get(0);
        if now != before {
            return;
        }
    }
}

fn url(server: &Server, case: &Case) -> String {
    let file = |name: &str| server.folder.join(name).display().to_string();
    let query = case
        .query
        .replace("{server}", &file("server.crt"))
        .replace("{ca}", &file("ca.crt"))
        .replace("{other}", &file("other.crt"));
    format!(
        "postgres://{ROLE}:{PASSWORD_IN_URL}@{}:{}/shop{query}",
        case.host, server.port
    )
}

async fn server() -> Server {
    let server = Server::start();
    fs::copy(server.folder.join("ca.crt"), server.folder.join("other.crt")).expect("a file");
    shell(&server, "cp server.crt first.crt");
    admin(&server)
        .await
        .batch_execute(&format!("create database shop owner {ROLE}"))
        .await
        .expect("a database");
    server
}

async fn preflight(database: &Database, url: &str) -> PreflightReport {
    let task = Task::Preflight(PreflightTask {
        requester: requester("crm"),
        migrates: true,
        store: None,
        verify: Level::Decoded,
    });
    Pod::new(database, "pod-1")
        .with("FAIRWAY_DATABASE_URL", url)
        .run(&task)
        .await
        .report()
}

/// What is wrong with the agent's verdict on a case.
async fn differs(database: &Database, server: &Server, case: &Case) -> Option<String> {
    let report = preflight(database, &url(server, case)).await;
    let fits = match (&report.failure, case.refusal) {
        (None, None) => true,
        (Some(failure), Some((reason, part))) => failure.reason == reason && failure.message.contains(part),
        _ => false,
    };
    if let Some(failure) = &report.failure {
        for secret in [ROLE, PASSWORD, case.host] {
            assert!(
                !failure
                    .message
                    .split(['"', ' ', '(', ')'])
                    .any(|word| word == secret),
                "{}",
                failure.message
            );
        }
    }
    (!fits).then(|| format!("{} {}: {:?}", case.rules, case.query, report.failure))
}

/// F3: keys, certificates and rules that libpq connects with, and the true reason where it does not.
#[tokio::test]
async fn tls_connects_where_libpq_connects() {
    let database = Database::new().await;
    let server = server().await;
    let mut wrong = Vec::new();
    for case in CASES {
        configure(&server, case).await;
        let psql = Command::new(server.programs.join("psql"))
            .args(["-X", "-w", "-c", "select 1", "-d", &url(&server, case)])
            .env_clear()
            .output()
            .expect("psql");
        if psql.status.success() != case.refusal.is_none() {
            let errors = String::from_utf8_lossy(&psql.stderr);
            wrong.push(format!("psql: {} {}: {errors}", case.rules, case.query));
        }
        wrong.extend(differs(&database, &server, case).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// S12: what strengthens a connection is enforced. That it is refused where it is not understood, and that `ssl=true`
/// and `sslrootcert=system` verify, stands in the table of connection strings.
#[tokio::test]
async fn require_auth_is_enforced() {
    let database = Database::new().await;
    let server = server().await;
    let mut wrong = Vec::new();
    for case in METHODS {
        configure(&server, case).await;
        wrong.extend(differs(&database, &server, case).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
