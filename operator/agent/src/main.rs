//! The binary `fairway-agent`, which runs in pods.

use std::process::ExitCode;

use clap::Parser as _;
use fairway_agent::Arguments;

fn main() -> ExitCode {
    fairway_agent::main(Arguments::parse())
}
