use std::{cell::RefCell, rc::Rc};

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::{
    world::{Node, World, named},
    *,
};
use crate::{
    core::{
        certificate::{
            Statement,
            ballot::{Phase, Round},
            electorate::{Elector, Electorate},
            quorum::Quorum,
        },
        descriptor::Descriptor,
        relay_set::Source,
        testing::{EPOCH, facts, node, relay, sign, start},
    },
    wire::{MAX_BATCH, MAX_CONTENT},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A world of nodes with empty live sets, where node 0 is connected to all others.
fn star(nodes: usize) -> World {
    let mut world = World::new(&vec![&[][..]; nodes]);
    for other in 1..nodes {
        world.connect(0, other);
    }
    world
}

/// Node 0 orders `set`, with `candidates`.
fn order(world: &mut World, set: &NamedSet, hint: Option<NodeId>, candidates: Arc<NamedSet>) {
    world.asked.clear();
    let now = world.now;
    world.nodes[0].exchange.want_set((set.root(), set.count(), now.unix), hint, candidates, now);
    world.run();
}

fn sets(world: &World) -> Vec<Arc<NamedSet>> {
    let told = world.nodes[0].told.iter();
    told.filter_map(|output| if let Output::Set { set, .. } = output { Some(set.clone()) } else { None }).collect()
}

fn is_asked(request: &Request) -> bool {
    matches!(request, Request::Reconcile { scope: Scope::Root(_), .. } | Request::Get { scope: Scope::Root(_), .. })
}

#[test]
fn a_set_is_fetched_by_its_root() {
    let mut world = star(2);
    let set = named(0..300);
    world.nodes[1].shelf.sets.insert(set.root(), set.clone());
    order(&mut world, &set, None, named(200..320));
    assert_eq!(sets(&world), [set]);
    assert_eq!(world.sizes()[0], 200, "what was fetched is in the live set too");
    assert!(world.nobody_misbehaved());
    world.asked.clear();
    world.live(MINUTE);
    assert_eq!(sets(&world).len(), 1, "once");
}

#[test]
fn candidates_that_are_the_set_need_no_peer() {
    let mut world = star(1);
    let set = named(0..5);
    order(&mut world, &set, None, set.clone());
    assert_eq!(sets(&world), [set]);
}

#[test]
fn what_the_live_set_refuses_as_outdated_is_fetched_all_the_same() {
    let mut world = star(2);
    let now = start().unix;
    let newer = sign(1, &facts(1, EPOCH), EPOCH, now.0 + 10, now);
    world.insert(0, &newer);
    let set = named([1, 2]);
    world.nodes[1].shelf.sets.insert(set.root(), set.clone());
    order(&mut world, &set, None, named([]));
    assert_eq!(sets(&world), [set]);
    assert_eq!(world.nodes[0].set.get(relay(1).relay()).unwrap().hash(), newer.hash());
    assert!(world.nobody_misbehaved());
}

#[test]
fn the_hinted_peer_is_asked_first_and_then_the_others_once_each_until_one_has_it() {
    for hinted in 1..5 {
        let mut world = star(5);
        let (set, hint) = (named(0..3), world.nodes[hinted].id);
        order(&mut world, &set, Some(hint), named([]));
        assert_eq!(world.asked[0], hinted);
        let mut asked = world.asked.clone();
        asked.sort_unstable();
        assert_eq!(asked, [1, 2, 3, 4]);
        world.nodes[3].shelf.sets.insert(set.root(), set.clone());
        world.live(SECOND);
        assert_eq!(sets(&world), [set]);
        assert!(world.nobody_misbehaved(), "who has not got it is honest");
    }
}

#[test]
fn pauses_between_tries_grow_to_ten_seconds_and_a_new_peer_is_asked_at_once() {
    let mut world = star(2);
    let set = named(0..3);
    order(&mut world, &set, None, named([]));
    world.live(MINUTE);
    let unknown = |world: &World| world.asked.len();
    let before = unknown(&world);
    assert!((8..30).contains(&before), "{before} requests in the first minute");
    let mut joined = World::new(&[&[], &[], &[]]).nodes.pop().unwrap();
    joined.shelf.sets.insert(set.root(), set.clone());
    world.nodes.push(joined);
    world.connect(0, 2);
    assert_eq!(sets(&world), [set]);
}

#[test]
fn no_peer_at_all_is_waited_for() {
    let mut world = star(1);
    let set = named(0..3);
    order(&mut world, &set, None, named([]));
    world.live(MINUTE);
    let mut joined = World::new(&[&[], &[]]).nodes.pop().unwrap();
    joined.shelf.sets.insert(set.root(), set.clone());
    world.nodes.push(joined);
    world.connect(0, 1);
    assert_eq!(sets(&world), [set]);
}

#[test]
fn what_one_peer_gave_stays_when_the_next_is_asked() {
    let mut world = star(3);
    let set = named(0..MAX_BATCH as u16 + 20);
    let mut gets = 0;
    for at in [1, 2] {
        world.nodes[at].shelf.sets.insert(set.root(), set.clone());
    }
    // Node 1 forgets the set after its first batch.
    world.nodes[1].lie = Some(Box::new(move |request| {
        gets += usize::from(matches!(request, Request::Get { .. }));
        (gets > 1 && is_asked(request)).then_some(Response::Unknown)
    }));
    let hint = world.nodes[1].id;
    let before = world.requests;
    order(&mut world, &set, Some(hint), named([]));
    assert_eq!(sets(&world), [set]);
    // List and two batches of node 1, of which the second fails, and one of node 2.
    assert_eq!(world.asked, [1, 1, 1, 2], "{} requests", world.requests - before);
}

#[test]
fn a_silent_peer_costs_its_timeout_and_no_more() {
    let mut world = star(3);
    let set = named(0..3);
    world.nodes[1].is_silent = true;
    world.nodes[2].shelf.sets.insert(set.root(), set.clone());
    let hint = world.nodes[1].id;
    order(&mut world, &set, Some(hint), named([]));
    assert_eq!(world.asked[..2], [1, 2]);
    assert_eq!(sets(&world), [set]);
}

#[test]
fn a_peer_that_leaves_while_it_is_asked_is_followed_by_another() {
    let mut world = star(3);
    let set = named(0..3);
    world.nodes[2].shelf.sets.insert(set.root(), set.clone());
    let (hint, now) = (world.nodes[1].id, world.now);
    let exchange = &mut world.nodes[0].exchange;
    exchange.want_set((set.root(), 3, now.unix), Some(hint), named([]), now);
    assert!(matches!(exchange.poll_output(), Some(Output::Send { to, .. }) if to == hint));
    exchange.handle_disconnected(hint, now);
    world.run();
    assert_eq!(sets(&world), [set]);
}

#[test]
fn a_newer_order_takes_the_place_of_the_last_and_late_answers_to_that_are_ignored() {
    let mut world = star(2);
    let (old, new) = (named(0..3), named(3..9));
    for set in [&old, &new] {
        world.nodes[1].shelf.sets.insert(set.root(), set.clone());
    }
    let now = world.now;
    world.nodes[0].exchange.want_set((old.root(), 3, now.unix), None, named([]), now);
    order(&mut world, &new, None, named([]));
    assert_eq!(sets(&world), [new]);
    assert!(world.nobody_misbehaved());
    order(&mut world, &old, None, named([]));
    world.nodes[0].exchange.cancel_set();
    assert_eq!(sets(&world).len(), 2, "it was there before it was cancelled");
    let missing = named(20..22);
    order(&mut world, &missing, None, named([]));
    world.nodes[0].exchange.cancel_set();
    world.asked.clear();
    let now = world.now.plus(SECOND);
    let Node { exchange, set, .. } = &mut world.nodes[0];
    exchange.handle_timeout(set, now);
    assert!(exchange.jobs.is_empty());
}

#[test]
fn an_order_goes_before_the_live_set() {
    // Node 1 has many relays; in the middle of their reading a set is ordered.
    let many: Vec<u16> = (0..MAX_BATCH as u16 * 2).collect();
    let mut world = World::new(&[&[], &many]);
    let set = named(600..603);
    world.nodes[1].shelf.sets.insert(set.root(), set.clone());
    let log = Rc::new(RefCell::new(Vec::new()));
    let seen = log.clone();
    world.nodes[1].lie = Some(Box::new(move |request| {
        seen.borrow_mut().push(is_asked(request));
        None
    }));
    let (peer, now) = (world.nodes[1].id, world.now);
    let Node { exchange, set: live, .. } = &mut world.nodes[0];
    exchange.handle_connected(peer, live, now);
    exchange.want_set((set.root(), 3, now.unix), None, named([]), now);
    let asker = world.nodes[0].id;
    let Node { exchange, set: live, .. } = &mut world.nodes[1];
    exchange.handle_connected(asker, live, now);
    world.run();
    assert_eq!(sets(&world), [set]);
    // What was under way is answered, and then comes the order: its list and its descriptors.
    assert_eq!(log.borrow()[..3], [false, true, true]);
    world.live(10 * SECOND);
    assert!(world.sizes()[0] >= many.len(), "the live set comes after it");
}

#[test]
fn too_large_a_set_is_not_ordered() {
    let mut world = star(2);
    let now = world.now;
    let exchange = &mut world.nodes[0].exchange;
    exchange.want_set(([1; 32], MAX_SET + 1, now.unix), None, named([]), now);
    assert_eq!(exchange.poll_output(), None);
    assert_eq!(exchange.drops().get(DropReason::QueueFull), 1);
}

#[test]
fn a_peer_whose_set_has_another_root_or_number_is_told() {
    let set = named(0..40);
    for (name, false_set, relays) in [
        ("one less", named(0..39), 40),
        ("one more", named(0..41), 40),
        ("another", named(1..41), 40),
        ("number", named(0..40), 39),
    ] {
        let mut world = star(3);
        world.nodes[1].shelf.sets.insert(set.root(), false_set);
        world.nodes[2].shelf.sets.insert(set.root(), set.clone());
        let (hint, now) = (world.nodes[1].id, world.now);
        world.nodes[0].exchange.want_set((set.root(), relays, now.unix), Some(hint), named(0..35), now);
        world.run();
        assert_eq!(world.misbehaved(0)[0], hint, "{name}");
        assert_eq!(sets(&world).len(), usize::from(relays == 40), "{name}");
        assert_eq!(world.sizes()[0], if relays == 40 { 5 } else { 0 }, "nothing of a false set is fetched: {name}");
    }
}

#[test]
fn a_set_whose_sums_collide_with_the_candidates_is_found_by_its_list() {
    let mut world = star(2);
    let set = named(0..40);
    world.nodes[1].shelf.sets.insert(set.root(), set.clone());
    // What an honest peer answers where all sums are equal although the sets are not.
    world.nodes[1].lie = Some(Box::new(|request| match request {
        Request::Reconcile { scope: Scope::Root(_), message } if *message != reconcile::list_all() => {
            Some(Response::Reconcile { now_ms: 0, message: vec![0x61] })
        }
        _ => None,
    }));
    order(&mut world, &set, None, named(3..43));
    assert_eq!(sets(&world), [set]);
    assert!(world.nobody_misbehaved());
}

#[test]
fn lies_about_an_ordered_set_are_told_and_the_next_peer_is_asked() {
    let set = named(0..40);
    let other = relay(50);
    let mut forged = relay(3).as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let records = |records: Vec<Vec<u8>>, more| Response::Records { records, more };
    let lies = [
        ("nothing", records(vec![], false)),
        ("nothing, and more", records(vec![], true)),
        ("a part", records(vec![relay(0).as_bytes().to_vec()], false)),
        ("another descriptor", records(vec![other.as_bytes().to_vec()], true)),
        ("one twice", records(vec![relay(0).as_bytes().to_vec(); 2], true)),
        ("a forged one", records(vec![forged], true)),
        ("garbage", records(vec![vec![1; 200]], true)),
        ("an answer to another question", Response::State { total: 1, bytes: vec![1] }),
        ("the hashes again", Response::Reconcile { now_ms: 0, message: vec![0x61] }),
    ];
    for (name, lie) in lies {
        let mut world = star(3);
        for at in [1, 2] {
            world.nodes[at].shelf.sets.insert(set.root(), set.clone());
        }
        world.nodes[1].lie = Some(Box::new(move |request| {
            matches!(request, Request::Get { scope: Scope::Root(_), .. }).then(|| lie.clone())
        }));
        let hint = world.nodes[1].id;
        order(&mut world, &set, Some(hint), named([]));
        assert_eq!(world.misbehaved(0), [hint], "{name}");
        assert_eq!(sets(&world), std::slice::from_ref(&set), "{name}");
    }
}

#[test]
fn a_descriptor_that_nobody_can_verify_now_is_no_lie() {
    let mut world = star(2);
    let now = start().unix;
    let epoch = fog_base::Epoch(EPOCH.0 - 1);
    let old = sign(1, &facts(1, epoch), epoch, now.0 - 400_000, fog_base::UnixMillis(now.0 - 400_000));
    let set = Arc::new(NamedSet::new(vec![Arc::new(old)]));
    world.nodes[1].shelf.sets.insert(set.root(), set.clone());
    world.now = world.now.plus(Duration::from_secs(1200));
    order(&mut world, &set, None, named([]));
    assert!(sets(&world).is_empty());
    assert!(world.nobody_misbehaved());
    assert!(world.nodes[0].exchange.drops().get(DropReason::Expired) > 0);
}

fn state_hash(bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key("fog snapshot state v1", bytes)
}

fn states(world: &World) -> Vec<&[u8]> {
    let told = world.nodes[0].told.iter();
    told.filter_map(|output| if let Output::State { bytes, .. } = output { Some(bytes.as_slice()) } else { None })
        .collect()
}

#[test]
fn a_state_is_fetched_in_parts_and_checked() {
    for length in [0, 1, MAX_CONTENT, MAX_CONTENT + 1, MAX_STATE as usize] {
        let mut world = star(3);
        let bytes: Vec<_> = (0..length).map(|n| (n % 251) as u8).collect();
        let hash = state_hash(&bytes);
        let mut false_bytes = bytes.clone();
        false_bytes.push(7);
        world.nodes[1].shelf.states.insert(hash, false_bytes);
        world.nodes[2].shelf.states.insert(hash, bytes.clone());
        let now = world.now;
        world.nodes[0].exchange.want_state(hash, now);
        world.run();
        assert_eq!(states(&world), [bytes.as_slice()], "{length}");
        assert!(world.misbehaved(0).iter().all(|peer| *peer == node(1001)));
        world.nodes[0].told.clear();
        world.live(SECOND);
        assert!(states(&world).is_empty(), "once");
    }
}

#[test]
fn lies_about_a_state_are_told() {
    let hash = state_hash(b"true");
    let part = |total: u32, bytes: &[u8]| Response::State { total, bytes: bytes.to_vec() };
    for (name, parts) in [
        ("too long", vec![part(MAX_STATE + 1, &[1])]),
        ("empty part", vec![part(4, &[])]),
        ("beyond the end", vec![part(4, &[1; 5])]),
        ("another length", vec![part(4, &[1]), part(5, &[1])]),
        ("other bytes", vec![part(4, b"fals")]),
        ("links", vec![Response::Links { links: vec![], more: false }]),
    ] {
        let mut world = star(2);
        let mut parts = parts.into_iter();
        world.nodes[1].lie = Some(Box::new(move |_| parts.next().or(Some(Response::Unknown))));
        let now = world.now;
        world.nodes[0].exchange.want_state(hash, now);
        world.run();
        assert_eq!(world.misbehaved(0), [node(1001)], "{name}");
        world.nodes[1].lie = None;
        world.nodes[1].shelf.states.insert(hash, b"true".to_vec());
        world.live(SECOND);
        assert_eq!(states(&world), [b"true"], "{name}: retried while wanted");
    }
}

fn link(n: u32) -> Link {
    let key = SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes();
    let electorate = Electorate::new(vec![Elector { node: NodeId(key), weight: 1 }]).unwrap();
    let statement = Statement { epoch: Epoch(n), ..Statement::genesis(electorate.commitment()) };
    let round = Round { epoch: Epoch(n), attempt: 0 };
    let certificate = Quorum { phase: Phase::Commit, round, statement, signatures: vec![Some([7; 64])] };
    Link { certificate, electorate }
}

fn link_answers(world: &World) -> Vec<(NodeId, usize, bool)> {
    let told = world.nodes[0].told.iter();
    told.filter_map(|output| match output {
        Output::Links { peer, links, more } => Some((*peer, links.len(), *more)),
        _ => None,
    })
    .collect()
}

#[test]
fn links_are_asked_of_three_peers() {
    let mut world = star(6);
    for at in 1..6 {
        world.nodes[at].shelf.links = (0..2).map(|n| link(n).to_bytes()).collect();
    }
    let now = world.now;
    world.nodes[0].exchange.want_links(Epoch(0), now);
    world.run();
    world.live(MINUTE);
    let answers = link_answers(&world);
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|(_, links, more)| (*links, *more) == (2, false)));
    let peers: std::collections::BTreeSet<_> = answers.iter().map(|(peer, ..)| *peer).collect();
    assert_eq!(peers.len(), 3);
}

