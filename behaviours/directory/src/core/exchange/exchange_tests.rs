use proptest::prelude::*;

use super::{
    reconcile::{MAX_QUERY, list_all},
    session::MAX_ROUNDS,
    world::{Node, World},
    *,
};
use crate::{
    core::{
        descriptor::Facts,
        testing::{EPOCH, facts, node, relay, sign},
    },
    wire::MAX_BATCH,
};

const SECOND: Duration = Duration::from_secs(1);

fn clocks(world: &World) -> Vec<i64> {
    let told = world.nodes.iter().flat_map(|node| &node.told);
    told.filter_map(|output| if let Output::Clock { offset_ms, .. } = output { Some(*offset_ms) } else { None })
        .collect()
}

#[test]
fn two_peers_that_meet_have_one_set() {
    let mut world = World::new(&[&[1, 2, 3], &[3, 4]]);
    world.connect(0, 1);
    assert_eq!(world.sizes(), [4, 4]);
    assert_eq!(world.nodes[0].set.digest(), world.nodes[1].set.digest());
    assert_eq!(clocks(&world), [0, 0]);
    assert!(world.nobody_misbehaved());
}

#[test]
fn equal_sets_cost_one_small_request_each_way() {
    let mut world = World::new(&[&[1, 2, 3], &[1, 2, 3]]);
    world.connect(0, 1);
    assert_eq!(world.requests, 2);
    assert!(world.bytes < 2 * 64, "{} bytes", world.bytes);
}

#[test]
fn a_set_larger_than_a_batch_is_read_whole() {
    let many: Vec<u16> = (0..MAX_BATCH as u16 * 2 + 10).collect();
    let mut world = World::new(&[&many, &[]]);
    world.connect(0, 1);
    assert_eq!(world.sizes(), [many.len(); 2]);
    assert!(world.nobody_misbehaved());
}

#[test]
fn what_gossip_missed_arrives_by_the_rounds() {
    // A line of four: 0 - 1 - 2 - 3.
    let mut world = World::new(&[&[], &[], &[], &[]]);
    for (a, b) in [(0, 1), (1, 2), (2, 3)] {
        world.connect(a, b);
    }
    world.insert(0, &relay(1));
    for second in 0..30 {
        if world.sizes() == [1, 1, 1, 1] {
            assert!(second > 0);
            return;
        }
        world.pass(SECOND);
    }
    panic!("after 30 s: {:?}", world.sizes());
}

#[test]
fn rounds_become_rare_and_a_new_peer_makes_them_frequent() {
    let mut world = World::new(&[&[1], &[1], &[1]]);
    world.connect(0, 1);
    for _ in 0..600 {
        world.pass(SECOND);
    }
    let before = world.requests;
    for _ in 0..120 {
        world.pass(SECOND);
    }
    assert!((2..=6).contains(&(world.requests - before)), "{} requests in two minutes", world.requests - before);
    world.connect(0, 2);
    let before = world.requests;
    for _ in 0..8 {
        world.pass(SECOND);
    }
    assert!(world.requests - before >= 5);
}

#[test]
fn sets_that_cannot_become_equal_are_compared_ever_more_rarely() {
    let mut world = World::new(&[&[1], &[1, 2]]);
    // Node 0 never gets what it lacks.
    world.nodes[1].lie = Some(Box::new(|request| {
        matches!(request, Request::Get { .. }).then_some(Response::Records { records: vec![], more: false })
    }));
    world.connect(0, 1);
    world.live(Duration::from_secs(600));
    let before = world.requests;
    world.live(Duration::from_secs(600));
    assert!(world.requests - before < 100, "{} requests in ten minutes", world.requests - before);
    assert!(world.nobody_misbehaved(), "one descriptor may have been replaced");
}

#[test]
fn a_changed_set_is_made_ready_once_for_all_who_ask() {
    let mut world = World::new(&[&[1, 2]]);
    let now = world.now;
    let Node { exchange, set, .. } = &mut world.nodes[0];
    let first = exchange.items(set, now);
    assert!(Arc::ptr_eq(&first, &exchange.items(set, now.plus(SECOND))));
    world.insert(0, &relay(3));
    let Node { exchange, set, .. } = &mut world.nodes[0];
    let changed = exchange.items(set, now.plus(2 * SECOND));
    assert_eq!(changed.len(), 3);
    assert!(Arc::ptr_eq(&changed, &exchange.items(set, now.plus(3 * SECOND))));
}

/// Node 0, which has met node 1 and asked it for its set.
fn asking(relays: &[u16]) -> (World, NodeId) {
    let mut world = World::new(&[relays, &[]]);
    let (peer, now) = (node(1001), world.now);
    let Node { exchange, set, .. } = &mut world.nodes[0];
    exchange.handle_connected(peer, set, now);
    assert!(matches!(exchange.poll_output(), Some(Output::Send { .. })));
    (world, peer)
}

