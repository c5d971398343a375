//! Handling a Ready and the work of the storage threads (README 3.6, 3.7).
//!
//! In asynchronous mode the core holds back what must wait for a write; here it is put into the printed
//! form of the original, where answers travel inside the work (raft-core 14.3), and is stepped when delivered.

use super::{Env, Outcome, print};
use pontoon_raft::*;

impl Env {
    /// Handles one Ready, pending or not.
    pub(super) fn process_ready(&mut self, id: u64) -> Outcome {
        let ready = self.call(id, |node, _| node.ready());
        let is_async = self.node(id).config.async_storage_writes;
        let (mut append, mut apply) = (None, None);
        if is_async {
            let held = self.call(id, |node, _| node.take_held(ready.number));
            (append, apply) = (append_work(id, &ready, held), apply_work(id, &ready));
        }
        let messages: Vec<Message> = ready.messages.iter().chain(&append).chain(&apply).cloned().collect();
        self.output.print(&print::ready(&ready, &messages));
        if !is_async {
            self.persist(id, ready.hard_state, &ready.entries.to_vec(), ready.snapshot.as_ref())?;
            self.apply(id, &ready.committed_entries.to_vec());
        }
        self.in_flight.extend(ready.messages);
        let node = self.node(id);
        node.append_work.extend(append);
        node.apply_work.extend(apply);
        if !is_async {
            self.call(id, |node, now| node.advance(now));
        }
        Ok(())
    }

    fn persist(&mut self, id: u64, hs: Option<HardState>, entries: &[Entry], snapshot: Option<&Snapshot>) -> Outcome {
        let node = self.node(id);
        let outcome = node.raw.storage_mut().persist(hs, entries, snapshot);
        node.is_sound &= outcome.is_ok();
        outcome
    }

    /// Applies entries one by one: a membership change goes to the core.
    fn apply(&mut self, id: u64, entries: &[Entry]) {
        for entry in entries {
            let change = ConfChangeV2::from_entry(entry).unwrap();
            let conf_state =
                change.as_ref().map(|cc| self.call(id, |node, now| node.apply_conf_change(now, cc).unwrap()));
            let payload = change.map_or(entry.data.clone(), |cc| cc.context);
            self.node(id).raw.storage_mut().extend_history(entry, &payload, conf_state);
        }
    }

    pub(super) fn process_append_thread(&mut self, id: u64) -> Outcome {
        let node = self.node(id);
        let Some(mut work) = node.append_work.pop_front() else {
            self.output.print("no append work to perform");
            return Ok(());
        };
        let Body::StorageAppend(append) = &mut work.body else { unreachable!("only append work is queued") };
        let responses = std::mem::take(&mut append.responses);
        let (hs, entries, snapshot) = (append.hard_state, append.entries.clone(), append.snapshot.clone());
        self.print_processing(&work);
        self.persist(id, hs, &entries, snapshot.as_ref())?;
        self.respond(responses);
        Ok(())
    }

    pub(super) fn process_apply_thread(&mut self, id: u64) -> Outcome {
        let Some(mut work) = self.node(id).apply_work.pop_front() else {
            self.output.print("no apply work to perform");
            return Ok(());
        };
        let Body::StorageApply { entries, responses } = &mut work.body else {
            unreachable!("only apply work is queued")
        };
        let responses = std::mem::take(responses);
        let entries = entries.clone();
        self.print_processing(&work);
        self.apply(id, &entries);
        self.respond(responses);
        Ok(())
    }

    fn print_processing(&mut self, work: &Message) {
        self.output.println("Processing:");
        self.output.println(&print::message(work, ""));
    }

    fn respond(&mut self, responses: Vec<Message>) {
        self.output.println("Responses:");
        for response in &responses {
            self.output.println(&print::message(response, ""));
        }
        self.in_flight.extend(responses);
    }
}

/// The printed form of what is to be written before `held` may leave.
fn append_work(id: u64, ready: &Ready, held: Vec<Message>) -> Option<Message> {
    let writes = !ready.entries.is_empty() || ready.hard_state.is_some() || ready.snapshot.is_some();
    if !writes && held.is_empty() {
        return None;
    }
    let append = StorageAppend {
        entries: ready.entries.to_vec(),
        hard_state: ready.hard_state,
        snapshot: ready.snapshot.clone(),
        responses: held,
    };
    let body = Body::StorageAppend(Box::new(append));
    Some(Message { from: ReplicaId(id), to: ReplicaId::APPEND_THREAD, term: Term::NONE, body })
}

/// The printed form of what is to be applied.
fn apply_work(id: u64, ready: &Ready) -> Option<Message> {
    if ready.committed_entries.is_empty() {
        return None;
    }
    let entries = ready.committed_entries.to_vec();
    let done = Body::StorageApplyResp { entries: entries.clone() };
    let done = Message { from: ReplicaId::APPLY_THREAD, to: ReplicaId(id), term: Term::NONE, body: done };
    let body = Body::StorageApply { entries, responses: vec![done] };
    Some(Message { from: ReplicaId(id), to: ReplicaId::APPLY_THREAD, term: Term::NONE, body })
}
