//! What an engine is opened with. `open` reports everything that is wrong at once.
//!
//! Leaves to others: the order of a start (`wiring`).
//! Invariant: nothing on disk is touched before the whole configuration has been found right.

use crate::config::Config;
use crate::engine::Engine;
use crate::erased::{KindHooks, Registered};
use crate::error::OpenError;
use crate::resolver::Resolver;
use crate::state_machine::Kind;
use crate::token::Token;
use crate::wiring;
use bytes::Bytes;
use pontoon_raftstore::ids::{ClusterId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Longest advert, bytes: it travels in every handshake.
pub(crate) const MAX_ADVERT: usize = 4096;
/// Longest name of a kind, bytes.
const MAX_KIND: usize = 64;

/// See `Engine::builder`.
#[must_use = "nothing happens before `open`"]
pub struct Builder {
    pub(crate) dir: PathBuf,
    pub(crate) me: NodeId,
    pub(crate) config: Config,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) founders: BTreeSet<NodeId>,
    /// Members' peer addresses; `None`: it does not join.
    pub(crate) via: Option<Vec<String>>,
    pub(crate) charter: Bytes,
    pub(crate) listen: Option<String>,
    pub(crate) insecure_peers: bool,
    pub(crate) resolver: Option<Arc<dyn Resolver>>,
    pub(crate) advert: Bytes,
    pub(crate) admin: Option<String>,
    pub(crate) admin_token: Option<Token>,
    pub(crate) insecure_admin: bool,
    pub(crate) install_metrics: bool,
    pub(crate) kinds: BTreeMap<String, Arc<dyn KindHooks>>,
    /// Names registered more than once.
    doubles: Vec<String>,
}

impl Builder {
    pub(crate) fn new(dir: PathBuf, me: NodeId) -> Builder {
        Builder {
            dir,
            me,
            config: Config::default(),
            cluster: None,
            founders: BTreeSet::new(),
            via: None,
            charter: Bytes::new(),
            listen: None,
            insecure_peers: false,
            resolver: None,
            advert: Bytes::new(),
            admin: None,
            admin_token: None,
            insecure_admin: false,
            install_metrics: false,
            kinds: BTreeMap::new(),
            doubles: Vec::new(),
        }
    }

    /// Replaces the configuration.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// The cluster's id, if the host has one; else it is minted when the cluster is founded.
    pub fn cluster(mut self, id: [u8; 16]) -> Builder {
        self.cluster = Some(ClusterId(id));
        self
    }

    /// First start of a new cluster: the same list on each of its nodes, this one included. On a later start the same
    /// list is fine, and it may be left out.
    pub fn found(mut self, nodes: BTreeSet<NodeId>) -> Builder {
        self.founders = nodes;
        self
    }

    /// First start of a node that enters a cluster that stands, through any member: their peer addresses, `host:port`. It
    /// takes over the cluster's id and knows the other nodes from there on; it gets replicas by `Group::reconfigure`. On a
    /// later start the same list is fine: it is used while no node known from before can be reached.
    pub fn join(mut self, via: &[&str]) -> Builder {
        self.via = Some(via.iter().map(|a| (*a).to_owned()).collect());
        self
    }

    /// What else is founded with the cluster, opaque to the engine (e.g. which groups there are). It must be equal on
    /// all founders and at every later start that names the founders.
    pub fn charter(mut self, charter: impl Into<Bytes>) -> Builder {
        self.charter = charter.into();
        self
    }

    /// Where to listen for peers: `host:port`. Only the loopback, unless `insecure_peers` is given: there is no TLS.
    pub fn listen(mut self, addr: &str) -> Builder {
        self.listen = Some(addr.to_owned());
        self
    }

    /// Peers may connect over any network, in the clear and unproven.
    pub fn insecure_peers(mut self, yes: bool) -> Builder {
        self.insecure_peers = yes;
        self
    }

