use proptest::prelude::*;

use super::*;
use crate::core::testing::{address, node, start};

fn table() -> (Routing, Instant) {
    let now = start().mono;
    (Routing::new(Address::net, now), now)
}

fn outputs(table: &mut Routing) -> Vec<Output> {
    std::iter::from_fn(|| table.poll_output()).collect()
}

/// A peer that this node dialled, and that serves.
fn dialled(table: &mut Routing, n: u16, bucket: u32, ip: &str, now: Instant) {
    table.handle_connected(node(n));
    table.handle_dialled(node(n), address(ip), now);
    table.handle_serving(node(n), bucket, &[address(ip)], &[address(ip).ip], now);
}

#[test]
fn a_peer_that_was_dialled_and_serves_is_admitted_at_the_address_that_answered() {
    let (mut table, now) = table();
    table.handle_connected(node(1));
    table.handle_dialled(node(1), address("8.8.8.8"), now);
    assert_eq!(outputs(&mut table), [], "it may be a client");
    table.handle_serving(node(1), 255, &[address("8.8.4.4"), address("8.8.8.8")], &[], now);
    assert_eq!(outputs(&mut table), [Output::Admit { peer: node(1), address: address("8.8.8.8") }]);
    table.handle_not_serving(node(1));
    assert_eq!(outputs(&mut table), [Output::Remove { peer: node(1) }]);
    assert!(table.is_empty());
    table.handle_serving(node(1), 255, &[], &[], now);
    assert_eq!(table.len(), 1, "it was dialled, and serves again");
}

#[test]
fn a_peer_that_dialled_us_is_felt_first_and_only_where_it_came_from() {
    let (mut table, now) = table();
    table.handle_connected(node(1));
    let claimed = [address("9.9.9.9"), address("8.8.8.8")];
    table.handle_serving(node(1), 255, &claimed, &["8.8.8.8".parse().unwrap()], now);
    assert_eq!(table.poll_timeout(now), Some(now));
    table.handle_timeout(now);
    assert_eq!(outputs(&mut table), [Output::Feel { peer: node(1), address: address("8.8.8.8") }]);
    table.handle_timeout(now);
    assert_eq!(outputs(&mut table), [], "one at a time");
    assert_eq!(table.len(), 0);
    table.handle_dialled(node(1), address("8.8.8.8"), now);
    assert_eq!(outputs(&mut table), [Output::Admit { peer: node(1), address: address("8.8.8.8") }]);
}

#[test]
fn a_peer_that_names_only_other_hosts_is_never_dialled() {
    let (mut table, now) = table();
    table.handle_connected(node(1));
    table.handle_serving(node(1), 255, &[address("9.9.9.9")], &["8.8.8.8".parse().unwrap()], now);
    for minute in 0..60 {
        table.handle_timeout(now + Duration::from_secs(60 * minute));
    }
    assert_eq!(outputs(&mut table), []);
}

#[test]
fn a_feeler_that_fails_is_sent_three_more_times() {
    let (mut table, now) = table();
    table.handle_connected(node(1));
    table.handle_serving(node(1), 255, &[address("8.8.8.8")], &["8.8.8.8".parse().unwrap()], now);
    let mut sent = Vec::new();
    for second in 0..2000 {
        table.handle_timeout(now + Duration::from_secs(second));
        sent.extend(outputs(&mut table).iter().map(|_| second));
        table.handle_unreachable(node(1));
    }
    assert_eq!(sent, [0, 10, 70, 670]);
}

#[test]
fn a_pushed_list_of_addresses_is_no_new_turn() {
    let (mut table, now) = table();
    table.handle_connected(node(1));
    let host = ["8.8.8.8".parse().unwrap()];
    table.handle_serving(node(1), 255, &[], &host, now);
    table.handle_timeout(now);
    assert_eq!((outputs(&mut table), table.poll_timeout(now)), (vec![], None), "it names no address");
    let mut sent = Vec::new();
    for second in 0..2000u64 {
        let at = now + Duration::from_secs(second);
        let pushed = Address { port: 1 + second as u16, ..address("8.8.8.8") };
        table.handle_serving(node(1), 255, &[pushed], &host, at);
        table.handle_timeout(at);
        sent.extend(outputs(&mut table).iter().map(|_| second));
    }
    assert_eq!(sent, [0, 10, 70, 670]);
}

