//! Penalties: what ends a connection, and what bans a peer for a while.
//!
//! A peer's penalty grows by the weight of its bad conduct and halves every hour. Being away is no bad conduct. Bans
//! grow with each further one and shrink again with time; none is for ever.

use std::time::Duration;

use fog_base::UnixMillis;
use serde::{Deserialize, Serialize};

/// The figures of penalties.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// In which a penalty halves.
    pub half_life: Duration,
    /// From which penalty on a peer is disconnected.
    pub disconnect: f64,
    /// From which penalty on it is banned.
    pub ban: f64,
    /// The first ban.
    pub first_ban: Duration,
    /// The longest ban.
    pub longest_ban: Duration,
    /// In which the number of bans that count halves.
    pub relapse: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            half_life: Duration::from_secs(3600),
            disconnect: 8.0,
            ban: 16.0,
            first_ban: Duration::from_secs(3600),
            longest_ban: Duration::from_secs(7 * 86_400),
            relapse: Duration::from_secs(7 * 86_400),
        }
    }
}

/// What a penalty leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sanction {
    /// End the connection; it may come back.
    Disconnect,
    /// Keep it out until then.
    Ban(UnixMillis),
}

/// The penalty of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    penalty: f64,
    /// Bans, fading.
    bans: f64,
    at: UnixMillis,
    banned_until: UnixMillis,
    /// Disconnected at this height of the penalty.
    disconnected: bool,
}

impl Default for Score {
    fn default() -> Self {
        let never = UnixMillis(0);
        Self { penalty: 0.0, bans: 0.0, at: never, banned_until: never, disconnected: false }
    }
}

impl Score {
    /// The penalty at `now`.
    pub fn penalty(&self, config: &Config, now: UnixMillis) -> f64 {
        self.penalty * half_lives(config.half_life, now.since(self.at))
    }

    /// Until when the peer is banned, if it is.
    pub fn banned_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        (now < self.banned_until).then_some(self.banned_until)
    }

    /// Adds to the penalty. While a ban lasts nothing further happens.
    pub fn punish(&mut self, weight: f64, config: &Config, now: UnixMillis) -> Option<Sanction> {
        if self.banned_until(now).is_some() {
            return None;
        }
        let penalty = self.penalty(config, now);
        self.bans *= half_lives(config.relapse, now.since(self.at));
        self.at = self.at.max(now);
        if penalty < config.disconnect / 2.0 {
            self.disconnected = false;
        }
        self.penalty = penalty + weight;
        if self.penalty >= config.ban {
            let length = config.first_ban.as_secs_f64() * libm::exp2(self.bans);
            let length = Duration::from_secs_f64(length.min(config.longest_ban.as_secs_f64()));
            self.bans += 1.0;
            self.banned_until = now.plus(length);
            // It begins anew after the ban, and near the line; time served is no time of good conduct.
            self.penalty = config.disconnect / 2.0;
            self.at = self.banned_until;
            self.disconnected = false;
            return Some(Sanction::Ban(self.banned_until));
        }
        if self.penalty >= config.disconnect && !self.disconnected {
            self.disconnected = true;
            return Some(Sanction::Disconnect);
        }
        None
    }

    /// Whether it can be what this crate wrote: finite, and not negative.
    pub fn is_sound(&self) -> bool {
        [self.penalty, self.bans].iter().all(|n| n.is_finite() && *n >= 0.0)
    }

    /// A ban that was saved under a clock that ran ahead is cut to the longest.
    pub fn shorten(&mut self, config: &Config, now: UnixMillis) {
        self.banned_until = self.banned_until.min(now.plus(config.longest_ban));
        self.at = self.at.min(self.banned_until.max(now));
    }
}

fn half_lives(half_life: Duration, age: Duration) -> f64 {
    libm::exp2(-age.as_secs_f64() / half_life.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixMillis = UnixMillis(1_800_000_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn config() -> Config {
        Config::default()
    }

    #[test]
    fn a_peer_is_disconnected_once_and_then_banned() {
        let mut score = Score::default();
        let sanctions: Vec<_> = (0..16).map(|_| score.punish(1.0, &config(), START)).collect();
        assert_eq!(sanctions[7], Some(Sanction::Disconnect));
        assert_eq!(sanctions[15], Some(Sanction::Ban(START.plus(HOUR))));
        assert_eq!(sanctions.iter().flatten().count(), 2);
        assert_eq!(score.punish(100.0, &config(), START), None, "banned already");
        assert_eq!(score.banned_until(START.plus(HOUR)), None, "a ban ends");
    }

    #[test]
    fn bans_double_up_to_a_week_and_are_forgiven() {
        let mut score = Score::default();
        let mut now = START;
        let mut lengths = Vec::new();
        for _ in 0..12 {
            let Some(Sanction::Ban(until)) = score.punish(16.0, &config(), now) else { panic!("no ban") };
            lengths.push(until.since(now).as_secs_f64() / 3600.0);
            now = until;
        }
        assert_eq!(lengths, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 168.0, 168.0, 168.0, 168.0]);
        let later = now.plus(HOUR * 24 * 7 * 8);
        let Some(Sanction::Ban(until)) = score.punish(16.0, &config(), later) else { panic!("no ban") };
        assert!(until.since(later) < 2 * HOUR, "{:?}", until.since(later));
    }

    #[test]
    fn a_ban_that_was_saved_by_a_clock_that_ran_ahead_is_cut() {
        let (mut score, ahead) = (Score::default(), START.plus(HOUR * 24 * 365));
        score.punish(16.0, &config(), ahead);
        score.shorten(&config(), START);
        assert_eq!(score.banned_until(START), Some(START.plus(config().longest_ban)));
    }

    #[test]
    fn slow_trouble_is_forgiven() {
        let mut score = Score::default();
        for hour in 0..1000 {
            assert_eq!(score.punish(3.0, &config(), START.plus(HOUR * hour)), None);
        }
    }

    proptest! {
        #[test]
        fn no_ban_is_longer_than_the_longest(
            steps in proptest::collection::vec((0.0f64..100.0, 0u64..100_000_000), 1..200),
        ) {
            let (mut score, mut now) = (Score::default(), START);
            for (weight, passed) in steps {
                now = UnixMillis(now.0 + passed);
                score.punish(weight, &config(), now);
                prop_assert!(score.is_sound() && score.banned_until <= now.plus(config().longest_ban));
            }
        }
    }
}
