//! When packets leave, and whether loops come back.
//!
//! [`SendClock`] is the Poisson process by which every packet of this node's own leaves (Loopix, Piotrowska et al. 2017, §3):
//! applications fill its ticks, they do not make them. [`LoopMonitor`] watches the packets that a node sends to itself: an n−1
//! attack or a dead relay shows as loops that do not return (Danezis and Sassaman 2003).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::Rng;

use super::delay::{exponential, uniform};

/// Behind by more than this (a suspended laptop), missed ticks are not made up for.
const MAX_LAG: Duration = Duration::from_secs(1);

/// How much a node hides of when it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// Packets leave on the clock, and nothing else is sent.
    None,
    /// Some loops besides.
    Loops,
    /// Every tick carries a packet: a message's, a loop, or a drop packet.
    Full,
}

/// A Poisson process that can sleep while there is nothing to send.
#[derive(Debug)]
pub struct SendClock {
    mean: Duration,
    next: Option<Instant>,
}

impl SendClock {
    /// `rate` ticks a second on average, from 0.01 to 100,000.
    pub fn new(rate: f64) -> Self {
        Self { mean: Duration::from_secs_f64(1.0 / rate.clamp(0.01, 100_000.0)), next: None }
    }

    /// Starts the clock if it sleeps. As a Poisson process has no memory, the next tick is as far away as it would have been.
    pub fn wake(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.next.is_none() {
            self.next = Some(now + self.draw(rng));
        }
    }

    /// Stops the clock until it is woken.
    pub fn sleep(&mut self) {
        self.next = None;
    }

    /// Whether a tick is due; takes it. Ticks follow from the last tick, not from the time they were served.
    pub fn tick(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        let Some(due) = self.next.filter(|due| *due <= now) else { return false };
        let from = if now.saturating_duration_since(due) > MAX_LAG { now } else { due };
        self.next = Some(from + self.draw(rng));
        true
    }

    /// The next tick.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    fn draw(&self, rng: &mut impl Rng) -> Duration {
        exponential(self.mean, uniform(rng.next_u64()))
    }
}

/// Expected loss of a healthy network, and the loss that must raise the alarm.
const HEALTHY_LOSS: f64 = 0.02;
const ALARMING_LOSS: f64 = 0.30;
/// ln of the odds at which the alarm is raised: with healthy loss, one false alarm in more than a thousand loops.
const ALARM_AT: f64 = 6.9;

/// Loops that are on their way, and a CUSUM test on their loss (Page 1954).
#[derive(Debug, Default)]
pub struct LoopMonitor {
    pending: BTreeMap<[u8; 16], Instant>,
    evidence: f64,
    returned: u64,
    lost: u64,
}

impl LoopMonitor {
    /// A loop has left and is lost if it is not back by `deadline`.
    pub fn sent(&mut self, id: [u8; 16], deadline: Instant) {
        self.pending.insert(id, deadline);
    }

    /// A loop came back. False if no such loop is on its way.
    pub fn returned(&mut self, id: &[u8; 16]) -> bool {
        let known = self.pending.remove(id).is_some();
        if known {
            self.returned += 1;
            self.weigh(((1.0 - ALARMING_LOSS) / (1.0 - HEALTHY_LOSS)).ln());
        }
        known
    }

    /// Counts the loops whose time has run out.
    pub fn handle_timeout(&mut self, now: Instant) {
        let before = self.pending.len();
        self.pending.retain(|_, deadline| *deadline > now);
        for _ in self.pending.len()..before {
            self.lost += 1;
            self.weigh((ALARMING_LOSS / HEALTHY_LOSS).ln());
        }
    }

    fn weigh(&mut self, log_odds: f64) {
        // Capped, so that an alarm ends soon after the cause does.
        self.evidence = (self.evidence + log_odds).clamp(0.0, 2.0 * ALARM_AT);
    }

    /// Whether so many loops are lost that something holds packets back.
    pub fn alarm(&self) -> bool {
        self.evidence >= ALARM_AT
    }

    /// How many came back.
    pub fn returned_total(&self) -> u64 {
        self.returned
    }

    /// How many did not.
    pub fn lost_total(&self) -> u64 {
        self.lost
    }

    /// The next deadline.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn ticks_are_a_poisson_process_even_when_served_late() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let start = Instant::now();
        let mut clock = SendClock::new(50.0);
        clock.wake(start, &mut rng);
        let (mut now, mut ticks) = (start, 0u32);
        while now < start + Duration::from_secs(1000) {
            // Served up to 30 ms late: several ticks may be due at once.
            now += Duration::from_millis(rng.random_range(1..30));
            while clock.tick(now, &mut rng) {
                ticks += 1;
            }
        }
        // 50,000 expected, standard deviation 224.
        assert!((49_000..51_000).contains(&ticks), "{ticks}");
    }

    #[test]
    fn a_long_sleep_is_not_made_up_for() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let start = Instant::now();
        let mut clock = SendClock::new(50.0);
        clock.wake(start, &mut rng);
        let later = start + Duration::from_secs(3600);
        let mut ticks = 0;
        while clock.tick(later, &mut rng) {
            ticks += 1;
        }
        assert_eq!(ticks, 1);
        assert!(clock.next().is_some_and(|next| next > later));
    }

    #[test]
    fn healthy_loss_stays_quiet_and_an_n_minus_1_attack_raises_the_alarm_within_ten_loops() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let run = |loss: f64, loops: usize, seed: u64| {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let mut monitor = LoopMonitor::default();
            (0..loops).position(|n| {
                let id = [n as u8; 16];
                monitor.sent(id, later);
                if !rng.random_bool(loss) {
                    monitor.returned(&id);
                }
                monitor.handle_timeout(later);
                monitor.alarm()
            })
        };
        let false_alarms = (0..200).filter(|seed| run(0.02, 200, *seed).is_some()).count();
        assert!(false_alarms < 20, "{false_alarms} of 200 runs of 200 loops");
        assert!((0..100).all(|seed| run(1.0, 10, seed).is_some()));
        let median_at_half = (0..100).filter(|seed| run(0.5, 20, *seed).is_some()).count();
        assert!(median_at_half >= 90, "{median_at_half}");
    }

    #[test]
    fn an_unknown_loop_is_no_evidence() {
        let mut monitor = LoopMonitor::default();
        assert!(!monitor.returned(&[1; 16]));
        assert_eq!(monitor.returned_total(), 0);
    }
}
