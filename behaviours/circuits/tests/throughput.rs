//! Circuits over TCP, Noise and yamux on loopback, all nodes in one process; a measurement, which prints and asserts no speed:
//!
//! `cargo test --release -p fog-circuits --test throughput -- --ignored --nocapture --test-threads 1`, with `FOG_CIRCUITS_MIB=200`
//! by default.
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "this measures, on the real clock")]

#[path = "common/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;

use std::{
    fs,
    time::{Duration, Instant},
};

use fog_circuits::{CircuitId, End, Event, Isolation, Open, Purpose, Target, VirtualRole};
use net::{Net, download, host, request};
use tokio::io::AsyncReadExt;

fn size() -> u64 {
    std::env::var("FOG_CIRCUITS_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(200) << 20
}

/// The processor time of this process, in seconds.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets: utime and stime are the 12th and 13th, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

async fn measure(name: &str, streams: u64, open: impl Fn(Vec<u8>) -> fog_circuits::Stream) {
    let start = Instant::now();
    let mut first = open(request(b'D', 1));
    first.read_u8().await.unwrap();
    let first = start.elapsed();
    let (start, before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..streams).map(|_| tokio::spawn(download(open(request(b'D', size() / streams))))).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let (seconds, used) = (start.elapsed().as_secs_f64(), cpu() - before);
    let gib = size() as f64 / f64::from(1 << 30);
    println!(
        "{name}, {streams} streams: first byte {first:.1?}, {:.1} MB/s, {:.1} CPU s/GiB",
        size() as f64 / seconds / 1e6,
        used / gib
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn through_three_relays() {
    let mut net = Net::new(4).await;
    net.serve(3);
    let circuits = net.nodes[0].circuits.clone();
    for streams in [1, 8] {
        measure("exit, 3 relays", streams, |early| circuits.connect(host(), Isolation::default(), early)).await;
    }
}

async fn joined(net: &mut Net) -> CircuitId {
    let last = net.nodes.len() - 1;
    let mut ends = Vec::new();
    for (at, role) in [(0, VirtualRole::Client), (1, VirtualRole::Service)] {
        let end = End::Relay(net.nodes[last].hop.clone());
        let open = Open { purpose: Purpose::Rendezvous, end, isolation: Isolation::default(), hops: 3 };
        let circuit = net.nodes[at].circuits.open(open);
        net.nodes[at].until(|event| matches!(event, Event::Opened { .. }).then_some(())).await;
        net.nodes[at].circuits.send_message(circuit, 70, vec![]);
        let message = |event| if let Event::Message { circuit, .. } = event { Some(circuit) } else { None };
        ends.push((circuit, net.nodes[last].until(message).await, role));
    }
    net.nodes[last].circuits.join(ends[0].1, ends[1].1);
    net.nodes[last].circuits.list().await;
    for (at, (circuit, _, role)) in ends.iter().enumerate() {
        net.nodes[at].circuits.add_virtual_hop(*circuit, *role, &[9; 64], &[8; 32]);
    }
    ends[0].0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn through_six_hops_of_a_rendezvous() {
    let mut net = Net::new(7).await;
    let circuit = joined(&mut net).await;
    net.serve(1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let circuits = net.nodes[0].circuits.clone();
    for streams in [1, 8] {
        measure("rendezvous, 6 hops", streams, |early| circuits.open_stream(circuit, Target::Service(80), early)).await;
    }
}
