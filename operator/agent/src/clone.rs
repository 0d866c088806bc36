//! The command `clone`: a throwaway PostgreSQL server, and `pg_restore` beside it, in a container of a backup's pod that
//! holds no secret.
//!
//! Restoring a dump runs its code: functions in constraints, domains, defaults, indexes and views. So this container has no
//! credentials, no connection string and no key of a store, its server listens on a socket alone, and the dump's code runs
//! as a role that is no superuser. The agent, in the container beside it, asks for a restore by a socket and never starts a
//! program on the dump itself.

mod contents;
mod server;
mod wire;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use fairway_protocol::{CLONE_VARIABLE, CloneTask, Failure, Level};
use rustix::process::{getgid, getuid};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

use crate::{
    backup::{
        process::{Programs, Running},
        tools::{self, Tools},
    },
    blocking::blocking,
    environment::Environment,
    termination::Termination,
};
use contents::{Contents, Passes};
use server::{Server, remove};

pub(crate) use wire::{CloneClient, Started};
use wire::{Pass, Reply, Request, Restore};

/// Name of the folder in the scratch volume that holds the dump to restore.
pub(crate) const DUMP: &str = "fairway-check";
/// Name of the socket by which the agent asks.
const SOCKET: &str = "control.sock";
/// Most lines of a program's errors that are passed on.
const LINES: usize = 80;

/// The socket by which an agent asks the clone of its pod.
pub(crate) fn socket(environment: &Environment) -> PathBuf {
    environment.clone_directory().join(SOCKET)
}

/// Serves agents, one after the other, until this process is asked to end.
///
/// # Errors
/// Those of the kernel when the socket cannot be made.
pub(crate) async fn serve(environment: &Environment, passwd: Option<&Path>) -> io::Result<()> {
    if let Some(passwd) = passwd {
        name_user(passwd)?;
    }
    let mut termination = Termination::listen();
    let socket = socket(environment);
    remove(fs::remove_file(&socket))?;
    let listener = UnixListener::bind(&socket)?;
    let mut clone = Container {
        environment,
        task: task(environment),
        server: None,
        programs: Arc::default(),
    };
    tokio::select! {
        error = clone.accept(&listener) => return Err(error),
        () = termination.requested() => {}
    }
    clone.programs.end();
    if let Some(server) = clone.server.take() {
        server.stop();
    }
    remove(fs::remove_file(&socket))
}

/// The task in the environment; an empty one where it has none, or one that this version cannot read.
fn task(environment: &Environment) -> CloneTask {
    let text = environment.get(CLONE_VARIABLE).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Gives the user of this process a name in a file of users, where it has none.
fn name_user(passwd: &Path) -> io::Result<()> {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let text = fs::read_to_string(passwd).unwrap_or_default();
    let is_named = text
        .lines()
        .any(|line| line.split(':').nth(2) == Some(user.to_string().as_str()));
    if is_named {
        return Ok(());
    }
    let separator = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let line = format!("{separator}fairway:x:{user}:{group}:fairway:/:/sbin/nologin\n");
    let mut file = fs::OpenOptions::new().append(true).open(passwd)?;
    io::Write::write_all(&mut file, line.as_bytes())
}

/// The container that this process runs in.
struct Container<'a> {
    environment: &'a Environment,
    task: CloneTask,
    server: Option<Server>,
    /// What runs for the agent that is answered.
    programs: Arc<Programs>,
}

