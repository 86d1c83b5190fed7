//! The mixnet's throughput: the pipeline in memory against the unwrap alone, and one relay process between two loading peers over
//! loopback sockets, all three on the same cores. Linux only: cores are chosen with `taskset`, processor time is read from `/proc`.
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
        replay::TABLES,
    },
    runtime::{
        engine,
        ingress::BATCH,
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
/// Packets in a run.
const PACKETS: usize = 20_000;
/// Packets between source and sink: no more than the relay's queue to the sink holds, so that a slow sink loses none.
const WINDOW: u64 = 1024;
const NETWORK: NetworkId = NetworkId([9; 32]);
/// Makes this program a child: `pipeline`, or a relay on `tcp` or `quic`.
const CHILD: &str = "FOG_BENCH_CHILD";

fn main() {
    match std::env::var(CHILD).as_deref() {
        Ok("pipeline") => return pipeline_process(),
        Ok(transport) => return relay_process(transport),
        Err(_) => {}
    }
    let mut harness = Harness::from_env();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if harness.wants("mix_pipeline_one_core") || harness.wants("mix_pipeline_two_cores") {
        pipeline(&mut harness);
    }
    if ["mix_relay_packets_per_s", "mix_relay_cpu_us_per_packet"].iter().any(|name| harness.wants(name)) {
        relay(&mut harness, &runtime);
    }
    if ["mix_relay_quic_packets_per_s", "mix_relay_quic_cpu_us"].iter().any(|name| harness.wants(name)) {
        quic(&mut harness, &runtime);
    }
    for rate in [1_000, 5_000] {
        let name = format!("mix_relay_cpu_us_at_{rate}_per_s");
        if harness.wants(&name) {
            // Packets that come one by one: batches must form all the same.
            let mut runs = Runs::measure(&runtime, "tcp", Some(rate));
            harness.medians(&name, &mut runs.cpu, None, "us", None);
            runs.print_shares();
        }
    }
    if std::env::var("FOG_BENCH").is_ok_and(|name| name == "mix_relay_soak") {
        soak(&runtime);
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
    fn measuring_path(
        &self,
        request: &PathRequest<'_>,
        _: &dyn Fn(&NodeId) -> u32,
        _: &mut dyn Rng,
    ) -> Result<Vec<RelayHop>, NoPath> {
        Err(NoPath::UnknownRelay(request.last))
    }
    fn relay(&self, _: Epoch, _: NodeId) -> Option<RelayHop> {
        None
    }
    fn with_role(&self, _: Epoch, _: Role) -> Vec<NodeId> {
        Vec::new()
    }
}

/// One epoch for the whole bench: a relay's first key is good to the end.
fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(365 * 86_400))
}

