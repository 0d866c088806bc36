//! The embedded cluster itself: it comes up after having been interrupted anywhere, and goes without
//! a trace. Each test has a state folder, and so a cluster, of its own.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fairway_e2e::cluster::{Cluster, Options};
use fairway_e2e::paths::Paths;
use fairway_e2e::{images, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;

/// A cluster that uses the binaries that are built, and is removed whatever happens.
struct Own {
    paths: Paths,
}

impl Own {
    fn new(name: &str) -> Result<Self> {
        let built = Paths::from_env()?;
        let folder = built.root().join("clusters").join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&folder)?;
        let paths = Paths::at(folder);
        for (built, own) in [(built.bin(), paths.bin()), (built.images(), paths.images())] {
            if !own.exists() {
                std::os::unix::fs::symlink(built, own)?;
            }
        }
        Ok(Self { paths })
    }

    /// The command line, since only a process of its own can be killed.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
        command.args(arguments).env("FAIRWAY_E2E_DIR", self.paths.root());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command(arguments).stderr(Stdio::piped()).output()?;
        if !output.status.success() {
            bail!(
                "`cluster {}`: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// What of this cluster is on the machine.
    fn traces(&self) -> Result<Vec<String>> {
        let name = self.paths.name();
        let state = self.paths.cluster().display().to_string();
        let mut traces = Vec::new();
        for path in [
            self.paths.network_namespace(),
            self.paths.cluster(),
            self.paths.sockets(),
            self.paths.kubeconfig(),
            Path::new("/sys/class/net").join(self.paths.machine_link()),
        ] {
            if path.exists() {
                traces.push(path.display().to_string());
            }
        }
        traces.extend(self.cgroups()?.iter().map(|path| path.display().to_string()));
        // What the CNI plugin and the kubelet write outside the state folder.
        for folder in ["/var/lib/cni/results", "/var/log/containers"] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let target = fs::read_link(entry.path()).unwrap_or_else(|_| entry.path());
                let target = target.display().to_string();
                if target.contains(&name) || target.contains(&state) {
                    traces.push(target);
                }
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        traces.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&state) || line.contains(&name))
                .map(ToOwned::to_owned),
        );
        for process in fs::read_dir("/proc")?.flatten() {
            // A process may end while it is looked at.
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&state) || line.contains(&name) {
                traces.push(line);
            }
        }
        Ok(traces)
    }
}

impl Own {
    /// Its cgroups, in whatever hierarchies the machine has.
    fn cgroups(&self) -> Result<Vec<PathBuf>> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root)?.flatten().map(|entry| entry.path());
        let names = [self.paths.name(), format!("{}-components", self.paths.name())];
        Ok(hierarchies
            .chain([root.to_path_buf()])
            .flat_map(|hierarchy| names.clone().map(|name| hierarchy.join(name)))
            .filter(|path| path.exists())
            .collect())
    }

    /// The sockets of containerd's shims, which lie where those of all clusters do.
    fn sockets_of_shims(&self) -> Vec<PathBuf> {
        let tasks = self
            .paths
            .sockets()
            .join("containerd/io.containerd.runtime.v2.task/k8s.io");
        let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("address")).ok())
            .filter_map(|address| Some(PathBuf::from(address.trim().strip_prefix("unix://")?)))
            .collect()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = Cluster::down(&self.paths) {
            eprintln!("the cluster of the test could not be removed: {error:#}");
        }
    }
}

#[test]
#[ignore = "make test-long PART=cluster"]
fn start_killed_anywhere_is_followed_by_one_that_succeeds() -> Result<()> {
    let own = Own::new("killed-start")?;
    let run = own.paths.cluster().join("run");
    let moments: [PathBuf; 6] = [
        own.paths.cluster().join("pki/ca.crt"),
        own.paths.network_namespace(),
        run.join("etcd.json"),
        run.join("kube-apiserver.json"),
        run.join("kubelet.json"),
        run.join("coredns.json"),
    ];
    for moment in &moments {
        let mut start = own.command(&["up"]).spawn()?;
        appears(moment)?;
        start.kill()?;
        start.wait()?;
        own.run(&["down"])
            .with_context(|| format!("after the start was killed at {}", moment.display()))?;
        assert_eq!(
            own.traces()?,
            Vec::<String>::new(),
            "killed at {}",
            moment.display()
        );
    }
    // And a start right after a killed one, without a `down` between.
    let mut start = own.command(&["up"]).spawn()?;
    appears(&run.join("kubelet.json"))?;
    start.kill()?;
    start.wait()?;
    own.run(&["up"])?;
    own.run(&["status"])?;
    own.run(&["down"])?;
    assert_eq!(own.traces()?, Vec::<String>::new());
    Ok(())
}

