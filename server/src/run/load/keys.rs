//! The keys of one client: which one is next, and what each must hold.
//!
//! A key has one operation at a time, so that its value is known without a checker. Stamps grow, from the time of the start on:
//! an older one is what an earlier run left. Invariant: a key whose last write has an unknown outcome is not used again.

use crate::client::Value;
use crate::shards::{Shards, slot_of};

/// Digits of a stamp: microseconds since 1970 have 16 until the year 2286.
const DIGITS: usize = 16;

/// A key and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: Vec<u8>,
    pub(super) slot: u16,
    group: usize,
    /// Stamp of the last acknowledged write.
    acked: Option<u64>,
    /// Stamp of a later one, of unknown outcome.
    unknown: Option<u64>,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// By group: those without an operation.
    free: Vec<Vec<usize>>,
    /// By group: how likely it and those before it are chosen, summed up.
    weights: Vec<f64>,
    rng: u64,
    first_stamp: u64,
    stamp: u64,
    /// Reads that answered something else than what was acknowledged.
    wrong: Vec<String>,
}

impl Keys {
    /// `names` of this client alone; `zipf` as the exponent over groups; stamps from `stamp` on.
    pub(super) fn new(names: impl Iterator<Item = String>, shards: &Shards, zipf: Option<f64>, stamp: u64) -> Keys {
        let groups = usize::from(shards.count());
        let mut free = vec![Vec::new(); groups];
        let keys: Vec<Key> = names
            .map(|name| {
                let slot = slot_of(name.as_bytes());
                let group = shards.group_of(slot).0 as usize - 1;
                Key { name: name.into_bytes(), slot, group, acked: None, unknown: None }
            })
            .collect();
        keys.iter().enumerate().for_each(|(at, key)| free[key.group].push(at));
        let weight = |rank: usize| (rank as f64 + 1.0).powf(-zipf.unwrap_or(0.0));
        let weights = (0..groups)
            .scan(0.0, |sum, rank| {
                *sum += weight(rank);
                Some(*sum)
            })
            .collect();
        Keys { keys, free, weights, rng: stamp | 1, first_stamp: stamp, stamp, wrong: Vec::new() }
    }

    /// A key without an operation, of the group that is drawn or the next one that has one. `None`: all are in use.
    pub(super) fn take(&mut self) -> Option<usize> {
        let drawn = self.uniform() * self.weights.last().copied().unwrap_or_default();
        let first = self.weights.partition_point(|w| *w <= drawn);
        let groups = self.free.len();
        (0..groups).find_map(|step| self.free[(first + step) % groups].pop())
    }

    /// Evenly from 0 to 1.
    pub(super) fn uniform(&mut self) -> f64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn key(&self, at: usize) -> &Key {
        &self.keys[at]
    }

    /// The stamp of a new write.
    pub(super) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// A write was acknowledged.
    pub(super) fn on_written(&mut self, at: usize, stamp: u64) {
        self.keys[at].acked = Some(stamp);
        self.give_back(at);
    }

    /// A write may have happened, or may happen yet.
    pub(super) fn on_unknown(&mut self, at: usize, stamp: u64) {
        self.keys[at].unknown = Some(stamp);
    }

    /// A read was answered.
    pub(super) fn on_read(&mut self, at: usize, value: &Value) {
        let problem = self.judge(&self.keys[at], value);
        self.wrong.extend(problem);
        self.give_back(at);
    }

    /// An operation left no trace.
    pub(super) fn give_back(&mut self, at: usize) {
        let group = self.keys[at].group;
        self.free[group].push(at);
    }

    /// What is wrong with a value, if anything.
    pub(super) fn judge(&self, key: &Key, value: &Value) -> Option<String> {
        let found = match value {
            Value::Nil => None,
            Value::Bulk(value) => stamp_of(value).filter(|stamp| *stamp > self.first_stamp),
            other => return Some(format!("{}: cannot be read: {other:?}", key.name.escape_ascii())),
        };
        let allowed = found == key.acked || (found.is_some() && found == key.unknown);
        let must = || format!("acknowledged {:?}, of unknown outcome {:?}", key.acked, key.unknown);
        (!allowed).then(|| format!("{}: holds {found:?}, {}", key.name.escape_ascii(), must()))
    }

    /// Those that were written to.
    pub(super) fn written(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(|key| key.acked.is_some() || key.unknown.is_some())
    }

    /// What reads found wrong while the load ran.
    pub(super) fn wrong(&self) -> &[String] {
        &self.wrong
    }
}

/// A value of `bytes` bytes that tells its stamp.
pub(super) fn value(stamp: u64, bytes: usize) -> Vec<u8> {
    let mut out = format!("{stamp:0DIGITS$}").into_bytes();
    out.resize(bytes.max(DIGITS), b'.');
    out
}

fn stamp_of(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value.get(..DIGITS)?).ok()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn keys(n: u32, zipf: Option<f64>) -> Keys {
        let names = (0..n).map(|n| format!("key:{n}"));
        Keys::new(names, &Shards::new(4).unwrap(), zipf, 1_000_000_000_000_000)
    }

    fn held(stamp: u64) -> Value {
        Value::Bulk(value(stamp, 32).into())
    }

    #[test]
    fn a_key_holds_what_was_acknowledged_last_or_a_later_unknown_write() {
        let mut keys = keys(1, None);
        let at = keys.take().unwrap();
        let judge = |keys: &Keys, value: &Value| keys.judge(keys.key(at), value);
        assert_eq!(judge(&keys, &Value::Nil), None);
        assert_eq!(judge(&keys, &held(7)), None, "an earlier run's");
        let (one, two) = (keys.next_stamp(), keys.next_stamp());
        keys.on_written(at, one);
        assert_eq!(judge(&keys, &held(one)), None);
        assert!(judge(&keys, &Value::Nil).is_some() && judge(&keys, &held(7)).is_some(), "lost");
        assert_eq!(keys.take(), Some(at));
        keys.on_unknown(at, two);
        assert!([one, two].iter().all(|stamp| judge(&keys, &held(*stamp)).is_none()));
        assert!(judge(&keys, &held(two + 1)).is_some(), "never written");
        assert_eq!(keys.take(), None, "its next value could not be known");
    }

    #[test]
    fn a_key_has_one_operation_at_a_time_and_groups_share_as_asked() {
        let mut keys = keys(4_096, Some(2.0));
        let drawn: Vec<usize> = (0..500).map(|_| keys.take().unwrap()).collect();
        let of_first = drawn.iter().filter(|at| keys.keys[**at].group == 0).count();
        assert!((300..400).contains(&of_first), "1 of 1 + 1/4 + 1/9 + 1/16: {of_first}");
        let rest = std::iter::from_fn(|| keys.take());
        let mut all: Vec<usize> = drawn.iter().copied().chain(rest).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..4_096));
    }
}
