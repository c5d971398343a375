//! interaction/: nodes, messages in flight, storage threads, and the commands on them (README 3).
//!
//! Leaves to others: printed forms (`print`), log lines (`log_lines`), each family of commands (a file each).
//! Invariant: after every call of the core its traces are printed at once, so that the order of lines is
//! the order of events.

mod deliver;
mod log_lines;
mod node;
mod output;
mod own;
pub mod print;
pub mod propose;
mod ready;
mod step;

use crate::datadriven::{Directive, Runner};
use node::{EnvStorage, Node};
use output::{Level, Output};
use pontoon_raft::*;

/// A command's result: its error text.
type Outcome = Result<(), String>;

/// Everything a file talks to.
pub struct Env {
    /// The node at position i has id i + 1.
    nodes: Vec<Node>,
    /// In order of sending, answers of storage threads included.
    in_flight: Vec<Message>,
    output: Output,
}

impl Runner for Env {
    fn run(&mut self, directive: &Directive) -> String {
        let result = self.handle(directive);
        self.nodes.iter().filter(|n| n.is_sound).for_each(|n| n.raw.assert_invariants());
        self.output.finish(result)
    }
}

impl Env {
    pub fn new() -> Env {
        Env { nodes: Vec::new(), in_flight: Vec::new(), output: Output::new() }
    }

    fn handle(&mut self, d: &Directive) -> Outcome {
        match d.command.as_str() {
            "_breakpoint" => Ok(()),
            "add-nodes" => self.add_nodes(d),
            "campaign" => self.silent(d, |node, now| node.campaign(now)),
            "compact" => self.compact(d),
            "deliver-msgs" => self.deliver_msgs(d),
            "process-ready" => self.for_each(d, "handling Ready", Env::process_ready),
            "process-append-thread" => self.for_each(d, "processing append thread", Env::process_append_thread),
            "process-apply-thread" => self.for_each(d, "processing apply thread", Env::process_apply_thread),
            "log-level" => {
                self.output.level = Level::parse(&d.key::<String>(0))?;
                Ok(())
            }
            "raft-log" => self.raft_log(d.key(0)),
            "raft-state" => self.raft_state(),
            "set-randomized-election-timeout" => {
                let timeout = d.arg("timeout").expect("timeout=").scan();
                self.silent(d, |node, _| node.set_election_timeout(timeout))
            }
            "stabilize" => self.stabilize(d),
            "status" => self.status(d.key(0)),
            "tick-election" => self.tick(d.key(0), ELECTION_TICK),
            "tick-heartbeat" => self.tick(d.key(0), HEARTBEAT_TICK),
            "transfer-leadership" => self.transfer(d),
            "forget-leader" => self.silent(d, |node, now| node.forget_leader(now)),
            "send-snapshot" => self.send_snapshot(d),
            "propose" => self.propose(d),
            "propose-conf-change" => self.propose_conf_change(d),
            "report-unreachable" => self.report_unreachable(d),
            _ => self.handle_own(d).unwrap_or_else(|| Err("unknown command".to_owned())),
        }
    }

    /// Calls the core of node `id`, then prints what happened in there.
    fn call<R>(&mut self, id: u64, what: impl FnOnce(&mut RawNode<EnvStorage>, Tick) -> R) -> R {
        let Env { nodes, output, .. } = self;
        let node = nodes.get_mut(position(id)).unwrap_or_else(|| panic!("no node {id}"));
        let result = what(&mut node.raw, node.now);
        for event in node.raw.take_trace() {
            let (level, text) = log_lines::line(id, &event);
            output.log(level, &text);
        }
        result
    }

    fn silent(&mut self, d: &Directive, what: impl FnOnce(&mut RawNode<EnvStorage>, Tick)) -> Outcome {
        self.call(d.key(0), what);
        Ok(())
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(position(id)).unwrap_or_else(|| panic!("no node {id}"))
    }

