//! When what is due.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// At most one moment for each key.
#[derive(Debug, Clone)]
pub(crate) struct Timers<K> {
    queue: BTreeSet<(Instant, K)>,
    due: BTreeMap<K, Instant>,
}

impl<K: Ord + Copy> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { queue: BTreeSet::new(), due: BTreeMap::new() }
    }

    /// `key` is due then and at no other time.
    pub(crate) fn set(&mut self, key: K, at: Option<Instant>) {
        if self.due.get(&key).copied() == at {
            return;
        }
        if let Some(before) = self.due.remove(&key) {
            self.queue.remove(&(before, key));
        }
        if let Some(at) = at {
            self.due.insert(key, at);
            self.queue.insert((at, key));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The first key that is due, which then is not any more.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}

/// Saying something again: after a second, doubling up to half a minute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resend {
    /// When next.
    pub(crate) at: Instant,
    wait: Duration,
    /// How often it was said.
    pub(crate) times: u32,
}

impl Resend {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(32);

    /// It is said now for the first time.
    pub(crate) fn new(now: Instant) -> Self {
        Self::paced(now, Self::FIRST)
    }

    /// The same, and the first repetition comes after `first`.
    pub(crate) fn paced(now: Instant, first: Duration) -> Self {
        Self { at: now + first, wait: first, times: 1 }
    }

    /// Whether to say it again now.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        self.wait = (self.wait * 2).min(Self::LONGEST);
        self.at = now + self.wait;
        self.times += 1;
        true
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests start their clocks somewhere")]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_due_once_at_its_last_moment() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::new();
        timers.set('a', Some(at(5)));
        timers.set('b', Some(at(3)));
        timers.set('a', Some(at(1)));
        timers.set('c', Some(at(2)));
        timers.set('c', None);
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(
            (timers.pop(at(0)), timers.pop(at(3)), timers.pop(at(3)), timers.pop(at(9))),
            (None, Some('a'), Some('b'), None)
        );
    }

    #[test]
    fn repetitions_come_after_1_2_4_seconds_and_then_every_32() {
        let start = Instant::now();
        let mut resend = Resend::new(start);
        let times: Vec<u64> = (1..=130).filter(|s| resend.is_due(start + Duration::from_secs(*s))).collect();
        assert_eq!(times, [1, 3, 7, 15, 31, 63, 95, 127]);
    }
}