#[test]
fn fewer_than_three_peers_are_enough_and_silent_ones_are_replaced() {
    let mut world = star(5);
    for at in [1, 2] {
        world.nodes[at].is_silent = true;
    }
    let now = world.now;
    world.nodes[0].exchange.want_links(Epoch(0), now);
    world.run();
    assert_eq!(link_answers(&world).len(), 2);
    assert!(world.nodes[0].exchange.jobs.is_empty(), "nobody else can be asked");
    let mut world = star(2);
    world.nodes[1].is_silent = true;
    let now = world.now;
    world.nodes[0].exchange.want_links(Epoch(0), now);
    world.run();
    assert!(link_answers(&world).is_empty());
    world.nodes[1].is_silent = false;
    world.live(SECOND);
    assert_eq!(link_answers(&world).len(), 1);
}

#[test]
fn more_links_than_fit_are_cut_and_false_ones_told() {
    let mut world = star(2);
    world.nodes[1].shelf.links = (0..1000).map(|n| link(n).to_bytes()).collect();
    let now = world.now;
    world.nodes[0].exchange.want_links(Epoch(0), now);
    world.run();
    let answers = link_answers(&world);
    assert!(answers[0].2 && answers[0].1 < 1000 && answers[0].1 > 100, "{answers:?}");
    for lie in [
        Response::Links { links: vec![], more: true },
        Response::Links { links: vec![vec![1; 100]], more: false },
        Response::Records { records: vec![], more: false },
    ] {
        let mut world = star(2);
        let mut lies = [lie].into_iter();
        world.nodes[1].lie = Some(Box::new(move |_| lies.next().or(Some(Response::Unknown))));
        let now = world.now;
        world.nodes[0].exchange.want_links(Epoch(0), now);
        world.run();
        assert_eq!(world.misbehaved(0), [node(1001)]);
        assert!(link_answers(&world).is_empty());
    }
}

