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
/// Of all builds, so many are done in time.
const QUANTILE: f64 = 0.8;
/// The timeout of a step before anything is known: a circuit of three hops, which takes six, has 12 s.
const INITIAL: Duration = Duration::from_secs(2);
/// Limits of the timeout of a step.
const RANGE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
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
    failed: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { times: VecDeque::new(), step: INITIAL, failed: 0 }
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
        if self.times.len() >= ENOUGH {
            self.step = Duration::try_from_secs_f64(self.quantile()).unwrap_or(RANGE.1).clamp(RANGE.0, RANGE.1);
        }
    }

    /// A build was not done in time. Many in a row: what was learnt is no longer true.
    pub fn handle_timeout(&mut self) {
        self.failed += 1;
        if self.failed >= MAX_FAILED {
            self.failed = 0;
            self.times.clear();
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
        (1..ENOUGH).for_each(|_| timeouts.handle_built(6, Duration::from_millis(60)));
        assert_eq!(timeouts.timeout(steps(0, 3)), INITIAL * 6);
        timeouts.handle_built(6, Duration::from_millis(60));
        assert_eq!(timeouts.timeout(1), RANGE.0);
        (0..MAX_FAILED).for_each(|_| timeouts.handle_timeout());
        assert_eq!(timeouts.timeout(1), INITIAL);
        (0..100 * MAX_FAILED).for_each(|_| timeouts.handle_timeout());
        assert_eq!(timeouts.timeout(1), RANGE.1);
    }

    #[test]
    fn a_later_hop_takes_more_steps() {
        assert_eq!((steps(0, 1), steps(0, 3), steps(2, 3), steps(3, 3)), (1, 6, 3, 0));
    }
}
