//! What happens to the operator and its agents: killed without warning, absent, running twice.
//!
//! Processes are killed on the embedded cluster only, whose node is this machine.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::AsyncReadExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::context::Context;
use crate::install::OPERATOR_NAMESPACE;
use crate::ns;
use crate::seen;
use crate::wait::{is_ready, wait_for, wait_for_all};

/// How long the operator may take to be ready, or to be gone.
const PATIENCE: Duration = Duration::from_secs(90);

/// The user as which the operator asks the API server.
pub const USER: &str = "system:serviceaccount:fairway-system:fairway";

/// The selector of the operator's pods.
const PODS: &str = "app.kubernetes.io/name=fairway,app.kubernetes.io/component!=test";

fn deployments(context: &Context) -> Api<Deployment> {
    Api::namespaced(context.client.clone(), OPERATOR_NAMESPACE)
}

fn pods(context: &Context) -> Api<Pod> {
    Api::namespaced(context.client.clone(), OPERATOR_NAMESPACE)
}

/// Ends the operator with SIGKILL at once. Its pod is deleted too, since the kubelet would make a container that
/// is killed often wait for minutes, which is none of the tests' subjects; a new pod takes its place.
///
/// # Errors
/// When it does not run, or the cluster is not the embedded one.
pub async fn kill(context: &Context) -> Result<()> {
    let running = pods(context).list(&ListParams::default().labels(PODS)).await?;
    for pod in &running.items {
        kill_one(context, pod).await?;
    }
    Ok(())
}

/// [`kill`] for the operator in this pod alone.
///
/// # Errors
/// As [`kill`].
pub async fn kill_one(context: &Context, pod: &Pod) -> Result<()> {
    kill_in(context, pod, Program::Operator)?;
    pods(context)
        .delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
        .await?;
    Ok(())
}

/// Ends the operator in this pod as a drained node does, and returns all that it has logged until its end.
///
/// # Errors
/// When the pod does not end within the deadline, or its log cannot be read.
pub async fn stop_one(context: &Context, pod: &Pod) -> Result<String> {
    let name = pod.name_any();
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut log = pods(context).log_stream(&name, &follow).await?;
    pods(context).delete(&name, &DeleteParams::default()).await?;
    let mut logged = String::new();
    tokio::time::timeout(PATIENCE, log.read_to_string(&mut logged))
        .await
        .with_context(|| format!("{name} does not stop"))??;
    crate::wait::wait_gone(pods(context), &name, PATIENCE).await?;
    Ok(logged)
}

/// The pod of the operator that holds the Lease, among those there are.
///
/// # Errors
/// When none holds it within the deadline.
pub async fn leader(context: &Context) -> Result<Pod> {
    let lease = wait_for(
        leases(context),
        "fairway",
        "to be held",
        |lease| !holder(lease).is_empty(),
        PATIENCE,
    )
    .await?;
    Ok(pods(context).get(holder(&lease)).await?)
}

/// The operators' Lease.
#[must_use]
pub fn leases(context: &Context) -> Api<Lease> {
    Api::namespaced(context.client.clone(), OPERATOR_NAMESPACE)
}

/// Who holds the operators' Lease: the name of a pod, or nothing when it is free.
#[must_use]
pub fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

