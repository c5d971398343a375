//! The admin endpoints without a server: a host mounts `call` in its own, or lets the engine serve it (`http`).
//!
//! Reads (here): `/metrics`, `/healthz`, `/readyz`, `/node`, `/groups`, `/groups/{id}`, `/peers`; no keys and no data.
//! Changes (`act`): POST, only with the token. Leaves to others: sockets and browsers (`http`), JSON (`show`).
//! Invariant: a read costs no message to any group, and a page of `/groups` is bounded; without a token in the
//! builder nothing can be changed.

mod act;
mod show;

use crate::core::Core;
use crate::engine::{Engine, Look};
use crate::health::Health;
use crate::metrics;
use pontoon_raftstore::group_status::GroupStatus;
use pontoon_raftstore::ids::GroupId;
use serde_json::{Value, json};
use show::{peer, row, whole};
use std::fmt::Write;

/// Groups on a page of `/groups` where nothing is asked for, and at most.
const PAGE: (usize, usize) = (100, 1000);

/// Answers admin requests about one engine. Cheap to clone.
#[derive(Clone)]
pub struct AdminApi {
    look: Look,
}

/// A request, as a server has taken it apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdminRequest<'a> {
    /// `GET`, `HEAD` or `POST`.
    pub method: &'a str,
    /// Before the `?`.
    pub path: &'a str,
    /// Behind the `?`.
    pub query: &'a str,
    /// Value of the `Authorization` header.
    pub authorization: Option<&'a str>,
    /// At most `AdminApi::MAX_BODY` bytes.
    pub body: &'a [u8],
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

    /// An error that programs tell by its kind. Nothing was done.
    pub(crate) fn refused(status: u16, kind: &str, what: &str) -> AdminResponse {
        AdminResponse::json(status, &json!({ "error": what, "kind": kind, "happened": "no" }))
    }
}

impl AdminApi {
    /// For an engine; it does not keep the engine running.
    #[must_use]
    pub fn new(engine: &Engine) -> AdminApi {
        AdminApi { look: engine.look() }
    }

    /// Longest body that is taken, bytes.
    pub const MAX_BODY: usize = 64 << 10;

    /// Answers a request: reads at once, changes when they are done or their time is over.
    pub async fn call(&self, request: AdminRequest<'_>) -> AdminResponse {
        if let Some(refused) = self.refusal(&request) {
            return refused;
        }
        match request.method {
            "POST" => self.act(request.path, request.body).await,
            _ => self.handle(request.method, request.path, request.query),
        }
    }

    /// Who may do this? Changes need the token; so does everything that is served beyond the loopback, but health.
    fn refusal(&self, request: &AdminRequest<'_>) -> Option<AdminResponse> {
        let access = &self.look.core.access;
        let public = matches!(request.path.trim_end_matches('/'), "/healthz" | "/livez" | "/readyz");
        if request.method != "POST" && (public || !access.guards_reads) {
            return None;
        }
        match &access.token {
            None => Some(AdminResponse::refused(403, "no_token", "nothing can be changed here: no admin token is set")),
            Some(token) if token.is_shown_by(request.authorization) => None,
            Some(_) => Some(AdminResponse::refused(401, "unauthorized", "show the admin token as a bearer token")),
        }
    }

    /// Answers a read. `query` is what follows the `?`. For hosts that serve reads only: it asks for no token.
    #[must_use]
    pub fn handle(&self, method: &str, path: &str, query: &str) -> AdminResponse {
        if method != "GET" && method != "HEAD" {
            return AdminResponse::refused(405, "method", "only GET, HEAD and POST");
        }
        let query = Query(query);
        match path.trim_end_matches('/') {
            "/metrics" => render_metrics(),
            "/healthz" | "/livez" => alive(&Health::of(&self.look.core)),
            "/readyz" => ready(&Health::of(&self.look.core), &query),
            "/node" => self.node(),
            "/groups" => self.groups(&query),
            "/peers" => AdminResponse::json(200, &json!({ "peers": self.peers() })),
            other => match other.strip_prefix("/groups/") {
                Some(id) => self.group(id),
                None => AdminResponse::error(
                    404,
                    "try /metrics, /healthz, /readyz?verbose, /node, /groups, /groups/ID or /peers",
                ),
            },
        }
    }

    fn node(&self) -> AdminResponse {
        let health = Health::of(&self.look.core);
        let body = json!({
            "node": self.look.core.me.0,
            "cluster": self.look.cluster().map(|c| c.to_string()),
            "advert": String::from_utf8_lossy(&self.look.advert()),
            "health": health,
        });
        AdminResponse::json(200, &body)
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
