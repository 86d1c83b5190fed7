use std::collections::BTreeSet;

use super::*;
use crate::core::testing::{node, relay, set, start};

/// Nodes that talk without a network: requests and answers are bytes, delivered at once.
struct World {
    nodes: Vec<(NodeId, Exchange, RelaySet)>,
    now: Now,
    requests: usize,
    misbehaved: Vec<NodeId>,
    clocks: Vec<i64>,
}

impl World {
    fn new(sets: &[&[u16]]) -> Self {
        let now = start();
        let nodes = sets.iter().enumerate().map(|(i, relays)| {
            let mut set = set(now);
            for n in *relays {
                set.handle_descriptor(relay(*n).as_bytes(), Source::Store, now).unwrap();
            }
            (node(1000 + i as u16), Exchange::new([i as u8; 32], now), set)
        });
        Self { nodes: nodes.collect(), now, requests: 0, misbehaved: vec![], clocks: vec![] }
    }

    fn connect(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let peer = self.nodes[to].0;
            let (_, exchange, set) = &mut self.nodes[from];
            exchange.handle_connected(peer, set, self.now);
        }
        self.run();
    }

    fn run(&mut self) {
        while let Some((from, output)) =
            (0..self.nodes.len()).find_map(|from| self.nodes[from].1.poll_output().map(|output| (from, output)))
        {
            match output {
                Output::Send { to, request } => self.deliver(from, to, &request),
                Output::Misbehaved { peer } => self.misbehaved.push(peer),
                Output::Clock { offset_ms, .. } => self.clocks.push(offset_ms),
                Output::Flooding { peer } => panic!("{peer} is honest"),
            }
        }
    }

    fn deliver(&mut self, from: usize, to: NodeId, request: &Request) {
        self.requests += 1;
        let request = Request::decode(&request.encode().unwrap()).unwrap();
        let asker = self.nodes[from].0;
        let (_, exchange, set) = self.nodes.iter_mut().find(|(id, ..)| *id == to).unwrap();
        let response = exchange.handle_request(asker, request, set, self.now);
        let response = Response::decode(&response.encode().unwrap()).unwrap();
        let (_, exchange, set) = &mut self.nodes[from];
        exchange.handle_response(to, response, set, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        for (_, exchange, set) in &mut self.nodes {
            exchange.handle_timeout(set, self.now);
        }
        self.run();
    }

    fn sizes(&self) -> Vec<usize> {
        self.nodes.iter().map(|(.., set)| set.len()).collect()
    }
}

#[test]
fn two_peers_that_meet_have_one_set() {
    let mut world = World::new(&[&[1, 2, 3], &[3, 4]]);
    world.connect(0, 1);
    assert_eq!(world.sizes(), [4, 4]);
    assert_eq!(world.nodes[0].2.digest(), world.nodes[1].2.digest());
    assert_eq!(world.clocks, [0, 0]);
}

#[test]
fn equal_sets_cost_one_request_each_way() {
    let mut world = World::new(&[&[1, 2, 3], &[1, 2, 3]]);
    world.connect(0, 1);
    assert_eq!(world.requests, 2);
}

#[test]
fn a_set_larger_than_a_batch_is_read_whole() {
    let many: Vec<u16> = (0..150).collect();
    let mut world = World::new(&[&many, &[]]);
    world.connect(0, 1);
    assert_eq!(world.sizes(), [150, 150]);
}

#[test]
fn what_gossip_missed_arrives_by_the_rounds() {
    // A line of four: 0 - 1 - 2 - 3.
    let mut world = World::new(&[&[], &[], &[], &[]]);
    for (a, b) in [(0, 1), (1, 2), (2, 3)] {
        world.connect(a, b);
    }
    let now = world.now;
    world.nodes[0].2.handle_descriptor(relay(1).as_bytes(), Source::Own, now).unwrap();
    for second in 0..30 {
        if world.sizes() == [1, 1, 1, 1] {
            assert!(second > 0);
            return;
        }
        world.pass(Duration::from_secs(1));
    }
    panic!("after 30 s: {:?}", world.sizes());
}

