//! `pontoon serve`: one node. Checks all settings at once, founds, joins or reopens, then serves until told to stop.
//!
//! Leaves to others: the settings (`options`, `file`), the protocol (`conn`), everything durable (the engine).
//! Invariant: no client is accepted before the node is admitted to its cluster and knows how the slots are cut.

mod file;
mod options;

pub(crate) use options::ServeOptions;

use crate::advert::Advert;
use crate::cli::Failure;
use crate::conn;
use crate::layout::{Layout, LayoutError};
use crate::node::ServerNode;
use crate::routes;
use options::{Checked, Entry, KIND};
use pontoon::kv::KvMachine;
use pontoon::{Engine, Event, GroupError, GroupId, GroupSpec, LifecycleError, NodeId, OpenError, Shutdown};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// Most client connections at once.
const CONNECTIONS: usize = 10_000;
/// How long one wait for an event lasts.
const LISTEN: Duration = Duration::from_secs(1);
/// How long a joiner waits for a member to say how many groups there are, and how often it looks.
const ASK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(20));

/// Runs one node until SIGTERM or SIGINT, or until it may promise nothing any more.
pub(crate) fn serve(options: &ServeOptions) -> Result<(), Failure> {
    let checked = options.check()?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Failure::Failed(format!("cannot start threads: {e}")))?.block_on(run(checked))
}

async fn run(checked: Checked) -> Result<(), Failure> {
    let redis = checked.own.redis.clone();
    let listener = TcpListener::bind(&redis).await;
    let listener = listener.map_err(|e| Failure::Failed(format!("cannot listen on --redis {redis}: {e}")))?;
    let found = known_layout(&checked)?;
    let charter = found.as_ref().map(Layout::charter).unwrap_or_default();
    let own = Advert { groups: found.as_ref().map(|l| l.groups), ..checked.own.clone() };
    let engine = checked.builder().advert(own.encode()).charter(charter).open().await.map_err(refused)?;
    let layout = match found {
        Some(layout) => layout,
        None => joined_layout(&engine, &checked).await?,
    };
    layout.keep(&checked.data).map_err(unfit)?;
    let mut events = engine.events();
    create_groups(&engine, &layout).await?;
    let own = Advert { groups: Some(layout.groups), ..own };
    engine.advertise(own.encode()).map_err(|e| Failure::Failed(e.to_string()))?;
    let shards = Checked::shards(layout.groups)?;
    let node = Arc::new(ServerNode::new(engine, checked.me, own, shards, checked.deadline));
    let routes = tokio::spawn(routes::listen(Arc::clone(&node)));
    tracing::info!(node = %checked.me, %redis, admin = %node.own.admin, "serving");
    let mut term = signal(SignalKind::terminate()).map_err(|e| Failure::Failed(e.to_string()))?;
    let mut int = signal(SignalKind::interrupt()).map_err(|e| Failure::Failed(e.to_string()))?;
    let end = tokio::select! {
        result = accept(listener, Arc::clone(&node)) => result,
        why = poisoned(&node.engine, &mut events) => Err(Failure::Failed(format!("this node promises nothing any more: {why}"))),
        _ = term.recv() => shut_down(&node).await,
        _ = int.recv() => shut_down(&node).await,
    };
    routes.abort();
    end
}

fn unfit(error: LayoutError) -> Failure {
    Failure::Config(vec![error.to_string()])
}

/// What the directory was founded with, compared with what is asked for; `None`: the cluster has to say it first.
fn known_layout(checked: &Checked) -> Result<Option<Layout>, Failure> {
    let kept = Layout::load(&checked.data).map_err(unfit)?;
    match (&checked.entry, checked.groups, kept) {
        (Entry::Founds(peers), Some(groups), _) => {
            let layout = Layout { groups, voters: peers.keys().copied().collect() };
            layout.check(&checked.data).map_err(unfit)?;
            Ok(Some(layout))
        }
        (_, Some(groups), Some(kept)) if groups != kept.groups => {
            let asked = Layout { groups, voters: kept.voters.clone() };
            asked.check(&checked.data).map_err(unfit)?;
            Ok(Some(kept))
        }
        (_, _, kept) => Ok(kept),
    }
}

