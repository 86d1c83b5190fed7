//! What a user wants beside the work: how sure, how fast, how private, and for how much. Terms stay with the coordinator; a worker
//! sees only what its bid says of them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// One, in parts per million.
pub const PPM: u32 = 1_000_000;
/// The most replicas of one task whose results are compared.
pub const MAX_REPLICAS: u8 = 7;
/// The most features that an offer names or terms ask for.
pub const MAX_FEATURES: usize = 16;
/// The longest name of a feature, in bytes.
pub const MAX_FEATURE: usize = 64;
/// The longest of all clocks: 30 days.
pub const MAX_CLOCK_MS: u64 = 30 * 24 * 3_600_000;
/// A run of which nothing else is known may take this many times as long as its fuel should.
const RUN_SLACK: u64 = 4;
/// The shortest run clock that is derived from fuel, in milliseconds.
const MIN_RUN_MS: u64 = 30_000;
/// The longest run clock that is derived from fuel, in milliseconds.
const MAX_RUN_MS: u64 = 24 * 3_600_000;

/// How much a task matters, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Class {
    /// When a host has nothing else to do; it may be suspended.
    BestEffort,
    /// The usual.
    #[default]
    Standard,
    /// Wants a free slot now.
    Urgent,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::BestEffort, Self::Standard, Self::Urgent];

    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Standard => "standard",
            Self::Urgent => "urgent",
        }
    }
}

/// Who may see a task's inputs, and who submitted it; least private first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Privacy {
    /// Nothing is hidden; results are remembered.
    #[default]
    Open,
    /// Inputs are encrypted to the assigned workers only; results are not remembered.
    Sealed,
    /// Sealed, and submitted through the mixnet.
    Mixed,
}

impl Privacy {
    /// All labels.
    pub const ALL: [Self; 3] = [Self::Open, Self::Sealed, Self::Mixed];

    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Mixed => "mixed",
        }
    }
}

/// How one task's worker is chosen among those that match. What each optimises is said at its placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum StrategyName {
    /// One after another.
    RoundRobin,
    /// The one with the least to do.
    LeastLoaded,
    /// The one that ran this module before.
    Affinity,
    /// The nearest.
    Proximity,
    /// Spread over families and networks.
    Privacy,
    /// The better of two at random.
    #[default]
    PowerOfTwo,
}

impl StrategyName {
    /// All strategies.
    pub const ALL: [Self; 6] =
        [Self::RoundRobin, Self::LeastLoaded, Self::Affinity, Self::Proximity, Self::Privacy, Self::PowerOfTwo];

    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastLoaded => "least-loaded",
            Self::Affinity => "affinity",
            Self::Proximity => "proximity",
            Self::Privacy => "privacy",
            Self::PowerOfTwo => "p2c",
        }
    }
}

macro_rules! named {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
        impl FromStr for $name {
            type Err = TermsError;
            fn from_str(text: &str) -> Result<Self, TermsError> {
                Self::ALL.into_iter().find(|value| value.name() == text).ok_or(TermsError::Unknown($what))
            }
        }
    };
}
named!(Class, "class");
named!(Privacy, "privacy label");
named!(StrategyName, "strategy");

/// How long each part of an execution may take, in milliseconds. They are separate, so that a slow download is not taken for a slow
/// program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// Until the worker has the module and all inputs.
    pub staging_ms: u64,
    /// From then until the run begins.
    pub queueing_ms: u64,
    /// The run. `None`: by its fuel and the worker's speed, see [`Terms::running`].
    pub running_ms: Option<u64>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { staging_ms: 120_000, queueing_ms: 600_000, running_ms: None }
    }
}

/// What a user wants of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The least credibility of a result that is accepted, in ppm; below [`PPM`].
    pub trust_ppm: u32,
    /// How many replicas the first round has, at most [`MAX_REPLICAS`]; 0: as many as the trust takes. More follow where the trust is
    /// not reached.
    pub replicas: u8,
    /// How much it matters.
    pub class: Class,
    /// The most micro-credits for one run that uses all its fuel; `None`: any price.
    pub max_price: Option<u64>,
    /// From submission until the task ends either way, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// The parts of an execution.
    pub clocks: Clocks,
    /// Who may see it.
    pub privacy: Privacy,
    /// What the worker must have beside WebAssembly, such as `gpu:cuda`; sorted.
    pub features: Vec<String>,
    /// How workers are chosen.
    pub strategy: StrategyName,
    /// Where replicas do not agree: take the most credible result rather than fail.
    pub accept_best: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            trust_ppm: 990_000,
            replicas: 0,
            class: Class::default(),
            max_price: None,
            deadline_ms: None,
            clocks: Clocks::default(),
            privacy: Privacy::default(),
            features: Vec::new(),
            strategy: StrategyName::default(),
            accept_best: false,
        }
    }
}

