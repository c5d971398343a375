//! confchange/: the changer alone, one configuration per file (README 7).
//!
//! `place <id> nowhere|next` is our own command: it puts a member where no change can put it, to see that the next one refuses.
//! Leaves to others: the forms of configurations and progresses (`interaction::print`).

use crate::datadriven::{Directive, Runner};
use crate::interaction::{print, propose::parse_operations};
use pontoon_raft::confchange::Changer;
use pontoon_raft::tracker::{Roles, Tracker, WindowLimits};
use pontoon_raft::{Index, ReplicaId};
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
            "place" => return Ok(self.placed(ReplicaId(directive.key(0)), &directive.key::<String>(1))),
            _ => return Err("unknown command".to_owned()),
        };
        changed.map_err(|e| e.to_string())
    }

    fn placed(&self, id: ReplicaId, place: &str) -> Tracker {
        let mut tracker = self.tracker.clone();
        let member = tracker.get_mut(id).unwrap_or_else(|| panic!("{id} is no member"));
        member.roles = match place {
            "nowhere" => Roles::NONE,
            "next" => Roles::LEARNER_NEXT,
            other => panic!("no place {other}"),
        };
        tracker
    }

    /// What the tracker says of its size, against a count.
    fn check_size(&self) {
        let members = self.tracker.iter().count();
        assert_eq!((self.tracker.len(), self.tracker.is_empty()), (members, members == 0));
    }
}

impl Runner for ConfChanges {
    fn run(&mut self, directive: &Directive) -> String {
        self.check_size();
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
