//! Is a history of concurrent calls linearizable? (Wing and Gong's search with Lowe's memory of visited states.)
//!
//! A call whose outcome is not known may take effect at any time after it began, or never. Keys that no call names
//! together are checked apart (locality). What can be moved within an order without harm is tried in one place only:
//! a call whose answer says that it changed nothing comes as early as it may; of calls alike the one that began and ended
//! before comes first; a call of unknown outcome is tried after all others, and only where it changes something that the
//! next call shows. Who came to the same state by the same answered calls with fewer of unknown outcome can do all that the
//! other can, who is given up.
//! Values that nobody saw count as one value, which makes their writes alike. A first, hasty try looks only for orders in
//! which changes come as they ended.
//! Leaves to others: recording histories with times that nobody doubts.
//! Invariant: `Ok` and `Violation` are proofs; what did not fit into the budget is `Unknown`, never `Ok`.

use super::kv::{KvOp, KvRet, Map};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;

/// A sequential specification.
pub trait Model {
    /// What it remembers.
    type State: Clone + Eq + Hash;
    /// What is called.
    type Op: PartialEq;
    /// What is answered.
    type Ret: PartialEq;
    /// Before the first call.
    fn initial(&self) -> Self::State;
    /// Carries out one call.
    fn step(&self, state: &mut Self::State, op: &Self::Op) -> Self::Ret;
    /// Does this answer say that the call changed nothing, in whatever state it was carried out?
    fn is_pure(&self, op: &Self::Op, ret: &Self::Ret) -> bool;
}

/// One call of a history. Times are any numbers that grow; equal ones count as overlapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<O, R> {
    /// What was called.
    pub op: O,
    /// When it began.
    pub began: u64,
    /// When it ended and what it answered; `None`: the outcome is not known.
    pub ended: Option<(u64, R)>,
}

/// Outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order of all calls explains every answer.
    Ok,
    /// No order does. The most calls (by place in the history) that some order explains.
    Violation(Vec<usize>),
    /// The budget of steps was used up.
    Unknown,
}

/// Checks a history against a model in at most `budget` steps, and an eighth of it for a first, hasty try.
#[must_use]
pub fn check<M: Model>(model: &M, history: &[Call<M::Op, M::Ret>], budget: u64) -> Verdict {
    // Most changes that overlap were made in the order in which they ended. Where dozens do, and the fault lies elsewhere
    // (a call of unknown outcome was taken for another), their other orders alone would use any budget up.
    let hasty = Search { haste: true, ..Search::new(model, history) };
    match hasty.run(budget / 8) {
        Verdict::Ok => Verdict::Ok,
        _ => Search::new(model, history).run(budget),
    }
}

/// No neighbour.
const NONE: usize = usize::MAX;

/// A moment in the history: a call begins or ends.
#[derive(Clone, Copy)]
struct Event {
    /// Which call.
    call: usize,
    /// Where the end of the call is, if this is its begin and it has an end.
    end: usize,
    /// Begin?
    begins: bool,
}

/// Where the scan for the next call of an order stands.
#[derive(Clone, Copy)]
struct Scan {
    /// The event to look at.
    at: usize,
    /// Which calls are looked at.
    look: Look,
}

/// Which calls may come next in the order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The one that ends first.
    FirstEnd,
    /// Those with an answer; in haste only those that changed nothing.
    Answered,
    /// Those of unknown outcome.
    Unknown,
}

/// A call in the order found so far.
struct Placed<S> {
    /// Where it begins.
    at: usize,
    /// State before it.
    before: S,
    /// As what it was looked at.
    look: Look,
    /// If any order from here on serves, then one that begins with this call does: no other is tried in its place.
    forced: bool,
}

/// A set of calls.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Calls(Box<[u64]>);

impl Calls {
    fn none(of: usize) -> Calls {
        Calls(vec![0; of.div_ceil(64)].into())
    }

    fn has(&self, call: usize) -> bool {
        self.0[call / 64] & (1 << (call % 64)) != 0
    }

    fn flip(&mut self, call: usize) {
        self.0[call / 64] ^= 1 << (call % 64);
    }

