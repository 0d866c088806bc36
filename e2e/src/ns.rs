//! A namespace of its own for each test, with everything that one needs to see when the test fails.

use std::fs::File;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use serde_json::json;

pub use crate::context::Context;
use crate::target::Target;
use crate::{dump, volumes, wait};

/// What the API server does with pods that the restricted profile of Pod Security does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodSecurity {
    /// It refuses them: what Fairway makes must run where a careful team runs it.
    Enforced,
    /// It takes them and warns.
    Warned,
}

/// Runs a test in a new namespace and removes it afterwards. When the test fails, by an error or by a
/// panic, all that explains it goes to standard error first.
///
/// # Errors
/// The test's own error, or that the namespace could not be created or does not go.
///
/// # Panics
/// When the test panics.
pub async fn with_temp_ns<F>(test: impl FnOnce(Context) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    run(File::lock_shared, test).await
}

/// Runs a test in a namespace while it holds the lock of all tests, shared with others or not.
async fn run<F>(lock: fn(&File) -> io::Result<()>, test: impl FnOnce(Context) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let target = Target::from_env()?;
    let _lock = locked(target.paths.tests_lock(), lock).await?;
    let client = target.client().await?;
    let namespace = unique_name();
    let context = Context {
        client,
        target,
        namespace,
    };
    create(&context, PodSecurity::Enforced).await?;
    let outcome = AssertUnwindSafe(test(context.clone())).catch_unwind().await;
    // What went wrong comes before the long text that explains it: who sees only the beginning sees this.
    if let Ok(Err(error)) = &outcome {
        eprintln!("======== failed\n{error:#}\n");
    }
    if !matches!(outcome, Ok(Ok(()))) {
        dump::to_stderr(&context.client, &context.namespace).await;
    }
    let removed = remove(&context).await;
    match outcome {
        Ok(result) => result.and(removed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// [`with_temp_ns`] while no other test works on the cluster: for tests that stop or replace the operator, or that fill
/// the machine.
///
/// # Errors
/// As [`with_temp_ns`].
///
/// # Panics
/// When the test panics.
pub async fn alone<F>(test: impl FnOnce(Context) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    run(File::lock, test).await
}

/// Makes a namespace of this name, in place of one that is there already.
///
/// # Errors
/// When the old one does not go or the new one cannot be made.
pub async fn fresh(target: &Target, name: &str, security: PodSecurity) -> Result<Context> {
    let context = Context {
        client: target.client().await?,
        target: target.clone(),
        namespace: name.to_owned(),
    };
    remove(&context).await?;
    create(&context, security).await?;
    Ok(context)
}

async fn create(context: &Context, security: PodSecurity) -> Result<()> {
    let namespaces = Api::<Namespace>::all(context.client.clone());
    let mode = match security {
        PodSecurity::Enforced => "pod-security.kubernetes.io/enforce",
        PodSecurity::Warned => "pod-security.kubernetes.io/warn",
    };
    let namespace = serde_json::from_value(json!({
        "metadata": {
            "name": context.namespace,
            "labels": {"fairway.dev/e2e": "test", mode: "restricted"},
        },
    }))?;
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .context("make the namespace of the test")?;
    wait::namespace_usable(&context.client, &context.namespace).await
}

/// Removes the namespace, if it is there, and what belongs to it elsewhere.
///
/// # Errors
/// When it does not go.
pub async fn remove(context: &Context) -> Result<()> {
    let namespaces = Api::<Namespace>::all(context.client.clone());
    wait::remove(namespaces, &context.namespace, wait::GONE).await?;
    volumes::remove_all(&context.client, &context.target, &context.namespace).await
}

/// A file that is locked until it is dropped. Tests are threads and processes, so what they share is a file.
pub(crate) async fn locked(path: PathBuf, lock: fn(&File) -> io::Result<()>) -> Result<File> {
    let locking = move || {
        let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
        lock(&file).with_context(|| format!("lock {}", path.display()))?;
        Ok(file)
    };
    tokio::task::spawn_blocking(locking).await?
}

/// Tests of several processes run at once, each process with several tests.
fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("t-{:x}-{:x}-{number}", since.as_secs(), std::process::id())
}
