//! window/: what may be in flight to one follower (raft-core 8.1, "Window"), alone. A kind of our own.
//!
//! `limits msgs=<n> [bytes=<n>]` starts an empty window, `add <last> [bytes=<n>]` is a message that leaves, `free <index>` an
//! ack. Each prints what is in flight: `empty`, or the count and ` full`.

use crate::datadriven::{Arg, Directive, Runner};
use pontoon_raft::Index;
use pontoon_raft::tracker::{Inflights, WindowLimits};

/// The window so far.
pub struct Windows {
    window: Inflights,
}

impl Windows {
    pub fn new() -> Windows {
        Windows { window: Inflights::new(WindowLimits { max_msgs: 1, max_bytes: 0 }) }
    }
}

impl Runner for Windows {
    fn run(&mut self, d: &Directive) -> String {
        let bytes = d.arg("bytes").map_or(0, Arg::scan);
        match d.command.as_str() {
            "limits" => {
                let max_msgs = d.arg("msgs").expect("msgs=").scan();
                self.window = Inflights::new(WindowLimits { max_msgs, max_bytes: bytes });
            }
            // Whoever sends asks first.
            "add" if self.window.is_full() => return "refused".to_owned(),
            "add" => self.window.add(Index(d.key(0)), bytes),
            "free" => self.window.free_to(Index(d.key(0))),
            other => panic!("unknown command {other}"),
        }
        let count = self.window.count();
        let shown = if self.window.is_empty() { "empty".to_owned() } else { format!("{count} in flight") };
        shown + if self.window.is_full() { ", full" } else { "" }
    }
}
