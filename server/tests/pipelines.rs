//! One connection, pipelines of SET, GET, INCR, GET on one key, leaders killed meanwhile: the answers of a pipeline tell
//! one story, and once a command is refused, those behind it are refused too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use bytes::BytesMut;
use pontoon_server::client::{Connection, Value, encode_command};
use pontoon_server::harness::leaders;
use std::time::{Duration, Instant};
use support::{all_led, running};

const DEADLINE: Duration = Duration::from_secs(8);

/// What the four answers show, if they are consistent.
fn judge(number: u64, answers: &[Value]) -> Result<bool, String> {
    let refused =
        |v: &Value| v.error().is_some_and(|e| ["MOVED", "TRYAGAIN", "CLUSTERDOWN"].iter().any(|r| e.starts_with(r)));
    let unknown = |v: &Value| v.error().is_some_and(|e| e.starts_with("ERR outcome unknown"));
    let text = |n: u64| Value::Bulk(n.to_string().into());
    let wanted = [Value::Simple("OK".into()), text(number), Value::Int(number as i64 + 1), text(number + 1)];
    let good = answers.iter().zip(&wanted).take_while(|(a, w)| a == w).count();
    let rest = &answers[good..];
    match rest.split_first() {
        None => Ok(true),
        Some((first, behind)) if (refused(first) || unknown(first)) && behind.iter().all(refused) => Ok(false),
        // A write of unknown outcome may be joined by others of its run.
        Some((first, _)) if unknown(first) && rest.iter().all(|v| refused(v) || unknown(v)) => Ok(false),
        _ => Err(format!("pipeline {number}: {answers:?}")),
    }
}

async fn pipeline(connection: &mut Connection, number: u64) -> Option<Vec<Value>> {
    let text = number.to_string();
    let mut wire = BytesMut::new();
    for args in [vec![&b"SET"[..], b"k", text.as_bytes()], vec![b"GET", b"k"], vec![b"INCR", b"k"], vec![b"GET", b"k"]]
    {
        encode_command(&args, &mut wire);
    }
    connection.send(&wire).await.ok()?;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(connection.receive().await.ok()?);
    }
    Some(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_keeps_its_order_under_leader_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = running(dir.path(), 1, &[]).await;
    let (mut number, mut whole, mut refused) = (0, 0, 0);
    for _ in 0..3 {
        let (led, _) = leaders(&nodes.node(1).redis).await.unwrap();
        let leader = led.keys().next().unwrap().clone();
        let id = nodes.nodes.iter().find(|n| n.redis == leader).unwrap().id;
        // Two connections: to the leader that is killed, and to a node that takes over or says MOVED.
        let mut at_leader = Connection::open(&leader, DEADLINE).await.unwrap();
        for _ in 0..200 {
            number += 10;
            whole += u64::from(judge(number, &pipeline(&mut at_leader, number).await.unwrap()).unwrap());
        }
        nodes.kill(id).unwrap();
        let other = nodes.node(id % 3 + 1).redis.clone();
        let mut at_other = Connection::open(&other, DEADLINE).await.unwrap();
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            number += 10;
            let Some(answers) = pipeline(&mut at_other, number).await else { break };
            if judge(number, &answers).unwrap() { whole += 1 } else { refused += 1 }
        }
        nodes.start(id).unwrap();
        all_led(&nodes).await;
    }
    println!("{whole} whole pipelines, {refused} refused from some command on");
    assert!(whole >= 600 && refused > 0, "both kinds must occur: {whole}, {refused}");
}
