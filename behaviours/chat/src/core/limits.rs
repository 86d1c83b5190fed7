//! How much is taken from one author live, and how much one peer is answered.

use std::{collections::BTreeMap, time::Instant};

use fog_base::{NodeId, TokenBucket};

use super::{id::DeviceId, reject::Reject};

/// Live messages of one author, per second and at once.
pub const AUTHOR_RATE: (f64, f64) = (50.0, 512.0);
/// Hellos of one peer, per second and at once.
pub const HELLO_RATE: (f64, f64) = (2.0, 8.0);
/// Lists of one peer, per second and at once.
pub const LISTS_RATE: (f64, f64) = (16.0, 64.0);
/// Fetches of one peer, per second and at once.
pub const FETCH_RATE: (f64, f64) = (16.0, 64.0);
/// The most authors, or peers, that are remembered.
pub const MAX_KEYS: usize = 4_096;

/// A rate for each key; the key that was idle longest is forgotten when there are too many.
#[derive(Debug)]
pub struct Rates<K> {
    rate: (f64, f64),
    buckets: BTreeMap<K, (TokenBucket, Instant)>,
}

impl<K: Ord + Copy> Rates<K> {
    /// With `rate` per second and at once for each.
    pub fn new(rate: (f64, f64)) -> Self {
        Self { rate, buckets: BTreeMap::new() }
    }

    /// Takes one of `key`.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), Reject> {
        if !self.buckets.contains_key(&key) && self.buckets.len() >= MAX_KEYS {
            self.forget(now);
        }
        let (rate, burst) = self.rate;
        let (bucket, used) = self.buckets.entry(key).or_insert_with(|| (TokenBucket::new(rate, burst, now), now));
        *used = now;
        if bucket.try_take(now) { Ok(()) } else { Err(Reject::RateLimited) }
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The older half: one pass for many keys.
    fn forget(&mut self, now: Instant) {
        let mut ages: Vec<_> = self.buckets.values().map(|(_, used)| now.saturating_duration_since(*used)).collect();
        ages.sort_unstable();
        let median = ages.get(ages.len() / 2).copied().unwrap_or_default();
        let before = self.buckets.len();
        self.buckets.retain(|_, (_, used)| now.saturating_duration_since(*used) < median);
        if self.buckets.len() == before {
            self.buckets.clear();
        }
    }
}

/// All limits together.
#[derive(Debug)]
pub struct Limits {
    /// Live messages by author.
    pub authors: Rates<DeviceId>,
    /// Hellos by peer.
    pub hellos: Rates<NodeId>,
    /// Lists and pushes by peer.
    pub lists: Rates<NodeId>,
    /// Fetches by peer.
    pub fetches: Rates<NodeId>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            authors: Rates::new(AUTHOR_RATE),
            hellos: Rates::new(HELLO_RATE),
            lists: Rates::new(LISTS_RATE),
            fetches: Rates::new(FETCH_RATE),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_author_spends_nobody_elses_rate() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let (loud, quiet) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let taken = (0..1_000).filter(|_| limits.authors.take(loud, now).is_ok()).count();
        assert_eq!(taken, 512);
        assert_eq!(limits.authors.take(quiet, now), Ok(()));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..1_000).filter(|_| limits.authors.take(loud, later).is_ok()).count(), 50);
    }

    #[test]
    fn the_memory_is_bounded_whoever_comes() {
        let (mut rates, now) = (Rates::new(AUTHOR_RATE), Instant::now());
        for n in 0..20_000u64 {
            let _within = rates.take(n, now + Duration::from_millis(n / 100));
            assert!(rates.len() <= MAX_KEYS);
        }
        for n in 0..20_000u64 {
            let _within = rates.take(n, now);
            assert!(rates.len() <= MAX_KEYS);
        }
    }
}
