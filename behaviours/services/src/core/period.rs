//! Periods: how long a service keeps one blinded key, and when its descriptors are made.

use fog_base::{Epoch, EpochSchedule, NetworkId, UnixMillis};

use super::blinding::Context;

/// Epochs in a period.
pub const EPOCHS: u32 = 48;
/// How many epochs before a period its ring is known and its first descriptors are published.
pub const LEAD: u32 = 2;
/// How many epochs a descriptor is valid, besides the one that it was made in.
pub const LIFETIME: u32 = 6;

/// The number of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub u64);

impl Period {
    /// The period that `epoch` lies in.
    pub fn at(epoch: Epoch) -> Self {
        Self(u64::from(epoch.0 / EPOCHS))
    }

    /// Its first epoch; the last one that there is, for numbers too high.
    pub fn first_epoch(self) -> Epoch {
        Epoch(u32::try_from(self.0.saturating_mul(EPOCHS.into())).unwrap_or(u32::MAX))
    }

    /// The epoch whose beacon orders its ring. The relays of the ring stood in the set of the epoch before that.
    pub fn beacon_epoch(self) -> Epoch {
        Epoch(self.first_epoch().0.saturating_sub(LEAD))
    }

    /// The one after.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Whether a descriptor of this period may be kept or believed in `epoch`: from the lead until the last descriptor expired.
    pub fn is_open(self, epoch: Epoch) -> bool {
        let end = self.next().first_epoch().0.saturating_add(LIFETIME);
        epoch >= self.beacon_epoch() && epoch.0 <= end
    }
}

/// A network's periods.
#[derive(Debug, Clone, Copy)]
pub struct Calendar {
    /// The network.
    pub network: NetworkId,
    /// Its epochs.
    pub schedule: EpochSchedule,
}

impl Calendar {
    /// The epoch at `time`.
    pub fn epoch(&self, time: UnixMillis) -> Epoch {
        self.schedule.at(time)
    }

    /// The period at `time`.
    pub fn period(&self, time: UnixMillis) -> Period {
        Period::at(self.epoch(time))
    }

    /// The periods for which a service publishes at `time`: the current one, and the next one within its lead.
    pub fn published(&self, time: UnixMillis) -> impl Iterator<Item = Period> + use<> {
        let (epoch, period) = (self.epoch(time), self.period(time));
        [period, period.next()].into_iter().filter(move |candidate| epoch >= candidate.beacon_epoch())
    }

    /// What keys of `period` are blinded for.
    pub fn context(&self, period: Period) -> Context<'_> {
        let length = self.schedule.length().as_secs().saturating_mul(EPOCHS.into());
        Context { secret: &self.network.0, period: period.0, length }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn calendar() -> Calendar {
        Calendar { network: NetworkId([1; 32]), schedule: EpochSchedule::new(Duration::from_secs(1800)) }
    }

    #[test]
    fn a_period_is_a_day_of_half_hours_and_the_next_one_is_published_an_hour_ahead() {
        let day = 86_400_000;
        let published = |time| calendar().published(UnixMillis(time)).map(|period| period.0).collect::<Vec<_>>();
        assert_eq!(published(day * 20_000), [20_000]);
        assert_eq!(published(day * 20_001 - 3_600_001), [20_000]);
        assert_eq!(published(day * 20_001 - 3_600_000), [20_000, 20_001]);
        assert_eq!(published(day * 20_001), [20_001]);
        assert_eq!(calendar().context(Period(5)).length, 86_400);
    }

    #[test]
    fn a_period_is_open_from_its_beacon_until_its_last_descriptor_expires() {
        let period = Period(10);
        assert_eq!((period.first_epoch(), period.beacon_epoch()), (Epoch(480), Epoch(478)));
        for (epoch, open) in [(477, false), (478, true), (527, true), (534, true), (535, false)] {
            assert_eq!(period.is_open(Epoch(epoch)), open, "{epoch}");
        }
    }
}
