//! The classic example: a replicated key-value store over HTTP, one process per node. Its session is in the README.
//!
//! `raftexample NODE HTTP PEER,PEER,..` starts a node; the peer addresses are those of nodes 1, 2, .. in this order. What a
//! node keeps is in the directory `raftexample-NODE`, so the same line starts it again after a kill.
//!
//! `PUT /KEY` and `GET /KEY` may be sent to any node: with `curl -L` a write finds the leader by itself.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::LOCATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use pontoon::kv::{KvCommand, KvMachine, KvStore, When};
use pontoon::{Engine, GroupId, GroupSpec, NodeId, ProposeError, Read};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use tokio::net::TcpListener;

/// The one group; a database would have a group per shard.
const GROUP: GroupId = GroupId(1);

type Answer = Response<Full<Bytes>>;
type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [node, http, peers] = &args[..] else { return Err("usage: raftexample NODE HTTP PEER,PEER,..".into()) };
    let me = NodeId(node.parse()?);
    let peers: BTreeMap<NodeId, String> = (1..).map(NodeId).zip(peers.split(',').map(str::to_owned)).collect();
    let voters: BTreeSet<NodeId> = peers.keys().copied().collect();
    let engine = Engine::builder(format!("raftexample-{node}"), me)
        .found(voters.clone())
        .listen(peers.get(&me).ok_or("this node has no peer address")?)
        .resolver(peers)
        .advert(http.clone())
        .kind("kv", KvStore::default())
        .open()
        .await?;
    engine.create::<KvMachine>(GroupSpec { id: GROUP, kind: "kv".into(), voters, learners: BTreeSet::new() }).await?;
    serve(engine, TcpListener::bind(http).await?).await
}

/// Answers every connection in a task of its own, until the process is killed.
async fn serve(engine: Engine, listener: TcpListener) -> Result<(), Failure> {
    loop {
        let (stream, _) = listener.accept().await?;
        let engine = engine.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(&engine, request));
            http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await
        });
    }
}

async fn answer(engine: &Engine, request: Request<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, 1 << 20).collect().await?.to_bytes();
    let path = head.uri.path();
    let answered = match head.method {
        Method::PUT => put(engine, path, body).await,
        Method::GET => get(engine, path).await,
        _ => Ok(say(405, "PUT or GET\n")),
    };
    Ok(answered.unwrap_or_else(|e| say(503, e.to_string())))
}

/// Durable on a majority and applied here when it returns.
async fn put(engine: &Engine, path: &str, value: Bytes) -> Result<Answer, Failure> {
    let key = Bytes::copy_from_slice(path.as_bytes());
    let command = KvCommand::Set { key, value, when: When::Always, get: false };
    match engine.group::<KvMachine>(GROUP)?.propose(command.encode()).await {
        Ok(_) => Ok(say(204, "")),
        Err(ProposeError::NotLeader { leader: Some(leader) }) => Ok(redirect(engine, leader.node, path)),
        Err(e) if e.never_appended() => Ok(say(503, e.to_string())),
        // It may have been written, or may be later: the client has to look before it repeats anything.
        Err(e) => Ok(say(504, e.to_string())),
    }
}

/// Linearizable, on any node: sees every write that was answered before.
async fn get(engine: &Engine, path: &str) -> Result<Answer, Failure> {
    let view = engine.group::<KvMachine>(GROUP)?.read(Read::Linearizable).await?;
    Ok(view.get(path.as_bytes())?.map_or_else(|| say(404, "no such key\n"), |value| say(200, value)))
}

/// Each node shows its HTTP address to the others in the handshake.
fn redirect(engine: &Engine, to: NodeId, path: &str) -> Answer {
    let Some(peer) = engine.peers().into_iter().find(|p| p.node == to) else { return say(503, "no leader is known\n") };
    let location = format!("http://{}{path}", String::from_utf8_lossy(&peer.advert));
    let mut answer = say(307, "");
    location.parse().into_iter().for_each(|l| drop(answer.headers_mut().insert(LOCATION, l)));
    answer
}

fn say(status: u16, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status.try_into().expect("a constant of this file");
    answer
}