impl Container<'_> {
    async fn accept(&mut self, listener: &UnixListener) -> io::Error {
        loop {
            let agent = match listener.accept().await {
                Ok((agent, _)) => agent,
                Err(error) => return error,
            };
            // Those of an agent that is gone are ended for good.
            self.programs = Arc::default();
            if let Err(error) = self.answer(agent).await {
                tracing::warn!("the agent is gone: {error}");
            }
            // Whatever the agent wanted is over, and so is its server.
            if let Some(server) = self.server.take() {
                server.stop();
            }
        }
    }

    async fn answer(&mut self, mut agent: UnixStream) -> io::Result<()> {
        let (reading, mut writing) = agent.split();
        let mut reading = BufReader::new(reading);
        while let Some(request) = wire::read(&mut reading).await? {
            let programs = self.programs.clone();
            let work = self.reply(request);
            tokio::pin!(work);
            let reply = tokio::select! {
                reply = &mut work => reply,
                () = hung_up(&mut reading) => {
                    // Nobody waits for it any more, and the code of a dump may run for ever.
                    programs.end();
                    // A server that is being started is only known at the end of that.
                    work.await;
                    return Ok(());
                }
            };
            wire::write(&mut writing, &reply).await?;
        }
        Ok(())
    }

    async fn reply(&mut self, request: Request) -> Reply {
        match request {
            Request::Start { major } => self.start(major).await,
            Request::Restore(restore) => self.restore(restore).await,
        }
    }

    async fn start(&mut self, major: u32) -> Reply {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        let tools = match tools::find(self.environment, major, Level::Restored) {
            Ok(tools) => tools,
            Err(failure) => return Reply::Failed(failure),
        };
        let (data, socket) = (
            self.environment.clone_data_directory(),
            self.environment.clone_directory(),
        );
        let (settings, programs) = (self.task.settings.clone(), self.programs.clone());
        let started = blocking(move || Server::start(tools, &data, &socket, &settings, &programs)).await;
        match started {
            Ok(server) => {
                let started = server.started.clone();
                self.server = Some(server);
                Reply::Started(started)
            }
            Err(failure) => Reply::Failed(failure),
        }
    }

    async fn restore(&self, restore: Restore) -> Reply {
        let Some(server) = &self.server else {
            return Reply::NotRestored(vec!["pg_restore: error: the server was not started".to_owned()]);
        };
        let work = Work {
            tools: server.tools.clone(),
            socket: self.environment.clone_directory(),
            lists: self.environment.clone_data_directory(),
            dump: self.environment.scratch_directory().join(DUMP),
            started: server.started.clone(),
            programs: self.programs.clone(),
            restore,
        };
        match blocking(move || Ok::<_, Failure>(work.run())).await {
            Ok(Ok(omitted)) => Reply::Restored { omitted },
            Ok(Err(errors)) => Reply::NotRestored(errors),
            Err(failure) => Reply::Failed(failure),
        }
    }
}

/// One restore.
struct Work {
    tools: Tools,
    socket: PathBuf,
    /// Folder for the lists of what a pass restores.
    lists: PathBuf,
    dump: PathBuf,
    started: Started,
    programs: Arc<Programs>,
    restore: Restore,
}

impl Work {
    /// Restores pass by pass. Returns what is left out, or the last lines of the errors of the pass that failed.
    fn run(&self) -> Result<Vec<String>, Vec<String>> {
        let list = self.list()?;
        let contents = Contents::parse(&list);
        let Passes { passes, mut omitted } =
            contents.passes(&self.restore.skip, &self.restore.without_extensions);
        for (pass, list) in passes {
            if list.is_empty() {
                continue;
            }
            match self.pass(pass, &list) {
                // The agent took the handlers away: a copy asks no other server.
                Err(errors) if pass == Pass::Views && mention(&errors, "has no handler") => {
                    omitted.push("rows of materialized views that read foreign tables".to_owned());
                }
                outcome => outcome?,
            }
        }
        Ok(omitted)
    }

    /// The dump's table of contents.
    fn list(&self) -> Result<String, Vec<String>> {
        let mut command = self.tools.offline("pg_restore");
        command
            .args(["--list", "--format=directory"])
            .arg(&self.dump)
            .stdout(Stdio::piped());
        let mut running = Running::start(&mut command, &self.programs).map_err(not_run)?;
        let mut text = Vec::new();
        if let Some(mut output) = running.child.stdout.take() {
            io::Read::read_to_end(&mut output, &mut text).map_err(not_run)?;
        }
        let (status, errors) = running.end().map_err(not_run)?;
        match status.success() {
            true => Ok(String::from_utf8_lossy(&text).into_owned()),
            false => Err(last(errors.lines())),
        }
    }

