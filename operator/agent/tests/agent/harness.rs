//! Runs the agent as a pod would: the binary, its environment, a termination message.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

use fairway_protocol::{
    MigratingContainer, MigrationReport, MigrationTask, RequestedRun, Requester, RunIdentity, SettleTask,
    Store, Task, split_task,
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::postgres::{Database, as_server_user, is_root};

/// The program under test: this build's, or the one that `FAIRWAY_AGENT` names, such as that of another architecture under
/// an emulator.
static AGENT: LazyLock<PathBuf> = LazyLock::new(|| {
    let named = std::env::var_os("FAIRWAY_AGENT");
    named.map_or_else(|| env!("CARGO_BIN_EXE_fairway-agent").into(), PathBuf::from)
});

/// A pod with the agent in it.
pub(crate) struct Pod {
    /// The pod's volumes: the termination message, the guard's folder, the store, the scratch volume.
    pub(crate) folder: TempDir,
    agent: PathBuf,
    variables: BTreeMap<String, String>,
}

/// What an agent left.
pub(crate) struct Outcome {
    /// The container's exit code; none when it was killed.
    pub(crate) code: Option<i32>,
    /// What the agent and the migration wrote to standard error.
    pub(crate) log: String,
    /// What the migration wrote to standard output.
    pub(crate) output: String,
    message: String,
}

impl Outcome {
    /// The termination message, which must be small.
    pub(crate) fn report<T: DeserializeOwned>(&self) -> T {
        assert!(
            self.message.len() <= 1024,
            "{} bytes: {}",
            self.message.len(),
            self.message
        );
        serde_json::from_str(&self.message)
            .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", self.message, self.log))
    }

    /// A migration's report.
    pub(crate) fn migration(&self) -> MigrationReport {
        self.report()
    }

    /// The termination message as it was written.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl Pod {
    /// A pod whose Secret holds the database's connection string.
    pub(crate) fn new(database: &Database, uid: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["guard", "store", "scratch", "clone", "clone-data"] {
            std::fs::create_dir(folder.path().join(name)).expect("a volume");
        }
        let programs = database.server().programs.display().to_string();
        let variables = BTreeMap::from(
            [
                ("PATH", format!("{programs}:/usr/bin:/bin")),
                ("DATABASE_URL", database.url()),
                ("PGAPP", "crm-migrator".to_owned()),
                ("FAIRWAY_DATABASE_URL", database.url()),
                ("FAIRWAY_POD_IP", "127.0.0.1".to_owned()),
                ("FAIRWAY_POD_UID", uid.to_owned()),
                ("FAIRWAY_TERMINATION_LOG", path("termination-log")),
                ("FAIRWAY_GUARD_DIRECTORY", path("guard")),
                ("FAIRWAY_STORE_DIRECTORY", path("store")),
                ("FAIRWAY_SCRATCH_DIRECTORY", path("scratch")),
                ("FAIRWAY_CLONE_DIRECTORY", path("clone")),
                ("FAIRWAY_CLONE_DATA_DIRECTORY", path("clone-data")),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        Self {
            folder,
            agent: AGENT.clone(),
            variables,
        }
    }

    /// This pod with another variable.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// This pod with an agent of another build.
    pub(crate) fn with_agent(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.agent);
        self
    }

    /// A path in the pod's volumes.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the agent's container.
    pub(crate) fn start(&self, task: &Task) -> Container {
        self.start_as(Command::new(&self.agent), task)
    }

    /// Starts a program, to whose arguments those of the agent are added.
    fn start_as(&self, program: Command, task: &Task) -> Container {
        let child = self
            .prepare(program, &["run"])
            .envs(split_task(&serde_json::to_string(task).expect("a task")))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent");
        Container {
            child,
            message: self.path("termination-log"),
        }
    }

    /// Runs one of the agent's other commands.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.prepare(Command::new(&self.agent), arguments)
    }

    /// Runs SQL from the pod's address, beside the agent: what its application does.
    pub(crate) fn psql(&self, sql: &str) -> Child {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-ec", &psql(sql)])
            .env_clear()
            .envs(&self.variables);
        command.spawn().expect("a shell")
    }

    fn prepare(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).env_clear().envs(&self.variables);
        command
    }

    /// Starts the agent's container with a user that is not root.
    pub(crate) fn start_as_user(&self, task: &Task) -> Container {
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(self.folder.path(), everybody).expect("a mode");
        self.start_as(as_server_user(&self.agent), task)
    }

    /// Starts the container `clone` with these settings of its server, as the user of
    /// [`start_as_user`](Self::start_as_user), which the agent beside it must have too. It gets the folders that the two
    /// share, and nothing else of the pod.
    pub(crate) fn start_clone(&self, settings: &[(&str, &str)]) -> CloneContainer {
        for name in ["", "store", "scratch", "clone", "clone-data"] {
            let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(self.path(name), everybody).expect("a mode");
        }
        let settings: BTreeMap<_, _> = settings.iter().copied().collect();
        let shared = self.variables.iter().filter(|(name, _)| {
            let shared = ["PATH", "FAIRWAY_SCRATCH_DIRECTORY"];
            shared.contains(&name.as_str()) || name.starts_with("FAIRWAY_CLONE")
        });
        let child = as_server_user(&self.agent)
            .arg("clone")
            .env_clear()
            .envs(shared)
            .env(
                "FAIRWAY_CLONE",
                serde_json::json!({ "settings": settings }).to_string(),
            )
            .spawn()
            .expect("the clone");
        CloneContainer(child)
    }

    /// Starts the agent's container from an image in which a folder of this machine is empty.
    pub(crate) fn start_without(&self, folder: &Path, task: &Task) -> Container {
        let hide = "/usr/bin/mount -t tmpfs fairway-tests \"$0\" && exec \"$@\"";
        let mut command = Command::new("/usr/bin/unshare");
        command.args((!is_root()).then_some("--map-root-user"));
        command.args(["--mount", "/bin/sh", "-c", hide]);
        command.arg(folder).arg(&self.agent);
        self.start_as(command, task)
    }

    /// Runs the agent's container to its end.
    pub(crate) async fn run(&self, task: &Task) -> Outcome {
        self.start(task).end().await
    }
}

