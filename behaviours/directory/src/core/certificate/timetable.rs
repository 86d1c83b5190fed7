//! At which moments of an epoch the set of the next one is certified. All are fractions of the epoch, so that they fit
//! an epoch of ten seconds and one of a day.
//!
//! A relay signs its descriptor in the first half of an epoch (`publisher.rs`), and senders may write the next epoch
//! into a packet from five sixths on (fog-base, `EpochSchedule::for_sending`). Certifying takes place in between.

use std::time::Duration;

use fog_base::{Epoch, EpochSchedule, UnixMillis};

use super::{ballot::Round, electorate::ATTEMPTS};

/// The epoch is cut into so many parts.
const PARTS: u32 = 48;
const RECONCILE: u32 = 25;
const WITNESS: u32 = 27;
const CUT_OFF: u32 = 28;
const FIRST_ROUND: u32 = 30;
const ROUND: u32 = 2;
const ASK: u32 = 40;

/// When what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timetable {
    schedule: EpochSchedule,
}

impl Timetable {
    /// Of a network's epochs.
    pub fn new(schedule: EpochSchedule) -> Self {
        Self { schedule }
    }

    /// The epochs.
    pub fn schedule(&self) -> &EpochSchedule {
        &self.schedule
    }

    fn before(&self, epoch: Epoch, parts: u32) -> UnixMillis {
        self.schedule.start(Epoch(epoch.0.saturating_sub(1))).plus(self.schedule.length() * parts / PARTS)
    }

    /// All relays have signed: whoever missed a descriptor gets it from a peer.
    pub fn reconcile(&self, epoch: Epoch) -> UnixMillis {
        self.before(epoch, RECONCILE)
    }

    /// Relays that a voter holds at this moment may not be missing in the set of `epoch`.
    pub fn witness(&self, epoch: Epoch) -> UnixMillis {
        self.before(epoch, WITNESS)
    }

    /// The set of `epoch` has no descriptor from this moment or later.
    pub fn cut_off(&self, epoch: Epoch) -> UnixMillis {
        self.before(epoch, CUT_OFF)
    }

    /// From then on senders may write `epoch` into packets: whoever has no certificate asks its peers.
    pub fn ask(&self, epoch: Epoch) -> UnixMillis {
        self.before(epoch, ASK)
    }

    /// When `round` begins; it ends when the next attempt begins, or would.
    pub fn start(&self, round: Round) -> UnixMillis {
        self.before(round.epoch, FIRST_ROUND + ROUND * u32::from(round.attempt))
    }

    /// The last quarter of `round`, in which seats show the votes that bind them.
    pub fn rescue(&self, round: Round) -> UnixMillis {
        self.start(round).plus(self.length() * 3 / 4)
    }

    /// The length of a round.
    pub fn length(&self) -> Duration {
        self.schedule.length() * ROUND / PARTS
    }

    /// The round at `time`, if there is one.
    pub fn round(&self, time: UnixMillis) -> Option<Round> {
        let epoch = self.schedule.at(time).next();
        let rounds = (0..ATTEMPTS).map(|attempt| Round { epoch, attempt });
        rounds
            .rev()
            .find(|round| self.start(*round) <= time)
            .filter(|last| time < self.start(*last).plus(self.length()))
    }

    /// The next moment after `time` at which something is due.
    pub fn next(&self, time: UnixMillis) -> UnixMillis {
        let epoch = self.schedule.at(time).next();
        let moments = [epoch, epoch.next()].into_iter().flat_map(|epoch| {
            let rounds = (0..ATTEMPTS).map(move |attempt| Round { epoch, attempt });
            let before = [self.reconcile(epoch), self.witness(epoch), self.cut_off(epoch)];
            let after = [self.ask(epoch), self.schedule.start(epoch)];
            rounds.flat_map(|round| [self.start(round), self.rescue(round)]).chain(before).chain(after)
        });
        moments.filter(|moment| *moment > time).min().unwrap_or(self.schedule.end(epoch))
    }

    /// Whether a ballot of `round` may be of use at `time`: of this epoch's rounds or the last one's, and begun, give
    /// or take a round for clocks that differ.
    pub fn is_current(&self, round: Round, time: UnixMillis) -> bool {
        let epoch = self.schedule.at(time);
        (round.epoch == epoch || round.epoch == epoch.next()) && self.start(round) <= time.plus(self.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certifying_lies_between_the_last_descriptor_and_the_first_packet_of_the_next_epoch() {
        for seconds in [10, 60, 1800, 7 * 86_400] {
            let schedule = EpochSchedule::new(Duration::from_secs(seconds));
            let (table, epoch) = (Timetable::new(schedule), Epoch(1000));
            let half = schedule.start(Epoch(999)).plus(schedule.length() / 2);
            let round = |attempt| Round { epoch, attempt };
            let mut moments = vec![half, table.witness(epoch), table.cut_off(epoch)];
            moments.extend((0..ATTEMPTS).flat_map(|a| [table.start(round(a)), table.rescue(round(a))]));
            let end = table.start(round(ATTEMPTS - 1)).plus(table.length());
            moments.push(end);
            assert!(moments.is_sorted_by(|a, b| a < b), "{moments:?}");
            assert_eq!(schedule.for_sending(end), Epoch(999));
            for attempt in 0..ATTEMPTS {
                let start = table.start(round(attempt));
                assert_eq!(table.round(start), Some(round(attempt)));
                assert_eq!(
                    table.round(start.plus(table.length()).minus(Duration::from_millis(2))),
                    Some(round(attempt))
                );
                assert!(table.is_current(round(attempt), start.minus(table.length())));
                assert!(!table.is_current(round(attempt), start.minus(table.length() * 2)));
                assert!(!table.is_current(round(attempt), start.plus(schedule.length() * 2)));
            }
            assert_eq!((table.round(table.cut_off(epoch)), table.round(end)), (None, None));
        }
    }

    #[test]
    fn every_moment_comes_up_and_time_always_goes_on() {
        let table = Timetable::new(EpochSchedule::new(Duration::from_secs(60)));
        let mut time = table.schedule.start(Epoch(999));
        let mut moments = vec![];
        while moments.last().is_none_or(|last| *last < table.schedule.start(Epoch(1001))) {
            let next = table.next(time);
            assert!(next > time);
            moments.push(next);
            time = next;
        }
        for epoch in [1000, 1001].map(Epoch) {
            assert!(moments.contains(&table.cut_off(epoch)));
            for round in (0..ATTEMPTS).map(|attempt| Round { epoch, attempt }) {
                assert!(moments.contains(&table.start(round)) && moments.contains(&table.rescue(round)));
            }
        }
    }
}
