//! Evidence about a peer, and how it fades: good evidence halves in one half-life, bad evidence in two, so that a peer
//! that alternates is remembered for its worse half (Jøsang & Ismail 2002, "The Beta Reputation System", with a
//! forgetting factor for each outcome).

use std::time::Duration;

use fog_base::{NodeId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::beta::Beta;

/// The prior: Beta(1, 2). An unknown peer has a mean of 1/3 and a lower bound of 0.025, below any peer that proved
/// something.
const PRIOR_GOOD: f64 = 1.0;
const PRIOR_BAD: f64 = 2.0;
/// The weight of the prior, and the part of it that is good: subjective logic's W and base rate.
pub const PRIOR_WEIGHT: f64 = PRIOR_GOOD + PRIOR_BAD;
/// See [`PRIOR_WEIGHT`].
pub const BASE_RATE: f64 = PRIOR_GOOD / PRIOR_WEIGHT;

/// What a peer is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What it delivers is right: results, descriptors, protocol.
    Correctness,
    /// It is there and does what it took on.
    Availability,
    /// What it reports about others agrees with what this node knows.
    Rating,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Correctness, Self::Availability, Self::Rating];

    /// The name in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Correctness => "correctness",
            Self::Availability => "availability",
            Self::Rating => "rating",
        }
    }
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Good,
    /// Not so.
    Bad,
}

/// One piece of this node's own experience.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// With whom.
    pub peer: NodeId,
    /// Of which kind.
    pub kind: Kind,
    /// How it went.
    pub outcome: Outcome,
    /// 1 for something usual, such as one loop.
    pub weight: f64,
    /// When.
    pub at: UnixMillis,
}

/// One value of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerKind<T> {
    correctness: T,
    availability: T,
    rating: T,
}

impl<T> PerKind<T> {
    /// That of `kind`.
    pub fn get(&self, kind: Kind) -> &T {
        match kind {
            Kind::Correctness => &self.correctness,
            Kind::Availability => &self.availability,
            Kind::Rating => &self.rating,
        }
    }

    /// That of `kind`.
    pub fn get_mut(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Correctness => &mut self.correctness,
            Kind::Availability => &mut self.availability,
            Kind::Rating => &mut self.rating,
        }
    }
}

/// How evidence fades, and how much of it is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fading {
    /// In which good evidence halves; bad evidence takes twice as long.
    pub half_life: Duration,
    /// The most evidence, good and bad together. More ages what is there, just as time would.
    pub cap: f64,
}

/// Weighted counts as they were at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    good: f64,
    bad: f64,
    at: UnixMillis,
}

impl Default for Evidence {
    fn default() -> Self {
        Self { good: 0.0, bad: 0.0, at: UnixMillis(0) }
    }
}

impl Evidence {
    /// These counts, at `at`.
    pub fn new(good: f64, bad: f64, at: UnixMillis) -> Self {
        Self { good, bad, at }
    }

    /// For.
    pub fn good(&self) -> f64 {
        self.good
    }

    /// Against.
    pub fn bad(&self) -> f64 {
        self.bad
    }

    /// The moment that the counts are of.
    pub fn at(&self) -> UnixMillis {
        self.at
    }

    /// Both together.
    pub fn mass(&self) -> f64 {
        self.good + self.bad
    }

    /// What is left of it at `now`; a clock that went back changes nothing.
    pub fn faded(&self, fading: &Fading, now: UnixMillis) -> Self {
        let age = now.since(self.at).as_secs_f64();
        Self { at: self.at.max(now), ..self.aged(libm::exp2(-age / (2.0 * fading.half_life.as_secs_f64()))) }
    }

    /// What is left when bad evidence is down to `left` of what it was; good evidence fades twice as fast.
    fn aged(&self, left: f64) -> Self {
        Self { good: self.good * left * left, bad: self.bad * left, at: self.at }
    }

    /// Adds what happened at `at`, and ages the rest if there is more than the cap.
    pub fn add(&mut self, outcome: Outcome, weight: f64, at: UnixMillis, fading: &Fading, now: UnixMillis) {
        let new = match outcome {
            Outcome::Good => Self::new(weight, 0.0, at),
            Outcome::Bad => Self::new(0.0, weight, at),
        };
        *self = self.plus(&new, fading, now);
    }

