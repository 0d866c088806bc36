//! `cluster`: starts, fills and removes the embedded cluster.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use fairway_e2e::cluster::{Cluster, Options};
use fairway_e2e::paths::Paths;
use fairway_e2e::target::Target;
use fairway_e2e::{images, install};

/// A real one-node Kubernetes on this machine, without Docker.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Start the cluster, or do nothing when it runs.
    Up {
        /// Replace a cluster that runs by a new one.
        #[arg(long)]
        fresh: bool,
        /// How many pods the node takes.
        #[arg(long, default_value_t = Options::default().max_pods)]
        max_pods: u32,
    },
    /// Remove the cluster: processes, mounts, namespace, interfaces, cgroup. Images stay built.
    Down,
    /// List the processes that run.
    Status,
    /// Build images and push them to the registry; skips what is up to date.
    Images {
        /// Only images of these names, such as `postgres`; when none is given, all but `fairway-faulty`, which only
        /// `make test-long` needs.
        names: Vec<String>,
        /// Only what the demo runs.
        #[arg(long, conflicts_with = "names")]
        story: bool,
        /// Build, and leave pushing to `load`.
        #[arg(long)]
        no_push: bool,
    },
    /// Install Fairway with its Helm charts, or upgrade it to the operator's image that was built last.
    Install {
        /// Values as JSON, laid over those that name the image.
        #[arg(long, default_value = "{}", value_parser = <serde_json::Value as std::str::FromStr>::from_str)]
        values: serde_json::Value,
    },
    /// Push images that are built to the registry of the embedded cluster, or to `REGISTRY`.
    Load {
        /// Only images of these names; when none is given, all but `fairway-faulty`.
        names: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match execute(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(arguments: Arguments) -> Result<ExitCode> {
    let paths = Paths::from_env()?;
    match arguments.command {
        Subcommands::Up { fresh, max_pods } => {
            let options = Options {
                fresh,
                max_pods,
                ..Options::default()
            };
            Cluster::up(&paths, &options).await?;
            println!("export KUBECONFIG={}", paths.kubeconfig().display());
            println!("export PATH={}:$PATH", paths.bin().display());
        }
        Subcommands::Down => {
            Cluster::down(&paths)?;
            eprintln!("the cluster is gone");
        }
        Subcommands::Images {
            names,
            story,
            no_push,
        } => {
            let target = Target::from_env()?;
            let images = match story {
                true => images::of_the_story(),
                false => named(&names)?,
            };
            images::build(&paths, &images)?;
            if !no_push {
                push(&target, &images)?;
            }
        }
        Subcommands::Install { values } => install::fairway(&Target::from_env()?, values)?,
        Subcommands::Load { names } => push(&Target::from_env()?, &named(&names)?)?,
        Subcommands::Status => return Ok(status(&paths).await),
    }
    Ok(ExitCode::SUCCESS)
}

/// Images of these names, or, when there are none, those that `make test` runs.
fn named(names: &[String]) -> Result<Vec<images::Image>> {
    let mut images = images::named(names)?;
    if names.is_empty() {
        images.retain(|image| image.name != "fairway-faulty");
    }
    Ok(images)
}

/// Pushes to the target's registry. Without a cluster there is no registry yet: `up` pushes then.
fn push(target: &Target, images: &[images::Image]) -> Result<()> {
    if target.is_embedded() && !Cluster::registry_runs(&target.paths) {
        eprintln!("the embedded cluster does not run, so nothing was pushed; `cluster load` does it later");
        return Ok(());
    }
    images::push(&target.paths, &target.registry(), images)
}

/// Exit code 1 when the cluster does not run whole.
async fn status(paths: &Paths) -> ExitCode {
    for process in Cluster::status(paths) {
        match process.pid {
            Some(pid) => println!("{:<24} runs as {pid}", process.name),
            None => println!(
                "{:<24} does not run; log: {}",
                process.name,
                process.log.display()
            ),
        }
    }
    match Cluster::running(paths).await {
        Ok(_) => {
            println!("kubeconfig: {}", paths.kubeconfig().display());
            println!("registry: {}", paths.registry_host());
            println!("audit log: {}", paths.audit_log().display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
