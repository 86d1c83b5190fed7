//! Hostile gossip over real swarms: an attacker, a node, and a bystander behind it. What the attacker sends reaches neither the node's
//! set nor the bystander, and is held against the attacker where no honest peer would have sent it.
#![cfg(feature = "libp2p")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use fog_base::{
    DropReason, Epoch, EpochSchedule, NetworkId, UnixMillis,
    relay::{Role, Roles},
};
use fog_directory::{Acceptance, Address, Behaviour, Config, Descriptor, Facts, Signer, Transport};
use futures::StreamExt;
use libp2p::{
    PeerId, Swarm,
    gossipsub::{self, MessageAcceptance, MessageId},
    identity,
    swarm::SwarmEvent,
};
use libp2p_swarm_test::SwarmExt;
use schnorrkel::{ExpansionMode, MiniSecretKey};

const NETWORK: NetworkId = NetworkId([8; 32]);
const PATIENCE: Duration = Duration::from_secs(30);
/// New descriptors that one source may bring.
const QUOTA: f64 = 6.0;
/// As the program has it.
const MAX_GOSSIP: usize = 16 * 1024;

fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(3600))
}

#[expect(clippy::disallowed_methods, reason = "real swarms run on the real clock")]
fn unix() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

fn epoch() -> Epoch {
    schedule().at(unix())
}

fn descriptor(network: &NetworkId, n: u8, seconds_ago: u64) -> Descriptor {
    let identity = SigningKey::from_bytes(&[n; 32]);
    let vrf = MiniSecretKey::from_bytes(&[n; 32]).unwrap().expand_to_keypair(ExpansionMode::Uniform);
    let mix_key = |seed: u8| curve25519_dalek::MontgomeryPoint::mul_base_clamped([seed; 32]).to_bytes();
    let facts = Facts {
        addresses: vec![Address { ip: [10, 0, 0, n].into(), transport: Transport::Tcp, port: 1 }],
        roles: Roles::NONE.with(Role::Mix),
        mix_keys: [mix_key(n), mix_key(n + 100)],
        seal_key: mix_key(n),
        circuit_key: None,
        capacity: 100,
        mix_versions: vec![1],
        family: None,
        exit_policy: None,
    };
    let now = unix();
    let seq = now.0 - seconds_ago * 1000;
    Descriptor::sign(
        (&identity, &vrf),
        (network, &schedule()),
        (&facts, &Default::default()),
        (epoch(), seq),
        now,
        &[1; 32],
    )
    .unwrap()
}

#[derive(Default)]
struct Notes {
    rejected: BTreeMap<PeerId, usize>,
    ignored: usize,
    accepted: usize,
}

/// The directory is beside the swarm: only gossip is looked at here, and no exchange.
struct Running {
    swarm: Swarm<gossipsub::Behaviour>,
    directory: Behaviour,
    notes: Notes,
}

fn topic() -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new(NETWORK.protocol("directory", 1))
}

impl Running {
    async fn start(max_size: usize) -> Self {
        let mut swarm = Swarm::new_ephemeral_tokio(|keypair: identity::Keypair| {
            let config = gossipsub::ConfigBuilder::default()
                .protocol_id_prefix(NETWORK.protocol("gossip", 1))
                .validation_mode(gossipsub::ValidationMode::Strict)
                .validate_messages()
                .message_id_fn(|message| MessageId::from(message.data.clone()))
                .max_transmit_size(max_size)
                .heartbeat_interval(Duration::from_millis(200))
                .build()
                .unwrap();
            let mut gossip =
                gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Signed(keypair), config).unwrap();
            gossip.subscribe(&topic()).unwrap();
            gossip
        });
        swarm.listen().with_memory_addr_external().await;
        let identity = SigningKey::from_bytes(&[1; 32]);
        let vrf = MiniSecretKey::from_bytes(&[1; 32]).unwrap().expand_to_keypair(ExpansionMode::Uniform);
        let signer = Signer { identity: Arc::new(identity), vrf: Arc::new(vrf) };
        let config = Config { source_rate: 0.0, source_burst: QUOTA, ..Config::new(NETWORK, schedule()) };
        let directory = Behaviour::new(config, signer, None, [1; 32]);
        Self { swarm, directory, notes: Notes::default() }
    }

    fn root(&self) -> [u8; 32] {
        self.directory.snapshot(epoch()).root()
    }

    fn relays(&self) -> usize {
        self.directory.relays().len()
    }

    fn refused(&self, reason: DropReason) -> u64 {
        self.directory.relays().drops().get(reason)
    }

    /// As the program judges a message.
    fn handle(&mut self, event: SwarmEvent<gossipsub::Event>) {
        let SwarmEvent::Behaviour(gossipsub::Event::Message { propagation_source, message_id, message }) = event else {
            return;
        };
        let verdict = match self.directory.handle_gossip(&propagation_source, &message.data) {
            Acceptance::Accept => {
                self.notes.accepted += 1;
                MessageAcceptance::Accept
            }
            Acceptance::Ignore => {
                self.notes.ignored += 1;
                MessageAcceptance::Ignore
            }
            Acceptance::Reject => {
                *self.notes.rejected.entry(propagation_source).or_default() += 1;
                MessageAcceptance::Reject
            }
        };
        let gossip = self.swarm.behaviour_mut();
        gossip.report_message_validation_result(&message_id, &propagation_source, verdict);
    }
}

