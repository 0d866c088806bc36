//! A way to the database that a test can cut: for the agent the database is away then, and for nobody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};

use crate::postgres::Database;

/// A TCP proxy before the server.
pub(crate) struct Proxy {
    /// Connection string of the database through the proxy.
    pub(crate) url: String,
    is_cut: watch::Sender<bool>,
}

impl Proxy {
    /// Starts a proxy before the server of a database.
    pub(crate) async fn start(database: &Database) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let server = database.server().port;
        let url = database
            .url()
            .replace(&format!(":{server}/"), &format!(":{own}/"));
        let (is_cut, cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, cut.clone()));
            }
        });
        Self { url, is_cut }
    }

    /// Closes every connection, and each that is opened from now on.
    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Lets connections through again.
    pub(crate) fn restore(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn forward(mut client: TcpStream, server: u16, mut cut: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = cut.wait_for(|is_cut| *is_cut) => {}
        () = async {
            if let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await {
                // A reset connection has ended, too.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        } => {}
    }
}

/// A proxy that lets the agent's own statements through up to one: that one is executed, and its answer never arrives. Then
/// the agent can be killed at a known place.
pub(crate) struct Tap {
    /// Where it listens.
    pub(crate) port: u16,
    seen: Arc<Seen>,
}

/// What the connections of a tap have in common.
struct Seen {
    statements: AtomicUsize,
    last: AtomicUsize,
    reached: Notify,
}

impl Tap {
    /// Starts a tap before the server of all databases that lets everything through.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Seen {
            statements: AtomicUsize::new(0),
            last: AtomicUsize::new(usize::MAX),
            reached: Notify::new(),
        });
        let server = Database::server_of_all().port;
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(tapped(client, server, shared.clone()));
            }
        });
        Self { port, seen }
    }

    /// Counts from now on, and lets statements through up to that one.
    pub(crate) fn stop_at(&self, last: usize) {
        self.seen.statements.store(0, Ordering::SeqCst);
        self.seen.last.store(last, Ordering::SeqCst);
    }

    /// Statements that were sent, since it counts.
    pub(crate) fn statements(&self) -> usize {
        self.seen.statements.load(Ordering::SeqCst)
    }

    /// Waits until the last statement was executed.
    pub(crate) async fn reached(&self) {
        let reached = self.seen.reached.notified();
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("the statement was executed");
    }
}

/// One message of PostgreSQL's protocol: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 5];
    from.read_exact(&mut bytes).await?;
    rest(from, bytes, 1).await
}

/// Reads what follows the length at that place.
async fn rest(
    from: &mut (impl AsyncRead + Unpin),
    mut bytes: Vec<u8>,
    at: usize,
) -> std::io::Result<Vec<u8>> {
    let length = u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    bytes.resize(at + length as usize, 0);
    from.read_exact(&mut bytes[at + 4..]).await?;
    Ok(bytes)
}

/// Forwards one connection, until it is closed.
async fn tapped(client: TcpStream, server: u16, seen: Arc<Seen>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_cut_off = AtomicBool::new(false);
    let ready = Notify::new();
    let requests = async {
        let mut start = vec![0; 4];
        from_client.read_exact(&mut start).await?;
        let start = rest(&mut from_client, start, 0).await?;
        // Programs of PostgreSQL do not set it.
        let own = b"statement_timeout=60000";
        let is_agent = start.windows(own.len()).any(|window| window == own);
        to_server.write_all(&start).await?;
        loop {
            let request = message(&mut from_client).await?;
            let is_statement = is_agent && request[0] == b'Q';
            let number = match is_statement {
                true => seen.statements.fetch_add(1, Ordering::SeqCst) + 1,
                false => 0,
            };
            let is_last = number == seen.last.load(Ordering::SeqCst);
            is_cut_off.store(is_last, Ordering::SeqCst);
            to_server.write_all(&request).await?;
            if is_last {
                ready.notified().await;
                seen.reached.notify_one();
                // Until the agent is gone.
                while from_client.read_u8().await.is_ok() {}
                return std::io::Result::Ok(());
            }
        }
    };
    let answers = async {
        loop {
            let answer = match message(&mut from_server).await {
                Ok(answer) => answer,
                Err(error) => return Err::<(), std::io::Error>(error),
            };
            match is_cut_off.load(Ordering::SeqCst) {
                true if answer[0] == b'Z' => ready.notify_one(),
                true => {}
                false => to_client.write_all(&answer).await?,
            }
        }
    };
    // A closed connection ends both.
    let _ = tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    };
}
