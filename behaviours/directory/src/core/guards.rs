//! Entry guards: the few relays that a client's circuits start at, kept for months.
//!
//! Whoever holds a circuit's first and last hop sees who talks to whom. With a new first hop each time, everybody would
//! meet that sooner or later; with a guard, a client either has a bad one or is safe until it changes. So guards change
//! rarely, and not because an attacker, or a dead network, makes others fail. This follows Tor's guard-spec
//! (<https://spec.torproject.org/guard-spec>), whose names and figures it takes: a *sample* of the snapshot, of which
//! the first usable are *primary*, and those that a circuit was used through are *confirmed*. Dates are moved back at
//! random, so that what is kept does not tell when the client started.
//!
//! Not taken from it: restrictions by circuit, and circuits that wait for a better one to complete.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now, UnixMillis, codec};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::alias::AliasTable;

/// The largest encoded state: 60 guards of less than 96 bytes.
pub const MAX_STATE: usize = 8 * 1024;

/// The most guards in the sample (MAX_SAMPLE_SIZE).
const MAX_SAMPLE: usize = 60;

const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// How long a guard has failed, and how often it is tried then: guard-spec §5.2, for primary guards and for others.
const RETRY: [(Duration, [Duration; 2]); 3] = [
    (hours(6), [Duration::from_secs(600), hours(1)]),
    (hours(4 * 24), [Duration::from_secs(90 * 60), hours(4)]),
    (hours(7 * 24), [hours(4), hours(18)]),
];
/// How often it is tried after that.
const LAST_RETRY: [Duration; 2] = [hours(9), hours(36)];

/// Guard-spec's parameters (appendix A), with its names in brackets.
#[derive(Debug, Clone)]
pub struct Config {
    /// The sample is filled up to this many usable guards (MIN_FILTERED_SAMPLE).
    pub min_sample: usize,
    /// The sample is at most this part of all guards, in percent, unless that is less than `min_sample`
    /// (MAX_SAMPLE_THRESHOLD).
    pub max_sample_percent: usize,
    /// How many guards are primary (N_PRIMARY_GUARDS).
    pub primary: usize,
    /// How long a guard stays in the sample (GUARD_LIFETIME).
    pub lifetime: Duration,
    /// How long it stays after it was confirmed, at least (GUARD_CONFIRMED_MIN_LIFETIME).
    pub confirmed_lifetime: Duration,
    /// How long a guard may be missing from the snapshot (REMOVE_UNLISTED_GUARDS_AFTER).
    pub unlisted: Duration,
    /// After this long without any success, the network may have been down (INTERNET_LIKELY_DOWN_INTERVAL).
    pub offline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_sample: 20,
            max_sample_percent: 20,
            primary: 3,
            lifetime: hours(120 * 24),
            confirmed_lifetime: hours(60 * 24),
            unlisted: hours(20 * 24),
            offline: Duration::from_secs(600),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Keep this across restarts, in place of what was kept before.
    Persist(Vec<u8>),
}

/// What becomes of a circuit that was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Use it.
    Use,
    /// Close it and pick again: the network was down until now, so the better guards may work again.
    PickAgain,
}

/// The bytes are not a state of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid list of entry guards")]
pub struct BadState;

/// What is kept of a guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    relay: NodeId,
    sampled_on: UnixMillis,
    confirmed_on: Option<UnixMillis>,
    unlisted_since: Option<UnixMillis>,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    tried: Instant,
}

#[derive(Debug)]
struct Guard {
    record: Record,
    /// Whether it is in the newest snapshot.
    is_listed: bool,
    failing: Option<Failing>,
}

/// The entry guards of this client.
#[derive(Debug)]
pub struct Guards {
    config: Config,
    rng: StdRng,
    /// In the order in which they were sampled.
    sample: Vec<Guard>,
    last_success: Option<Instant>,
    is_changed: bool,
}

