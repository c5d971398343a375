//! Breadth first through all states of a scope.
//!
//! Leaves to others: what a replica does (`node`), whether it was right (`judge`).
//! Nodes and messages are kept once each and numbered; what a node does with an input is computed once. So a state is a
//! few numbers, and most steps are look-ups.
//! Invariant: no state is judged twice; the first violation found takes the fewest steps.

use super::judge::{Facts, is_dead, judge};
use super::mix::{Build, Seen, of_bytes};
use super::node::{Input, Node};
use super::scopes::{Budget, Scope, Size};
use super::state::{Committed, NODES, State, TERMS};
use pontoon_raft::*;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a search ended.
#[derive(Debug)]
pub struct Report {
    /// Distinct states.
    pub states: usize,
    pub steps: u64,
    /// Distinct states of one replica, and distinct messages.
    pub nodes: usize,
    pub messages: usize,
    /// Steps from the start to the farthest state.
    pub depth: usize,
    /// Was every state within the bound visited?
    pub exhausted: bool,
    /// What was broken, and the steps that lead there.
    pub violation: Option<String>,
}

/// What a node makes of an input.
struct Outcome {
    node: u32,
    messages: Vec<u32>,
    reads: Vec<(u8, Index)>,
    commits: Vec<(Index, ConfState)>,
}

/// How a state was reached.
struct Step {
    parent: u32,
    at: u8,
    input: Input,
}

struct Explorer<'a> {
    scope: &'a Scope,
    max_term: Term,
    changes: Vec<ConfChangeV2>,
    nodes: Vec<Node>,
    facts: Vec<Facts>,
    node_numbers: HashMap<u64, u32, Build>,
    messages: Vec<Message>,
    message_numbers: HashMap<Message, u32, Build>,
    outcomes: HashMap<(u32, Input), Outcome, Build>,
    seen: Seen,
    steps: Vec<Step>,
    count: u64,
}

/// States of one depth, encoded one behind the other, each with its number.
#[derive(Default)]
struct Level {
    bytes: Vec<u8>,
    ends: Vec<(usize, u32)>,
}

/// Visits every state of `scope`, up to `limit` states.
pub fn explore(scope: &Scope, size: Size, limit: usize) -> Report {
    let mut explorer = Explorer::new(scope, size);
    let mut depth = 0;
    let result = explorer.run(size, limit, &mut depth);
    Report {
        states: explorer.seen.len(),
        steps: explorer.count,
        nodes: explorer.nodes.len(),
        messages: explorer.messages.len(),
        depth,
        exhausted: result == Ok(true),
        violation: result.err(),
    }
}

