use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::core::circuit_path::{
    CircuitPaths, Kept, NoCircuit, Output,
    tests::{Relay, any_relay, config, ids, lan, paths, plain, related, snapshot},
};
use crate::core::testing::{node, start};
use fog_base::relay::Role;

fn second(paths: &CircuitPaths) -> BTreeSet<NodeId> {
    paths.second_layer().relays().collect()
}

#[test]
fn the_second_relay_of_a_service_circuit_is_one_of_four_and_each_of_them_is_used() {
    let snapshot = snapshot(&lan(40));
    let mut paths = paths(&snapshot, 1);
    let layer = second(&paths);
    assert_eq!(layer.len(), COUNT);
    assert!(paths.guards().primary().iter().all(|guard| !layer.contains(guard)), "no guard is in the second layer");
    let mut used = BTreeMap::<_, u32>::new();
    let mut thirds = BTreeSet::new();
    for _ in 0..400 {
        let stem = ids(&paths.service_stem(3, None, start()).unwrap());
        *used.entry(stem[1]).or_default() += 1;
        thirds.insert(stem[2]);
    }
    assert_eq!(used.keys().copied().collect::<BTreeSet<_>>(), layer);
    assert!(used.values().all(|count| (60..140).contains(count)), "{used:?}");
    assert!(thirds.len() > 30, "the third is any");
    let plain = (0..200).map(|_| ids(&paths.stem(2, None, start()).unwrap())[1]);
    assert!(plain.collect::<BTreeSet<_>>().len() > 30, "other circuits have middles of their own");
}

#[test]
fn each_lives_for_the_larger_of_two_draws_and_is_replaced_then() {
    let snapshot = snapshot(&lan(60));
    let mut lives = Vec::new();
    for seed in 0..200 {
        let paths = paths(&snapshot, seed);
        lives.extend(
            paths.second_layer().lifetimes().map(|(_, until)| until.since(start().unix).as_secs_f64() / 86_400.0),
        );
    }
    assert!(lives.iter().all(|days| (1.0..=12.0).contains(days)));
    // The larger of two even draws between 1 and 12 has the mean 1 + 11 · 2/3, and the standard error here is 0.09.
    let mean = lives.iter().sum::<f64>() / lives.len() as f64;
    assert!((mean - 8.33).abs() < 0.45, "{mean}");

    let (mut paths, now) = (paths(&snapshot, 7), start());
    let mut lifetimes: Vec<_> = paths.second_layer().lifetimes().collect();
    lifetimes.sort_by_key(|(_, until)| *until);
    let (first, until) = lifetimes[0];
    let at = |until: UnixMillis| now.plus(until.since(now.unix));
    paths.handle_snapshot(&snapshot, at(until.minus(Duration::from_millis(1))));
    assert!(second(&paths).contains(&first), "not before its time");
    paths.handle_snapshot(&snapshot, at(until));
    let after = second(&paths);
    assert!(!paths.second_layer().lifetimes().any(|kept| kept == (first, until)));
    assert!(lifetimes[1..].iter().all(|(relay, _)| after.contains(relay)) && after.len() == COUNT);
}

#[test]
fn who_left_the_snapshot_is_replaced_and_the_others_stay() {
    let mut relays = lan(30);
    let mut paths = paths(&snapshot(&relays), 3);
    let before = second(&paths);
    let gone = *before.first().unwrap();
    let at = (0..30).find(|n| node(*n) == gone).unwrap();
    relays[usize::from(at)].weight = 0;
    paths.handle_snapshot(&snapshot(&relays), start());
    let after = second(&paths);
    assert_eq!((after.len(), after.intersection(&before).count(), after.contains(&gone)), (COUNT, COUNT - 1, false));
    paths.handle_snapshot(&snapshot(&[]), start());
    assert_eq!(second(&paths), after, "an empty snapshot tells nothing");
}

#[test]
fn where_there_are_too_few_guards_stand_in_until_there_are_enough() {
    // This node, three guards that are no middles' only kind, and two others: two of the second layer are apart from the guards.
    let few = snapshot(&lan(6));
    let mut paths = paths(&few, 4);
    let primary: BTreeSet<_> = paths.guards().primary().into_iter().collect();
    let before = second(&paths);
    assert_eq!((before.len(), before.difference(&primary).count()), (COUNT, 2));
    for _ in 0..50 {
        let stem = ids(&paths.service_stem(3, None, start()).unwrap());
        assert!(before.contains(&stem[1]) && stem[0] != stem[1]);
    }
    assert_eq!(paths.unrelated(), 5);
    paths.handle_snapshot(&snapshot(&lan(20)), start());
    let (primary, after): (BTreeSet<_>, _) = (paths.guards().primary().into_iter().collect(), second(&paths));
    assert!(after.is_disjoint(&primary), "{after:?}");
    assert!(before.difference(&primary).all(|relay| after.contains(relay)), "the others stay");
    assert_eq!(paths.unrelated(), crate::core::circuit_path::ENOUGH);
}

