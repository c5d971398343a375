//! The command line: sub-commands, flags, exit codes.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage or configuration. Leaves the work to `run`.

use crate::run::{self, DemoOptions, ServeOptions};
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
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(if matches!(failure, Failure::Config(_)) { 2 } else { 1 })
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line's last word to its caller")]
fn complain(failure: &Failure) {
    eprintln!("pontoon: {failure}");
}