/// Held by a test that kills the operator, so that those of other tests find it at work.
#[derive(Debug)]
#[must_use = "the lock is released when it is dropped"]
pub struct Disruption(#[expect(dead_code, reason = "what counts is when it is closed")] File);

/// Waits until no other test has killed the operator, and it works.
///
/// # Errors
/// When it does not work within the deadline.
pub async fn disrupt(context: &Context) -> Result<Disruption> {
    let lock = ns::locked(context.target.paths.operator_lock(), File::lock).await?;
    works(context).await?;
    Ok(Disruption(lock))
}

/// Kills the operator, and waits until the one in its place works.
///
/// # Errors
/// As [`kill`] and [`works`].
pub async fn kill_and_wait(context: &Context) -> Result<()> {
    let _disruption = disrupt(context).await?;
    kill(context).await?;
    works(context).await
}

/// Waits until the operator's pod is ready and holds the Lease, which takes until that of a killed one has expired.
///
/// # Errors
/// When it does not within the deadline.
pub async fn works(context: &Context) -> Result<()> {
    let ready = |pods: &[Pod]| pods.iter().any(is_ready);
    let config = kube::runtime::watcher::Config::default().labels(PODS);
    let pods = wait_for_all(
        pods(context),
        config,
        "a ready pod of the operator",
        ready,
        PATIENCE,
    )
    .await?;
    let leads = |lease: &Lease| {
        pods.iter()
            .any(|pod| is_ready(pod) && pod.name_any() == holder(lease))
    };
    wait_for(
        leases(context),
        "fairway",
        "the Lease of a ready pod",
        leads,
        PATIENCE,
    )
    .await?;
    Ok(())
}

/// Sets how many operators there are, and waits until it is so.
///
/// # Errors
/// When it is not so within the deadline.
pub async fn scale(context: &Context, replicas: i32) -> Result<()> {
    let patch = json!({"spec": {"replicas": replicas}});
    deployments(context)
        .patch("fairway", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let count = usize::try_from(replicas)?;
    let config = kube::runtime::watcher::Config::default().labels(PODS);
    let there = |pods: &[Pod]| pods.len() == count && pods.iter().all(is_ready);
    wait_for_all(pods(context), config, "so many operators", there, PATIENCE).await?;
    Ok(())
}

/// Name of the operator that [`start_second`] starts.
const SECOND: &str = "fairway-second";

/// Name of the operator that [`start_faulty`] starts.
const FAULTY: &str = "fairway-faulty";

/// Name of the operator that [`start_verbose`] starts.
const VERBOSE: &str = "fairway-verbose";

/// Starts another operator that asks for no Lease, so that two work at once.
///
/// # Errors
/// When it does not become ready.
pub async fn start_second(context: &Context) -> Result<()> {
    start_copy(context, SECOND, |_| Ok(())).await
}

/// Removes what [`start_second`] started.
///
/// # Errors
/// When it is not there.
pub async fn stop_second(context: &Context) -> Result<()> {
    stop_copy(context, SECOND).await
}

/// Puts an operator in the place of the one that is there that meets this fault at each of its writes; see
/// `operator/src/fault.rs`.
///
/// # Errors
/// When it does not become ready.
pub async fn start_faulty(context: &Context, fault: &str) -> Result<()> {
    let image = context.target.image_by_digest("fairway-faulty", "dev")?;
    scale(context, 0).await?;
    start_copy(context, FAULTY, |container| {
        container["image"] = json!(image);
        let environment = container["env"].as_array_mut();
        environment
            .context("the operator's container has no environment")?
            .push(json!({"name": "FAIRWAY_FAULT", "value": fault}));
        Ok(())
    })
    .await
}

/// Puts the operator that was there back in the place of [`start_faulty`]'s.
///
/// # Errors
/// When it does not become ready.
pub async fn stop_faulty(context: &Context) -> Result<()> {
    stop_copy(context, FAULTY).await?;
    scale(context, 1).await
}

/// Puts an operator that logs all that it can in the place of the one that is there, and returns its pod.
///
/// # Errors
/// When it does not become ready.
pub async fn start_verbose(context: &Context) -> Result<Pod> {
    scale(context, 0).await?;
    start_copy(context, VERBOSE, |container| {
        let variables = container["env"].as_array_mut();
        let variables = variables.context("the operator's container has no environment")?;
        variables.retain(|variable| variable["name"] != "RUST_LOG");
        variables.push(json!({"name": "RUST_LOG", "value": "trace"}));
        Ok(())
    })
    .await?;
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/name={VERBOSE}"));
    let pods = pods(context).list(&labels).await?;
    let ready = pods.items.into_iter().find(is_ready);
    ready.with_context(|| format!("{VERBOSE} has no ready pod"))
}

/// Puts the operator that was there back in the place of [`start_verbose`]'s.
///
/// # Errors
/// When it does not become ready.
pub async fn stop_verbose(context: &Context) -> Result<()> {
    stop_copy(context, VERBOSE).await?;
    scale(context, 1).await
}

/// What an operator's pod answers at /metrics.
///
/// # Errors
/// When it does not answer.
pub async fn metrics(context: &Context, pod: &Pod) -> Result<String> {
    page(context, pod, 8080, "metrics").await
}

/// What an operator's pod answers to a probe of the kubelet: /healthz or /readyz.
///
/// # Errors
/// When it does not answer, or answers that it fails.
pub async fn probe(context: &Context, pod: &Pod, path: &str) -> Result<String> {
    page(context, pod, 8081, path).await
}

async fn page(context: &Context, pod: &Pod, port: u16, path: &str) -> Result<String> {
    let path = format!(
        "/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{}:{port}/proxy/{path}",
        pod.name_any()
    );
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(context.client.request_text(request).await?)
}

/// The value of a metric without labels.
///
/// # Errors
/// When the operator's pod does not answer, or has no such metric.
pub async fn metric(context: &Context, pod: &Pod, name: &str) -> Result<f64> {
    let page = metrics(context, pod).await?;
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("{name} is not in\n{page}"))?;
    Ok(value.parse()?)
}

/// Fails unless the operator in this pod has been ready since then, was never ended by the kernel for its memory or by the
/// kubelet for its probes, and needs less memory than the chart's limit of 256 MiB, which the kernel enforces.
///
/// # Errors
/// The error says what has happened to it.
pub async fn unharmed(context: &Context, before: &Pod) -> Result<()> {
    let name = before.name_any();
    let pod = pods(context).get(&name).await?;
    let spec = pod.spec.iter().flat_map(|spec| &spec.containers);
    let limits: Vec<_> = spec
        .filter_map(|container| container.resources.as_ref()?.limits.as_ref()?.get("memory"))
        .map(|limit| limit.0.as_str())
        .collect();
    ensure!(limits == ["256Mi"], "{name} has other limits: {limits:?}");
    ensure!(
        is_ready(&pod) && restarts(&pod) == 0 && became_ready(&pod) == became_ready(before),
        "{name} was not ready all the while: {:?}",
        pod.status
    );
    probe(context, &pod, "healthz").await?;
    probe(context, &pod, "readyz").await?;
    let resident = metric(context, &pod, "process_resident_memory_bytes").await?;
    ensure!(resident < MEMORY_LIMIT, "{name} needs {resident} bytes");
    println!("{name} needs {:.0} MiB", resident / MEBIBYTE);
    Ok(())
}

const MEBIBYTE: f64 = 1024.0 * 1024.0;
const MEMORY_LIMIT: f64 = 256.0 * MEBIBYTE;

fn restarts(pod: &Pod) -> i32 {
    let containers = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    containers.map(|container| container.restart_count).sum()
}

/// When a pod became ready, or unready, for the last time.
fn became_ready(pod: &Pod) -> Option<&Time> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready")?;
    ready.last_transition_time.as_ref()
}

