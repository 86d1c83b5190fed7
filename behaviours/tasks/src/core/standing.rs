//! What a coordinator knows of a worker's results, and how far it believes the next one.
//!
//! The **credibility** of a worker is the probability that its next result is right: the mean of a Beta posterior over its verified
//! results, from the prior Beta(1, 0.1). The prior's mean is 10/11, an assumed fault rate of 1/11, so that two newcomers that agree are
//! believed with 100/101, just above 0.99, and one never is (Sarmenta 2002, "Sabotage-tolerance mechanisms for volunteer computing
//! systems": the assumed fraction f of saboteurs). Its weight makes nine verified results in a row worth 0.99, about where BOINC's
//! adaptive replication begins to trust (10), and three times as careful as Sarmenta's bound f / (e k (1 − f)) after k spot checks.

use std::{collections::BTreeMap, time::Duration};

use fog_base::{NodeId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{pay::Verdict, verify::Judged};

/// The prior: right.
pub const PRIOR_GOOD: f64 = 1.0;
/// The prior: wrong.
pub const PRIOR_BAD: f64 = 0.1;
/// The fault rate of newcomers that is assumed before any was judged.
pub const ASSUMED_FAULT_RATE: f64 = PRIOR_BAD / (PRIOR_GOOD + PRIOR_BAD);
/// A worker below this is not used, and its word adds nothing: a coin does as well.
pub const USED_FROM: f64 = 0.5;
/// The credibility from which a verdict counts for or against those that it judges, whatever less its user asked for.
pub const PROOF: f64 = 0.99;
/// A trusted worker's run is doubled at least this often.
pub const LEAST_DOUBLED: f64 = 0.02;
/// This share of executions is a spot check.
pub const SPOT_CHECKS: f64 = 0.02;
/// Spot checks are made of results that are believed at least so far.
pub const SPOT_CHECKED_FROM: f64 = 0.9999;
/// The most workers that are remembered.
pub const MAX_STANDINGS: usize = 16_384;
/// Good evidence halves in this time, bad evidence in twice it.
pub const HALF_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What others say of a worker, as the node weighed it, in results. It never suffices alone, neither for nor against a worker: see
/// [`Standings::credibility`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Prior {
    /// Right results.
    pub good: f64,
    /// Wrong results.
    pub bad: f64,
}

/// The most right results that hearsay counts for.
pub const MAX_HEARSAY: f64 = 4.0;
/// The most wrong results that it counts for: a newcomer of whom only ill is heard is still used, beside others.
pub const MAX_ILL_HEARSAY: f64 = 0.5;

impl Prior {
    fn is_sound(&self) -> bool {
        [self.good, self.bad].iter().all(|count| count.is_finite() && *count >= 0.0)
    }

    fn bounded(&self) -> Self {
        Self { good: self.good.min(MAX_HEARSAY), bad: self.bad.min(MAX_ILL_HEARSAY) }
    }

    fn mass(&self) -> f64 {
        self.good + self.bad
    }
}

/// One worker's record with this coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Verified right results, faded.
    pub good: f64,
    /// Proven wrong results, faded.
    pub bad: f64,
    /// Executions that ended with a result, faded.
    pub kept: f64,
    /// Executions that did not, faded.
    pub failed: f64,
    /// Results that other workers' results confirmed, since the last wrong one (BOINC's `consecutive_valid`).
    pub consecutive_valid: u32,
    /// Whether its first verified result was right; `None` before it.
    pub first: Option<bool>,
    /// The moment that the counts are of.
    pub at: UnixMillis,
}

impl Default for Standing {
    fn default() -> Self {
        Self { good: 0.0, bad: 0.0, kept: 0.0, failed: 0.0, consecutive_valid: 0, first: None, at: UnixMillis(0) }
    }
}

impl Standing {
    /// What is left of it at `now`; a clock that went back changes nothing.
    fn faded(&self, now: UnixMillis) -> Self {
        let half_lives = now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let (good, bad) = (libm::exp2(-half_lives), libm::exp2(-half_lives / 2.0));
        Self {
            good: self.good * good,
            bad: self.bad * bad,
            kept: self.kept * good,
            failed: self.failed * bad,
            at: self.at.max(now),
            ..*self
        }
    }

