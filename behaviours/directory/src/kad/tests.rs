use libp2p::{core::Endpoint, kad::RoutingUpdate};

use super::*;
use crate::core::testing::{NETWORK, address, relay, schedule};

fn kad() -> Kad {
    Kad::new(PeerId::random(), KadConfig::new(NETWORK, schedule(), 100))
}

fn anywhere() -> Multiaddr {
    "/ip4/9.9.9.9/tcp/1".parse().unwrap()
}

#[tokio::test]
async fn where_a_relay_is_whose_descriptor_is_known_no_peer_of_kademlia_says() {
    let (mut kad, descriptor) = (kad(), Arc::new(relay(1)));
    let relay = peer(descriptor.relay()).unwrap();
    assert!(matches!(kad.inner.add_address(&relay, anywhere()), RoutingUpdate::Success));
    let found = |kad: &mut Kad| {
        let id = ConnectionId::new_unchecked(1);
        kad.handle_pending_outbound_connection(id, Some(relay), &[], Endpoint::Dialer).unwrap()
    };
    assert_eq!(found(&mut kad).len(), 1);
    kad.keep(descriptor.clone());
    assert!(found(&mut kad).is_empty(), "the directory says");
    kad.forget(descriptor.relay());
    assert_eq!(found(&mut kad).len(), 1);
}

/// A table with one peer, which is not connected.
fn with_peer(node: NodeId) -> Kad {
    let (mut kad, now, at) = (kad(), clock().mono, address("8.8.8.8"));
    kad.routing.handle_connected(node);
    kad.routing.handle_serving(node, 255, &[at], &[at.ip], now);
    kad.routing.handle_dialled(node, at, now);
    kad.routing.handle_disconnected(node, now);
    assert_eq!(kad.peers(), 1);
    kad
}

fn fail(kad: &mut Kad, node: NodeId, feeler: bool, error: &DialError) {
    for n in 0..3 {
        let connection_id = ConnectionId::new_unchecked(n);
        if feeler {
            kad.feelers.insert(connection_id, node);
        }
        kad.on_swarm_event(FromSwarm::DialFailure(DialFailure { peer_id: peer(node), error, connection_id }));
    }
}

#[tokio::test]
async fn who_answers_at_an_address_that_others_named_costs_nobody_its_place() {
    let node = relay(1).relay();
    let wrong = DialError::WrongPeerId { obtained: PeerId::random(), address: anywhere() };
    let mut kad = with_peer(node);
    fail(&mut kad, node, false, &wrong);
    assert_eq!(kad.peers(), 1, "the peer was not asked");
    fail(&mut kad, node, false, &DialError::Transport(Vec::new()));
    assert_eq!(kad.peers(), 0);
    let mut kad = with_peer(node);
    fail(&mut kad, node, true, &wrong);
    assert_eq!(kad.peers(), 0, "another one answers where it did");
}
