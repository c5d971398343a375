//! The linearizability checker against a brute force over all orders, and against histories that are known by heart.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use pontoon_raftstore::testing::linearizability::{Call, KvCall, KvModel, KvVerdict, Model, Verdict, check, check_kv};
use pontoon_raftstore::testing::{KvOp, KvRet, Map, Replay, Rng, seeds};

const BUDGET: u64 = 1_000_000;

fn key(k: u64) -> Bytes {
    format!("k{k}").into()
}

fn put(k: u64, v: u64, began: u64, ended: Option<u64>) -> KvCall {
    Call { op: KvOp::Put(vec![(key(k), v.to_string().into())]), began, ended: ended.map(|e| (e, KvRet::Done)) }
}

fn get(k: u64, v: Option<u64>, began: u64, ended: u64) -> KvCall {
    let value = v.map(|v| Bytes::from(v.to_string()));
    Call { op: KvOp::Get(vec![key(k)]), began, ended: Some((ended, KvRet::Values(vec![value]))) }
}

#[test]
fn known_by_heart() {
    // A read after a write sees it.
    assert_eq!(check_kv(&[put(1, 1, 0, Some(1)), get(1, Some(1), 2, 3)], BUDGET), KvVerdict::Ok);
    let stale = [put(1, 1, 0, Some(1)), put(1, 2, 2, Some(3)), get(1, Some(1), 4, 5)];
    assert!(matches!(check_kv(&stale, BUDGET), KvVerdict::Violation { .. }));
    // Overlapping: either value, but once the new one was seen there is no way back.
    let write = put(1, 2, 0, Some(10));
    let forth = [put(1, 1, 0, Some(0)), write.clone(), get(1, Some(1), 1, 2), get(1, Some(2), 3, 4)];
    assert_eq!(check_kv(&forth, BUDGET), KvVerdict::Ok);
    let back = [write, get(1, Some(2), 1, 2), get(1, None, 3, 4)];
    assert!(matches!(check_kv(&back, BUDGET), KvVerdict::Violation { .. }));
    // An unknown write may take effect late, or never, but not twice.
    let late = [put(1, 1, 0, None), get(1, None, 5, 6), get(1, Some(1), 7, 8)];
    assert_eq!(check_kv(&late, BUDGET), KvVerdict::Ok);
    assert_eq!(check_kv(&[put(1, 1, 0, None), get(1, None, 5, 6)], BUDGET), KvVerdict::Ok);
    let twice = [put(1, 1, 0, None), put(1, 2, 3, Some(4)), get(1, Some(1), 1, 2), get(1, Some(1), 5, 6)];
    assert!(matches!(check_kv(&twice, BUDGET), KvVerdict::Violation { .. }));
    // Nor before it began.
    assert!(matches!(check_kv(&[get(1, Some(1), 0, 1), put(1, 1, 2, None)], BUDGET), KvVerdict::Violation { .. }));
    // A budget that is too small is no proof.
    assert!(matches!(check_kv(&stale, 2), KvVerdict::Unknown { .. }));
}

#[test]
fn keys_named_together_are_checked_together() {
    let pair = |a: u64, b: u64| KvOp::Put(vec![(key(1), a.to_string().into()), (key(2), b.to_string().into())]);
    let done = |op, began| Call { op, began, ended: Some((began + 1, KvRet::Done)) };
    let torn = [done(pair(1, 1), 0), done(pair(2, 2), 2), get(1, Some(2), 4, 5), get(2, Some(1), 6, 7)];
    let KvVerdict::Violation { keys, calls, explained } = check_kv(&torn, BUDGET) else { panic!() };
    assert_eq!((keys.len(), calls.len(), explained.len()), (2, 4, 3));
    // Apart, another key's calls do not matter.
    let apart = [put(1, 1, 0, Some(1)), put(3, 1, 0, Some(1)), get(1, Some(1), 2, 3), get(3, Some(1), 2, 3)];
    assert_eq!(check_kv(&apart, BUDGET), KvVerdict::Ok);
}

#[test]
fn random_histories_agree_with_brute_force() {
    let (mut good, mut bad) = (0, 0);
    for seed in seeds(20_000) {
        let _replay = Replay { test: "linearizability", case: "random_histories_agree_with_brute_force", seed };
        let history = random_history(&mut Rng::new(seed));
        let expected = explainable(&history, &mut vec![false; history.len()], &Map::new());
        let whole = check(&KvModel, &history, BUDGET);
        assert_eq!(whole == Verdict::Ok, expected, "{history:#?}");
        assert_eq!(check_kv(&history, BUDGET) == KvVerdict::Ok, expected, "split by keys: {history:#?}");
        *(if expected { &mut good } else { &mut bad }) += 1;
    }
    assert!(std::env::var("PONTOON_SEED").is_ok() || (good > 500 && bad > 500), "{good} good, {bad} bad");
}

