use super::{
    invariants::{INVARIANTS, Invariant},
    plan::Fault,
    *,
};

fn world(peers: usize, seed: u64, fault: Option<Fault>) -> Shown {
    live(Plan { fault, ..Plan::new(peers) }, seed)
}

fn failed(shown: &Shown) -> Vec<&'static str> {
    let named = INVARIANTS.iter().zip(shown.findings.faults);
    named.filter(|(_, faults)| *faults > 0).map(|((name, _), _)| *name).collect()
}

#[test]
fn all_invariants_hold_in_small_worlds() {
    for seed in 0..2 {
        let shown = world(30, seed, None);
        assert!(failed(&shown).is_empty(), "seed {seed}: {:?}", shown.findings);
        assert!(shown.findings.looked_at.iter().all(|count| *count > 0), "{:?}", shown.findings.looked_at);
    }
}

#[test]
fn each_invariant_finds_the_fault_that_it_is_for() {
    let faults = [
        (Fault::Unhealed, Invariant::Convergence),
        (Fault::OrderedByTime, Invariant::CausalOrder),
        (Fault::LyingDisk, Invariant::ExactlyOnce),
        (Fault::BlindToForks, Invariant::ForksFound),
        (Fault::ForgottenDot, Invariant::TrueClocks),
        (Fault::Overfull, Invariant::BoundedBuffers),
        (Fault::OrderOfArrival, Invariant::OneOrder),
        (Fault::KeptKeys, Invariant::ForwardSecrecy),
        (Fault::FallingStates, Invariant::StatesAdvance),
        (Fault::Forged, Invariant::NobodyBlamed),
    ];
    let shown = parallel(faults.len(), |at| world(24, 1, Some(faults[at].0)));
    for ((fault, invariant), shown) in faults.into_iter().zip(&shown) {
        assert!(shown.findings.faults[invariant as usize] > 0, "{fault:?}: {:?}", failed(shown));
    }
}

#[test]
fn a_device_that_forgets_what_left_forks_and_that_is_found() {
    let shown = world(24, 1, Some(Fault::LyingDisk));
    let examples = &shown.findings.examples[Invariant::NobodyBlamed as usize];
    assert!(examples.iter().any(|example| example.contains("forked")), "{examples:?}");
}

#[test]
fn one_seed_gives_one_world() {
    let (one, again, other) = (world(24, 5, None), world(24, 5, None), world(24, 6, None));
    assert_eq!(format!("{one:?}"), format!("{again:?}"));
    assert_ne!(one.digest, other.digest);
}
