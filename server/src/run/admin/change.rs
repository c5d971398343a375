//! `pontoon group`: changes of members, leaders and snapshots, for one group or many, each at its leader.
//!
//! A change that was refused is told with the server's reason. One that was sent and not answered is "unknown": asking
//! again is harmless for changes of members (a target says where to go).
//! Invariant: a request goes to the leader; a hint is followed a bounded number of times.

use super::site::Site;
use super::table::Table;
use super::{AdminOptions, Output, blocking, print, show};
use crate::admin_client::{Answer, NoAnswer};
use crate::cli::Failure;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How often a leader is looked for before it is given up.
const TRIES: u32 = 20;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// Groups that are changed at once.
const AT_ONCE: usize = 8;

/// What to do with groups.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// One group: its members and how they stand
    Show(Which),
    /// Give groups a replica on a node
    Add {
        #[command(flatten)]
        node: OneNode,
        /// Without a vote
        #[arg(long)]
        learner: bool,
    },
    /// Take a node's replica out of groups
    Remove(OneNode),
    /// Give a learner its vote
    Promote(OneNode),
    /// Say who the members are to be, in one change
    Reconfigure {
        #[command(flatten)]
        which: Which,
        /// Nodes with a vote: 1,2,3
        #[arg(long, value_delimiter = ',', required = true)]
        voters: Vec<u64>,
        /// Nodes without one
        #[arg(long, value_delimiter = ',')]
        learners: Vec<u64>,
    },
    /// Give a change of members up that is under way
    Abort(Which),
    /// Hand the leadership to another node
    Transfer {
        #[command(flatten)]
        which: Which,
        /// To which node; whoever is most up to date if it is left out
        #[arg(long)]
        to: Option<u64>,
    },
    /// Take a snapshot at the leader
    Snapshot(Which),
}

/// Which groups.
#[derive(Args, Clone, Debug)]
pub(crate) struct Which {
    /// Groups: 7, 1-12, 3,5,8 or all
    groups: String,
    #[command(flatten)]
    options: AdminOptions,
}

/// Which groups, and a node.
#[derive(Args, Clone, Debug)]
pub(crate) struct OneNode {
    #[command(flatten)]
    which: Which,
    /// The node
    #[arg(long)]
    node: u64,
}

impl GroupCommand {
    fn which(&self) -> &Which {
        match self {
            GroupCommand::Show(which) | GroupCommand::Abort(which) | GroupCommand::Snapshot(which) => which,
            GroupCommand::Add { node, .. } | GroupCommand::Remove(node) | GroupCommand::Promote(node) => &node.which,
            GroupCommand::Reconfigure { which, .. } | GroupCommand::Transfer { which, .. } => which,
        }
    }

    /// The verb of the endpoint and its body; `None`: it only looks.
    fn request(&self, wait: Duration) -> Option<(&'static str, Value)> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Some(match self {
            GroupCommand::Show(_) => return None,
            GroupCommand::Add { node, learner } => {
                ("add", json!({ "node": node.node, "learner": learner, "wait_ms": wait_ms }))
            }
            GroupCommand::Remove(node) => ("remove", json!({ "node": node.node, "wait_ms": wait_ms })),
            GroupCommand::Promote(node) => ("promote", json!({ "node": node.node, "wait_ms": wait_ms })),
            GroupCommand::Reconfigure { voters, learners, .. } => {
                ("reconfigure", json!({ "voters": voters, "learners": learners, "wait_ms": wait_ms }))
            }
            GroupCommand::Abort(_) => ("abort", json!({})),
            GroupCommand::Transfer { to, .. } => ("transfer", json!({ "to": to })),
            GroupCommand::Snapshot(_) => ("snapshot", json!({})),
        })
    }
}

/// What became of one group's change.
struct Outcome {
    group: u64,
    /// `done`, `under_way`, `refused`, `unknown` or `unreachable`.
    state: &'static str,
    detail: Value,
}