/// Starts a changed copy of the operator that asks for no Lease.
async fn start_copy(
    context: &Context,
    name: &str,
    change: impl FnOnce(&mut serde_json::Value) -> Result<()>,
) -> Result<()> {
    let mut copy = deployments(context).get("fairway").await?;
    copy.metadata = kube::core::ObjectMeta {
        name: Some(name.to_owned()),
        ..kube::core::ObjectMeta::default()
    };
    copy.status = None;
    if let Some(spec) = &mut copy.spec {
        spec.replicas = Some(1);
    }
    let mut object = serde_json::to_value(copy)?;
    for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        let labels = object
            .pointer_mut(labels)
            .context("the operator's Deployment has no labels")?;
        labels["app.kubernetes.io/name"] = json!(name);
    }
    let container = object
        .pointer_mut("/spec/template/spec/containers/0")
        .context("the operator's pod has no container")?;
    container["args"]
        .as_array_mut()
        .context("the operator's container has no arguments")?
        .push(json!("--leader-election=false"));
    change(container)?;
    let copy: Deployment = serde_json::from_value(object)?;
    deployments(context)
        .create(&PostParams::default(), &copy)
        .await
        .with_context(|| format!("start {name}"))?;
    wait_for(
        deployments(context),
        name,
        "to be ready",
        crate::wait::is_rolled_out,
        PATIENCE,
    )
    .await?;
    Ok(())
}