impl Guards {
    /// From what was kept, or without any guard. Until the first snapshot none is picked.
    pub fn new(config: Config, restored: Option<&[u8]>, seed: [u8; 32]) -> Result<Self, BadState> {
        let records: Vec<Record> = match restored {
            Some(bytes) => codec::decode(bytes, MAX_STATE).map_err(|_| BadState)?,
            None => Vec::new(),
        };
        let distinct: HashSet<_> = records.iter().map(|record| record.relay).collect();
        if distinct.len() != records.len() || records.len() > MAX_SAMPLE {
            return Err(BadState);
        }
        let guard = |record| Guard { record, is_listed: false, failing: None };
        let sample = records.into_iter().map(guard).collect();
        Ok(Self { config, rng: StdRng::from_seed(seed), sample, last_success: None, is_changed: false })
    }

    /// Takes the relays of a new snapshot that offer to be guards, each once, with their weights.
    pub fn handle_snapshot(&mut self, relays: &[(NodeId, u64)], now: Now) {
        let listed: HashSet<_> = relays.iter().map(|(relay, _)| *relay).collect();
        for guard in &mut self.sample {
            guard.is_listed = listed.contains(&guard.record.relay);
            if guard.is_listed {
                self.is_changed |= guard.record.unlisted_since.take().is_some();
            } else if guard.record.unlisted_since.is_none() {
                guard.record.unlisted_since = Some(moved_back(now, self.config.unlisted / 5, &mut self.rng));
                self.is_changed = true;
            }
        }
        let before = self.sample.len();
        self.sample.retain(|guard| !is_over(&guard.record, &self.config, now));
        self.is_changed |= self.sample.len() < before;
        self.fill(relays, now);
    }

    /// Draws guards by weight, until enough are listed or the sample is full.
    fn fill(&mut self, relays: &[(NodeId, u64)], now: Now) {
        let part = relays.len().saturating_mul(self.config.max_sample_percent) / 100;
        let most = part.max(self.config.min_sample).min(MAX_SAMPLE);
        let mut sampled: HashSet<_> = self.sample.iter().map(|guard| guard.record.relay).collect();
        while self.listed().count() < self.config.min_sample && self.sample.len() < most {
            let left: Vec<_> = relays.iter().filter(|(relay, _)| !sampled.contains(relay)).collect();
            let weights: Vec<_> = left.iter().map(|(_, weight)| *weight).collect();
            let drawn = AliasTable::new(&weights).and_then(|table| left.get(table.draw(&mut self.rng)));
            let Some((relay, _)) = drawn else { return };
            let sampled_on = moved_back(now, self.config.lifetime / 10, &mut self.rng);
            let record = Record { relay: *relay, sampled_on, confirmed_on: None, unlisted_since: None };
            self.sample.push(Guard { record, is_listed: true, failing: None });
            sampled.insert(*relay);
            self.is_changed = true;
        }
    }

    /// The guard that a new circuit starts at, of those that are `usable` for it: the first primary one that is not
    /// failing, or is to be tried again; else the first other one. If all have failed, the network is rather down than
    /// they are: then all are tried again from the first on. `None` only if no usable guard is in the snapshot.
    pub fn pick(&mut self, usable: impl Fn(&NodeId) -> bool, now: Now) -> Option<NodeId> {
        let ready = |(place, guard): &(usize, &Guard)| guard.is_ready(*place < self.config.primary, now.mono);
        let mut order = self.order().into_iter().enumerate().filter(|(_, guard)| usable(&guard.record.relay));
        let found = order.clone().find(ready);
        match (found, order.next()) {
            (Some((_, guard)), _) => Some(guard.record.relay),
            (None, None) => None,
            (None, Some((_, first))) => {
                let relay = first.record.relay;
                self.sample.iter_mut().for_each(|guard| guard.failing = None);
                Some(relay)
            }
        }
    }