async fn drive(nodes: &mut [Running], mut done: impl FnMut(&mut [Running]) -> bool) {
    let work = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while !done(nodes) {
            let events = nodes.iter_mut().enumerate().map(|(i, node)| {
                let event = async move { (i, node.swarm.select_next_some().await) };
                Box::pin(event)
            });
            tokio::select! {
                ((i, event), ..) = futures::future::select_all(events) => nodes[i].handle(event),
                _ = tick.tick() => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("what is awaited happens in time");
}

/// Attacker, node, bystander, in a line, with the mesh between them.
async fn line() -> Vec<Running> {
    let mut nodes = Vec::new();
    for size in [4 * MAX_GOSSIP, MAX_GOSSIP, MAX_GOSSIP] {
        nodes.push(Running::start(size).await);
    }
    let address = nodes[1].swarm.external_addresses().next().unwrap().clone();
    for i in [0, 2] {
        nodes[i].swarm.dial(address.clone()).unwrap();
    }
    let meshed = |node: &Running, peers: usize| node.swarm.behaviour().mesh_peers(&topic().hash()).count() == peers;
    drive(&mut nodes, |nodes| meshed(&nodes[0], 1) && meshed(&nodes[1], 2) && meshed(&nodes[2], 1)).await;
    nodes
}

fn publish(node: &mut Running, bytes: Vec<u8>) {
    node.swarm.behaviour_mut().publish(topic(), bytes).unwrap();
}

/// A good descriptor still passes, so whatever came before it was not merely slow.
async fn settle(nodes: &mut [Running], relays: usize) {
    publish(&mut nodes[0], descriptor(&NETWORK, 99, 0).as_bytes().to_vec());
    drive(nodes, |nodes| nodes[1].relays() == relays + 1 && nodes[2].relays() == relays + 1).await;
}

#[tokio::test]
async fn forged_foreign_and_oversized_descriptors_are_rejected_and_never_forwarded() {
    let good = descriptor(&NETWORK, 50, 0);
    let forged = {
        let mut bytes = good.as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let oversized = [good.as_bytes(), &[0; 4000]].concat();
    let foreign = descriptor(&NetworkId([9; 32]), 51, 0).as_bytes().to_vec();
    let mut nodes = line().await;
    let (attacker, before) = (*nodes[0].swarm.local_peer_id(), nodes[1].root());
    for bytes in [forged, oversized, foreign] {
        publish(&mut nodes[0], bytes);
    }
    drive(&mut nodes, |nodes| nodes[1].notes.rejected.get(&attacker) == Some(&3)).await;
    assert_eq!((nodes[1].root(), nodes[1].relays()), (before, 0));
    assert_eq!((nodes[1].refused(DropReason::BadMac), nodes[1].refused(DropReason::Malformed)), (2, 1));
    settle(&mut nodes, 0).await;
    assert_eq!((nodes[2].notes.accepted, nodes[2].notes.ignored, nodes[2].notes.rejected.len()), (1, 0, 0));
}

#[tokio::test]
async fn a_stale_descriptor_is_counted_and_goes_no_further() {
    let (new, old) = (descriptor(&NETWORK, 50, 0), descriptor(&NETWORK, 50, 3000));
    let mut nodes = line().await;
    publish(&mut nodes[0], new.as_bytes().to_vec());
    drive(&mut nodes, |nodes| nodes[1].relays() == 1 && nodes[2].relays() == 1).await;
    let before = nodes[1].root();
    publish(&mut nodes[0], old.as_bytes().to_vec());
    drive(&mut nodes, |nodes| nodes[1].notes.ignored == 1).await;
    assert_eq!((nodes[1].root(), nodes[1].refused(DropReason::Replayed)), (before, 1));
    assert!(nodes[1].notes.rejected.is_empty(), "an honest peer may lag behind");
    settle(&mut nodes, 1).await;
    assert_eq!(nodes[2].notes.ignored, 0, "the bystander never saw it");
}

#[tokio::test]
async fn a_message_larger_than_gossip_allows_does_not_arrive() {
    let mut nodes = line().await;
    let before = nodes[1].root();
    publish(&mut nodes[0], vec![7; 2 * MAX_GOSSIP]);
    let mut ticks = 0;
    drive(&mut nodes, |_| {
        ticks += 1;
        ticks > 20
    })
    .await;
    assert_eq!((nodes[1].root(), nodes[1].relays(), nodes[1].notes.accepted), (before, 0, 0));
    assert_eq!(nodes[2].notes.accepted + nodes[2].notes.ignored, 0);
}

#[tokio::test]
async fn a_flood_of_identities_is_cut_off_at_the_quota_of_its_source() {
    let mut nodes = line().await;
    for n in 50..62 {
        publish(&mut nodes[0], descriptor(&NETWORK, n, 0).as_bytes().to_vec());
    }
    drive(&mut nodes, |nodes| nodes[1].refused(DropReason::RateLimited) == 6).await;
    assert_eq!((nodes[1].relays(), nodes[1].notes.accepted), (6, 6));
    drive(&mut nodes, |nodes| nodes[2].relays() == 6).await;
    assert_eq!(nodes[2].notes.ignored, 0, "what was refused is not forwarded");
}
