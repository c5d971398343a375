//! What `pontoon serve` is given, by flags and by a file (flags win), and everything that is wrong with it, at once.
//!
//! Texts are read here and not by the parser, which stops at the first mistake. Leaves to others: the file's form
//! (`file`), the engine's own rules (`Builder::violations`).
//! Invariant: nothing was touched when a mistake is told.

use super::file;
use crate::advert::Advert;
use crate::cli::Failure;
use crate::shards::{SLOTS, Shards};
use clap::Args;
use pontoon::config::{Size, Span};
use pontoon::kv::KvStore;
use pontoon::{Builder, Config, Engine, NodeId};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// Groups of a new cluster where nothing is said.
const GROUPS: &str = "48";
/// Where the token may come from beside a file.
const TOKEN_ENV: &str = "PONTOON_ADMIN_TOKEN";
pub(super) const KIND: &str = "kv";

/// Flags of `pontoon serve`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeOptions {
    /// A TOML file with the same settings (`log_keep` for --log-keep) and a table [engine]; flags win
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// What flags and file have in common.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Settings {
    /// This node's id
    #[arg(long)]
    node: Option<String>,
    /// First start of a new cluster: all founding nodes and where they listen for each other: 1=HOST:PORT,2=HOST:PORT,..
    #[arg(long)]
    cluster: Option<String>,
    /// First start of a node that enters a cluster: peer addresses of one or more of its nodes: HOST:PORT,HOST:PORT,..
    #[arg(long)]
    join: Option<String>,
    /// With --join: where this node listens for its peers, HOST:PORT, as they reach it
    #[arg(long)]
    peer: Option<String>,
    /// Directory of this node alone
    #[arg(long)]
    data: Option<String>,
    /// Number of groups that share the 16,384 slots; fixed at the founding [default: 48, or what the cluster has]
    #[arg(long)]
    groups: Option<String>,
    /// Where clients connect, HOST:PORT; told to clients of other nodes as it is given here
    #[arg(long)]
    redis: Option<String>,
    /// Where the admin endpoints are served, HOST:PORT (loopback, unless --insecure-admin)
    #[arg(long)]
    admin: Option<String>,
    /// A file with the token that lets callers change things over the admin endpoint [or: env PONTOON_ADMIN_TOKEN]
    #[arg(long)]
    admin_token_file: Option<String>,
    /// Let the admin endpoint be served to other machines although it is not encrypted; needs a token
    #[arg(long)]
    insecure_admin: bool,
    /// Let peers connect from other machines although links are not encrypted yet
    #[arg(long)]
    insecure_peers: bool,
    /// Threads that own groups; 0: one for every two cores [default: 0]
    #[arg(long)]
    pollers: Option<String>,
    /// Milliseconds after which a command without an answer is `outcome unknown` [default: 5000]
    #[arg(long)]
    deadline_ms: Option<String>,
    /// Size of a file of the log, 64KiB to 4GiB: smaller ones are recycled sooner and need less memory [default: 64MiB]
    #[arg(long)]
    log_file: Option<String>,
    /// Log kept per group for nodes that were away; one that misses more gets a snapshot [default: 64MiB]
    #[arg(long)]
    log_keep: Option<String>,
    /// How often contents are flushed, so that the log before them may go [default: 10s]
    #[arg(long)]
    flush_every: Option<String>,
}

/// How the node comes to its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// All founders and where they listen.
    Founds(BTreeMap<NodeId, String>),
    /// Members' addresses, and where this node listens.
    Joins { via: Vec<String>, listen: String },
}

/// Settings that were found to make sense.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) me: NodeId,
    pub(super) entry: Entry,
    pub(super) data: PathBuf,
    /// `None`: what the cluster has.
    pub(super) groups: Option<u16>,
    pub(super) own: Advert,
    pub(super) deadline: Duration,
    token: Option<String>,
    insecure: (bool, bool),
    config: Config,
}

impl Settings {
    /// The place of a setting with a text, by its name in a file.
    pub(super) fn text(&mut self, key: &str) -> Option<&mut Option<String>> {
        Some(match key {
            "node" => &mut self.node,
            "cluster" => &mut self.cluster,
            "join" => &mut self.join,
            "peer" => &mut self.peer,
            "data" => &mut self.data,
            "groups" => &mut self.groups,
            "redis" => &mut self.redis,
            "admin" => &mut self.admin,
            "admin_token_file" => &mut self.admin_token_file,
            "pollers" => &mut self.pollers,
            "deadline_ms" => &mut self.deadline_ms,
            "log_file" => &mut self.log_file,
            "log_keep" => &mut self.log_keep,
            "flush_every" => &mut self.flush_every,
            _ => return None,
        })
    }

    /// The place of a setting that is on or off.
    pub(super) fn flag(&mut self, key: &str) -> Option<&mut bool> {
        match key {
            "insecure_peers" => Some(&mut self.insecure_peers),
            "insecure_admin" => Some(&mut self.insecure_admin),
            _ => None,
        }
    }