    fn pass(&self, pass: Pass, list: &str) -> Result<(), Vec<String>> {
        let file = self.lists.join("restore.list");
        fs::write(&file, list).map_err(not_run)?;
        let Started {
            superuser,
            password,
            restorer,
        } = &self.started;
        let user = match pass {
            Pass::Objects | Pass::Views => restorer,
            Pass::Privileges => superuser,
        };
        let mut command = self.tools.offline("pg_restore");
        command
            .args([
                "--format=directory",
                "--exit-on-error",
                "--no-password",
                "--no-tablespaces",
                "--no-security-labels",
            ])
            .arg(format!("--jobs={}", jobs(pass)))
            .arg("--use-list")
            .arg(&file)
            .arg(&self.dump)
            .stdout(Stdio::null());
        command
            .arg("--dbname")
            .arg(connection_string(&self.restore.database))
            .env("PGHOST", &self.socket)
            .env("PGUSER", user);
        if pass == Pass::Privileges {
            // A publication of all tables is a superuser's, and there is no other one.
            command.arg("--no-owner").env("PGPASSWORD", password);
        }
        let running = Running::start(&mut command, &self.programs).map_err(not_run)?;
        let (status, errors) = running.end().map_err(not_run)?;
        match status.success() {
            true => Ok(()),
            false => Err(last(errors.lines())),
        }
    }
}

/// Resolves when an agent, which says nothing while it waits for an answer, has closed its side.
async fn hung_up(agent: &mut (impl AsyncBufRead + Unpin)) {
    match agent.fill_buf().await {
        Ok(said) if !said.is_empty() => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}

/// How many connections a pass uses: as many as the dump did, where order does not count.
fn jobs(pass: Pass) -> u32 {
    match pass {
        Pass::Objects => 2,
        // A view may read another one, and a privilege may rest on another one.
        Pass::Privileges | Pass::Views => 1,
    }
}

/// A connection string with nothing but a database, whatever its name is.
fn connection_string(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn mention(errors: &[String], words: &str) -> bool {
    errors.iter().any(|line| line.contains(words))
}

fn not_run(error: io::Error) -> Vec<String> {
    vec![format!("pg_restore: error: it could not be run: {error}")]
}

fn last<'a>(lines: impl DoubleEndedIterator<Item = &'a str> + ExactSizeIterator) -> Vec<String> {
    let skip = lines.len().saturating_sub(LINES);
    lines.skip(skip).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncWriteExt as _, time::timeout};

    use super::*;

    #[test]
    fn a_user_without_a_name_is_given_one_once() {
        let folder = tempfile::tempdir().unwrap();
        let passwd = folder.path().join("passwd");
        fs::write(&passwd, "other:x:4294967294:0::/:/bin/false").unwrap();
        name_user(&passwd).unwrap();
        let once = fs::read_to_string(&passwd).unwrap();
        let own = format!("fairway:x:{}:", getuid().as_raw());
        assert!(once.lines().nth(1).unwrap().starts_with(&own), "{once}");
        name_user(&passwd).unwrap();
        assert_eq!(fs::read_to_string(&passwd).unwrap(), once);
    }

    #[tokio::test]
    async fn only_an_agent_that_closes_its_side_has_hung_up() {
        let soon = Duration::from_millis(50);
        let (mut agent, clone) = UnixStream::pair().unwrap();
        let mut clone = BufReader::new(clone);
        assert!(timeout(soon, hung_up(&mut clone)).await.is_err());
        agent.write_all(b"{").await.unwrap();
        assert!(timeout(soon, hung_up(&mut clone)).await.is_err());
        let (agent, clone) = UnixStream::pair().unwrap();
        drop(agent);
        hung_up(&mut BufReader::new(clone)).await;
    }

    #[test]
    fn a_name_of_a_database_cannot_say_where_to_connect() {
        assert_eq!(
            connection_string("a' host='evil\\"),
            "dbname='a\\' host=\\'evil\\\\'"
        );
    }
}
