//! Which worker gets a task. Offers are matched elsewhere: here are only the numbers of those that came through, as [`Candidate`]s.
//! One task at a time is placed by a [`Strategy`], many at once by [`batch`].

pub mod batch;
mod strategy;

#[cfg(test)]
mod batch_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fog_base::NodeId;

pub use self::strategy::{Affinity, LeastLoaded, PowerOfTwo, PrivacyAware, Proximity, RoundRobin, Strategy};
pub use super::terms::{Class, StrategyName};
use super::{nsga::random::Random, work::Content};

/// Units of fuel in a Gfuel, which prices and energy are for.
pub const GFUEL: f64 = 1e9;

/// A worker whose offer came through the matcher.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Who it is. Ties are broken by it, so that the order of candidates decides nothing.
    pub node: NodeId,
    /// Tasks that it runs at once.
    pub slots: u32,
    /// More tasks that it takes now, whether it runs or queues them.
    pub room: u32,
    /// Units of fuel a second in one slot.
    pub speed: f64,
    /// Until a slot is free, in milliseconds.
    pub queue_ms: f64,
    /// Tasks of ours that it has and has not finished.
    pub in_flight: u32,
    /// What a Gfuel costs.
    pub price: u64,
    /// What a Gfuel takes, in joules.
    pub joules: f64,
    /// The probability that a task given to it ends well: 0 to 1.
    pub reliability: f64,
    /// There and back, in milliseconds.
    pub rtt_ms: f64,
    /// Bytes a second to it.
    pub bandwidth: f64,
    /// Hashes of content that it has, in ascending order.
    pub cached: Arc<[[u8; 32]]>,
    /// Its inputs come sealed to it, and over the mixnet.
    pub is_private: bool,
    /// Who runs it: replicas never meet one value twice.
    pub family: Option<u64>,
    /// Its network (a global /16, say): replicas never meet one value twice.
    pub network: Option<u64>,
}

/// What a class asks of a placement: best-effort has its deadline as a wish; standard ends before it, on workers that end at least half of
/// their tasks well; urgent ends in half of it, so that one failure can be made good, on workers that end nine of ten tasks well, and goes
/// before others of its batch on the same worker.
impl Class {
    /// The least [`Candidate::reliability`].
    pub fn least_reliability(self) -> f64 {
        match self {
            Self::BestEffort => 0.0,
            Self::Standard => 0.5,
            Self::Urgent => 0.9,
        }
    }

    /// The share of the deadline in which it is planned to end; `None` if it need not.
    pub fn deadline_share(self) -> Option<f64> {
        match self {
            Self::BestEffort => None,
            Self::Standard => Some(1.0),
            Self::Urgent => Some(0.5),
        }
    }
}

/// What is known of a task before it runs.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    /// How much it will use.
    pub fuel: u64,
    /// What a worker must have before it starts, the module first.
    pub contents: Vec<Content>,
    /// From now, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// How much its end matters.
    pub class: Class,
    /// The most that it may cost in all.
    pub max_price: Option<u64>,
    /// Whether only workers that are [`Candidate::is_private`] may see it.
    pub is_private: bool,
}

/// Why a candidate cannot have a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It takes no more.
    NoRoom,
    /// Its speed, bandwidth or slots are zero, or a number of it is none.
    Unusable,
    /// Its reliability is below the class's.
    Unreliable,
    /// The task is private, and it is not.
    NotPrivate,
    /// It costs more than the task may.
    TooDear,
    /// It would end too late.
    TooSlow,
}

impl Demand {
    /// What a worker must have before it starts, in bytes.
    pub fn staged_bytes(&self) -> u64 {
        self.contents.iter().map(|content| content.size).fold(0, u64::saturating_add)
    }

    /// What must be sent to `candidate`, in bytes.
    pub fn missing_bytes(&self, candidate: &Candidate) -> u64 {
        let missing = |content: &&Content| candidate.cached.binary_search(&content.hash).is_err();
        self.contents.iter().filter(missing).map(|content| content.size).fold(0, u64::saturating_add)
    }

    /// What it costs at `candidate`, rounded up.
    pub fn price(&self, candidate: &Candidate) -> u64 {
        let price = (u128::from(self.fuel) * u128::from(candidate.price)).div_ceil(GFUEL as u128);
        u64::try_from(price).unwrap_or(u64::MAX)
    }

