//! `fairway-agent` as its next version, for the test of an upgrade and back.

use std::process::ExitCode;

use clap::Parser as _;
use fairway_agent::Arguments;

fn main() -> ExitCode {
    fairway_agent::main(Arguments::parse())
}