fn config(me: NodeId, roles: Roles, directory: &std::path::Path) -> Config {
    let unlimited =
        Limits { link_rate: 1e7, link_burst: 1e7, total_rate: 1e6, pool: 200_000, mailbox: MailboxLimits::default() };
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

/// Packets a second of processor time of the unwrap alone, in batches, over packets that come from memory.
fn unwrap_alone(mut load: Vec<PacketBuf>, secret: &MixSecretKey) -> f64 {
    let (mut opened, mut out) = (Vec::new(), Vec::new());
    let before = Cpu::of("self");
    for batch in load.chunks_mut(BATCH) {
        open_batch(batch.iter().map(|packet| &**packet), secret, &mut opened);
        let headers: Vec<_> = opened.drain(..).map(Result::unwrap).collect();
        process_batch(headers.into_iter().zip(batch.iter_mut().map(|packet| &mut **packet)), &mut out);
    }
    1e6 / Cpu::of("self").since(before, load.len()).total()
}

/// A child that is pinned to some cores. For each line on its standard input it takes a run's packets through workers,
/// replay filter and log, mixing pool and link queues, without sockets, and prints `RATE PER_CPU_SECOND ALONE`: packets a
/// second by the clock and by this process's processor time, and those of the unwrap alone on one core. The thread that
/// offers and takes the packets runs on the same cores, and the last packet's delay counts: both are part of the figures.
fn pipeline_process() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(NodeId([1; 32]), Roles::NONE.with(Role::Mix), directory.path());
    config.endpoint.delays = Delays { mean: Duration::from_millis(1), max: Duration::from_millis(10) };
    let mut runtime = Runtime::start(config).unwrap();
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
    let secret = MixSecretKey::from_bytes([7; 32]);
    for (seed, line) in (0..).zip(std::io::stdin().lines()) {
        let Ok(_) = line else { break };
        let alone = unwrap_alone(packets(PACKETS / 2, secret.public().to_bytes(), epoch, next, seed), &secret);
        let count = 2 * PACKETS;
        let mut load = packets(count, key, epoch, next, seed + 1_000_000);
        let (mut left, mut batch, mut taken) = (0, Vec::with_capacity(BATCH), Vec::new());
        let (start, before) = (now().mono, Cpu::of("self"));
        while left < count {
            let at = now().mono;
            let more = load.drain(load.len().saturating_sub(BATCH - batch.len())..);
            batch.extend(more.map(|packet| Arrival { packet, at }));
            // Without room, or at the end, the workers have enough to do for a while.
            if batch.is_empty() || !runtime.ingress.offer(&mut batch, at, Waker::noop()) {
                std::thread::sleep(Duration::from_millis(1));
            }
            link.take(connection, usize::MAX, &mut taken, Waker::noop());
            left += taken.len();
            runtime.buffers.give(&mut taken);
            let drops: Vec<_> = runtime.stats.drops.snapshot().filter(|(_, n)| *n > 0).collect();
            assert!(drops.is_empty(), "a busy machine starves the reader of the link, whose queue is full: {drops:?}");
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        println!("{rate} {} {alone}", 1e6 / Cpu::of("self").since(before, count).total());
    }
}

/// The pipeline on one core against the unwrap alone on that core, and on two cores against one.
fn pipeline(harness: &mut Harness) {
    let mut children = ["0", "0,1"].map(|cores| {
        let mut command = Command::new("taskset");
        Process::start(command.args(["-c", cores]).arg(std::env::current_exe().unwrap()).env(CHILD, "pipeline"))
    });
    let mut figures: [[Vec<f64>; 3]; 2] = Default::default();
    for _ in 0..RUNS {
        for (child, figures) in children.iter_mut().zip(&mut figures) {
            let line = child.ask();
            figures.iter_mut().zip(line.split(' ')).for_each(|(figures, word)| figures.push(word.parse().unwrap()));
        }
    }
    let [[one, per_cpu_second, alone], [two, ..]] = &mut figures;
    let [single, per_cpu_second, alone] = [median(one), median(per_cpu_second), median(alone)];
    let at_least = |ratio| Some(Target::AtLeast(ratio));
    harness.medians("mix_pipeline_one_core", one, Some(("unwrap alone", alone)), "packets/s", at_least(0.85));
    println!("    by processor time, whatever else runs: {per_cpu_second:.0} packets/s, {:.3}", per_cpu_second / alone);
    harness.medians("mix_pipeline_two_cores", two, Some(("one core", single)), "packets/s", at_least(1.8));
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A child that answers lines.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the child starts");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the child has ended").unwrap()
    }

    fn ask(&mut self) -> String {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        self.line()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn swarm(config: impl FnOnce(NodeId) -> Config) -> Swarm<Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_quic()
        .with_behaviour(|key| {
            let me = fog_mix::node_id(&PeerId::from(key.public())).unwrap();
            Behaviour::new(config(me)).unwrap()
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}

/// The child: a relay that prints its address and keys, answers each line with its counters, and ends with its standard input.
fn relay_process(transport: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let address = match transport {
        "tcp" => "/ip4/127.0.0.1/tcp/0",
        "quic" => "/ip4/127.0.0.1/udp/0/quic-v1",
        other => panic!("{CHILD}={other}: neither pipeline, tcp nor quic"),
    };
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let mut relay = swarm(|me| config(me, Roles::NONE.with(Role::Mix), directory.path()));
        relay.listen_on(address.parse().unwrap()).unwrap();
        let stats = relay.behaviour().stats();
        let (mut address, mut keys) = (None, None);
        while address.is_none() || keys.is_none() {
            match relay.select_next_some().await {
                SwarmEvent::NewListenAddr { address: new, .. } => address = Some(new),
                SwarmEvent::Behaviour(Event::Keys(new)) => keys = Some(new),
                _ => {}
            }
        }
        let (address, (epoch, key)) = (address.unwrap(), keys.unwrap()[0]);
        println!("{address}/p2p/{} {epoch} {}", relay.local_peer_id(), data_encoding::HEXLOWER.encode(&key));
        std::thread::spawn(move || {
            for line in std::io::stdin().lines() {
                let Ok(_) = line else { break };
                let (forwarded, drops) = (stats.forwarded.load(Ordering::Relaxed), stats.drops.total());
                println!("{} {forwarded} {drops}", stats.received.load(Ordering::Relaxed));
            }
            std::process::exit(0);
        });
        loop {
            relay.select_next_some().await;
        }
    });
}

