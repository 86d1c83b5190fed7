use super::*;
use crate::core::{
    evidence::{Kind, Observation, Outcome},
    receipt::Verdict::Good,
    testing::{after, identity, node, pair, record, report, reputation, schedule, start},
};

/// A node with its exchange.
struct Peer {
    id: NodeId,
    exchange: Exchange,
    reputation: Reputation,
}

fn peer(n: u32, now: Now) -> Peer {
    let config = crate::core::testing::config();
    let mut reputation = Reputation::new(config, std::sync::Arc::new(identity(n)), [7; 32], now);
    reputation.set_relays([node(5)].into());
    Peer { id: node(n), exchange: Exchange::new([n as u8; 32], now), reputation }
}

impl Peer {
    fn gossip(&mut self, from: u32, item: &Item, now: Now) -> Acceptance {
        self.exchange.handle_gossip(node(from), &item.encode(), &mut self.reputation, now)
    }

    fn requests(&mut self) -> Vec<(NodeId, Request)> {
        let outputs = std::iter::from_fn(|| self.exchange.poll_output());
        outputs
            .filter_map(|output| if let Output::Send { to, request } = output { Some((to, request)) } else { None })
            .collect()
    }

    fn published(&mut self) -> Vec<Vec<u8>> {
        let outputs = std::iter::from_fn(|| self.exchange.poll_output());
        outputs.filter_map(|output| if let Output::Publish(bytes) = output { Some(bytes) } else { None }).collect()
    }
}

/// `a` asks `b` for what it has, as often as it wants to.
fn ask(a: &mut Peer, b: &mut Peer, now: Now) -> usize {
    a.exchange.handle_connected(b.id, &a.reputation, now);
    b.exchange.handle_connected(a.id, &b.reputation, now);
    b.requests();
    let mut rounds = 0;
    let mut at = now;
    loop {
        let Some((to, request)) = a.requests().pop() else { return rounds };
        assert_eq!(to, b.id);
        rounds += 1;
        let request = Request::decode(&request.encode().unwrap()).unwrap();
        let response = b.exchange.handle_request(a.id, &request, &mut b.reputation, at);
        let response = Response::decode(&response.encode().unwrap()).unwrap();
        a.exchange.handle_response(b.id, response, &mut a.reputation, at);
        at = at.plus(NEXT_PART);
        a.exchange.handle_timeout(&a.reputation, at);
    }
}

fn reports(count: u32, now: Now) -> Vec<Item> {
    let one = |n| Item::Report(report((1_000 + n, 9_000 + n % 50), &[Good], now.unix, now.unix));
    (0..count).map(one).collect()
}

fn equivocation(by: u32, now: Now) -> Item {
    let [one, other] = ["one", "other"].map(|body| record(by, now.unix.0, body, now.unix));
    Item::Proof(pair(one.as_bytes(), other.as_bytes()))
}

#[test]
fn who_was_away_hears_everything_that_is_open_once() {
    let now = start();
    let (mut a, mut b) = (peer(0, now), peer(1, now));
    for item in reports(40, now) {
        assert_eq!(b.gossip(2, &item, now), Acceptance::Accept);
        assert_eq!(b.gossip(3, &item, now), Acceptance::Ignore, "known");
    }
    assert_eq!(b.gossip(2, &equivocation(5, now), now), Acceptance::Accept);
    assert_eq!(ask(&mut a, &mut b, now), 3, "41 items in answers of 16");
    assert_eq!((a.exchange.kept(), a.exchange.counts().reports, a.exchange.counts().proofs), (41, 40, 1));
    assert!(a.reputation.banned_until(node(5), now.unix).is_some());
    assert_eq!(b.exchange.counts().served, 41);
    let later = after(now, 0.5);
    a.exchange.handle_disconnected(b.id);
    b.exchange.handle_disconnected(a.id);
    ask(&mut a, &mut b, later);
    assert_eq!((a.exchange.counts().reports, b.exchange.counts().served), (40, 41), "nothing is sent twice");
    assert_eq!(a.reputation.penalty(b.id, now.unix), 0.0);
}