    fn is_part_of(&self, other: &Calls) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own & !other == 0)
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Call<M::Op, M::Ret>],
    /// In order of time; place 0 is the head of the list of what is left.
    events: Vec<Event>,
    /// Place of each call's begin.
    begin_of: Vec<usize>,
    /// Only orders are looked for in which changes come as they end.
    haste: bool,
    next: Vec<usize>,
    prev: Vec<usize>,
    /// Calls with an end that have no place in the order yet.
    left: usize,
    /// Which calls with an answer have a place.
    answered: Calls,
    /// Which calls of unknown outcome have one.
    guessed: Calls,
    /// For each call the last one alike that began before it, and ended no later.
    alike: Vec<usize>,
    /// The order found so far.
    order: Vec<Placed<M::State>>,
    /// What was tried already: by answered calls placed and state, the guessed ones, of which none is part of another.
    visited: HashMap<(Calls, M::State), Vec<Calls>>,
    /// The longest order met.
    best: Vec<usize>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Call<M::Op, M::Ret>]) -> Search<'a, M> {
        let mut times: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * history.len());
        for (at, call) in history.iter().enumerate() {
            times.push((call.began, false, at));
            times.extend(call.ended.as_ref().map(|(end, _)| (*end, true, at)));
        }
        times.sort_unstable(); // at equal times begins come first: overlapping
        let head = Event { call: NONE, end: NONE, begins: false };
        let mut events = vec![head];
        events.extend(times.iter().map(|(_, ends, call)| Event { call: *call, end: NONE, begins: !ends }));
        let mut begin_of = vec![0; history.len()];
        for at in 1..events.len() {
            let Event { call, begins, .. } = events[at];
            if begins {
                begin_of[call] = at;
            } else {
                events[begin_of[call]].end = at;
            }
        }
        let n = events.len();
        Search {
            model,
            history,
            next: (1..n).chain([NONE]).collect(),
            prev: std::iter::once(NONE).chain(0..n - 1).collect(),
            events,
            begin_of,
            haste: false,
            left: history.iter().filter(|c| c.ended.is_some()).count(),
            answered: Calls::none(history.len()),
            guessed: Calls::none(history.len()),
            alike: alike(history, times.iter().filter(|t| !t.1).map(|t| t.2)),
            order: Vec::new(),
            visited: HashMap::new(),
            best: Vec::new(),
        }
    }

    fn run(mut self, budget: u64) -> Verdict {
        let mut state = self.model.initial();
        let mut scan = self.front();
        for _ in 0..budget {
            if self.left == 0 {
                return Verdict::Ok;
            }
            if scan.at != NONE && self.events[scan.at].begins {
                scan = match self.try_place(scan, &state) {
                    Some(after) => {
                        state = after;
                        self.front()
                    }
                    None => self.after(scan),
                };
            } else if scan.look != Look::Unknown {
                scan = Scan { at: self.next[0], look: Look::Unknown };
            } else {
                // The first end of a call without a place, or nothing left: the order so far leads nowhere.
                let Some(last) = self.take_back() else {
                    return Verdict::Violation(self.best);
                };
                state = last.before;
                scan = self.after(Scan { at: last.at, look: last.look });
            }
        }
        Verdict::Unknown
    }

    fn front(&self) -> Scan {
        let mut at = self.next[0];
        while at != NONE && self.events[at].begins {
            at = self.next[at];
        }
        match at {
            NONE => Scan { at: self.next[0], look: Look::Answered },
            end => Scan { at: self.begin_of[self.events[end].call], look: Look::FirstEnd },
        }
    }

    /// Where to look next if the call there does not serve.
    fn after(&self, scan: Scan) -> Scan {
        match scan.look {
            Look::FirstEnd => Scan { at: self.next[0], look: Look::Answered },
            look => Scan { at: self.next[scan.at], look },
        }
    }

    /// Places the call that begins there, if it is of the wanted sort, its answer fits and this was not tried before.
    fn try_place(&mut self, scan: Scan, state: &M::State) -> Option<M::State> {
        let Event { call, end, .. } = self.events[scan.at];
        let waits_for = self.alike[call];
        let unknown = scan.look == Look::Unknown;
        if unknown != (end == NONE) || (waits_for != NONE && !self.set_of(unknown).has(waits_for)) {
            return None;
        }
        let Call { op, ended, .. } = &self.history[call];
        let mut after = state.clone();
        let answer = self.model.step(&mut after, op);
        let fits = ended.as_ref().map_or(after != *state, |(_, seen)| *seen == answer);
        if !fits || self.is_last_needless(op, &after, &answer) {
            return None;
        }
        let forced = ended.is_some() && self.model.is_pure(op, &answer);
        if self.haste && scan.look == Look::Answered && !forced {
            return None;
        }
        self.set_of(unknown).flip(call);
        if !forced && !self.visit(&after) {
            self.set_of(unknown).flip(call);
            return None;
        }
        self.order.push(Placed { at: scan.at, before: state.clone(), look: scan.look, forced });
        self.unlink(scan.at);
        if end != NONE {
            self.unlink(end);
            self.left -= 1;
        }
        if self.order.len() > self.best.len() {
            self.best = self.order.iter().map(|p| self.events[p.at].call).collect();
        }
        Some(after)
    }

    /// Is the last call in the order one of unknown outcome without which this call does and answers the same?
    fn is_last_needless(&self, op: &M::Op, after: &M::State, answer: &M::Ret) -> bool {
        let last = self.order.last().filter(|last| self.events[last.at].end == NONE);
        last.is_some_and(|last| {
            let mut without = last.before.clone();
            self.model.step(&mut without, op) == *answer && without == *after
        })
    }

    /// The calls with a place that are of unknown outcome, or those that are not. (Alike calls are of one sort.)
    fn set_of(&mut self, unknown: bool) -> &mut Calls {
        if unknown { &mut self.guessed } else { &mut self.answered }
    }

    /// Is it worth going on from here? Not if the same was tried with the same or fewer calls of unknown outcome.
    fn visit(&mut self, state: &M::State) -> bool {
        let tried = self.visited.entry((self.answered.clone(), state.clone())).or_default();
        if tried.iter().any(|t| t.is_part_of(&self.guessed)) {
            return false;
        }
        tried.retain(|t| !self.guessed.is_part_of(t));
        tried.push(self.guessed.clone());
        true
    }

    /// Takes back the last call that another might replace.
    fn take_back(&mut self) -> Option<Placed<M::State>> {
        while let Some(last) = self.order.pop() {
            self.put_back(last.at);
            if !last.forced {
                return Some(last);
            }
        }
        None
    }

    fn put_back(&mut self, at: usize) {
        let Event { call, end, .. } = self.events[at];
        self.set_of(end == NONE).flip(call);
        if end != NONE {
            self.link(end);
            self.left += 1;
        }
        self.link(at);
    }

    fn unlink(&mut self, at: usize) {
        let (prev, next) = (self.prev[at], self.next[at]);
        self.next[prev] = next;
        if next != NONE {
            self.prev[next] = prev;
        }
    }

    fn link(&mut self, at: usize) {
        let (prev, next) = (self.prev[at], self.next[at]);
        self.next[prev] = at;
        if next != NONE {
            self.prev[next] = at;
        }
    }
}

