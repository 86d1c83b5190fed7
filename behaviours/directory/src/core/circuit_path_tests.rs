use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use fog_base::relay::Roles;
use proptest::prelude::*;

use super::*;
use crate::core::{
    certificate::succession::Seats,
    descriptor::Descriptor,
    testing::{EPOCH, address, facts, node, sign, start},
};

const OWN: u16 = 0;

/// A relay of a test: what matters for circuits.
#[derive(Debug, Clone)]
pub(in crate::core) struct Relay {
    pub(in crate::core) ip: String,
    pub(in crate::core) family: Option<u8>,
    pub(in crate::core) roles: Roles,
    pub(in crate::core) has_key: bool,
    pub(in crate::core) weight: u64,
    pub(in crate::core) policy: Option<String>,
}

fn roles(roles: &[Role]) -> Roles {
    roles.iter().fold(Roles::NONE, |all, role| all.with(*role))
}

pub(in crate::core) fn plain(allowed: &[Role]) -> Relay {
    let (ip, roles) = ("192.168.0.1".to_owned(), roles(allowed));
    Relay { ip, family: None, roles, has_key: true, weight: 1, policy: None }
}

fn descriptors(relays: &[Relay]) -> Vec<Arc<Descriptor>> {
    let now = start().unix;
    let describe = |(n, relay): (u16, &Relay)| {
        let mut facts = facts(n, EPOCH);
        facts.addresses = vec![address(&relay.ip)];
        facts.family = relay.family.map(|byte| [byte; 16]);
        facts.roles = relay.roles;
        facts.exit_policy = relay.policy.clone();
        facts.circuit_key = facts.circuit_key.filter(|_| relay.has_key);
        Arc::new(sign(n, &facts, EPOCH, now.0, now))
    };
    (0..).zip(relays).map(describe).collect()
}

pub(in crate::core) fn snapshot(relays: &[Relay]) -> Snapshot {
    let mut descriptors = descriptors(relays);
    descriptors.sort_by_key(|descriptor| descriptor.relay());
    let seats = Seats::new((0..).zip(relays).map(|(n, relay)| (node(n), (relay.weight, None))));
    Snapshot::certified(EPOCH, ([0; 32], true), &descriptors, &seats)
}

pub(in crate::core) fn config() -> Config {
    let takes_port = |policy: &str, port: u16| policy.split(' ').any(|open| open.parse() == Ok(port));
    Config { own: node(OWN), guards: guards::Config::default(), takes_port }
}

pub(in crate::core) fn paths(snapshot: &Snapshot, seed: u8) -> CircuitPaths {
    CircuitPaths::new(config(), Kept::default(), snapshot, [seed; 32], start()).unwrap()
}

/// `count` unrelated relays on one LAN that are guards and mixes, this node first.
pub(in crate::core) fn lan(count: usize) -> Vec<Relay> {
    vec![plain(&[Role::Guard, Role::Mix]); count]
}

pub(in crate::core) fn ids(hops: &[CircuitHop]) -> Vec<NodeId> {
    hops.iter().map(|hop| hop.id).collect()
}

/// Above what χ² stays in all but one of a thousand cases, by its degrees of freedom.
fn assert_shares(counts: &HashMap<Vec<NodeId>, u32>, shares: &HashMap<Vec<NodeId>, f64>, limit: f64) {
    let (draws, total): (u32, f64) = (counts.values().sum(), shares.values().sum());
    assert!(counts.keys().all(|drawn| shares.contains_key(drawn)));
    let chi2: f64 = shares
        .iter()
        .map(|(drawn, share)| {
            let expected = f64::from(draws) * share / total;
            (f64::from(counts.get(drawn).copied().unwrap_or(0)) - expected).powi(2) / expected
        })
        .sum();
    assert!(chi2 < limit, "χ² = {chi2}");
}

