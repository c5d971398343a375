//! One client connection: pipelines in, answers in order out.
//!
//! What has arrived is one pipeline: its commands are dealt to lanes, one per group; answers are put back in order.
//! Leaves to others: running lanes at once (`lanes`), the order within a group (`lane`), sockets' acceptance (`run::serve`).
//! Invariant: a connection holds at most `PIPELINE` parsed commands and their answers.

use crate::cmd::{Command, ConnectionOp, ServerOp, parse};
use crate::lane::KeyCommand;
use crate::lanes::{Dealt, Lanes};
use crate::node::ServerNode;
use crate::resp::{Limits, Protocol, Reply, RequestParser};
use crate::{routes, server_info, topology};
use bytes::{Bytes, BytesMut};
use pontoon::GroupId;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Most commands taken at once.
const PIPELINE: usize = 4096;

struct Connection {
    node: Arc<ServerNode>,
    lanes: Lanes,
    id: u64,
    protocol: Protocol,
    read_only: bool,
    name: Bytes,
    closing: bool,
}

/// A pipeline being answered.
#[derive(Default)]
struct Pipeline {
    /// In order; `None` while a lane works on it. The protocol that was spoken when it was asked.
    answers: Vec<(Option<Reply>, Option<Protocol>)>,
    lanes: Dealt,
}

/// Serves until the client leaves, misbehaves, or says QUIT.
pub(crate) async fn serve(mut stream: TcpStream, node: Arc<ServerNode>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let id = node.next_connection();
    let mut connection = Connection::new(node, id);
    let mut parser = RequestParser::new(Limits::default());
    let (mut unread, mut out) = (BytesMut::with_capacity(16 << 10), BytesMut::new());
    while !connection.closing {
        let mut pipeline = connection.take_pipeline(&mut parser, &mut unread);
        if pipeline.answers.is_empty() {
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
            continue;
        }
        let refusals = connection.run_lanes(&mut pipeline).await;
        if !refusals.is_empty() {
            connection.refuse_followers(&stream, &mut parser, &mut unread, &mut pipeline, &refusals).await;
        }
        connection.node.commands.fetch_add(pipeline.answers.len() as u64, Ordering::Relaxed);
        for (reply, protocol) in pipeline.answers.drain(..) {
            let reply = reply.unwrap_or_else(|| Reply::error("ERR outcome unknown: the command's lane ended early"));
            reply.write(protocol.unwrap_or(Protocol::Resp2), &mut out);
        }
        stream.write_all_buf(&mut out).await?;
    }
    stream.shutdown().await
}

impl Connection {
    fn new(node: Arc<ServerNode>, id: u64) -> Connection {
        let lanes = Lanes::new(Arc::clone(&node));
        let protocol = Protocol::Resp2;
        Connection { node, lanes, id, protocol, read_only: false, name: Bytes::new(), closing: false }
    }

    /// Parses what has arrived, answers what needs no group, deals the rest to lanes.
    fn take_pipeline(&mut self, parser: &mut RequestParser, unread: &mut BytesMut) -> Pipeline {
        let mut pipeline = Pipeline::default();
        while pipeline.answers.len() < PIPELINE && !self.closing {
            match parser.poll(unread) {
                Ok(Some(args)) => self.deal(&args, &mut pipeline),
                Ok(None) => break,
                Err(error) => {
                    pipeline.answers.push((Some(Reply::error(format!("ERR {error}"))), Some(self.protocol)));
                    self.closing = true;
                }
            }
        }
        pipeline
    }

    fn deal(&mut self, args: &[Bytes], pipeline: &mut Pipeline) {
        let at = pipeline.answers.len();
        let key_command = match parse(args) {
            Ok(Command::Read(command)) => KeyCommand::Read { command, local: self.read_only },
            Ok(Command::Write(command)) => KeyCommand::Write(command),
            Ok(Command::Connection(op)) => {
                let reply = self.about_connection(op);
                return pipeline.answers.push((Some(reply), Some(self.protocol)));
            }
            Ok(Command::Server(op)) => {
                let reply = about_server(&self.node, op);
                return pipeline.answers.push((Some(reply), Some(self.protocol)));
            }
            Err(reply) => return pipeline.answers.push((Some(reply), Some(self.protocol))),
        };
        let group = self.node.group_of(key_command.slot());
        pipeline.lanes.entry(group).or_default().push((at, key_command));
        pipeline.answers.push((None, Some(self.protocol)));
    }

    /// Runs all lanes at once. The groups in which something was refused.
    async fn run_lanes(&mut self, pipeline: &mut Pipeline) -> BTreeSet<GroupId> {
        let (lanes, answers) = (std::mem::take(&mut pipeline.lanes), &mut pipeline.answers);
        self.lanes.run(lanes, |at, reply| answers[at].0 = Some(reply)).await
    }

    /// Commands that the client sent before it could see a refusal, for the refused groups: refused too.
    async fn refuse_followers(
        &mut self,
        stream: &TcpStream,
        parser: &mut RequestParser,
        unread: &mut BytesMut,
        pipeline: &mut Pipeline,
        refused: &BTreeSet<GroupId>,
    ) {
        while stream.try_read_buf(unread).is_ok_and(|n| n > 0) && unread.len() < (1 << 20) {}
        let mut behind = self.take_pipeline(parser, unread);
        for id in refused {
            for (at, _) in behind.lanes.remove(id).unwrap_or_default() {
                behind.answers[at].0 =
                    Some(Reply::error("TRYAGAIN a command before this one in the pipeline was refused"));
            }
        }
        self.run_lanes(&mut behind).await;
        pipeline.answers.append(&mut behind.answers);
    }

    fn about_connection(&mut self, op: ConnectionOp) -> Reply {
        match op {
            ConnectionOp::Reply(reply) => reply,
            ConnectionOp::Hello(protocol) => {
                self.protocol = protocol.unwrap_or(self.protocol);
                server_info::hello(&self.node, self.id, self.protocol)
            }
            ConnectionOp::ReadOnly(on) => {
                self.read_only = on;
                Reply::OK
            }
            ConnectionOp::ClientId => Reply::Int(self.id as i64),
            ConnectionOp::GetName => Reply::Bulk(self.name.clone()),
            ConnectionOp::SetName(name) => {
                self.name = name;
                Reply::OK
            }
            ConnectionOp::Quit => {
                self.closing = true;
                Reply::OK
            }
        }
    }
}

fn about_server(node: &ServerNode, op: ServerOp) -> Reply {
    match op {
        ServerOp::Reply(reply) => reply,
        ServerOp::Info(section) => server_info::info(node, section.as_deref()),
        ServerOp::Slots => topology::slots(node),
        ServerOp::Shards => topology::shards(node),
        ServerOp::Nodes => topology::nodes(node),
        ServerOp::ClusterInfo => topology::info(node),
        ServerOp::MyId => Reply::text(topology::name(node.me)),
        ServerOp::Applied => server_info::applied(node),
        ServerOp::Routes => routes::told(node),
        ServerOp::Digest(group) => server_info::digest(node, group),
    }
}
