//! A real PostgreSQL for tests: one server per test process, on loopback and a socket in a temporary folder;
//! each test has a database of its own.
//!
//! It needs Debian's `postgresql-15` (or any later version) and, as root, the user `postgres`, because the
//! server refuses to run as root.

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// Key of the lock that [`Database::holding_lock`] takes.
const LOCK: i64 = 42;

/// Lets go of the lock that [`Database::holding_lock`] took.
pub(crate) async fn release_lock(session: &Client) {
    let unlock = format!("select pg_advisory_unlock({LOCK})");
    session.batch_execute(&unlock).await.expect("the lock");
}

/// The role that owns every test's database, and its password: with characters that need their encoding.
pub(crate) const ROLE: &str = "crm";
/// The password of that role.
pub(crate) const PASSWORD: &str = "s3cret/p@ss word";
/// The password as a URL writes it.
pub(crate) const PASSWORD_IN_URL: &str = "s3cret%2Fp%40ss%20word";

/// What of a database's name a URL encodes.
const NAME_IN_URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_');

/// Starts the server, waits until it answers, and ends it when this process ends, however that happens: the
/// shell reads from a pipe that only this process holds open.
const SUPERVISE: &str = r#"
set -e
"$BIN/initdb" -D "$DIR/data" -U postgres --auth-local=trust --auth-host=scram-sha-256 --no-sync -E UTF8 \
  --locale=C.UTF-8 >"$DIR/initdb.log" 2>&1
chmod 600 "$DIR/server.key"
"$BIN/postgres" -D "$DIR/data" -c ssl=on -c ssl_cert_file="$DIR/server.crt" -c ssl_key_file="$DIR/server.key" \
  -k "$DIR" -p "$PORT" -c listen_addresses=127.0.0.1 -c fsync=off \
  -c max_connections=200 -c shared_buffers=32MB >"$DIR/server.log" 2>&1 </dev/null &
server=$!
until "$BIN/pg_isready" -q -h "$DIR" -p "$PORT"; do kill -0 $server; done
"$BIN/psql" -qX -h "$DIR" -p "$PORT" -U postgres -d postgres -c "create role $ROLE login password '$PASSWORD'"
echo ready
read -r _ || true
kill -INT $server
wait $server || true
rm -rf "$DIR"
"#;

/// A port for a server that cannot choose one itself: below the range from which the kernel gives ports to
/// everybody else, and at another place for each test process.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(64);
    let candidates = std::iter::repeat_with(|| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
    candidates
        .filter_map(|candidate| u16::try_from(20_000 + candidate % 10_000).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("endless")
}

/// A running server.
pub(crate) struct Server {
    /// Folder of the socket and the logs.
    pub(crate) folder: PathBuf,
    /// TCP port on 127.0.0.1.
    pub(crate) port: u16,
    /// Folder of PostgreSQL's programs.
    pub(crate) programs: PathBuf,
}

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// The newest PostgreSQL that Debian's packages installed.
pub(crate) fn programs() -> PathBuf {
    let versions =
        fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is not installed: apt-get install postgresql");
    let newest = versions
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("a version in /usr/lib/postgresql");
    Path::new("/usr/lib/postgresql")
        .join(newest.to_string())
        .join("bin")
}

/// Whether this process may do anything.
pub(crate) fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("/proc")) == 0
}

/// A program that refuses to run as root, as the user `postgres` where this process is root.
pub(crate) fn as_server_user(program: impl AsRef<OsStr>) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(program);
    command
}

/// Starts a shell that runs a server in a folder, says `ready` when it answers, and ends it when its own input ends: with
/// this process.
#[expect(clippy::zombie_processes, reason = "the shell ends after this process")]
pub(crate) fn supervise(mut shell: Command, folder: &Path) {
    use std::io::BufRead as _;
    let mut supervisor = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    // Kept open until this process ends.
    std::mem::forget(supervisor.stdin.take());
    let mut ready = String::new();
    let mut output = std::io::BufReader::new(supervisor.stdout.take().expect("piped"));
    output.read_line(&mut ready).expect("a line");
    assert_eq!(ready.trim(), "ready", "see the logs in {}", folder.display());
}

impl Server {
    pub(crate) fn start() -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new()
            .prefix("fairway-postgres-")
            .tempdir()
            .expect("a folder")
            .keep();
        certify(&folder);
        let port = free_port();
        if is_root() {
            let owned = Command::new("chown")
                .args(["-R", "postgres:"])
                .arg(&folder)
                .status();
            assert!(owned.expect("chown").success());
        }
        let mut shell = as_server_user("sh");
        shell
            .args(["-c", SUPERVISE])
            .envs([("BIN", &programs), ("DIR", &folder)])
            .env("PORT", port.to_string())
            .envs([("ROLE", ROLE), ("PASSWORD", PASSWORD)]);
        supervise(shell, &folder);
        Self {
            folder,
            port,
            programs,
        }
    }
}

