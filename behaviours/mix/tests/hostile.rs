//! What a hostile peer can send to a relay over a real connection: every packet is dropped under its reason, nothing is answered,
//! honest packets pass before, between and after, and a crash of the relay forgets nothing.
#![allow(clippy::disallowed_methods, reason = "a whole behaviour reads clocks")]

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use fog_base::{
    DropReason, Epoch, EpochSchedule, NetworkId, NodeId,
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
    },
    node_id,
    runtime::{
        keystore::KeyStoreConfig,
        start::{Config, Limits},
        stats::Stats,
    },
};
use fog_sphinx::{BODY_LEN, Hop, LastHop, MixPublicKey, PACKET_LEN, build};
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, swarm::SwarmEvent, tcp, yamux};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use zeroize::Zeroizing;

/// No paths; the peer is a relay, or nobody is.
#[derive(Debug)]
struct Relays(Option<NodeId>);

impl PathSelector for Relays {
    fn path(&self, request: &PathRequest<'_>, _: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath> {
        Err(NoPath::UnknownRelay(request.last))
    }
    fn measuring_path(
        &self,
        request: &PathRequest<'_>,
        _: &dyn Fn(&NodeId) -> u32,
        rng: &mut dyn Rng,
    ) -> Result<Vec<RelayHop>, NoPath> {
        self.path(request, rng)
    }
    fn relay(&self, _: Epoch, id: NodeId) -> Option<RelayHop> {
        let hop = || RelayHop { id, mix_key: [9; 32], delay_salt: [0; 32], seal_key: [9; 32], versions: Arc::new([1]) };
        (self.0 == Some(id)).then(hop)
    }
    fn with_role(&self, _: Epoch, _: Role) -> Vec<NodeId> {
        Vec::new()
    }
}

fn config(me: NodeId, roles: Roles, keys: &Path, link_rate: f64) -> Config {
    Config {
        endpoint: EndpointConfig {
            me,
            network: NetworkId([9; 32]),
            schedule: EpochSchedule::new(Duration::from_secs(3600)),
            delays: Delays { mean: Duration::from_millis(1), max: Duration::from_millis(10) },
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
        workers: 2,
        limits: Limits {
            link_rate,
            link_burst: link_rate,
            total_rate: 1e5,
            pool: 10_000,
            mailbox: MailboxLimits::default(),
        },
        keys: KeyStoreConfig { directory: keys.into(), boot_id: Some([7; 16]), storage_key: Zeroizing::new([3; 32]) },
        delay_salt: Arc::new(|_| [4; 32]),
        faults: None,
        paths: Arc::new(Relays(None)),
        seed: rand::random(),
    }
}

fn swarm(roles: Roles, keys: &Path, link_rate: f64) -> Swarm<Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let me = node_id(&PeerId::from(key.public())).unwrap();
            Behaviour::new(config(me, roles, keys, link_rate)).unwrap()
        })
        .unwrap()
        .build()
}

/// A relay that runs on its own task, and a peer that is connected to it.
struct Pair {
    stats: Arc<Stats>,
    epoch: Epoch,
    key: [u8; 32],
    relay: NodeId,
    attacker: tokio::sync::mpsc::Receiver<Event>,
    links: Arc<fog_mix::runtime::links::Links>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    rng: StdRng,
}

impl Pair {
    async fn start(keys: &Path, link_rate: f64) -> Self {
        Self::start_with(keys, link_rate, |_| None).await
    }

