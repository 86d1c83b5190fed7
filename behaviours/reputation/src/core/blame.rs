//! Who is to blame when a path of several relays fails and nobody knows where.
//!
//! Each hop gets the chance that it failed, given that at least one of them did (the expectation step of the EM
//! algorithm for independent hops). A relay that fails often so draws the blame for its paths away from its
//! neighbours.

use super::evidence::Outcome;

/// The parts of good and bad evidence of one hop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Weight of the good observation.
    pub good: f64,
    /// Weight of the bad observation.
    pub bad: f64,
}

/// For hops with these chances to work (0 … 1), the shares of each.
pub fn shares(works: &[f64], outcome: Outcome) -> Vec<Share> {
    let some_failed = 1.0 - works.iter().product::<f64>();
    let share = |works: &f64| match outcome {
        Outcome::Good => Share { good: 1.0, bad: 0.0 },
        Outcome::Bad => {
            let bad = if some_failed > 0.0 { ((1.0 - works) / some_failed).clamp(0.0, 1.0) } else { 1.0 };
            Share { good: 1.0 - bad, bad }
        }
    };
    works.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_hop_gets_the_most_blame_and_a_lone_hop_all_of_it() {
        let blame: Vec<_> = shares(&[0.98, 0.8, 0.98], Outcome::Bad).iter().map(|share| share.bad).collect();
        assert!(blame[1] > 0.85 && blame[0] < 0.09 && blame[0] == blame[2], "{blame:?}");
        assert_eq!(shares(&[0.7], Outcome::Bad), [Share { good: 0.0, bad: 1.0 }]);
        assert_eq!(shares(&[1.0, 1.0], Outcome::Bad)[0].bad, 1.0, "somebody failed though nobody was expected to");
        assert_eq!(shares(&[0.1, 0.9], Outcome::Good), [Share { good: 1.0, bad: 0.0 }; 2]);
    }

    proptest::proptest! {
        #[test]
        fn at_least_one_failure_is_shared_out(works in proptest::collection::vec(0.0f64..1.0, 1..6)) {
            let shares = shares(&works, Outcome::Bad);
            proptest::prop_assert!(shares.iter().map(|share| share.bad).sum::<f64>() >= 1.0 - 1e-9);
            proptest::prop_assert!(shares.iter().all(|share| (0.0..=1.0).contains(&share.bad)));
        }
    }
}
