//! The task that keeps the link to one peer with a higher id: dial, shake hands, carry, wait, again.
//!
//! `Link::next_dial` decides when; here is only the waiting and the connecting.
//! Invariant: at most one connection of this task exists at a time.

use crate::context::Context;
use crate::driver::{End, Wire, run, shake};
use crate::error::LocalFault;
use crate::handshake::Side;
use crate::link::NextDial;
use crate::peer::Peer;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Runs until `shutdown`.
pub(crate) async fn keep_link(cx: Arc<Context>, peer: Arc<Peer>) {
    while !cx.shared.is_stopped() {
        match take_dial(&cx, &peer) {
            NextDial::Now => dial(&cx, &peer).await,
            NextDial::At(at) => {
                tokio::select! {
                    () = cx.shared.sleep_until(at) => {}
                    () = peer.redial.notified() => {}
                    () = cx.shared.stopped() => {}
                }
            }
            NextDial::Never => {
                cx.shared.unless_stopped(peer.redial.notified()).await;
            }
        }
    }
}

/// When to dial; if now, the link knows that it is being done.
fn take_dial(cx: &Context, peer: &Peer) -> NextDial {
    let mut link = peer.link.lock();
    let next = link.next_dial(cx.shared.now());
    if next == NextDial::Now {
        link.on_dial();
    }
    next
}

async fn dial(cx: &Arc<Context>, peer: &Peer) {
    let made = cx.shared.unless_stopped(async {
        let mut wire = Wire::new(cx, connect(cx, peer).await?)?;
        let admitted = shake(cx, &mut wire, Side::Dials(peer.id)).await?;
        Ok::<_, End>((wire, admitted))
    });
    let end = match made.await {
        None => return,
        Some(Ok((wire, admitted))) => run(cx, wire, admitted, cx.shared.config.node).await,
        Some(Err(end)) => end,
    };
    let (now, mut link) = (cx.shared.now(), peer.link.lock());
    match end {
        End::Refused { why, .. } => {
            tracing::warn!(peer = peer.id.0, "no link: {why}");
            link.on_refused(now, why);
        }
        end => {
            tracing::debug!(peer = peer.id.0, "no link: {end}");
            link.on_dial_failed(now);
        }
    }
}

/// Resolves a peer and connects.
async fn connect(cx: &Context, peer: &Peer) -> Result<TcpStream, End> {
    let found = async { cx.resolver.resolve(peer.id).await.map_err(|e| LocalFault::NoAddress(e.0)) };
    connect_any(cx, found).await
}

/// Looks `HOST:PORT` up and connects.
pub(crate) async fn connect_to(cx: &Context, address: &str) -> Result<TcpStream, End> {
    let found = async { Ok(tokio::net::lookup_host(address).await?.collect()) };
    connect_any(cx, found).await
}

/// Each address in turn, all of it within the deadline.
async fn connect_any(
    cx: &Context,
    found: impl Future<Output = Result<Vec<SocketAddr>, LocalFault>>,
) -> Result<TcpStream, End> {
    let work = async {
        let found = found.await?;
        let mut last = LocalFault::NoAddress("the name has none".into());
        for address in found {
            match TcpStream::connect(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    };
    match timeout(cx.shared.config.dial_deadline, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(LocalFault::SlowDial.into()),
    }
}