/// Writes an authority, `ca.crt`, and a certificate of it for 127.0.0.1 alone.
fn certify(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let key = || KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate whose issuer has its own name for self-signed.
    authority
        .distinguished_name
        .push(DnType::CommonName, "authority of the tests");
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
    let server_key = key();
    let server = CertificateParams::new(["127.0.0.1".to_owned()])
        .and_then(|server| server.signed_by(&server_key, &authority))
        .expect("a certificate");
    for (name, content) in [
        ("ca.crt", authority.pem()),
        ("server.crt", server.pem()),
        ("server.key", server_key.serialize_pem()),
    ] {
        fs::write(folder.join(name), content).expect("a file");
    }
}

/// A database of one test.
pub(crate) struct Database {
    /// The database's name.
    pub(crate) name: String,
}

impl Database {
    /// Creates an empty database that [`ROLE`] owns.
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// Creates an empty database that [`ROLE`] owns, with these options of `create database`.
    pub(crate) async fn with(options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self::create(&name, options).await
    }

    /// Creates a database that [`ROLE`] owns, in which a superuser has executed this.
    pub(crate) async fn filled(content: &str) -> Self {
        let database = Self::new().await;
        let admin = database.admin().await;
        admin.batch_execute(content).await.expect("content");
        database
    }

    /// Creates an empty database of this name that [`ROLE`] owns.
    pub(crate) async fn named(name: &str) -> Self {
        Self::create(name, "").await
    }

    async fn create(name: &str, options: &str) -> Self {
        let admin = connect("postgres").await;
        let quoted = name.replace('"', "\"\"");
        admin
            .batch_execute(&format!("create database \"{quoted}\" owner {ROLE} {options}"))
            .await
            .expect("the database");
        Self {
            name: name.to_owned(),
        }
    }

    /// The server in which it lives.
    pub(crate) fn server(&self) -> &'static Server {
        Self::server_of_all()
    }

    /// The server of every database of this process.
    pub(crate) fn server_of_all() -> &'static Server {
        &SERVER
    }

    /// Restores a dump into this database, as a user would.
    pub(crate) fn restore(&self, dump: &Path) {
        let server = self.server();
        // A bare name may be read as a connection string.
        let database = self.name.replace('\\', r"\\").replace('\'', r"\'");
        let restored = Command::new(server.programs.join("pg_restore"))
            .args([
                "--exit-on-error",
                "--username",
                "postgres",
                "--dbname",
                &format!("dbname='{database}'"),
            ])
            .arg("--port")
            .arg(server.port.to_string())
            .arg("--host")
            .arg(&server.folder)
            .arg(dump)
            .output()
            .expect("pg_restore");
        assert!(
            restored.status.success(),
            "{}",
            String::from_utf8_lossy(&restored.stderr)
        );
    }

    /// A session that holds the advisory lock [`LOCK`], by which a test keeps a statement from going on.
    pub(crate) async fn holding_lock(&self) -> Client {
        let session = self.admin().await;
        let lock = format!("select pg_advisory_lock({LOCK})");
        session.batch_execute(&lock).await.expect("the lock");
        session
    }

    /// The connection string as an application gets it.
    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://{ROLE}:{PASSWORD_IN_URL}@127.0.0.1:{}/{}?schema=public",
            SERVER.port,
            utf8_percent_encode(&self.name, NAME_IN_URL)
        )
    }

    /// A session of the role that owns the database.
    pub(crate) async fn session_of_owner(&self) -> Client {
        let mut config = config(&self.name);
        config.user(ROLE);
        let (client, connection) = config.connect(NoTls).await.expect("a session");
        tokio::spawn(connection);
        client
    }

    /// A superuser's session through the socket, which the server sees without an address.
    pub(crate) async fn admin(&self) -> Client {
        connect(&self.name).await
    }

    /// The notifications of a channel from now on.
    pub(crate) async fn listen(&self, channel: &str) -> Listener {
        let (client, mut connection) = config(&self.name).connect(NoTls).await.expect("a session");
        let (sender, notices) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notice) = message
                    && sender.send(notice.payload().to_owned()).is_err()
                {
                    break;
                }
            }
        });
        client
            .batch_execute(&format!("listen {channel}"))
            .await
            .expect("listening");
        Listener {
            _client: client,
            notices,
        }
    }
}

/// Waits for what a migration announces.
pub(crate) struct Listener {
    _client: Client,
    notices: UnboundedReceiver<String>,
}

impl Listener {
    /// The next announcement.
    pub(crate) async fn next(&mut self) -> String {
        tokio::time::timeout(std::time::Duration::from_secs(30), self.notices.recv())
            .await
            .expect("nothing was announced within 30 s")
            .expect("the session that listens is open")
    }
}

fn config(database: &str) -> Config {
    let mut config = Config::new();
    config
        .host_path(&SERVER.folder)
        .port(SERVER.port)
        .user("postgres")
        .dbname(database);
    config
}

async fn connect(database: &str) -> Client {
    let (client, connection) = config(database).connect(NoTls).await.expect("a session");
    tokio::spawn(connection);
    client
}

/// The first column of the first row, as text.
pub(crate) async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.expect(sql);
    messages
        .iter()
        .find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .unwrap_or_default()
}

/// Waits inside the server until a condition holds.
pub(crate) async fn until(admin: &Client, condition: &str) {
    let wait = format!(
        "do $$ begin while not ({condition}) loop perform pg_stat_clear_snapshot(); end loop; end $$"
    );
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), admin.batch_execute(&wait)).await;
    waited.expect(condition).expect(condition);
}
