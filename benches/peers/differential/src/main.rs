//! Pontoon's core and raft-rs 0.7 through the same scenarios, compared at each quiet point.
//!
//! `cargo run --release -p pontoon-differential -- [--seeds 1000] [--first 0] [--steps 120] [--tell]`, in `benches/peers`.
//! Compared: each member's role, leader, term, vote, commit index, membership and list of applied entries; and the vote
//! requests and answers sent since the last quiet point, message for message. raft-rs's known differences are
//! named in `judge`. Invariant: the same command line gives the same run.
#![allow(clippy::print_stdout)]

mod group;
mod ours;
mod peer;
mod scenario;
mod theirs;

use group::Group;
use ours::Ours;
use peer::{Member, State, Vote};
use scenario::{Action, Dice, MEMBERS};
use theirs::Theirs;

/// What the runs did, so that nobody believes an idle one.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    quiet_points: u64,
    votes: usize,
    committed: usize,
    changes: usize,
    terms: u64,
    /// See `judge`.
    committed_by_vote: u64,
}

struct Pair {
    ours: Group<Ours>,
    theirs: Group<Theirs>,
    proposals: u64,
}

fn main() {
    let arg = |name: &str, default: u64| {
        let mut args = std::env::args().skip_while(|a| a != name);
        args.nth(1).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seeds, first, steps) = (arg("--seeds", 1_000), arg("--first", 0), arg("--steps", 120));
    let tell = std::env::args().any(|a| a == "--tell");
    let (mut tally, mut failed) = (Tally::default(), 0);
    for seed in first..first + seeds {
        if let Err(why) = run(seed, steps, tell, &mut tally) {
            println!("seed {seed}: {why}");
            failed += 1;
        }
    }
    println!("{tally:?}");
    println!("{} passed, {failed} failed", seeds - failed);
    std::process::exit(i32::from(failed > 0));
}

fn run(seed: u64, steps: u64, tell: bool, tally: &mut Tally) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let (voters, timeouts) = ([1, 2, 3, 3, 5][dice.below(5) as usize], dice.timeouts());
    let (ours, theirs) = (Group::new(MEMBERS, voters, &timeouts), Group::new(MEMBERS, voters, &timeouts));
    let mut pair = Pair { ours, theirs, proposals: 0 };
    tally.runs += 1;
    for step in 0..steps {
        let states = states(&mut pair.ours);
        let action = dice.action(&states);
        if tell {
            println!("{step}: {action:?}");
        }
        let outcome = pair
            .act(&action)
            .and_then(|()| pair.quiet_point(tally))
            .map_err(|why| format!("step {step}, {action:?}: {why}"));
        if tell {
            (1..=MEMBERS as u64).for_each(|id| println!("  {id}: {}", pair.both(id)));
        }
        outcome?;
    }
    let end = pair.ours.member(1).applied();
    tally.committed += end.len();
    tally.changes += end.iter().filter(|a| a.what.starts_with("change")).count();
    tally.terms += states(&mut pair.ours).iter().map(|s| s.term).max().unwrap_or(0);
    Ok(())
}

fn states<P: Member>(group: &mut Group<P>) -> Vec<State> {
    (1..=MEMBERS as u64).map(|id| group.member(id).state()).collect()
}

impl Pair {
    /// On both sides. An error: one took it, the other did not.
    fn act(&mut self, action: &Action) -> Result<(), String> {
        if let Action::Propose(at, count) = action {
            for _ in 0..*count {
                self.proposals += 1;
                let data = format!("p{}", self.proposals).into_bytes();
                same(self.ours.call(*at, |m| m.propose(data.clone())), self.theirs.call(*at, |m| m.propose(data)))?;
            }
        } else {
            same(carry_out(&mut self.ours, action), carry_out(&mut self.theirs, action))?;
        }
        self.ours.settle();
        self.theirs.settle();
        Ok(())
    }

    /// Rounds of heartbeats until they bring nothing new to either side; then both must look alike.
    fn quiet_point(&mut self, tally: &mut Tally) -> Result<(), String> {
        for round in 0.. {
            let before = self.commits();
            self.ours.tick();
            self.theirs.tick();
            if round > 0 && self.commits() == before {
                break;
            }
        }
        tally.quiet_points += 1;
        self.compare_votes(tally)?;
        for id in 1..=MEMBERS as u64 {
            self.judge(id, tally).map_err(|why| format!("member {id}: {why}"))?;
        }
        Ok(())
    }

    /// One member of both sides, once if it looks alike.
    fn both(&mut self, id: u64) -> String {
        let (a, b) = (self.ours.member(id).state(), self.theirs.member(id).state());
        if a == b { a.to_string() } else { format!("{a} ours | {b} theirs") }
    }

    fn commits(&mut self) -> Vec<u64> {
        let (ours, theirs) = (states(&mut self.ours), states(&mut self.theirs));
        ours.iter().chain(&theirs).map(|s| s.commit).collect()
    }

    fn compare_votes(&mut self, tally: &mut Tally) -> Result<(), String> {
        let (mut a, mut b) = (std::mem::take(&mut self.ours.votes), std::mem::take(&mut self.theirs.votes));
        a.sort();
        b.sort();
        tally.votes += a.len();
        if a == b {
            return Ok(());
        }
        let (ours, theirs) = (only(&a, &b), only(&b, &a));
        Err(format!("{} votes ours, {} theirs; only ours {ours:?}; only theirs {theirs:?}", a.len(), b.len()))
    }

    /// raft-rs sends the commit index with vote requests and refusals, and a member without a leader takes it over
    /// (`maybe_commit_by_vote`): such a member may be ahead of ours, by a list that ours is the beginning of, and a
    /// candidate that learns of a membership change so steps down.
    fn judge(&mut self, id: u64, tally: &mut Tally) -> Result<(), String> {
        let (ours, theirs) = (self.ours.member(id), self.theirs.member(id));
        let (mut a, b) = (ours.state(), theirs.state());
        let (list, other) = (ours.applied(), theirs.applied());
        if a.leader == 0 && b.leader == 0 && b.commit > a.commit && other.starts_with(list) {
            (a.commit, a.membership, a.role) = (b.commit, b.membership.clone(), b.role.clone());
            tally.committed_by_vote += 1;
        } else if list != other {
            let at = list.iter().zip(other.iter()).take_while(|(x, y)| x == y).count();
            return Err(format!("applied {:?} ours, {:?} theirs, at {at}: {a:?} / {b:?}", list.get(at), other.get(at)));
        }
        if a == b { Ok(()) } else { Err(format!("\n  ours   {a:?}\n  theirs {b:?}")) }
    }
}

fn only<'a>(these: &'a [Vote], those: &[Vote]) -> Vec<&'a Vote> {
    these.iter().filter(|v| !those.contains(v)).collect()
}

fn same(ours: bool, theirs: bool) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("taken: {ours} ours, {theirs} theirs")) }
}

/// Whether the core took it.
fn carry_out<P: Member>(group: &mut Group<P>, action: &Action) -> bool {
    match action {
        Action::Campaign(at) => group.call(*at, P::campaign),
        Action::Change(at, change) => return group.call(*at, |m| m.change(change)),
        Action::Transfer(at, to) => group.call(*at, |m| m.transfer(*to)),
        Action::Restart(at) => group.restart(*at),
        Action::Compact(at) => group.call(*at, P::compact),
        Action::Part(aside) => group.part(aside),
        Action::Ticks(count, timeouts) => {
            group.set_timeouts(timeouts);
            (0..*count).for_each(|_| group.tick());
        }
        Action::Propose(..) => unreachable!("carried out entry by entry"),
    }
    true
}
