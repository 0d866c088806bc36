//! Builds the programs of the embedded cluster, or those that are named, unless they are up to date.

use std::process::ExitCode;

use anyhow::{Result, bail};
use fairway_tools::Paths;
use fairway_tools::build::{BUILT, build_each};

fn main() -> ExitCode {
    match build(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build(names: impl Iterator<Item = String>) -> Result<()> {
    let paths = Paths::from_env()?;
    let named = names.map(|name| known(&name)).collect::<Result<Vec<_>>>()?;
    let programs = if named.is_empty() { BUILT } else { &named };
    if build_each(&paths, programs)?.is_empty() && named.is_empty() {
        eprintln!("the programs of the cluster are up to date");
    }
    Ok(())
}

fn known(name: &str) -> Result<&'static str> {
    let found = BUILT.iter().find(|program| **program == name);
    match found {
        Some(program) => Ok(program),
        None => bail!("there is no program {name}; there are: {}", BUILT.join(", ")),
    }
}
