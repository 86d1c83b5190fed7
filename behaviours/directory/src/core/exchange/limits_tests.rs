use super::{
    limits::{PEER_BURST, PEER_RATE, POOL_BURST, POOL_RATE, RESERVE_BURST, RESERVE_RATE},
    world::{Node, World, named},
    *,
};
use crate::core::testing::{node, relay};

const SECOND: Duration = Duration::from_secs(1);

/// A node with a few relays that has met so many peers.
fn crowd(peers: u16) -> World {
    let mut world = World::new(&[&[1, 2, 3]]);
    let now = world.now;
    let Node { exchange, set, .. } = &mut world.nodes[0];
    for n in 0..peers {
        exchange.handle_connected(node(2000 + n), set, now);
    }
    while exchange.poll_output().is_some() {}
    world
}

/// One relay: 2 tokens.
fn get() -> Request {
    Request::Get { scope: Scope::Live, hashes: vec![relay(1).hash()] }
}

fn is_served(world: &mut World, peer: u16, request: &Request) -> bool {
    let now = world.now;
    let Node { exchange, set, shelf, .. } = &mut world.nodes[0];
    exchange.handle_request(node(2000 + peer), request.clone(), set, shelf, now) != Response::Busy
}

#[test]
fn a_peer_that_asks_too_much_is_told_to_wait_and_others_are_not() {
    let mut world = crowd(2);
    let request = get();
    let served = (0..5000).filter(|_| is_served(&mut world, 0, &request)).count();
    assert_eq!(served, PEER_BURST as usize / 2);
    assert!(is_served(&mut world, 1, &request));
    let exchange = &mut world.nodes[0].exchange;
    let refused = 5000 - served as u64;
    assert_eq!(exchange.drops().get(DropReason::RateLimited), refused);
    let floods: Vec<_> = std::iter::from_fn(|| exchange.poll_output()).collect();
    assert!(floods.iter().all(|output| *output == Output::Flooding { peer: node(2000) }));
    assert_eq!(floods.len() as u64, refused - 32, "the first refusals may happen to an honest peer");
}

#[test]
fn an_honest_peer_among_fifty_hostile_ones_is_answered() {
    const HOSTILE: u16 = 50;
    let mut world = crowd(HOSTILE + 1);
    let set = named(0..60);
    world.nodes[0].shelf.sets.insert(set.root(), set.clone());
    // The dearest question that can be asked here again and again: a list of everything.
    let scope = Scope::Root(set.root());
    let dear = Request::Reconcile { scope, message: reconcile::list_all() };
    let honest = [dear.clone(), get(), Request::Reconcile { scope, message: set.items().opening() }];
    let (mut hostile_served, seconds) = (0, 120);
    for second in 0..seconds {
        for peer in 1..=HOSTILE {
            // Twenty a second each: a thousand together.
            hostile_served += (0..20).filter(|_| is_served(&mut world, peer, &dear)).count();
        }
        let request = &honest[second % honest.len()];
        assert!(is_served(&mut world, 0, request), "refused in second {second}");
        world.now = world.now.plus(SECOND);
        let told = std::iter::from_fn(|| world.nodes[0].exchange.poll_output());
        assert!(told.filter(|output| *output == Output::Flooding { peer: node(2000) }).count() == 0);
    }
    // Each costs three tokens: no more than pool and reserves hold.
    let hostile = f64::from(HOSTILE);
    let tokens = POOL_BURST + hostile * RESERVE_BURST + (POOL_RATE + hostile * RESERVE_RATE) * seconds as f64;
    assert!(hostile_served as f64 * 3.0 <= tokens, "{hostile_served} served");
    assert!(world.nodes[0].exchange.drops().get(DropReason::RateLimited) > 20_000);
}

#[test]
fn when_all_ask_for_all_that_they_may_each_still_has_its_reserve() {
    let mut world = crowd(60);
    let request = get();
    for peer in 1..60 {
        while is_served(&mut world, peer, &request) {}
    }
    let reserve = (0..1000).filter(|_| is_served(&mut world, 0, &request)).count();
    assert_eq!(reserve, RESERVE_BURST as usize / 2);
    const { assert!(PEER_RATE * 60.0 > POOL_RATE, "this is about a pool that is too small for all") };
}

#[test]
fn what_is_kept_for_peers_does_not_grow_with_their_requests() {
    let (mut world, request) = (crowd(40), get());
    for _ in 0..1000 {
        for peer in 0..40 {
            is_served(&mut world, peer, &request);
        }
    }
    let Node { exchange, set, .. } = &mut world.nodes[0];
    assert_eq!(exchange.peers.len(), 40);
    assert!(exchange.outputs.len() <= MAX_OUTPUTS);
    assert!(exchange.drops().get(DropReason::QueueFull) > 0, "reports beyond the bound are counted");
    for n in 0..40 {
        exchange.handle_disconnected(node(2000 + n), world.now);
    }
    assert!(exchange.peers.is_empty());
    let answer = exchange.handle_request(node(2000), get(), set, &archive::NoArchive, world.now);
    assert_eq!(answer, Response::Busy, "a stranger");
}

#[test]
fn a_large_range_costs_more_than_a_descriptor_and_agreement_costs_least() {
    let world = crowd(0);
    let shelf = &world.nodes[0].shelf;
    let items = |n: u64| Items::new((0..n).map(|n| (n, *blake3::hash(&n.to_be_bytes()).as_bytes())));
    let (large, small) = (items(10_000), items(10));
    let price = |request: &Request, live: &Items| serve::price(request, live, shelf);
    let reconcile = |message: Vec<u8>| Request::Reconcile { scope: Scope::Live, message };
    assert_eq!(price(&reconcile(large.opening()), &large), 1);
    assert_eq!(price(&reconcile(small.opening()), &large), 12);
    assert_eq!(price(&reconcile(large.opening()), &small), 3);
    assert_eq!(price(&reconcile(vec![0x61; reconcile::MAX_QUERY]), &large), 27);
    assert_eq!(price(&get(), &large), 2);
    let unknown = Request::Reconcile { scope: Scope::Root([1; 32]), message: vec![0x61; reconcile::MAX_QUERY] };
    assert_eq!(price(&unknown, &large), 1);
    const { assert!(27.0 < RESERVE_BURST, "the dearest request fits the reserve") };
}