#[test]
fn peers_with_small_ids_that_come_again_and_again_keep_nobody_waiting() {
    let (mut table, now) = table();
    let come = |table: &mut Routing, n: u16, at: Instant| {
        table.handle_connected(node(n));
        table.handle_serving(node(n), 255, &[address("10.0.0.1")], &["10.0.0.1".parse().unwrap()], at);
    };
    let mut ids: Vec<_> = (0..100).collect();
    ids.sort_by_key(|n| node(*n));
    let (last, others) = ids.split_last().unwrap();
    come(&mut table, *last, now);
    let mut felt = Vec::new();
    for second in 0..100 {
        let at = now + Duration::from_secs(second);
        for n in others {
            table.handle_disconnected(node(*n), at);
            come(&mut table, *n, at);
        }
        table.handle_timeout(at);
        felt.extend(outputs(&mut table));
    }
    assert!(felt.iter().any(|output| matches!(output, Output::Feel { peer, .. } if *peer == node(*last))));
}

#[test]
fn a_peer_that_answered_a_probe_without_being_connected_takes_no_room() {
    let (mut table, now) = table();
    for n in 0..100 {
        table.handle_dialled(node(n), address("8.8.8.8"), now);
    }
    assert!(table.dialled.is_empty());
}

#[test]
fn feelers_are_bounded_in_their_rate() {
    let (mut table, now) = table();
    for n in 0..200 {
        table.handle_connected(node(n));
        table.handle_serving(node(n), 255, &[address("10.0.0.1")], &["10.0.0.1".parse().unwrap()], now);
    }
    let mut at = |ms| {
        table.handle_timeout(now + Duration::from_millis(ms));
        outputs(&mut table).len()
    };
    assert_eq!((at(0), at(100), at(1000), at(2000)), (16, 0, 2, 2));
    let overdue = table.poll_timeout(now + Duration::from_millis(2000)).unwrap();
    assert!(overdue > now + Duration::from_millis(2000), "it does not spin while there is no token");
}

#[test]
fn of_one_global_network_two_are_in_a_bucket_and_ten_in_the_table() {
    let (mut table, now) = table();
    for n in 0..100u16 {
        dialled(&mut table, n, u32::from(n % 10), &format!("8.8.{n}.1"), now);
    }
    assert_eq!(table.len(), MAX_NET_TABLE);
    let mut table = self::table().0;
    for n in 0..100u16 {
        dialled(&mut table, n, 250, &format!("8.8.{n}.1"), now);
    }
    assert_eq!((table.len(), table.drops().get(DropReason::QueueFull)), (MAX_NET_BUCKET, 98));
    dialled(&mut table, 100, 250, "9.9.1.1", now);
    assert_eq!(table.len(), MAX_NET_BUCKET + 1, "another network has room");
}

#[test]
fn networks_off_the_internet_are_not_counted_and_buckets_are_bounded_all_the_same() {
    let (mut table, now) = table();
    for n in 0..50u16 {
        dialled(&mut table, n, 255, "127.0.0.1", now);
    }
    assert_eq!(table.len(), MAX_BUCKET);
}

#[test]
fn a_peer_leaves_the_table_after_three_failures_in_a_row() {
    let (mut table, now) = table();
    dialled(&mut table, 1, 255, "8.8.8.8", now);
    table.handle_unreachable(node(1));
    table.handle_unreachable(node(1));
    table.handle_unreachable(node(1));
    assert_eq!(table.len(), 1, "a failed dial of a connected peer says nothing");
    table.handle_disconnected(node(1), now);
    table.handle_unreachable(node(1));
    table.handle_unreachable(node(1));
    table.handle_dialled(node(1), address("8.8.8.8"), now);
    table.handle_unreachable(node(1));
    table.handle_unreachable(node(1));
    assert_eq!(table.len(), 1, "an answer between starts the row anew");
    outputs(&mut table);
    table.handle_unreachable(node(1));
    assert_eq!(outputs(&mut table), [Output::Remove { peer: node(1) }]);
}

