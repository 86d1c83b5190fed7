//! Relays that did not answer a moment ago: for a while paths go without them, where there are others.
//!
//! Relays stay in the directory for an epoch after they are gone. Without a memory each circuit would find that out anew, at the price of
//! a timeout. Who failed is not known: the relay that did not answer gets two points, and the one before it, which may not have passed
//! the question on, one. Guards are no business of this: they have rules of their own, and a relay that fails must not move a client
//! to another guard.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use fog_base::NodeId;

/// Points at which a relay is passed over.
const MOST: u32 = 2;
/// For how long, at first and at most; twice as long each time.
const PAUSE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(600));
/// What was longer ago than this since a relay's last failure is forgotten.
const FORGET: Duration = Duration::from_secs(1200);
/// Relays that are remembered.
const REMEMBERED: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Suspect {
    points: u32,
    /// How often it was passed over.
    times: u32,
    until: Option<Instant>,
    last: Instant,
}

/// The relays that failed.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    seen: HashMap<NodeId, Suspect>,
}

impl Suspects {
    /// The last of these relays did not answer; the first is the guard.
    pub(super) fn handle_failed(&mut self, path: &[NodeId], now: Instant) {
        let others = path.get(1..).unwrap_or_default();
        for (relay, points) in others.iter().rev().zip([MOST, 1]) {
            self.add(*relay, points, now);
        }
    }

    fn add(&mut self, relay: NodeId, points: u32, now: Instant) {
        self.seen.retain(|_, suspect| now.saturating_duration_since(suspect.last) < FORGET);
        if self.seen.len() >= REMEMBERED && !self.seen.contains_key(&relay) {
            let oldest =
                self.seen.iter().min_by_key(|(relay, suspect)| (suspect.last, **relay)).map(|(relay, _)| *relay);
            oldest.and_then(|oldest| self.seen.remove(&oldest));
        }
        let suspect = self.seen.entry(relay).or_insert(Suspect { points: 0, times: 0, until: None, last: now });
        suspect.last = now;
        suspect.points += points;
        let is_passed_over = suspect.until.is_some_and(|until| until > now);
        if suspect.points >= MOST && !is_passed_over {
            let pause = PAUSE.0.saturating_mul(1 << suspect.times.min(10)).min(PAUSE.1);
            (suspect.points, suspect.times, suspect.until) = (0, suspect.times.saturating_add(1), Some(now + pause));
        }
    }

    /// A circuit over these relays was built.
    pub(super) fn handle_built(&mut self, path: &[NodeId]) {
        path.iter().for_each(|relay| _ = self.seen.remove(relay));
    }

    /// Those that are passed over now.
    pub(super) fn list(&self, now: Instant) -> Vec<NodeId> {
        let passed = self.seen.iter().filter(|(_, suspect)| suspect.until.is_some_and(|until| until > now));
        let mut passed: Vec<_> = passed.map(|(relay, _)| *relay).collect();
        passed.sort_unstable();
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn who_does_not_answer_is_passed_over_at_once_and_who_was_before_it_the_second_time() {
        let (mut suspects, now) = (Suspects::default(), Instant::now());
        suspects.handle_failed(&[node(1), node(2), node(3)], now);
        assert_eq!(suspects.list(now), [node(3)]);
        suspects.handle_failed(&[node(1), node(2), node(4)], now);
        let mut passed = suspects.list(now);
        passed.sort_unstable();
        assert_eq!(passed, [node(2), node(3), node(4)]);
        suspects.handle_failed(&[node(1)], now);
        assert_eq!(suspects.list(now).len(), 3, "a guard is never passed over");
    }

    #[test]
    fn it_is_passed_over_for_longer_each_time_and_forgiven_when_it_works() {
        let (mut suspects, mut now) = (Suspects::default(), Instant::now());
        for pause in [15, 30, 60, 120, 240, 480, 600, 600] {
            suspects.handle_failed(&[node(1), node(2)], now);
            let pause = Duration::from_secs(pause);
            assert_eq!(suspects.list(now + pause - Duration::from_millis(1)), [node(2)]);
            assert!(suspects.list(now + pause).is_empty());
            now += pause;
        }
        suspects.handle_failed(&[node(1), node(2)], now);
        suspects.handle_built(&[node(1), node(2), node(3)]);
        assert!(suspects.list(now).is_empty());
        suspects.handle_failed(&[node(1), node(2)], now);
        assert!(suspects.list(now + PAUSE.0).is_empty(), "as if for the first time");
    }

    #[test]
    fn a_bounded_number_is_remembered_and_for_a_bounded_time() {
        let (mut suspects, now) = (Suspects::default(), Instant::now());
        for n in 0..=255 {
            suspects.handle_failed(&[node(0), node(n)], now + Duration::from_millis(n.into()));
        }
        assert_eq!(suspects.list(now).len(), REMEMBERED);
        assert!(suspects.list(now).contains(&node(255)));
        suspects.handle_failed(&[node(0), node(1)], now + 2 * FORGET);
        assert_eq!(suspects.seen.len(), 1);
    }
}