/// With a pod, which brings mounts, links and processes that no record names.
#[tokio::test]
#[ignore = "make test-long PART=cluster"]
async fn removal_killed_anywhere_is_finished_by_the_next() -> Result<()> {
    let own = Own::new("killed-removal")?;
    let cluster = Cluster::up(&own.paths, &Options::default()).await?;
    images::push(
        &own.paths,
        &own.paths.registry_host(),
        &images::named(&["pause".to_owned()])?,
    )?;
    run_a_pod(&own.paths, cluster.client().await?).await?;
    let sockets = own.sockets_of_shims();
    assert!(
        !sockets.is_empty() && sockets.iter().all(|socket| socket.exists()),
        "{sockets:?}"
    );
    assert!(
        own.cgroups()?.len() >= 2,
        "the pods' and the components': {:?}",
        own.cgroups()?
    );

    // In the order in which they go. A removal that was killed late has less to do than one that was killed early,
    // so each of these goes on where the one before was killed.
    let moments = [
        own.paths.cluster().join("whole"),
        own.cgroups()?.swap_remove(0),
        Path::new("/sys/class/net").join(own.paths.machine_link()),
        own.paths.network_namespace(),
        own.paths.kubeconfig(),
        own.paths.sockets(),
    ];
    for moment in &moments {
        let mut removal = own.command(&["down"]).spawn()?;
        until(&format!("{} to go", moment.display()), || !moment.exists())?;
        removal.kill()?;
        removal.wait()?;
    }
    for _ in 0..2 {
        own.run(&["down"])?;
        assert_eq!(own.traces()?, Vec::<String>::new());
    }
    assert!(!sockets.iter().any(|socket| socket.exists()), "{sockets:?}");
    Ok(())
}

async fn run_a_pod(paths: &Paths, client: Client) -> Result<()> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "pause"},
        "spec": {"containers": [{"name": "pause", "image": format!("{}/pause:1", paths.registry_host())}]},
    }))?;
    wait::namespace_usable(&client, "default").await?;
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    pods.create(&PostParams::default(), &pod).await?;
    wait::pod_ready(&client, "default", "pause", Duration::from_secs(60)).await?;
    Ok(())
}

#[tokio::test]
async fn second_start_uses_a_whole_cluster_and_replaces_a_broken_one() -> Result<()> {
    let own = Own::new("second-start")?;
    Cluster::up(&own.paths, &Options::default()).await?;
    let first = pid(&own.paths, "etcd")?;
    Cluster::up(&own.paths, &Options::default()).await?;
    assert_eq!(pid(&own.paths, "etcd")?, first);

    let scheduler = pid(&own.paths, "kube-scheduler")?;
    let scheduler = rustix::process::Pid::from_raw(scheduler).context("a pid is not 0")?;
    rustix::process::kill_process(scheduler, rustix::process::Signal::KILL)?;
    until("the scheduler to end", || {
        pid(&own.paths, "kube-scheduler").is_err()
    })?;
    Cluster::up(&own.paths, &Options::default()).await?;
    assert_ne!(pid(&own.paths, "etcd")?, first);
    assert!(
        Cluster::status(&own.paths)
            .iter()
            .all(|process| process.pid.is_some())
    );
    Ok(())
}

#[test]
fn removal_of_a_cluster_that_does_not_run_succeeds() -> Result<()> {
    let own = Own::new("never-started")?;
    Cluster::down(&own.paths)?;
    Cluster::down(&own.paths)
}

fn pid(paths: &Paths, name: &str) -> Result<i32> {
    let status = Cluster::status(paths);
    let process = status
        .iter()
        .find(|process| process.name == name)
        .context("known by name")?;
    process.pid.with_context(|| format!("{name} runs"))
}

/// Returns as soon as the file is there.
fn appears(path: &Path) -> Result<()> {
    until(&format!("{} to appear", path.display()), || path.exists())
}

fn until(what: &str, happened: impl Fn() -> bool) -> Result<()> {
    let since = Instant::now();
    while !happened() {
        if since.elapsed() > Duration::from_secs(60) {
            bail!("waited a minute for {what}");
        }
        std::thread::yield_now();
    }
    Ok(())
}
