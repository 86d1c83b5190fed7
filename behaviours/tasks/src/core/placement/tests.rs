use std::{collections::BTreeSet, sync::Arc};

use proptest::{prelude::*, strategy::Strategy as _};

use super::{
    Strategy,
    testing::{any_demand, candidate, candidates, demand, node},
    *,
};
use crate::core::nsga::random::stream;

fn all() -> Vec<(&'static str, Box<dyn Strategy>)> {
    StrategyName::ALL.iter().map(|kind| (kind.name(), kind.build(7))).collect()
}

/// Who gets `count` tasks, one after the other, as the `u8` behind each id.
fn chosen(kind: StrategyName, candidates: &[Candidate], count: usize) -> Vec<u8> {
    let (mut strategy, mut random) = (kind.build(7), stream([1; 32], 0));
    let one = |_| place(&mut *strategy, &demand(), candidates, 1, &mut random).unwrap()[0];
    (0..count).map(one).map(|at| candidates[at].node.0[7]).collect()
}

#[test]
fn each_strategy_optimises_what_it_says() {
    let mut three = [candidate(1), candidate(2), candidate(3)];
    assert_eq!(chosen(StrategyName::RoundRobin, &three, 5), [1, 2, 3, 1, 2]);
    three[0].queue_ms = 50.0;
    three[1].in_flight = 1;
    assert_eq!(chosen(StrategyName::LeastLoaded, &three, 2), [3, 3]);
    three[0].rtt_ms = 1.0;
    assert_eq!(chosen(StrategyName::Proximity, &three, 2), [1, 1]);
    three[1].is_private = true;
    assert_eq!(chosen(StrategyName::Privacy, &three, 2), [2, 2]);
    // Of two workers power-of-two always sees both, and takes the one that ends first.
    three[0].speed = 1e8;
    three[1].in_flight = 4;
    assert_eq!(chosen(StrategyName::PowerOfTwo, &three[..2], 3), [2, 2, 2]);
    three[1].reliability = 0.05;
    assert_eq!(chosen(StrategyName::PowerOfTwo, &[three[0].clone(), candidate(9)], 1), [9]);
}

#[test]
fn a_module_stays_with_its_workers_when_others_come_and_go() {
    let many: Vec<_> = (0..60).map(candidate).collect();
    let of = |module: u8, candidates: &[Candidate]| {
        let mut random = stream([1; 32], 0);
        let demand = Demand { contents: vec![testing::content(module, 1000)], ..demand() };
        let at = place(&mut Affinity::new(3), &demand, candidates, 1, &mut random).unwrap()[0];
        candidates[at].node
    };
    let mut homes = BTreeSet::new();
    for module in 0..40 {
        let home = of(module, &many);
        homes.insert(home);
        let less: Vec<_> =
            many.iter().filter(|candidate| candidate.node == home || candidate.node.0[7] % 3 > 0).cloned().collect();
        assert_eq!(of(module, &less), home);
    }
    assert!(homes.len() > 15, "{homes:?}");
}

#[test]
fn a_popular_module_is_shared_by_its_warm_workers() {
    let mut many: Vec<_> = (0..30).map(candidate).collect();
    let (mut strategy, mut random) = (Affinity::new(3), stream([1; 32], 0));
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let at = place(&mut strategy, &demand(), &many, 1, &mut random).unwrap()[0];
        many[at].in_flight += 1;
        seen.insert(at);
    }
    assert_eq!(seen.len(), Affinity::WARM);
}

#[test]
fn nobody_sees_more_of_a_users_tasks_than_others_do() {
    let operator = |number: u64| Candidate { family: Some(number % 4), ..candidate(number) };
    // Family 0 has most workers, and the fastest and cheapest.
    let many: Vec<_> = (0..40)
        .map(|number| if number < 20 { Candidate { speed: 1e12, price: 0, ..operator(0) } } else { operator(number) })
        .enumerate()
        .map(|(number, candidate)| Candidate { node: node(number as u64), ..candidate })
        .collect();
    let (mut strategy, mut random) = (PrivacyAware::default(), stream([1; 32], 0));
    let mut counts = [0; 4];
    for _ in 0..PrivacyAware::MEMORY * 3 {
        let at = place(&mut strategy, &demand(), &many, 1, &mut random).unwrap()[0];
        counts[many[at].family.unwrap() as usize] += 1;
    }
    assert!(counts.iter().all(|count| (700..840).contains(count)), "{counts:?}");
}

