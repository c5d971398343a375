//! The final check: every acknowledged write is read back, and each group's contents are equal on its replicas.

use super::load::{History, KeyHistory};
use super::{failed, say};
use crate::cli::Failure;
use crate::client::{Answer, ClusterClient, Value};
use crate::harness::digests;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn check(nodes: &[String], groups: u16, history: &History) -> Result<(), Failure> {
    say(&format!(
        "\n{} writes acknowledged, {} refused (never appended), {} of unknown outcome",
        history.acknowledged, history.refused, history.unknown
    ));
    if history.acknowledged == 0 {
        return Err(failed("nothing was acknowledged: nothing was shown"));
    }
    let mut client = ClusterClient::new(nodes.to_vec(), DEADLINE);
    let mut lost = Vec::new();
    for (key, known) in &history.keys {
        let answer = client.call_retrying(key.as_bytes(), &[b"GET", key.as_bytes()], 200).await;
        if let Some(problem) = judge(known, &answer) {
            lost.push(format!("{key}: {problem}"));
        }
    }
    if !lost.is_empty() {
        return Err(failed(format!("{} of {} keys are wrong, e.g. {}", lost.len(), history.keys.len(), lost[0])));
    }
    say(&format!("read back: {} keys, each holds its last acknowledged write or a later one", history.keys.len()));
    for group in 1..=u64::from(groups) {
        let found = digests(nodes, group, DEADLINE).await;
        let found = found.ok_or_else(|| failed(format!("group {group}: replicas do not reach one applied index")))?;
        if found.iter().any(|f| f.1 != found[0].1) {
            return Err(failed(format!("group {group}: contents differ at index {}: {found:?}", found[0].0)));
        }
    }
    say(&format!("compared: {groups} groups, contents equal on all replicas at one applied index"));
    Ok(())
}

/// What is wrong with a key's value, if anything.
fn judge(known: &KeyHistory, answer: &Answer) -> Option<String> {
    let value = match answer {
        Answer::Done(Value::Bulk(value)) => std::str::from_utf8(value).ok().and_then(|v| v.parse::<u64>().ok()),
        Answer::Done(Value::Nil) => None,
        other => return Some(format!("cannot be read: {other:?}")),
    };
    let allowed = value == known.acknowledged || value.is_some_and(|v| known.unknown.contains(&v));
    (!allowed).then(|| format!("holds {value:?}, acknowledged {:?}, unknown {:?}", known.acknowledged, known.unknown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn only_the_last_acknowledged_or_a_later_unknown_value_will_do() {
        let known = KeyHistory { acknowledged: Some(5), unknown: vec![9] };
        let holds = |v: &'static str| Answer::Done(Value::Bulk(Bytes::from_static(v.as_bytes())));
        assert_eq!(judge(&known, &holds("5")), None);
        assert_eq!(judge(&known, &holds("9")), None);
        assert!(judge(&known, &holds("4")).is_some());
        assert!(judge(&known, &Answer::Done(Value::Nil)).is_some());
        assert!(judge(&known, &Answer::Refused("CLUSTERDOWN".into())).is_some());
        assert_eq!(judge(&KeyHistory::default(), &Answer::Done(Value::Nil)), None);
    }
}