/// Runs a `pontoon group` command.
pub(crate) fn group(command: &GroupCommand) -> Result<(), Failure> {
    let which = command.which();
    let wait = which.options.wait()?;
    blocking(async {
        let site = Arc::new(Site::survey(which.options.client()?, &which.options.admin).await?);
        let groups = which.resolve(&site).await?;
        let Some((verb, body)) = command.request(wait) else {
            for id in groups {
                show::group(id, site.group(id).await.as_ref(), which.options.output)?;
            }
            return Ok(());
        };
        let outcomes = change_all(site, groups, verb, &body).await;
        report(&outcomes, which.options.output);
        verdict(&outcomes)
    })
}

impl Which {
    async fn resolve(&self, site: &Site) -> Result<Vec<u64>, Failure> {
        if self.groups == "all" {
            return Ok(site.groups().await.into_keys().collect());
        }
        parse_groups(&self.groups)
            .ok_or_else(|| Failure::Config(vec![format!("{}: groups are 7, 1-12, 3,5,8 or all", self.groups)]))
    }
}

/// `7`, `1-12`, `3,5,8-9`; ascending.
fn parse_groups(text: &str) -> Option<Vec<u64>> {
    let mut found = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        if first == 0 || first > last || last - first > 100_000 {
            return None;
        }
        found.extend(first..=last);
    }
    Some(found.into_iter().collect())
}

/// Some at once; in the order of their ids.
async fn change_all(site: Arc<Site>, groups: Vec<u64>, verb: &'static str, body: &Value) -> Vec<Outcome> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for id in groups {
        let (site, room, body) = (Arc::clone(&site), Arc::clone(&room), body.clone());
        running.spawn(async move {
            let _place = room.acquire_owned().await;
            change(&site, id, verb, &body).await
        });
    }
    let mut outcomes = Vec::new();
    while let Some(done) = running.join_next().await {
        outcomes.extend(done);
    }
    outcomes.sort_by_key(|o: &Outcome| o.group);
    outcomes
}