    /// Where the other nodes are.
    pub fn resolver(mut self, resolver: impl Resolver) -> Builder {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Opaque bytes that travel in the handshake and are read by `Engine::peers` elsewhere: e.g. the client port.
    pub fn advert(mut self, advert: impl Into<Bytes>) -> Builder {
        self.advert = advert.into();
        self
    }

    /// Serves the admin endpoints there: `host:port`, only the loopback, unless `insecure_admin` is given.
    pub fn admin(mut self, addr: &str) -> Builder {
        self.admin = Some(addr.to_owned());
        self
    }

    /// Who shows this as a bearer token may change things over the admin endpoints; without it nobody may. 16 to 512
    /// visible ASCII characters.
    pub fn admin_token(mut self, token: impl Into<String>) -> Builder {
        self.admin_token = Some(Token::new(token.into()));
        self
    }

    /// The admin endpoints may be served over any network, in the clear. Then reads need the token, too, but health.
    pub fn insecure_admin(mut self, yes: bool) -> Builder {
        self.insecure_admin = yes;
        self
    }

    /// Installs the engine's metrics recorder for the whole process, for `/metrics`. Leave it out where the host has
    /// installed one of its own: it gets everything as well.
    pub fn metrics(mut self, install: bool) -> Builder {
        self.install_metrics = install;
        self
    }

    /// Registers a kind of groups under a name that is written to disk with each of them.
    pub fn kind<F: Kind>(mut self, name: &str, kind: F) -> Builder {
        if self.kinds.insert(name.to_owned(), Arc::new(Registered(Arc::new(kind)))).is_some() {
            self.doubles.push(name.to_owned());
        }
        self
    }

    /// Recovers everything found on disk and takes part in the cluster. A founder returns once all founders have
    /// confirmed it, a joiner once a member has.
    ///
    /// # Errors
    /// `Config` names every mistake at once; see `OpenError`.
    pub async fn open(self) -> Result<Engine, OpenError> {
        let violations = self.violations();
        if !violations.is_empty() {
            return Err(OpenError::Config(violations));
        }
        wiring::open(self).await
    }

    /// Everything that is wrong with it.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut found = self.config.violations();
        found.extend(self.doubles.iter().map(|k| format!("kind {k:?} is registered twice")));
        let names = self.kinds.keys().filter(|k| !(1..=MAX_KIND).contains(&k.len()) || !is_plain(k));
        found.extend(names.map(|k| format!("kind {k:?}: a name has 1 to 64 letters, digits, '-' or '_'")));
        let others = self.founders.iter().any(|n| *n != self.me);
        let rules = [
            (self.me.0 > 0, "the node id must be above 0"),
            (!self.kinds.is_empty(), "no kind is registered"),
            (self.founders.is_empty() || self.founders.contains(&self.me), "the founders must include this node"),
            (!self.founders.contains(&NodeId(0)), "founders' node ids must be above 0"),
            (
                self.founders.is_empty() || self.via.is_none(),
                "a node founds or joins: name founders or members, not both",
            ),
            (self.via.as_ref().is_none_or(|via| !via.is_empty()), "no member's address to join through"),
            (!self.insecure_admin || self.admin_token.is_some(), "insecure_admin needs an admin token"),
            (self.listen.is_some(), "no peer address to listen on"),
            (!others || self.resolver.is_some(), "there are other founders, but no resolver to find them"),
            (self.advert.len() <= MAX_ADVERT, "the advert must not be longer than 4096 bytes"),
        ];
        found.extend(rules.into_iter().filter(|r| !r.0).map(|r| r.1.to_owned()));
        found.extend(self.listen.iter().filter_map(|a| bad_address("listen", a, !self.insecure_peers)));
        found.extend(self.admin.iter().filter_map(|a| bad_address("admin", a, !self.insecure_admin)));
        found.extend(self.via.iter().flatten().filter_map(|a| bad_address("join", a, false)));
        found.extend(self.admin_token.iter().filter_map(Token::problem));
        found
    }
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// What is wrong with an address to listen on. Host names pass: the system judges them.
fn bad_address(what: &str, addr: &str, loopback_only: bool) -> Option<String> {
    let host = match addr.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => host,
        _ => return Some(format!("{what} address {addr:?} is not host:port")),
    };
    let loopback = match addr.parse::<SocketAddr>() {
        Ok(addr) => addr.ip().is_loopback(),
        Err(_) => host == "localhost",
    };
    let why = if what == "listen" {
        "peers are not authenticated; pass insecure_peers to allow it"
    } else {
        "what passes there is not encrypted; pass insecure_admin and a token to allow it"
    };
    (loopback_only && !loopback).then(|| format!("{what} address {addr:?} is not on the loopback: {why}"))
}
