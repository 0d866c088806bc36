//! Fairway: the operator, and the agent that it puts into pods, in one binary.

mod agent;
mod probe;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "fairway", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work inside a pod, next to the database or the application.
    Agent(agent::AgentArgs),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Agent(arguments) => agent::run(arguments),
    }
}