#[test]
fn false_answers_end_the_session_and_are_told() {
    let listing = |hash: [u8; 32]| [&list_all()[..4], &[1], &hash].concat();
    let (one, two) = (relay(1), relay(2));
    let records = |records: Vec<Vec<u8>>, more| Response::Records { records, more };
    let reconciled = |message: Vec<u8>| Response::Reconcile { now_ms: 0, message };
    let hashes = listing(one.hash());
    let lies: [(&str, Vec<Response>); 7] = [
        ("an answer to another question", vec![records(vec![], false)]),
        ("an order's answer", vec![Response::Unknown]),
        ("no message at all", vec![reconciled(vec![])]),
        ("a false message", vec![reconciled(vec![0x61, 0, 0, 9])]),
        ("not a descriptor", vec![reconciled(hashes.clone()), records(vec![vec![0; 300]], false)]),
        ("another descriptor", vec![reconciled(hashes.clone()), records(vec![two.as_bytes().to_vec()], false)]),
        ("more, and nothing now", vec![reconciled(hashes), records(vec![], true)]),
    ];
    for (name, answers) in lies {
        let (mut world, peer) = asking(&[]);
        let now = world.now;
        let Node { exchange, set, .. } = &mut world.nodes[0];
        for answer in answers {
            exchange.handle_response(peer, answer, set, now);
        }
        let told: Vec<_> = std::iter::from_fn(|| exchange.poll_output()).collect();
        assert_eq!(told.last(), Some(&Output::Misbehaved { peer }), "{name}");
        assert_eq!(exchange.drops().total(), 1, "{name}");
        assert!(matches!(exchange.peers[&peer].lane, Lane::Idle), "{name}");
    }
}

#[test]
fn a_peer_that_does_not_serve_what_it_listed_is_told() {
    let mut world = World::new(&[&[], &(0..40).collect::<Vec<_>>()]);
    world.nodes[1].lie = Some(Box::new(|request| {
        matches!(request, Request::Get { .. }).then_some(Response::Records { records: vec![], more: false })
    }));
    world.connect(0, 1);
    assert_eq!(world.misbehaved(0), [node(1001)]);
}

#[test]
fn a_peer_that_never_comes_to_an_end_is_left() {
    let (mut world, peer) = asking(&(0..40).collect::<Vec<_>>());
    let now = world.now;
    let Node { exchange, set, .. } = &mut world.nodes[0];
    for round in 1.. {
        // One fingerprint over everything that never fits.
        let message = [&[0x61, 0, 0, 1][..], &[round as u8; 16]].concat();
        exchange.handle_response(peer, Response::Reconcile { now_ms: now.unix.0, message }, set, now);
        let asks = std::iter::from_fn(|| exchange.poll_output()).any(|output| matches!(output, Output::Send { .. }));
        if !asks {
            assert_eq!(round, MAX_ROUNDS);
            assert_eq!(exchange.drops().get(DropReason::BadPayload), 1);
            return;
        }
    }
}

#[test]
fn a_peer_cannot_make_us_remember_more_than_the_set_may_hold() {
    let (mut world, peer) = asking(&[]);
    let (now, mut n) = (world.now, 0u64);
    let Node { exchange, set, .. } = &mut world.nodes[0];
    for _ in 0..MAX_ROUNDS {
        // 1,800 new hashes below a bound, and a fingerprint for the rest, so that there is always a next round.
        let ids: Vec<_> = (0..1800u64).flat_map(|i| *blake3::hash(&(n + i).to_be_bytes()).as_bytes()).collect();
        n += 1800;
        let message = [&[0x61, 2, 0, 2, 0x8e, 0x08][..], &ids, &[0, 0, 1], &[7; 16]].concat();
        exchange.handle_response(peer, Response::Reconcile { now_ms: 0, message }, set, now);
        if let Lane::Live(session) = &exchange.peers[&peer].lane {
            assert!(session.remembers() <= set.capacity(), "{}", session.remembers());
        }
    }
    let asked = std::iter::from_fn(|| exchange.poll_output());
    let last =
        asked.filter_map(|output| if let Output::Send { request, .. } = output { Some(request) } else { None }).last();
    assert!(matches!(last, Some(Request::Get { hashes, .. }) if hashes.len() == MAX_BATCH));
}

#[test]
fn a_malformed_question_is_told_and_changes_nothing() {
    let mut world = World::new(&[&[1]]);
    let (peer, now) = (node(1001), world.now);
    let Node { exchange, set, shelf, .. } = &mut world.nodes[0];
    exchange.handle_connected(peer, set, now);
    exchange.poll_output().unwrap();
    let request = Request::Reconcile { scope: Scope::Live, message: vec![0x61, 0, 0, 7] };
    assert_eq!(exchange.handle_request(peer, request, set, shelf, now), Response::Unknown);
    assert_eq!(exchange.poll_output(), Some(Output::Misbehaved { peer }));
    assert_eq!(exchange.drops().get(DropReason::Malformed), 1);
}

