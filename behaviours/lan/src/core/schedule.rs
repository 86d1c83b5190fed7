//! When the next beacon leaves.

use std::time::{Duration, Instant};

use super::random::Random;

/// Between beacons while no neighbour is connected; the last one repeats.
const ALONE: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// With a neighbour: uniform between the two.
const IN_COMPANY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(30));
/// Never more often, whatever others do.
pub(super) const LEAST: Duration = Duration::from_millis(500);
/// Nor, when this host's own addresses change: several come up together.
const LEAST_OF_OWN: Duration = Duration::from_millis(100);
/// Within this time a newcomer is answered; not at once, as many may answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);
/// Of the intervals while alone, so that hosts that are switched on together drift apart.
const JITTER: f64 = 0.2;

/// The clock of beacons.
#[derive(Debug)]
pub(super) struct Schedule {
    next: Instant,
    last: Option<Instant>,
    step: usize,
    is_alone: bool,
}

impl Schedule {
    /// The first one is due now.
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now, last: None, step: 0, is_alone: true }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    fn sooner(&mut self, at: Instant, least: Duration) {
        let earliest = self.last.map_or(at, |last| at.max(last + least));
        self.next = self.next.min(earliest);
    }

    /// A beacon left.
    pub(super) fn handle_sent(&mut self, now: Instant, random: &mut Random) {
        self.last = Some(now);
        let wait = if self.is_alone {
            let interval = ALONE.get(self.step).or(ALONE.last()).copied().unwrap_or(LEAST);
            self.step = (self.step + 1).min(ALONE.len());
            interval + random.up_to(interval.mul_f64(JITTER))
        } else {
            IN_COMPANY.0 + random.up_to(IN_COMPANY.1 - IN_COMPANY.0)
        };
        self.next = now + wait;
    }

    /// There is no address to send one from: looks again soon.
    pub(super) fn handle_nowhere(&mut self, now: Instant) {
        self.next = now + LEAST;
    }

    /// An interface came up, or the node listens elsewhere: others learn of it at once.
    pub(super) fn handle_moved(&mut self, now: Instant) {
        self.step = 0;
        self.sooner(now, LEAST_OF_OWN);
    }

    /// Somebody is new here.
    pub(super) fn handle_newcomer(&mut self, now: Instant, random: &mut Random) {
        let answer = random.up_to(ANSWER_WITHIN);
        self.sooner(now + answer, LEAST);
    }

    /// Whether no neighbour is connected.
    pub(super) fn set_alone(&mut self, is_alone: bool, now: Instant) {
        if is_alone && !self.is_alone {
            self.step = 0;
            self.sooner(now + LEAST, LEAST);
        }
        self.is_alone = is_alone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "tests start their clocks somewhere")]
    fn start() -> (Schedule, Random, Instant) {
        let now = Instant::now();
        (Schedule::new(now), Random::new([3; 32]), now)
    }

    fn gaps(schedule: &mut Schedule, random: &mut Random, n: usize) -> Vec<Duration> {
        let gap = |_| {
            let at = schedule.next();
            schedule.handle_sent(at, random);
            schedule.next() - at
        };
        (0..n).map(gap).collect()
    }

    #[test]
    fn alone_it_starts_fast_and_keeps_on_every_two_seconds() {
        let (mut schedule, mut random, now) = start();
        assert_eq!(schedule.next(), now, "the first one at once");
        let gaps = gaps(&mut schedule, &mut random, 6);
        for (gap, least) in gaps.iter().zip([500, 1_000, 2_000, 2_000, 2_000, 2_000]) {
            let least = Duration::from_millis(least);
            assert!(*gap >= least && *gap <= least.mul_f64(1.0 + JITTER), "{gaps:?}");
        }
    }

    #[test]
    fn in_company_it_is_slow_and_not_regular() {
        let (mut schedule, mut random, now) = start();
        schedule.set_alone(false, now);
        let gaps = gaps(&mut schedule, &mut random, 50);
        assert!(gaps.iter().all(|gap| (IN_COMPANY.0..=IN_COMPANY.1).contains(gap)), "{gaps:?}");
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*most - *least > Duration::from_secs(10), "{gaps:?}");
    }

    #[test]
    fn whatever_others_do_two_beacons_are_half_a_second_apart() {
        let (mut schedule, mut random, now) = start();
        schedule.set_alone(false, now);
        schedule.handle_sent(now, &mut random);
        for _ in 0..10_000 {
            schedule.handle_newcomer(now, &mut random);
        }
        assert_eq!(schedule.next(), now + LEAST);
        schedule.handle_moved(now);
        assert_eq!(schedule.next(), now + LEAST_OF_OWN);
        let later = now + Duration::from_secs(10);
        schedule.handle_sent(later, &mut random);
        schedule.handle_newcomer(later + Duration::from_secs(5), &mut random);
        let answered = schedule.next() - later;
        assert!((Duration::from_secs(5)..=Duration::from_millis(5_400)).contains(&answered), "{answered:?}");
    }

    #[test]
    fn who_is_left_alone_is_fast_again() {
        let (mut schedule, mut random, now) = start();
        schedule.set_alone(false, now);
        schedule.handle_sent(now, &mut random);
        schedule.set_alone(true, now);
        assert_eq!(schedule.next(), now + LEAST);
        schedule.handle_sent(schedule.next(), &mut random);
        assert!(schedule.next() <= now + Duration::from_millis(1_100));
    }
}
