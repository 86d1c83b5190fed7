//! The mixnet's throughput: the pipeline in memory, and one relay process between two loading peers over loopback TCP.
//!
//! `mix_relay_soak` (only when named) keeps a relay loaded for `FOG_SOAK_SECONDS` (600 by default) and reports its memory.

mod harness;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::Duration,
};

use fog_base::{
    Epoch, EpochSchedule, NetworkId, NodeId,
    relay::{NoPath, PathRequest, PathSelector, RelayHop, Role, Roles},
};
use fog_mix::{
    Behaviour, Event,
    core::{
        PacketBuf,
        cover::Cover,
        delay::Delays,
        endpoint::{Config as EndpointConfig, Restored, Secrets},
        mailbox::MailboxLimits,
        relay::Arrival,
    },
    runtime::{
        engine,
        ingress::{BATCH, Offer},
        keystore::KeyStoreConfig,
        now,
        start::{Config, Limits, Runtime},
    },
};
use fog_sphinx::{BODY_LEN, Hop, LastHop, MixPublicKey, MixSecretKey, PACKET_LEN, build, open_batch, process_batch};
use futures::StreamExt;
use harness::{Harness, Target};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, noise,
    swarm::{ConnectionId, SwarmEvent},
    tcp, yamux,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use zeroize::Zeroizing;

const RUNS: usize = 5;
const PACKETS: usize = 20_000;
const NETWORK: NetworkId = NetworkId([9; 32]);
const RELAY_ENV: &str = "FOG_BENCH_RELAY";

fn main() {
    if std::env::var_os(RELAY_ENV).is_some() {
        return relay_process();
    }
    let mut harness = Harness::from_env();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if harness.wants("mix_pipeline_packets_per_s") {
        pipeline(&mut harness);
    }
    if harness.wants("mix_relay_packets_per_s") || harness.wants("mix_relay_cpu_us_per_packet") {
        runtime.block_on(relay(&mut harness));
    }
    if std::env::var("FOG_BENCH").is_ok_and(|name| name == "mix_relay_soak") {
        runtime.block_on(soak());
    }
    harness.finish();
}

/// Nobody to send to: a relay alone.
#[derive(Debug)]
struct NoRelays;

impl PathSelector for NoRelays {
    fn path(&self, request: &PathRequest<'_>, _: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath> {
        Err(NoPath::UnknownRelay(request.last))
    }
    fn relay(&self, _: Epoch, _: NodeId) -> Option<RelayHop> {
        None
    }
    fn with_role(&self, _: Epoch, _: Role) -> Vec<NodeId> {
        Vec::new()
    }
}

fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(600))
}

fn config(me: NodeId, roles: Roles, directory: &std::path::Path) -> Config {
    let unlimited =
        Limits { link_rate: 1e7, link_burst: 1e7, total_rate: 1e5, pool: 200_000, mailbox: MailboxLimits::default() };
    Config {
        endpoint: EndpointConfig {
            me,
            network: NETWORK,
            schedule: schedule(),
            delays: Delays { mean: Duration::from_millis(5), max: Duration::from_millis(50) },
            send_per_second: 50.0,
            cover: Cover::None,
            loops_per_second: 0.2,
            hops: 4,
            offers_roles: true,
        },
        secrets: Secrets {
            identity: ed25519_dalek::SigningKey::from_bytes(&[1; 32]),
            seal: Zeroizing::new([1; 32]),
            slot: ed25519_dalek::SigningKey::from_bytes(&[2; 32]),
        },
        restored: Restored::default(),
        stored: Vec::new(),
        roles,
        workers: 0,
        limits: unlimited,
        keys: KeyStoreConfig { directory: directory.into(), boot_id: None, storage_key: Zeroizing::new([3; 32]) },
        delay_salt: Arc::new(|_| [4; 32]),
        faults: None,
        paths: Arc::new(NoRelays),
        seed: [5; 32],
    }
}

/// Packets whose first hop has `key` and whose second is `next`, built on both cores.
fn packets(count: usize, key: [u8; 32], epoch: Epoch, next: NodeId, seed: u64) -> Vec<PacketBuf> {
    let key = MixPublicKey::from_bytes(&key).unwrap();
    let end = MixSecretKey::from_bytes([8; 32]).public();
    let path = [Hop { id: [0; 32], key }, Hop { id: next.0, key: end }, Hop { id: [2; 32], key: end }];
    let half = |part: u64| {
        let mut rng = StdRng::seed_from_u64(seed * 2 + part);
        let last = LastHop::Deliver { reference: [0; 16] };
        let make = |_| {
            let mut packet: PacketBuf = Box::new([0; PACKET_LEN]);
            build(&path, epoch.0, &last, &[0; BODY_LEN], &mut rng, &mut packet).unwrap();
            packet
        };
        (0..count / 2).map(make).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut all = half(0);
        all.extend(other.join().unwrap());
        all
    })
}

