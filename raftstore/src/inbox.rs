//! The receiving end of a channel, for an active object and for the thread around it.
//!
//! Leaves to others: the senders (`mail`), what the letters mean (`task`).
//! Invariant: letters come out in the order in which one sender put them in, `wait` or not.

use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// What an active object reads.
#[derive(Debug)]
pub struct Inbox<T> {
    /// The channel.
    rx: Receiver<T>,
    /// What `wait` received or was put back: comes before everything in the channel.
    ahead: Option<T>,
}

impl<T> Inbox<T> {
    /// Around a channel's receiving end.
    #[must_use]
    pub fn new(rx: Receiver<T>) -> Inbox<T> {
        Inbox { rx, ahead: None }
    }

    /// The next letter, if one waits.
    #[must_use]
    pub fn take(&mut self) -> Option<T> {
        self.ahead.take().or_else(|| self.rx.try_recv().ok())
    }

    /// The letter that was taken last comes again.
    pub fn put_back(&mut self, letter: T) {
        self.ahead = Some(letter);
    }

    /// Does nothing wait?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ahead.is_none() && self.rx.is_empty()
    }

    /// Returns once a letter waits, or after `at_most`. For threads only.
    pub fn wait(&mut self, at_most: Duration) {
        if self.ahead.is_some() {
            return;
        }
        match self.rx.recv_timeout(at_most) {
            Ok(letter) => self.ahead = Some(letter),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}