/// Asks the leader, wherever it is.
async fn change(site: &Site, group: u64, verb: &str, body: &Value) -> Outcome {
    let outcome = |state, detail| Outcome { group, state, detail };
    let mut hint = None;
    let mut last = json!("no leader was found");
    for _ in 0..TRIES {
        let leader = match hint.take() {
            Some(leader) => Some(leader),
            None => site.group(group).await.and_then(|g| g["leader"].as_u64()),
        };
        if let Some(addr) = leader.and_then(|l| site.admin(l)) {
            match site.client.post(addr, &format!("/groups/{group}/{verb}"), body).await {
                Ok(answer) => match judge(&answer) {
                    Judged::Ask(elsewhere) => {
                        hint = elsewhere;
                        last = answer.json();
                    }
                    Judged::Is(state) => return outcome(state, answer.json()),
                },
                Err(NoAnswer::Unreachable { addr, error }) => last = json!(format!("{addr}: {error}")),
                Err(lost @ NoAnswer::Lost { .. }) => return outcome("unknown", json!(lost.to_string())),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    outcome("unreachable", last)
}

/// What an answer comes to.
#[derive(Debug, PartialEq)]
enum Judged {
    /// Not done, and somebody else may; perhaps it is known who.
    Ask(Option<u64>),
    /// This.
    Is(&'static str),
}

fn judge(answer: &Answer) -> Judged {
    let body = answer.json();
    match (answer.status, body["kind"].as_str(), body["happened"].as_str()) {
        (200, ..) => Judged::Is("done"),
        (202, ..) => Judged::Is("under_way"),
        (_, Some("not_leader"), _) => Judged::Ask(body["leader"].as_u64()),
        (_, Some("not_found" | "shutting_down"), _) => Judged::Ask(None),
        (_, _, Some("no")) => Judged::Is("refused"),
        _ => Judged::Is("unknown"),
    }
}

fn report(outcomes: &[Outcome], output: Output) {
    let row = |o: &Outcome| json!({ "group": o.group, "state": o.state, "detail": o.detail });
    if output == Output::Json {
        return print(&format!("{:#}", json!({ "results": outcomes.iter().map(row).collect::<Vec<_>>() })));
    }
    let mut table = Table::new(&["GROUP", "STATE", "DETAIL"]);
    outcomes.iter().for_each(|o| table.row(vec![o.group.to_string(), o.state.to_owned(), brief(&o.detail)]));
    print(&table.text());
}

/// For a line of a table.
fn brief(detail: &Value) -> String {
    let list = |name: &str| super::table::cell(&detail[name]);
    match detail {
        Value::String(text) => text.clone(),
        d if d["error"].is_string() => list("error"),
        d if d["voters"].is_array() => {
            format!("{}: voters {}, learners {}", list_phase(d), list("voters"), list("learners"))
        }
        d if d["leader"].is_u64() => format!("node {} leads", d["leader"]),
        d if d["index"].is_u64() => format!("at index {}", d["index"]),
        _ => String::new(),
    }
}

fn list_phase(detail: &Value) -> String {
    let phase = &detail["phase"];
    match phase["node"].as_u64() {
        Some(node) => format!("node {node} catches up, {} entries behind", super::table::cell(&phase["behind"])),
        None => super::table::cell(&phase["name"]),
    }
}

/// The exit code, as a failure; see the head of `mod.rs`.
fn verdict(outcomes: &[Outcome]) -> Result<(), Failure> {
    let of = |states: &[&str]| outcomes.iter().filter(|o| states.contains(&o.state)).count();
    let all = outcomes.len();
    match (of(&["unreachable"]), of(&["under_way", "unknown"]), of(&["refused"])) {
        (0, 0, 0) => Ok(()),
        (0, 0, n) => Err(Failure::Failed(format!("{n} of {all} groups: refused"))),
        (0, n, _) => Err(Failure::Unknown(format!("{n} of {all} groups: under way, or the outcome is not known"))),
        (n, ..) => Err(Failure::Unreachable(format!("{n} of {all} groups: no leader could be asked"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_numbers_lists_and_ranges() {
        assert_eq!(parse_groups("7"), Some(vec![7]));
        assert_eq!(parse_groups("3,1-2,3"), Some(vec![1, 2, 3]));
        for bad in ["", "0", "a", "3-1", "1-", "-1", "1,,2", "1-9999999999"] {
            assert_eq!(parse_groups(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_answer_has_one_meaning() {
        let of = |status, body: Value| judge(&Answer { status, body: body.to_string() });
        assert_eq!(of(200, json!({})), Judged::Is("done"));
        assert_eq!(of(202, json!({})), Judged::Is("under_way"));
        assert_eq!(of(421, json!({"kind": "not_leader", "leader": 3, "happened": "no"})), Judged::Ask(Some(3)));
        assert_eq!(of(404, json!({"kind": "not_found", "happened": "no"})), Judged::Ask(None));
        assert_eq!(of(422, json!({"kind": "refused", "happened": "no"})), Judged::Is("refused"));
        assert_eq!(of(401, json!({"kind": "unauthorized", "happened": "no"})), Judged::Is("refused"));
        assert_eq!(of(504, json!({"kind": "timed_out", "happened": "perhaps"})), Judged::Is("unknown"));
        assert_eq!(of(500, json!(null)), Judged::Is("unknown"));
    }

    #[test]
    fn the_worst_outcome_is_the_exit_code() {
        let run = |states: &[&'static str]| {
            let outcome = |state: &&'static str| Outcome { group: 1, state, detail: Value::Null };
            verdict(&states.iter().map(outcome).collect::<Vec<_>>()).err().map_or(0, |f| f.exit_code())
        };
        assert_eq!(run(&["done", "done"]), 0);
        assert_eq!(run(&["done", "refused"]), 1);
        assert_eq!(run(&["refused", "unknown"]), 4);
        assert_eq!(run(&["under_way", "done"]), 4);
        assert_eq!(run(&["unreachable", "unknown"]), 3);
    }
}
