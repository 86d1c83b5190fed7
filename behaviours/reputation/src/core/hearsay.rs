//! What others report: who said what about whom, and how much of it counts.
//!
//! Each report is discounted by the trust in its reporter (subjective logic), so rings of strangers that praise each
//! other count nothing. Before that, reports that contradict this node's own experience, or else the weighted median
//! of the reporters, are left out (after Whitby, Jøsang, Indulska 2004, "Filtering Out Unfair Ratings in Bayesian
//! Reputation Systems": a rater is left out when the reference lies outside the quantiles of its own Beta; the median
//! resists a third of liars better than the mean).

use std::collections::BTreeMap;

use fog_base::{Epoch, NodeId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{
    config::Config,
    evidence::{Evidence, Kind, PerKind},
    opinion::Opinion,
};

/// The most reporters about one peer.
pub const MAX_REPORTERS: usize = 64;
/// The most peers that one reporter reports on.
pub const MAX_SUBJECTS: usize = 128;
/// From this belief on a rater is heard, and no stranger.
pub const TRUSTED: f64 = 0.5;
/// The quantile outside which two views contradict each other.
const CONTRADICTION: f64 = 0.01;
/// What peers may differ in towards different reporters, in probability, when only reporters are compared.
const TOLERANCE: f64 = 0.1;
/// Below this a report is as good as forgotten.
const NEGLIGIBLE: f64 = 0.01;

/// What one reporter says of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// Evidence out of its receipts.
    pub evidence: PerKind<Evidence>,
    /// What its reports on this peer have shown of the reporter.
    pub judged: Evidence,
    /// The last epoch that it reported on.
    pub last: Epoch,
}

impl Heard {
    fn mass(&self, config: &Config, now: UnixMillis) -> f64 {
        Kind::ALL.map(|kind| self.evidence.get(kind).faded(config.fading(kind), now).mass()).iter().sum()
    }
}

/// Everything heard, by subject and reporter.
#[derive(Debug)]
pub struct Hearsay {
    pairs: BTreeMap<(NodeId, NodeId), Heard>,
    subjects: BTreeMap<NodeId, usize>,
    max: usize,
}

impl Hearsay {
    /// Nothing yet; at most `max` pairs.
    pub fn new(max: usize) -> Self {
        Self { pairs: BTreeMap::new(), subjects: BTreeMap::new(), max: max.max(1) }
    }

    /// What `reporter` says of `subject`.
    pub fn get(&self, subject: NodeId, reporter: NodeId) -> Option<&Heard> {
        self.pairs.get(&(subject, reporter))
    }

    /// What all reporters say of `subject`.
    pub fn about(&self, subject: NodeId) -> impl Iterator<Item = (NodeId, &Heard)> {
        let (first, last) = (NodeId([0; 32]), NodeId([0xff; 32]));
        self.pairs.range((subject, first)..=(subject, last)).map(|((_, reporter), heard)| (*reporter, heard))
    }

    /// All on whom something is said, sorted, each as often as it is reported on.
    pub fn subjects(&self) -> impl Iterator<Item = NodeId> {
        self.pairs.keys().map(|(subject, _)| *subject)
    }

    /// Whether a report would be kept; `trust` is the belief in a reporter. A subject that has enough reporters takes
    /// one who is trusted more than another.
    pub fn admits(&self, subject: NodeId, reporter: NodeId, trust: impl Fn(NodeId) -> f64) -> bool {
        if self.pairs.contains_key(&(subject, reporter)) {
            return true;
        }
        if self.subjects.get(&reporter).is_some_and(|count| *count >= MAX_SUBJECTS) {
            return false;
        }
        let (mut count, mut least) = (0, f64::INFINITY);
        for (other, _) in self.about(subject) {
            count += 1;
            least = least.min(trust(other));
        }
        count < MAX_REPORTERS || trust(reporter) > least
    }

    /// Keeps what an admitted reporter says now. Says which pairs had to go for it.
    pub fn insert(
        &mut self,
        (subject, reporter): (NodeId, NodeId),
        heard: Heard,
        trust: impl Fn(NodeId) -> f64,
        (config, now): (&Config, UnixMillis),
    ) -> Vec<(NodeId, NodeId)> {
        let mut gone = Vec::new();
        if !self.pairs.contains_key(&(subject, reporter)) {
            if self.about(subject).count() >= MAX_REPORTERS {
                let least = self.about(subject).min_by(|(a, _), (b, _)| trust(*a).total_cmp(&trust(*b)));
                gone.extend(least.map(|(least, _)| (subject, least)));
            } else if self.pairs.len() >= self.max {
                gone = self.least_useful(&trust, config, now);
            }
            for pair in &gone {
                self.remove(*pair);
            }
            *self.subjects.entry(reporter).or_default() += 1;
        }
        self.pairs.insert((subject, reporter), heard);
        gone
    }

