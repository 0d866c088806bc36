//! Fairway: the operator. What it puts into pods is the crate `fairway-agent`.

mod agent_image;
mod args;
mod client;
mod driver;
mod events;
#[cfg(test)]
mod fake;
#[cfg(feature = "fault-injection")]
mod fault;
mod http;
mod leader;
mod metrics;
mod operator;
#[cfg(test)]
mod peak;
mod probe;
mod process;
mod ready;
mod shared;
mod telemetry;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The C library that makes the binary static has an allocator made for size, not for speed.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tests measure how much memory hostile input takes.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

#[derive(Debug, Parser)]
#[command(name = "fairway", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Operator(Box<args::OperatorArgs>),
    CheckReady(ready::ReadyArgs),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Operator(arguments) => operator::run(*arguments),
        Command::CheckReady(arguments) => ready::run(arguments),
    }
}