    /// Prints indented what `action` prints, also if it fails.
    fn indented<R>(&mut self, action: impl FnOnce(&mut Env) -> R) -> R {
        let outer = self.output.begin();
        let result = action(self);
        self.output.indent(outer);
        result
    }

    /// One node plainly, several with a header each.
    fn for_each(&mut self, d: &Directive, header: &str, action: fn(&mut Env, u64) -> Outcome) -> Outcome {
        let ids: Vec<u64> = d.plain();
        for id in &ids {
            if let [only] = ids[..] {
                return action(self, only);
            }
            self.output.println(&format!("> {id} {header}"));
            self.indented(|env| action(env, *id))?;
        }
        Ok(())
    }

    fn tick(&mut self, id: u64, times: u64) -> Outcome {
        for _ in 0..times {
            self.node(id).now += 1;
            self.call(id, |node, now| node.tick(now));
        }
        Ok(())
    }

    fn transfer(&mut self, d: &Directive) -> Outcome {
        let id = |key| d.arg(key).expect("from= and to=").scan::<u64>();
        self.call(id("from"), |node, now| node.transfer_leader(now, ReplicaId(id("to"))));
        Ok(())
    }

    fn report_unreachable(&mut self, d: &Directive) -> Outcome {
        let [on, peer] = d.plain::<u64>()[..] else {
            return Err("must specify exactly two node indexes: node on which to report, and reported node".to_owned());
        };
        self.call(on, |node, now| node.report_unreachable(now, ReplicaId(peer)));
        Ok(())
    }

    fn send_snapshot(&mut self, d: &Directive) -> Outcome {
        let (from, to) = (d.key(0), d.key(1));
        let node = self.node(from);
        let snapshot = Box::new(node.raw.storage().newest_snapshot().clone());
        let term = node.raw.basic_status().term;
        let m = Message { from: ReplicaId(from), to: ReplicaId(to), term, body: Body::Snap { snapshot } };
        self.output.print(&print::message(&m, ""));
        self.in_flight.push(m);
        Ok(())
    }

    fn compact(&mut self, d: &Directive) -> Outcome {
        let (id, upto) = (d.key(0), Index(d.key(1)));
        let node = self.node(id);
        // What was not applied yet is lost.
        node.is_sound &= upto <= node.raw.basic_status().applied;
        let compacted = node.raw.storage_mut().mem.compact(upto);
        match compacted {
            Ok(()) => self.raft_log(id),
            Err(StorageError::Compacted) => Err("requested index is unavailable due to compaction".to_owned()),
            Err(other) => panic!("compact: {other}"),
        }
    }

    fn raft_log(&mut self, id: u64) -> Outcome {
        let mem = &self.node(id).raw.storage().mem;
        let lines: String = mem.all_entries().iter().map(|e| print::entry(e) + "\n").collect();
        let (first, last) = (mem.first_index(), mem.last_index());
        if lines.is_empty() {
            self.output.print(&format!("log is empty: first index={first}, last index={last}"));
        }
        self.output.print(&lines);
        Ok(())
    }

    fn raft_state(&mut self) -> Outcome {
        for node in &self.nodes {
            let Status { basic, conf, .. } = node.raw.status();
            let voter = if conf.is_voter(basic.id) { "Voter" } else { "Non-Voter" };
            let role = print::role(basic.role);
            self.output.println(&format!("{}: {role} ({voter}) Term:{} Lead:{}", basic.id, basic.term, basic.lead));
        }
        Ok(())
    }

    fn status(&mut self, id: u64) -> Outcome {
        for (peer, progress) in self.node(id).raw.status().progress {
            self.output.println(&format!("{peer}: {}", print::progress(&progress)));
        }
        Ok(())
    }
}

const ELECTION_TICK: u64 = 3;
const HEARTBEAT_TICK: u64 = 1;

fn position(id: u64) -> usize {
    usize::try_from(id).ok().and_then(|id| id.checked_sub(1)).unwrap_or_else(|| panic!("no node {id}"))
}
