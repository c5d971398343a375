//! Real processes on the loopback: what the demo and the process tests start, kill, restart and question.
//!
//! Leaves to others: load and judgement. Invariant: every process that was started is killed when its `Nodes` is dropped.

mod nodes;
mod proc;
mod questions;

pub use nodes::{NodeProcess, Nodes, NodesConfig, free_ports};
pub use proc::{cpu_us, signal};
pub(crate) use questions::led_ranges;
pub use questions::{applied, digests, leaders, metric_sum, wait_all_led};