#[test]
fn peers_of_the_table_that_left_are_probed() {
    let (mut table, now) = table();
    dialled(&mut table, 1, 255, "8.8.8.8", now);
    dialled(&mut table, 2, 255, "9.9.9.9", now);
    table.handle_disconnected(node(1), now);
    outputs(&mut table);
    assert_eq!(table.poll_timeout(now), Some(now + PROBE_INTERVAL));
    table.handle_timeout(now + PROBE_INTERVAL);
    assert_eq!(outputs(&mut table), [Output::Feel { peer: node(1), address: address("8.8.8.8") }]);
    assert_eq!(table.poll_timeout(now + PROBE_INTERVAL), Some(now + PROBE_INTERVAL * 2));
}

#[derive(Debug, Clone)]
enum Step {
    Connected(u16),
    Serving(u16, u8),
    Dialled(u16, u8),
    Unreachable(u16),
    NotServing(u16),
    Disconnected(u16),
    Time,
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0u16..60;
    prop_oneof![
        peer.clone().prop_map(Step::Connected),
        (peer.clone(), 0u8..6).prop_map(|(n, net)| Step::Serving(n, net)),
        (peer.clone(), 0u8..6).prop_map(|(n, net)| Step::Dialled(n, net)),
        peer.clone().prop_map(Step::Unreachable),
        peer.clone().prop_map(Step::NotServing),
        peer.prop_map(Step::Disconnected),
        Just(Step::Time),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_limits_hold_and_only_dialled_peers_are_admitted(steps in prop::collection::vec(step(), 1..600)) {
        let (mut table, mut now) = table();
        let mut ever_dialled = std::collections::BTreeSet::new();
        let mut routed = BTreeMap::new();
        let ip = |n: u16, net: u8| address(&format!("8.{net}.0.{n}"));
        for step in steps {
            match step {
                Step::Connected(n) => table.handle_connected(node(n)),
                Step::Serving(n, net) => {
                    table.handle_serving(node(n), u32::from(n % 3), &[ip(n, net)], &[ip(n, net).ip], now);
                }
                Step::Dialled(n, net) => {
                    ever_dialled.insert((node(n), ip(n, net)));
                    table.handle_dialled(node(n), ip(n, net), now);
                }
                Step::Unreachable(n) => table.handle_unreachable(node(n)),
                Step::NotServing(n) => table.handle_not_serving(node(n)),
                Step::Disconnected(n) => table.handle_disconnected(node(n), now),
                Step::Time => {
                    now += Duration::from_secs(7);
                    table.handle_timeout(now);
                }
            }
            for output in outputs(&mut table) {
                match output {
                    Output::Admit { peer, address } => {
                        prop_assert!(ever_dialled.contains(&(peer, address)));
                        prop_assert!(routed.insert(peer, address).is_none());
                    }
                    Output::Remove { peer } => prop_assert!(routed.remove(&peer).is_some()),
                    Output::Feel { .. } => {}
                }
            }
            prop_assert_eq!(routed.len(), table.len());
            let mut nets = BTreeMap::<_, Vec<u32>>::new();
            for (peer, address) in &routed {
                let seat = &table.seats[peer];
                nets.entry(address.net()).or_default().push(seat.bucket);
            }
            for buckets in nets.values() {
                prop_assert!(buckets.len() <= MAX_NET_TABLE);
                for bucket in 0..3 {
                    prop_assert!(buckets.iter().filter(|b| **b == bucket).count() <= MAX_NET_BUCKET);
                }
            }
        }
    }
}