/// Microseconds for the unwrap alone of one packet, in batches, measured now.
fn unwrap_alone() -> f64 {
    let secret = MixSecretKey::from_bytes([7; 32]);
    let batch = packets(BATCH, secret.public().to_bytes(), Epoch(1), NodeId([1; 32]), 99);
    let (mut opened, mut out) = (Vec::new(), Vec::new());
    let mut times: Vec<f64> = (0..40)
        .map(|_| {
            let mut copies = batch.clone();
            let start = now().mono;
            open_batch(&copies.iter().map(|p| &**p).collect::<Vec<_>>(), &secret, &mut opened);
            let headers: Vec<_> = opened.drain(..).map(Result::unwrap).collect();
            process_batch(headers, &mut copies.iter_mut().map(|p| &mut **p).collect::<Vec<_>>(), &mut out);
            start.elapsed().as_secs_f64() * 1e6 / BATCH as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Packets a second through workers, replay filter and log, mixing pool and link queues, without sockets.
fn pipeline(harness: &mut Harness) {
    let directory = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::start(config(NodeId([1; 32]), Roles::NONE.with(Role::Mix), directory.path())).unwrap();
    let keys = loop {
        match runtime.events.blocking_recv() {
            Some(engine::Event::Keys(keys)) => break keys,
            Some(_) => {}
            None => panic!("the engine has stopped"),
        }
    };
    let (epoch, key) = keys[0];
    let (next, connection) = (NodeId([6; 32]), ConnectionId::new_unchecked(1));
    let link = runtime.links.connected(next, connection, now().mono);
    let mut rates = Vec::new();
    for run in 0..RUNS {
        let mut load = packets(PACKETS, key, epoch, next, run as u64);
        let (mut left, mut taken) = (0, Vec::new());
        let start = now().mono;
        while left < PACKETS {
            let mut batch: Vec<_> = load
                .drain(load.len().saturating_sub(BATCH)..)
                .map(|packet| Arrival { packet, at: now().mono })
                .collect();
            while !batch.is_empty() {
                match runtime.ingress.offer(std::mem::take(&mut batch), now().mono, Waker::noop()) {
                    Offer::Taken(excess) => load.extend(excess.into_iter().map(|arrival| arrival.packet)),
                    Offer::Full(back) => batch = back,
                }
                drain(&link, connection, &mut taken, &mut left);
                if !batch.is_empty() {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            if load.is_empty() {
                std::thread::sleep(Duration::from_micros(200));
            }
            drain(&link, connection, &mut taken, &mut left);
            runtime.buffers.give(&mut taken);
        }
        rates.push(PACKETS as f64 / start.elapsed().as_secs_f64());
    }
    assert_eq!(runtime.stats.drops.total(), 0, "nothing may be dropped");
    harness.medians("mix_pipeline_packets_per_s", &mut rates, None, "packets/s", Some(Target::AtLeast(20_000.0)));
}

fn drain(link: &fog_mix::runtime::links::Link, connection: ConnectionId, taken: &mut Vec<PacketBuf>, left: &mut usize) {
    let before = taken.len();
    link.take(connection, 4096, taken, Waker::noop());
    *left += taken.len() - before;
}

fn swarm(config: impl FnOnce(NodeId) -> Config) -> Swarm<Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let me = fog_mix::node_id(&PeerId::from(key.public())).unwrap();
            Behaviour::new(config(me)).unwrap()
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}

/// The child: a relay that prints its address and keys, and ends with its standard input.
fn relay_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let mut relay = swarm(|me| config(me, Roles::NONE.with(Role::Mix), directory.path()));
        relay.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let stats = relay.behaviour().stats();
        std::thread::spawn(move || {
            for line in std::io::stdin().lines() {
                let Ok(_) = line else { break };
                let (forwarded, drops) = (stats.forwarded.load(Ordering::Relaxed), stats.drops.total());
                let received = stats.received.load(Ordering::Relaxed);
                println!("stats {received} {forwarded} {drops}");
            }
            std::process::exit(0);
        });
        let (mut address, mut keys) = (None, None);
        loop {
            match relay.select_next_some().await {
                SwarmEvent::NewListenAddr { address: new, .. } => address = Some(new),
                SwarmEvent::Behaviour(Event::Keys(new)) => keys = Some(new),
                _ => continue,
            }
            if let (Some(address), Some(keys)) = (&address, &keys) {
                let key = data_encoding::HEXLOWER.encode(&keys[0].1);
                println!("relay {address}/p2p/{} {} {key}", relay.local_peer_id(), keys[0].0);
            }
        }
    });
}

struct Relay {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    address: Multiaddr,
    epoch: Epoch,
    key: [u8; 32],
}

impl Relay {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child =
            command.env(RELAY_ENV, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the relay starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let key = data_encoding::HEXLOWER.decode(words[3].as_bytes()).unwrap().try_into().unwrap();
        Self { child, lines, address: words[1].parse().unwrap(), epoch: Epoch(words[2].parse().unwrap()), key }
    }

    /// Received, forwarded, dropped.
    fn stats(&mut self) -> [u64; 3] {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        let line = self.lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("stats")).unwrap();
        let numbers: Vec<u64> = line.split(' ').skip(1).map(|n| n.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    /// Microseconds of processor time so far (Linux: 10 ms resolution).
    fn cpu_us(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks * 10_000.0
    }

    fn memory_mib(&self) -> f64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1048576.0
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Two peers of the relay: one that sends, one that counts. Both swarms run on this process's runtime.
struct Loaders {
    links: Arc<fog_mix::runtime::links::Links>,
    relay: NodeId,
    sink: NodeId,
    sink_stats: Arc<fog_mix::runtime::stats::Stats>,
    _directories: [tempfile::TempDir; 2],
}

impl Loaders {
    async fn connect(relay: &Relay) -> Self {
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [mut source, mut sink] =
            directories.each_ref().map(|directory| swarm(|me| config(me, Roles::NONE, directory.path())));
        for swarm in [&mut source, &mut sink] {
            swarm.dial(relay.address.clone()).unwrap();
            while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        }
        let relay = fog_mix::node_id(source.connected_peers().next().unwrap()).unwrap();
        let loaders = Self {
            links: source.behaviour().links(),
            relay,
            sink: fog_mix::node_id(sink.local_peer_id()).unwrap(),
            sink_stats: sink.behaviour().stats(),
            _directories: directories,
        };
        for mut swarm in [source, sink] {
            tokio::spawn(async move { while swarm.next().await.is_some() {} });
        }
        loaders
    }

    fn arrived(&self) -> u64 {
        self.sink_stats.received.load(Ordering::Relaxed)
    }

    /// Sends all and waits until each has arrived or is counted as dropped by the relay, whose queue to a slow peer has a bound.
    async fn send(&self, relay: &mut Relay, load: Vec<PacketBuf>) {
        let [_, _, dropped] = relay.stats();
        let target = self.arrived() + dropped + load.len() as u64;
        for mut packet in load {
            while let fog_mix::runtime::links::Push::Full(back) = self.links.push(&self.relay, packet) {
                packet = back;
                self.links.wake(&self.relay);
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        }
        let deadline = now().mono + Duration::from_secs(60);
        while self.arrived() + relay.stats()[2] < target {
            self.links.wake(&self.relay);
            assert!(now().mono < deadline, "{} of {target} packets arrived", self.arrived());
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
}

async fn relay(harness: &mut Harness) {
    let mut relay = Relay::start();
    let loaders = Loaders::connect(&relay).await;
    let (mut rates, mut cpu, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        let load = packets(PACKETS, relay.key, relay.epoch, loaders.sink, 100 + run as u64);
        alone.push(unwrap_alone());
        let (start, before) = (now().mono, relay.cpu_us());
        loaders.send(&mut relay, load).await;
        rates.push(PACKETS as f64 / start.elapsed().as_secs_f64());
        cpu.push((relay.cpu_us() - before) / PACKETS as f64);
    }
    let [received, forwarded, dropped] = relay.stats();
    assert_eq!((received, dropped), (forwarded, 0), "nothing may be dropped");
    alone.sort_by(f64::total_cmp);
    let alone = ("unwrap alone", alone[alone.len() / 2]);
    harness.medians("mix_relay_packets_per_s", &mut rates, None, "packets/s", None);
    harness.medians("mix_relay_cpu_us_per_packet", &mut cpu, Some(alone), "us", Some(Target::AtMost(1.6)));
}

/// Minutes under load: is memory flat, and is every packet accounted for?
async fn soak() {
    let seconds: u64 = std::env::var("FOG_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(600);
    let mut relay = Relay::start();
    let loaders = Loaders::connect(&relay).await;
    let end = now().mono + Duration::from_secs(seconds);
    let (mut run, mut sent, mut next_line) = (1000, 0u64, now().mono);
    while now().mono < end && schedule().at(now().unix) <= Epoch(relay.epoch.0 + 1) {
        let load = packets(4000, relay.key, relay.epoch, loaders.sink, run);
        sent += load.len() as u64;
        loaders.send(&mut relay, load).await;
        run += 1;
        if now().mono >= next_line {
            next_line = now().mono + Duration::from_secs(30);
            let [received, forwarded, dropped] = relay.stats();
            let memory = relay.memory_mib();
            println!(
                "soak: sent {sent} received {received} forwarded {forwarded} dropped {dropped} memory {memory:.1} MiB"
            );
        }
    }
    let [received, forwarded, dropped] = relay.stats();
    assert_eq!((sent, received), (received, forwarded + dropped), "every packet is accounted for");
    println!("soak: {sent} packets, {dropped} dropped, all accounted for, memory {:.1} MiB", relay.memory_mib());
}
