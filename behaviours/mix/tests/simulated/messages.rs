//! Messages, pings and cover.

use std::{sync::Arc, time::Duration};

use fog_base::{DropReason, relay::NoPath};
use fog_mix::core::{
    cover::Cover,
    endpoint::{Config, Endpoint, Kind, Ping, Restored, SendError, SentState},
};
use fog_mix::wire::{ANSWER_LEN, Application, MAX_BLOCKS};

use crate::net::{Known, Net, bytes, config, id, secrets};

#[test]
fn messages_of_all_sizes_arrive_once_signed_and_anonymous() {
    let mut net = Net::new(7, 0, Cover::Loops);
    for (size, anonymous) in [(0, false), (1, true), (1508, false), (1509, true), (100_000, false)] {
        let message = net.send(1, 2, bytes(size), anonymous).unwrap();
        assert!(net.run(Duration::from_secs(120), |n| n.state(&message) == Some(SentState::Delivered)), "{size} bytes");
        let (id, from, body) = net.node(2).inbox.pop().unwrap();
        assert_eq!((id, from, body), (message, (!anonymous).then(|| self::id(1)), bytes(size)));
        assert!(net.node(2).inbox.is_empty());
    }
    assert_eq!(DropReason::ALL.into_iter().map(|r| net.drops(r)).sum::<u64>(), 0);
}

#[test]
fn a_mebibyte_arrives_over_links_that_lose_packets() {
    let mut net = Net::new(7, 0, Cover::None);
    net.loss = 0.03;
    let message = net.send(3, 4, bytes(1 << 20), false).unwrap();
    assert!(net.run(Duration::from_secs(300), |n| n.state(&message) == Some(SentState::Delivered)));
    assert_eq!(net.node(4).inbox.len(), 1);
    assert_eq!(net.node(4).inbox[0].2, bytes(1 << 20));
}

#[test]
fn a_message_that_asks_is_answered_by_the_blocks_that_it_brings_each_once() {
    let mut net = Net::new(7, 1, Cover::Loops);
    net.run(Duration::from_secs(2), |_| false);
    // A relay, and a client behind a mailbox.
    for (asker, application) in [(2, Application::Services), (100, Application::Tasks)] {
        let message = net.send_as(Kind::Asking(application, 40), asker, 1, bytes(5000)).unwrap();
        assert!(net.run(Duration::from_secs(60), |n| n.state(&message) == Some(SentState::Delivered)));
        let (_, from, body) = net.node(1).inbox.pop().unwrap();
        assert_eq!((from, body), (None, bytes(5000)));
        let blocks = std::mem::take(&mut net.node(1).blocks);
        assert_eq!(blocks.len(), 40);
        let now = net.now;
        for (n, block) in blocks.iter().enumerate().chain([(0, &blocks[0])]) {
            net.node(1).endpoint.answer(block, vec![n as u8; n * 50], now);
        }
        assert!(net.run(Duration::from_secs(60), |n| n.nodes[&id(asker)].answers.len() == 40));
        let mut answers = std::mem::take(&mut net.node(asker).answers);
        answers.sort_by(|one, other| one.2.cmp(&other.2));
        for (n, (to, of, data)) in answers.iter().enumerate() {
            let mut expected = vec![n as u8; n * 50];
            expected.resize(ANSWER_LEN, 0);
            assert_eq!((to, of, data), (&application, &message, &expected));
        }
    }
    assert_eq!(net.drops(DropReason::Replayed), 2, "a block is not used twice");
    let many = net.send_as(Kind::Asking(Application::Tasks, MAX_BLOCKS + 1), 2, 1, Vec::new());
    assert!(matches!(many, Err(SendError::TooLarge(_))));
}

