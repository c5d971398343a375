//! From a node id to addresses, asked anew for every dial: nothing resolved is stored.
//!
//! Leaves to others: where the names come from (`--cluster`, or the addresses that peers have shown).

use pontoon_raftstore::ids::NodeId;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Nobody knows the address; the text says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ResolveError(pub String);

/// Who knows addresses.
pub trait Resolver: Send + Sync {
    /// Where the node may be reached now, best first.
    fn resolve(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<SocketAddr>, ResolveError>>;
}

/// `HOST:PORT` by node, as `--cluster` gives them; the host is looked up at every dial.
#[derive(Clone, Debug, Default)]
pub struct StaticResolver(pub BTreeMap<NodeId, String>);

impl Resolver for StaticResolver {
    fn resolve(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<SocketAddr>, ResolveError>> {
        Box::pin(async move {
            let name = self.0.get(&node).ok_or_else(|| ResolveError(format!("node {node} is not listed")))?;
            let found = tokio::net::lookup_host(name).await.map_err(|e| ResolveError(format!("{name}: {e}")))?;
            Ok(found.collect())
        })
    }
}
