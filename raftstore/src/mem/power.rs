//! The power of one simulated node: it can be cut at a counted point inside a turn.
//!
//! Every twin passes its crash points here. Leaves to others: which point is armed (the simulator), what a medium keeps.
//! Invariant: power that is off stays off; the next start of the node gets a new `Power`.

use parking_lot::Mutex;

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Where a node can die. Each is passed by a twin, so that every one is reachable and counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CrashPoint { $($(#[$doc])* $name),* }

        impl CrashPoint {
            /// All of them.
            pub const ALL: &[CrashPoint] = &[$(CrashPoint::$name),*];
        }
    };
}

points! {
    /// Nothing of the batch is anywhere.
    BeforeWrite,
    /// The batch is handed to the disk, but not synced: it may survive.
    DuringWrite,
    /// The batch is durable, nobody knows.
    AfterWrite,
    /// A run was about to be staged.
    BeforeApply,
    /// A run is staged.
    AfterApply,
    /// A stage was about to become visible.
    BeforeCommit,
    /// A stage is visible, nobody was answered.
    AfterCommit,
    /// Answers were about to leave.
    BeforeReply,
    /// Answers left, the replica does not know.
    AfterReply,
    /// A flush was about to begin.
    BeforeDurable,
    /// The flush is done, nobody knows.
    AfterDurable,
    /// A restore was about to begin: its intent is durable.
    BeforeRestore,
    /// A restore has written half.
    DuringRestore,
    /// The restore is durable, the install is not recorded.
    AfterRestore,
    /// A snapshot file was about to become permanent.
    BeforePublish,
    /// A snapshot file is permanent, nobody knows.
    AfterPublish,
    /// A frame was about to leave.
    BeforeSend,
}

/// Power of one start of one node.
#[derive(Debug, Default)]
pub struct Power {
    /// All state.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Cut?
    off: bool,
    /// Where to cut, and how many passes to let through before.
    armed: Option<(CrashPoint, u32)>,
    /// Where it was cut.
    cut_at: Option<CrashPoint>,
}

impl Power {
    /// The node passes a crash point. False: the power is off, nothing may have an effect any more.
    pub fn pass(&self, point: CrashPoint) -> bool {
        let mut inner = self.inner.lock();
        if let Some((at, left)) = &mut inner.armed
            && *at == point
        {
            if *left > 0 {
                *left -= 1;
            } else {
                inner.off = true;
                inner.armed = None;
                inner.cut_at = Some(point);
            }
        }
        !inner.off
    }

    /// Is it on?
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.inner.lock().off
    }

    /// Cuts the power at the pass of `point` after `skip` others.
    pub fn arm(&self, point: CrashPoint, skip: u32) {
        self.inner.lock().armed = Some((point, skip));
    }

    /// It will not be cut at a point any more.
    pub fn disarm(&self) {
        self.inner.lock().armed = None;
    }

    /// Cuts it now.
    pub fn cut(&self) {
        self.inner.lock().off = true;
    }

    /// At which armed point it was cut, if at one.
    #[must_use]
    pub fn cut_at(&self) -> Option<CrashPoint> {
        self.inner.lock().cut_at
    }
}