/// A joiner's layout: what a member's advert says.
async fn joined_layout(engine: &Engine, checked: &Checked) -> Result<Layout, Failure> {
    let deadline = Instant::now() + ASK.0;
    loop {
        let adverts = engine.peers().into_iter().filter_map(|p| Advert::decode(&p.advert));
        if let Some(groups) = adverts.filter_map(|a| a.groups).next() {
            return match checked.groups {
                Some(asked) if asked != groups => {
                    Err(Failure::Config(vec![format!("--groups {asked}: the cluster that was joined has {groups}")]))
                }
                _ => Ok(Layout { groups, voters: BTreeSet::new() }),
            };
        }
        if Instant::now() >= deadline {
            return Err(Failure::Failed("no member of the cluster says how many groups there are".to_owned()));
        }
        tokio::time::sleep(ASK.1).await;
    }
}

/// What must be changed on the command line is told apart from what is wrong with disk or network.
fn refused(error: OpenError) -> Failure {
    match error {
        OpenError::Config(problems) => Failure::Config(problems),
        wrong @ OpenError::WrongIdentity { .. } => Failure::Config(vec![wrong.to_string()]),
        other => Failure::Failed(other.to_string()),
    }
}

/// What was founded and is not here yet. What has left with a change of members stays away; what came by one is here.
async fn create_groups(engine: &Engine, layout: &Layout) -> Result<(), Failure> {
    if layout.voters.is_empty() {
        return Ok(());
    }
    let mut creations = tokio::task::JoinSet::new();
    for (id, _, _) in Checked::shards(layout.groups)?.ranges().filter(|r| engine.status(r.0).is_err()) {
        let engine = engine.clone();
        let voters = layout.voters.clone();
        creations.spawn(async move { engine.create::<KvMachine>(spec(id, voters)).await.map(|_| ()) });
    }
    while let Some(created) = creations.join_next().await {
        match created.map_err(|e| Failure::Failed(e.to_string()))? {
            Ok(()) | Err(LifecycleError::Group(GroupError::Destroyed(_))) => {}
            Err(error) => return Err(Failure::Failed(error.to_string())),
        }
    }
    Ok(())
}

fn spec(id: GroupId, voters: BTreeSet<NodeId>) -> GroupSpec {
    GroupSpec { id, kind: KIND.to_owned(), voters, learners: BTreeSet::new() }
}

async fn accept(listener: TcpListener, node: Arc<ServerNode>) -> Result<(), Failure> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.map_err(|e| Failure::Failed(e.to_string()))?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    if let Err(error) = conn::serve(stream, node).await {
                        tracing::debug!(%error, "client connection ended");
                    }
                    drop(permit);
                });
            }
            // Out of descriptors: let connections end before the next try.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Why the node promises nothing any more. The state counts, not the event: a busy listener may lose events.
async fn poisoned(engine: &Engine, events: &mut pontoon::Events) -> String {
    loop {
        if let Some(why) = engine.poisoned() {
            return why;
        }
        match events.next(LISTEN).await {
            Some(Event::Quarantined { group, why }) => tracing::error!(%group, why, "replica quarantined"),
            Some(Event::OtherBirth { group, node, ours, theirs }) => {
                let (ours, theirs) = (format!("{ours:#x}"), format!("{theirs:#x}"));
                tracing::error!(%group, %node, ours, theirs, "created there with another spec: its messages are refused");
            }
            _ => {}
        }
    }
}

async fn shut_down(node: &ServerNode) -> Result<(), Failure> {
    let limits = Shutdown { hand_off: Duration::from_secs(5), drain: Duration::from_secs(2) };
    let report = node.engine.shutdown(limits).await;
    tracing::info!(?report, "stopped");
    Ok(())
}