#[test]
fn a_stem_begins_at_the_guard_and_names_keys_and_addresses_of_the_descriptors() {
    let relays = lan(8);
    let snapshot = snapshot(&relays);
    let mut paths = paths(&snapshot, 1);
    let guard = paths.guards().primary()[0];
    for _ in 0..50 {
        let stem = paths.stem(3, None, start()).unwrap();
        assert_eq!((stem.len(), stem[0].id), (3, guard));
        for hop in stem {
            let facts = snapshot.find(hop.id).unwrap().descriptor.facts().clone();
            assert_eq!(Some(hop.key), facts.circuit_key);
            assert_eq!(hop.addresses, [facts.addresses[0].to_bytes()]);
        }
    }
    assert_eq!(paths.stem(0, None, start()), Ok(vec![]));
}

#[test]
fn too_few_relays_is_an_error_and_never_a_shorter_stem() {
    let relays = lan(5);
    let snapshot = snapshot(&relays);
    let mut paths = paths(&snapshot, 1);
    assert_eq!(paths.stem(4, None, start()).map(|stem| stem.len()), Ok(4));
    assert_eq!(paths.stem(5, None, start()), Err(NoCircuit::TooFewRelays { needed: 5, known: 4 }));
    assert_eq!(paths.stem(4, Some(node(1)), start()), Err(NoCircuit::TooFewRelays { needed: 4, known: 3 }));
    let empty = super::tests::snapshot(&[]);
    paths.handle_snapshot(&empty, start());
    assert_eq!(paths.stem(1, None, start()), Err(NoCircuit::NoGuard));
    assert_eq!(paths.end(&[], End::Relay(node(1))), Err(NoCircuit::UnknownRelay(node(1))));
    assert!(paths.poll_output().is_some() && paths.guards().listed_relays().count() == 4, "the guards are kept");
}

#[test]
fn an_end_is_a_relay_that_is_asked_for_or_an_exit_that_takes_the_port() {
    let mut relays = lan(5);
    relays.extend(["80 443", "443", "25"].map(|policy| Relay { policy: Some(policy.into()), ..plain(&[Role::Exit]) }));
    relays.push(Relay { policy: Some("443".into()), ..plain(&[Role::Mix]) });
    relays.push(Relay { policy: Some("443".into()), has_key: false, ..plain(&[Role::Exit]) });
    relays.push(Relay { weight: 0, ..plain(&[Role::Mailbox]) });
    let snapshot = snapshot(&relays);
    let mut paths = paths(&snapshot, 1);
    let mut drawn = |port| {
        let ends: BTreeSet<_> = (0..100).map(|_| paths.end(&[node(1)], End::Exit { port }).unwrap().id).collect();
        ends
    };
    assert_eq!((drawn(443), drawn(80)), (BTreeSet::from([node(5), node(6)]), BTreeSet::from([node(5)])));
    assert_eq!(paths.end(&[], End::Exit { port: 22 }), Err(NoCircuit::NoExit(22)));
    assert_eq!(paths.end(&[node(7)], End::Exit { port: 25 }), Err(NoCircuit::NoExit(25)), "it is on the stem");
    let open = |exit, port| paths.is_open(&node(exit), port);
    assert_eq!([open(5, 80), open(5, 22), open(6, 80), open(8, 443), open(9, 443)], [true, false, false, false, false]);

    let mut end = |stem: &[NodeId], relay| paths.end(stem, End::Relay(relay)).map(|hop| hop.id);
    assert_eq!(end(&[node(1), node(2)], node(10)), Ok(node(10)), "it needs no weight");
    assert_eq!(end(&[node(1), node(2)], node(2)), Err(NoCircuit::Unfit(node(2))));
    assert_eq!(end(&[], node(OWN)), Ok(node(OWN)), "a service comes to a rendezvous at its own node");
    assert_eq!(end(&[], node(9)), Err(NoCircuit::UnknownRelay(node(9))), "it has no circuit key");
    assert_eq!(end(&[node(99)], node(1)), Err(NoCircuit::UnknownRelay(node(99))), "the stem is too old");
}

