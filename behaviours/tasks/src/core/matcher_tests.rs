use proptest::prelude::*;

use super::*;
use crate::core::{
    offer::{Accepts, Price},
    testing::holds_often,
    work::PAGE,
};

const MIB: u64 = 1024 * 1024;

fn offer() -> Offer {
    Offer {
        slots: 2,
        free: 1,
        queued: 0,
        speed: 1_000_000,
        memory_bytes: 256 * MIB,
        staging_bytes: 64 * MIB,
        features: vec!["gpu".into(), "npu:x".into()],
        price: Price { rate: 1_000_000, scarcity_ppm: 1_000_000, uptime_ppm: 1_000_000 },
        accepts: Accepts { classes: vec![Class::BestEffort, Class::Standard], privacy: vec![Privacy::Open] },
        family: None,
        milliwatts: 0,
        eligible: true,
    }
}

fn needs() -> Needs {
    Needs {
        fuel: 1_000_000_000,
        memory_bytes: 256 * MIB,
        staging_bytes: MIB,
        class: Class::Standard,
        privacy: Privacy::Open,
        features: Vec::new(),
        max_price: Some(1_250_000),
        running_ms: Some(1_000_000),
    }
}

fn known(offer: &Offer) -> Known<'_> {
    Known { worker: NodeId([1; 32]), offer, age: Duration::ZERO, credibility: 0.9, own: false, mixed: true }
}

fn with(change: impl Fn(&mut Needs, &mut Offer)) -> Match {
    let (mut needs, mut offer) = (needs(), offer());
    change(&mut needs, &mut offer);
    judge(&needs, &known(&offer))
}

#[test]
fn each_reason_is_found_and_said() {
    use Reason as R;
    assert_eq!(with(|_, _| ()), Match::Yes);
    let no = |change: fn(&mut Needs, &mut Offer)| match with(change) {
        Match::No(reasons) => reasons,
        other => panic!("{other:?}"),
    };
    let unknown = |change: fn(&mut Needs, &mut Offer)| match with(change) {
        Match::Unknown(reasons) => reasons,
        other => panic!("{other:?}"),
    };
    assert_eq!(no(|_, offer| offer.eligible = false), [R::NotEligible]);
    assert_eq!(no(|_, offer| (offer.slots, offer.free) = (0, 0))[0], R::NoSlots);
    let memory = no(|needs, _| needs.memory_bytes = 512 * MIB);
    assert_eq!(memory, [R::Memory { asked: 512 * MIB, offered: 256 * MIB }]);
    assert_eq!(memory[0].to_string(), "memory: 256 MiB of 512 MiB");
    assert!(matches!(no(|needs, _| needs.staging_bytes = 65 * MIB)[..], [R::Staging { .. }]));
    assert_eq!(no(|needs, _| needs.features = vec!["tpu".into()]), [R::Feature("tpu".into())]);
    assert_eq!(no(|needs, _| needs.class = Class::Urgent), [R::Class(Class::Urgent)]);
    assert_eq!(no(|needs, _| needs.privacy = Privacy::Mixed), [R::Privacy(Privacy::Mixed)]);
    assert_eq!(no(|needs, _| needs.max_price = Some(999_999)), [R::Price { most: 999_999, asked: 1_000_000 }]);

    let dear = unknown(|needs, _| needs.max_price = Some(1_000_000));
    assert_eq!(dear, [R::PriceNow { most: 1_000_000, asked: 1_250_000 }]);
    let long = unknown(|needs, _| needs.running_ms = Some(999_999));
    assert_eq!(long, [R::Time { most: 999_999, needed: 1_000_000 }]);
    assert_eq!(unknown(|_, offer| offer.speed = 0), [R::SpeedUnsaid]);
    assert_eq!(unknown(|needs, _| needs.features = vec!["gpu:cuda".into()]), [R::FeatureUnsaid("gpu:cuda".into())]);
    assert_eq!(with(|needs, _| needs.features = vec!["npu".into()]), Match::Yes);
    let busy = |needs: &mut Needs, offer: &mut Offer| {
        (needs.class, offer.free, needs.max_price) = (Class::Urgent, 0, None);
        offer.accepts.classes = Class::ALL.to_vec();
    };
    assert_eq!(with(busy), Match::Unknown(vec![R::Busy]));
}

#[test]
fn distrust_and_age_are_the_coordinators_own_reasons() {
    let offer = offer();
    let judged = |known: Known<'_>| judge(&needs(), &known);
    assert_eq!(judged(Known { credibility: 0.49, ..known(&offer) }), Match::No(vec![Reason::Distrusted]));
    assert_eq!(judged(Known { credibility: 0.49, own: true, ..known(&offer) }), Match::Yes);
    let old = Known { age: STALE + Duration::from_secs(1), ..known(&offer) };
    assert_eq!(judged(old), Match::Unknown(vec![Reason::Stale]));
}

