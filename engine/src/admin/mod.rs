//! The admin endpoints without a server: a host mounts `handle` in its own, or lets the engine serve it (`http`).
//!
//! `/metrics`, `/healthz`, `/readyz`, `/groups`, `/groups/{id}`, `/peers`: reads only, no keys and no data.
//! Leaves to others: sockets and browsers (`http`). Invariant: a call costs no message to any group, and a page of
//! `/groups` is bounded.

use crate::core::Core;
use crate::engine::{Engine, Look, Peer};
use crate::health::Health;
use crate::metrics;
use pontoon_raftstore::env::LinkState;
use pontoon_raftstore::group_status::GroupStatus;
use pontoon_raftstore::ids::GroupId;
use serde_json::{Value, json};
use std::fmt::Write;

/// Groups on a page of `/groups` where nothing is asked for, and at most.
const PAGE: (usize, usize) = (100, 1000);

/// Answers admin requests about one engine. Cheap to clone.
#[derive(Clone)]
pub struct AdminApi {
    look: Look,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminResponse {
    /// HTTP status.
    pub status: u16,
    /// MIME type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl AdminResponse {
    fn text(status: u16, body: impl Into<String>) -> AdminResponse {
        AdminResponse { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    fn json(status: u16, body: &Value) -> AdminResponse {
        AdminResponse { status, content_type: "application/json", body: format!("{body:#}\n") }
    }

    pub(crate) fn error(status: u16, what: &str) -> AdminResponse {
        AdminResponse::json(status, &json!({ "error": what }))
    }
}

impl AdminApi {
    /// For an engine; it does not keep the engine running.
    #[must_use]
    pub fn new(engine: &Engine) -> AdminApi {
        AdminApi { look: engine.look() }
    }

    /// Answers a request. `query` is what follows the `?`. Every route is a GET (or HEAD).
    #[must_use]
    pub fn handle(&self, method: &str, path: &str, query: &str) -> AdminResponse {
        if method != "GET" && method != "HEAD" {
            return AdminResponse::error(405, "only GET");
        }
        let query = Query(query);
        match path.trim_end_matches('/') {
            "/metrics" => render_metrics(),
            "/healthz" | "/livez" => alive(&Health::of(&self.look.core)),
            "/readyz" => ready(&Health::of(&self.look.core), &query),
            "/groups" => self.groups(&query),
            "/peers" => AdminResponse::json(200, &json!({ "peers": self.peers() })),
            other => match other.strip_prefix("/groups/") {
                Some(id) => self.group(id),
                None => {
                    AdminResponse::error(404, "try /metrics, /healthz, /readyz?verbose, /groups, /groups/ID or /peers")
                }
            },
        }
    }

    /// Ascending by id, behind `after`; `next` is the cursor of the next page.
    fn groups(&self, query: &Query<'_>) -> AdminResponse {
        let after = query.number("after").unwrap_or(0);
        let limit = query.number("limit").map_or(PAGE.0, |n| usize::try_from(n).unwrap_or(PAGE.1)).clamp(1, PAGE.1);
        let state = query.value("state");
        let core: &Core = &self.look.core;
        let cells = core.node.router().cells();
        let mut rows = Vec::new();
        let mut next = None;
        for cell in cells.iter().filter(|c| c.group.0 > after) {
            let row = cell.with_status(|s| state.is_none_or(|wanted| is_in(s, wanted)).then(|| row(s)));
            let Some(row) = row else { continue };
            if rows.len() == limit {
                next = rows.last().and_then(|r: &Value| r["group"].as_u64());
                break;
            }
            rows.push(row);
        }
        let body = json!({ "node": core.me.0, "total": cells.len(), "groups": rows, "next": next });
        AdminResponse::json(200, &body)
    }

    fn group(&self, id: &str) -> AdminResponse {
        let Ok(id) = id.parse::<u64>() else { return AdminResponse::error(400, "a group id is a number") };
        match self.look.core.status(GroupId(id)) {
            Ok(status) => AdminResponse::json(200, &whole(&status)),
            Err(e) => AdminResponse::error(404, &e.to_string()),
        }
    }

    fn peers(&self) -> Vec<Value> {
        self.look.peers().iter().map(peer).collect()
    }
}

fn render_metrics() -> AdminResponse {
    match metrics::installed() {
        Some(recorder) => AdminResponse {
            status: 200,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: recorder.render(),
        },
        None => AdminResponse::error(404, "no recorder of the engine is installed: the host has its own"),
    }
}

fn alive(health: &Health) -> AdminResponse {
    AdminResponse::text(
        if health.alive { 200 } else { 503 },
        if health.alive { "ok\n".to_owned() } else { lines(health) },
    )
}

/// `?exclude=NAME` leaves a check out, `?verbose` tells all.
fn ready(health: &Health, query: &Query<'_>) -> AdminResponse {
    let excluded: Vec<&str> = query.values("exclude").collect();
    let ok = health.checks.iter().filter(|c| !excluded.contains(&c.name)).all(|c| c.ok);
    let status = if ok { 200 } else { 503 };
    if query.has("verbose") {
        return AdminResponse::json(status, &json!({ "ready": ok, "health": health }));
    }
    AdminResponse::text(status, if ok { "ok\n".to_owned() } else { lines(health) })
}

fn lines(health: &Health) -> String {
    let mut out = String::new();
    for check in health.checks.iter().filter(|c| !c.ok) {
        let _infallible = writeln!(out, "{}: {}", check.name, check.detail);
    }
    out
}

fn is_in(status: &GroupStatus, state: &str) -> bool {
    match state {
        "leader" => status.is_leader(),
        "leaderless" => status.leader.is_none(),
        "quarantined" => status.quarantined.is_some(),
        other => format!("{:?}", status.role).eq_ignore_ascii_case(other),
    }
}

fn row(s: &GroupStatus) -> Value {
    json!({
        "group": s.group.0,
        "kind": s.kind,
        "role": format!("{:?}", s.role).to_lowercase(),
        "leader": s.leader.map(|l| l.node.0),
        "term": s.term.0,
        "commit": s.commit.0,
        "applied": s.applied.0,
        "quarantined": s.quarantined,
    })
}

fn whole(s: &GroupStatus) -> Value {
    let members = s.members.iter().map(|(replica, node, disk)| {
        json!({ "replica": replica.0, "node": node.0, "incarnation": format!("{:016x}", disk.0) })
    });
    let followers = s.followers.iter().map(|f| {
        json!({
            "replica": f.replica.0,
            "node": f.node.map(|n| n.0),
            "match": f.matched.0,
            "state": format!("{:?}", f.flow),
            "recent_active": f.active,
            "learner": f.learner,
        })
    });
    let mut body = row(s);
    let more = json!({
        "replica": s.replica.0,
        "generation": s.generation.0,
        "first": s.first.0,
        "last": s.last.0,
        "log_bytes": s.log_bytes,
        "transferring": s.transferring.map(|n| n.0),
        "conf_state": format!("{:?}", s.conf_state),
        "members": members.collect::<Vec<_>>(),
        "followers": followers.collect::<Vec<_>>(),
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

fn peer(p: &Peer) -> Value {
    let link = match &p.link {
        LinkState::Up => "up".to_owned(),
        LinkState::Down => "down".to_owned(),
        LinkState::Refused(why) => format!("refused: {why}"),
    };
    json!({ "node": p.node.0, "address": p.address, "advert": String::from_utf8_lossy(&p.advert), "link": link })
}

/// `a=1&b&c=2`. Values are numbers and plain names here: no escapes.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.0.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.pairs().filter(move |p| p.0 == name).map(|p| p.1)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }
}
