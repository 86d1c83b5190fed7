//! Directories in real swarms.
#![cfg(feature = "libp2p")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use fog_base::{
    Epoch, EpochSchedule, NetworkId, NodeId, UnixMillis,
    relay::{Role, Roles},
};
use fog_directory::{Address, Behaviour, Config, Event, Facts, Signer, Transport};
use futures::StreamExt;
use libp2p::{Swarm, identity, swarm::SwarmEvent};
use libp2p_swarm_test::SwarmExt;
use schnorrkel::{ExpansionMode, MiniSecretKey};

const NETWORK: NetworkId = NetworkId([8; 32]);
const PATIENCE: Duration = Duration::from_secs(20);

fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(3600))
}

#[expect(clippy::disallowed_methods, reason = "real swarms run on the real clock")]
fn epoch() -> Epoch {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    schedule().at(UnixMillis(unix.as_millis() as u64))
}

fn mix_key(seed: u8) -> [u8; 32] {
    curve25519_dalek::MontgomeryPoint::mul_base_clamped([seed; 32]).to_bytes()
}

fn facts(n: u8) -> Facts {
    Facts {
        addresses: vec![Address { ip: [10, 0, 0, n].into(), transport: Transport::Tcp, port: 1 }],
        roles: Roles::NONE.with(Role::Mix),
        mix_keys: [mix_key(n), mix_key(n + 100)],
        seal_key: mix_key(n),
        circuit_key: None,
        capacity: 100,
        mix_versions: vec![1],
        family: None,
        exit_policy: None,
    }
}

/// A swarm on `network` whose node is relay `n`.
async fn swarm(network: NetworkId, n: u8) -> Swarm<Behaviour> {
    let mut swarm = Swarm::new_ephemeral_tokio(|keypair: identity::Keypair| {
        let secret = keypair.try_into_ed25519().unwrap().secret();
        let identity = SigningKey::from_bytes(secret.as_ref().try_into().unwrap());
        let vrf = MiniSecretKey::from_bytes(&[n; 32]).unwrap().expand_to_keypair(ExpansionMode::Uniform);
        let signer = Signer { identity: Arc::new(identity), vrf: Arc::new(vrf) };
        Behaviour::new(Config::new(network, schedule()), signer, None, [n; 32])
    });
    swarm.listen().with_memory_addr_external().await;
    swarm.behaviour_mut().set_facts(Some((epoch(), facts(n))));
    swarm
}

/// Lets the `a`th swarm dial the `b`th; no event is lost, as it would be with `SwarmExt::connect`.
fn dial(swarms: &mut [Swarm<Behaviour>], a: usize, b: usize) {
    let address = swarms[b].external_addresses().next().unwrap().clone();
    swarms[a].dial(address).unwrap();
}

/// Drives all swarms until `done`; hands every event to `each`.
async fn drive(
    swarms: &mut [Swarm<Behaviour>],
    mut each: impl FnMut(usize, &Event),
    done: impl Fn(&[Swarm<Behaviour>]) -> bool,
) {
    let work = async {
        while !done(swarms) {
            let events =
                swarms.iter_mut().enumerate().map(|(i, swarm)| Box::pin(async move { (i, swarm.next().await) }));
            let ((i, event), ..) = futures::future::select_all(events).await;
            if let Some(SwarmEvent::Behaviour(event)) = event {
                each(i, &event);
            }
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("the swarms agree in time");
}

fn roots(swarms: &[Swarm<Behaviour>]) -> Vec<[u8; 32]> {
    swarms.iter().map(|swarm| swarm.behaviour().snapshot(epoch()).root()).collect()
}

fn agree(swarms: &[Swarm<Behaviour>], relays: usize) -> bool {
    swarms.iter().all(|swarm| swarm.behaviour().relays().len() == relays)
        && roots(swarms).windows(2).all(|pair| pair[0] == pair[1])
}

#[tokio::test]
async fn five_nodes_in_a_line_come_to_one_snapshot_by_exchange_alone() {
    let mut swarms = Vec::new();
    for n in 1..=5 {
        swarms.push(swarm(NETWORK, n).await);
    }
    for i in 1..swarms.len() {
        dial(&mut swarms, i - 1, i);
    }
    let persisted = std::cell::Cell::new(0);
    // They may agree while an order to keep a descriptor is still on its way out of a swarm.
    drive(
        &mut swarms,
        |_, event| persisted.set(persisted.get() + usize::from(matches!(event, Event::Persist { .. }))),
        |swarms| agree(swarms, 5) && persisted.get() >= 25,
    )
    .await;
    assert_eq!(roots(&swarms).len(), 5, "each of the five keeps each of the five descriptors");
}

#[tokio::test]
async fn gossip_carries_a_descriptor_where_it_is_wired() {
    let mut swarms = [swarm(NETWORK, 1).await, swarm(NETWORK, 2).await];
    let mut published = Vec::new();
    while published.is_empty() {
        if let SwarmEvent::Behaviour(Event::Publish(bytes)) = swarms[0].next_swarm_event().await {
            published.push(bytes);
        }
    }
    let from = *swarms[0].local_peer_id();
    let taken = swarms[1].behaviour_mut().handle_gossip(&from, &published[0]);
    assert_eq!(taken, fog_directory::Acceptance::Accept);
    let sender = NodeId::from_peer_id_bytes(&from.to_bytes()).unwrap();
    assert_eq!(swarms[1].behaviour().relays().get(sender).unwrap().as_bytes(), published[0]);
}

#[tokio::test]
async fn peers_of_another_network_exchange_nothing() {
    let mut swarms = vec![swarm(NETWORK, 1).await, swarm(NetworkId([9; 32]), 2).await];
    dial(&mut swarms, 0, 1);
    let never = drive(&mut swarms, |_, _| {}, |_| false);
    assert!(tokio::time::timeout(Duration::from_secs(3), never).await.is_err());
    assert!(swarms.iter().all(|swarm| swarm.connected_peers().count() == 1 && swarm.behaviour().relays().len() == 1));
}

#[tokio::test]
async fn what_was_kept_is_known_after_a_restart() {
    let mut swarms = vec![swarm(NETWORK, 1).await, swarm(NETWORK, 2).await];
    dial(&mut swarms, 0, 1);
    let mut kept = std::collections::BTreeMap::new();
    drive(
        &mut swarms,
        |i, event| {
            if let (0, Event::Persist { relay, bytes }) = (i, event) {
                kept.insert(*relay, bytes.clone());
            }
        },
        |swarms| agree(swarms, 2),
    )
    .await;
    while kept.len() < 2 {
        if let SwarmEvent::Behaviour(Event::Persist { relay, bytes }) = swarms[0].next_swarm_event().await {
            kept.insert(relay, bytes);
        }
    }
    let mut restarted = swarm(NETWORK, 3).await;
    for bytes in kept.values() {
        restarted.behaviour_mut().load(bytes).unwrap();
    }
    assert_eq!(restarted.behaviour().snapshot(epoch()).root(), roots(&swarms)[0]);
}
