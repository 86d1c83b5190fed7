//! Kademlia between real swarms.
#![cfg(feature = "libp2p")]

mod adversary;
mod support;

use std::time::Duration;

use support::{NETWORK, Peer, Running, Script, descriptor, drive, drive_for, epoch, key, node_id, record};

#[tokio::test]
async fn a_peer_that_dialled_us_is_in_the_table_once_it_has_been_dialled_back() {
    let mut nodes = [Running::start(false).await, Running::start(false).await];
    let address = nodes[0].address.clone();
    nodes[1].dial(&address);
    drive(&mut nodes, |nodes| nodes.iter_mut().all(|node| node.table().len() == 1)).await;
    let peer = nodes[1].peer();
    assert_eq!(nodes[0].table(), [peer]);
    let connections = |node: &Running| node.swarm.network_info().connection_counters().num_established();
    drive(&mut nodes, |nodes| nodes.iter().all(|node| connections(node) == 1)).await;
    assert!(nodes.iter().all(|node| node.notes.dials_failed == 0), "the feeler left nothing behind");
}

#[tokio::test]
async fn a_peer_that_does_not_answer_where_it_claims_is_not_in_the_table() {
    let mut nodes = [Running::start(false).await];
    let dial = Some((nodes[0].peer(), nodes[0].address.clone()));
    let nowhere = Some("/ip4/127.0.0.1/tcp/1".parse().unwrap());
    let elsewhere = Some("/ip4/127.0.0.2/tcp/1".parse().unwrap());
    let _liars = [
        Peer::start(Script { dial: dial.clone(), claims: nowhere, ..Script::default() }).await,
        Peer::start(Script { dial, claims: elsewhere, ..Script::default() }).await,
    ];
    drive(&mut nodes, |nodes| nodes[0].notes.dials_failed >= 1 && nodes[0].swarm.connected_peers().count() == 2).await;
    drive_for(&mut nodes, Duration::from_secs(1)).await;
    assert_eq!((nodes[0].table().len(), nodes[0].notes.dials_failed), (0, 1), "another host is not even tried");
}

/// The bootstrap peer has no directory: all that it can do is to name others.
#[tokio::test]
async fn a_joiner_with_one_bootstrap_peer_walks_to_the_whole_set() {
    let mut nodes = Vec::new();
    for n in 1..=10 {
        nodes.push(Running::relay(n).await);
    }
    for i in 1..nodes.len() {
        let address = nodes[i - 1].address.clone();
        nodes[i].dial(&address);
    }
    drive(&mut nodes, |nodes| nodes.iter().all(|node| node.relays() == 10)).await;
    let table = nodes.iter().map(|node| (node.peer(), node.address.clone())).collect();
    let bootstrap = Peer::start(Script { table, ..Script::default() }).await;
    nodes.push(Running::start(false).await);
    nodes[10].dial(&bootstrap.address);
    drive(&mut nodes, |nodes| nodes[10].relays() == 10 && nodes[10].root() == nodes[0].root()).await;
    drive(&mut nodes, |nodes| nodes[10].table().len() >= 8).await;
    assert!(nodes[10].notes.misbehaved.is_empty());
}

#[tokio::test]
async fn a_relay_publishes_its_descriptor_where_others_find_it() {
    let mut relay = [Running::relay(1).await];
    // They take whatever they are given, and know nothing else.
    let peers = [
        Peer::start(Script::default()).await,
        Peer::start(Script::default()).await,
        Peer::start(Script::default()).await,
    ];
    for peer in &peers {
        relay[0].dial(&peer.address);
    }
    drive(&mut relay, |nodes| nodes[0].relays() == 1 && nodes[0].table().len() == 3).await;
    drive_for(&mut relay, Duration::from_secs(3)).await;
    let id = node_id(&relay[0].peer());
    let mut seeker = [Running::start(false).await];
    for peer in &peers {
        seeker[0].dial(&peer.address);
    }
    drive(&mut seeker, |nodes| nodes[0].table().len() == 3).await;
    assert!(seeker[0].swarm.behaviour_mut().kad.look_up(id, epoch()));
    drive(&mut seeker, |nodes| !nodes[0].notes.looked_up.is_empty() && nodes[0].relays() == 1).await;
    assert_eq!(seeker[0].notes.looked_up, [(id, true)]);
    assert_eq!(seeker[0].root(), relay[0].root());
}

#[tokio::test]
async fn of_differing_answers_the_newest_is_believed_and_two_are_too_few() {
    let (old, new) = (descriptor(&NETWORK, 50, 1, 60), descriptor(&NETWORK, 50, 2, 0));
    for (answers, found) in [(vec![&old, &new], false), (vec![&old, &old, &new], true)] {
        let mut nodes = [Running::start(false).await];
        let mut peers = Vec::new();
        for answer in &answers {
            let records = vec![record(key(answer), answer.as_bytes())];
            peers.push(Peer::start(Script { records, ..Script::default() }).await);
            nodes[0].dial(&peers.last().unwrap().address.clone());
        }
        drive(&mut nodes, |nodes| nodes[0].table().len() == answers.len()).await;
        assert!(nodes[0].swarm.behaviour_mut().kad.look_up(new.relay(), epoch()));
        drive(&mut nodes, |nodes| !nodes[0].notes.looked_up.is_empty()).await;
        assert_eq!(nodes[0].notes.looked_up, [(new.relay(), found)]);
        drive_for(&mut nodes, Duration::from_millis(200)).await;
        let believed = nodes[0].swarm.behaviour().directory.relays().get(new.relay()).map(|relay| relay.seq());
        assert_eq!(believed, found.then_some(new.seq()));
        assert!(nodes[0].notes.misbehaved.is_empty(), "an old answer is no offence");
    }
}
