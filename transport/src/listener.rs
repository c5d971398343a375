//! The task that accepts connections and shakes hands with whoever dialled.
//!
//! Leaves to others: who is admitted (`Gatekeeper`), what happens then (`driver`).
//! Invariant: at most `max_half_open` connections are in their handshake; further ones are closed unread.

use crate::context::Context;
use crate::driver::{End, Wire, run, shake};
use crate::handshake::Side;
use crate::metrics::count_crowded;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Pause after the system refused to accept (no file descriptors left): existing links are kept, new ones wait.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Runs until `shutdown`; ends when all its connections have.
pub(crate) async fn accept(cx: Arc<Context>, listener: TcpListener) {
    let half_open = Arc::new(Semaphore::new(cx.shared.config.max_half_open));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = cx.shared.stopped() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => match half_open.clone().try_acquire_owned() {
                    Ok(permit) => drop(connections.spawn(serve(cx.clone(), socket, permit))),
                    Err(_) => count_crowded(),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer's connection");
                    cx.shared.unless_stopped(tokio::time::sleep(EXHAUSTED)).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One accepted connection.
async fn serve(cx: Arc<Context>, socket: TcpStream, permit: OwnedSemaphorePermit) {
    let made = cx.shared.unless_stopped(async {
        let mut wire = Wire::new(&cx, socket)?;
        let admitted = shake(&cx, &mut wire, Side::Accepts).await?;
        Ok::<_, End>((wire, admitted))
    });
    let made = made.await;
    drop(permit);
    match made {
        None => {}
        Some(Ok((wire, admitted))) => {
            let by = admitted.identity().node;
            run(&cx, wire, admitted, by).await;
        }
        Some(Err(End::Refused { peer, why })) => {
            tracing::warn!(peer = peer.0, "no link: {why}");
            // Shown for wanted peers only: a stranger's claims are not worth remembering.
            if let Some(peer) = cx.shared.peer(peer) {
                peer.link.lock().on_refused(cx.shared.now(), why);
            }
        }
        Some(Err(end)) => tracing::debug!("a connection was not admitted: {end}"),
    }
}