#[test]
fn an_answer_ends_where_its_bytes_do() {
    // Descriptors of 700 to 800 bytes, as long as they come.
    let large = |n: u16| {
        let now = crate::core::testing::start().unix;
        let facts = Facts { exit_policy: Some("x".repeat(256)), ..facts(n, EPOCH) };
        sign(n, &facts, EPOCH, now.0, now)
    };
    let mut world = World::new(&[&[]]);
    let hashes: Vec<_> = (0..MAX_BATCH as u16)
        .map(|n| {
            world.insert(0, &large(n));
            large(n).hash()
        })
        .collect();
    let (peer, now) = (node(1001), world.now);
    let Node { exchange, set, shelf, .. } = &mut world.nodes[0];
    exchange.handle_connected(peer, set, now);
    let request = Request::Get { scope: Scope::Live, hashes: hashes.clone() };
    let Response::Records { records, more } = exchange.handle_request(peer, request, set, shelf, now) else {
        panic!("not records");
    };
    let bytes: usize = records.iter().map(Vec::len).sum();
    assert!(bytes <= crate::wire::MAX_CONTENT);
    assert_eq!(more, records.len() < hashes.len());
    let in_order = records.iter().zip(&hashes).all(|(record, hash)| blake3::hash(record).as_bytes() == hash);
    assert!(in_order);
}

#[test]
fn a_clock_that_is_off_is_measured_in_the_middle_of_the_round_trip() {
    let (mut world, peer) = asking(&[]);
    let now = world.now;
    let Node { exchange, set, .. } = &mut world.nodes[0];
    let answer = Response::Reconcile { now_ms: now.unix.0 + 90_500, message: vec![0x61] };
    exchange.handle_response(peer, answer, set, now.plus(SECOND));
    assert_eq!(exchange.poll_output(), Some(Output::Clock { peer, offset_ms: 90_000 }));
}

/// Made once: signing takes a millisecond.
static RELAYS: std::sync::LazyLock<Vec<crate::core::descriptor::Descriptor>> =
    std::sync::LazyLock::new(|| (0..200).map(relay).collect());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_two_nodes_come_to_one_set(
        a in proptest::collection::btree_set(0usize..200, 0..120),
        b in proptest::collection::btree_set(0usize..200, 0..120),
    ) {
        let mut world = World::new(&[&[], &[]]);
        for (at, relays) in [&a, &b].into_iter().enumerate() {
            for n in relays {
                world.insert(at, &RELAYS[*n]);
            }
        }
        world.connect(0, 1);
        world.live(3 * SECOND);
        prop_assert_eq!(world.sizes(), vec![a.union(&b).count(); 2]);
        prop_assert!(world.nobody_misbehaved());
    }

    #[test]
    fn a_liar_comes_to_an_end(answers in proptest::collection::vec(lie(), 1..60)) {
        let mut world = World::new(&[&[], &[]]);
        for relay in RELAYS.iter().take(50) {
            world.insert(0, relay);
        }
        let before = world.nodes[0].set.digest();
        let answers = answers.into_iter().cycle();
        let mut answers = Box::new(answers);
        world.nodes[1].lie = Some(Box::new(move |_| answers.next()));
        world.connect(0, 1);
        world.live(60 * SECOND);
        // One session a second at most, each of at most MAX_ROUNDS requests and then no descriptor.
        prop_assert!(world.requests < 60 * 2 * MAX_ROUNDS as usize, "{} requests", world.requests);
        prop_assert_eq!(world.nodes[0].set.digest(), before);
    }
}

fn lie() -> impl Strategy<Value = Response> {
    let bytes = |max: usize| proptest::collection::vec(any::<u8>(), 0..max);
    let message = bytes(200).prop_map(|tail| [&[0x61][..], &tail].concat());
    let fingerprints = proptest::collection::vec(any::<[u8; 16]>(), 1..40).prop_map(|all| {
        let ranges = all.iter().flat_map(|print| [&[9, 0, 1][..], print].concat());
        std::iter::once(0x61).chain(ranges).collect()
    });
    prop_oneof![
        prop_oneof![message, fingerprints, bytes(MAX_QUERY)]
            .prop_map(|message| Response::Reconcile { now_ms: 0, message }),
        (proptest::collection::vec(bytes(400), 0..4), any::<bool>())
            .prop_map(|(records, more)| Response::Records { records, more }),
        Just(Response::Unknown),
        Just(Response::Busy),
        bytes(100).prop_map(|bytes| Response::State { total: 7, bytes }),
    ]
}