fn random_op(rng: &mut Rng) -> KvOp {
    let k = key(rng.below(8) / 6);
    let v = Bytes::from(["0", "1", "10", "5"][rng.below(4) as usize]);
    match rng.below(10) {
        0..=2 => KvOp::Get(vec![k]),
        3 | 4 | 8 => KvOp::Put(vec![(k, v)]),
        5 if rng.chance(200) => KvOp::Add(k, 1),
        5 => KvOp::Append(k, Bytes::from_static(b"+")),
        6 => KvOp::PutIf(k, v, rng.chance(500)),
        _ if rng.chance(300) => KvOp::Get(vec![key(0), key(1)]),
        _ => KvOp::Delete(vec![k]),
    }
}

/// Calls of a real register at random moments, some answers forgotten, some spoilt.
fn random_history(rng: &mut Rng) -> Vec<KvCall> {
    let mut map = Map::new();
    let (spread, known) = (*rng.pick(&[25, 60]), *rng.pick(&[800, 400]));
    let mut history: Vec<KvCall> = (0..2 + rng.below(6))
        .map(|i| {
            let op = random_op(rng);
            let ret = op.apply(&mut map);
            let at = 10 * i + 10;
            let (began, ended) = (at.saturating_sub(rng.below(spread)), at + rng.below(spread));
            Call { op, began, ended: rng.chance(known).then_some((ended, ret)) }
        })
        .collect();
    if rng.chance(600) {
        let spoilt = rng.below(history.len() as u64) as usize;
        let mut other = map;
        let ret = history[spoilt].op.apply(&mut other);
        if let Some(ended) = &mut history[spoilt].ended {
            ended.1 = ret;
        }
    }
    history
}

/// Tries every order that respects the times.
fn explainable(history: &[KvCall], placed: &mut Vec<bool>, state: &Map) -> bool {
    if history.iter().zip(placed.iter()).all(|(c, p)| *p || c.ended.is_none()) {
        return true;
    }
    let open = |placed: &[bool]| (0..history.len()).filter(|i| !placed[*i]).collect::<Vec<_>>();
    let first_end = open(placed).iter().filter_map(|i| history[*i].ended.as_ref().map(|e| e.0)).min();
    for i in open(placed) {
        let call = &history[i];
        if first_end.is_some_and(|end| call.began > end) {
            continue;
        }
        let mut after = state.clone();
        let answer = KvModel.step(&mut after, &call.op);
        if call.ended.as_ref().is_some_and(|e| e.1 != answer) {
            continue;
        }
        placed[i] = true;
        if explainable(history, placed, &after) {
            return true;
        }
        placed[i] = false;
    }
    false
}

#[test]
fn many_calls_of_unknown_outcome_fit_the_budget() {
    let unknown = |op| Call { op, began: 0, ended: None };
    let mut history: Vec<KvCall> = (100..130).map(|v| put(0, v, 0, None)).collect();
    history.extend([(); 6].map(|()| unknown(KvOp::Append(key(0), Bytes::from_static(b"+")))));
    history.extend([(); 3].map(|()| unknown(KvOp::Delete(vec![key(0)]))));
    for round in 1..=20 {
        let began = 10 * round;
        history.extend((0..4).map(|writer| put(0, 1_000 + 10 * round + writer, began + writer, Some(began + 8))));
        history.push(get(0, Some(1_000 + 10 * round + round % 4), began + 9, began + 9));
    }
    let value = |v: &'static str| KvRet::Values(vec![(!v.is_empty()).then(|| Bytes::from_static(v.as_bytes()))]);
    let read = |v, at| Call { op: KvOp::Get(vec![key(0)]), began: at, ended: Some((at, value(v))) };
    history.extend([read("129++", 300), read("", 301), read("+", 302), read("101+", 303), read("101++", 304)]);
    assert_eq!(check_kv(&history, BUDGET), KvVerdict::Ok);
    let append = KvOp::Append(key(0), Bytes::from_static(b"+"));
    history.push(Call { op: append, began: 400, ended: Some((401, KvRet::Number(1))) });
    history.push(read("+", 402)); // the second delete's work
    assert_eq!(check_kv(&history, BUDGET), KvVerdict::Ok);
    history.extend([read("", 403), read("+", 404), read("", 405)]);
    assert!(matches!(check_kv(&history, 20 * BUDGET), KvVerdict::Violation { .. }));
}

#[test]
fn long_histories_fit_the_budget() {
    let mut rng = Rng::new(3);
    let mut map = Map::new();
    let mut history = Vec::new();
    for i in 0..3_000u64 {
        let op = match rng.below(3) {
            0 => KvOp::Get(vec![key(0)]),
            1 => KvOp::Put(vec![(key(0), i.to_string().into())]),
            _ => KvOp::Append(key(0), Bytes::from_static(b"x")),
        };
        let ret = op.apply(&mut map);
        let known = rng.chance(990);
        let ended = known.then_some((10 * i + 10 + rng.below(60), ret));
        history.push(Call { op, began: (10 * i).saturating_sub(rng.below(60)), ended });
    }
    assert_eq!(check_kv(&history, 20_000_000), KvVerdict::Ok);
}
