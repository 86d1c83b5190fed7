//! Whole nodes in one process, on loopback sockets, with mix keys of the test's. On a quiet machine eight nodes of which seven know
//! one address know eight relays within five seconds.

use std::{sync::Arc, time::Instant};

use fog_base::NetworkId;

use super::*;
use crate::{
    config::Layers,
    node::command::{Failure, FailureKind},
    store::MemoryStore,
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    running: RunningNode,
    shutdown: CancellationToken,
    store: Arc<MemoryStore>,
    address: Multiaddr,
    /// Its mix keys.
    _directory: tempfile::TempDir,
}

fn network(id: u8) -> Network {
    Network { id: NetworkId([id; 32]), epoch_length: Duration::from_secs(3600), ..Network::lan() }
}

fn config(listen: &[&str], bootstrap: &[Multiaddr], roles: &str) -> Config {
    let data_dir = |name: &str| (name == "FOG_DATA_DIR").then(|| "/nonexistent".to_owned());
    let mut config = Config::resolve(Layers::default(), None, &data_dir).unwrap();
    config.listen = listen.iter().map(|text| text.parse().unwrap()).collect();
    config.bootstrap = bootstrap.to_vec();
    config.roles = roles.parse().unwrap();
    config.mdns = false;
    config.lan_beacon = false;
    config
}

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

impl Node {
    async fn start(config: Config, network: Network) -> Self {
        Self::start_as(Keys::generate().unwrap(), Arc::new(MemoryStore::new()), config, network).await
    }

    async fn start_as(keys: Keys, store: Arc<MemoryStore>, mut config: Config, network: Network) -> Self {
        let directory = tempfile::tempdir().unwrap();
        config.data_dir = directory.path().to_owned();
        let shutdown = CancellationToken::new();
        let mut running = start(config, keys, store.clone(), network, shutdown.clone()).unwrap();
        let Some(Lifecycle::Listening { address }) = running.events.recv().await else { panic!("it does not listen") };
        Self { running, shutdown, store, address: address.parse().unwrap(), _directory: directory }
    }

    fn handle(&self) -> &NodeHandle {
        &self.running.handle
    }

    async fn connect(&self, target: &str) -> Result<report::Connected, Failure> {
        self.handle().connect(target.into(), Duration::from_secs(5)).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.join.await.unwrap().unwrap();
    }
}

