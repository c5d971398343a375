//! What `drive` is asked for.

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Load driver of the engine: three processes on the loopback, ratios to the machine's floors
#[derive(Parser)]
#[command(name = "drive", args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) point: PointOptions,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// The grid of points that was measured with other libraries, theirs beside ours
    Matrix(MatrixOptions),
    /// Many groups without load: time to start and restart, CPU, memory, threads
    Idle(IdleOptions),
    /// Kills the node that leads most, again and again: time until every group is led and writes again
    Failover(FailoverOptions),
    /// Open loop at twice the rate of the closed loop: goodput, refusals, memory
    Overload(OverloadOptions),
    /// Open loop at 70% of the rate of the closed loop, for long: elections, stalls, memory, tails
    Soak(SoakOptions),
    /// Bytes that reach the device for each byte of payload, once the logs are truncated
    Device(DeviceOptions),
    /// SIGKILL under full load, again and again: nothing that was acknowledged may be missing
    Kills(KillOptions),
    /// SIGSTOP of one node under load, then SIGCONT: memory, answers, time until it is level again
    Stop(StopOptions),
    /// One node of the cluster; started by the others
    #[command(hide = true)]
    Node(NodeOptions),
}

/// What the nodes are.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterOptions {
    /// Raft groups, all on all three nodes
    #[arg(long, default_value_t = 48)]
    pub(crate) groups: u64,
    /// Poller threads per node; 0: the engine's default
    #[arg(long, default_value_t = 0)]
    pub(crate) pollers: usize,
    /// Where the nodes' directories are made; removed afterwards
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
}

/// What is loaded, and with what.
#[derive(Args, Clone, Debug)]
pub(crate) struct Setup {
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
    #[command(flatten)]
    pub(crate) load: LoadOptions,
    /// State machine of the groups
    #[arg(long, value_enum, default_value_t = MachineName::Count)]
    pub(crate) machine: MachineName,
    /// Write the result there as JSON
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// One point.
#[derive(Args, Clone, Debug)]
pub(crate) struct PointOptions {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Operations a second in all, begun on time whether or not earlier ones are answered; latencies count from then
    #[arg(long)]
    pub(crate) open_loop: Option<f64>,
    /// Length of the measured window
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// The window begins once the log of every group was truncated on every node
    #[arg(long)]
    pub(crate) after_truncation: bool,
    #[command(flatten)]
    pub(crate) floor: FloorOptions,
}

/// The bare pipeline beside it.
#[derive(Args, Clone, Debug)]
pub(crate) struct FloorOptions {
    /// The program `floor`: it is run at the same point afterwards, and the ratio to it printed
    #[arg(long, value_name = "FILE")]
    pub(crate) floor: Option<PathBuf>,
}

/// The operations.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoadOptions {
    /// Commands in flight in all; with --open-loop: the most that may wait
    #[arg(long, default_value_t = 1024)]
    pub(crate) inflight: u64,
    /// Bytes of a command, at least 16
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(16..))]
    pub(crate) bytes: u64,
    /// Share of linearizable reads among the operations, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pub(crate) reads: f64,
    /// Exponent of a Zipf distribution of the load over groups; without it all groups get the same
    #[arg(long)]
    pub(crate) zipf: Option<f64>,
}

#[derive(Args)]
pub(crate) struct MatrixOptions {
    /// Poller threads per node; 0: the engine's default
    #[arg(long, default_value_t = 0)]
    pub(crate) pollers: usize,
    #[command(flatten)]
    pub(crate) floor: FloorOptions,
    /// Length of each measured window
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Where the nodes' directories are made; removed afterwards
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Write the results there as a JSON array
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct IdleOptions {
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
    /// Length of the window in which nothing is asked
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
}

#[derive(Args)]
pub(crate) struct FailoverOptions {
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
    /// How often
    #[arg(long, default_value_t = 20)]
    pub(crate) rounds: u64,
}

#[derive(Args)]
pub(crate) struct OverloadOptions {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Length of the measured window at twice the rate
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Length of the window of the closed loop before it
    #[arg(long, default_value_t = 10)]
    pub(crate) closed_seconds: u64,
    /// Most operations that the drivers keep waiting at overload, in all; by default more than the engine lets in
    #[arg(long)]
    pub(crate) waiting: Option<u64>,
}

#[derive(Args)]
pub(crate) struct SoakOptions {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Length of the soak
    #[arg(long, default_value_t = 600)]
    pub(crate) seconds: u64,
    /// Length of the window of the closed loop before it
    #[arg(long, default_value_t = 10)]
    pub(crate) closed_seconds: u64,
    /// Length of each window that is reported
    #[arg(long, default_value_t = 10)]
    pub(crate) every: u64,
    /// Share of the closed loop's rate
    #[arg(long, default_value_t = 0.7)]
    pub(crate) share: f64,
    /// Most operations that the drivers keep waiting in the open loop, in all; by default more than a soak ever should
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) waiting: u64,
}

#[derive(Args)]
pub(crate) struct DeviceOptions {
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
    /// Commands in flight in all
    #[arg(long, default_value_t = 8_192)]
    pub(crate) inflight: u64,
    /// Bytes of a command, at least 16
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(16..))]
    pub(crate) bytes: u64,
    /// Length of the measured window
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Write the result there as JSON
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct KillOptions {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// How often: one node and all three in turn
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: u64,
    /// Of the times and victims; by default another one each time
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Leave the nodes' directories if it fails
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Args)]
pub(crate) struct StopOptions {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// How long the node stands still
    #[arg(long, default_value_t = 25)]
    pub(crate) stopped_seconds: u64,
    /// Length of the window of the closed loop before it
    #[arg(long, default_value_t = 10)]
    pub(crate) closed_seconds: u64,
    /// How long it may take to be level again
    #[arg(long, default_value_t = 120)]
    pub(crate) patience_seconds: u64,
}

/// One process.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeOptions {
    #[arg(long)]
    pub(crate) node: u64,
    /// Peer ports of all nodes, by node id from 1
    #[arg(long, value_delimiter = ',')]
    pub(crate) ports: Vec<u16>,
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[arg(long)]
    pub(crate) groups: u64,
    #[arg(long)]
    pub(crate) pollers: usize,
    #[arg(long, value_enum)]
    pub(crate) machine: MachineName,
    /// Where it keeps what it acknowledged
    #[arg(long)]
    pub(crate) ledger: Option<PathBuf>,
}

/// State machines to drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MachineName {
    /// Number, bytes and a hash chain of the commands; volatile
    Count,
    /// A map in memory; volatile
    Memory,
    /// The engine's RocksDB store
    Kv,
}

impl MachineName {
    /// As on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            MachineName::Count => "count",
            MachineName::Memory => "memory",
            MachineName::Kv => "kv",
        }
    }
}