/// For each call the last one alike before it, of calls named in the order in which they began. Two are alike if they ask
/// and answer the same; if one began and ended (or is of unknown outcome as both are) no later than the other, then an
/// order in which it comes second stays one if the two change places.
fn alike<O: PartialEq, R: PartialEq>(history: &[Call<O, R>], begins: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut before = vec![NONE; history.len()];
    let mut begun: Vec<usize> = Vec::new();
    for at in begins {
        let call = &history[at];
        let comes_first = |other: &Call<O, R>| match (&other.ended, &call.ended) {
            (None, None) => other.op == call.op,
            (Some((end, ret)), Some((own_end, own_ret))) => end <= own_end && ret == own_ret && other.op == call.op,
            _ => false,
        };
        before[at] = begun.iter().rev().find(|c| comes_first(&history[**c])).copied().unwrap_or(NONE);
        begun.push(at);
    }
    before
}

/// The key-value commands as a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct KvModel;

impl Model for KvModel {
    type State = Map;
    type Op = KvOp;
    type Ret = KvRet;

    fn initial(&self) -> Map {
        Map::new()
    }

    fn step(&self, state: &mut Map, op: &KvOp) -> KvRet {
        op.apply(state)
    }

    fn is_pure(&self, op: &KvOp, ret: &KvRet) -> bool {
        match (op, ret) {
            (KvOp::Get(_), _) | (KvOp::PutIf(..), KvRet::Set(false)) | (_, KvRet::NotANumber) => true,
            (KvOp::Delete(_), KvRet::Number(n)) => *n == 0,
            _ => false,
        }
    }
}

/// One call of a key-value history.
pub type KvCall = Call<KvOp, KvRet>;

/// Outcome of checking a key-value history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvVerdict {
    /// Every part is linearizable.
    Ok,
    /// A part is not: its keys, its calls in order of time, and those that some order explains.
    Violation {
        /// Keys that are named together.
        keys: Vec<Bytes>,
        /// Their calls.
        calls: Vec<KvCall>,
        /// Places in `calls` of the longest order found.
        explained: Vec<usize>,
    },
    /// The budget of steps was used up for a part.
    Unknown {
        /// Its keys.
        keys: Vec<Bytes>,
    },
}

