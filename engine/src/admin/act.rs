//! What can be changed over the admin endpoint: a group's members, its leader, its snapshot.
//!
//! Every call runs at the group's leader; elsewhere the answer names it. Add, remove and promote are changes of the
//! members as they are now, fenced by the configuration that was looked at.
//! Leaves to others: who may call (`mod`). Invariant: an answer's `happened` says `perhaps` where a change may still
//! take effect; a target says where to go, so that asking again does nothing twice.

use super::{AdminApi, AdminResponse, show};
use crate::core::Core;
use crate::reconfigure::{Reconfigure, members_of};
use crate::timer::sleep_until;
use pontoon_raftstore::error::{AdminError, GroupError};
use pontoon_raftstore::group_status::GroupStatus;
use pontoon_raftstore::ids::{GroupId, Index, NodeId};
use pontoon_raftstore::proposal::{AdminDone, AdminSlot};
use pontoon_raftstore::reconfigure::{Phase, Target};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long a change of members is waited for where nothing is said, and at most. Milliseconds.
const WAIT: (u64, u64) = (30_000, 600_000);

/// `add`, `remove` and `promote`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneNode {
    node: u64,
    /// `add` only: without a vote.
    #[serde(default)]
    learner: bool,
    wait_ms: Option<u64>,
}

/// `reconfigure`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    voters: BTreeSet<u64>,
    #[serde(default)]
    learners: BTreeSet<u64>,
    if_conf: Option<u64>,
    #[serde(default)]
    promote_lag: u64,
    wait_ms: Option<u64>,
}

/// `transfer`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct To {
    to: Option<u64>,
}

/// `snapshot` and `abort`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Nothing {}

impl AdminApi {
    /// Answers a POST.
    pub(super) async fn act(&self, path: &str, body: &[u8]) -> AdminResponse {
        let parts = path.trim_end_matches('/').strip_prefix("/groups/").and_then(|rest| rest.split_once('/'));
        let Some((id, verb)) = parts else { return unknown() };
        let Ok(group) = id.parse().map(GroupId) else {
            return AdminResponse::refused(400, "bad_request", "a group id is a number");
        };
        match self.dispatch(group, verb, body).await {
            Ok(answer) => answer,
            Err(Wrong::Verb) => unknown(),
            Err(Wrong::Body(why)) => AdminResponse::refused(400, "bad_request", &why),
            Err(Wrong::Change(error)) => failed(&error),
        }
    }

    async fn dispatch(&self, group: GroupId, verb: &str, body: &[u8]) -> Result<AdminResponse, Wrong> {
        let core = &self.look.core;
        match verb {
            "reconfigure" => {
                let asked: Members = parse(body)?;
                let target = asked.target();
                self.change(group, target, asked.wait_ms).await
            }
            "add" | "remove" | "promote" => {
                let asked: OneNode = parse(body)?;
                let target = edited(&leading(core, group)?, verb, &asked)?;
                self.change(group, target, asked.wait_ms).await
            }
            "abort" => {
                let Nothing {} = parse(body)?;
                let slot = Arc::new(crate::group::AdminAnswer::default());
                core.node
                    .abort_reconfigure(group, Arc::clone(&slot) as Arc<dyn AdminSlot>)
                    .map_err(AdminError::from)?;
                core.admin(&slot).await?;
                Ok(AdminResponse::json(200, &json!({ "group": group.0, "state": "aborted" })))
            }
            "transfer" => {
                let To { to } = parse(body)?;
                match core.transfer(group, to.map(NodeId)).await? {
                    AdminDone::Leader(node) => {
                        Ok(AdminResponse::json(200, &json!({ "group": group.0, "leader": node.0 })))
                    }
                    other => Err(AdminError::Refused(format!("unexpected answer {other:?}")).into()),
                }
            }
            "snapshot" => {
                let Nothing {} = parse(body)?;
                match core.snapshot_now(group).await? {
                    AdminDone::Snapshot(at) => Ok(AdminResponse::json(
                        200,
                        &json!({ "group": group.0, "term": at.term.0, "index": at.index.0 }),
                    )),
                    other => Err(AdminError::Refused(format!("unexpected answer {other:?}")).into()),
                }
            }
            _ => Err(Wrong::Verb),
        }
    }