/// Waits until `done` holds for all nodes; how long that took.
async fn wait(what: &str, nodes: &[Node], done: impl Fn(&report::Status) -> bool) -> Duration {
    let start = clock::now().mono;
    loop {
        let mut all = Vec::new();
        for node in nodes {
            all.push(node.handle().status().await.unwrap());
        }
        let waited = clock::now().mono.duration_since(start);
        if all.iter().all(&done) && all.windows(2).all(|pair| pair[0].snapshot_root == pair[1].snapshot_root) {
            return waited;
        }
        assert!(waited < PATIENCE, "{what}: {all:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn star(listen: &[&str], count: usize) -> Vec<Node> {
    let mut nodes = vec![Node::start(config(listen, &[], "mix,mailbox"), network(1)).await];
    for _ in 1..count {
        let bootstrap = [nodes[0].address.clone()];
        nodes.push(Node::start(config(listen, &bootstrap, "mix,mailbox"), network(1)).await);
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_nodes_with_one_address_know_eight_relays() {
    let nodes = star(&[TCP, QUIC], 8).await;
    let waited = wait("eight relays everywhere", &nodes, |status| {
        status.relays.known == 8 && status.relays.seated == 8 && status.mix.ready
    })
    .await;
    eprintln!("eight nodes of which seven know one address know eight relays after {waited:?}");
    // They stay connected to each other, so that mix links need no dial.
    wait("all connected", &nodes, |status| status.peers.connected == 7 && status.state == State::Ready).await;
    let relays = nodes[3].handle().relays().await.unwrap();
    assert!(relays.iter().all(|relay| relay.seated && relay.roles == ["mix", "mailbox"]));
    assert!(relays.iter().all(|relay| relay.addresses.iter().all(|a| a.starts_with("/ip4/127.0.0.1/"))));
    let snapshot = nodes[3].handle().snapshot().await.unwrap();
    assert_eq!((snapshot.relays, snapshot.certified, snapshot.total_weight), (8, false, 8));
    // All of them serve Kademlia; those that dialled it are dialled back before they are in its table.
    let start = clock::now().mono;
    loop {
        let metrics = nodes[3].handle().metrics().await.unwrap();
        if metrics.contains("fog_kademlia_peers 7.0") && metrics.contains("fog_kademlia_records 8.0") {
            break;
        }
        assert!(clock::now().mono.duration_since(start) < PATIENCE, "{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_transport_alone_is_enough() {
    for transport in [TCP, QUIC] {
        let nodes = star(&[transport], 3).await;
        wait(transport, &nodes, |status| status.relays.known == 3).await;
        for node in nodes {
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_no_relay_and_sees_those_that_are() {
    let mut nodes = star(&[TCP], 2).await;
    let bootstrap = [nodes[0].address.clone()];
    nodes.push(Node::start(config(&[TCP], &bootstrap, "none"), network(1)).await);
    wait("two relays", &nodes, |status| status.relays.known == 2).await;
    let client = nodes[2].handle().status().await.unwrap();
    assert_eq!((client.roles.len(), client.roles_waiting.len()), (0, 0));
    let relay = nodes[0].handle().status().await.unwrap();
    assert_eq!(relay.roles, ["mix", "mailbox"]);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_different_networks_do_not_stay_connected() {
    let a = Node::start(config(&[TCP], &[], "mix"), network(1)).await;
    let b = Node::start(config(&[TCP], &[], "mix"), network(2)).await;
    let failure = b.connect(&a.address.to_string()).await.unwrap_err();
    assert!(failure.message.contains("another network"), "{failure}");
    assert_eq!(b.handle().status().await.unwrap().peers.connected, 0);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_takes_addresses_invites_and_relays_and_says_what_is_wrong_with_others() {
    let nodes = star(&[TCP], 2).await;
    wait("two relays", &nodes, |status| status.relays.known == 2).await;
    let me = Node::start(config(&[TCP], &[], "none"), network(1)).await;
    let identity = nodes[0].handle().identity().await.unwrap();
    let connected = me.connect(&identity.invite).await.unwrap();
    assert_eq!(connected.peer_id, identity.peer_id);
    assert!(connected.rtt_ms > 0.0 && connected.rtt_ms < 1000.0);
    let other = nodes[1].handle().identity().await.unwrap();
    assert_eq!(me.connect(&other.addresses[0]).await.unwrap().peer_id, other.peer_id);
    assert_eq!(me.connect(&other.peer_id).await.unwrap().peer_id, other.peer_id);
    let refused = me.connect("/ip4/127.0.0.1/tcp/1").await.unwrap_err();
    assert!(refused.message.contains("refused") && !refused.hint.is_empty(), "{refused}");
    assert_eq!(me.connect("nonsense").await.unwrap_err().kind, FailureKind::Usage);
    assert_eq!(me.connect("fog1nonsense").await.unwrap_err().kind, FailureKind::Usage);
    let own = me.handle().identity().await.unwrap();
    let itself = me.connect(&own.addresses[0]).await.unwrap_err();
    assert!(itself.message.contains("itself"), "{itself}");
    for node in nodes.into_iter().chain([me]) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_survive_a_restart_and_stopping_is_quick() {
    let nodes = star(&[TCP], 2).await;
    wait("two relays", &nodes, |status| status.relays.known == 2).await;
    let store = nodes[0].store.clone();
    for node in nodes {
        let start = clock::now().mono;
        node.stop().await;
        assert!(Instant::duration_since(&clock::now().mono, start) < Duration::from_secs(5));
    }
    let keys = Keys::generate().unwrap();
    let node = Node::start_as(keys, store, config(&[TCP], &[], "none"), network(1)).await;
    assert_eq!(node.handle().status().await.unwrap().relays.known, 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_name_every_drop_reason() {
    let node = Node::start(config(&[TCP], &[], "mix"), network(1)).await;
    let text = node.handle().metrics().await.unwrap();
    for reason in fog_base::DropReason::ALL {
        assert!(text.contains(&format!("reason=\"{}\"", reason.name())), "{text}");
    }
    assert!(text.contains("fog_peers{path=\"lan\"} 0"), "{text}");
    node.stop().await;
}
