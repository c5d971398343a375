//! The classic example: a replicated key-value store over HTTP, one process per node. Its session is in the README.
//!
//! `raftexample NODE HTTP PEER,PEER,..` starts a founder; the peer addresses are those of nodes 1, 2, .. in this order.
//! `raftexample NODE HTTP PEER --join PEER,..` starts a node that enters through others; its own address comes first.
//! What a node keeps is in the directory `raftexample-NODE`, so the same line starts it again after a kill.
//!
//! `PUT /KEY`, `GET /KEY`; `POST /NODE` with its peer address gives a node that has entered a copy and a vote,
//! `DELETE /NODE` takes them away. Any node with a copy may be asked: with `curl -L` a change finds the leader by itself.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, header::LOCATION, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use pontoon::kv::{KvCommand, KvMachine, KvStore, When};
use pontoon::{AdminError, Builder, Engine, GroupId, GroupSpec, NodeId, ProposeError, Read, Target, members_of};
use std::collections::{BTreeMap, BTreeSet};
use tokio::net::TcpListener;

/// The one group; a database would have a group per shard.
const GROUP: GroupId = GroupId(1);

type Answer = Response<Full<Bytes>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (args, via) = match &args[..] {
        [args @ .., flag, via] if flag == "--join" => (args, Some(via)),
        args => (args, None),
    };
    let [node, http, peers] = args else { return Err("usage: raftexample NODE HTTP PEER,.. [--join PEER,..]".into()) };
    let me = NodeId(node.parse()?);
    let builder = Engine::builder(format!("raftexample-{me}"), me).advert(http.clone()).kind("kv", KvStore::default());
    let engine = match via {
        Some(via) => builder.listen(peers).join(&via.split(',').collect::<Vec<_>>()).open().await?,
        None => found(builder, me, peers).await?,
    };
    let listener = TcpListener::bind(http).await?;
    loop {
        let (stream, engine) = (listener.accept().await?.0, engine.clone());
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(&engine, request));
            http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await
        });
    }
}

/// Founders are told each other's addresses; who joins later tells its own.
async fn found(builder: Builder, me: NodeId, peers: &str) -> Result<Engine, Failure> {
    let peers: BTreeMap<NodeId, String> = (1..).map(NodeId).zip(peers.split(',').map(str::to_owned)).collect();
    let voters: BTreeSet<NodeId> = peers.keys().copied().collect();
    let own = peers.get(&me).ok_or("this node has no peer address")?.clone();
    let engine = builder.found(voters.clone()).listen(&own).resolver(peers).open().await?;
    engine.create::<KvMachine>(GroupSpec { id: GROUP, kind: "kv".into(), voters, learners: BTreeSet::new() }).await?;
    Ok(engine)
}

async fn answer(engine: &Engine, request: Request<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, 1 << 20).collect().await?.to_bytes();
    let path = head.uri.path();
    let answered = match head.method {
        Method::PUT => put(engine, path, body).await,
        Method::GET => get(engine, path).await,
        Method::POST => change(engine, path, Some(body)).await,
        Method::DELETE => change(engine, path, None).await,
        _ => Ok(say(405, "PUT, GET, POST or DELETE\n")),
    };
    Ok(answered.unwrap_or_else(|e| say(503, e.to_string())))
}

/// Durable on a majority and applied here when it returns.
async fn put(engine: &Engine, path: &str, value: Bytes) -> Result<Answer, Failure> {
    let key = Bytes::copy_from_slice(path.as_bytes());
    let command = KvCommand::Set { key, value, when: When::Always, get: false };
    match engine.group::<KvMachine>(GROUP)?.propose(command.encode()).await {
        Ok(_) => Ok(say(204, "")),
        Err(ProposeError::NotLeader { leader: Some(leader) }) => redirect(engine, leader.node, path),
        // 504: it may have been written, or may be later; the client has to look before it repeats anything.
        Err(e) => Ok(say(if e.never_appended() { 503 } else { 504 }, e.to_string())),
    }
}

/// Linearizable, on any node: sees every write that was answered before.
async fn get(engine: &Engine, path: &str) -> Result<Answer, Failure> {
    let view = engine.group::<KvMachine>(GROUP)?.read(Read::Linearizable).await?;
    Ok(view.get(path.as_bytes())?.map_or_else(|| say(404, "no such key\n"), |value| say(200, value)))
}

/// A node gets a vote if it is there, at this peer address; without an address it leaves. May be asked again.
async fn change(engine: &Engine, path: &str, at: Option<Bytes>) -> Result<Answer, Failure> {
    let Ok(node) = path.trim_start_matches('/').parse().map(NodeId) else { return Ok(say(400, "/NODE is a number\n")) };
    let group = engine.group::<KvMachine>(GROUP)?;
    let status = group.status();
    let (mut voters, learners) = members_of(&status);
    match at {
        Some(at) if engine.peers().iter().any(|p| p.node == node && p.address.as_bytes() == at) => voters.insert(node),
        Some(_) => return Ok(say(503, "no such node at this address: start it, with --join\n")),
        None => voters.remove(&node),
    };
    match group.reconfigure(Target { voters, learners, if_conf: Some(status.conf_index), promote_lag: 0 }).await {
        Ok(_) => Ok(say(204, "")),
        Err(AdminError::NotLeader { leader: Some(leader) }) => redirect(engine, leader.node, path),
        Err(e) => Ok(say(503, e.to_string())),
    }
}

/// Each node shows its HTTP address to the others in the handshake.
fn redirect(engine: &Engine, to: NodeId, path: &str) -> Result<Answer, Failure> {
    let peer = engine.peers().into_iter().find(|p| p.node == to).ok_or("no leader is known")?;
    let location = format!("http://{}{path}", String::from_utf8_lossy(&peer.advert));
    Ok(Response::builder().status(307).header(LOCATION, location).body(Full::default())?)
}

fn say(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(Full::new(body.into())).expect("a constant of this file")
}