/// A running container `clone`, which ends with this value.
pub(crate) struct CloneContainer(Child);

impl Drop for CloneContainer {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        // Its server must not outlive the test.
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let _ = self.0.wait();
    }
}

/// A running agent.
pub(crate) struct Container {
    child: Child,
    message: PathBuf,
}

impl Container {
    /// Sends a signal, as `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("kill").success());
    }

    /// The most memory that the agent itself has had in use, in KiB, once it has ended; its children are not counted.
    pub(crate) fn peak_memory(&self) -> std::thread::JoinHandle<u64> {
        let status = format!("/proc/{}/status", self.child.id());
        std::thread::spawn(move || {
            let mut peak = 0;
            // The line is gone with the memory, which is before the process is waited for.
            while let Ok(status) = std::fs::read_to_string(&status)
                && let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))
            {
                peak = line
                    .trim()
                    .trim_end_matches(" kB")
                    .parse()
                    .expect("a number of KiB");
                std::thread::yield_now();
            }
            peak
        })
    }

    /// Waits until the process has a handler for SIGTERM: from then on it decides itself what that means.
    pub(crate) async fn hears_termination(&self) {
        const TERM: u64 = 1 << 14;
        let status = format!("/proc/{}/status", self.child.id());
        let caught = || {
            let status = std::fs::read_to_string(&status).expect("the process is there");
            let mask = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .expect("a mask")
                .trim();
            u64::from_str_radix(mask, 16).expect("hexadecimal") & TERM != 0
        };
        while !caught() {
            tokio::task::yield_now().await;
        }
    }

    /// Waits for its end.
    pub(crate) async fn end(self) -> Outcome {
        let Self { child, message } = self;
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
        let output = ended.await.expect("a thread").expect("an exit status");
        Outcome {
            code: output.status.code(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            message: std::fs::read_to_string(message).unwrap_or_default(),
        }
    }

    /// Waits for the end of a killed agent, whose children may still hold its log open.
    pub(crate) async fn killed(mut self) {
        self.signal("KILL");
        tokio::task::spawn_blocking(move || self.child.wait())
            .await
            .expect("a thread")
            .expect("an exit status");
    }
}

/// Who asks in most tests.
pub(crate) fn requester(app: &str) -> Requester {
    Requester {
        namespace: "shop".into(),
        app: app.into(),
        release: format!("{app}-1"),
    }
}

/// The store of a pod: its volume.
pub(crate) fn store() -> Store {
    serde_json::from_value(serde_json::json!({"volume": {"claimName": "backups"}})).expect("a store")
}

/// A run of an image; the command counts as the same in all tests.
pub(crate) fn identity(run: &str, digest: &str) -> RunIdentity {
    RunIdentity {
        run_id: run.into(),
        image_digest: digest.into(),
        command_hash: "hash".into(),
    }
}

/// A migration by a shell script.
pub(crate) fn migration(run: &str, digest: &str, script: &str) -> MigrationTask {
    MigrationTask {
        run: requested(run, digest),
        command: ["/bin/sh", "-ec", script].map(str::to_owned).to_vec(),
        container: MigratingContainer {
            name: "web".into(),
            image: "shop/crm@sha256:a".into(),
            others: vec!["proxy".into()],
        },
    }
}

/// A run that a task requests: for App crm, within one minute, without checks.
pub(crate) fn requested(run: &str, digest: &str) -> RequestedRun {
    RequestedRun {
        requester: requester("crm"),
        identity: identity(run, digest),
        literals_hash: None,
        timeout_seconds: 60,
        checks: Vec::new(),
    }
}

/// A script that runs SQL statement by statement, each in its own transaction.
pub(crate) fn psql(sql: &str) -> String {
    format!("psql -qX -v ON_ERROR_STOP=1 \"${{DATABASE_URL%%\\?*}}\" <<'SQL'\n{sql}\nSQL")
}

/// A script that runs SQL in the background.
pub(crate) fn psql_in_background(sql: &str) -> String {
    psql(sql).replacen("<<'SQL'", "<<'SQL' &", 1)
}

/// A settle task.
pub(crate) fn settle(run: &str, digest: &str) -> SettleTask {
    SettleTask {
        requester: requester("crm"),
        run: identity(run, digest),
        resolution: None,
        timeout_seconds: 20,
        resolution_token: None,
        before: None,
    }
}
