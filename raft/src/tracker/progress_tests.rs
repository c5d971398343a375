//! Progress, row by row of raft-core 8.1, and the rules that no transcript shows.

use super::*;

const LIMITS: WindowLimits = WindowLimits { max_msgs: 2, max_bytes: 0 };

fn at(matched: u64, next: u64) -> Progress {
    Progress { matched: Index(matched), next: Index(next), ..Progress::new(Index(1)) }
}

#[test]
fn a_new_member_is_active_a_reset_one_is_not() {
    let mut progress = Progress::new(Index(4));
    assert!(progress.is_active() && !progress.is_paused());
    progress.reset(Index(9));
    assert_eq!((progress.matched(), progress.next()), (Index(0), Index(10)));
    assert!(!progress.is_active());
}

#[test]
fn to_probe_keeps_what_the_snapshot_brings() {
    let mut progress = at(3, 8);
    progress.become_snapshot(Index(20));
    assert!(progress.is_paused());
    progress.become_probe();
    assert_eq!((progress.next(), progress.sent_commit), (Index(21), Index(20)));
    progress.become_snapshot(Index(30));
    progress.abort_snapshot();
    assert_eq!((progress.next(), progress.sent_commit), (Index(4), Index(3)));
}

#[test]
fn an_empty_append_leaves_a_probe_running() {
    let mut progress = at(3, 4);
    progress.sent(0, 0);
    assert!(!progress.is_paused());
    progress.sent(1, 9);
    assert!(progress.is_paused());
    assert_eq!(progress.next(), Index(4));
}

#[test]
fn a_full_window_pauses_also_on_an_empty_append() {
    let mut progress = at(3, 4);
    progress.become_replicate(LIMITS);
    progress.sent(2, 9);
    assert_eq!((progress.next(), progress.is_paused()), (Index(6), false));
    progress.sent(1, 9);
    assert!(progress.is_paused() && progress.is_window_full());
    progress.resume();
    progress.sent(0, 0);
    assert!(progress.is_paused());
    progress.free_window_to(Index(5));
    assert!(!progress.is_window_full() && progress.is_paused());
}

#[test]
fn an_ack_is_news_once_and_moves_next_forward_only() {
    let mut progress = at(3, 4);
    assert!(!progress.acked(Index(3)));
    assert!(progress.acked(Index(7)));
    assert_eq!((progress.matched(), progress.next()), (Index(7), Index(8)));
}

#[test]
fn stale_rejections_change_nothing() {
    let mut replicating = at(5, 6);
    replicating.become_replicate(LIMITS);
    replicating.sent(3, 3);
    let before = replicating.clone();
    assert!(!replicating.rejected(Index(5), Index(2)));
    assert_eq!(replicating, before);
    assert!(replicating.rejected(Index(7), Index(2)));
    assert_eq!(replicating.next(), Index(6));

    let mut probing = at(5, 10);
    assert!(!probing.rejected(Index(8), Index(2)));
    assert!(probing.rejected(Index(9), Index(7)));
    assert_eq!(probing.next(), Index(8));
    assert!(probing.rejected(Index(7), Index(0)));
    assert_eq!(probing.next(), Index(6), "never below match + 1");
    assert!(probing.rejected(Index(5), Index(u64::MAX)));
    assert_eq!(probing.next(), Index(6));
}

#[test]
fn commit_is_news_only_while_the_member_can_use_it() {
    let mut progress = at(3, 6);
    progress.set_sent_commit(Index(4));
    assert!(progress.may_raise_commit(Index(5)));
    assert!(!progress.may_raise_commit(Index(4)));
    progress.set_sent_commit(Index(5));
    assert!(!progress.may_raise_commit(Index(9)), "it was told as much as it was sent");
}

#[test]
#[should_panic(expected = "matched: Index(0), next: Index(0)")]
fn an_append_begins_behind_what_is_known() {
    let _ = Progress::new(Index(0));
}
