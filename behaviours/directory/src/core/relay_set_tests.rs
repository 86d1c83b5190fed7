use super::*;
use crate::core::{
    seating::OpenSeating,
    testing::{EPOCH, NETWORK, facts, node, relay, relay_at, schedule, set, sign, start},
};

const PEER: NodeId = NodeId([200; 32]);
const GOSSIP: Source = Source::Gossip(PEER);

fn outputs(set: &mut RelaySet) -> Vec<Output> {
    std::iter::from_fn(|| set.poll_output()).collect()
}

/// Relay `n` with sequence number `seq`; `capacity` tells bodies apart.
fn version(n: u16, seq: u64, capacity: u32) -> Descriptor {
    let mut facts = facts(n, EPOCH);
    facts.capacity = capacity;
    sign(n, &facts, EPOCH, seq, start().unix)
}

#[test]
fn a_new_descriptor_is_kept_and_a_known_one_changes_nothing() {
    let now = start();
    let (mut set, a) = (set(now), relay(1));
    assert_eq!(set.handle_descriptor(a.as_bytes(), GOSSIP, now), Ok(Verdict::New));
    assert_eq!(outputs(&mut set), [Output::Persist { relay: node(1), bytes: a.as_bytes().to_vec() }]);
    assert_eq!(set.handle_descriptor(a.as_bytes(), GOSSIP, now), Ok(Verdict::Known));
    assert_eq!(outputs(&mut set), []);
    assert_eq!((set.len(), set.by_hash(&a.hash()).map(|d| d.relay())), (1, Some(node(1))));
}

#[test]
fn gossip_forwards_new_ones_ignores_old_ones_and_rejects_invalid_ones() {
    let now = start();
    let mut set = set(now);
    let (old, new) = (version(1, 10, 0), version(1, 11, 0));
    assert_eq!(set.handle_gossip(PEER, new.as_bytes(), now), Acceptance::Accept);
    assert_eq!(set.handle_gossip(PEER, new.as_bytes(), now), Acceptance::Ignore);
    assert_eq!(set.handle_gossip(PEER, old.as_bytes(), now), Acceptance::Ignore);
    let mut changed = version(1, 12, 0).as_bytes().to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(set.handle_gossip(PEER, &changed, now), Acceptance::Reject);
    assert_eq!(set.handle_gossip(PEER, b"garbage", now), Acceptance::Reject);
    assert_eq!(set.handle_gossip(PEER, &vec![0; MAX_LEN + 1], now), Acceptance::Reject);
    let count = |reason| set.drops().get(reason);
    assert_eq!(
        [DropReason::Replayed, DropReason::BadMac, DropReason::Malformed].map(count),
        [1, 1, 2],
        "each refusal is counted under its reason"
    );
}

#[test]
fn a_rollback_is_refused_even_after_the_newer_one_expired() {
    let now = start();
    let mut set = set(now);
    let newer = sign(1, &facts(1, Epoch(EPOCH.0 - 1)), Epoch(EPOCH.0 - 1), 20, now.unix);
    let older = version(1, 10, 0);
    set.handle_descriptor(newer.as_bytes(), GOSSIP, now).unwrap();
    assert_eq!(set.handle_descriptor(older.as_bytes(), GOSSIP, now), Err(Reject::Rollback));
    let later = now.plus(Duration::from_secs(550));
    set.handle_timeout(later);
    assert_eq!((set.len(), set.next_seq(node(1))), (0, 21));
    assert_eq!(set.handle_descriptor(older.as_bytes(), GOSSIP, later), Err(Reject::Rollback));
}

#[test]
fn equivocation_leaves_every_set_with_the_same_descriptor_and_the_evidence() {
    let now = start();
    let (a, b) = (version(1, 10, 1), version(1, 10, 2));
    let kept = [[&a, &b], [&b, &a]].map(|order| {
        let mut set = set(now);
        for descriptor in order {
            let _verdict = set.handle_descriptor(descriptor.as_bytes(), GOSSIP, now);
        }
        assert_eq!(set.equivocations(), 1);
        let mut evidence = set.evidence(node(1)).unwrap().clone();
        evidence.sort();
        let mut both = [a.as_bytes().to_vec(), b.as_bytes().to_vec()];
        both.sort();
        assert_eq!(evidence, both);
        assert!(outputs(&mut set).contains(&Output::Equivocation { relay: node(1) }));
        (set.digest(), set.get(node(1)).unwrap().hash())
    });
    assert_eq!(kept[0], kept[1]);
    assert_eq!(kept[0].1, a.hash().min(b.hash()));
}