#[test]
fn another_guard_is_taken_where_the_first_leaves_too_few() {
    // Six mixes in two families, and guards of both: with a guard of the first, only the second is left.
    let mut relays = lan(1);
    relays.extend((1..5).map(|n| Relay { family: Some(u8::from(n > 2)), ..plain(&[Role::Guard]) }));
    relays.extend((5..7).map(|_| Relay { family: Some(0), ..plain(&[Role::Mix]) }));
    let snapshot = snapshot(&relays);
    for seed in 0..20 {
        let mut paths = paths(&snapshot, seed);
        let stem = ids(&paths.stem(2, None, start()).unwrap());
        assert!([node(3), node(4)].contains(&stem[0]), "{stem:?}");
        assert_eq!(paths.stem(3, None, start()), Err(NoCircuit::TooFewRelays { needed: 3, known: 2 }), "seed {seed}");
    }
}

#[test]
fn middles_come_by_the_product_of_their_weights() {
    let mut relays = lan(2);
    relays.extend([1, 2, 3, 10].map(|weight| Relay { weight, ..plain(&[Role::Mix]) }));
    relays[1].roles = roles(&[Role::Guard]);
    let snapshot = snapshot(&relays);
    let mut paths = paths(&snapshot, 1);
    let (mut counts, mut shares) = (HashMap::new(), HashMap::new());
    for _ in 0..40_000 {
        let stem = ids(&paths.stem(3, None, start()).unwrap());
        *counts.entry(stem[1..].to_vec()).or_insert(0) += 1;
    }
    for (a, first) in (0..).zip(&relays).skip(2) {
        for (b, second) in (0..).zip(&relays).skip(2).filter(|(b, _)| *b != a) {
            shares.insert(vec![node(a), node(b)], (first.weight * second.weight) as f64);
        }
    }
    // 4 · 3 ordered pairs: 11 degrees of freedom.
    assert_eq!(shares.len(), 12);
    assert_shares(&counts, &shares, 31.3);
}

#[test]
fn exits_come_by_their_weights_among_those_that_fit() {
    let mut relays = lan(2);
    let exit = |weight, policy: &str| Relay { weight, policy: Some(policy.into()), ..plain(&[Role::Exit]) };
    relays.extend([exit(1, "80"), exit(5, "80"), exit(20, "80"), exit(100, "443")]);
    let snapshot = snapshot(&relays);
    let mut paths = paths(&snapshot, 1);
    let mut counts = HashMap::new();
    for _ in 0..20_000 {
        *counts.entry(vec![paths.end(&[node(1)], End::Exit { port: 80 }).unwrap().id]).or_insert(0) += 1;
    }
    let shares = [(2, 1.0), (3, 5.0), (4, 20.0)].map(|(n, share)| (vec![node(n)], share)).into();
    // 2 degrees of freedom.
    assert_shares(&counts, &shares, 13.8);
}

#[test]
fn two_nodes_with_one_snapshot_draw_from_one_distribution() {
    let relays: Vec<_> =
        (1..40).map(|weight| Relay { weight, ..plain(&[Role::Guard, Role::Mix, Role::Exit]) }).collect();
    let one = Relays::new(&snapshot(&relays), node(1000));
    let mut others = descriptors(&relays);
    others.reverse();
    others.sort_by_key(|descriptor| descriptor.relay());
    let seats = Seats::new((0..).zip(&relays).map(|(n, relay)| (node(n), (relay.weight, None))));
    let other = Relays::new(&Snapshot::certified(EPOCH, ([0; 32], true), &others, &seats), node(1001));
    assert_eq!((&one.middles, &one.exits), (&other.middles, &other.exits));
    let guards = |relays: &Relays| relays.guards().map(|guard| (guard.hop.id, guard.weight)).collect::<Vec<_>>();
    assert_eq!(guards(&one), guards(&other));
    let draws = |relays: &Relays| {
        let (mut rng, start) = (StdRng::from_seed([4; 32]), relays.find(node(5)).unwrap());
        let none = HashSet::new();
        let middles =
            |_| relays.middles(&[start], 2, &none, &mut rng).unwrap().iter().map(|relay| relay.hop.id).collect();
        (0..100).map(middles).collect::<Vec<Vec<_>>>()
    };
    assert_eq!(draws(&one), draws(&other));
}

