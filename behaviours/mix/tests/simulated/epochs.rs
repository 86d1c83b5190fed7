//! Across the boundaries of epochs nothing is lost, nothing comes twice, and nothing is sent again.

use std::{sync::Arc, time::Duration};

use fog_base::{DropReason, Epoch, MessageId, NodeId};
use fog_mix::core::{cover::Cover, endpoint::SentState};
use rand::RngExt;

use crate::net::{Known, Net, Node, bytes};

const RELAYS: u8 = 12;
const CLIENTS: u8 = 2;
const BOUNDARIES: u32 = 20;

/// Drops at any node; but for the receipts that a client's cover asks a mailbox for and that mean nothing to the client.
fn all_drops(net: &Net) -> Vec<(u8, DropReason, u64)> {
    let of = |node: &Node| DropReason::ALL.map(|reason| (node.number, reason, node.drops.get(reason)));
    let meaningless = |number, reason| number >= 100 && reason == DropReason::Expired;
    let counted = net.nodes.values().flat_map(of);
    counted.filter(|(number, reason, count)| *count > 0 && !meaningless(*number, *reason)).collect()
}

/// Twenty epochs of `length` with `per_second` messages between relays, and now and then a client behind mailboxes; the clocks
/// of half the nodes are `skew` fast, those of the others as slow. Messages of one to four packets.
fn steady(length: Duration, per_second: u64, skew: Duration) {
    let mut net = Net::with_epochs(RELAYS, CLIENTS, Cover::Loops, (length, BOUNDARIES + 3));
    let ids: Vec<NodeId> = net.nodes.keys().copied().collect();
    let skew = skew.as_millis() as i64;
    for (at, node) in ids.iter().enumerate() {
        net.nodes.get_mut(node).unwrap().skew = if at % 2 == 0 { skew } else { -skew };
    }
    net.run(Duration::from_secs(3), |_| false);
    let first = net.schedule.at(net.now.unix).0;
    let mut messages: Vec<MessageId> = Vec::new();
    let end = net.schedule.start(Epoch(first + BOUNDARIES)).plus(Duration::from_secs(2));
    while net.now.unix < end {
        let everybody: Vec<u8> = (1..=RELAYS).chain(100..100 + CLIENTS).collect();
        let from = everybody[net.rng.random_range(0..everybody.len())];
        let to = everybody[net.rng.random_range(0..everybody.len())];
        if from != to {
            let size = if net.rng.random_bool(0.1) { 5_000 } else { 200 };
            messages.push(net.send(from, to, bytes(size), false).unwrap());
        }
        net.run(Duration::from_micros(1_000_000 / per_second), |_| false);
    }
    net.run(Duration::from_secs(5), |n| messages.iter().all(|m| n.state(m) == Some(SentState::Delivered)));
    let lost = messages.iter().filter(|m| net.state(m) != Some(SentState::Delivered)).count();
    let again: u64 = net.nodes.values().map(|node| node.retransmissions).sum();
    let mut delivered: Vec<_> = net.nodes.values().flat_map(|n| n.inbox.iter().map(|(id, ..)| *id)).collect();
    delivered.sort();
    messages.sort();
    assert!(delivered == messages, "each exactly once: {} of {}", delivered.len(), messages.len());
    assert_eq!((lost, again, all_drops(&net)), (0, 0, vec![]), "of {}: lost, sent again, dropped", messages.len());
    assert!(messages.len() as u64 > length.as_secs() * u64::from(BOUNDARIES) * per_second * 9 / 10);
}

#[test]
fn twenty_boundaries_lose_nothing_and_repeat_nothing_though_clocks_differ_by_two_seconds() {
    // The grace is four seconds: clocks may differ by half of it.
    steady(Duration::from_secs(12), 20, Duration::from_secs(1));
}

#[test]
#[ignore = "takes minutes: the same with 200 messages a second"]
fn twenty_boundaries_under_two_hundred_messages_a_second() {
    steady(Duration::from_secs(12), 200, Duration::from_secs(1));
}

/// The set of the next epoch is late at everybody: it comes only as that epoch begins.
#[test]
fn without_the_relays_of_the_next_epoch_those_of_the_running_one_serve_until_its_end() {
    let mut net = Net::with_epochs(RELAYS, 0, Cover::None, (Duration::from_secs(12), 6));
    let mut messages = Vec::new();
    for n in 0..600u32 {
        let (now, schedule) = (net.now, net.schedule);
        let epoch = schedule.at(now.unix).0;
        for node in net.nodes.values_mut() {
            let relays = net.relays.clone();
            node.endpoint.set_paths(Arc::new(Known { relays, epochs: epoch - 1..=epoch, without: Vec::new() }));
        }
        let from = 1 + (n % 12) as u8;
        messages.push(net.send(from, 1 + ((n + 5) % 12) as u8, vec![1], true).unwrap());
        net.run(Duration::from_millis(60), |_| false);
    }
    assert!(net.run(Duration::from_secs(5), |n| messages.iter().all(|m| n.state(m) == Some(SentState::Delivered))));
    assert_eq!((messages.len(), all_drops(&net)), (600, vec![]));
    assert_eq!(net.nodes.values().map(|n| n.retransmissions).sum::<u64>(), 0);
}
