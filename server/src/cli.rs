//! The command line: sub-commands, flags, exit codes.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 nobody could be asked, 4 outcome not known. Leaves the work to
//! `run`.

use crate::run::{self, AdminOptions, DemoOptions, GroupCommand, LoadOptions, ServeOptions};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "pontoon", version, about = "A sharded, replicated database that speaks the Redis protocol")]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Run one node of a cluster
    Serve(Box<ServeOptions>),
    /// Three nodes on this machine under load: kills, restarts, and a check that nothing acknowledged was lost
    Demo(DemoOptions),
    /// Load on a cluster that runs, over the Redis protocol: throughput, latency, and a check of what was written
    Load(LoadOptions),
    /// All nodes of a cluster and how they are
    Status(AdminOptions),
    /// All groups of a cluster
    Groups(AdminOptions),
    /// Look at groups, change their members, move their leaders
    #[command(subcommand)]
    Group(GroupCommand),
}

/// Why a run ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Flags or files that must be changed; each on its own line. Exit code 2.
    #[error("{}", problems(.0))]
    Config(Vec<String>),
    /// Everything else. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Nobody could be asked; nothing was changed. Exit code 3.
    #[error("{0}")]
    Unreachable(String),
    /// It may have been done, or may be yet. Exit code 4.
    #[error("{0}")]
    Unknown(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Config(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Unknown(_) => 4,
        }
    }
}

fn problems(all: &[String]) -> String {
    let mut text = format!("{} configuration problem(s):", all.len());
    all.iter().for_each(|p| text.push_str(&format!("\n  {p}")));
    text
}

/// Parses the command line and runs it.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Sub::Serve(options) => run::serve(&options),
        Sub::Demo(options) => run::demo(options),
        Sub::Load(options) => run::load(&options),
        Sub::Status(options) => run::status(&options),
        Sub::Groups(options) => run::groups(&options),
        Sub::Group(command) => run::group(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line's last word to its caller")]
fn complain(failure: &Failure) {
    eprintln!("pontoon: {failure}");
}