/// Why terms are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// A trust of 1 or more, which only running it oneself gives.
    #[error("the trust must be below 1")]
    Trust,
    /// More than [`MAX_REPLICAS`].
    #[error("at most 7 replicas")]
    Replicas,
    /// A clock of zero, or longer than [`MAX_CLOCK_MS`].
    #[error("a time must be above zero and at most 30 days")]
    Clock,
    /// Too many features, or one that is no name, or there twice, or not in order.
    #[error("at most 16 features, each of at most 64 of a-z 0-9 : . _ -, sorted")]
    Features,
    /// No such class, label or strategy.
    #[error("no such {0}")]
    Unknown(&'static str),
}

impl Terms {
    /// Whether they can be met at all.
    pub fn check(&self) -> Result<(), TermsError> {
        if self.trust_ppm >= PPM {
            return Err(TermsError::Trust);
        }
        if self.replicas > MAX_REPLICAS {
            return Err(TermsError::Replicas);
        }
        let Clocks { staging_ms, queueing_ms, running_ms } = self.clocks;
        let mut clocks = [Some(staging_ms), Some(queueing_ms), running_ms, self.deadline_ms].into_iter().flatten();
        if clocks.any(|clock| clock == 0 || clock > MAX_CLOCK_MS) {
            return Err(TermsError::Clock);
        }
        if are_features(&self.features) { Ok(()) } else { Err(TermsError::Features) }
    }

    /// The trust asked for, as a probability.
    pub fn trust(&self) -> f64 {
        f64::from(self.trust_ppm) / f64::from(PPM)
    }

    /// How long a run of at most `fuel` may take on a worker of `speed` fuel per second: what the user said, or else four times what the
    /// fuel takes, between 30 seconds and a day. Never longer than the deadline.
    pub fn running(&self, fuel: u64, speed: u64) -> Duration {
        let by_fuel = fuel.saturating_mul(1000) / speed.max(1);
        let derived = by_fuel.saturating_mul(RUN_SLACK).clamp(MIN_RUN_MS, MAX_RUN_MS);
        let run = self.clocks.running_ms.unwrap_or(derived);
        Duration::from_millis(self.deadline_ms.map_or(run, |deadline| run.min(deadline)))
    }
}

/// Whether this is the name of a feature: 1 to 64 of `a-z 0-9 : . _ -`.
pub fn is_feature(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":._-".contains(&byte);
    (1..=MAX_FEATURE).contains(&name.len()) && name.bytes().all(known)
}

/// Whether these are names of features, sorted and each once.
pub(crate) fn are_features(features: &[String]) -> bool {
    let in_order = features.iter().zip(features.iter().skip(1)).all(|(one, next)| one < next);
    features.len() <= MAX_FEATURES && features.iter().all(|name| is_feature(name)) && in_order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_that_cannot_be_met_are_refused() {
        let with = |change: fn(&mut Terms)| {
            let mut terms = Terms::default();
            change(&mut terms);
            terms.check()
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|terms| terms.trust_ppm = PPM), Err(TermsError::Trust));
        assert_eq!(with(|terms| terms.replicas = 8), Err(TermsError::Replicas));
        assert_eq!(with(|terms| terms.clocks.running_ms = Some(0)), Err(TermsError::Clock));
        assert_eq!(with(|terms| terms.deadline_ms = Some(MAX_CLOCK_MS + 1)), Err(TermsError::Clock));
        for features in [vec!["GPU"], vec![""], vec!["b", "a"], vec!["a", "a"], vec!["a"; 17]] {
            let terms = Terms { features: features.into_iter().map(str::to_owned).collect(), ..Terms::default() };
            assert_eq!(terms.check(), Err(TermsError::Features), "{:?}", terms.features);
        }
    }

    #[test]
    fn a_run_may_take_four_times_its_fuel_unless_the_user_said_otherwise() {
        let mut terms = Terms::default();
        assert_eq!(terms.running(100_000, 1_000), Duration::from_secs(400));
        assert_eq!(terms.running(1, 1_000), Duration::from_secs(30));
        assert_eq!(terms.running(u64::MAX, 0), Duration::from_secs(24 * 3600));
        terms.clocks.running_ms = Some(5_000);
        assert_eq!(terms.running(100_000, 1_000), Duration::from_secs(5));
        terms.deadline_ms = Some(2_000);
        assert_eq!(terms.running(100_000, 1_000), Duration::from_secs(2));
    }

    #[test]
    fn names_are_read_back() {
        assert!(Class::ALL.iter().all(|class| class.name().parse() == Ok(*class)));
        assert!(Privacy::ALL.iter().all(|label| label.name().parse() == Ok(*label)));
        assert!(StrategyName::ALL.iter().all(|name| name.name().parse() == Ok(*name)));
        assert_eq!("fast".parse::<Class>(), Err(TermsError::Unknown("class")));
    }
}