async fn stop_copy(context: &Context, name: &str) -> Result<()> {
    deployments(context)
        .delete(name, &DeleteParams::foreground())
        .await?;
    crate::wait::wait_gone(deployments(context), name, PATIENCE).await
}

/// Ends the agent in the running pod that does this work with SIGKILL, and all of its container with it.
///
/// # Errors
/// When none runs, or the cluster is not the embedded one.
pub async fn kill_agent(context: &Context, work: &str) -> Result<()> {
    let pod = pod_that_does(context, work).await?;
    kill_in(context, &pod, Program::Agent)
}

async fn pod_that_does(context: &Context, work: &str) -> Result<Pod> {
    let selected = ListParams::default().labels(&format!("{}={work}", seen::WORK));
    let pods = context.api::<Pod>().list(&selected).await?;
    pods.items
        .into_iter()
        .next()
        .with_context(|| format!("there is no pod that does {work}"))
}

/// Makes the kernel choose the agent in the running pod that does this work, and not its child, when the memory of
/// their container is used up.
///
/// # Errors
/// When none runs, or the cluster is not the embedded one.
pub async fn prefer_as_victim(context: &Context, work: &str) -> Result<()> {
    let pod = pod_that_does(context, work).await?;
    let adjust = |process: i32, score: &str| {
        let file = format!("/proc/{process}/oom_score_adj");
        fs::write(&file, score).with_context(|| format!("write {file}"))
    };
    for agent in processes_in(context, &pod, Program::Agent)? {
        let agent = agent.as_raw_pid();
        // Children belong to the thread that has started them.
        for thread in fs::read_dir(format!("/proc/{agent}/task"))?.flatten() {
            let children = fs::read_to_string(thread.path().join("children"))?;
            for child in children.split_whitespace() {
                adjust(child.parse()?, "0")?;
            }
        }
        adjust(agent, "1000")?;
    }
    Ok(())
}

/// A program of Fairway's, which its processes are found by.
#[derive(Clone, Copy, Debug)]
enum Program {
    Operator,
    Agent,
}

impl Program {
    /// The program's file and its subcommand.
    fn command_line(self) -> [&'static str; 2] {
        match self {
            Self::Operator => ["fairway", "operator"],
            Self::Agent => ["fairway-agent", "run"],
        }
    }
}

/// Sends SIGKILL to the processes of a program of Fairway's in a pod.
fn kill_in(context: &Context, pod: &Pod, program: Program) -> Result<()> {
    for process in processes_in(context, pod, program)? {
        kill_process(process, Signal::KILL).with_context(|| format!("kill process {process}"))?;
    }
    Ok(())
}

/// The processes of a program of Fairway's in a pod, of which there is at least one.
fn processes_in(context: &Context, pod: &Pod, program: Program) -> Result<Vec<Pid>> {
    if !context.target.is_embedded() {
        bail!("only the processes of the embedded cluster can be killed");
    }
    let uid = pod.uid().context("the pod has no UID")?;
    // systemd's driver writes the UID with underscores, cgroupfs as it is.
    let spellings = [uid.clone(), uid.replace('-', "_")];
    let [file, subcommand] = program.command_line();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let ours = spellings.iter().any(|spelling| read("cgroup").contains(spelling));
        let line = read("cmdline");
        let mut words = line.split('\0');
        let name = words.next().and_then(|path| path.rsplit('/').next());
        if ours && name == Some(file) && words.next() == Some(subcommand) {
            found.push(Pid::from_raw(pid).context("a process has no pid")?);
        }
    }
    ensure!(
        !found.is_empty(),
        "no process `{file} {subcommand}` runs in pod {}",
        pod.name_any()
    );
    Ok(found)
}
