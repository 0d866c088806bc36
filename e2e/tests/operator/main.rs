//! What befalls the operator itself. These tests share the one operator of the cluster, so they run one
//! after the other, whatever number of threads is asked for.

mod absent;
mod fences;
mod idle;
mod kills;
mod scale;
mod unreadable;

use fairway_e2e::ns::{Context, with_temp_ns};

/// Runs a test in a namespace of its own while no other one of this file runs.
async fn alone<F>(test: impl FnOnce(Context) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = ONE_AT_A_TIME.lock().await;
    with_temp_ns(test).await
}
