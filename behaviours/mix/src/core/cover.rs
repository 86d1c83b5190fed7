//! When packets leave.
//!
//! [`SendClock`] is the Poisson process by which every packet of this node's own leaves (Loopix, Piotrowska et al. 2017, §3):
//! applications fill its ticks, they do not make them.

use std::time::{Duration, Instant};

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
}
