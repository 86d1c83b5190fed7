//! A token bucket with an explicit clock (the classic rate limit: ITU-T I.371 "leaky bucket as a meter").

use std::time::{Duration, Instant};

/// Lets `rate` events a second pass on average, and `burst` at once.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate_per_second: f64, burst: f64, now: Instant) -> Self {
        Self { rate: rate_per_second.max(0.0), burst: burst.max(1.0), tokens: burst.max(1.0), filled_at: now }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.rate).min(self.burst);
        self.filled_at = self.filled_at.max(now);
    }

    /// Takes up to `wanted` tokens and says how many were there.
    pub fn take(&mut self, wanted: u32, now: Instant) -> u32 {
        self.fill(now);
        // The cast saturates, and tokens are between 0 and burst.
        let granted = wanted.min(self.tokens as u32);
        self.tokens -= f64::from(granted);
        granted
    }

    /// Takes one token if there is one.
    pub fn try_take(&mut self, now: Instant) -> bool {
        self.take(1, now) == 1
    }

    /// How long until one token is there; `None` if that never happens.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        let missing = (1.0 - self.tokens).max(0.0);
        if missing == 0.0 {
            return Some(Duration::ZERO);
        }
        Duration::try_from_secs_f64(missing / self.rate).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10.0, 5.0, start);
        assert_eq!(bucket.take(100, start), 5);
        assert!(!bucket.try_take(start));
        assert_eq!(bucket.wait(start), Some(Duration::from_millis(100)));
        assert_eq!(bucket.take(100, start + Duration::from_millis(300)), 3);
        assert_eq!(bucket.take(100, start + Duration::from_secs(60)), 5);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(1000.0, 1.0, start);
        assert!(bucket.try_take(start));
        assert!(!bucket.try_take(start - Duration::from_secs(5)));
        assert!(!bucket.try_take(start));
    }

    proptest::proptest! {
        #[test]
        fn never_more_than_burst_plus_rate_times_time(steps in proptest::collection::vec((0u64..2_000, 0u32..50), 1..100)) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(7.0, 3.0, start);
            let (mut now, mut granted) = (start, 0);
            for (millis, wanted) in steps {
                now += Duration::from_millis(millis);
                granted += bucket.take(wanted, now);
            }
            proptest::prop_assert!(f64::from(granted) <= 3.0 + 7.0 * (now - start).as_secs_f64() + 1e-6);
        }
    }
}
