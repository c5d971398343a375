//! The task of a node that knows members' addresses but not who they are: it dials them while it has no link at all.
//!
//! Whoever answers shows itself in the handshake; from its table come the others, and then the usual dialers take over
//! (of each pair the lower id). So a joiner enters, and a node that moved to another address is found again.
//! Invariant: nobody is knocked at while any link is up; one connection of this task at a time.

use crate::context::Context;
use crate::dialer::connect_to;
use crate::driver::{End, Wire, run, shake};
use crate::handshake::Side;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(300);

/// Runs until `shutdown`.
pub(crate) async fn knock(cx: Arc<Context>, addresses: Vec<String>) {
    while !cx.shared.is_stopped() {
        for address in &addresses {
            if cx.shared.peers().iter().any(|p| p.link.lock().is_up()) {
                break;
            }
            knock_at(&cx, address).await;
        }
        cx.shared.unless_stopped(tokio::time::sleep(PAUSE)).await;
    }
}

async fn knock_at(cx: &Arc<Context>, address: &str) {
    let made = cx.shared.unless_stopped(async {
        let mut wire = Wire::new(cx, connect_to(cx, address).await?)?;
        let admitted = shake(cx, &mut wire, Side::Knocks).await?;
        Ok::<_, End>((wire, admitted))
    });
    match made.await {
        None => {}
        Some(Ok((wire, admitted))) => {
            cx.shared.note_knock(address, None);
            run(cx, wire, admitted, cx.shared.config.node).await;
        }
        Some(Err(end)) => {
            tracing::debug!(address, "nobody lets this node in: {end}");
            cx.shared.note_knock(address, Some(end.to_string()));
        }
    }
}
