//! Hostile peers over real swarms: what each does leaves the set, the snapshot and the records as they were, is counted, and is
//! held against who did it.

use std::time::Duration;

use fog_base::{DropReason, NetworkId};
use libp2p::{PeerId, identity, kad::KBucketKey};

use super::support::{NETWORK, Peer, Running, Script, descriptor, drive, drive_for, epoch, key, node_id, record};

/// A node with two relays in its set.
async fn victim() -> [Running; 1] {
    let mut node = Running::start(false).await;
    node.learn(&descriptor(&NETWORK, 50, 1, 10));
    node.learn(&descriptor(&NETWORK, 51, 1, 10));
    let mut nodes = [node];
    drive_for(&mut nodes, Duration::from_millis(100)).await;
    nodes
}

#[tokio::test]
async fn records_that_are_put_under_wrong_keys_forged_stale_oversized_or_foreign_change_nothing() {
    let known = descriptor(&NETWORK, 50, 1, 10);
    let fresh = descriptor(&NETWORK, 60, 1, 0);
    let forged = {
        let mut bytes = fresh.as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let foreign = descriptor(&NetworkId([9; 32]), 61, 1, 0);
    let stale = descriptor(&NETWORK, 50, 2, 3000);
    let oversized = [fresh.as_bytes(), &[0; 2000]].concat();
    let cases = [
        (record(key(&known), fresh.as_bytes()), DropReason::Malformed, true),
        (record(key(&fresh), &forged), DropReason::BadMac, true),
        (record(key(&foreign), foreign.as_bytes()), DropReason::BadMac, true),
        (record(key(&fresh), &oversized), DropReason::Malformed, true),
        (record(key(&fresh), b"nonsense"), DropReason::Malformed, true),
        (record(key(&stale), stale.as_bytes()), DropReason::Replayed, false),
    ];
    for (bad, reason, is_offence) in cases {
        let mut nodes = victim().await;
        let before = nodes[0].holdings();
        let dial = Some((nodes[0].peer(), nodes[0].address.clone()));
        let attacker = Peer::start(Script { dial, puts: vec![bad], ..Script::default() }).await;
        drive(&mut nodes, |nodes| nodes[0].refused(reason) == 1).await;
        drive_for(&mut nodes, Duration::from_millis(200)).await;
        assert_eq!(nodes[0].holdings(), before, "{reason:?}");
        let blamed: Vec<_> = nodes[0].notes.misbehaved.keys().copied().collect();
        assert_eq!(blamed, if is_offence { vec![node_id(&attacker.peer)] } else { Vec::new() }, "{reason:?}");
    }
}

/// The counterpart of the test above: the same way in, with a record as it should be.
#[tokio::test]
async fn a_good_record_that_is_put_is_taken_and_answered_with() {
    let mut nodes = victim().await;
    let good = descriptor(&NETWORK, 60, 1, 0);
    let dial = Some((nodes[0].peer(), nodes[0].address.clone()));
    let _peer =
        Peer::start(Script { dial, puts: vec![record(key(&good), good.as_bytes())], ..Script::default() }).await;
    drive(&mut nodes, |nodes| nodes[0].holdings().1 == 3 && nodes[0].holdings().2 == 3).await;
    assert!(nodes[0].notes.misbehaved.is_empty());
}

#[tokio::test]
async fn answers_with_wrong_keys_or_oversized_are_not_believed_however_many_agree() {
    let sought = descriptor(&NETWORK, 60, 1, 0);
    let wrong = descriptor(&NETWORK, 61, 1, 0);
    let oversized = [sought.as_bytes(), &[0; 2000]].concat();
    for value in [wrong.as_bytes().to_vec(), oversized] {
        let mut nodes = victim().await;
        let before = nodes[0].holdings();
        let mut attackers = Vec::new();
        for _ in 0..4 {
            let records = vec![record(key(&sought), &value)];
            attackers.push(Peer::start(Script { records, ..Script::default() }).await);
            let address = attackers.last().unwrap().address.clone();
            nodes[0].dial(&address);
        }
        drive(&mut nodes, |nodes| nodes[0].table().len() == 4).await;
        assert!(nodes[0].swarm.behaviour_mut().kad.look_up(sought.relay(), epoch()));
        drive(&mut nodes, |nodes| !nodes[0].notes.looked_up.is_empty()).await;
        assert_eq!(nodes[0].notes.looked_up, [(sought.relay(), false)]);
        assert_eq!(nodes[0].holdings(), before);
        assert_eq!(nodes[0].refused(DropReason::Malformed), 4);
        assert_eq!(nodes[0].notes.misbehaved.len(), 4, "each of them is blamed");
    }
}

#[tokio::test]
async fn stale_answers_do_not_roll_back_what_is_known() {
    let mut nodes = victim().await;
    let before = nodes[0].holdings();
    let stale = descriptor(&NETWORK, 50, 2, 3000);
    let mut attackers = Vec::new();
    for _ in 0..4 {
        let records = vec![record(key(&stale), stale.as_bytes())];
        attackers.push(Peer::start(Script { records, ..Script::default() }).await);
        let address = attackers.last().unwrap().address.clone();
        nodes[0].dial(&address);
    }
    drive(&mut nodes, |nodes| nodes[0].table().len() == 4).await;
    assert!(nodes[0].swarm.behaviour_mut().kad.look_up(stale.relay(), epoch()));
    drive(&mut nodes, |nodes| !nodes[0].notes.looked_up.is_empty()).await;
    assert_eq!((nodes[0].holdings(), nodes[0].refused(DropReason::Replayed)), (before, 4));
    assert!(nodes[0].notes.misbehaved.is_empty(), "an honest peer may lag behind");
}

/// Ids that share the first bits of a key with `target`.
fn ground(target: PeerId, count: usize) -> Vec<identity::Keypair> {
    let target = KBucketKey::from(target);
    std::iter::repeat_with(identity::Keypair::generate_ed25519)
        .filter(|keypair| {
            let distance = KBucketKey::from(keypair.public().to_peer_id()).distance(&target);
            distance.ilog2().is_some_and(|bit| bit < 248)
        })
        .take(count)
        .collect()
}

#[tokio::test]
async fn a_poisoned_table_full_of_ids_ground_next_to_us_puts_none_of_them_into_ours() {
    let mut nodes = victim().await;
    let before = nodes[0].holdings();
    let dead = |(i, keypair): (usize, identity::Keypair)| {
        (keypair.public().to_peer_id(), format!("/ip4/127.7.0.1/tcp/{}", i + 1).parse().unwrap())
    };
    let table: Vec<_> = ground(nodes[0].peer(), 20).into_iter().enumerate().map(dead).collect();
    let attacker = Peer::start(Script { table, ..Script::default() }).await;
    nodes[0].dial(&attacker.address);
    // It walks, is told of them, and dials in vain.
    drive(&mut nodes, |nodes| nodes[0].notes.dials_failed >= 10).await;
    drive_for(&mut nodes, Duration::from_secs(3)).await;
    assert_eq!(nodes[0].table(), [attacker.peer], "only who was dialled with success");
    assert_eq!(nodes[0].holdings(), before);
    assert!(nodes[0].notes.dials_failed < 100, "dials are bounded: {}", nodes[0].notes.dials_failed);
}

#[tokio::test]
async fn live_sybils_of_one_network_get_two_places_in_a_bucket_and_leave_room_for_others() {
    let mut nodes = [Running::start(true).await];
    let mut sybils = Vec::new();
    for keypair in ground(nodes[0].peer(), 8) {
        sybils.push(Peer::start(Script { ip: Some("127.7.0.1"), keypair: Some(keypair), ..Script::default() }).await);
    }
    for _ in 0..12 {
        sybils.push(Peer::start(Script { ip: Some("127.7.0.1"), ..Script::default() }).await);
    }
    let honest = Peer::start(Script { ip: Some("127.9.0.1"), ..Script::default() }).await;
    for address in sybils.iter().map(|sybil| sybil.address.clone()).chain([honest.address.clone()]) {
        nodes[0].dial(&address);
    }
    drive(&mut nodes, |nodes| nodes[0].swarm.connected_peers().count() == 21).await;
    drive(&mut nodes, |nodes| nodes[0].table().contains(&honest.peer)).await;
    drive_for(&mut nodes, Duration::from_secs(1)).await;
    let me = KBucketKey::from(nodes[0].peer());
    let table = nodes[0].table();
    let admitted: Vec<_> = table.iter().filter(|peer| sybils.iter().any(|sybil| sybil.peer == **peer)).collect();
    assert!((1..=10).contains(&admitted.len()), "{}", admitted.len());
    for bucket in 0..256 {
        let inside = |peer: &&&PeerId| KBucketKey::from(***peer).distance(&me).ilog2() == Some(bucket);
        assert!(admitted.iter().filter(inside).count() <= 2, "bucket {bucket}");
    }
}

#[tokio::test]
async fn a_flood_of_lookups_is_held_back_and_blamed_and_others_are_answered() {
    let mut nodes = [Running::start(false).await, Running::start(false).await];
    let dial = Some((nodes[0].peer(), nodes[0].address.clone()));
    let flooder = Peer::start(Script { dial, floods: 1000, ..Script::default() }).await;
    drive(&mut nodes, |nodes| nodes[0].swarm.behaviour().kad.delayed() > 20).await;
    drive(&mut nodes, |nodes| nodes[0].notes.flooding.contains_key(&node_id(&flooder.peer))).await;
    let address = nodes[0].address.clone();
    nodes[1].dial(&address);
    drive(&mut nodes, |nodes| nodes[1].table().len() == 1).await;
    let relay = descriptor(&NETWORK, 60, 1, 0).relay();
    assert!(nodes[1].swarm.behaviour_mut().kad.look_up(relay, epoch()));
    drive(&mut nodes, |nodes| !nodes[1].notes.looked_up.is_empty()).await;
    let blamed: Vec<_> = nodes[0].notes.flooding.keys().collect();
    assert_eq!(blamed, [&node_id(&flooder.peer)]);
    assert!(nodes[0].refused(DropReason::RateLimited) >= 1);
}
