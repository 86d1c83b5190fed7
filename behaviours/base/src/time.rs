//! Time as the cores see it: passed in, never read.
//!
//! Deadlines use the monotonic clock, epochs use UTC; [`Now`] carries both so that no core can mix two readings.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds, rounded down.
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Later by `duration`, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Earlier by `duration`, saturating at 1970.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For deadlines.
    pub mono: Instant,
    /// For epochs, expiry and what people read.
    pub unix: UnixMillis,
}

impl Now {
    /// Both clocks moved on by `duration`: how tests make time pass.
    pub fn plus(self, duration: Duration) -> Self {
        Self { mono: self.mono + duration, unix: self.unix.plus(duration) }
    }
}

/// The number of an epoch: UTC divided by the network's epoch length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The one after this.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How UTC is cut into epochs, and how long an epoch's keys work beyond its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochSchedule {
    length: Duration,
}

/// Clocks may differ by this much before anybody is told so; also the longest grace (DESIGN §4).
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

impl EpochSchedule {
    /// Epochs of `length`; anything below a second counts as a second.
    pub fn new(length: Duration) -> Self {
        Self { length: length.max(Duration::from_secs(1)) }
    }

    /// The length of one epoch.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// The epoch that `time` lies in. Saturates in the year 2106 for one-second epochs.
    pub fn at(&self, time: UnixMillis) -> Epoch {
        Epoch(u32::try_from(time.0 / millis(self.length)).unwrap_or(u32::MAX))
    }

    /// When `epoch` begins.
    pub fn start(&self, epoch: Epoch) -> UnixMillis {
        UnixMillis(u64::from(epoch.0).saturating_mul(millis(self.length)))
    }

    /// When `epoch` ends, exclusive.
    pub fn end(&self, epoch: Epoch) -> UnixMillis {
        self.start(epoch.next())
    }

    /// How long before its start and after its end an epoch's keys are accepted: a third of an epoch, at most a minute.
    pub fn grace(&self) -> Duration {
        (self.length / 3).min(CLOCK_TOLERANCE)
    }

    /// Whether packets of `epoch` are accepted at `time`.
    pub fn accepts(&self, epoch: Epoch, time: UnixMillis) -> bool {
        time >= self.start(epoch).minus(self.grace()) && time < self.end(epoch).plus(self.grace())
    }

    /// The epoch that a sender writes into a packet at `time`: the one that lies half a grace ahead, so that a packet made just
    /// before a boundary still has one and a half graces to arrive, and clocks may differ by half a grace either way.
    pub fn for_sending(&self, time: UnixMillis) -> Epoch {
        self.at(time.plus(self.grace() / 2))
    }

    /// Whether the keys of `epoch` must be destroyed at `time`.
    pub fn is_over(&self, epoch: Epoch, time: UnixMillis) -> bool {
        time >= self.end(epoch).plus(self.grace())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_packet_is_accepted_from_its_making_for_at_least_a_grace(
            length in 3u64..10_000, at in 1_700_000_000_000u64..1_800_000_000_000, skew in -0.49f64..0.49,
        ) {
            let schedule = EpochSchedule::new(Duration::from_secs(length));
            let epoch = schedule.for_sending(UnixMillis(at));
            let grace = schedule.grace().as_millis() as f64;
            let relay = UnixMillis((at as f64 + grace * skew) as u64);
            prop_assert!(schedule.accepts(epoch, relay));
            prop_assert!(schedule.accepts(epoch, relay.plus(schedule.grace().mul_f64(0.9))));
        }

        #[test]
        fn epochs_cover_time_without_gaps(length in 1u64..100_000, at in 0u64..4_000_000_000_000) {
            let schedule = EpochSchedule::new(Duration::from_secs(length));
            let epoch = schedule.at(UnixMillis(at));
            prop_assert!(schedule.start(epoch).0 <= at && at < schedule.end(epoch).0);
        }
    }

    #[test]
    fn a_key_ends_with_its_grace() {
        let schedule = EpochSchedule::new(Duration::from_secs(1800));
        let end = schedule.end(Epoch(10));
        assert!(!schedule.is_over(Epoch(10), end.plus(Duration::from_secs(59))));
        assert!(schedule.is_over(Epoch(10), end.plus(Duration::from_secs(60))));
        assert!(!schedule.accepts(Epoch(10), end.plus(Duration::from_secs(60))));
    }
}