#[test]
fn what_is_over_is_neither_kept_nor_given() {
    let now = start();
    let (mut a, mut b) = (peer(0, now), peer(1, now));
    for item in reports(3, now) {
        b.gossip(2, &item, now);
    }
    let closed = after(now, 3.0);
    ask(&mut a, &mut b, closed);
    assert_eq!((a.exchange.kept(), b.exchange.counts().served), (0, 0));
    b.exchange.handle_timeout(&b.reputation, closed);
    assert_eq!(b.exchange.kept(), 0);
}

#[test]
fn who_counted_a_report_before_a_restart_does_not_ask_for_it_again_and_again() {
    let now = start();
    let (mut a, mut b) = (peer(0, now), peer(1, now));
    let items = reports(2, now);
    for item in &items {
        a.gossip(2, item, now);
        b.gossip(2, item, now);
    }
    // Its opinions came back from the store, its shelf did not.
    a.exchange = Exchange::new([9; 32], now);
    ask(&mut a, &mut b, now);
    assert_eq!((a.exchange.kept(), b.exchange.counts().served), (0, 2));
    let later = now.plus(ROUND);
    a.exchange.handle_timeout(&a.reputation, later);
    let (_, request) = a.requests().pop().unwrap();
    assert_eq!(request.known.len(), 2);
    let nothing = Response::Items { items: Vec::new(), more: false };
    assert_eq!(b.exchange.handle_request(a.id, &request, &mut b.reputation, later), nothing);
}

#[test]
fn own_reports_and_proofs_are_published_and_given_to_others() {
    let now = start();
    let (mut a, mut b) = (peer(0, now), peer(1, now));
    let Item::Proof(proof) = equivocation(5, now) else { unreachable!() };
    b.exchange.handle_own_proof(proof.clone(), &mut b.reputation, now).unwrap();
    assert_eq!(b.exchange.handle_own_proof(proof.clone(), &mut b.reputation, now), Err(Reject::Replayed));
    b.exchange.handle_own_report(report((1, 7), &[Good], now.unix, now.unix), &b.reputation, now);
    let published = b.published();
    assert_eq!(published.len(), 2);
    ask(&mut a, &mut b, now);
    assert_eq!(a.exchange.kept(), 2);
    assert_eq!(b.exchange.handle_gossip(node(4), &published[0], &mut b.reputation, now), Acceptance::Ignore, "ours");
    let mut restarted = peer(1, now);
    restarted.reputation.restore(&[b"x", &node(5).0[..]].concat(), &proof, now).unwrap();
    restarted.exchange.restore_proof(&proof, &restarted.reputation, now);
    assert_eq!(restarted.exchange.kept(), 1);
}

#[test]
fn a_proof_against_a_stranger_is_ignored_and_asked_for_again_later() {
    let now = start();
    let mut a = peer(0, now);
    let item = equivocation(6, now);
    assert_eq!(a.gossip(2, &item, now), Acceptance::Ignore);
    assert_eq!((a.exchange.kept(), a.reputation.penalty(node(2), now.unix)), (0, 0.0));
    a.reputation.set_relays([node(6)].into());
    let later = now.plus(RETRY);
    a.exchange.shelf.sweep(later.unix);
    assert_eq!(a.gossip(2, &item, later), Acceptance::Accept);
}

#[test]
fn a_proof_heard_by_exchange_travels_on_by_gossip() {
    let now = start();
    let mut a = peer(0, now);
    a.exchange.handle_connected(node(1), &a.reputation, now);
    a.requests();
    let item = equivocation(5, now).encode();
    let response = Response::Items { items: vec![item.clone()], more: false };
    a.exchange.handle_response(node(1), response, &mut a.reputation, now);
    assert_eq!(a.published(), [item]);
}