    /// These, and what only the file says. Who founds or joins by flag has that changed, not added to.
    fn over(self, file: Settings) -> Settings {
        let enters = self.cluster.is_some() || self.join.is_some();
        let entry = |file: Option<String>| if enters { None } else { file };
        Settings {
            node: self.node.or(file.node),
            cluster: self.cluster.or(entry(file.cluster)),
            join: self.join.or(entry(file.join)),
            peer: self.peer.or(file.peer),
            data: self.data.or(file.data),
            groups: self.groups.or(file.groups),
            redis: self.redis.or(file.redis),
            admin: self.admin.or(file.admin),
            admin_token_file: self.admin_token_file.or(file.admin_token_file),
            insecure_admin: self.insecure_admin || file.insecure_admin,
            insecure_peers: self.insecure_peers || file.insecure_peers,
            pollers: self.pollers.or(file.pollers),
            deadline_ms: self.deadline_ms.or(file.deadline_ms),
            log_file: self.log_file.or(file.log_file),
            log_keep: self.log_keep.or(file.log_keep),
            flush_every: self.flush_every.or(file.flush_every),
        }
    }
}

impl ServeOptions {
    /// Everything that is wrong, in flags and file, at once.
    pub(super) fn check(&self) -> Result<Checked, Failure> {
        let mut problems = Vec::new();
        let (given, config) = match &self.config {
            Some(path) => {
                let (file, config) = file::read(path, &mut problems);
                (self.settings.clone().over(file), config)
            }
            None => (self.settings.clone(), Config::default()),
        };
        let checked = given.check(config, &mut problems);
        problems.extend(checked.builder().violations());
        if problems.is_empty() { Ok(checked) } else { Err(Failure::Config(problems)) }
    }
}

impl Settings {
    fn check(self, config: Config, problems: &mut Vec<String>) -> Checked {
        let me = self.number("--node", self.node.as_deref(), 1..=u64::MAX, problems);
        let me = NodeId(me.unwrap_or_default());
        let entry = self.entry(me, problems);
        let own = self.addresses(problems);
        let groups = self.groups.as_deref().or(matches!(entry, Entry::Founds(_)).then_some(GROUPS));
        let groups = groups.and_then(|g| number("--groups", g, 1..=u64::from(SLOTS), problems));
        let deadline = self.deadline_ms.as_deref().unwrap_or("5000");
        let deadline = number("--deadline-ms", deadline, 50..=600_000, problems).unwrap_or(5000);
        Checked {
            me,
            entry,
            data: needed("--data", self.data.clone(), problems).into(),
            groups: groups.and_then(|g| u16::try_from(g).ok()),
            own,
            deadline: Duration::from_millis(deadline),
            token: self.token(problems),
            insecure: (self.insecure_peers, self.insecure_admin),
            config: self.tuned(config, problems),
        }
    }

    fn number(
        &self,
        flag: &str,
        text: Option<&str>,
        range: RangeInclusive<u64>,
        problems: &mut Vec<String>,
    ) -> Option<u64> {
        match text {
            Some(text) => number(flag, text, range, problems),
            None => {
                problems.push(format!("{flag} is needed"));
                None
            }
        }
    }

    fn entry(&self, me: NodeId, problems: &mut Vec<String>) -> Entry {
        match (&self.cluster, &self.join) {
            (Some(cluster), None) => {
                if self.peer.is_some() {
                    problems.push("--peer goes with --join: with --cluster it is the node's address there".to_owned());
                }
                Entry::Founds(founders(cluster, me, problems))
            }
            (None, Some(join)) => {
                let via: Vec<String> = join.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect();
                let listen = needed("--peer", self.peer.clone(), problems);
                let all = via.iter().map(|a| ("--join", a)).chain([("--peer", &listen)]);
                problems.extend(all.filter(|a| !is_host_port(a.1) && !a.1.is_empty()).map(not_host_port));
                if via.contains(&listen) {
                    problems.push(format!("--join names this node's own address {listen}"));
                }
                Entry::Joins { via, listen }
            }
            (Some(_), Some(_)) => {
                problems.push("--cluster founds a cluster, --join enters one: not both".to_owned());
                Entry::Founds(BTreeMap::new())
            }
            (None, None) => {
                problems.push("--cluster (to found a cluster) or --join (to enter one) is needed".to_owned());
                Entry::Founds(BTreeMap::new())
            }
        }
    }

    fn addresses(&self, problems: &mut Vec<String>) -> Advert {
        let redis = needed("--redis", self.redis.clone(), problems);
        let admin = needed("--admin", self.admin.clone(), problems);
        if !redis.is_empty() && !is_host_port(&redis) {
            problems.push(not_host_port(("--redis", &redis)));
        }
        if !redis.is_empty() && redis == admin {
            problems.push(format!("--redis and --admin are both {redis}"));
        }
        Advert { redis, admin, groups: None }
    }

