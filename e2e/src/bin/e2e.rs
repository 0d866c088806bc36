//! `e2e`: runs the tests that need a cluster.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use fairway_e2e::images;
use fairway_e2e::paths::Paths;
use fairway_e2e::runner::{self, Selection, parts, phases, record};
use fairway_e2e::target::Target;
use fairway_e2e::tools;

/// Runs the tests that need a cluster, on the embedded one or on that of `KUBE_CONTEXT`.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run the tests of `make test`.
    Test {
        /// Only tests with this in their name.
        filter: Option<String>,
        /// Most tests at a time, fewer than are usual, on a machine that has other work. `TEST_THREADS` sets it too.
        #[arg(long)]
        at_once: Option<usize>,
    },
    /// Run a part of `make test-long` and write its result to e2e/README.md; without a name, list the parts.
    Long {
        /// Name of the part.
        part: Option<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let passed = match Arguments::parse().command {
        Subcommands::Test { filter, at_once } => test(filter, at_once).await,
        Subcommands::Long { part: Some(part) } => long(&part).await,
        Subcommands::Long { part: None } => {
            list();
            Ok(true)
        }
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn test(filter: Option<String>, at_once: Option<usize>) -> Result<bool> {
    let at_once = match std::env::var("TEST_THREADS") {
        // make exports it without a value where none is given.
        Ok(threads) if at_once.is_none() && !threads.is_empty() => {
            Some(threads.parse().context("TEST_THREADS is no number")?)
        }
        _ => at_once,
    };
    let selection = Selection {
        filter: filter.filter(|filter| !filter.is_empty()),
        at_once,
        ..Selection::default()
    };
    tools::build_each(&Paths::from_env()?, &[tools::S3_SERVER])?;
    let report = runner::run(phases::TESTS, &selection).await?;
    println!("{report}");
    Ok(report.failed() == 0)
}

async fn long(name: &str) -> Result<bool> {
    let part = parts::named(name)?;
    if !part.images.is_empty() {
        let names: Vec<_> = part.images.iter().map(|image| (*image).to_owned()).collect();
        let (target, images) = (Target::from_env()?, images::named(&names)?);
        images::build(&Paths::from_env()?, &images)?;
        images::push(&target.paths, &target.registry(), &images)?;
    }
    let selection = Selection {
        set: part.set,
        variables: part.variables,
        limit: parts::LIMIT,
        ..Selection::default()
    };
    let report = runner::run(part.phases, &selection).await?;
    println!("{report}");
    record::write(part, &report)?;
    Ok(report.failed() == 0)
}

fn list() {
    println!("make test-long PART=…");
    for part in parts::PARTS {
        println!("  {:<14}{}", part.name, part.proves);
    }
}
