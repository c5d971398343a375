//! confchange/: the changer alone, one configuration per file (README 7).
//!
//! Leaves to others: the forms of configurations and progresses (`interaction::print`).

use crate::datadriven::{Directive, Runner};
use crate::interaction::{print, propose::parse_operations};
use pontoon_raft::Index;
use pontoon_raft::confchange::Changer;
use pontoon_raft::tracker::{Tracker, WindowLimits};
use std::fmt::Write;

/// The configuration so far.
pub struct ConfChanges {
    tracker: Tracker,
    /// Grows with every directive, failed ones included.
    last: Index,
}

impl ConfChanges {
    pub fn new() -> ConfChanges {
        ConfChanges { tracker: Tracker::new(WindowLimits { max_msgs: 10, max_bytes: 0 }), last: Index(0) }
    }

    fn change(&self, directive: &Directive) -> Result<Tracker, String> {
        let ops = parse_operations(&directive.input)?;
        let changer = Changer::new(&self.tracker, self.last);
        let changed = match directive.command.as_str() {
            "simple" => changer.simple(&ops),
            "enter-joint" => changer.enter_joint(directive.arg("autoleave").is_some_and(|a| a.scan_bool()), &ops),
            "leave-joint" if !ops.is_empty() => return Err("this command takes no input".to_owned()),
            "leave-joint" => changer.leave_joint(),
            _ => return Err("unknown command".to_owned()),
        };
        changed.map_err(|e| e.to_string())
    }
}

impl Runner for ConfChanges {
    fn run(&mut self, directive: &Directive) -> String {
        let changed = self.change(directive);
        self.last = self.last.next();
        match changed {
            Err(why) => why,
            Ok(tracker) => {
                self.tracker = tracker;
                let mut out = print::configuration(&self.tracker.conf_state()) + "\n";
                for member in self.tracker.iter() {
                    writeln!(out, "{}: {}", member.id, print::progress(&member.status())).unwrap();
                }
                out
            }
        }
    }
}