    /// `known` says which relay the relay knows, given the peer.
    async fn start_with(keys: &Path, link_rate: f64, known: impl Fn(NodeId) -> Option<NodeId>) -> Self {
        let mut relay = swarm(Roles::NONE.with(Role::Mix), keys, link_rate);
        relay.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let (mut address, mut published): (Option<Multiaddr>, _) = (None, None);
        while address.is_none() || published.is_none() {
            match relay.select_next_some().await {
                SwarmEvent::NewListenAddr { address: new, .. } => address = Some(new),
                SwarmEvent::Behaviour(Event::Keys(keys)) => published = Some(keys[0]),
                _ => {}
            }
        }
        let ((epoch, key), stats, id) = (published.unwrap(), relay.behaviour().stats(), *relay.local_peer_id());
        let directory = tempfile::tempdir().unwrap();
        let mut attacker = swarm(Roles::NONE, directory.path(), 1e6);
        relay.behaviour_mut().set_paths(Arc::new(Relays(known(node_id(attacker.local_peer_id()).unwrap()))));
        let relaying = tokio::spawn(async move { while relay.next().await.is_some() {} });
        attacker.dial(address.unwrap()).unwrap();
        while !matches!(attacker.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        let links = attacker.behaviour().links();
        let (events, received) = tokio::sync::mpsc::channel(64);
        let attacking = tokio::spawn(async move {
            let _directory = directory;
            while let Some(event) = attacker.next().await {
                if let SwarmEvent::Behaviour(event) = event {
                    let _full = events.try_send(event);
                }
            }
        });
        let (relay, tasks, rng) = (node_id(&id).unwrap(), vec![relaying, attacking], StdRng::seed_from_u64(5));
        Self { stats, epoch, key, relay, attacker: received, links, tasks, rng }
    }

    /// A packet whose last hop is the relay.
    fn packet(&mut self) -> PacketBuf {
        let path = [Hop { id: self.relay.0, key: MixPublicKey::from_bytes(&self.key).unwrap() }];
        let mut packet: PacketBuf = Box::new([0; PACKET_LEN]);
        let last = LastHop::Deliver { reference: [0; 16] };
        build(&path, self.epoch.0, &last, &[0; BODY_LEN], &mut self.rng, &mut packet).unwrap();
        packet
    }

    fn send(&self, packet: PacketBuf) {
        let mut refused = Vec::new();
        self.links.push(&mut vec![(self.relay, packet)], &mut refused);
        assert!(refused.is_empty());
    }

    async fn until(&self, what: &str, done: impl Fn(&Stats) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(&self.stats) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.stats);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn expect_drops(&self, reason: DropReason, count: u64) {
        self.until(reason.name(), |stats| stats.drops.get(reason) == count).await;
    }

    async fn expect_delivered(&self, count: u64) {
        self.until("delivered", |stats| stats.delivered.load(Ordering::Relaxed) == count).await;
    }

    async fn stop(self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        for task in self.tasks {
            let _aborted = task.await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_packet_is_dropped_under_its_reason_and_honest_ones_pass() {
    let keys = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(keys.path(), 1e6).await;
    let honest = pair.packet();
    pair.send(honest.clone());
    pair.expect_delivered(1).await;
    // The body is not sealed for the relay: the endpoint drops it, which is not the header's affair.
    pair.expect_drops(DropReason::BadPayload, 1).await;

    pair.send(honest.clone());
    pair.expect_drops(DropReason::Replayed, 1).await;
    // Header bits: the epoch's last byte aside, which names another key, every one is under the MAC. α with bit 255 too.
    let mut flips = 0;
    for at in (5..298).step_by(7).chain([36]) {
        let mut packet = pair.packet();
        packet[at] ^= if at == 36 { 0x80 } else { 1 };
        pair.send(packet);
        flips += 1;
    }
    pair.expect_drops(DropReason::BadMac, flips).await;
    let mut damaged = pair.packet();
    damaged[2000] ^= 1;
    pair.send(damaged);
    pair.expect_drops(DropReason::BadPayload, 2).await;
    let mut version = pair.packet();
    version[0] = 9;
    pair.send(version);
    pair.expect_drops(DropReason::UnknownVersion, 1).await;
    let mut epoch = pair.packet();
    epoch[1..5].copy_from_slice(&(pair.epoch.0 + 40).to_be_bytes());
    pair.send(epoch);
    pair.expect_drops(DropReason::WrongEpoch, 1).await;
    for _ in 0..200 {
        let mut garbage: PacketBuf = Box::new([0; PACKET_LEN]);
        pair.rng.fill(&mut garbage[..]);
        garbage[..5].copy_from_slice(&honest[..5]);
        pair.send(garbage);
    }
    pair.until("garbage", |stats| stats.drops.get(DropReason::BadMac) >= flips + 190).await;
    let last = pair.packet();
    pair.send(last);
    pair.expect_delivered(2).await;
    assert!(pair.attacker.try_recv().is_err(), "nothing is answered");

    // kill -9: what is on disk at this moment is all that a new process finds.
    let after_crash = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(keys.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, after_crash.path().join(path.file_name().unwrap())).unwrap();
    }
    pair.stop().await;
    let again = Pair::start(after_crash.path(), 1e6).await;
    again.send(honest);
    again.expect_drops(DropReason::Replayed, 1).await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_that_comes_through_a_relay_is_dropped_and_its_link_stays() {
    let keys = tempfile::tempdir().unwrap();
    let pair = Pair::start_with(keys.path(), 100.0, Some).await;
    let start = Instant::now();
    while pair.stats.drops.get(DropReason::RateLimited) < 60_000 && start.elapsed() < Duration::from_secs(60) {
        let garbage = || (pair.relay, Box::new([1; PACKET_LEN]));
        let (mut packets, mut refused) = (std::iter::repeat_with(garbage).take(256).collect(), Vec::new());
        pair.links.push(&mut packets, &mut refused);
        assert!(pair.links.takes(&pair.relay), "the link has ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(pair.stats.drops.get(DropReason::RateLimited) >= 60_000);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_limited_and_reported_and_its_peer_disconnected() {
    let keys = tempfile::tempdir().unwrap();
    let pair = Pair::start(keys.path(), 100.0).await;
    let start = Instant::now();
    // Garbage of the right shape, as fast as it goes.
    while pair.links.takes(&pair.relay) && start.elapsed() < Duration::from_secs(30) {
        let garbage = || (pair.relay, Box::new([1; PACKET_LEN]));
        let (mut packets, mut too_many) = (std::iter::repeat_with(garbage).take(256).collect(), Vec::new());
        pair.links.push(&mut packets, &mut too_many);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!pair.links.takes(&pair.relay), "the flooding peer is disconnected");
    assert!(pair.stats.drops.get(DropReason::RateLimited) >= 20_000);
    let taken = pair.stats.received.load(Ordering::Relaxed);
    assert!(taken as f64 <= 100.0 * (start.elapsed().as_secs_f64() + 2.0), "{taken} packets were taken");
    pair.stop().await;
}