impl<'a> Explorer<'a> {
    fn new(scope: &'a Scope, size: Size) -> Explorer<'a> {
        Explorer {
            scope,
            max_term: scope.max_term(size),
            changes: scope.changes(),
            nodes: Vec::new(),
            facts: Vec::new(),
            node_numbers: HashMap::default(),
            messages: Vec::new(),
            message_numbers: HashMap::default(),
            outcomes: HashMap::default(),
            seen: Seen::default(),
            steps: Vec::new(),
            count: 0,
        }
    }

    fn start(&mut self, size: Size) -> State {
        let nodes = self.scope.nodes().map(|node| self.number_node(node));
        let applied = nodes.iter().map(|n| self.facts[*n as usize].applied).max().unwrap_or_default();
        State {
            nodes,
            left: self.scope.budgets(size),
            leaders: [0; TERMS],
            soup: Vec::new(),
            committed: vec![Committed { term: 1, by: 1 }; applied.0 as usize],
            floors: Vec::new(),
        }
    }

    /// True if everything was visited.
    fn run(&mut self, size: Size, limit: usize, depth: &mut usize) -> Result<bool, String> {
        let (mut level, mut next, mut buffer) = (Level::default(), Level::default(), Vec::new());
        let start = self.start(size);
        self.push(&start, Step { parent: 0, at: 0, input: Input::Persist }, &mut level, &mut buffer);
        while !level.ends.is_empty() {
            let mut begin = 0;
            for (end, number) in std::mem::take(&mut level.ends) {
                let state = State::decode(&level.bytes[begin..end]);
                begin = end;
                self.expand(&state, number, &mut next, &mut buffer)?;
            }
            *depth += 1;
            level.bytes.clear();
            std::mem::swap(&mut level, &mut next);
            if self.seen.len() >= limit {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn push(&mut self, state: &State, step: Step, level: &mut Level, buffer: &mut Vec<u8>) {
        state.encode(buffer);
        if self.seen.insert(of_bytes(buffer)) {
            level.bytes.extend_from_slice(buffer);
            level.ends.push((level.bytes.len(), self.steps.len() as u32));
            self.steps.push(step);
        }
    }

    fn expand(&mut self, state: &State, number: u32, next: &mut Level, buffer: &mut Vec<u8>) -> Result<(), String> {
        for (at, input, budget) in self.inputs(state) {
            self.count += 1;
            let step = Step { parent: number, at: at as u8, input };
            let after = catch_unwind(AssertUnwindSafe(|| self.follow(state, at, input, budget)));
            match after {
                Ok(Some(after)) => self.push(&after, step, next, buffer),
                Ok(None) => {}
                Err(panic) => return Err(self.story(&step, panic.as_ref())),
            }
        }
        Ok(())
    }

    /// The state behind a step; none if nothing changes, or the bound is passed.
    fn follow(&mut self, state: &State, at: usize, input: Input, budget: Option<Budget>) -> Option<State> {
        let before = state.nodes[at];
        self.compute(before, input);
        let outcome = &self.outcomes[&(before, input)];
        let repeats = budget == Some(Budget::Repeat);
        let idle = outcome.node == before && outcome.messages.is_empty() && outcome.reads.is_empty();
        let facts = &self.facts[outcome.node as usize];
        if idle || facts.basic.term > self.max_term {
            return None;
        }
        let mut after = state.clone();
        after.nodes[at] = outcome.node;
        if let Some(budget) = budget {
            after.left[budget as usize] -= 1;
        }
        if let Input::Deliver(m) = input
            && !repeats
        {
            let place = after.soup.binary_search(&m).unwrap();
            after.soup.remove(place);
        }
        if matches!(input, Input::Read(_)) {
            after.floors.push(after.last_committed().0 as u8);
        }
        after.soup.extend_from_slice(&outcome.messages);
        for (number, index) in &outcome.reads {
            let floor = u64::from(after.floors[usize::from(*number)]);
            assert!(index.0 >= floor, "stale read: {floor} was committed before, answered {index}");
        }
        let all: [&Facts; NODES] = std::array::from_fn(|n| &self.facts[after.nodes[n] as usize]);
        let crashed = matches!(input, Input::Crash(_));
        judge(&mut after, at, &self.facts[before as usize], &all, &outcome.commits, crashed);
        let listens = |m: &u32| {
            let m = &self.messages[*m as usize];
            !is_dead(m, all[m.to.0 as usize - 1])
        };
        after.soup.retain(listens);
        after.soup.sort_unstable();
        Some(after)
    }

    fn compute(&mut self, node: u32, input: Input) {
        if self.outcomes.contains_key(&(node, input)) {
            return;
        }
        let mut after = self.nodes[node as usize].clone();
        let message = match input {
            Input::Deliver(m) => Some(&self.messages[m as usize]),
            _ => None,
        };
        let output = after.take(input, message, &self.changes);
        let messages = output.messages.into_iter().map(|m| self.number_message(m)).collect();
        let outcome = Outcome { node: self.number_node(after), messages, reads: output.reads, commits: output.commits };
        self.outcomes.insert((node, input), outcome);
    }

    fn number_node(&mut self, node: Node) -> u32 {
        let next = self.nodes.len() as u32;
        let number = *self.node_numbers.entry(node.fingerprint()).or_insert(next);
        if number == next {
            let id = node.raw.basic_status().id.0;
            self.facts.push(Facts::of(&node, &self.scope.config(id)));
            self.nodes.push(node);
        }
        number
    }

    fn number_message(&mut self, m: Message) -> u32 {
        let next = self.messages.len() as u32;
        let number = *self.message_numbers.entry(m.clone()).or_insert(next);
        if number == next {
            self.messages.push(m);
        }
        number
    }

    /// Everything that may happen in `state`.
    fn inputs(&self, state: &State) -> Vec<(usize, Input, Option<Budget>)> {
        let mut inputs = Vec::with_capacity(16);
        let left = |budget: Budget| state.left[budget as usize] > 0;
        let mut last = None;
        for m in state.soup.iter().copied() {
            let to = self.messages[m as usize].to.0 as usize - 1;
            if last != Some(m) {
                inputs.push((to, Input::Deliver(m), None));
                if left(Budget::Repeat) {
                    inputs.push((to, Input::Deliver(m), Some(Budget::Repeat)));
                }
            }
            last = Some(m);
        }
        for at in 0..NODES {
            self.inputs_of(state, at, &mut inputs);
        }
        inputs
    }

    fn inputs_of(&self, state: &State, at: usize, inputs: &mut Vec<(usize, Input, Option<Budget>)>) {
        let facts = &self.facts[state.nodes[at] as usize];
        let leads = facts.basic.role == StateRole::Leader;
        let mut add = |input, budget: Budget| {
            if state.left[budget as usize] > 0 {
                inputs.push((at, input, Some(budget)));
            }
        };
        if self.scope.campaigners >> facts.id.0 & 1 == 1 && !leads {
            add(Input::Campaign, Budget::Campaign);
        }
        add(Input::Read(state.floors.len() as u8), Budget::Read);
        (0..=facts.writes).for_each(|keep| add(Input::Crash(keep as u8), Budget::Crash));
        if leads {
            add(Input::Propose(state.left[Budget::Propose as usize]), Budget::Propose);
            let change = self.changes.len() as u8 - state.left[Budget::Change as usize].min(self.changes.len() as u8);
            add(Input::Change(change), Budget::Change);
            for peer in (1..=NODES as u8).filter(|peer| u64::from(*peer) != facts.id.0) {
                add(Input::Transfer(peer), Budget::Transfer);
                add(Input::Report(peer, true), Budget::Report);
                add(Input::Report(peer, false), Budget::Report);
            }
        } else {
            add(Input::Forget, Budget::Forget);
        }
        if facts.applied > facts.view.base {
            add(Input::Compact, Budget::Compact);
        }
        if facts.writes > 0 {
            inputs.push((at, Input::Persist, None));
        }
    }

    fn story(&self, last: &Step, panic: &(dyn std::any::Any + Send)) -> String {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
        let mut lines = vec![text, self.line(last)];
        let mut number = last.parent;
        while number > 0 {
            let step = &self.steps[number as usize];
            lines.push(self.line(step));
            number = step.parent;
        }
        lines[1..].reverse();
        lines.join("\n")
    }

    fn line(&self, step: &Step) -> String {
        match step.input {
            Input::Deliver(m) => format!("  {} receives {:?}", step.at + 1, self.messages[m as usize]),
            input => format!("  {} {input:?}", step.at + 1),
        }
    }
}