#[test]
fn rounds_become_rare_and_a_new_peer_makes_them_frequent() {
    let mut world = World::new(&[&[1], &[1], &[1]]);
    world.connect(0, 1);
    for _ in 0..600 {
        world.pass(Duration::from_secs(1));
    }
    let before = world.requests;
    for _ in 0..120 {
        world.pass(Duration::from_secs(1));
    }
    assert!((2..=6).contains(&(world.requests - before)), "{} requests in two minutes", world.requests - before);
    world.connect(0, 2);
    let before = world.requests;
    for _ in 0..8 {
        world.pass(Duration::from_secs(1));
    }
    assert!(world.requests - before >= 5);
}

#[test]
fn false_answers_end_the_session_and_are_told() {
    let mut world = World::new(&[&[1], &[2]]);
    let (peer, now) = (node(1001), world.now);
    let (_, exchange, set) = &mut world.nodes[0];
    exchange.handle_connected(peer, set, now);
    exchange.poll_output().unwrap();
    exchange.handle_response(peer, Response::Records { records: vec![] }, set, now);
    assert_eq!(exchange.poll_output(), Some(Output::Misbehaved { peer }), "an answer to another question");
    let later = now.plus(Duration::from_secs(2));
    exchange.handle_timeout(set, later);
    exchange.poll_output().unwrap();
    let list = Response::List { now_ms: later.unix.0, digest: [0; 32], hashes: vec![[1; 32]], more: false };
    exchange.handle_response(peer, list, set, later);
    exchange.handle_response(peer, Response::Records { records: vec![vec![0; 300]] }, set, later);
    let told: Vec<_> = std::iter::from_fn(|| exchange.poll_output()).collect();
    assert!(told.contains(&Output::Misbehaved { peer }), "{told:?}");
}

#[test]
fn a_peer_cannot_keep_us_listing_for_ever() {
    let mut world = World::new(&[&[1], &[2]]);
    let (peer, now) = (node(1001), world.now);
    let (_, exchange, set) = &mut world.nodes[0];
    exchange.handle_connected(peer, set, now);
    let mut asked = BTreeSet::new();
    for step in 0..1000 {
        let Some(output) = exchange.poll_output() else {
            assert!(step > 0);
            return;
        };
        let Output::Send { request: Request::List { after, .. }, .. } = output else { continue };
        assert!(asked.insert(after), "asked twice for the same page");
        let list = Response::List { now_ms: 0, digest: [0; 32], hashes: vec![[9; 32], [1; 32]], more: true };
        exchange.handle_response(peer, list, set, now);
    }
    panic!("still listing after 1000 pages");
}

#[test]
fn a_peer_that_asks_too_much_is_told_to_wait_and_others_are_not() {
    let mut world = World::new(&[&[1], &[2]]);
    let (now, peers) = (world.now, [node(1001), node(1002)]);
    let (_, exchange, set) = &mut world.nodes[0];
    for peer in peers {
        exchange.handle_connected(peer, set, now);
    }
    let request = || Request::Get { hashes: vec![relay(1).hash()] };
    let busy = |exchange: &mut Exchange, set: &mut RelaySet, peer| {
        exchange.handle_request(peer, request(), set, now) == Response::Busy
    };
    let answered = (0..1000).filter(|_| !busy(exchange, set, peers[0])).count();
    assert_eq!(answered, SERVE_BURST as usize);
    assert!(!busy(exchange, set, peers[1]));
    assert_eq!(exchange.drops().get(DropReason::RateLimited), 1000 - SERVE_BURST as u64);
    let told = std::iter::from_fn(|| exchange.poll_output());
    let floods = told.filter(|output| *output == Output::Flooding { peer: peers[0] }).count();
    assert_eq!(floods, 1000 - SERVE_BURST as usize);
}

#[test]
fn a_clock_that_is_off_is_measured_in_the_middle_of_the_round_trip() {
    let mut world = World::new(&[&[], &[]]);
    let (peer, now) = (node(1001), world.now);
    let (_, exchange, set) = &mut world.nodes[0];
    exchange.handle_connected(peer, set, now);
    exchange.poll_output().unwrap();
    let list = Response::List { now_ms: now.unix.0 + 90_500, digest: set.digest(), hashes: vec![], more: false };
    exchange.handle_response(peer, list, set, now.plus(Duration::from_secs(1)));
    assert_eq!(exchange.poll_output(), Some(Output::Clock { peer, offset_ms: 90_000 }));
}
