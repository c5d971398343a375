//! Deadlines for futures that no executor helps: one thread, buckets of 10 ms, O(1) to arm and to disarm.
//!
//! Nearly every alarm is disarmed before it rings, so a disarmed one leaves nothing behind.
//! Invariant: an armed alarm's waker is called once, at most two buckets after its deadline; never before it.

use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Width of a bucket.
const STEP: Duration = Duration::from_millis(10);
/// Locks to spread callers over.
const SHARDS: usize = 8;

/// See the file's head.
pub(crate) struct Timer {
    /// Bucket 0 begins here.
    origin: Instant,
    /// Alarms by bucket; a caller sticks to a shard.
    shards: [Mutex<BTreeMap<u64, Bucket>>; SHARDS],
    /// Alarms armed in all shards.
    armed: AtomicUsize,
    /// Number of the next alarm; picks its shard too.
    next: AtomicU64,
    /// Should the thread end?
    stop: Mutex<bool>,
    /// Tells the thread that an alarm was armed, or to stop.
    changed: Condvar,
    /// The thread, until `stop`.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Alarms that ring together, by number.
type Bucket = HashMap<u64, Waker>;

/// Where an armed alarm is. The number is never used again, so a place outlives its bucket harmlessly.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    bucket: u64,
    number: u64,
}

impl Timer {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Arc<Timer>> {
        let timer = Arc::new(Timer {
            origin: Instant::now(),
            shards: Default::default(),
            armed: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            stop: Mutex::new(false),
            changed: Condvar::new(),
            thread: Mutex::new(None),
        });
        let held = Arc::downgrade(&timer);
        let thread = thread::Builder::new().name("pontoon-timer".to_owned()).spawn(move || {
            while let Some(timer) = held.upgrade() {
                if timer.wait() {
                    return;
                }
                timer.ring(timer.bucket_of(Instant::now()));
            }
        })?;
        *timer.thread.lock() = Some(thread);
        Ok(timer)
    }

    /// Ends the thread. Alarms armed from now on never ring.
    pub(crate) fn stop(&self) {
        *self.stop.lock() = true;
        self.changed.notify_all();
        let thread = self.thread.lock().take();
        // The last handle may be dropped on the timer's own thread: nobody to join then.
        if let Some(thread) = thread.filter(|t| t.thread().id() != thread::current().id()) {
            let _ended = thread.join();
        }
    }

    /// One bucket's length if alarms are armed; else until one is. True: stop.
    fn wait(&self) -> bool {
        let mut stop = self.stop.lock();
        if !*stop && self.armed.load(Ordering::SeqCst) == 0 {
            // Not for ever: the engine may be dropped without a shutdown.
            self.changed.wait_for(&mut stop, STEP * 100);
        } else if !*stop {
            self.changed.wait_for(&mut stop, STEP);
        }
        *stop
    }

    /// Wakes everything in buckets below `now`.
    fn ring(&self, now: u64) {
        for shard in &self.shards {
            let due = {
                let mut buckets = shard.lock();
                let later = buckets.split_off(&now);
                std::mem::replace(&mut *buckets, later)
            };
            let wakers: Vec<Waker> = due.into_values().flat_map(HashMap::into_values).collect();
            self.armed.fetch_sub(wakers.len(), Ordering::SeqCst);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn bucket_of(&self, at: Instant) -> u64 {
        let steps = at.saturating_duration_since(self.origin).as_nanos() / STEP.as_nanos();
        u64::try_from(steps).unwrap_or(u64::MAX)
    }

    fn arm(&self, deadline: Instant, waker: &Waker) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = Place { shard: number as usize % SHARDS, bucket: self.bucket_of(deadline), number };
        let mut buckets = self.shards[place.shard].lock();
        buckets.entry(place.bucket).or_default().insert(number, waker.clone());
        // Counted under the shard's lock, so that `ring` never subtracts what is not yet added.
        let first = self.armed.fetch_add(1, Ordering::SeqCst) == 0;
        drop(buckets);
        if first {
            // Between the thread's look at `armed` and its wait lies this lock.
            drop(self.stop.lock());
            self.changed.notify_all();
        }
        place
    }

    /// False: it has rung.
    fn rearm(&self, place: Place, waker: &Waker) -> bool {
        let mut buckets = self.shards[place.shard].lock();
        match buckets.get_mut(&place.bucket).and_then(|b| b.get_mut(&place.number)) {
            Some(old) => {
                old.clone_from(waker);
                true
            }
            None => false,
        }
    }

    fn disarm(&self, place: Place) {
        let mut buckets = self.shards[place.shard].lock();
        let Some(bucket) = buckets.get_mut(&place.bucket) else { return };
        if bucket.remove(&place.number).is_some() {
            self.armed.fetch_sub(1, Ordering::SeqCst);
        }
        if bucket.is_empty() {
            buckets.remove(&place.bucket);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One future's deadline. Disarmed when dropped.
pub(crate) struct Alarm {
    timer: Arc<Timer>,
    place: Option<Place>,
}

impl Alarm {
    pub(crate) fn new(timer: &Arc<Timer>) -> Alarm {
        Alarm { timer: Arc::clone(timer), place: None }
    }

    /// Ready once `deadline` has passed. A deadline that changed counts after `reset`.
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &Context<'_>) -> Poll<()> {
        if Instant::now() >= deadline {
            self.reset();
            return Poll::Ready(());
        }
        if !self.place.is_some_and(|p| self.timer.rearm(p, cx.waker())) {
            self.place = Some(self.timer.arm(deadline, cx.waker()));
        }
        Poll::Pending
    }

    /// Forgets the deadline armed last.
    pub(crate) fn reset(&mut self) {
        if let Some(place) = self.place.take() {
            self.timer.disarm(place);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.reset();
    }
}

/// Sleeps on any executor.
pub(crate) async fn sleep_until(timer: &Arc<Timer>, deadline: Instant) {
    let mut alarm = Alarm::new(timer);
    std::future::poll_fn(|cx| alarm.poll(deadline, cx)).await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::task::Wake;

    struct Thread(thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    #[test]
    fn rings_after_the_deadline_and_a_disarmed_alarm_leaves_nothing() {
        let timer = Timer::start().unwrap();
        let waker = Waker::from(Arc::new(Thread(thread::current())));
        let cx = Context::from_waker(&waker);
        let began = Instant::now();
        let deadline = began + Duration::from_millis(30);
        let mut alarm = Alarm::new(&timer);
        while alarm.poll(deadline, &cx).is_pending() {
            thread::park_timeout(Duration::from_secs(10));
        }
        assert!(Instant::now() >= deadline && began.elapsed() < Duration::from_secs(10));

        let far = Instant::now() + Duration::from_secs(3600);
        let mut alarms: Vec<Alarm> = (0..100).map(|_| Alarm::new(&timer)).collect();
        assert!(alarms.iter_mut().all(|a| a.poll(far, &cx).is_pending()));
        assert_eq!(timer.armed.load(Ordering::SeqCst), 100);
        drop(alarms);
        assert_eq!(timer.armed.load(Ordering::SeqCst), 0);
        assert!(timer.shards.iter().all(|s| s.lock().is_empty()));
    }
}