#[test]
fn another_guard_is_taken_where_all_of_the_second_layer_are_related_to_the_first_and_never_a_middle() {
    // All that may be middles are of one family, so that one of them is the second layer.
    let mut relays = lan(1);
    relays.extend((1..5).map(|_| Relay { family: Some(1), ..plain(&[Role::Mix]) }));
    relays.extend((5..9).map(|n| Relay { family: Some(if n < 8 { 1 } else { 2 }), ..plain(&[Role::Guard]) }));
    let snapshot = snapshot(&relays);
    for seed in 0..20 {
        let mut paths = paths(&snapshot, seed);
        assert_eq!(second(&paths).len(), 1);
        let stem = ids(&paths.service_stem(2, None, start()).unwrap());
        assert!(stem[0] == node(8) && second(&paths).contains(&stem[1]), "{stem:?}");
        let only = *second(&paths).first().unwrap();
        let result = paths.service_stem(2, Some(only), start());
        assert!(matches!(result, Err(NoCircuit::TooFewRelays { .. })), "{result:?}");
    }
}

#[test]
fn relays_that_are_avoided_are_passed_over_where_there_are_others() {
    let snapshot = snapshot(&lan(12));
    let mut paths = paths(&snapshot, 5);
    let layer: Vec<_> = second(&paths).into_iter().collect();
    let bad: HashSet<_> =
        (1..4).map(node).filter(|relay| *relay != layer[3]).chain(layer[..3].iter().copied()).collect();
    paths.set_avoided(bad.clone());
    let primary: BTreeSet<_> = paths.guards().primary().into_iter().collect();
    for _ in 0..100 {
        let stem = ids(&paths.service_stem(3, None, start()).unwrap());
        assert!(stem[1..].iter().all(|relay| !bad.contains(relay)), "{stem:?}");
        assert!(primary.contains(&stem[0]), "guards are no business of this");
        let stem = ids(&paths.stem(3, None, start()).unwrap());
        assert!(stem[1..].iter().all(|relay| !bad.contains(relay)), "{stem:?}");
    }
    paths.set_avoided((0..12).map(node).collect());
    assert!(paths.service_stem(3, None, start()).is_ok() && paths.stem(3, None, start()).is_ok());
}

#[test]
fn what_was_kept_by_another_clock_or_is_damaged_is_not_believed() {
    let snapshot = snapshot(&lan(30));
    let mut old = paths(&snapshot, 6);
    let kept = std::iter::from_fn(|| old.poll_output()).find_map(|output| match output {
        Output::SecondLayer(bytes) => Some(bytes),
        Output::Guards(_) => None,
    });
    let kept = kept.unwrap();
    let with = |now| CircuitPaths::new(config(), Kept { guards: None, second: Some(&kept) }, &snapshot, [1; 32], now);
    assert_eq!(second(&with(start()).unwrap()), second(&old));
    let mut earlier = start();
    earlier.unix = earlier.unix.minus(LIFETIME.1 * 2);
    let all = with(earlier).unwrap();
    let longest = all.second_layer().lifetimes().map(|(_, until)| until.since(earlier.unix)).max().unwrap();
    assert!(longest <= LIFETIME.1, "they were drawn anew");
    for cut in 0..kept.len() {
        assert!(SecondLayer::new(Some(&kept[..cut])).is_err());
    }
    let mut twice = SecondLayer::new(Some(&kept)).unwrap();
    twice.kept[1] = twice.kept[0].clone();
    twice.is_changed = true;
    assert!(SecondLayer::new(twice.poll_persist().as_deref()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_two_relays_of_a_service_circuit_are_related_and_the_second_is_never_a_plain_middle(
        relays in proptest::collection::vec(any_relay(), 1..14),
        hops in 2usize..5,
        end in proptest::option::of(0u16..14),
        avoided in proptest::collection::hash_set(0u16..14, 0..5),
        days in 0u64..20,
        seed: u8,
    ) {
        let snapshot = snapshot(&relays);
        let mut paths = paths(&snapshot, seed);
        let now = start().plus(DAY * u32::try_from(days).unwrap());
        paths.handle_snapshot(&snapshot, now);
        paths.set_avoided(avoided.into_iter().map(node).collect());
        let layer: Vec<_> = paths.second_layer().relays().collect();
        for (at, relay) in layer.iter().enumerate() {
            prop_assert!(layer[..at].iter().all(|other| !related(&snapshot, *other, *relay)));
        }
        prop_assert!(paths.second_layer().lifetimes().all(|(_, until)| until > now.unix && until.since(now.unix) <= LIFETIME.1));
        let end = end.map(node).filter(|end| snapshot.find(*end).is_some());
        if let Ok(stem) = paths.service_stem(hops, end, now) {
            let stem = ids(&stem);
            prop_assert_eq!(stem.len(), hops);
            prop_assert!(layer.contains(&stem[1]));
            let whole: Vec<_> = stem.iter().copied().chain(end).collect();
            for (at, one) in whole.iter().enumerate() {
                prop_assert!(whole[..at].iter().all(|other| !related(&snapshot, *other, *one)));
            }
        }
    }

    #[test]
    fn the_longer_a_client_waits_the_more_are_replaced_and_never_more_than_are_over(
        seed: u8,
        days in 1u64..13,
    ) {
        let snapshot = snapshot(&lan(50));
        let mut paths = paths(&snapshot, seed);
        let before: HashMap<_, _> = paths.second_layer().lifetimes().collect();
        let now = start().plus(DAY * u32::try_from(days).unwrap());
        paths.handle_snapshot(&snapshot, now);
        let after: HashMap<_, _> = paths.second_layer().lifetimes().collect();
        prop_assert_eq!(after.len(), COUNT);
        for (relay, until) in before {
            prop_assert_eq!(after.get(&relay) == Some(&until), until > now.unix);
        }
    }
}