#[test]
fn a_client_without_roles_sends_and_receives_through_mailboxes_also_while_it_is_away() {
    let mut net = Net::new(7, 2, Cover::Loops);
    net.run(Duration::from_secs(2), |_| false);
    assert!(net.send(100, 1, bytes(10), false).is_ok());
    let to_client = net.send(1, 100, bytes(5000), false).unwrap();
    let between_clients = net.send(101, 100, bytes(5000), true).unwrap();
    let all = |n: &Net| [to_client, between_clients].iter().all(|m| n.state(m) == Some(SentState::Delivered));
    assert!(net.run(Duration::from_secs(60), all));
    assert_eq!((net.node(100).inbox.len(), net.node(1).inbox.len()), (2, 1));

    net.node(100).online = false;
    let while_away = net.send(2, 100, bytes(20_000), false).unwrap();
    assert!(net.run(Duration::from_secs(60), |n| n.state(&while_away) == Some(SentState::Stored)));
    net.node(100).online = true;
    for relay in 1..=7 {
        let now = net.now;
        net.node(100).endpoint.disconnected(id(relay), now);
    }
    assert!(net.run(Duration::from_secs(90), |n| n.nodes[&id(100)].inbox.len() == 3));
    assert_eq!(net.node(100).inbox[2].2, bytes(20_000));
    assert!(net.run(Duration::from_secs(300), |n| n.state(&while_away) == Some(SentState::Delivered)));
    let kept: usize = (1..=7).map(|relay| net.node(relay).mailbox.usage().1).sum();
    assert_eq!((net.node(100).inbox.len(), kept), (3, 0), "delivered once, and the mailboxes are empty again");
}

#[test]
fn a_dead_relay_loses_no_message_and_duplicates_none() {
    let mut net = Net::new(8, 0, Cover::None);
    let mut messages = Vec::new();
    for n in 0..250u32 {
        for sender in 1..=4u8 {
            let to = 1 + ((u32::from(sender) + n) % 4) as u8;
            let to = if to == sender { 5 } else { to };
            messages.push(net.send(sender, to, n.to_be_bytes().to_vec(), false).unwrap());
        }
        if n == 100 {
            net.node(8).online = false;
        }
        net.run(Duration::from_millis(60), |_| false);
    }
    assert!(net.run(Duration::from_secs(120), |n| messages.iter().all(|m| n.state(m) == Some(SentState::Delivered))));
    let mut delivered: Vec<_> = net.nodes.values().flat_map(|n| n.inbox.iter().map(|(id, ..)| *id)).collect();
    delivered.sort();
    messages.sort();
    assert_eq!(delivered, messages, "each exactly once");
}

#[test]
fn an_inbox_that_cannot_store_gets_the_message_later_and_once() {
    let mut net = Net::new(7, 0, Cover::None);
    net.node(2).stores = false;
    let message = net.send(1, 2, bytes(4000), false).unwrap();
    net.run(Duration::from_secs(10), |_| false);
    assert_ne!(net.state(&message), Some(SentState::Delivered));
    net.node(2).stores = true;
    assert!(net.run(Duration::from_secs(120), |n| n.state(&message) == Some(SentState::Delivered)));
    assert_eq!(net.node(2).inbox.len(), 1);
}

#[test]
fn pings_come_back_and_too_few_relays_is_an_error() {
    let mut net = Net::new(5, 0, Cover::None);
    let (to, now) = (net.address(2), net.now);
    let ping = |id, hops| Ping { id, to: to.clone(), hops, timeout: Duration::from_secs(10) };
    let pings: Vec<_> = (0..50).inspect(|id| net.node(1).endpoint.ping(ping(*id, None), now).unwrap()).collect();
    assert!(net.run(Duration::from_secs(10), |n| n.pongs.len() == 50));
    assert!(pings.iter().all(|p| net.pongs[&(id(1), *p)].is_some()));
    assert_eq!(
        net.node(1).endpoint.ping(ping(50, Some(5)), now),
        Err(SendError::NoPath(NoPath::TooFewRelays { hops: 5, needed: 4, known: 3 }))
    );
    assert_eq!(net.node(1).endpoint.ping(ping(51, Some(6)), now), Err(SendError::Hops(6)));
}

