//! How fast a source is: bytes a second while something is requested of it, and its shortest round trip.

use std::time::{Duration, Instant};

/// How long a sample is at least.
const SAMPLE: Duration = Duration::from_millis(200);
/// A shorter sample counts when nothing more is requested.
const SHORT_SAMPLE: Duration = Duration::from_millis(5);
/// How much a new sample changes the estimate.
const NEWEST: f64 = 0.5;
/// Assumed of a source that sent nothing yet, in bytes a second.
const UNKNOWN: f64 = 256.0 * 1024.0;
/// Below this nothing is told apart, in bytes a second.
const LEAST: f64 = 64.0;

/// The speed of one source.
#[derive(Debug, Clone)]
pub(super) struct Estimate {
    rate: Option<f64>,
    round_trip: Option<Duration>,
    since: Instant,
    bytes: u64,
}

impl Estimate {
    pub(super) fn new(now: Instant) -> Self {
        Self { rate: None, round_trip: None, since: now, bytes: 0 }
    }

    /// The first request after a pause: time that passed until now says nothing.
    pub(super) fn start(&mut self, now: Instant) {
        self.since = now;
        self.bytes = 0;
    }

    /// What came.
    pub(super) fn add(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        if now.saturating_duration_since(self.since) >= SAMPLE {
            self.sample(now);
        }
    }

    /// Nothing more is requested.
    pub(super) fn stop(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= SHORT_SAMPLE {
            self.sample(now);
        }
    }

    fn sample(&mut self, now: Instant) {
        let found = self.so_far(now);
        self.rate = Some(self.rate.map_or(found, |rate| rate + NEWEST * (found - rate)));
        self.start(now);
    }

    fn so_far(&self, now: Instant) -> f64 {
        self.bytes as f64 / now.saturating_duration_since(self.since).as_secs_f64().max(1e-3)
    }

    /// A round trip was seen.
    pub(super) fn round_trip(&mut self, took: Duration) {
        self.round_trip = Some(self.round_trip.map_or(took, |shortest| shortest.min(took)));
    }

    /// The shortest round trip, if one was seen.
    pub(super) fn delay(&self) -> Duration {
        self.round_trip.unwrap_or_default()
    }

    /// Whether anything is known.
    pub(super) fn is_known(&self) -> bool {
        self.rate.is_some()
    }

    /// Bytes a second; at least 64. What did not come lately counts.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        let rate = self.rate.unwrap_or(UNKNOWN);
        let silent = now.saturating_duration_since(self.since) >= 2 * SAMPLE;
        let rate = if silent { rate.min(self.so_far(now)) } else { rate };
        rate.max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::start;

    #[test]
    fn it_follows_what_comes_and_a_pause_does_not_count() {
        let mut now = start().mono;
        let mut estimate = Estimate::new(now);
        assert_eq!((estimate.is_known(), estimate.rate(now)), (false, UNKNOWN));
        estimate.start(now);
        for _ in 0..100 {
            now += Duration::from_millis(50);
            estimate.add(50_000, now);
        }
        assert!((estimate.rate(now) - 1e6).abs() < 1e4, "{}", estimate.rate(now));
        now += Duration::from_secs(60);
        estimate.start(now);
        assert!((estimate.rate(now) - 1e6).abs() < 1e4);
        now += Duration::from_secs(10);
        estimate.add(1_000, now - Duration::from_secs(10));
        assert!(estimate.rate(now) < 200.0, "silence while something is requested does count");
    }

    #[test]
    fn the_shortest_round_trip_stands() {
        let mut estimate = Estimate::new(start().mono);
        for ms in [50, 20, 90] {
            estimate.round_trip(Duration::from_millis(ms));
        }
        assert_eq!(estimate.delay(), Duration::from_millis(20));
    }
}