#[test]
fn a_source_that_brings_too_many_is_refused_and_others_are_not() {
    let now = start();
    let config = Config { source_burst: 2.0, source_rate: 1.0, ..Config::new(NETWORK, schedule()) };
    let mut set = RelaySet::new(config, now);
    let mut take = |n, source, now| set.handle_descriptor(relay(n).as_bytes(), source, now);
    assert_eq!(take(1, GOSSIP, now), Ok(Verdict::New));
    assert_eq!(take(2, GOSSIP, now), Ok(Verdict::New));
    assert_eq!(take(1, GOSSIP, now), Ok(Verdict::Known), "what is known costs nothing");
    assert_eq!(take(3, GOSSIP, now), Err(Reject::RateLimited));
    assert_eq!(take(3, Source::Exchange(NodeId([201; 32])), now), Ok(Verdict::New));
    assert_eq!(take(4, GOSSIP, now.plus(Duration::from_secs(1))), Ok(Verdict::New));
}

#[test]
fn a_full_set_refuses_new_relays_and_takes_updates() {
    let now = start();
    let mut set = RelaySet::new(Config { max_relays: 1, ..Config::new(NETWORK, schedule()) }, now);
    assert_eq!(set.handle_descriptor(version(1, 1, 0).as_bytes(), GOSSIP, now), Ok(Verdict::New));
    assert_eq!(set.handle_descriptor(version(2, 1, 0).as_bytes(), GOSSIP, now), Err(Reject::Full));
    assert_eq!(set.handle_descriptor(version(1, 2, 0).as_bytes(), GOSSIP, now), Ok(Verdict::New));
}

#[test]
fn descriptors_end_and_are_forgotten() {
    let now = start();
    let (mut set, a) = (set(now), relay(1));
    set.handle_descriptor(a.as_bytes(), Source::Store, now).unwrap();
    assert_eq!(outputs(&mut set), [], "what came from the store is not stored again");
    set.handle_timeout(now.plus(Duration::from_secs(1000)));
    assert_eq!(set.len(), 1);
    set.handle_timeout(now.plus(Duration::from_secs(1141)));
    assert_eq!(set.len(), 0);
    let told = outputs(&mut set);
    assert!(told.contains(&Output::Forget { relay: node(1) }) && told.contains(&Output::Changed), "{told:?}");
    set.handle_timeout(now.plus(Duration::from_secs(4000)));
    assert_eq!(set.next_seq(node(1)), 0, "in the end the floor goes too");
}

#[test]
fn a_relay_whose_clock_runs_ahead_stays_in_the_running_epoch() {
    let near_end = Now { unix: schedule().end(EPOCH).minus(Duration::from_secs(5)), ..start() };
    let mut set = set(near_end);
    set.handle_descriptor(relay(1).as_bytes(), GOSSIP, near_end).unwrap();
    let next = sign(1, &facts(1, EPOCH.next()), EPOCH.next(), near_end.unix.0, near_end.unix);
    set.handle_descriptor(next.as_bytes(), GOSSIP, near_end).unwrap();
    let snapshot = |epoch| set.snapshot(epoch, &OpenSeating);
    assert_eq!(snapshot(EPOCH).relays()[0].descriptor.hash(), relay(1).hash());
    assert_eq!(snapshot(EPOCH.next()).relays()[0].descriptor.hash(), next.hash());
    assert_eq!(snapshot(EPOCH.next().next()).relays().len(), 1);
}

#[test]
fn changes_are_told_together_and_not_too_often() {
    let now = start();
    let mut set = set(now);
    let changes = |set: &mut RelaySet, now| {
        set.handle_timeout(now);
        outputs(set).iter().filter(|output| **output == Output::Changed).count()
    };
    for n in 0..5 {
        set.handle_descriptor(relay(n).as_bytes(), GOSSIP, now).unwrap();
    }
    assert_eq!(changes(&mut set, now), 1);
    set.handle_descriptor(relay(9).as_bytes(), GOSSIP, now).unwrap();
    assert_eq!(changes(&mut set, now.plus(Duration::from_millis(100))), 0);
    assert_eq!(set.poll_timeout(), Some(now.mono + CHANGE_INTERVAL));
    assert_eq!(changes(&mut set, now.plus(CHANGE_INTERVAL)), 1);
}

#[test]
fn only_what_came_by_exchange_or_is_our_own_is_published() {
    let now = start();
    let mut set = set(now);
    let published = |set: &mut RelaySet, n, source| {
        set.handle_descriptor(relay_at(n, EPOCH).as_bytes(), source, now).unwrap();
        outputs(set).iter().any(|output| matches!(output, Output::Publish(_)))
    };
    assert!(published(&mut set, 1, Source::Own));
    assert!(published(&mut set, 2, Source::Exchange(PEER)));
    assert!(!published(&mut set, 3, GOSSIP));
    assert!(!published(&mut set, 4, Source::Store));
}