    /// From the file, else from the environment.
    fn token(&self, problems: &mut Vec<String>) -> Option<String> {
        let Some(path) = &self.admin_token_file else { return std::env::var(TOKEN_ENV).ok() };
        match std::fs::read_to_string(path) {
            Ok(text) => Some(text.trim_end().to_owned()),
            Err(e) => {
                problems.push(format!("--admin-token-file {path}: {e}"));
                None
            }
        }
    }

    /// The file's engine settings, with what has a flag of its own.
    fn tuned(&self, mut config: Config, problems: &mut Vec<String>) -> Config {
        let pollers = self.pollers.as_deref().and_then(|p| number("--pollers", p, 0..=1024, problems)).unwrap_or(0);
        if pollers > 0 {
            config.raft.pollers = usize::try_from(pollers).unwrap_or(usize::MAX);
        }
        if let Some(text) = &self.log_file {
            config.log.file = Size::parse(text);
        }
        if let Some(text) = &self.log_keep {
            config.raft.log_keep = Size::parse(text);
        }
        if let Some(text) = &self.flush_every {
            config.raft.durable_every = Span::parse(text);
        }
        config
    }
}

impl Checked {
    /// What the engine is opened with. A node that is not one of its peers (told by `check`) is given a place, so that
    /// the engine finds only its own problems.
    pub(super) fn builder(&self) -> Builder {
        let me = NodeId(self.me.0.max(1));
        let builder = Engine::builder(self.data.join("engine"), me)
            .config(self.config.clone())
            .admin(or_any(&self.own.admin))
            .insecure_peers(self.insecure.0)
            .insecure_admin(self.insecure.1)
            .metrics(true)
            .advert(self.own.encode())
            .kind(KIND, KvStore::default());
        let builder = match &self.token {
            Some(token) => builder.admin_token(token.clone()),
            None => builder,
        };
        match &self.entry {
            Entry::Founds(peers) => builder
                .found(peers.keys().copied().chain([me]).collect())
                .listen(peers.get(&me).map_or("127.0.0.1:1", String::as_str))
                .resolver(peers.clone()),
            Entry::Joins { via, listen } => {
                builder.join(&via.iter().map(String::as_str).collect::<Vec<_>>()).listen(or_any(listen))
            }
        }
    }

    /// The slots' ranges; the number was found right.
    pub(super) fn shards(groups: u16) -> Result<Shards, Failure> {
        Shards::new(groups).ok_or_else(|| Failure::Failed(format!("{groups} groups cannot share the slots")))
    }
}

/// An address that is missing was told already: the engine is not to tell it again.
fn or_any(addr: &str) -> &str {
    if addr.is_empty() { "127.0.0.1:0" } else { addr }
}

fn founders(cluster: &str, me: NodeId, problems: &mut Vec<String>) -> BTreeMap<NodeId, String> {
    let mut peers = BTreeMap::new();
    for part in cluster.split(',').filter(|p| !p.is_empty()) {
        match parse_peer(part) {
            Ok((id, addr)) => {
                if peers.values().any(|a| a == addr) {
                    problems.push(format!("--cluster names {addr} twice"));
                }
                if peers.insert(NodeId(id), addr.to_owned()).is_some() {
                    problems.push(format!("--cluster names node {id} twice"));
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if me.0 > 0 && !peers.contains_key(&me) {
        problems.push(format!("--node {me} is not one of --cluster {cluster}"));
    }
    let named = cluster.split(',').filter(|p| !p.is_empty()).count();
    if named.is_multiple_of(2) {
        problems.push(format!("--cluster names {named} nodes: an odd number (1, 3, 5 or 7) is needed"));
    } else if named > 7 {
        problems.push(format!("--cluster names {named} nodes: at most 7 may vote"));
    }
    peers
}

fn needed(flag: &str, given: Option<String>, problems: &mut Vec<String>) -> String {
    if given.is_none() {
        problems.push(format!("{flag} is needed"));
    }
    given.unwrap_or_default()
}

/// A number in a range; a problem if it is none.
fn number(flag: &str, text: &str, range: RangeInclusive<u64>, problems: &mut Vec<String>) -> Option<u64> {
    let found = text.parse().ok().filter(|n| range.contains(n));
    if found.is_none() {
        let (least, most) = (range.start(), range.end());
        let limit = if *most == u64::MAX { format!("a number from {least}") } else { format!("{least} to {most}") };
        problems.push(format!("{flag} {text}: must be {limit}"));
    }
    found
}

fn parse_peer(part: &str) -> Result<(u64, &str), String> {
    let (id, addr) = part.split_once('=').ok_or_else(|| format!("--cluster {part}: must be ID=HOST:PORT"))?;
    let id = id.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("--cluster {part}: the id must be above 0"))?;
    if is_host_port(addr) { Ok((id, addr)) } else { Err(format!("--cluster {part}: {addr:?} is not HOST:PORT")) }
}

fn not_host_port((flag, addr): (&str, &String)) -> String {
    format!("{flag} {addr}: must be HOST:PORT")
}

fn is_host_port(addr: &str) -> bool {
    addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}