#[test]
fn a_guard_that_fails_is_replaced_tried_again_and_kept_over_a_restart() {
    let snapshot = snapshot(&lan(30));
    let now = start();
    let mut node = paths(&snapshot, 7);
    let first = node.stem(3, None, now).unwrap()[0].id;
    assert_eq!(node.handle_built(first, now), Verdict::Use);
    node.handle_failed(first, now);
    let second = node.stem(3, None, now).unwrap()[0].id;
    assert_ne!(first, second);
    assert_eq!(node.handle_built(second, now), Verdict::Use);
    let later = now.plus(Duration::from_secs(600));
    assert_eq!(node.stem(3, None, later).unwrap()[0].id, first, "a primary guard is tried again after ten minutes");

    let Some(Output::Guards(kept)) = node.poll_output() else { panic!("guards were sampled and confirmed") };
    let Some(Output::SecondLayer(layer)) = node.poll_output() else { panic!("those of the second layer were drawn") };
    assert_eq!(node.poll_output(), None);
    let both = Kept { guards: Some(&kept), second: Some(&layer) };
    let mut restarted = CircuitPaths::new(config(), both, &snapshot, [99; 32], later).unwrap();
    assert!(restarted.second_layer().lifetimes().eq(node.second_layer().lifetimes()));
    assert_eq!(restarted.poll_output(), None, "nothing changed");
    assert_eq!(restarted.guards().primary(), node.guards().primary());
    let confirmed: BTreeSet<_> = restarted.guards().confirmed().collect();
    assert_eq!(confirmed, BTreeSet::from([first, second]));
    let again = restarted.stem(3, None, later).unwrap()[0].id;
    assert!(confirmed.contains(&again));
    for damaged in [Kept { guards: Some(&kept[1..]), second: None }, Kept { guards: None, second: Some(&layer[1..]) }] {
        assert!(CircuitPaths::new(config(), damaged, &snapshot, [99; 32], later).is_err());
    }
}

#[test]
fn after_the_network_was_down_better_guards_come_first_again() {
    let snapshot = snapshot(&lan(30));
    let (now, mut node) = (start(), paths(&snapshot, 8));
    let primary = node.guards().primary();
    primary.iter().for_each(|guard| node.handle_failed(*guard, now));
    let fourth = node.stem(2, None, now).unwrap()[0].id;
    assert!(!primary.contains(&fourth));
    assert_eq!(node.handle_built(fourth, now), Verdict::PickAgain);
    assert_eq!(node.stem(2, None, now).unwrap()[0].id, primary[0]);
}

pub(in crate::core) fn any_relay() -> impl Strategy<Value = Relay> {
    let ip = (0u8..4, any::<bool>()).prop_map(
        |(net, is_global)| {
            if is_global { format!("8.{net}.7.7") } else { "10.1.1.1".into() }
        },
    );
    let roles = proptest::sample::subsequence(vec![Role::Mix, Role::Guard, Role::Exit], 1..=3);
    (ip, proptest::option::of(0u8..3), roles, proptest::bool::weighted(0.9), 0u64..4).prop_map(
        |(ip, family, allowed, has_key, weight)| {
            let policy = Some("80".to_owned());
            Relay { ip, family, roles: all_of(&allowed), has_key, weight, policy }
        },
    )
}

fn all_of(allowed: &[Role]) -> Roles {
    roles(allowed)
}

