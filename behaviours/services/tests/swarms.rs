//! Services between real swarms over TCP on loopback.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../circuits/tests/common/net.rs"]
#[expect(dead_code, reason = "shared with the tests of circuits, which use the rest")]
mod net;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fog_base::{EpochSchedule, UnixMillis};
use fog_circuits::{Circuits, End, Event, Isolation, Open, Purpose, Stream};
use fog_services::{
    Address,
    core::{
        blinding::Identity,
        period::{Calendar, Period},
        ring::Ring,
        service::Row,
    },
    runtime::{Config, Hosted, Keep, Network, Services, Wanted},
    wire::command,
};
use net::{NETWORK, Net, PATIENCE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};

/// A disk that takes everything.
#[derive(Debug)]
struct Disk;

impl Keep for Disk {
    async fn write(&self, _: u64, _: Vec<Row>) -> bool {
        true
    }
}

fn calendar() -> Calendar {
    Calendar { network: NETWORK, schedule: EpochSchedule::new(Duration::from_secs(1800)) }
}

/// Some nodes, all relays, each with the tasks of services.
struct World {
    net: Net,
    services: Vec<Services>,
}

impl World {
    async fn new(count: usize) -> Self {
        let mut net = Net::new(count).await;
        let relays = net.relays.lock().unwrap().clone();
        let unix = UnixMillis(0).plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        let running = Period::at(calendar().epoch(unix));
        let rings = [running.previous(), running, running.next()]
            .map(|period| Ring::new(NETWORK, period, &[1; 32], relays.iter().map(|hop| hop.relay.id)));
        let mut services = Vec::new();
        for (at, node) in net.nodes.iter_mut().enumerate() {
            let config = Config { calendar: calendar(), us: node.hop.relay.id, hops: 3, seed: [at as u8; 32] };
            // There is no mixnet here.
            let (orders, _never) = tokio::sync::mpsc::channel(1);
            let of_node = Services::start(config, node.circuits.clone(), Arc::new(Disk), orders);
            of_node.set_network(Network {
                relays: relays.clone(),
                rings: rings.to_vec(),
                is_relay: true,
                has_long_paths: false,
            });
            let (_, never) = tokio::sync::mpsc::channel(1);
            let mut events = std::mem::replace(&mut node.events, never);
            let (told, circuits) = (of_node.clone(), node.circuits.clone());
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    let circuit = if let Event::Message { circuit, .. } = &event { Some(*circuit) } else { None };
                    if !told.handle(event) {
                        circuit.into_iter().for_each(|circuit| circuits.close(circuit));
                    }
                }
            });
            services.push(of_node);
        }
        Self { net, services }
    }

    /// A service on this node that is shown to be reachable.
    async fn host(&self, at: usize) -> Address {
        let identity = Identity::from_seed([at as u8; 32]).unwrap();
        let address = Address::new(*identity.key());
        let (target, clients, rows) = (server().await, vec![], vec![]);
        self.services[at].host(Hosted { number: 1, identity, target, port: 80, clients, rows });
        let is_reachable = async {
            while !self.services[at].status().await.iter().any(|(_, s)| s.last_probe.as_ref().is_some_and(|p| p.ok)) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, is_reachable).await.unwrap();
        address
    }

    async fn connect(&self, at: usize, address: Address, isolation: u8, early: &[u8]) -> Stream {
        let wanted = Wanted {
            address,
            port: 80,
            client: None,
            isolation: Isolation([isolation; 32]),
            early: early.to_vec(),
            stage: watch::Sender::new(None),
        };
        timeout(PATIENCE, self.services[at].connect(wanted)).await.unwrap().unwrap()
    }
}

/// Says what it hears, to each who asks, and that it does.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                writer.write_all(b"served ").await.unwrap();
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
        }
    });
    address
}

async fn answer(mut stream: Stream, more: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(more).await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut answer).await.unwrap();
    };
    timeout(PATIENCE, exchange).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_stream_comes_with_the_introduction_and_others_follow() {
    let world = World::new(8).await;
    let address = world.host(1).await;
    // On connections of their own: nothing of the request is lost, nothing comes twice.
    for (isolation, len) in [(1, 0), (2, 5), (3, 605), (4, 606), (5, 20_000)] {
        let request: Vec<u8> = (0..len).map(|at: u32| (at % 251) as u8).collect();
        let stream = world.connect(0, address, isolation, &request).await;
        assert_eq!(answer(stream, b"and more").await, [b"served ", &request[..], b"and more"].concat());
    }
    // On the same one.
    let second = world.connect(0, address, 5, b"second ").await;
    assert_eq!(answer(second, b"stream").await, b"served second stream");
    let streams = (0..20u8).map(|at| {
        let (services, early) = (&world, [at; 100]);
        async move { answer(services.connect(2, address, 9, &early).await, &vec![at; 100_000]).await }
    });
    for (at, answer) in futures::future::join_all(streams).await.into_iter().enumerate() {
        assert!(answer.starts_with(b"served ") && answer[7..].iter().all(|byte| usize::from(*byte) == at));
        assert_eq!(answer.len(), 7 + 100_100);
    }
}

fn raw(circuits: &Circuits, world: &Net, relay: usize) -> fog_circuits::CircuitId {
    let end = End::Relay(world.nodes[relay].hop.clone());
    circuits.open(Open { purpose: Purpose::Probe, end, isolation: Isolation::default(), hops: 2 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_costs_the_circuit_and_a_flood_at_a_relay_is_not_felt_by_its_service() {
    let mut world = World::new(7).await;
    let address = world.host(1).await;
    // Somebody without services of its own, whose events are looked at.
    world.net.add(net::core_config()).await;
    let stranger = world.net.nodes.len() - 1;
    let circuits = world.net.nodes[stranger].circuits.clone();
    for _ in 0..20 {
        let circuit = raw(&circuits, &world.net, 1);
        let opened = |event| matches!(event, Event::Opened { circuit: of, .. } if of == circuit).then_some(());
        world.net.nodes[stranger].until(opened).await;
        circuits.send_message(circuit, command::ESTABLISH_INTRO, vec![7; 100]);
        // However many follow, at most 64 of them wait.
        (0..50).for_each(|_| circuits.send_message(circuit, command::INTRODUCE1, vec![7; 1872]));
        let closed = |event| matches!(event, Event::Closed { circuit: of, .. } if of == circuit).then_some(());
        world.net.nodes[stranger].until(closed).await;
    }
    let stream = world.connect(0, address, 1, b"still ").await;
    assert_eq!(answer(stream, b"here").await, b"served still here");
    let of = |name| {
        let rejects = world.services[1].counts().rejects;
        rejects.iter().find(|(reason, _)| *reason == name).unwrap().1
    };
    let counted = async {
        while of("bad_signature") < 20 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, counted).await.unwrap();
    assert_eq!((of("bad_signature"), of("malformed")), (20, 0));
}