#[test]
fn power_of_two_spreads_tasks_and_avoids_the_slow() {
    let many: Vec<_> =
        (0..20).map(|number| Candidate { speed: if number < 5 { 1e7 } else { 1e9 }, ..candidate(number) }).collect();
    let found = chosen(StrategyName::PowerOfTwo, &many, 2000);
    let slow = found.iter().filter(|number| **number < 5).count();
    // Only a pair of two slow ones gives a slow one: 5·4 of 20·19.
    assert!((60..160).contains(&slow), "{slow}");
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 20);
}

#[test]
fn misfits_say_why() {
    let fits = |change: fn(&mut Candidate, &mut Demand)| {
        let (mut worker, mut task) = (candidate(1), demand());
        change(&mut worker, &mut task);
        task.fits(&worker)
    };
    type Change = fn(&mut Candidate, &mut Demand);
    let cases: [(Change, Result<(), Misfit>); 13] = [
        (|_, _| {}, Ok(())),
        (|w, _| w.room = 0, Err(Misfit::NoRoom)),
        (|w, _| w.slots = 0, Err(Misfit::Unusable)),
        (|w, _| w.speed = 0.0, Err(Misfit::Unusable)),
        (|w, _| w.bandwidth = f64::NAN, Err(Misfit::Unusable)),
        (|w, _| w.speed = f64::INFINITY, Err(Misfit::Unusable)),
        (|w, _| w.queue_ms = -1.0, Err(Misfit::Unusable)),
        (|w, _| w.reliability = 1.5, Err(Misfit::Unusable)),
        (|w, _| w.reliability = 0.4, Err(Misfit::Unreliable)),
        (|_, t| t.is_private = true, Err(Misfit::NotPrivate)),
        // 2 Gfuel at 100.
        (|_, t| t.max_price = Some(199), Err(Misfit::TooDear)),
        // 20 ms away, 100 ms of data, 2 s of work.
        (|_, t| t.deadline_ms = Some(2119), Err(Misfit::TooSlow)),
        (|_, t| t.deadline_ms = Some(2120), Ok(())),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(fits(change), expected, "case {number}");
    }
    let urgent = Demand { class: Class::Urgent, deadline_ms: Some(4000), ..demand() };
    assert_eq!(urgent.fits(&candidate(1)), Err(Misfit::TooSlow));
    let warm = Candidate { cached: Arc::new([[1; 32]]), queue_ms: 0.0, rtt_ms: 0.0, ..candidate(1) };
    assert_eq!(urgent.fits(&warm), Ok(()));
}

proptest! {
    #[test]
    fn what_is_placed_fits_and_replicas_share_nobody(
        candidates in candidates(24), demand in any_demand(), count in 0usize..5, seed in any::<u8>(),
    ) {
        for (name, mut strategy) in all() {
            let found = place(&mut *strategy, &demand, &candidates, count, &mut stream([seed; 32], 0));
            let Some(places) = found else { continue };
            prop_assert_eq!(places.len(), count, "{}", name);
            for (number, at) in places.iter().enumerate() {
                prop_assert_eq!(demand.fits(&candidates[*at]), Ok(()));
                for other in &places[number + 1..] {
                    prop_assert!(!is_related(&candidates[*at], &candidates[*other]));
                }
            }
            let more = place_beside(&mut *strategy, &demand, &candidates, &places, 1, &mut stream([seed; 32], 1));
            for at in more.into_iter().flatten() {
                prop_assert!(places.iter().all(|other| !is_related(&candidates[at], &candidates[*other])));
            }
        }
    }

    #[test]
    fn one_is_placed_whenever_one_fits(candidates in candidates(6), demand in any_demand()) {
        let any_fits = candidates.iter().any(|candidate| demand.fits(candidate).is_ok());
        for (name, mut strategy) in all() {
            let found = place(&mut *strategy, &demand, &candidates, 1, &mut stream([0; 32], 0));
            prop_assert_eq!(found.is_some(), any_fits, "{}", name);
        }
    }

    #[test]
    fn the_order_of_candidates_decides_nothing(
        (candidates, shuffled) in candidates(20).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        demand in any_demand(),
        seed in any::<u8>(),
    ) {
        for (kind, (name, _)) in StrategyName::ALL.iter().zip(all()) {
            let run = |candidates: &[Candidate]| {
                let (mut strategy, mut random) = (kind.build(7), stream([seed; 32], 0));
                let one = |_| place(&mut *strategy, &demand, candidates, 2, &mut random);
                let nodes = |places: Vec<usize>| places.iter().map(|at| candidates[*at].node).collect::<Vec<_>>();
                (0..3).map(one).map(|places| places.map(nodes)).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(&candidates), run(&shuffled), "{}", name);
        }
    }
}
