//! When a packet is late, and which relays may be the reason.
//!
//! A sender knows the delays that its packets draw, so only what comes on top (links, queues, the other side's send clock) has to
//! be estimated: smoothed as RFC 6298 does for TCP.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fog_base::NodeId;

/// Before the first sample.
const INITIAL: Duration = Duration::from_secs(2);
/// Clocks of senders are random: a short lateness means nothing.
const MIN: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(30);

/// How much later than predicted an answer may come before its packet counts as lost.
#[derive(Debug, Default)]
pub(super) struct LateEstimate {
    smoothed: Option<(f64, f64)>,
}

impl LateEstimate {
    /// An answer came this much later than predicted.
    pub(super) fn sample(&mut self, late: Duration) {
        let sample = late.as_secs_f64();
        self.smoothed = Some(match self.smoothed {
            None => (sample, sample / 2.0),
            // RFC 6298 §2.3: alpha = 1/8, beta = 1/4.
            Some((mean, deviation)) => {
                (mean + (sample - mean) / 8.0, deviation + ((sample - mean).abs() - deviation) / 4.0)
            }
        });
    }

    /// The time allowed on top of the prediction.
    pub(super) fn allowance(&self) -> Duration {
        let (mean, deviation) = self.smoothed.unwrap_or((INITIAL.as_secs_f64(), 0.0));
        Duration::from_secs_f64((mean + 4.0 * deviation).clamp(MIN.as_secs_f64(), MAX.as_secs_f64()))
    }
}

/// Suspicion halves in this time.
const HALF_LIFE: f64 = 30.0;
/// From here on a relay is avoided while others will do.
const AVOID: f64 = 0.6;
/// A lost packet says this much against each relay on its path.
const LOST: f64 = 0.3;
/// A connection that ended says this much: avoided for 22 s, in which its relay is dialled again.
const LEFT: f64 = 1.0;
/// Relays that suspicion is kept of.
const MAX_SUSPECTS: usize = 1024;

/// Relays on whose paths packets were lost lately. Kept in memory only, and used only to choose among enough others: a sender
/// whose choices differ much from everybody else's would be known by them.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    scores: BTreeMap<NodeId, (f64, Instant)>,
    /// Relays that could not be connected to, and that no connection came from since.
    gone: BTreeSet<NodeId>,
}

impl Suspects {
    fn score(&self, relay: &NodeId, now: Instant) -> f64 {
        self.scores.get(relay).map_or(0.0, |(score, at)| {
            score * (-now.saturating_duration_since(*at).as_secs_f64() / HALF_LIFE * std::f64::consts::LN_2).exp()
        })
    }

    fn set(&mut self, relay: NodeId, score: f64, now: Instant) {
        if score < 0.01 {
            self.scores.remove(&relay);
            return;
        }
        if self.scores.len() >= MAX_SUSPECTS && !self.scores.contains_key(&relay) {
            let least = self.scores.keys().min_by(|a, b| self.score(a, now).total_cmp(&self.score(b, now))).copied();
            if let Some(least) = least {
                self.scores.remove(&least);
            }
        }
        self.scores.insert(relay, (score, now));
    }

    /// A packet over `relays` was lost.
    pub(super) fn lost(&mut self, relays: &[NodeId], now: Instant) {
        relays.iter().for_each(|relay| self.set(*relay, (self.score(relay, now) + LOST).min(2.0), now));
    }

    /// A packet over `relays` was answered.
    pub(super) fn answered(&mut self, relays: &[NodeId], now: Instant) {
        relays.iter().for_each(|relay| self.set(*relay, self.score(relay, now) / 4.0, now));
    }

    /// `relay` cannot be connected to: it is avoided until it is connected again.
    pub(super) fn unreachable(&mut self, relay: NodeId, now: Instant) {
        self.set(relay, 2.0, now);
        // Most of so many have left the network; those that matter are dialled again, and come back here.
        if self.gone.len() >= MAX_SUSPECTS {
            self.gone.clear();
        }
        self.gone.insert(relay);
    }

    /// The connection to `relay` ended: for a while, until it is known whether it can be reached.
    pub(super) fn disconnected(&mut self, relay: NodeId, now: Instant) {
        self.set(relay, self.score(&relay, now).max(LEFT), now);
    }

    /// `relay` is connected. What it lost before is not forgotten at once.
    pub(super) fn connected(&mut self, relay: &NodeId) {
        self.gone.remove(relay);
    }

    /// The relays to avoid, worst first.
    pub(super) fn avoid(&self, now: Instant) -> Vec<NodeId> {
        let scored = self.scores.keys().filter(|relay| !self.gone.contains(relay));
        let mut worst: Vec<_> = scored.map(|r| (self.score(r, now), *r)).filter(|(s, _)| *s >= AVOID).collect();
        worst.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.gone.iter().copied().chain(worst.into_iter().map(|(_, relay)| relay)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowance_follows_the_lateness_and_stays_in_bounds() {
        let mut late = LateEstimate::default();
        assert_eq!(late.allowance(), INITIAL);
        (0..100).for_each(|_| late.sample(Duration::from_millis(40)));
        assert_eq!(late.allowance(), MIN);
        (0..100).for_each(|_| late.sample(Duration::from_secs(9)));
        assert!(late.allowance() >= Duration::from_secs(9));
        (0..100).for_each(|_| late.sample(Duration::from_secs(900)));
        assert_eq!(late.allowance(), MAX);
    }

    #[test]
    fn the_relay_that_all_lost_paths_share_is_avoided_and_forgiven() {
        let (bad, now) = (NodeId([0; 32]), Instant::now());
        let mut suspects = Suspects::default();
        for n in 1..4 {
            suspects.lost(&[bad, NodeId([n; 32])], now);
            suspects.answered(&[NodeId([n; 32])], now);
        }
        assert_eq!(suspects.avoid(now), [bad]);
        assert!(suspects.avoid(now + Duration::from_secs(120)).is_empty());
    }

    #[test]
    fn a_relay_that_cannot_be_reached_is_avoided_until_it_is_connected() {
        let (now, relay, other) = (Instant::now(), NodeId([1; 32]), NodeId([2; 32]));
        let mut suspects = Suspects::default();
        suspects.disconnected(relay, now);
        assert_eq!(suspects.avoid(now), [relay]);
        assert!(suspects.avoid(now + Duration::from_secs(30)).is_empty(), "it may only have let us go");
        suspects.unreachable(relay, now);
        suspects.unreachable(other, now);
        assert_eq!(suspects.avoid(now + Duration::from_secs(3600)), [relay, other]);
        suspects.connected(&relay);
        assert_eq!(suspects.avoid(now + Duration::from_secs(120)), [other]);
        (0..2000u16).for_each(|n| {
            suspects
                .unreachable(NodeId([[n as u8; 31].as_slice(), &[(n >> 8) as u8]].concat().try_into().unwrap()), now)
        });
        assert!(suspects.gone.len() <= MAX_SUSPECTS && suspects.scores.len() <= MAX_SUSPECTS);
        suspects.gone.clear();
        assert!(suspects.avoid(now + Duration::from_secs(120)).is_empty());
    }
}
