//! How long building a circuit may take: learnt from how long it took (Tor's path-spec §2.4, circuit build timeouts).
//!
//! Build times follow a Pareto distribution about as well as anything. Its parameters are estimated from the last builds, and the
//! timeout is the time within which four of five builds are done: the slowest fifth is not worth waiting for. Times are
//! counted in *steps*, of which the n-th hop takes n, because its handshake passes n links.

use std::{collections::VecDeque, time::Duration};

/// Builds that are remembered.
const REMEMBERED: usize = 100;
/// Fewer than these say nothing.
const ENOUGH: usize = 20;
/// With so many it is known what is far from usual.
const SOME: usize = 5;
/// Of all builds, so many are done in time.
const QUANTILE: f64 = 0.8;
/// The timeout of a step before anything is known: a circuit of three hops, which takes six, has 3 s.
const INITIAL: Duration = Duration::from_millis(500);
/// Until enough is known, so many timeouts in a row double it.
const EARLY_FAILED: u32 = 3;
/// Until enough is known, a step has so many times what the slowest took, if that is more.
const EARLY_SLACK: u32 = 4;
/// Limits of the timeout of a step.
const RANGE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Of the usual time; one in fifty takes longer where one in five takes longer than that and the shape is 2.
const GENEROUS: u32 = 3;
/// After so many timeouts in a row, the network has changed.
const MAX_FAILED: u32 = 8;

/// How many steps hops `from + 1` to `to` take.
pub fn steps(from: usize, to: usize) -> u32 {
    u32::try_from((from + 1..=to).sum::<usize>()).unwrap_or(u32::MAX)
}

/// The estimate.
#[derive(Debug)]
pub struct Timeouts {
    /// Seconds for each step, oldest first.
    times: VecDeque<f64>,
    step: Duration,
    /// Within which four of five are done, if that is known.
    usual: Option<Duration>,
    failed: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { times: VecDeque::new(), step: INITIAL, usual: None, failed: 0 }
    }
}

impl Timeouts {
    /// How long so many steps may take.
    pub fn timeout(&self, steps: u32) -> Duration {
        self.step.saturating_mul(steps)
    }

    /// So many steps took `time`.
    pub fn handle_built(&mut self, steps: u32, time: Duration) {
        self.failed = 0;
        if self.times.len() >= REMEMBERED {
            self.times.pop_front();
        }
        self.times.push_back((time / steps.max(1)).as_secs_f64().max(1e-6));
        let quantile = Duration::try_from_secs_f64(self.quantile()).unwrap_or(RANGE.1);
        self.usual = (self.times.len() >= SOME).then_some(quantile);
        let early = (time / steps.max(1)).saturating_mul(EARLY_SLACK).max(self.step);
        self.step = if self.times.len() >= ENOUGH { quantile } else { early }.clamp(RANGE.0, RANGE.1);
    }

    /// Whether the timeout is far from usual: what takes longer is not merely slow.
    pub fn is_generous(&self) -> bool {
        self.usual.is_some_and(|usual| self.step >= usual.saturating_mul(GENEROUS))
    }

    /// A build was not done in time. Many in a row: what was learnt is no longer true.
    pub fn handle_timeout(&mut self) {
        self.failed += 1;
        let most = if self.times.len() < ENOUGH { EARLY_FAILED } else { MAX_FAILED };
        if self.failed >= most {
            self.failed = 0;
            self.times.clear();
            self.usual = None;
            self.step = self.step.saturating_mul(2).clamp(INITIAL.min(RANGE.1), RANGE.1);
        }
    }

    /// The quantile of the Pareto distribution that is likeliest, with the shortest time as its scale.
    fn quantile(&self) -> f64 {
        let scale = self.times.iter().copied().fold(f64::INFINITY, f64::min);
        let logs: f64 = self.times.iter().map(|time| (time / scale).ln()).sum();
        let shape = self.times.len() as f64 / logs.max(1e-9);
        scale / (1.0 - QUANTILE).powf(1.0 / shape)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn four_of_five_builds_are_done_in_time() {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        let mut draw = || Duration::from_secs_f64(0.3 * rng.random_range(0.0f64..1.0).powf(-1.0 / 3.0));
        let mut timeouts = Timeouts::default();
        (0..REMEMBERED).for_each(|_| timeouts.handle_built(1, draw()));
        let in_time = (0..10_000).filter(|_| draw() < timeouts.timeout(1)).count();
        assert!((7_200..8_800).contains(&in_time), "{in_time}");
    }

    #[test]
    fn nothing_is_learnt_from_few_and_too_much_forgotten_by_many_timeouts() {
        let mut timeouts = Timeouts::default();
        (1..SOME).for_each(|_| timeouts.handle_built(6, Duration::from_millis(60)));
        assert!(!timeouts.is_generous());
        (SOME..ENOUGH).for_each(|_| timeouts.handle_built(6, Duration::from_millis(60)));
        assert_eq!((timeouts.timeout(steps(0, 3)), timeouts.is_generous()), (INITIAL * 6, true));
        timeouts.handle_built(6, Duration::from_millis(60));
        assert_eq!((timeouts.timeout(1), timeouts.is_generous()), (RANGE.0, true));
        (1..MAX_FAILED).for_each(|_| timeouts.handle_timeout());
        assert_eq!(timeouts.timeout(1), RANGE.0);
        timeouts.handle_timeout();
        assert_eq!(timeouts.timeout(1), INITIAL);
        (0..100 * MAX_FAILED).for_each(|_| timeouts.handle_timeout());
        assert_eq!(timeouts.timeout(1), RANGE.1);
    }

    #[test]
    fn a_slow_network_is_waited_for_though_nothing_is_known_yet() {
        let mut timeouts = Timeouts::default();
        (1..EARLY_FAILED).for_each(|_| timeouts.handle_timeout());
        assert_eq!(timeouts.timeout(1), INITIAL);
        timeouts.handle_timeout();
        assert_eq!(timeouts.timeout(1), 2 * INITIAL);
        timeouts.handle_built(1, Duration::from_millis(900));
        assert_eq!(timeouts.timeout(1), EARLY_SLACK * Duration::from_millis(900));
        timeouts.handle_built(1, Duration::from_millis(10));
        assert_eq!(timeouts.timeout(1), EARLY_SLACK * Duration::from_millis(900), "the slowest counts");
    }

    #[test]
    fn a_later_hop_takes_more_steps() {
        assert_eq!((steps(0, 1), steps(0, 3), steps(2, 3), steps(3, 3)), (1, 6, 3, 0));
    }
}
