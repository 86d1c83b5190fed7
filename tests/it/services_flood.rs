//! A service under a flood: a thousand valid introductions a second, from hosts that hold to every limit of the relays and wait nowhere for the
//! service. Whoever wants a page gets it all the same.
//!
//! `FOG_FLOOD_SECONDS` is how long the flood lasts at least, 20 by default.

use std::{
    collections::HashMap,
    fs,
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fog::keys::{Keys, PassphraseSource};
use fog_base::{Epoch, Network, NodeId, Now};
use fog_circuits::{
    Behaviour, CircuitId, Circuits, Config, CoreConfig, End, Event, Hop, NoPath, Open, PathSource, Purpose, RelaySecret,
};
use fog_services::{
    Address,
    core::{
        blinding::{BlindedKey, Fog, Subcredential},
        descriptor::{Descriptor, IntroductionPoint},
        handshake::Initiator,
        introduction::{FirstStream, Request},
        period::{Calendar, Period},
        random::Random,
    },
    wire::{AckStatus, Message},
};
use fog_testnet::{NodePlan, Plan, Testnet, services, until};
use futures::StreamExt as _;
use libp2p::{Swarm, SwarmBuilder, identity::Keypair, noise, swarm::SwarmEvent, tcp, yamux};
use rand::RngExt as _;
use zeroize::Zeroizing;

use super::support::{PATIENCE, fog, ok, one_network_at_a_time, page_alone, run_in};

const RELAYS: usize = 8;
const HOST: usize = RELAYS;
const GUEST: usize = RELAYS + 1;
/// Introductions a second of all that flood.
const RATE: f64 = 1000.0;
/// Relays take 50 circuits a second from each neighbour.
const FLOODERS: usize = 10;
/// Introductions that a point takes from one circuit.
const PER_CIRCUIT: usize = 3;
/// Pages that are wanted meanwhile, and how many at a time.
const PAGES: usize = 60;
const TOGETHER: usize = 3;

/// Circuits of one relay: there is no path to choose.
#[derive(Debug)]
struct Direct;

impl PathSource for Direct {
    fn stem(&mut self, hops: usize, _: Option<&Hop>, _: Now) -> Result<Vec<Hop>, NoPath> {
        if hops == 0 { Ok(Vec::new()) } else { Err(NoPath::TooFewRelays) }
    }

    fn end(&mut self, _: &[NodeId], end: &End, _: Now) -> Result<Hop, NoPath> {
        match end {
            End::Relay(hop) => Ok(hop.clone()),
            End::Exit { port } => Err(NoPath::NoExit(*port)),
        }
    }

    fn is_open(&self, _: &NodeId, _: u16) -> bool {
        false
    }

    fn handle_built(&mut self, _: NodeId, _: Now) -> bool {
        true
    }

    fn handle_failed(&mut self, _: NodeId, _: Now) {}
}

/// What everybody who knows the name can know.
struct Aim {
    network: Network,
    key: BlindedKey,
    subcredential: Subcredential,
    relays: HashMap<NodeId, Hop>,
}

impl Aim {
    fn of(net: &Testnet, address: &str) -> Self {
        let network = Network::from_file(&fs::read_to_string(&net.network).expect("a file")).expect("a network");
        let calendar = Calendar { network: network.id, schedule: network.schedule() };
        let epoch = ok(net.first()).status().map(|status| status.epoch.number).expect("a status");
        let service = *Address::from_str(address).expect("a name").key();
        let key = BlindedKey::derive::<Fog>(&service, &calendar.context(Period::at(Epoch(epoch))));
        let subcredential = Subcredential::derive::<Fog>(&service, &key);
        let hop = |node: &fog_testnet::Node| {
            let keys = Keys::open(&node.data_dir, &PassphraseSource::new(None)).expect("keys");
            let said = run_in(&node.data_dir, &["--json", "id"]).json();
            let addresses = said["addresses"].as_array().expect("addresses").iter().filter_map(|one| one.as_str());
            let tcp = addresses.filter(|one| one.contains("/tcp/")).map(|one| one.parse().expect("an address"));
            let addresses = tcp.map(|address: libp2p::Multiaddr| address.to_vec()).collect();
            let relay = RelaySecret::new(keys.node_id(), &keys.circuit_secret()).public();
            (relay.id, Hop { relay, addresses })
        };
        let relays = net.nodes[..RELAYS].iter().map(hop).collect();
        Self { network, key, subcredential, relays }
    }
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    passed: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

struct Flooder {
    aim: Arc<Aim>,
    swarm: Swarm<Behaviour>,
    circuits: Circuits,
    counts: Arc<Counts>,
    points: Vec<IntroductionPoint>,
    random: Random,
    /// For which point a circuit is, and answers that it waits for.
    open: HashMap<CircuitId, (usize, usize)>,
}

impl Flooder {
    fn new(aim: Arc<Aim>, counts: Arc<Counts>) -> Self {
        let keys = Keypair::generate_ed25519();
        let id = NodeId::from_peer_id_bytes(&keys.public().to_peer_id().to_bytes()).expect("an id");
        let core = CoreConfig { is_relay: false, spares: 0, max_own: 4096, ..CoreConfig::default() };
        let secret = Zeroizing::new(rand::rng().random::<[u8; 32]>());
        let config = Config { network: aim.network.id, id, secret, core, allows_private: true };
        let behaviour = Behaviour::new(config, Box::new(Direct)).expect("threads");
        let circuits = behaviour.circuits();
        let swarm = SwarmBuilder::with_existing_identity(keys)
            .with_tokio()
            .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)
            .expect("TCP")
            .with_behaviour(|_| Ok(behaviour))
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        let random = Random::new(rand::rng().random());
        Self { aim, swarm, circuits, counts, points: Vec::new(), random, open: HashMap::new() }
    }

    fn connect(&self, relay: &NodeId, purpose: Purpose) -> CircuitId {
        let end = End::Relay(self.aim.relays[relay].clone());
        self.circuits.open(Open { purpose, end, isolation: Default::default(), hops: 1 })
    }

    fn send(&self, circuit: CircuitId, message: &Message) {
        let (command, body) = message.encode();
        self.circuits.send_message(circuit, command, body);
    }

    async fn event(&mut self) -> Event {
        loop {
            if let SwarmEvent::Behaviour(event) = self.swarm.select_next_some().await {
                return event;
            }
        }
    }

    /// Asks every relay for the descriptor.
    async fn find(&mut self) {
        let relays: Vec<_> = self.aim.relays.keys().copied().collect();
        for relay in &relays {
            self.connect(relay, Purpose::Directory);
        }
        while self.points.is_empty() {
            match self.event().await {
                Event::Opened { circuit, .. } => self.send(circuit, &Message::Fetch(*self.aim.key.as_bytes())),
                Event::Message { command, body, .. } => {
                    let Some(Message::FetchAnswer(Some(found))) = Message::decode(command, &body) else { continue };
                    let descriptor = Descriptor::parse(&found, &self.aim.network.id).expect("a descriptor");
                    self.points = descriptor.open(&self.aim.subcredential, None).expect("its contents").points;
                }
                _ => {}
            }
        }
    }

    fn introduce(&mut self, circuit: CircuitId, point: usize) {
        for _ in 0..PER_CIRCUIT {
            let rendezvous = *self.random.pick(&self.aim.relays.keys().copied().collect::<Vec<_>>()).expect("relays");
            let stream = Some(FirstStream { port: 80, early: Vec::new() });
            let request = Request { cookie: self.random.bytes(), rendezvous, work: None, stream };
            let point = &self.points[point];
            let (_, introduction) = Initiator::start(
                &self.aim.network.id,
                &self.aim.subcredential,
                point,
                &request.encode(),
                &mut self.random,
            )
            .expect("an introduction");
            self.send(circuit, &Message::Introduce1(introduction));
            self.counts.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Opened { circuit, .. } => {
                if let Some((point, _)) = self.open.get(&circuit).copied() {
                    self.introduce(circuit, point);
                }
            }
            Event::Message { circuit, command, body, .. } => {
                let count = match Message::decode(command, &body) {
                    Some(Message::IntroduceAck(AckStatus::PassedOn)) => &self.counts.passed,
                    _ => &self.counts.refused,
                };
                count.fetch_add(1, Ordering::Relaxed);
                let Some((_, waiting)) = self.open.get_mut(&circuit) else { return };
                *waiting -= 1;
                if *waiting == 0 {
                    self.open.remove(&circuit);
                    self.circuits.close(circuit);
                }
            }
            Event::Closed { circuit, .. } if self.open.remove(&circuit).is_some() => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Floods for ever.
    async fn run(mut self) {
        self.find().await;
        let mut clock = tokio::time::interval(Duration::from_secs_f64((FLOODERS * PER_CIRCUIT) as f64 / RATE));
        let mut next = 0;
        loop {
            tokio::select! {
                _ = clock.tick() => {
                    next = (next + 1) % self.points.len();
                    let circuit = self.connect(&self.points[next].relay, Purpose::Introduce);
                    self.open.insert(circuit, (next, PER_CIRCUIT));
                }
                event = self.event() => self.handle(event),
            }
        }
    }
}

/// Pages one after another, some at a time: the times of those that came, in order, and what went wrong.
fn pages(proxy: &str, address: &str, first: usize) -> (Vec<Duration>, Vec<String>) {
    let next = AtomicU64::new(0);
    let work = || {
        let mut all = Vec::new();
        while let Some(n) = Some(next.fetch_add(1, Ordering::Relaxed) as usize).filter(|n| *n < PAGES) {
            all.push(page_alone(proxy, address, first + n));
        }
        all
    };
    let all: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    let (came, failed): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    let mut times: Vec<_> = came.into_iter().flatten().collect();
    times.sort();
    (times, failed.into_iter().filter_map(Result::err).collect())
}

fn print(what: &str, times: &[Duration], failed: &[String]) {
    let at =
        |share: usize| times.get(times.len() * share / 100).or(times.last()).map_or(f64::NAN, Duration::as_secs_f64);
    let (median, p95, most) = (at(50), at(95), at(100));
    eprintln!(
        "{what}: {} pages, median {median:.2} s, p95 {p95:.2} s, at most {most:.2} s; failed {failed:?}",
        times.len()
    );
}

#[test]
fn who_wants_a_page_gets_it_in_a_flood_of_introductions() {
    let seconds: u64 = std::env::var("FOG_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), RELAYS);
    plan.nodes.extend([NodePlan::client(), NodePlan::client()]);
    plan.mean_delay_ms = 20;
    let net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let web = services::serve_web().expect("a web server");
    let address = ok(ok(net.nodes[HOST].client()).service_add(web, "web"));
    let proxy = ok(net.nodes[GUEST].client()).socks().expect("a proxy").to_owned();
    ok(until("a page of the service", PATIENCE * 2, || page_alone(&proxy, &address, 0)));
    let (times, failed) = pages(&proxy, &address, 1);
    print("before the flood", &times, &failed);

    let (aim, counts) = (Arc::new(Aim::of(&net, &address)), Arc::<Counts>::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    for _ in 0..FLOODERS {
        runtime.spawn({
            let (aim, counts) = (Arc::clone(&aim), Arc::clone(&counts));
            async move { Flooder::new(aim, counts).run().await }
        });
    }
    ok(until("a flood", PATIENCE, || match counts.passed.load(Ordering::Relaxed) {
        0..1000 => Err("few introductions were passed on".into()),
        _ => Ok(()),
    }));
    let read =
        || [&counts.sent, &counts.passed, &counts.refused, &counts.lost].map(|count| count.load(Ordering::Relaxed));
    let (before, began) = (read(), Instant::now());
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    let mut round = 1;
    while began.elapsed() < Duration::from_secs(seconds) {
        let (more, not) = pages(&proxy, &address, 1000 * round);
        times.extend(more);
        failed.extend(not);
        round += 1;
    }
    times.sort();
    let (after, elapsed) = (read(), began.elapsed().as_secs_f64());
    let [sent, passed, refused, lost] = std::array::from_fn(|at| (after[at] - before[at]) as f64 / elapsed);
    eprintln!(
        "a second: {sent:.0} introductions sent, {passed:.0} passed on, {refused:.0} refused, {lost:.1} circuits lost"
    );
    print("in the flood", &times, &failed);
    assert!(failed.is_empty(), "{failed:?}");
    let listed = ok(ok(net.nodes[HOST].client()).services());
    eprintln!("{listed:?}");
    runtime.shutdown_background();
}