    /// Begins a change of members and waits for its end, for a while: it goes on without anybody who waits.
    async fn change(&self, group: GroupId, target: Target, wait_ms: Option<u64>) -> Result<AdminResponse, Wrong> {
        let core = &self.look.core;
        let deadline = Instant::now() + Duration::from_millis(wait_ms.unwrap_or(WAIT.0).min(WAIT.1));
        let mut change = Reconfigure::begin(core, group, target.clone());
        let mut alarm = pin!(sleep_until(&core.timer, deadline));
        let ended = std::future::poll_fn(|cx| {
            if let Poll::Ready(end) = pin!(&mut change).poll(cx) {
                return Poll::Ready(Some(end));
            }
            alarm.as_mut().poll(cx).map(|()| None)
        });
        match ended.await {
            Some(end) => Ok(AdminResponse::json(200, &outcome(group, &target, Phase::Done, Some(end?)))),
            None => Ok(AdminResponse::json(202, &outcome(group, &target, change.phase(), None))),
        }
    }
}

/// Why a POST was not carried out.
enum Wrong {
    Verb,
    Body(String),
    Change(AdminError),
}

impl From<AdminError> for Wrong {
    fn from(error: AdminError) -> Wrong {
        Wrong::Change(error)
    }
}

impl Members {
    fn target(&self) -> Target {
        let nodes = |ids: &BTreeSet<u64>| ids.iter().copied().map(NodeId).collect();
        Target {
            voters: nodes(&self.voters),
            learners: nodes(&self.learners),
            if_conf: self.if_conf.map(Index),
            promote_lag: self.promote_lag,
        }
    }
}

/// An empty body is an empty object.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Wrong> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|e| Wrong::Body(format!("the body: {e}")))
}

/// The status of a group that is led here.
fn leading(core: &Core, group: GroupId) -> Result<GroupStatus, AdminError> {
    let status = core.status(group)?;
    if let Some(why) = status.quarantined {
        return Err(GroupError::Quarantined(why).into());
    }
    if status.is_leader() { Ok(status) } else { Err(AdminError::NotLeader { leader: status.leader }) }
}

/// The members as they are, with one node added, removed or promoted. While a change is under way: of its target.
fn edited(status: &GroupStatus, verb: &str, asked: &OneNode) -> Result<Target, AdminError> {
    let node = NodeId(asked.node);
    let (mut voters, mut learners) = members_of(status);
    if let Some(under_way) = &status.reconfigure
        && under_way.phase != Phase::Done
    {
        (voters, learners) = (under_way.voters.clone(), under_way.learners.clone());
    }
    let no_member = || AdminError::Refused(format!("node {node} is no member of the group"));
    match verb {
        "add" if asked.learner => {
            if voters.contains(&node) {
                return Err(AdminError::Refused(format!("node {node} has a vote: say who the voters are to be")));
            }
            learners.insert(node);
        }
        "add" => {
            learners.remove(&node);
            voters.insert(node);
        }
        "promote" if !learners.remove(&node) && !voters.contains(&node) => return Err(no_member()),
        "promote" => {
            voters.insert(node);
        }
        _ if !voters.remove(&node) & !learners.remove(&node) => return Err(no_member()),
        _ => {}
    }
    Ok(Target { voters, learners, if_conf: Some(status.conf_index), promote_lag: 0 })
}

fn outcome(group: GroupId, target: &Target, phase: Phase, conf_index: Option<Index>) -> Value {
    json!({
        "group": group.0,
        "state": if conf_index.is_some() { "done" } else { "under_way" },
        "phase": show::phase(phase),
        "conf_index": conf_index.map(|i| i.0),
        "voters": target.voters.iter().map(|n| n.0).collect::<Vec<_>>(),
        "learners": target.learners.iter().map(|n| n.0).collect::<Vec<_>>(),
    })
}

fn unknown() -> AdminResponse {
    let verbs = "reconfigure, add, remove, promote, abort, transfer, snapshot";
    AdminResponse::refused(404, "unknown_path", &format!("POST /groups/ID/VERB, where VERB is one of {verbs}"))
}