/// With full cover the gaps between packets have one distribution, whether the node sends or not: a two-sample
/// Kolmogorov–Smirnov test, and the same number of packets.
#[test]
fn with_full_cover_packets_leave_at_the_same_rate_whether_the_node_sends_or_not() {
    let gaps = |sends: bool| {
        let mut net = Net::new(6, 0, Cover::Full);
        for _ in 0..60 {
            if sends {
                net.send(1, 2, bytes(3000), false).unwrap();
            }
            net.run(Duration::from_secs(1), |_| false);
        }
        let times: Vec<_> = net.left.iter().filter(|(node, _)| *node == id(1)).map(|(_, at)| *at).collect();
        let mut gaps: Vec<f64> = times.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        gaps.sort_by(f64::total_cmp);
        gaps
    };
    let (idle, busy) = (gaps(false), gaps(true));
    // 3,000 expected in a minute, standard deviation 55.
    assert!(
        (2_750..3_250).contains(&idle.len()) && (2_750..3_250).contains(&busy.len()),
        "{} {}",
        idle.len(),
        busy.len()
    );
    let below = |sorted: &[f64], x: f64| sorted.partition_point(|g| *g <= x) as f64 / sorted.len() as f64;
    let distance = idle.iter().chain(&busy).map(|x| (below(&idle, *x) - below(&busy, *x)).abs()).fold(0.0, f64::max);
    // Critical value for alpha = 0.001 with two samples of about 3,000: 1.95 · sqrt(2/3000).
    assert!(distance < 1.95 * (2.0f64 / 3000.0).sqrt(), "{distance}");
}

#[test]
fn acknowledgements_do_not_run_out_however_many_messages_come() {
    let mut net = Net::new(6, 0, Cover::None);
    // More messages than acknowledgements that may wait, each of several fragments with spare reply blocks.
    for n in 0..1100u32 {
        let message = net.send(1 + (n % 3) as u8, 5, bytes(4000), true).unwrap();
        if n % 50 == 49 {
            assert!(net.run(Duration::from_secs(60), |net| net.state(&message) == Some(SentState::Delivered)), "{n}");
        } else {
            net.run(Duration::from_millis(60), |_| false);
        }
    }
    assert!(net.run(Duration::from_secs(60), |n| n.nodes[&id(5)].inbox.len() == 1100));
}

#[test]
fn more_at_once_than_reassembly_holds_arrives_all_the_same() {
    let mut net = Net::new(6, 0, Cover::None);
    let messages: Vec<_> = (0..18).map(|n| net.send(1 + n % 4, 5, bytes(1 << 20), true).unwrap()).collect();
    let all = |n: &Net| messages.iter().all(|m| n.state(m) == Some(SentState::Delivered));
    assert!(net.run(Duration::from_secs(2000), all));
    assert_eq!(net.node(5).inbox.len(), 18);
}

#[test]
fn a_relay_with_mailboxes_of_an_earlier_run_sleeps_until_something_is_due() {
    let mut net = Net::new(6, 0, Cover::None);
    let (me, now) = (id(1), net.now);
    let restored = Restored { mailboxes: vec![id(2)], ..Restored::default() };
    let config = Config { offers_roles: false, ..config(1, Cover::None, net.schedule) };
    let epoch = net.schedule.at(now.unix).0;
    let paths = Known { relays: net.relays.clone(), epochs: epoch..=epoch + 1, without: Vec::new() };
    let mut endpoint =
        Endpoint::new(config, secrets(1), restored, Arc::new(paths), Arc::default(), [1; 32], now).unwrap();
    endpoint.handle_timeout(now);
    assert!(endpoint.poll_timeout(now.mono).is_none_or(|due| due > now.mono));
    net.nodes.remove(&me);
}

#[test]
fn without_work_or_cover_nothing_leaves() {
    let mut net = Net::new(6, 0, Cover::None);
    net.run(Duration::from_secs(60), |_| false);
    assert!(net.left.is_empty());
}
