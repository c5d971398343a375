//! The load driver: three nodes as three processes on the loopback, the engine's public face driven from inside them.
//!
//! `options` what is asked; `cluster` starts, kills and asks the processes, `node` is one of them, `load` its driver
//! thread, `ledger` what it acknowledged, `machines` what is replicated, `measure` reads CPU and memory, `probes` the machine's
//! floors, `floor` runs the bare pipeline, `series` watches a load in slices, `stalls` reads RocksDB's own log, `check` is what
//! every run ends with, `report` prints. The runs: `run` (one point), `matrix`, `idle`, `failover`, `overload`, `soak`, `device`,
//! `kills`, `stop`.
//! Leaves to others: the log store alone (`table`), the Redis protocol (`pontoon load`).
//! Invariant: a run that lost an acknowledged write, or whose replicas differ, fails.

mod check;
mod cluster;
mod control;
mod device;
mod failover;
mod floor;
mod idle;
mod kills;
mod ledger;
mod load;
mod machines;
mod matrix;
mod measure;
mod node;
mod options;
mod overload;
mod probes;
mod report;
mod run;
mod series;
mod soak;
mod stalls;
mod stop;

use clap::Parser;
use options::{Cli, Command};
use std::process::ExitCode;

/// What went wrong, for people.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses, runs, prints.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        None => run::point(&cli.point),
        Some(Command::Matrix(options)) => matrix::run(options),
        Some(Command::Idle(options)) => idle::run(options),
        Some(Command::Failover(options)) => failover::run(options),
        Some(Command::Overload(options)) => overload::run(options),
        Some(Command::Soak(options)) => soak::run(options),
        Some(Command::Device(options)) => device::run(options),
        Some(Command::Kills(options)) => kills::run(options),
        Some(Command::Stop(options)) => stop::run(options),
        Some(Command::Node(options)) => node::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::complain(&*failure);
            ExitCode::FAILURE
        }
    }
}
