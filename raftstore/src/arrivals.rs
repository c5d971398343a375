//! Where things arrive for a caller who takes them many at a time, and when he is woken for them.
//!
//! Leaves to others: what arrives. Invariant: whoever found nothing and left a waker is woken after something arrived; by the
//! end of what `Wakeups` stands for.

use parking_lot::Mutex;
use std::task::{Context, Poll, Waker};

/// Where things arrive for one caller, from any thread.
pub struct Arrivals<T> {
    inside: Mutex<Arrived<T>>,
}

struct Arrived<T> {
    things: Vec<T>,
    /// Who sleeps until there are some.
    waker: Option<Waker>,
}

impl<T> Default for Arrivals<T> {
    fn default() -> Arrivals<T> {
        Arrivals { inside: Mutex::new(Arrived { things: Vec::new(), waker: None }) }
    }
}

impl<T> Arrivals<T> {
    /// Adds some and wakes who sleeps.
    pub fn put(&self, things: impl Iterator<Item = T>) {
        self.put_with(things, &mut Wakeups::default());
    }

    /// Adds some; who sleeps is woken with the others.
    pub fn put_with(&self, things: impl Iterator<Item = T>, wakeups: &mut Wakeups) {
        let mut inside = self.inside.lock();
        inside.things.extend(things);
        wakeups.0.extend(inside.waker.take());
    }

    /// All there is, in exchange for an empty list.
    #[must_use]
    pub fn take(&self, empty: Vec<T>) -> Vec<T> {
        std::mem::replace(&mut self.inside.lock().things, empty)
    }

    /// Ready if there is something; otherwise the context's waker is called as soon as there is.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut inside = self.inside.lock();
        if !inside.things.is_empty() {
            return Poll::Ready(());
        }
        match &mut inside.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// Callers who sleep no longer: woken together when this goes, for instance at the end of a turn. Woken for its first answer,
/// a caller takes the processor from the thread that has all the others, comes for few and submits few.
#[derive(Default)]
pub struct Wakeups(Vec<Waker>);

impl Drop for Wakeups {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn sleepers_are_woken_once_when_everything_is_there() {
        let (arrivals, woken) = (Arrivals::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        assert!(arrivals.poll(&Context::from_waker(&waker)).is_pending());
        let mut wakeups = Wakeups::default();
        arrivals.put_with([1, 2].into_iter(), &mut wakeups);
        arrivals.put_with([3].into_iter(), &mut wakeups);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        drop(wakeups);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(arrivals.poll(&Context::from_waker(&waker)).is_ready());
        assert_eq!(arrivals.take(Vec::new()), [1, 2, 3]);
    }
}
