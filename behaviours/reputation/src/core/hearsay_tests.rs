use proptest::prelude::*;

use super::*;
use crate::core::testing::{config, start};

const NONE: f64 = 1e-9;

fn evidence(good: f64, bad: f64) -> Evidence {
    Evidence::new(good, bad, start().unix)
}

fn voice(trust: f64, good: f64, bad: f64) -> Voice {
    Voice { trust: Opinion::from_evidence(&evidence(trust, 0.0)), evidence: evidence(good, bad) }
}

fn heard(good: f64) -> Heard {
    let mut per_kind = PerKind::default();
    *per_kind.get_mut(Kind::Correctness) = evidence(good, 0.0);
    Heard { evidence: per_kind, judged: Evidence::default(), last: Epoch(5) }
}

fn id(n: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    NodeId(bytes)
}

#[test]
fn strangers_and_known_liars_count_nothing() {
    let liar = Voice { trust: Opinion::from_evidence(&evidence(3.0, 3.0)), evidence: evidence(50.0, 0.0) };
    let fused = fuse(&Evidence::default(), vec![voice(0.0, 100.0, 0.0), liar], &config());
    assert!(fused.mass() < NONE, "{fused:?}");
}

#[test]
fn a_third_of_trusted_liars_is_left_out() {
    let honest = (0..20).map(|_| voice(20.0, 8.0, 0.0));
    let liars = (0..10).map(|_| voice(20.0, 0.0, 8.0));
    let fused = fuse(&Evidence::default(), honest.chain(liars).collect(), &config());
    assert!(fused.bad() < NONE && fused.good() > 31.9, "{fused:?}");
}

#[test]
fn own_experience_overrules_any_number_of_reporters() {
    let praise = (0..60).map(|_| voice(90.0, 60.0, 0.0)).collect();
    let fused = fuse(&evidence(2.0, 30.0), praise, &config());
    assert!(fused.mass() < NONE, "{fused:?}");
}

#[test]
fn reporters_per_subject_and_subjects_per_reporter_are_bounded() {
    let (config, now) = (config(), start().unix);
    let mut hearsay = Hearsay::new(1 << 20);
    // Reporter n is trusted n/1000.
    let trust = |node: NodeId| u64::from_be_bytes(*node.0.first_chunk().unwrap()) as f64 / 1000.0;
    for reporter in 1..=MAX_REPORTERS {
        assert!(hearsay.insert((id(0), id(reporter)), heard(1.0), trust, (&config, now)).is_empty());
    }
    assert!(!hearsay.admits(id(0), id(0), trust), "no more trusted than any of them");
    assert!(hearsay.admits(id(0), id(MAX_REPORTERS), trust), "one who is there");
    let gone = hearsay.insert((id(0), id(500)), heard(1.0), trust, (&config, now));
    assert_eq!((gone, hearsay.len()), (vec![(id(0), id(1))], MAX_REPORTERS));
    for subject in 1..MAX_SUBJECTS {
        hearsay.insert((id(subject), id(500)), heard(1.0), trust, (&config, now));
    }
    assert!(!hearsay.admits(id(9999), id(500), trust), "a reporter that reports on everybody");
}

#[test]
fn a_full_store_gives_up_what_strangers_said() {
    let (config, now) = (config(), start().unix);
    let mut hearsay = Hearsay::new(160);
    let trust = |node: NodeId| if node == id(7) { 0.9 } else { 0.0 };
    for subject in 0..100 {
        hearsay.insert((id(subject), id(7)), heard(0.5), trust, (&config, now));
    }
    for n in 0..10_000 {
        hearsay.insert((id(n % 300), id(1000 + n)), heard(8.0), trust, (&config, now));
        assert!(hearsay.len() <= 160);
    }
    assert!((0..100).all(|subject| hearsay.get(id(subject), id(7)).is_some()));
    assert_eq!(hearsay.subjects.values().sum::<usize>(), hearsay.len());
}

#[test]
fn what_faded_is_given_up_but_not_while_its_receipts_could_come_again() {
    let (config, now) = (config(), start().unix);
    let mut hearsay = Hearsay::new(10);
    hearsay.insert((id(1), id(2)), heard(0.001), |_| 0.0, (&config, now));
    hearsay.insert((id(1), id(3)), heard(1.0), |_| 0.0, (&config, now));
    assert_eq!(hearsay.sweep(Epoch(5), &config, now), []);
    assert_eq!(hearsay.sweep(Epoch(6), &config, now), [(id(1), id(2))]);
}

proptest! {
    #[test]
    fn hearsay_is_bounded_and_sound(
        own in (0.0f64..100.0, 0.0f64..100.0),
        voices in proptest::collection::vec((0.0f64..500.0, 0.0f64..1000.0, 0.0f64..1000.0), 0..64),
    ) {
        let voices = voices.into_iter().map(|(trust, good, bad)| voice(trust, good, bad)).collect();
        let fused = fuse(&evidence(own.0, own.1), voices, &config());
        prop_assert!(fused.is_sound() && fused.mass() <= config().hearsay_cap * (1.0 + 1e-9), "{fused:?}");
    }

    #[test]
    fn one_rater_is_worth_no_more_than_its_cap(trust in 0.0f64..500.0, good in 0.0f64..1e4, bad in 0.0f64..1e4) {
        let fused = fuse(&Evidence::default(), vec![voice(trust, good, bad)], &config());
        prop_assert!(fused.mass() <= config().rater_cap * (1.0 + 1e-9));
    }

    #[test]
    fn views_of_one_truth_agree(p in 0.02f64..0.98, n in 5.0f64..200.0, m in 5.0f64..200.0) {
        let (one, other) = (evidence(p * n, (1.0 - p) * n), evidence(p * m, (1.0 - p) * m));
        prop_assert!(agree(&one, &other) && agree(&other, &one));
    }
}