/// Status, kind, and whether the change may still take effect.
fn class(error: &AdminError) -> (u16, &'static str, &'static str) {
    match error {
        AdminError::NotLeader { .. } => (421, "not_leader", "no"),
        AdminError::TimedOut => (504, "timed_out", "perhaps"),
        AdminError::Refused(_) => (422, "refused", "no"),
        AdminError::UnknownNode(_) => (422, "unknown_node", "no"),
        AdminError::ReconfigureInProgress { .. } => (409, "reconfigure_in_progress", "no"),
        AdminError::ConfChanged { .. } => (409, "conf_changed", "no"),
        AdminError::NoProgress(_) => (409, "no_progress", "no"),
        AdminError::Aborted => (409, "aborted", "no"),
        AdminError::PastAbort => (409, "past_abort", "no"),
        AdminError::NoReconfigure => (409, "no_reconfigure", "no"),
        AdminError::Group(GroupError::NotFound(_)) => (404, "not_found", "no"),
        AdminError::Group(GroupError::Destroyed(_)) => (404, "destroyed", "perhaps"),
        AdminError::Group(GroupError::Quarantined(_)) => (503, "quarantined", "perhaps"),
        AdminError::Group(_) => (503, "shutting_down", "perhaps"),
        _ => (500, "failed", "perhaps"),
    }
}

fn failed(error: &AdminError) -> AdminResponse {
    let (status, kind, happened) = class(error);
    let leader = match error {
        AdminError::NotLeader { leader } => leader.map(|l| l.node.0),
        _ => None,
    };
    let body = json!({ "error": error.to_string(), "kind": kind, "happened": happened, "leader": leader });
    AdminResponse::json(status, &body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pontoon_raft::ConfState;
    use pontoon_raftstore::ids::{Incarnation, ReplicaId};

    fn status() -> GroupStatus {
        let member = |r: u64, n: u64| (ReplicaId(r), NodeId(n), Incarnation(n));
        GroupStatus {
            conf_state: ConfState::new([1, 2, 4].map(ReplicaId).into(), [5].map(ReplicaId).into()),
            members: vec![member(1, 10), member(2, 20), member(4, 30), member(5, 40)],
            conf_index: Index(77),
            ..GroupStatus::default()
        }
    }

    fn edit(verb: &str, body: &str) -> Result<(Vec<u64>, Vec<u64>), String> {
        let Ok(asked) = parse::<OneNode>(body.as_bytes()) else { return Err("body".into()) };
        let target = edited(&status(), verb, &asked).map_err(|e| e.to_string())?;
        assert_eq!(target.if_conf, Some(Index(77)), "fenced by what was looked at");
        Ok((target.voters.iter().map(|n| n.0).collect(), target.learners.iter().map(|n| n.0).collect()))
    }

    #[test]
    fn one_node_is_added_removed_or_promoted() {
        assert_eq!(edit("add", r#"{"node":50}"#), Ok((vec![10, 20, 30, 50], vec![40])));
        assert_eq!(edit("add", r#"{"node":40}"#), Ok((vec![10, 20, 30, 40], vec![])));
        assert_eq!(edit("add", r#"{"node":50,"learner":true}"#), Ok((vec![10, 20, 30], vec![40, 50])));
        assert_eq!(edit("remove", r#"{"node":20}"#), Ok((vec![10, 30], vec![40])));
        assert_eq!(edit("remove", r#"{"node":40}"#), Ok((vec![10, 20, 30], vec![])));
        assert_eq!(edit("promote", r#"{"node":40}"#), Ok((vec![10, 20, 30, 40], vec![])));
        assert_eq!(edit("promote", r#"{"node":20}"#), Ok((vec![10, 20, 30], vec![40])), "has its vote");
        assert!(edit("add", r#"{"node":20,"learner":true}"#).unwrap_err().contains("has a vote"));
        assert!(edit("remove", r#"{"node":50}"#).unwrap_err().contains("no member"));
        assert!(edit("promote", r#"{"node":50}"#).unwrap_err().contains("no member"));
        for bad in ["", "{}", "[]", r#"{"node":-1}"#, r#"{"node":1,"vote":true}"#, "{\"node\":1"] {
            assert_eq!(edit("add", bad), Err("body".into()), "{bad}");
        }
    }
}
