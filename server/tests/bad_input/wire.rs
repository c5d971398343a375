//! What must not disturb a running node: garbage and oversize at both ports, commands that make no sense, ports that
//! are taken, and writes while there is no quorum.

use crate::support::{all_led, equal_contents, running};
use crate::{read_back, refused, write};
use pontoon_server::client::{Answer, ClusterClient, Connection, Value};
use pontoon_server::harness::{Nodes, metric_sum};
use std::io;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(15);

/// Sends bytes; everything that comes back until the other side closes.
async fn until_closed(addr: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The other side may close before it has read all of it.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
    let read = read.unwrap_or_else(|_| panic!("not closed within {SOON:?}: {:?}", &bytes[..bytes.len().min(40)]));
    if let Err(e) = read {
        assert_eq!(e.kind(), io::ErrorKind::ConnectionReset);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn noise(n: usize) -> Vec<u8> {
    let mut seed = 7_u64;
    let mut byte = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u8
    };
    (0..n).map(|_| byte()).collect()
}

/// A header as docs/wire-format.md has it, with nothing behind it.
fn header(kind: u8, length: u32) -> Vec<u8> {
    let mut frame = vec![0x50, 0x4e, 1, kind, 0, 0, 0, 0];
    frame.extend(length.to_le_bytes());
    frame.extend([0; 12]);
    frame
}

async fn garbage_at_the_peer_port(nodes: &Nodes) {
    let at = nodes.node(1);
    let faults = metric_sum(&at.admin, "pontoon_transport_peer_faults_total").await.unwrap_or_default();
    for (what, bytes) in [
        ("noise", noise(5000)),
        ("a request of another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a hello of 4 GiB", header(0, u32::MAX)),
        ("an append without a handshake", header(17, 9 << 20)),
        ("a hello with a wrong checksum", [header(0, 3), vec![1, 2, 3]].concat()),
    ] {
        let answer = until_closed(&at.peer, &bytes).await;
        assert!(answer.is_empty(), "{what}: a stranger is told nothing, but got {answer:?}");
    }
    let after = metric_sum(&at.admin, "pontoon_transport_peer_faults_total").await.unwrap();
    assert!(after >= faults + 5.0, "not counted: {faults}, then {after}");
}

async fn garbage_at_the_client_port(nodes: &Nodes) {
    let at = &nodes.node(1).redis;
    for (bytes, want) in [
        (&b"*99999999\r\n"[..], "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$99999999999\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$8388609\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n:5\r\n", "-ERR Protocol error: expected '$', got ':'\r\n"),
        (b"*1\r\n$4\r\nPINGxx", "-ERR Protocol error: expected CRLF after an argument\r\n"),
        (b"*1\r\n$4\r\nPING\r\n*x\r\n", "+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n"),
    ] {
        assert_eq!(until_closed(at, bytes).await, want, "{}", String::from_utf8_lossy(bytes));
    }
    let line = until_closed(at, &vec![b'x'; 70 << 10]).await;
    assert!(line.is_empty() || line == "-ERR Protocol error: too big inline request\r\n", "{line}");
}

async fn commands_that_make_no_sense(nodes: &Nodes) {
    let mut client = ClusterClient::new(nodes.redis(), SOON);
    let big = vec![b'v'; 8 << 20];
    let long = vec![b'k'; (64 << 10) + 1];
    let cases: [(&[&[u8]], &str); 10] = [
        (&[b"FLUSHALL", b"k"], "ERR unknown command 'FLUSHALL', with args beginning with: 'k'"),
        (&[b"\xff\x00", b"k"], "ERR unknown command"),
        (&[b"GET", b"k", b"k"], "ERR wrong number of arguments for 'get' command"),
        (&[b"SET", b"k", b"v", b"EX", b"10"], "ERR syntax error"),
        (&[b"SET", b"k", &big], "ERR command of 83"),
        (&[b"APPEND", b"k", &big], "ERR command of 83"),
        (&[b"MSET", b"{k}1", &big[..5 << 20], b"{k}2", &big[..5 << 20]], "ERR command of 104"),
        (&[b"SET", &long, b"v"], "ERR key of 65537 bytes is over the limit of 65536"),
        (&[b"INCRBY", b"n", b"9223372036854775808"], "ERR value is not an integer or out of range"),
        (&[b"MSET", b"a", b"1", b"b", b"2"], "CROSSSLOT"),
    ];
    for (args, want) in cases {
        let error = match client.call_retrying(args[1], args, 50).await {
            Answer::Done(Value::Error(text)) | Answer::Refused(text) => text,
            other => panic!("{want}: {other:?}"),
        };
        assert!(error.starts_with(want), "wanted {want:?}, got {error:?}");
    }
    // The largest that fits goes through, whole.
    let most = &big[..(8 << 20) - 64];
    let mut set = Answer::Unknown("not tried".into());
    for _ in 0..20 {
        // A loaded machine may take longer than this test's short deadline.
        if let Answer::Unknown(_) = set {
            set = client.call_retrying(b"most", &[b"SET", b"most", most], 50).await;
        }
    }
    assert_eq!(set, Answer::Done(Value::Simple("OK".into())));
    let grown = client.call_retrying(b"most", &[b"APPEND", b"most", &big[..100]], 50).await;
    assert_eq!(grown, Answer::Done(Value::Error("ERR string exceeds maximum allowed size".into())));
    let length = client.call_retrying(b"most", &[b"STRLEN", b"most"], 50).await;
    assert_eq!(length, Answer::Done(Value::Int(most.len() as i64)));
}

async fn ports_in_use(nodes: &mut Nodes) {
    nodes.kill(3).unwrap();
    let node = nodes.node(3);
    for addr in [&node.redis, &node.admin, &node.peer] {
        let _taken = TcpListener::bind(addr).unwrap();
        refused(&nodes.flags(3), 1, &["cannot listen on", addr]).await;
    }
    nodes.start(3).unwrap();
}

/// Two of three are gone: each command gets an answer within its deadline, and none says that it was done.
async fn without_a_quorum(nodes: &mut Nodes) {
    let mut client = Connection::open(&nodes.node(1).redis, SOON).await.unwrap();
    let reads = |n: u32| n.is_multiple_of(3);
    // A leader without a quorum leads for a second or two, in which few commands come to their deadline: writes to what it
    // leads go first.
    let mut keys = Vec::new();
    for n in 0..24 {
        let key = format!("lost:{n}");
        let led_here = client.call(&[b"GET", key.as_bytes()]).await.unwrap().error().is_none();
        keys.push((!led_here || reads(n), n, key));
    }
    keys.sort();
    nodes.kill(2).unwrap();
    nodes.kill(3).unwrap();
    let (mut refused, mut unknown, mut slowest) = (0, 0, Duration::ZERO);
    for (_, n, key) in keys {
        let began = Instant::now();
        let args: &[&[u8]] = if reads(n) { &[b"GET", key.as_bytes()] } else { &[b"SET", key.as_bytes(), b"x"] };
        let value = client.call(args).await.unwrap();
        slowest = slowest.max(began.elapsed());
        let text = value.error().unwrap_or_else(|| panic!("{key}: {value:?}"));
        match text.split(' ').next() {
            Some("MOVED" | "CLUSTERDOWN" | "TRYAGAIN") => refused += 1,
            _ if !reads(n) && text.starts_with("ERR outcome unknown: ") => unknown += 1,
            _ => panic!("{key}: {text}"),
        }
    }
    println!("no quorum: {refused} refused, {unknown} unknown, slowest {slowest:?}");
    assert!(slowest < Duration::from_secs(3) && unknown > 0, "{slowest:?}, {unknown}");
    nodes.start(2).unwrap();
    nodes.start(3).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_nonsense_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = running(dir.path(), 6, &["--deadline-ms", "500"]).await;
    write(&nodes, "kept", 30).await;
    garbage_at_the_peer_port(&nodes).await;
    garbage_at_the_client_port(&nodes).await;
    commands_that_make_no_sense(&nodes).await;
    write(&nodes, "still", 10).await;
    ports_in_use(&mut nodes).await;
    all_led(&nodes).await;
    without_a_quorum(&mut nodes).await;
    all_led(&nodes).await;
    read_back(&nodes, "kept", 30).await;
    read_back(&nodes, "still", 10).await;
    equal_contents(&nodes).await;
}