    fn is_sound(&self) -> bool {
        [self.good, self.bad, self.kept, self.failed].iter().all(|count| count.is_finite() && *count >= 0.0)
    }
}

/// How newcomers turned out: their assumed fault rate is learned, as two of them are otherwise believed too early where many lie.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Newcomers {
    judged: f64,
    wrong: f64,
}

/// As many newcomers judged as the assumption is worth before any was.
const NEWCOMERS_PRIOR: f64 = 11.0;
/// The most newcomers that are remembered; more age what is there.
const NEWCOMERS_CAP: f64 = 200.0;
/// However many lie, a newcomer is not assumed worse: flooding with liars would else cost everybody replicas.
const MAX_FAULT_RATE: f64 = 0.3;

impl Newcomers {
    fn add(&mut self, right: bool) {
        self.judged += 1.0;
        self.wrong += if right { 0.0 } else { 1.0 };
        if self.judged > NEWCOMERS_CAP {
            let left = NEWCOMERS_CAP / self.judged;
            *self = Self { judged: self.judged * left, wrong: self.wrong * left };
        }
    }

    fn fault_rate(&self) -> f64 {
        let rate = (NEWCOMERS_PRIOR * ASSUMED_FAULT_RATE + self.wrong) / (NEWCOMERS_PRIOR + self.judged);
        rate.clamp(ASSUMED_FAULT_RATE, MAX_FAULT_RATE)
    }
}

/// All workers' standings with one coordinator.
#[derive(Debug, Clone)]
pub struct Standings {
    me: NodeId,
    workers: BTreeMap<NodeId, Standing>,
    priors: BTreeMap<NodeId, Prior>,
    newcomers: Newcomers,
}

impl Standings {
    /// None yet. `me` is the worker whose word is not doubted.
    pub fn new(me: NodeId) -> Self {
        let newcomers = Newcomers { judged: 0.0, wrong: 0.0 };
        Self { me, workers: BTreeMap::new(), priors: BTreeMap::new(), newcomers }
    }

    /// Takes back what [`Standings::record`] returned for this worker; what cannot have been is dropped.
    pub fn restore(&mut self, worker: NodeId, standing: Standing) {
        if !standing.is_sound() || worker == self.me || self.workers.len() >= MAX_STANDINGS {
            return;
        }
        if let (None, Some(right)) = (self.workers.insert(worker, standing), standing.first) {
            self.newcomers.add(right);
        }
    }

    /// What the node knows from others; it replaces what it said before. Where there are too many, that of whom least is known goes.
    pub fn set_prior(&mut self, worker: NodeId, prior: Prior) {
        if !prior.is_sound() || worker == self.me {
            return;
        }
        self.priors.remove(&worker);
        let prior = prior.bounded();
        if prior.mass() == 0.0 {
            return;
        }
        if self.priors.len() >= MAX_STANDINGS {
            let least = self.priors.iter().min_by(|(_, one), (_, other)| one.mass().total_cmp(&other.mass()));
            match least.map(|(worker, least)| (*worker, least.mass())) {
                Some((least, mass)) if mass < prior.mass() => self.priors.remove(&least),
                _ => return,
            };
        }
        self.priors.insert(worker, prior);
    }

    /// All priors.
    pub(crate) fn priors(&self) -> impl Iterator<Item = (NodeId, Prior)> {
        self.priors.iter().map(|(worker, prior)| (*worker, *prior))
    }

    /// Its record, faded to `now`.
    pub fn get(&self, worker: NodeId, now: UnixMillis) -> Standing {
        self.workers.get(&worker).copied().unwrap_or_default().faded(now)
    }

    /// The probability that its next result is right; 1 for this node's own worker. Of good hearsay no more counts than this node found
    /// right itself: who proved nothing here is believed no more for what others say.
    pub fn credibility(&self, worker: NodeId, now: UnixMillis) -> f64 {
        self.mean(worker, self.get(worker, now).good, now)
    }

