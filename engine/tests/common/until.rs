//! Waiting for what a test can see, never for time to pass. Shared by the tests of engine and server.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until there is an answer. `Err` is what was seen instead: the last words of a test whose patience ends.
pub async fn until<T, E: Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}; seen: {seen:?}"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks until a condition holds.
pub async fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, async || if holds() { Ok(()) } else { Err("it does not hold") }).await;
}
