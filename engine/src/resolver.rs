//! Where nodes are: asked at every dial, nothing resolved is stored on disk (addresses change under an orchestrator).
//!
//! Leaves to others: dialling (transport). Invariant: an address is never trusted across a dial; the handshake proves
//! who answers.

use pontoon_raftstore::ids::NodeId;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// A boxed future.
pub type BoxFut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Finds a node's peer address.
pub trait Resolver: Send + Sync + 'static {
    /// `host:port` of the node's peer listener, as of now.
    fn resolve(&self, node: NodeId) -> BoxFut<'_, io::Result<String>>;
}

/// A fixed table.
impl Resolver for BTreeMap<NodeId, String> {
    fn resolve(&self, node: NodeId) -> BoxFut<'_, io::Result<String>> {
        let found = self.get(&node).cloned();
        let missing = move || io::Error::new(io::ErrorKind::NotFound, format!("no address is known for node {node}"));
        Box::pin(async move { found.ok_or_else(missing) })
    }
}

/// Waits for a future on this thread. For set-up only.
pub(crate) fn block_on<T>(mut future: BoxFut<'_, T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