/// Checks a key-value history, keys that no call names together apart, `budget` steps for each part.
#[must_use]
pub fn check_kv(history: &[KvCall], budget: u64) -> KvVerdict {
    let mut unknown = None;
    for (keys, calls) in parts(history) {
        match check_part(&calls, budget) {
            Verdict::Ok => {}
            Verdict::Violation(explained) => return KvVerdict::Violation { keys, calls, explained },
            Verdict::Unknown => unknown = unknown.or(Some(keys)),
        }
    }
    unknown.map_or(KvVerdict::Ok, |keys| KvVerdict::Unknown { keys })
}

/// First without the calls of unknown outcome that left no trace: an order without them is an order. Then with all.
fn check_part(calls: &[KvCall], budget: u64) -> Verdict {
    let seen: BTreeSet<&Bytes> = calls.iter().flat_map(seen_values).collect();
    let is_seen = |value: &Bytes| {
        let next = seen.range::<Bytes, _>(value..).next();
        next.is_some_and(|v| v.starts_with(value))
    };
    let traced = |c: &&KvCall| match &c.op {
        _ if c.ended.is_some() => true,
        KvOp::Put(pairs) => pairs.iter().any(|p| is_seen(&p.1)),
        KvOp::PutIf(_, value, _) => is_seen(value),
        _ => false,
    };
    let calls = as_one_value(calls, is_seen);
    let likely: Vec<KvCall> = calls.iter().filter(traced).cloned().collect();
    match check(&KvModel, &likely, budget) {
        Verdict::Ok => Verdict::Ok,
        other if likely.len() == calls.len() => other,
        _ => check(&KvModel, &calls, budget),
    }
}

/// Writes the same value of that length wherever nobody saw what was written (of values only their length shows then).
fn as_one_value(calls: &[KvCall], is_seen: impl Fn(&Bytes) -> bool) -> Vec<KvCall> {
    let adds = calls.iter().any(|c| matches!(c.op, KvOp::Add(..))); // to which a number is more than its length
    let rename = |value: &mut Bytes| {
        let other = Bytes::from(vec![0xff; value.len()]);
        if !adds && !is_seen(value) && !is_seen(&other) {
            *value = other;
        }
    };
    let mut calls = calls.to_vec();
    for call in &mut calls {
        match &mut call.op {
            KvOp::Put(pairs) => pairs.iter_mut().for_each(|p| rename(&mut p.1)),
            KvOp::PutIf(_, value, _) => rename(value),
            _ => {}
        }
    }
    calls
}

/// Calls by groups of keys that are named together, each in order of time.
fn parts(history: &[KvCall]) -> Vec<(Vec<Bytes>, Vec<KvCall>)> {
    // Keys point to the representative of their group, itself at the end.
    let mut group: BTreeMap<&Bytes, &Bytes> = BTreeMap::new();
    fn find<'k>(group: &BTreeMap<&'k Bytes, &'k Bytes>, mut key: &'k Bytes) -> &'k Bytes {
        while let Some(up) = group.get(key)
            && *up != key
        {
            key = up;
        }
        key
    }
    for call in history {
        let keys = call.op.keys();
        for key in &keys {
            group.entry(key).or_insert(key);
            let (a, b) = (find(&group, keys[0]), find(&group, key));
            group.insert(b, a);
        }
    }
    let mut parts: BTreeMap<&Bytes, (Vec<Bytes>, Vec<KvCall>)> = BTreeMap::new();
    for key in group.keys() {
        parts.entry(find(&group, key)).or_default().0.push((*key).clone());
    }
    for call in history {
        if let Some(first) = call.op.keys().first() {
            parts.entry(find(&group, first)).or_default().1.push(call.clone());
        }
    }
    parts.into_values().map(|(keys, calls)| (keys, simplified(calls))).collect()
}

/// Leaves out what proves nothing: reads without an answer, and writes without an answer that nobody can have seen.
fn simplified(mut calls: Vec<KvCall>) -> Vec<KvCall> {
    calls.retain(|c| c.ended.is_some() || !c.op.is_read());
    calls.sort_by_key(|c| c.began);
    let plain = calls.iter().all(|c| matches!(c.op, KvOp::Get(_) | KvOp::Put(_)));
    if plain {
        let seen: HashSet<Bytes> = calls.iter().flat_map(|c| seen_values(c).cloned().collect::<Vec<_>>()).collect();
        calls.retain(|c| match &c.op {
            KvOp::Put(pairs) => c.ended.is_some() || pairs.iter().any(|p| seen.contains(&p.1)),
            _ => true,
        });
    }
    calls
}

fn seen_values(call: &KvCall) -> impl Iterator<Item = &Bytes> {
    let values = match &call.ended {
        Some((_, KvRet::Values(values))) => values.as_slice(),
        _ => &[],
    };
    values.iter().flatten()
}