    /// A sixteenth: of the least trusted reporters what has least evidence.
    fn least_useful(&self, trust: impl Fn(NodeId) -> f64, config: &Config, now: UnixMillis) -> Vec<(NodeId, NodeId)> {
        let useful = |(pair, heard): (&(NodeId, NodeId), &Heard)| (trust(pair.1), heard.mass(config, now), *pair);
        let mut pairs: Vec<_> = self.pairs.iter().map(useful).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        pairs.into_iter().take(self.max.div_ceil(16)).map(|(_, _, pair)| pair).collect()
    }

    fn remove(&mut self, pair: (NodeId, NodeId)) {
        if self.pairs.remove(&pair).is_none() {
            return;
        }
        if let Some(count) = self.subjects.get_mut(&pair.1) {
            *count -= 1;
            if *count == 0 {
                self.subjects.remove(&pair.1);
            }
        }
    }

    /// Puts back what was saved, unless it cannot be what was saved or there is no room.
    pub fn restore(&mut self, subject: NodeId, reporter: NodeId, heard: Heard) -> bool {
        let sound = Kind::ALL.iter().all(|kind| heard.evidence.get(*kind).is_sound()) && heard.judged.is_sound();
        let fits = sound && self.pairs.len() < self.max && self.admits(subject, reporter, |_| 0.0);
        if fits && self.pairs.insert((subject, reporter), heard).is_none() {
            *self.subjects.entry(reporter).or_default() += 1;
        }
        fits
    }

    /// Gives up what has faded away, once its receipts cannot come again: `open` is the oldest epoch that reports may
    /// be about.
    pub fn sweep(&mut self, open: Epoch, config: &Config, now: UnixMillis) -> Vec<(NodeId, NodeId)> {
        let over = |heard: &Heard| heard.last < open && heard.mass(config, now) < NEGLIGIBLE;
        let gone: Vec<_> = self.pairs.iter().filter(|(_, heard)| over(heard)).map(|(pair, _)| *pair).collect();
        for pair in &gone {
            self.remove(*pair);
        }
        gone
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

/// One report on a peer, and what this node thinks of its reporter.
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    /// The opinion on the reporter as a rater.
    pub trust: Opinion,
    /// What it says, faded to now.
    pub evidence: Evidence,
}

/// Whether two views of one peer can both be honest: their intervals touch.
pub fn agree(one: &Evidence, other: &Evidence) -> bool {
    Range::of(one).touches(other)
}

/// Where the truth is thought to be.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    fn of(evidence: &Evidence) -> Self {
        let beta = evidence.neutral();
        Self { low: beta.quantile(CONTRADICTION), high: beta.quantile(1.0 - CONTRADICTION) }
    }

    /// Whether the interval of `evidence` reaches into the range; one distribution function for each end instead of
    /// two quantiles.
    fn touches(&self, evidence: &Evidence) -> bool {
        let beta = evidence.neutral();
        beta.cdf(self.low) <= 1.0 - CONTRADICTION && beta.cdf(self.high) >= CONTRADICTION
    }
}

/// What the reports on one peer are worth together; `own` is this node's own experience with it.
pub fn fuse(own: &Evidence, mut voices: Vec<Voice>, config: &Config) -> Evidence {
    voices.retain(|voice| voice.trust.belief() >= TRUSTED && voice.evidence.mass() > 0.0);
    if voices.is_empty() {
        return Evidence::default();
    }
    let reference = if own.mass() >= config.own_minimum { Some(Range::of(own)) } else { median(&mut voices) };
    let Some(reference) = reference else { return Evidence::default() };
    let mut fused = Opinion::VACUOUS;
    for Voice { trust, evidence } in voices.iter().filter(|voice| reference.touches(&voice.evidence)) {
        let heard = trust.discount(&Opinion::from_evidence(evidence));
        let (good, bad) = heard.counts();
        let capped = Evidence::new(good, bad, own.at()).scaled_to(config.rater_cap);
        fused = fused.fuse(&Opinion::from_evidence(&capped));
    }
    let (good, bad) = fused.counts();
    Evidence::new(good, bad, own.at()).scaled_to(config.hearsay_cap)
}

/// Around the median of what reporters say, each weighted by the trust in it and by how much it saw.
fn median(voices: &mut [Voice]) -> Option<Range> {
    let weight = |voice: &Voice| voice.trust.belief() * (1.0 - Opinion::from_evidence(&voice.evidence).uncertainty());
    voices.sort_by(|a, b| a.evidence.neutral().mean().total_cmp(&b.evidence.neutral().mean()));
    let half = voices.iter().map(weight).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let middle = voices.iter().find(|voice| {
        sum += weight(voice);
        sum >= half
    })?;
    let mean = middle.evidence.neutral().mean();
    Some(Range { low: mean - TOLERANCE, high: mean + TOLERANCE })
}

#[cfg(test)]
#[path = "hearsay_tests.rs"]
mod tests;
