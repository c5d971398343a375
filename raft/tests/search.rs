//! Bounded exhaustive search on the real core: every state of three replicas within each scope's bound.
//!
//! The machinery and its reductions are in `search/mod.rs`, the scopes in `search/scopes.rs`. Without more words only the
//! first `QUICK` states of each scope are visited; `PONTOON_SEARCH=gate` exhausts the small bounds, `record` the large
//! ones. `PONTOON_SCOPE=text` takes the scopes whose name contains it, `PONTOON_STATES=n` stops a scope behind n states.
//! Each line says whether the bound was exhausted.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "search/mod.rs"]
mod search;

use search::{SCOPES, Size, explore};
use std::io::Write;
use std::panic::{set_hook, take_hook};

/// Not through `print!`: the counts shall be seen although the test passes.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// States of a scope in the fast loop.
const QUICK: usize = 30_000;

/// The bounds, and the states behind which a scope stops.
fn size() -> (Size, usize) {
    let named = std::env::var("PONTOON_SEARCH").unwrap_or_default();
    let (size, states) = match named.as_str() {
        "" => (Size::Gate, QUICK),
        "gate" => (Size::Gate, usize::MAX),
        "record" => (Size::Record, usize::MAX),
        other => panic!("PONTOON_SEARCH={other}: gate or record"),
    };
    (size, std::env::var("PONTOON_STATES").map_or(states, |n| n.parse().unwrap()))
}

/// What this thread has had of a core.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

#[test]
fn every_state_within_the_bounds_keeps_the_promises() {
    let (size, limit) = size();
    let only = std::env::var("PONTOON_SCOPE").unwrap_or_default();
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let mut failures = Vec::new();
    for scope in SCOPES.iter().filter(|scope| scope.name.contains(&only)) {
        let start = cpu_seconds();
        let report = explore(scope, size, limit);
        let seconds = cpu_seconds() - start;
        let rate = report.states as f64 / seconds;
        let search::Report { states, steps, nodes, messages, depth, exhausted, violation } = report;
        say(&format!(
            "{}: {}: {states} states, {steps} steps, depth {depth}, {nodes} replica states, {messages} messages, \
             exhausted: {exhausted}, {seconds:.1} s, {rate:.0} states a second",
            scope.name,
            scope.bound(size)
        ));
        if let Some(story) = violation {
            say(&story);
            failures.push(scope.name);
        }
        let stopped = states >= limit || failures.contains(&scope.name);
        assert!(exhausted || stopped, "{} was not searched to its end", scope.name);
    }
    set_hook(hook);
    assert!(failures.is_empty(), "broken promises in {failures:?}");
}
