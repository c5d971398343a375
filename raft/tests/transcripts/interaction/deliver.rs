//! Delivering messages, and repeating everything until nothing moves (README 3.5, 3.8).

use super::output::Level;
use super::{Env, Outcome, print};
use crate::datadriven::Directive;
use pontoon_raft::*;

/// Whom to deliver to, or to rob.
struct Recipient {
    id: u64,
    drop: bool,
}

/// Rounds after which messages must be bouncing for ever.
const MAX_ROUNDS: usize = 100;

impl Env {
    pub(super) fn deliver_msgs(&mut self, d: &Directive) -> Outcome {
        let (mut recipients, mut only) = (Vec::new(), None);
        for arg in &d.args {
            match arg.key.as_str() {
                id if arg.values.is_empty() => recipients.push(Recipient { id: id.parse().unwrap(), drop: false }),
                "drop" => recipients.extend(arg.scan_all().into_iter().map(|id| Recipient { id, drop: true })),
                "type" => only = Some(kind_named(&arg.scan::<String>())),
                _ => {}
            }
        }
        let delivered: usize = recipients.iter().map(|r| self.deliver_to(r, only)).sum();
        if delivered == 0 {
            self.output.println("no messages");
        }
        Ok(())
    }

    /// Takes what is in flight to `recipient` and steps or drops it. How many that were.
    fn deliver_to(&mut self, recipient: &Recipient, only: Option<MessageKind>) -> usize {
        let drop = recipient.drop;
        let is_taken = |m: &mut Message| {
            m.to == ReplicaId(recipient.id)
                && only.is_none_or(|kind| m.body.kind() == kind)
                && !(drop && (m.from == m.to || m.from.is_local_target()))
        };
        let taken: Vec<Message> = self.in_flight.extract_if(.., is_taken).collect();
        let count = taken.len();
        for m in taken {
            self.output.print(if drop { "dropped: " } else { "" });
            self.output.println(&print::message(&m, ""));
            if drop {
                continue;
            }
            if let Err(why) = self.call(recipient.id, |node, now| node.step(now, m)) {
                self.output.println(&why.to_string());
            }
        }
        count
    }

    pub(super) fn stabilize(&mut self, d: &Directive) -> Outcome {
        let level = self.output.level;
        if let Some(arg) = d.arg("log-level") {
            self.output.level = Level::parse(&arg.scan::<String>())?;
        }
        let mut ids: Vec<u64> = d.plain();
        if ids.is_empty() {
            ids = (1..=self.nodes.len() as u64).collect();
        }
        let result = self.stabilize_nodes(&ids);
        self.output.level = level;
        result
    }

    fn stabilize_nodes(&mut self, ids: &[u64]) -> Outcome {
        for _ in 0..MAX_ROUNDS {
            let mut done = true;
            for id in ids.iter().copied() {
                if self.node(id).raw.has_ready() {
                    done = false;
                    self.headed(id, "handling Ready", |env| env.process_ready(id))?;
                }
            }
            for id in ids.iter().copied() {
                if self.in_flight.iter().any(|m| m.to == ReplicaId(id)) {
                    done = false;
                    let all = Recipient { id, drop: false };
                    self.headed(id, "receiving messages", |env| {
                        env.deliver_to(&all, None);
                        Ok(())
                    })?;
                }
            }
            for id in ids.iter().copied() {
                if !self.node(id).append_work.is_empty() {
                    done = false;
                    self.output.println(&format!("> {id} processing append thread"));
                }
                while !self.node(id).append_work.is_empty() {
                    self.indented(|env| env.process_append_thread(id))?;
                }
            }
            for id in ids.iter().copied() {
                if !self.node(id).apply_work.is_empty() {
                    done = false;
                    self.output.println(&format!("> {id} processing apply thread"));
                }
                while !self.node(id).apply_work.is_empty() {
                    self.indented(|env| env.process_apply_thread(id))?;
                }
            }
            if done {
                return Ok(());
            }
        }
        panic!("messages still bounce after {MAX_ROUNDS} rounds")
    }

    fn headed(&mut self, id: u64, header: &str, action: impl FnOnce(&mut Env) -> Outcome) -> Outcome {
        self.output.println(&format!("> {id} {header}"));
        self.indented(action)
    }
}

pub(super) fn kind_named(name: &str) -> MessageKind {
    print::KINDS.iter().find(|(_, n)| *n == name).unwrap_or_else(|| panic!("no message type {name}")).0
}