    /// Staging and running at `candidate`, in milliseconds, without waiting.
    pub fn busy_ms(&self, candidate: &Candidate) -> f64 {
        self.busy_with(candidate, self.missing_bytes(candidate))
    }

    /// Until which millisecond it is planned to end, if it must.
    pub fn due_ms(&self) -> Option<f64> {
        Some(self.deadline_ms? as f64 * self.class.deadline_share()?)
    }

    /// Whether `candidate` can have it, before anything else is given to it.
    pub fn fits(&self, candidate: &Candidate) -> Result<(), Misfit> {
        let Candidate { speed, bandwidth, queue_ms, joules, reliability, rtt_ms, .. } = *candidate;
        if candidate.room == 0 {
            return Err(Misfit::NoRoom);
        }
        let none_is_negative =
            [speed, bandwidth, queue_ms, joules, rtt_ms].iter().all(|value| value.is_finite() && *value >= 0.0);
        if !none_is_negative || speed == 0.0 || bandwidth == 0.0 || candidate.slots == 0 {
            return Err(Misfit::Unusable);
        }
        if !(0.0..=1.0).contains(&reliability) {
            return Err(Misfit::Unusable);
        }
        if reliability < self.class.least_reliability() {
            return Err(Misfit::Unreliable);
        }
        if self.is_private && !candidate.is_private {
            return Err(Misfit::NotPrivate);
        }
        if self.max_price.is_some_and(|most| self.price(candidate) > most) {
            return Err(Misfit::TooDear);
        }
        // The cache is asked last, and only where it decides: it is the dearest question.
        let ends_by = |due: f64, missing: u64| queue_ms + self.busy_with(candidate, missing) <= due;
        match self.due_ms() {
            Some(due) if !ends_by(due, self.staged_bytes()) && !ends_by(due, self.missing_bytes(candidate)) => {
                Err(Misfit::TooSlow)
            }
            _ => Ok(()),
        }
    }

    fn busy_with(&self, candidate: &Candidate, missing: u64) -> f64 {
        let seconds = missing as f64 / candidate.bandwidth + self.fuel as f64 / candidate.speed;
        candidate.rtt_ms + seconds * 1e3
    }
}

/// Places `count` replicas of one task with different workers, no two of one family or network: positions in `candidates`, in the order
/// in which they were chosen. `None` if there are not so many.
pub fn place(
    strategy: &mut dyn Strategy,
    demand: &Demand,
    candidates: &[Candidate],
    count: usize,
    random: &mut Random,
) -> Option<Vec<usize>> {
    place_beside(strategy, demand, candidates, &[], count, random)
}

/// [`place`], where `taken` (positions in `candidates`) already have a replica.
pub fn place_beside(
    strategy: &mut dyn Strategy,
    demand: &Demand,
    candidates: &[Candidate],
    taken: &[usize],
    count: usize,
    random: &mut Random,
) -> Option<Vec<usize>> {
    let others: Vec<&Candidate> = taken.iter().filter_map(|at| candidates.get(*at)).collect();
    let is_free = |candidate: &Candidate| !others.iter().any(|other| is_related(other, candidate));
    let fits = |(_, candidate): &(usize, &Candidate)| demand.fits(candidate).is_ok() && is_free(candidate);
    let (mut places, mut left): (Vec<usize>, Vec<&Candidate>) = candidates.iter().enumerate().filter(fits).unzip();
    let mut chosen = Vec::with_capacity(count.min(left.len()));
    while chosen.len() < count {
        let at = strategy.choose(demand, &left, random)?;
        let (place, worker) = (*places.get(at)?, *left.get(at)?);
        chosen.push(place);
        let keeps: Vec<bool> = left.iter().map(|other| !is_related(worker, other)).collect();
        retain(&mut places, &keeps);
        retain(&mut left, &keeps);
    }
    Some(chosen)
}

/// Whether two may not hold replicas of one task.
fn is_related(one: &Candidate, other: &Candidate) -> bool {
    let shares = |a: Option<u64>, b: Option<u64>| a.is_some() && a == b;
    one.node == other.node || shares(one.family, other.family) || shares(one.network, other.network)
}

fn retain<T>(values: &mut Vec<T>, keeps: &[bool]) {
    let mut keeps = keeps.iter();
    values.retain(|_| keeps.next().copied().unwrap_or(false));
}