    /// Both together at `now`.
    pub fn plus(&self, other: &Self, fading: &Fading, now: UnixMillis) -> Self {
        let (a, b) = (self.faded(fading, now), other.faded(fading, now));
        Self { good: a.good + b.good, bad: a.bad + b.bad, at: a.at.max(b.at) }.capped(fading.cap)
    }

    fn capped(self, cap: f64) -> Self {
        if self.mass() <= cap {
            return self;
        }
        // The `left` of `aged` with good·left² + bad·left = cap.
        let root = (self.bad * self.bad + 4.0 * self.good * cap).sqrt();
        self.aged(2.0 * cap / (self.bad + root))
    }

    /// The same proportion with at most `cap` in all.
    pub fn scaled_to(self, cap: f64) -> Self {
        if self.mass() <= cap {
            return self;
        }
        let factor = cap / self.mass();
        Self { good: self.good * factor, bad: self.bad * factor, at: self.at }
    }

    /// What it says of the probability that the next time is good, starting from the prior of an unknown peer.
    pub fn posterior(&self) -> Beta {
        Beta::new(PRIOR_GOOD + self.good, PRIOR_BAD + self.bad)
    }

    /// The same from a uniform prior: for comparing two views of one peer without the caution of
    /// [`Evidence::posterior`].
    pub fn neutral(&self) -> Beta {
        Beta::new(1.0 + self.good, 1.0 + self.bad)
    }

    /// Whether it can be what this crate wrote: finite, and neither count negative.
    pub fn is_sound(&self) -> bool {
        [self.good, self.bad].iter().all(|count| count.is_finite() && *count >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FADING: Fading = Fading { half_life: Duration::from_secs(1000), cap: 100.0 };
    const START: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn good_halves_in_one_half_life_and_bad_in_two() {
        let evidence = Evidence::new(8.0, 8.0, START);
        let later = evidence.faded(&FADING, START.plus(Duration::from_secs(2000)));
        assert!((later.good() - 2.0).abs() < 1e-12 && (later.bad() - 4.0).abs() < 1e-12, "{later:?}");
        assert_eq!(evidence.faded(&FADING, START.minus(Duration::from_secs(5))), evidence);
    }

    #[test]
    fn an_unknown_peer_ranks_below_one_good_deed_and_not_above_an_average_peer() {
        let unknown = Evidence::default().posterior();
        let once = Evidence::new(1.0, 0.0, START).posterior();
        assert!(unknown.lower() < 0.0254 && once.lower() > 0.13, "{} {}", unknown.lower(), once.lower());
        assert!(unknown.mean() < 0.5);
    }

    #[test]
    fn what_is_late_counts_as_if_it_had_come_in_time() {
        let (early, late) = (START, START.plus(Duration::from_secs(700)));
        let mut in_time = Evidence::default();
        in_time.add(Outcome::Bad, 3.0, early, &FADING, early);
        in_time.add(Outcome::Good, 1.0, late, &FADING, late);
        let mut too_late = Evidence::default();
        too_late.add(Outcome::Good, 1.0, late, &FADING, late);
        too_late.add(Outcome::Bad, 3.0, early, &FADING, late);
        assert!((in_time.bad() - too_late.bad()).abs() < 1e-12 && in_time.good() == too_late.good());
    }

    proptest! {
        #[test]
        fn evidence_never_exceeds_its_cap_nor_turns_negative(
            steps in proptest::collection::vec((any::<bool>(), 0.0f64..50.0, 0u64..5_000_000), 1..200),
        ) {
            let (mut evidence, mut now) = (Evidence::default(), START);
            for (good, weight, passed) in steps {
                now = UnixMillis(now.0 + passed);
                let outcome = if good { Outcome::Good } else { Outcome::Bad };
                evidence.add(outcome, weight, now, &FADING, now);
                prop_assert!(evidence.is_sound() && evidence.mass() <= FADING.cap * (1.0 + 1e-9), "{evidence:?}");
            }
        }

        #[test]
        fn volume_ages_evidence_as_time_does(good in 1.0f64..500.0, bad in 0.0f64..500.0) {
            prop_assume!(good + bad > FADING.cap);
            let capped = Evidence::new(good, bad, START).capped(FADING.cap);
            prop_assert!((capped.mass() - FADING.cap).abs() < 1e-9);
            prop_assert!(capped.good() / good <= (capped.bad() + 1e-300) / (bad + 1e-300) + 1e-9);
        }
    }
}