    /// A circuit through `relay` was built. When it is to be used, the guard is confirmed.
    pub fn handle_success(&mut self, relay: NodeId, now: Now) -> Verdict {
        let was_offline =
            self.last_success.is_none_or(|last| now.mono.saturating_duration_since(last) > self.config.offline);
        self.last_success = Some(now.mono);
        let primary = self.primary();
        let is_primary = primary.contains(&relay);
        let mut try_primary = false;
        for guard in &mut self.sample {
            if guard.record.relay == relay {
                guard.failing = None;
            } else if was_offline && !is_primary && primary.contains(&guard.record.relay) {
                try_primary |= guard.failing.take().is_some();
            }
        }
        if try_primary {
            return Verdict::PickAgain;
        }
        let confirmed_on = moved_back(now, self.config.lifetime / 10, &mut self.rng);
        if let Some(guard) = self.sample.iter_mut().find(|guard| guard.record.relay == relay)
            && guard.record.confirmed_on.is_none()
        {
            guard.record.confirmed_on = Some(confirmed_on);
            self.is_changed = true;
        }
        Verdict::Use
    }

    /// No circuit could be built through `relay`.
    pub fn handle_failure(&mut self, relay: NodeId, now: Now) {
        if let Some(guard) = self.sample.iter_mut().find(|guard| guard.record.relay == relay) {
            let since = guard.failing.map_or(now.mono, |failing| failing.since);
            guard.failing = Some(Failing { since, tried: now.mono });
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let records: Vec<_> = self.sample.iter().map(|guard| &guard.record).collect();
        codec::encode(&records, MAX_STATE).ok().map(Output::Persist)
    }

    /// The primary guards, best first.
    pub fn primary(&self) -> Vec<NodeId> {
        self.order().into_iter().take(self.config.primary).map(|guard| guard.record.relay).collect()
    }

    /// The guards that circuits were used through, and that still are in the sample.
    pub fn confirmed(&self) -> impl Iterator<Item = NodeId> {
        self.sample.iter().filter(|guard| guard.record.confirmed_on.is_some()).map(|guard| guard.record.relay)
    }

    /// The guards of the sample that are in the newest snapshot.
    pub fn listed_relays(&self) -> impl Iterator<Item = NodeId> {
        self.listed().map(|guard| guard.record.relay)
    }

    fn listed(&self) -> impl Iterator<Item = &Guard> {
        self.sample.iter().filter(|guard| guard.is_listed)
    }

    /// The listed guards: the confirmed ones, then the others, both as they were sampled.
    fn order(&self) -> Vec<&Guard> {
        let (mut order, others): (Vec<_>, Vec<_>) =
            self.listed().partition(|guard| guard.record.confirmed_on.is_some());
        order.extend(others);
        order
    }
}

impl Guard {
    /// Whether it may be tried.
    fn is_ready(&self, is_primary: bool, now: Instant) -> bool {
        self.failing.is_none_or(|Failing { since, tried }| {
            let failing_for = now.saturating_duration_since(since);
            let step = RETRY.iter().find(|(below, _)| failing_for < *below);
            let [primary, other] = step.map_or(LAST_RETRY, |(_, waits)| *waits);
            now.saturating_duration_since(tried) >= if is_primary { primary } else { other }
        })
    }
}

/// Whether a guard leaves the sample: missing for too long, or its time is over.
fn is_over(record: &Record, config: &Config, now: Now) -> bool {
    let since = |date: UnixMillis| now.unix.since(date);
    record.unlisted_since.is_some_and(|date| since(date) > config.unlisted)
        || (since(record.sampled_on) > config.lifetime
            && record.confirmed_on.is_none_or(|date| since(date) > config.confirmed_lifetime))
}

/// A random moment in the time `back` before now.
fn moved_back(now: Now, back: Duration, rng: &mut StdRng) -> UnixMillis {
    now.unix.minus(back.mul_f64(rng.random_range(0.0..1.0)))
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;
