use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::{
    matcher::tests::{any_needs, any_offer},
    offer::{Accepts, Offer, Price},
    testing::holds_often,
};

const MIB: u64 = 1024 * 1024;

fn known(n: u8, offer: &Offer) -> Known<'_> {
    Known { worker: NodeId([n; 32]), offer, age: Duration::ZERO, credibility: 0.9, own: false, mixed: true }
}

fn offer(memory: u64, rate: u64) -> Offer {
    Offer {
        slots: 2,
        free: 2,
        queued: 0,
        speed: 1_000_000,
        memory_bytes: memory * MIB,
        staging_bytes: 64 * MIB,
        features: Vec::new(),
        price: Price { rate, scarcity_ppm: 0, uptime_ppm: 1_000_000 },
        accepts: Accepts::default(),
        family: None,
        milliwatts: 0,
        eligible: true,
    }
}

fn needs(memory: u64, most: u64) -> Needs {
    Needs {
        fuel: 1_000_000_000,
        memory_bytes: memory * MIB,
        staging_bytes: MIB,
        class: Class::Standard,
        privacy: Privacy::Open,
        features: Vec::new(),
        max_price: Some(most),
        running_ms: None,
    }
}

#[test]
fn the_cheapest_relaxation_comes_first_and_says_what_it_gives() {
    let mut offers = vec![offer(1024, 100), offer(1024, 100)];
    offers.extend((0..14).map(|_| offer(384, 100)));
    offers.extend((0..3).map(|_| offer(64, 100)));
    offers.push(offer(512, 5_000));
    let workers: Vec<Known<'_>> = (0u8..).zip(&offers).map(|(n, offer)| known(n, offer)).collect();
    let explanation = explain(&needs(512, 100), &workers);
    assert_eq!((explanation.matches.len(), explanation.rejected.len(), explanation.unknown.len()), (2, 18, 0));
    let said: Vec<String> = explanation.relaxations.iter().map(Relaxation::to_string).collect();
    assert_eq!(said, ["memory 512 MiB → 384 MiB ⇒ 14 more workers", "memory 512 MiB → 64 MiB ⇒ 17 more workers"]);
}

#[test]
fn where_one_change_does_not_help_several_are_named_together() {
    let offers = [offer(256, 200), Offer { eligible: false, ..offer(1024, 1) }];
    let workers: Vec<Known<'_>> = (0u8..).zip(&offers).map(|(n, offer)| known(n, offer)).collect();
    let explanation = explain(&needs(512, 100), &workers);
    assert_eq!(explanation.relaxations.len(), 1);
    let said = explanation.relaxations[0].to_string();
    assert_eq!(said, "memory 512 MiB → 256 MiB, highest price 100 → 200 micro-credits ⇒ 1 more worker");
}

#[test]
fn four_thousand_offers_that_all_differ_are_explained_in_few_tries() {
    let offers: Vec<Offer> = (0..4_096).map(|n| offer(1 + n % 500, 101 + n)).collect();
    let workers: Vec<Known<'_>> = offers.iter().map(|offer| known(0, offer)).collect();
    let explanation = explain(&needs(512, 100), &workers);
    assert!((1..=MAX_RELAXATIONS).contains(&explanation.relaxations.len()));
    let offer = offer(512, 100);
    assert_eq!(explain(&needs(512, 100), &[known(1, &offer)]).relaxations, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn each_relaxation_gives_what_it_promises_and_loses_nobody(
        needs in any_needs(), offers in proptest::collection::vec(any_offer(), 0..20),
    ) {
        let workers: Vec<Known<'_>> = (0u8..).zip(&offers).map(|(n, offer)| known(n, offer)).collect();
        let before = explain(&needs, &workers);
        prop_assert_eq!(before.matches.len() + before.unknown.len() + before.rejected.len(), workers.len());
        let costs: Vec<f64> = before.relaxations.iter().map(Relaxation::cost).collect();
        prop_assert!(costs.is_sorted() && costs.iter().all(|cost| *cost > 0.0), "{costs:?}");
        for Relaxation { changes, more } in &before.relaxations {
            let mut relaxed = needs.clone();
            changes.iter().for_each(|change| change.apply(&mut relaxed));
            let after = explain(&relaxed, &workers);
            prop_assert_eq!(after.matches.len(), before.matches.len() + more, "{:?}", changes);
        }
    }
}

#[test]
fn whoever_can_be_had_by_one_change_leads_to_a_relaxation() {
    holds_often((any_needs(), any_offer()), 4_000, 30, |(needs, offer)| {
        let explanation = explain(&needs, &[known(1, &offer)]);
        let may = judge(&needs, &known(1, &offer)).reasons().iter().all(|reason| match reason {
            Reason::Memory { offered, .. } => *offered >= PAGE,
            Reason::Price { .. } | Reason::Feature(_) => true,
            _ => false,
        });
        let says = may && explanation.matches.is_empty() && needs.running_ms.is_none() && needs.class != Class::Urgent;
        prop_assert!(!says || explanation.relaxations.len() == 1, "{:?}", explanation.relaxations);
        Ok(says)
    });
}
