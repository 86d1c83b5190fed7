//! How much of the last month a worker was there, by its own record: what its price may rest on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::{Now, UnixMillis};

use super::terms::PPM;

/// The days that count: whole ones of UTC, before today.
pub const DAYS: u32 = 30;
/// The share of them from which the price grows, in ppm.
pub const GROWS_FROM: u32 = 900_000;
/// What it grows by at most, in ppm.
pub const GROWTH: u32 = 250_000;
/// How often the record is kept.
pub const KEPT: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Milliseconds of each day in which a worker was there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uptime {
    days: BTreeMap<u32, u32>,
    /// Since when it is there, as far as that is not in `days`.
    since: Option<Instant>,
}

fn day(time: UnixMillis) -> u32 {
    u32::try_from(u128::from(time.0) / DAY.as_millis()).unwrap_or(u32::MAX)
}

impl Uptime {
    /// Whether it is there from now on. True if the record is to be kept now.
    pub fn observe(&mut self, is_up: bool, now: Now) -> bool {
        let is_due = self.next().is_some_and(|at| at <= now.mono);
        if is_due || is_up != self.since.is_some() {
            self.count(now);
            self.since = is_up.then_some(now.mono);
        }
        is_due
    }

    /// When [`Uptime::observe`] has something to do.
    pub fn next(&self) -> Option<Instant> {
        self.since.map(|since| since + KEPT)
    }

    /// What is since then is of today: at most [`KEPT`] is of yesterday.
    fn count(&mut self, now: Now) {
        let Some(since) = self.since else { return };
        let passed = u32::try_from(now.mono.saturating_duration_since(since).as_millis()).unwrap_or(u32::MAX);
        let today = day(now.unix);
        let counted = self.days.entry(today).or_default();
        *counted = counted.saturating_add(passed).min(DAY.as_millis() as u32);
        self.days.retain(|day, _| (today.saturating_sub(DAYS)..=today).contains(day));
    }

    /// The multiplier for the price, in ppm: 1 up to [`GROWS_FROM`] of the last [`DAYS`], then linearly to 1 and [`GROWTH`].
    pub fn multiplier(&self, now: UnixMillis) -> u32 {
        let today = day(now);
        let counted = self.days.range(today.saturating_sub(DAYS)..today).map(|(_, millis)| u64::from(*millis));
        let all = u64::from(DAYS) * DAY.as_millis() as u64;
        let share = counted.sum::<u64>().saturating_mul(PPM.into()) / all;
        let above = share.saturating_sub(GROWS_FROM.into()).min(u64::from(PPM - GROWS_FROM));
        PPM + u32::try_from(above * u64::from(GROWTH) / u64::from(PPM - GROWS_FROM)).unwrap_or(GROWTH)
    }

    /// The record: milliseconds by day since 1970.
    pub fn days(&self) -> &BTreeMap<u32, u32> {
        &self.days
    }

    /// Takes back what [`Uptime::days`] was.
    pub fn restore(&mut self, days: BTreeMap<u32, u32>, now: UnixMillis) {
        let today = day(now);
        let most = DAY.as_millis() as u32;
        let counts = days.into_iter().filter(|(day, _)| (today.saturating_sub(DAYS)..=today).contains(day));
        self.days = counts.map(|(day, millis)| (day, millis.min(most))).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::start;

    /// There for so many hours of each of `days` days; what is kept each time survives, the rest does not.
    fn after(days: u64, hours: u64) -> u32 {
        let mut uptime = Uptime::default();
        let mut now = start();
        let ticks = days * 24 * 6;
        for tick in 0..ticks {
            let kept = uptime.observe(tick / 6 % 24 < hours, now);
            if kept {
                let days = uptime.days().clone();
                uptime.restore(days, now.unix);
            }
            now = now.plus(KEPT);
        }
        uptime.multiplier(now.unix)
    }

    #[test]
    fn the_price_grows_from_nine_tenths_of_a_month_on() {
        assert_eq!((after(5, 24), after(26, 24), after(40, 12), after(40, 21)), (PPM, PPM, PPM, PPM));
        let (some, most) = (after(40, 23), after(40, 24));
        assert!(some > PPM + 120_000 && some < PPM + 160_000, "23 of 24 hours: {some}");
        assert!(most > PPM + GROWTH - 10_000 && most <= PPM + GROWTH, "{most}");
    }

    #[test]
    fn time_in_which_nobody_looked_counts_for_a_day_at_most_and_old_days_are_forgotten() {
        let (mut uptime, now) = (Uptime::default(), start());
        assert!(!uptime.observe(true, now) && uptime.next() == Some(now.mono + KEPT));
        let later = now.plus(Duration::from_secs(100 * 24 * 3600));
        assert!(uptime.observe(true, later));
        assert_eq!(uptime.days().values().collect::<Vec<_>>(), [&(DAY.as_millis() as u32)]);
        let mut again = Uptime::default();
        again.restore(BTreeMap::from([(day(later.unix) - DAYS - 1, 5), (day(later.unix) - 1, u32::MAX)]), later.unix);
        assert_eq!(again.days().values().collect::<Vec<_>>(), [&(DAY.as_millis() as u32)]);
    }
}
