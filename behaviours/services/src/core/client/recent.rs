//! What did not answer a moment ago, for all connections of a client: another one is tried first. That a relay or a point is away is no secret of
//! the connection that found it out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// For how long it counts.
const COUNTS: Duration = Duration::from_secs(60);
/// How many are remembered.
const CAPACITY: usize = 64;

/// Relays by their ids, points by their keys.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<([u8; 32], Instant)>);

impl Recent {
    pub(super) fn add(&mut self, what: [u8; 32], now: Instant) {
        self.forget(&what);
        if self.0.len() >= CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back((what, now));
    }

    /// It answered.
    pub(super) fn forget(&mut self, what: &[u8; 32]) {
        self.0.retain(|(other, _)| other != what);
    }

    pub(super) fn has(&self, what: &[u8; 32], now: Instant) -> bool {
        self.0.iter().any(|(other, at)| other == what && now.saturating_duration_since(*at) < COUNTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_known_for_a_minute_or_until_it_answers() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.add([1; 32], now);
        recent.add([2; 32], now);
        recent.forget(&[2; 32]);
        let just = now + COUNTS - Duration::from_millis(1);
        assert_eq!([recent.has(&[1; 32], just), recent.has(&[1; 32], now + COUNTS)], [true, false]);
        assert!(!recent.has(&[2; 32], now));
        (0..=255).for_each(|n| recent.add([n; 32], now));
        assert!(recent.0.len() == CAPACITY && recent.has(&[255; 32], now) && !recent.has(&[0; 32], now));
    }
}
