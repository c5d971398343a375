//! Commands that the original's environment lacks: founding, reads, snapshot reports, restarts, further limits, pages that are
//! reported in parts, entries that are not in memory, several entries in one proposal, messages out of nowhere (`step`).
//!
//! Only transcripts of our own use them. Invariant: every name here is one that the original's
//! environment answers with `unknown command`, and that no recorded transcript holds.

use super::{Env, Outcome};
use crate::datadriven::{Arg, Directive};
use bytes::Bytes;
use pontoon_raft::*;

impl Env {
    /// `None` if there is no such command.
    pub(super) fn handle_own(&mut self, d: &Directive) -> Option<Outcome> {
        Some(match d.command.as_str() {
            "read-index" => {
                let context = Bytes::from(d.key::<String>(1));
                self.call(d.key(0), |node, now| node.read_index(now, context)).map_err(|e| e.to_string())
            }
            "report-snapshot" => {
                let (peer, ok) = (ReplicaId(d.key(1)), d.arg("ok").expect("ok=").scan_bool());
                self.call(d.key(0), |node, now| node.report_snapshot(now, peer, ok));
                Ok(())
            }
            "restart" => self.restart(d.key(0)),
            "bootstrap" => {
                let ids = d.arg("peers").map(Arg::scan_all::<u64>).unwrap_or_default();
                let peer = |id: u64| Peer { id: ReplicaId(id), context: Bytes::from(format!("at-{id}")) };
                let peers: Vec<Peer> = ids.into_iter().map(peer).collect();
                self.call(d.key(0), |node, _| node.bootstrap(&peers)).map_err(|e| e.to_string())
            }
            "report-applied" => {
                let upto = Index(d.key(1));
                self.call(d.key(0), |node, now| node.on_applied(now, upto));
                Ok(())
            }
            "evict" => {
                self.node(d.key(0)).raw.storage_mut().cold = true;
                Ok(())
            }
            "fetch" => self.fetch(d.key(0)),
            "propose-entries" => self.propose_entries(d),
            "step" => self.step(d),
            _ => return None,
        })
    }

    /// Forgets everything that is not stored. The state machine keeps what it applied.
    fn restart(&mut self, id: u64) -> Outcome {
        let node = self.node(id);
        let mut storage = node.raw.storage().clone();
        storage.cold = false;
        // A snapshot that was installed is newer than the history, then it stays.
        let _ = storage.mem.set_snapshot(storage.newest_snapshot().clone());
        node.config.applied = storage.mem.snapshot(ReplicaId(id)).map_err(|e| e.to_string())?.meta.index;
        node.raw = RawNode::new(&node.config, storage, node.now).map_err(|e| e.to_string())?;
        node.append_work.clear();
        node.apply_work.clear();
        self.in_flight.retain(|m| !(m.to == ReplicaId(id) && (m.from == m.to || m.from.is_local_target())));
        self.call(id, |_, _| ());
        Ok(())
    }

    /// Prints what the core waits for and for whom; then it is in memory, and the core hears of it.
    fn fetch(&mut self, id: u64) -> Outcome {
        let node = self.node(id);
        node.raw.storage_mut().cold = false;
        let wanted = node.raw.take_fetches();
        for Fetch { to, low, high, .. } in wanted {
            self.output.println(&format!("for {to}: [{low}, {high})"));
            self.call(id, |node, now| node.resume_append(now, to));
        }
        Ok(())
    }
}

/// Settings of `add-nodes` that the original lacks; unknown keys are ignored.
pub(super) fn set_config(config: &mut Config, arg: &Arg) {
    match arg.key.as_str() {
        "max-size-per-msg" => config.max_size_per_msg = arg.scan(),
        "max-uncommitted-size" => config.max_uncommitted_size = arg.scan(),
        "max-inflight-bytes" => config.max_inflight_bytes = arg.scan(),
        "disable-proposal-forwarding" => config.disable_proposal_forwarding = arg.scan_bool(),
        "strict" => config.strict = arg.scan_bool(),
        _ => {}
    }
}