    /// What is to be expected of its next result by all that is known and heard: for a choice among workers, not for belief.
    pub fn expected(&self, worker: NodeId, now: UnixMillis) -> f64 {
        self.mean(worker, MAX_HEARSAY, now)
    }

    /// The posterior's mean with good hearsay that counts for at most `most` results.
    fn mean(&self, worker: NodeId, most: f64, now: UnixMillis) -> f64 {
        if worker == self.me {
            return 1.0;
        }
        let (standing, prior) = (self.get(worker, now), self.priors.get(&worker).copied().unwrap_or_default());
        let prior_bad = if self.is_newcomer(worker) {
            let rate = self.newcomers.fault_rate();
            PRIOR_GOOD * rate / (1.0 - rate)
        } else {
            PRIOR_BAD
        };
        let right = PRIOR_GOOD + standing.good + prior.good.min(most);
        right / (right + prior_bad + standing.bad + prior.bad)
    }

    /// Whether it gets tasks at all.
    pub fn is_used(&self, worker: NodeId, now: UnixMillis) -> bool {
        self.credibility(worker, now) >= USED_FROM
    }

    /// Whether none of its results was verified, or none since the last wrong one.
    pub fn is_newcomer(&self, worker: NodeId) -> bool {
        worker != self.me && self.workers.get(&worker).is_none_or(|standing| standing.consecutive_valid == 0)
    }

    /// The probability that it ends what it takes on: the mean of Beta(1 + ended, 1 + failed).
    pub fn availability(&self, worker: NodeId, now: UnixMillis) -> f64 {
        let standing = self.get(worker, now);
        (1.0 + standing.kept) / (2.0 + standing.kept + standing.failed)
    }

    /// Whether the run of a worker that is trusted alone is doubled: with probability 1 / `consecutive_valid` (BOINC's adaptive
    /// replication), at least [`LEAST_DOUBLED`]. `draw` is uniform in 0 … 1.
    pub fn is_doubled(&self, worker: NodeId, draw: f64) -> bool {
        let valid = self.workers.get(&worker).map_or(0, |standing| standing.consecutive_valid);
        worker != self.me && draw < (1.0 / f64::from(valid.max(1))).max(LEAST_DOUBLED)
    }

    /// Counts a verdict and returns the record, which is to be persisted; `None` for this node's own worker, or if there is no room.
    pub fn record(&mut self, judged: &Judged, now: UnixMillis) -> Option<Standing> {
        let Judged { worker, verdict, proven } = *judged;
        let room = self.workers.len() < MAX_STANDINGS || self.workers.contains_key(&worker);
        if worker == self.me || !(room || self.make_room(now)) {
            return None;
        }
        let mut standing = self.get(worker, now);
        match verdict {
            Verdict::Failed => standing.failed += 1.0,
            Verdict::Good | Verdict::Wrong => standing.kept += 1.0,
        }
        match (verdict, proven) {
            (Verdict::Good, true) => {
                standing.good += 1.0;
                standing.consecutive_valid = standing.consecutive_valid.saturating_add(1);
            }
            (Verdict::Wrong, true) => {
                standing.good = 0.0;
                standing.bad += 1.0;
                standing.consecutive_valid = 0;
            }
            _ => (),
        }
        if proven && standing.first.is_none() {
            let right = verdict == Verdict::Good;
            standing.first = Some(right);
            self.newcomers.add(right);
        }
        self.workers.insert(worker, standing);
        Some(standing)
    }

    /// Forgets the worker of whom least is known; never one that was wrong while there is another.
    fn make_room(&mut self, now: UnixMillis) -> bool {
        let worth = |standing: &Standing| {
            let standing = standing.faded(now);
            (standing.bad * 1_000.0) + standing.good + standing.kept + standing.failed
        };
        let least = self.workers.iter().min_by(|(_, one), (_, other)| worth(one).total_cmp(&worth(other)));
        let least = least.map(|(worker, _)| *worker);
        least.is_some_and(|worker| self.workers.remove(&worker).is_some())
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