#[test]
fn a_named_set_is_sorted_and_answers_by_hash() {
    let set = NamedSet::new([5, 1, 3, 1].map(|n| Arc::new(relay(n))).to_vec());
    assert_eq!(set.relays().len(), 3);
    assert!(set.relays().windows(2).all(|pair| pair[0].relay() < pair[1].relay()));
    let mut hashes: Vec<_> = [1, 3, 5].map(|n| relay(n).hash()).to_vec();
    hashes.sort_unstable();
    assert!(set.hashes().eq(hashes.iter().copied()));
    assert_eq!(set.root(), crate::core::certificate::merkle::root(&hashes));
    assert_eq!(set.by_hash(&relay(3).hash()).map(|one| one.relay()), Some(relay(3).relay()));
    assert_eq!(set.by_hash(&relay(2).hash()), None);
    assert_eq!(*named([]), NamedSet::new(vec![]));
}

/// Made once: signing takes a millisecond.
static RELAYS: std::sync::LazyLock<Vec<Arc<Descriptor>>> =
    std::sync::LazyLock::new(|| (0..150).map(|n| Arc::new(relay(n))).collect());

fn subset() -> impl Strategy<Value = Arc<NamedSet>> {
    proptest::collection::btree_set(0usize..150, 0..150)
        .prop_map(|relays| Arc::new(NamedSet::new(relays.iter().map(|n| RELAYS[*n].clone()).collect())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_set_is_fetched_with_any_candidates(set in subset(), candidates in subset(), live in subset()) {
        let mut world = star(2);
        for descriptor in live.relays() {
            let now = world.now;
            world.nodes[0].set.handle_descriptor(descriptor.as_bytes(), Source::Store, now).unwrap();
        }
        world.nodes[1].shelf.sets.insert(set.root(), set.clone());
        order(&mut world, &set, None, candidates);
        prop_assert_eq!(sets(&world), vec![set]);
        prop_assert!(world.nobody_misbehaved());
    }

    #[test]
    fn lies_end_and_never_become_a_set(
        set in subset(), shown in subset(), kind in 0u8..3, bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut world = star(2);
        world.nodes[1].shelf.sets.insert(set.root(), shown);
        if kind > 0 {
            world.nodes[1].lie = Some(Box::new(move |request| match (kind, request) {
                (1, Request::Get { .. }) => Some(Response::Records { records: vec![bytes.clone()], more: true }),
                (2, Request::Reconcile { .. }) => {
                    Some(Response::Reconcile { now_ms: 0, message: [&[0x61][..], &bytes].concat() })
                }
                _ => None,
            }));
        }
        order(&mut world, &set, None, named([]));
        world.live(5 * SECOND);
        for found in sets(&world) {
            prop_assert_eq!(found.root(), set.root());
            prop_assert_eq!(&found, &set);
        }
        prop_assert!(world.requests < 1000, "{} requests", world.requests);
    }
}