#[test]
fn what_no_honest_peer_sends_is_rejected_and_counts_against_its_sender() {
    let now = start();
    let mut a = peer(0, now);
    let mut forged = report((1, 7), &[Good], now.unix, now.unix);
    *forged.last_mut().unwrap() ^= 1;
    let bad = [
        Item::Report(forged).encode(),
        Item::Report(report((7, 7), &[], now.unix, now.unix)).encode(),
        Item::Report(report((1, 7), &[], now.unix, now.unix)).encode(),
        Item::Proof(vec![1, 2, 3]).encode(),
        vec![9],
        Vec::new(),
    ];
    for (i, bytes) in bad.iter().enumerate() {
        assert_eq!(a.exchange.handle_gossip(node(6), bytes, &mut a.reputation, now), Acceptance::Reject, "{i}");
        assert_eq!(a.reputation.penalty(node(6), now.unix), (i + 1) as f64);
    }
    let early = report((1, 7), &[Good], after(now, 1.0).unix, after(now, 1.0).unix);
    assert_eq!(a.gossip(6, &Item::Report(early), now), Acceptance::Ignore, "clocks are bad luck");
    assert_eq!((a.reputation.penalty(node(6), now.unix), a.exchange.kept()), (6.0, 0));
    // In an answer the first bad item ends it.
    a.exchange.handle_connected(node(8), &a.reputation, now);
    let items = bad.iter().cloned().chain([reports(1, now)[0].encode()]).collect();
    a.exchange.handle_response(node(8), Response::Items { items, more: true }, &mut a.reputation, now);
    assert_eq!((a.reputation.penalty(node(8), now.unix), a.exchange.kept()), (1.0, 0));
}

#[test]
fn who_asks_too_often_is_told_so_and_then_banned() {
    let now = start();
    let mut a = peer(0, now);
    a.exchange.handle_connected(node(1), &a.reputation, now);
    let request = Request { salt: [0; 32], known: Vec::new(), limit: 16 };
    let mut busy = 0;
    while a.reputation.banned_until(node(1), now.unix).is_none() {
        let response = a.exchange.handle_request(node(1), &request, &mut a.reputation, now);
        busy += usize::from(response == Response::Busy);
        assert!(busy < 1_000);
    }
    assert_eq!(busy, 256);
    assert_eq!(a.exchange.handle_request(node(2), &request, &mut a.reputation, now), Response::Busy, "not connected");
}

#[test]
fn no_more_is_asked_for_than_the_peers_rate_lets_us_read() {
    let now = start();
    let (mut a, mut b) = (peer(0, now), peer(1, now));
    for (n, item) in reports(100, now).iter().enumerate() {
        b.gossip(100 + n as u32, item, now);
    }
    // Gossip of the same peer has used up most of its rate.
    let ahead = after(now, 1.0).unix;
    for n in 0..60 {
        a.gossip(1, &Item::Report(report((500 + n, 7), &[Good], ahead, ahead)), now);
    }
    assert_eq!(a.reputation.quota(b.id, now.mono), 4);
    ask(&mut a, &mut b, now);
    assert_eq!(a.exchange.kept(), 100);
    assert_eq!(a.reputation.penalty(b.id, now.unix), 0.0, "an honest peer with a lot to tell is not blamed");
    assert_eq!(a.reputation.drops().get(DropReason::RateLimited), 0);
}

#[test]
fn a_trusted_raters_report_stays_when_strangers_fill_the_shelf() {
    let now = start();
    let mut a = Peer { id: node(0), exchange: Exchange::new([1; 32], now), reputation: reputation(now) };
    for _ in 0..2 {
        let good = Observation { peer: node(1), kind: Kind::Rating, outcome: Outcome::Good, weight: 8.0, at: now.unix };
        a.reputation.handle_observation(good, now).unwrap();
    }
    let item = Item::Report(report((1, 7), &[Good], now.unix, now.unix));
    assert_eq!(a.gossip(1, &item, now), Acceptance::Accept);
    assert_eq!(rank(&item, &a.reputation, now), Rank::Trusted);
    assert_eq!(rank(&reports(1, now)[0], &a.reputation, now), Rank::Stranger);
    assert_eq!(ends(&item, &a.reputation, now.unix), Some(schedule().end(schedule().at(after(now, 2.0).unix))));
}
