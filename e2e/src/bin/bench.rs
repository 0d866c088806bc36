//! `make bench`: Fairway beside Argo Rollouts on the embedded cluster, as a table.

use anyhow::{Result, bail};
use clap::Parser;
use fairway_e2e::bench::{self, Plan, Table};
use fairway_e2e::cluster::memory_for_time;
use fairway_e2e::target::Target;

/// Measures Fairway and Argo Rollouts on the embedded cluster and prints a table.
#[derive(Parser)]
struct Arguments {
    /// Releases whose switch is timed.
    #[arg(long, default_value_t = Plan::default().switches)]
    switches: usize,
    /// Idle objects for memory and throughput.
    #[arg(long, default_value_t = Plan::default().objects)]
    objects: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { switches, objects } = Arguments::parse();
    let target = Target::from_env()?;
    if !target.is_embedded() {
        bail!(
            "the benchmark reads the audit log and the processes of the node: it needs the embedded cluster, not KUBE_CONTEXT"
        );
    }
    let figures = bench::run(
        &target,
        Plan {
            switches,
            objects,
            ..Plan::default()
        },
    )
    .await?;
    let processors = std::thread::available_parallelism()?;
    let given: Vec<_> = memory_for_time()
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    println!(
        "\n{}\nOne after the other on the embedded cluster: {processors} processors, and programs of Kubernetes that run \
         with {}.",
        Table(&figures),
        given.join(" ")
    );
    Ok(())
}
