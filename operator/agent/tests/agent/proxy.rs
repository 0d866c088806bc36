//! A way to the database that a test can cut: for the agent the database is away then, and for nobody else.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
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
