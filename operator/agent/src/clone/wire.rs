//! What an agent and the clone of its pod say to each other: JSON, one document a line.
//!
//! The clone runs the code of a dump, so that the agent believes nothing that it says but that a restore failed: every text
//! is bounded, and redacted before it stands anywhere.

use std::{io, path::Path, time::Duration};

use fairway_protocol::{Failure, Reason};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::Instant,
};

use crate::{failure::environment, text::shortened};

/// Largest document in bytes.
const LIMIT: u64 = 1024 * 1024;
/// Longest wait for the container beside the agent, which the kubelet starts before it.
const START: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest message of a clone's failure, in bytes.
const MESSAGE: usize = 500;

/// What an agent asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Request {
    /// A server of this major version, without any database of the App.
    Start {
        /// Major version of PostgreSQL.
        major: u32,
    },
    /// The dump in the scratch volume, restored.
    Restore(Restore),
}

/// A restore that an agent asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restore {
    /// The database to restore into.
    pub(super) database: String,
    /// Objects that are there already: OID of the catalog, OID in it.
    pub(super) skip: Vec<(u32, u32)>,
    /// Extensions that are left out.
    pub(super) without_extensions: Vec<String>,
}

/// One part of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Schemas, tables, data, indexes and all the rest, as a role that is no superuser.
    Objects,
    /// Privileges, comments and publications, as a superuser: they run no code, and some need other roles than the owner.
    Privileges,
    /// Rows of materialized views, as a role that is no superuser, after the privileges that their queries need.
    Views,
}

/// What a clone answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reply {
    /// The server runs.
    Started(Started),
    /// All of the dump is restored but what is named.
    Restored {
        /// What only a superuser restores, or the App leaves out.
        omitted: Vec<String>,
    },
    /// The dump is not restored, by these last lines of errors.
    NotRestored(Vec<String>),
    /// There is no server.
    Failed(Failure),
}

/// The roles of a server that was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Started {
    /// Name of its only superuser, which no role of the backed-up server has.
    pub(crate) superuser: String,
    /// Password of the superuser, which the dump's code does not know.
    pub(crate) password: String,
    /// Name for the role that restores, which the agent creates.
    pub(crate) restorer: String,
}

/// The clone, as an agent uses it. Dropping it ends what the clone does for it, and the clone's server.
pub(crate) struct CloneClient {
    stream: BufReader<UnixStream>,
}

impl CloneClient {
    /// Reaches the clone of this pod.
    ///
    /// # Errors
    /// `CloneFailed` when its container does not answer.
    pub(crate) async fn reach(socket: &Path) -> Result<Self, Failure> {
        let deadline = Instant::now() + START;
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => {
                    return Ok(Self {
                        stream: BufReader::new(stream),
                    });
                }
                Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(gone(&error)),
            }
        }
    }

    /// Starts a server of this major version.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn start(&mut self, major: u32) -> Result<Started, Failure> {
        match self.ask(&Request::Start { major }).await? {
            Reply::Started(started) => Ok(started),
            Reply::Failed(failure) => Err(believed(failure)),
            Reply::Restored { .. } | Reply::NotRestored(_) => Err(confused()),
        }
    }

    /// Restores the dump in the scratch volume into a database, without the objects of these OIDs and without what is said
    /// of these extensions. Returns what was left out, or the last lines of the errors.
    ///
    /// # Errors
    /// `CloneFailed` when the clone ends meanwhile.
    pub(crate) async fn restore(
        &mut self,
        database: &str,
        skip: Vec<(u32, u32)>,
        without_extensions: &[String],
    ) -> Result<Result<Vec<String>, Vec<String>>, Failure> {
        let restore = Restore {
            database: database.to_owned(),
            skip,
            without_extensions: without_extensions.to_vec(),
        };
        match self.ask(&Request::Restore(restore)).await? {
            Reply::Restored { omitted } => Ok(Ok(omitted)),
            Reply::NotRestored(errors) => Ok(Err(errors)),
            Reply::Failed(failure) => Err(believed(failure)),
            Reply::Started(_) => Err(confused()),
        }
    }

    async fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        let exchange = async {
            write(&mut self.stream, request).await?;
            let reply = read(&mut self.stream).await?;
            reply.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        exchange.await.map_err(|error| gone(&error))
    }
}

/// Writes a document.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), document: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(document)?;
    text.push(b'\n');
    to.write_all(&text).await?;
    to.flush().await
}

/// The next document; none after the last one.
pub(super) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<T>> {
    let mut text = Vec::new();
    let count = from.take(LIMIT).read_until(b'\n', &mut text).await?;
    match count {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_slice(&text)?)),
    }
}

/// What is believed of a clone's failure: that it may pass, and, of reasons, only those that a clone has.
fn believed(failure: Failure) -> Failure {
    let reason = match failure.reason {
        reason @ (Reason::ToolMissing | Reason::ToolVersionMismatch) => reason,
        _ => Reason::CloneFailed,
    };
    let printable: String = failure.message.chars().filter(|c| !c.is_control()).collect();
    environment(reason, shortened(&printable, MESSAGE))
}

fn gone(error: &io::Error) -> Failure {
    environment(
        Reason::CloneFailed,
        format!(
            "Container clone of the backup's pod, which runs the throwaway server, does not answer ({error}). If it ran out \
             of memory, set database.clone.resources; if that repeats, check database.image."
        ),
    )
}

fn confused() -> Failure {
    environment(
        Reason::CloneFailed,
        "Container clone of the backup's pod gave an answer that was not asked for. Run operator and agent of the same \
         version.",
    )
}

#[cfg(test)]
mod tests {
    use fairway_protocol::Cause;

    use super::*;
    use crate::failure::version;

    #[tokio::test]
    async fn what_is_too_long_is_no_document() {
        let mut endless = BufReader::new(tokio::io::repeat(b'['));
        assert!(read::<Reply>(&mut endless).await.is_err());
        let mut nothing = BufReader::new(tokio::io::empty());
        assert!(read::<Reply>(&mut nothing).await.unwrap().is_none());
    }

    #[test]
    fn a_failure_of_a_clone_is_none_of_the_version() {
        let failure = believed(version(
            Reason::MigrationUnresolved,
            format!("\n{}", "x".repeat(2000)),
        ));
        assert_eq!(
            (failure.cause, failure.reason),
            (Cause::Environment, Reason::CloneFailed)
        );
        assert!(failure.message.len() <= MESSAGE && failure.message.starts_with('x'));
        let failure = believed(environment(Reason::ToolMissing, "No server."));
        assert_eq!(failure.reason, Reason::ToolMissing);
    }

    #[tokio::test]
    async fn a_clone_that_ends_is_said_to_be_gone() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let mut clone = CloneClient::reach(&socket).await.unwrap();
        drop(listener.accept().await.unwrap());
        let failure = clone.start(15).await.unwrap_err();
        assert_eq!(failure.reason, Reason::CloneFailed);
    }
}