pub(crate) fn any_offer() -> impl Strategy<Value = Offer> {
    let sizes = (0u16..4, 0u16..4, 0u32..4, 0u64..4, 0u64..8, 0u64..4);
    let rest = (0u64..5, proptest::bits::u8::between(0, 3), 0u8..8, 0u8..8, any::<bool>());
    (sizes, rest).prop_map(
        |((slots, free, queued, speed, memory, staging), (rate, features, classes, labels, eligible))| {
            let bit = |bits: u8, n: usize| bits & (1 << n) != 0;
            let names = ["a", "b", "b:c"];
            Offer {
                slots,
                free: free.min(slots),
                queued,
                speed: speed * 1_000,
                memory_bytes: memory * PAGE,
                staging_bytes: staging,
                features: (0..3).filter(|n| bit(features, *n)).map(|n| names[n].to_owned()).collect(),
                price: Price { rate: rate * 1_000_000, ..Price::default() },
                accepts: Accepts {
                    classes: Class::ALL
                        .into_iter()
                        .enumerate()
                        .filter(|(n, _)| bit(classes, *n))
                        .map(|it| it.1)
                        .collect(),
                    privacy: Privacy::ALL
                        .into_iter()
                        .enumerate()
                        .filter(|(n, _)| bit(labels, *n))
                        .map(|it| it.1)
                        .collect(),
                },
                family: None,
                milliwatts: 0,
                eligible: eligible || rate > 0,
            }
        },
    )
}

pub(crate) fn any_needs() -> impl Strategy<Value = Needs> {
    let sizes = (1u64..4, 1u64..8, 0u64..4, proptest::option::of(0u64..20), proptest::option::of(1u64..4));
    (sizes, 0usize..3, 0usize..3, 0u8..8).prop_map(|((fuel, memory, staging, price, run), class, label, features)| {
        let names = ["a", "b", "b:c"];
        Needs {
            fuel: fuel * 1_000,
            memory_bytes: memory * PAGE,
            staging_bytes: staging,
            class: Class::ALL[class],
            privacy: Privacy::ALL[label],
            features: (0..3).filter(|n| features & (1 << n) != 0).map(|n| names[n].to_owned()).collect(),
            max_price: price,
            running_ms: run.map(|run| run * 1_000),
        }
    })
}

/// How good a match is.
fn grade(judged: &Match) -> u8 {
    match judged {
        Match::No(_) => 0,
        Match::Unknown(_) => 1,
        Match::Yes => 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn relaxing_a_demand_never_loses_a_match(
        needs in any_needs(), offer in any_offer(), which in 0u8..6, by in 1u64..5, age in 0u64..600, credibility in 0.0f64..1.0,
    ) {
        let mut relaxed = needs.clone();
        match which {
            0 => relaxed.memory_bytes = relaxed.memory_bytes.saturating_sub(by * PAGE),
            1 => relaxed.staging_bytes = relaxed.staging_bytes.saturating_sub(by),
            2 => relaxed.max_price = relaxed.max_price.filter(|_| by < 4).map(|price| price + by),
            3 => relaxed.running_ms = relaxed.running_ms.filter(|_| by < 4).map(|run| run + by * 1_000),
            4 => relaxed.fuel = relaxed.fuel.saturating_sub(by * 500),
            _ => drop(relaxed.features.pop()),
        }
        let known = Known { worker: NodeId([1; 32]), offer: &offer, age: Duration::from_secs(age), credibility, own: false, mixed: true };
        let (before, after) = (judge(&needs, &known), judge(&relaxed, &known));
        prop_assert!(grade(&after) >= grade(&before), "{before:?} {after:?}");
    }
}

#[test]
fn yes_has_no_reasons_and_the_others_have_theirs() {
    for (grade_of, least) in [(0, 1_000), (1, 20), (2, 20)] {
        holds_often((any_needs(), any_offer()), 4_000, least, |(needs, offer)| {
            let judged = judge(&needs, &known(&offer));
            match &judged {
                Match::Yes => (),
                Match::Unknown(reasons) => {
                    prop_assert!(!reasons.is_empty() && !reasons.iter().any(Reason::is_definite))
                }
                Match::No(reasons) => prop_assert!(!reasons.is_empty() && reasons.iter().all(Reason::is_definite)),
            }
            Ok(grade(&judged) == grade_of)
        });
    }
}