struct Relay {
    process: Process,
    address: Multiaddr,
    epoch: Epoch,
    key: [u8; 32],
}

impl Relay {
    fn start(transport: &str) -> Self {
        let mut process = Process::start(Command::new(std::env::current_exe().unwrap()).env(CHILD, transport));
        let line = process.line();
        let words: Vec<_> = line.split(' ').collect();
        let key = data_encoding::HEXLOWER.decode(words[2].as_bytes()).unwrap().try_into().unwrap();
        Self { process, address: words[0].parse().unwrap(), epoch: Epoch(words[1].parse().unwrap()), key }
    }

    /// Received, forwarded, dropped.
    fn stats(&mut self) -> [u64; 3] {
        let numbers: Vec<u64> = self.process.ask().split(' ').map(|n| n.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    fn cpu(&self) -> Cpu {
        Cpu::of(&self.process.child.id().to_string())
    }

    /// Its counters and its memory, with and without the replay filter: its tables have a power of two of places, nine bytes
    /// each, and are filled to seven eighths.
    fn print_memory(&mut self, sent: u64) -> [u64; 3] {
        let [received, forwarded, dropped] = self.stats();
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.child.id())).unwrap();
        let resident = statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1048576.0;
        let tables = TABLES as u64;
        let places = (received / tables * 8 / 7).next_power_of_two() * tables;
        let filter = places as f64 * 9.0 / 1048576.0;
        println!(
            "soak: sent {sent} received {received} forwarded {forwarded} dropped {dropped}, memory {resident:.1} MiB, \
             without the replay filter {:.1} MiB",
            resident - filter
        );
        [received, forwarded, dropped]
    }
}

/// Microseconds of a process's threads: those of the mixnet, and all others, which for a relay serve sockets.
#[derive(Default, Clone, Copy)]
struct Cpu {
    workers: f64,
    engine: f64,
    sockets: f64,
}

impl Cpu {
    /// Processor time of a process so far.
    fn of(process: &str) -> Self {
        let mut cpu = Self::default();
        for task in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
            let task = task.unwrap().path();
            let name = std::fs::read_to_string(task.join("comm")).unwrap();
            let schedstat = std::fs::read_to_string(task.join("schedstat")).unwrap();
            let us = schedstat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e3;
            match name.trim() {
                "fog-mix-engine" => cpu.engine += us,
                worker if worker.starts_with("fog-mix-") => cpu.workers += us,
                _ => cpu.sockets += us,
            }
        }
        cpu
    }

    /// Per packet since `before`.
    fn since(self, before: Self, packets: usize) -> Self {
        let each = |after: f64, before: f64| (after - before) / packets as f64;
        Self {
            workers: each(self.workers, before.workers),
            engine: each(self.engine, before.engine),
            sockets: each(self.sockets, before.sockets),
        }
    }

    fn total(self) -> f64 {
        self.workers + self.engine + self.sockets
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

    /// Sends all, as fast as the relay takes them or at `rate` packets a second, and waits until each has arrived.
    fn send(&self, load: Vec<PacketBuf>, rate: Option<f64>) {
        let (start, before, count) = (now().mono, self.arrived(), load.len() as u64);
        let (mut leaving, mut refused) = (Vec::new(), Vec::new());
        let mut load = (1..).zip(load).peekable();
        loop {
            let arrived = self.arrived() - before;
            if arrived == count {
                break;
            }
            let due = rate.map_or(u64::MAX, |rate| (start.elapsed().as_secs_f64() * rate) as u64).min(arrived + WINDOW);
            leaving.extend(
                std::iter::from_fn(|| load.next_if(|(n, _)| *n <= due)).map(|(_, packet)| (self.relay, packet)),
            );
            if !leaving.is_empty() {
                self.links.push(&mut leaving, &mut refused);
                assert!(refused.is_empty(), "the window is no longer than the queue");
            }
            let pause = rate.map_or(Duration::from_micros(500), |rate| Duration::from_secs_f64(1.0 / rate));
            std::thread::sleep(pause);
            assert!(start.elapsed() < Duration::from_secs(60), "{arrived} of {count} packets arrived");
        }
    }
}