/// Whether `count` more middles fit to `chosen`, by trying everything.
fn exists(snapshot: &Snapshot, chosen: &mut Vec<NodeId>, count: usize) -> bool {
    if count == 0 {
        return true;
    }
    snapshot.relays().iter().any(|relay| {
        let is_free = may(snapshot, relay.hop.id, Role::Mix) && all_fit(snapshot, chosen, relay.hop.id);
        if !is_free {
            return false;
        }
        chosen.push(relay.hop.id);
        let found = exists(snapshot, chosen, count - 1);
        chosen.pop();
        found
    })
}

fn may(snapshot: &Snapshot, relay: NodeId, role: Role) -> bool {
    snapshot.find(relay).is_some_and(|relay| {
        let facts = relay.descriptor.facts();
        facts.roles.has(role) && facts.circuit_key.is_some() && relay.weight > 0 && relay.hop.id != node(OWN)
    })
}

pub(in crate::core) fn related(snapshot: &Snapshot, one: NodeId, other: NodeId) -> bool {
    !all_fit(snapshot, &[one], other)
}

fn all_fit(snapshot: &Snapshot, chosen: &[NodeId], relay: NodeId) -> bool {
    chosen.iter().all(|other| {
        let (a, b) = (snapshot.find(*other).unwrap(), snapshot.find(relay).unwrap());
        let same_net = a.descriptor.nets().iter().any(|net| b.descriptor.nets().contains(net));
        let (ours, theirs) = (a.descriptor.facts().family, b.descriptor.facts().family);
        *other != relay && !same_net && (ours.is_none() || ours != theirs)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_stem_obeys_the_rules_and_is_found_where_there_is_one(
        relays in proptest::collection::vec(any_relay(), 1..9),
        hops in 1usize..4,
        end in proptest::option::of(0u16..9),
        seed: u8,
    ) {
        let snapshot = snapshot(&relays);
        let mut paths = paths(&snapshot, seed);
        let end = end.map(node).filter(|end| paths.end(&[], End::Relay(*end)).is_ok());
        let starts = |first: &NodeId| {
            let mut chosen: Vec<_> = end.into_iter().collect();
            may(&snapshot, *first, Role::Guard) && all_fit(&snapshot, &chosen, *first) && {
                chosen.push(*first);
                exists(&snapshot, &mut chosen, hops - 1)
            }
        };
        let is_possible = snapshot.relays().iter().any(|relay| starts(&relay.hop.id));
        match paths.stem(hops, end, start()) {
            Ok(stem) => {
                let stem = ids(&stem);
                prop_assert_eq!(stem.len(), hops);
                prop_assert!(may(&snapshot, stem[0], Role::Guard));
                prop_assert!(stem[1..].iter().all(|id| may(&snapshot, *id, Role::Mix)));
                let whole: Vec<_> = stem.iter().copied().chain(end).collect();
                for (at, id) in whole.iter().enumerate() {
                    prop_assert!(all_fit(&snapshot, &whole[..at], *id));
                }
                match paths.end(&stem, End::Exit { port: 80 }) {
                    Ok(exit) => {
                        prop_assert!(may(&snapshot, exit.id, Role::Exit) && all_fit(&snapshot, &stem, exit.id));
                    }
                    Err(error) => {
                        prop_assert_eq!(error, NoCircuit::NoExit(80));
                        let mut others = snapshot.relays().iter().map(|relay| relay.hop.id);
                        prop_assert!(!others.any(|id| may(&snapshot, id, Role::Exit) && all_fit(&snapshot, &stem, id)));
                    }
                }
            }
            Err(NoCircuit::TooFewRelays { needed, known }) => {
                prop_assert!(!is_possible && needed == hops && (1..hops).contains(&known));
            }
            Err(error) => prop_assert!(!is_possible && error == NoCircuit::NoGuard, "{}", error),
        }
    }
}
