//! `pontoon status`, `groups`, `group`: what an operator asks and changes, over the admin endpoint of any node.
//!
//! Leaves to others: HTTP (`admin_client`), finding nodes and leaders (`site`), printing (`table`).
//! Exit codes: 0 done; 1 refused, nothing was changed, or something is not well; 2 usage; 3 nobody could be asked; 4 under
//! way, or the outcome is not known. Over several groups the highest of 3, 4 and 1 that occurred, in that order.

mod change;
mod show;
mod site;
mod table;

pub(crate) use change::{GroupCommand, group};
pub(crate) use show::{groups, status};

use crate::admin_client::AdminClient;
use crate::cli::Failure;
use clap::{Args, ValueEnum};
use pontoon::config::Span;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

/// Where the token may come from beside a file.
const TOKEN_ENV: &str = "PONTOON_ADMIN_TOKEN";
/// How long after a node's own time for a change its answer is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// Flags of all these commands.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminOptions {
    /// Admin address of any node of the cluster
    #[arg(long, default_value = "127.0.0.1:7401")]
    admin: String,
    /// A file with the admin token [or: env PONTOON_ADMIN_TOKEN]
    #[arg(long)]
    admin_token_file: Option<PathBuf>,
    /// How it is printed
    #[arg(short, long, default_value = "table")]
    output: Output,
    /// How long to wait for a change of members; it goes on after that
    #[arg(long, default_value = "30s")]
    timeout: String,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

impl AdminOptions {
    fn client(&self) -> Result<AdminClient, Failure> {
        let token = match &self.admin_token_file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map(|t| t.trim_end().to_owned())
                    .map_err(|e| Failure::Config(vec![format!("--admin-token-file {}: {e}", path.display())]))?,
            ),
            None => std::env::var(TOKEN_ENV).ok(),
        };
        Ok(AdminClient { token, patience: self.wait()? + GRACE })
    }

    fn wait(&self) -> Result<Duration, Failure> {
        let wait = Span::parse(&self.timeout);
        match wait.problem() {
            Some(problem) => Err(Failure::Config(vec![format!("--timeout {}: {problem}", self.timeout)])),
            None => Ok(wait.get()),
        }
    }
}

/// Runs a command's work; one thread does.
fn blocking(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::Failed(format!("cannot start: {e}")))?.block_on(work)
}

#[expect(clippy::print_stdout, reason = "the command's answer to its caller")]
fn print(text: &str) {
    println!("{}", text.trim_end());
}