/// Runs of one relay: packets a second, the relay's processor time per packet, and the share of its threads.
#[derive(Default)]
struct Runs {
    rates: Vec<f64>,
    cpu: Vec<f64>,
    shares: Vec<Cpu>,
}

impl Runs {
    fn measure(runtime: &tokio::runtime::Runtime, transport: &str, rate: Option<u32>) -> Self {
        let mut relay = Relay::start(transport);
        let loaders = runtime.block_on(Loaders::connect(&relay));
        let mut runs = Self::default();
        // Two seconds for each run.
        let count = rate.map_or(PACKETS, |rate| rate as usize * 2);
        for run in 0..RUNS {
            let load = packets(count, relay.key, relay.epoch, loaders.sink, 100 + run as u64);
            let (start, before) = (now().mono, relay.cpu());
            loaders.send(load, rate.map(f64::from));
            runs.rates.push(count as f64 / start.elapsed().as_secs_f64());
            let cpu = relay.cpu().since(before, count);
            runs.cpu.push(cpu.total());
            runs.shares.push(cpu);
        }
        let [received, forwarded, dropped] = relay.stats();
        assert_eq!((received, dropped), (forwarded, 0), "nothing may be dropped");
        runs
    }

    /// Where the time goes: per packet, of the run with the median.
    fn print_shares(&mut self) {
        self.shares.sort_by(|a, b| a.total().total_cmp(&b.total()));
        let Cpu { workers, engine, sockets } = self.shares[self.shares.len() / 2];
        println!(
            "    of a relay's time per packet: workers {workers:.2} us, engine {engine:.2} us, sockets {sockets:.2} us"
        );
    }
}

fn relay(harness: &mut Harness, runtime: &tokio::runtime::Runtime) {
    let mut runs = Runs::measure(runtime, "tcp", None);
    let (rate, cpu) = (Target::AtLeast(25_000.0), Target::AtMost(40.0));
    harness.medians("mix_relay_packets_per_s", &mut runs.rates, None, "packets/s", Some(rate));
    harness.medians("mix_relay_cpu_us_per_packet", &mut runs.cpu, None, "us", Some(cpu));
    runs.print_shares();
}

/// The same over QUIC, in turns with TCP.
fn quic(harness: &mut Harness, runtime: &tokio::runtime::Runtime) {
    let mut tcp = Runs::measure(runtime, "tcp", None);
    let mut quic = Runs::measure(runtime, "quic", None);
    let [rate, cpu] = [median(&mut tcp.rates), median(&mut tcp.cpu)];
    harness.medians("mix_relay_quic_packets_per_s", &mut quic.rates, Some(("TCP", rate)), "packets/s", None);
    harness.medians("mix_relay_quic_cpu_us", &mut quic.cpu, Some(("TCP", cpu)), "us", None);
    quic.print_shares();
}

/// Minutes under load: is memory flat, but for the replay filter, and is every packet accounted for?
fn soak(runtime: &tokio::runtime::Runtime) {
    let seconds: u64 = std::env::var("FOG_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(600);
    let mut relay = Relay::start("tcp");
    let loaders = runtime.block_on(Loaders::connect(&relay));
    let end = now().mono + Duration::from_secs(seconds);
    let (mut run, mut sent, mut next_line) = (1000, 0u64, now().mono);
    while now().mono < end {
        let load = packets(4000, relay.key, relay.epoch, loaders.sink, run);
        sent += load.len() as u64;
        loaders.send(load, None);
        run += 1;
        if now().mono >= next_line {
            next_line = now().mono + Duration::from_secs(30);
            relay.print_memory(sent);
        }
    }
    let [received, forwarded, dropped] = relay.print_memory(sent);
    assert_eq!((sent, received), (received, forwarded + dropped), "every packet is accounted for");
}
