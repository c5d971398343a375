//! quorum/: committed indexes and votes of one or two majorities, with a picture (README 6).
//!
//! Every result is computed in other ways, too; a line is printed where they disagree, so a right core
//! shows none.

use crate::datadriven::{Directive, Runner};
use pontoon_raft::quorum::{INFINITE, VoteResult, joint, majority};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Answers `committed` and `vote`; has no state.
pub struct Quorum;

type Half = BTreeSet<u64>;
type Acks = BTreeMap<u64, u64>;

impl Runner for Quorum {
    fn run(&mut self, directive: &Directive) -> String {
        let half = |key| directive.arg(key).map(|a| a.values.clone());
        let ids = |values: &[String]| -> Vec<u64> { values.iter().map(|v| v.parse().unwrap()).collect() };
        let first = ids(&half("cfg").unwrap_or_default());
        let second = half("cfgj").map(|v| if v == ["zero"] { Vec::new() } else { ids(&v) });
        let mut order: Vec<u64> = Vec::new();
        for id in first.iter().chain(second.iter().flatten()) {
            if !order.contains(id) {
                order.push(*id);
            }
        }
        let key = if directive.command == "vote" { "votes" } else { "idx" };
        let values = half(key).unwrap_or_default();
        if values.len() != order.len() {
            return mismatch(order, &values);
        }
        let known = order.into_iter().zip(values).filter(|(_, v)| v != "_");
        let (first, second): (Half, Option<Half>) =
            (first.into_iter().collect(), second.map(|s| s.into_iter().collect()));
        match directive.command.as_str() {
            "committed" => committed(&first, second.as_ref(), &known.map(|(id, v)| (id, v.parse().unwrap())).collect()),
            "vote" => vote(&first, second.as_ref(), &known.map(|(id, v)| (id, v == "y")).collect()),
            other => panic!("unknown command {other}"),
        }
    }
}

/// Voters as Go prints a map, ascending; unknown is 0, a vote 2 for yes and 1 for no.
fn mismatch(mut voters: Vec<u64>, values: &[String]) -> String {
    voters.sort_unstable();
    let voters: Vec<String> = voters.iter().map(|id| format!("{id}:{{}}")).collect();
    let number = |v: &String| match v.as_str() {
        "y" => "2".to_owned(),
        "n" => "1".to_owned(),
        "_" => "0".to_owned(),
        index => index.to_owned(),
    };
    let values: Vec<String> = values.iter().map(number).collect();
    let (voters, values) = (voters.join(" "), values.join(" "));
    format!("error: mismatched input (explicit or _) for voters map[{voters}]: [{values}]")
}

fn committed(first: &Half, second: Option<&Half>, acks: &Acks) -> String {
    assert!(acks.values().all(|i| *i > 0), "0 is not an index");
    let Some(second) = second else {
        let result = reached(first, acks);
        let mut out = table(first, acks);
        out += &check_majority(first, acks, result);
        return out + &index(result) + "\n";
    };
    let both: Half = first.union(second).copied().collect();
    let result = joint_reached(first, second, acks);
    let swapped = joint_reached(second, first, acks);
    let mut out = table(&both, acks);
    if swapped != result {
        writeln!(out, "{} <-- via symmetry", index(swapped)).unwrap();
    }
    out + &index(result) + "\n"
}

fn vote(first: &Half, second: Option<&Half>, votes: &BTreeMap<u64, bool>) -> String {
    let half = |half: &Half| {
        let count = |answer| half.iter().filter(|id| votes.get(id) == Some(&answer)).count();
        majority::vote(count(true), count(false), half.len())
    };
    let Some(second) = second else { return format!("{}\n", vote_name(half(first))) };
    let (result, swapped) = (joint::vote(half(first), half(second)), joint::vote(half(second), half(first)));
    let symmetry = if swapped == result { String::new() } else { format!("{} <-- via symmetry\n", vote_name(swapped)) };
    format!("{symmetry}{}\n", vote_name(result))
}

fn values(half: &Half, acks: &Acks) -> Vec<u64> {
    half.iter().map(|id| acks.get(id).copied().unwrap_or(0)).collect()
}

fn reached(half: &Half, acks: &Acks) -> u64 {
    majority::reached(&mut values(half, acks))
}

fn joint_reached(first: &Half, second: &Half, acks: &Acks) -> u64 {
    joint::reached(&mut values(first, acks), &mut values(second, acks))
}

/// The same index in other ways.
fn check_majority(half: &Half, acks: &Acks, result: u64) -> String {
    let mut out = String::new();
    let others = [
        (counted(half, acks), "alternative computation"),
        (joint_reached(half, &Half::new(), acks), "zero-joint quorum"),
        (joint_reached(half, half, acks), "self-joint quorum"),
    ];
    for (other, how) in others {
        if other != result {
            writeln!(out, "{} <-- via {how}", index(other)).unwrap();
        }
    }
    for id in half {
        let Some(known) = acks.get(id).filter(|known| **known > 0 && **known < result) else { continue };
        for (lower, shown) in [(known - 1, *known), (0, 0)] {
            let mut lowered = acks.clone();
            lowered.insert(*id, lower);
            let other = reached(half, &lowered);
            if other != result {
                write!(out, "{} <-- overlaying {id}->{shown}", index(other)).unwrap();
            }
        }
    }
    out
}

/// Counts, per index, how many voters reached it.
fn counted(half: &Half, acks: &Acks) -> u64 {
    if half.is_empty() {
        return INFINITE;
    }
    let values = values(half, acks);
    let enough = |i: &u64| values.iter().filter(|v| **v >= *i).count() > half.len() / 2;
    values.iter().copied().filter(enough).max().unwrap_or(0)
}

fn table(voters: &Half, acks: &Acks) -> String {
    if voters.is_empty() {
        return "<empty majority quorum>".to_owned();
    }
    let n = voters.len();
    let mut sorted: Vec<(u64, u64)> = voters.iter().map(|id| (acks.get(id).copied().unwrap_or(0), *id)).collect();
    sorted.sort_unstable();
    let mut bars = BTreeMap::new();
    let mut bar = 0;
    for (at, (index, id)) in sorted.iter().enumerate() {
        if at > 0 && *index > sorted[at - 1].0 {
            bar = at;
        }
        bars.insert(*id, bar);
    }
    let mut out = format!("{}    idx\n", " ".repeat(n));
    for id in voters {
        let (known, bar) = (acks.get(id), bars[id]);
        match known {
            Some(_) => write!(out, "{}>{}", "x".repeat(bar), " ".repeat(n - bar)).unwrap(),
            None => write!(out, "?{}", " ".repeat(n)).unwrap(),
        }
        writeln!(out, " {:>5}    (id={id:x})", known.copied().unwrap_or(0)).unwrap();
    }
    out
}

fn index(index: u64) -> String {
    if index == INFINITE { "∞".to_owned() } else { index.to_string() }
}

fn vote_name(result: VoteResult) -> &'static str {
    match result {
        VoteResult::Pending => "VotePending",
        VoteResult::Lost => "VoteLost",
        VoteResult::Won => "VoteWon",
    }
}
