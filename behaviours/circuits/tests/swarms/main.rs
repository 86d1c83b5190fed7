//! Circuits between real swarms over TCP on loopback.

mod hostile;
#[path = "../common/net.rs"]
mod net;
#[path = "../../../blobs/tests/common/raw.rs"]
#[expect(dead_code, reason = "shared with the tests of files, which use the rest")]
mod raw;

use std::time::Duration;

use fog_circuits::{CircuitId, End, EndReason, Event, Isolation, Open, Purpose, StreamEnded, Target, VirtualRole};
use net::{Net, Node, PATIENCE, download, host, request, upload};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

const MIB: u64 = 1 << 20;

fn to_relay(node: &Node, purpose: Purpose, hops: usize) -> Open {
    Open { purpose, end: End::Relay(node.hop.clone()), isolation: Isolation::default(), hops }
}

async fn opened(node: &mut Node, id: CircuitId) -> [u8; 32] {
    let opened = |event| match event {
        Event::Opened { circuit, binding, .. } if circuit == id => Some(binding),
        Event::Closed { circuit, reason, .. } if circuit == id => panic!("{reason}"),
        _ => None,
    };
    node.until(opened).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_mib_pass_an_exit_both_ways() {
    let mut net = Net::new(4).await;
    net.serve(3);
    let circuits = &net.nodes[0].circuits;
    let down = circuits.connect(host(), Isolation::default(), request(b'D', 100 * MIB));
    assert_eq!(timeout(PATIENCE, download(down)).await.unwrap().unwrap(), 100 * MIB);
    let up = circuits.connect(host(), Isolation::default(), request(b'U', 100 * MIB));
    assert!(timeout(PATIENCE, upload(up, 100 * MIB)).await.unwrap().unwrap());
    let list = circuits.list().await;
    assert_eq!((list.len(), list[0].hops.len(), list[0].state), (1, 3, "open"));
    assert!(list[0].bytes_up > 100 * MIB && list[0].bytes_down > 100 * MIB);
}

/// A circuit of node 0 and one of node 1, joined at the last node, with a virtual hop between them.
async fn rendezvous(net: &mut Net) -> CircuitId {
    let last = net.nodes.len() - 1;
    let mut ends = Vec::new();
    for (at, role) in [(0, VirtualRole::Client), (1, VirtualRole::Service)] {
        let open = to_relay(&net.nodes[last], Purpose::Rendezvous, 3);
        let circuit = net.nodes[at].circuits.open(open);
        let own = opened(&mut net.nodes[at], circuit).await;
        net.nodes[at].circuits.send_message(circuit, 70, vec![at as u8; 5000]);
        let message = |event| match event {
            Event::Message { circuit, command: 70, body, binding, .. } => Some((circuit, body, binding)),
            _ => None,
        };
        let (there, body, binding) = net.nodes[last].until(message).await;
        assert_eq!((body, binding), (vec![at as u8; 5000], own));
        ends.push((circuit, there, role));
    }
    net.nodes[last].circuits.join(ends[0].1, ends[1].1);
    for (at, (circuit, _, role)) in ends.iter().enumerate() {
        net.nodes[at].circuits.add_virtual_hop(*circuit, *role, &[9; 64], &[8; 32]);
    }
    // The relay joins before anything of the virtual hop comes: its command is first in its queue.
    net.nodes[last].circuits.list().await;
    ends[0].0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_mib_pass_a_rendezvous_over_six_hops() {
    let mut net = Net::new(7).await;
    let circuit = rendezvous(&mut net).await;
    net.serve(1);
    let circuits = &net.nodes[0].circuits;
    let down = circuits.open_stream(circuit, Target::Service(80), request(b'D', 100 * MIB));
    assert_eq!(timeout(PATIENCE, download(down)).await.unwrap().unwrap(), 100 * MIB);
    let up = circuits.open_stream(circuit, Target::Service(80), request(b'U', 20 * MIB));
    assert!(timeout(PATIENCE, upload(up, 20 * MIB)).await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_streams_at_once() {
    let mut net = Net::new(4).await;
    net.serve(3);
    let circuits = &net.nodes[0].circuits;
    let tasks: Vec<_> = (0..500u64)
        .map(|at| {
            let len = 50_000 + at * 100;
            let stream = circuits.connect(host(), Isolation::default(), request(b'D', len));
            tokio::spawn(async move { assert_eq!(download(stream).await.unwrap(), len) })
        })
        .collect();
    for task in tasks {
        timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    assert_eq!(circuits.list().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_isolation_is_another_circuit_and_closing_one_ends_only_its_streams() {
    let mut net = Net::new(4).await;
    net.serve(3);
    let circuits = net.nodes[0].circuits.clone();
    let mut streams = [1, 2].map(|at| circuits.connect(host(), Isolation([at; 32]), request(b'D', 10 * MIB)));
    for stream in &mut streams {
        stream.read_u8().await.unwrap();
    }
    let list = circuits.list().await;
    assert_eq!(list.len(), 2);
    circuits.close(list[0].circuit);
    let [mut first, mut second] = streams;
    let mut rest = Vec::new();
    let error = first.read_to_end(&mut rest).await.unwrap_err();
    let reason = error.get_ref().and_then(|error| error.downcast_ref::<StreamEnded>());
    assert_eq!(reason, Some(&StreamEnded(EndReason::CircuitClosed)));
    let mut rest = Vec::new();
    timeout(PATIENCE, second.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest.len() as u64, 10 * MIB - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_says_so_and_a_half_closed_one_goes_on() {
    let mut net = Net::new(4).await;
    let circuits = net.nodes[0].circuits.clone();
    let mut refused = circuits.connect(host(), Isolation::default(), vec![]);
    let inbound = |event| if let Event::Inbound { request, .. } = event { Some(request) } else { None };
    net.nodes[3].until(inbound).await.refuse(EndReason::NotFound);
    let error = timeout(PATIENCE, refused.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable);
    // A port that the policy does not name never reaches the exit's node.
    let mut refused = circuits.connect(Target::Host("127.0.0.1".into(), 81), Isolation::default(), vec![]);
    let error = timeout(PATIENCE, refused.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let mut half = circuits.connect(host(), Isolation::default(), b"question".to_vec());
    half.shutdown().await.unwrap();
    let mut there = net.nodes[3].until(inbound).await.accept();
    let mut question = String::new();
    timeout(PATIENCE, there.read_to_string(&mut question)).await.unwrap().unwrap();
    there.write_all(b"answer").await.unwrap();
    there.shutdown().await.unwrap();
    drop(there);
    let mut answer = String::new();
    timeout(PATIENCE, half.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
    // What is dropped before its end is no whole.
    let mut cut = circuits.connect(host(), Isolation::default(), vec![]);
    drop(net.nodes[3].until(inbound).await.accept());
    let error = timeout(PATIENCE, cut.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_dies_ends_its_circuits_and_the_next_takes_another_path() {
    let mut net = Net::new(6).await;
    net.serve(5);
    let circuits = net.nodes[0].circuits.clone();
    let mut stream = circuits.connect(host(), Isolation::default(), request(b'D', 1000 * MIB));
    stream.read_u8().await.unwrap();
    // The guard, which is the first relay that is not the client.
    let dead = net.nodes.remove(1);
    let id = dead.hop.relay.id;
    drop(dead);
    let mut rest = tokio::io::sink();
    let copied = timeout(PATIENCE, tokio::io::copy(&mut stream, &mut rest)).await.unwrap();
    assert!(copied.is_err());
    let stream = circuits.connect(host(), Isolation::default(), request(b'D', MIB));
    assert_eq!(timeout(PATIENCE, download(stream)).await.unwrap().unwrap(), MIB);
    assert!(circuits.list().await.iter().all(|info| !info.hops.contains(&id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_is_not_sent_more_than_its_window() {
    let mut net = Net::new(4).await;
    net.serve(3);
    let circuits = net.nodes[0].circuits.clone();
    let slow = circuits.connect(host(), Isolation::default(), request(b'D', 100 * MIB));
    let quick = circuits.connect(host(), Isolation::default(), request(b'D', 10 * MIB));
    assert_eq!(timeout(PATIENCE, download(quick)).await.unwrap().unwrap(), 10 * MIB);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let down = circuits.list().await[0].bytes_down;
    assert!(down < 12 * MIB, "{down}");
    assert_eq!(timeout(PATIENCE, download(slow)).await.unwrap().unwrap(), 100 * MIB);
}
