//! Second-layer guards: the few relays that stand behind the entry guard on circuits of services and to services, kept for days.
//!
//! Whoever names the rendezvous point can have a service build as many circuits as it likes, and with a new second relay each time
//! one of the attacker's would soon stand next to the entry guard and see which one it is. With four that live for days, it stands there or it
//! does not. This follows Tor's proposal 333 (vanguards-lite): four relays, each for the larger of two draws between 1 and 12 days, so
//! that most live long and nobody can wait for their end.

use std::{collections::HashSet, time::Duration};

use fog_base::{NodeId, Now, UnixMillis, codec};
use rand::{RngExt, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::{
    guards::BadState,
    path::{fit, random_order},
    snapshot::SnapshotRelay,
};

/// How many there are.
pub const COUNT: usize = 4;
/// The largest encoded state.
pub const MAX_STATE: usize = 1024;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Between these two draws are made, of which the larger is taken.
pub const LIFETIME: (Duration, Duration) = (DAY, Duration::from_secs(12 * 24 * 3600));

/// What is kept of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    relay: NodeId,
    until: UnixMillis,
    /// It was taken for want of one that is not related to a guard.
    is_near: bool,
}

/// The second-layer guards of this client.
#[derive(Debug, Default)]
pub struct SecondLayer {
    kept: Vec<Record>,
    is_changed: bool,
}

impl SecondLayer {
    /// From what was kept, or without any.
    pub(super) fn new(restored: Option<&[u8]>) -> Result<Self, BadState> {
        let kept: Vec<Record> = match restored {
            Some(bytes) => codec::decode(bytes, MAX_STATE).map_err(|_| BadState)?,
            None => Vec::new(),
        };
        let distinct: HashSet<_> = kept.iter().map(|record| record.relay).collect();
        if distinct.len() != kept.len() || kept.len() > COUNT {
            return Err(BadState);
        }
        Ok(Self { kept, is_changed: false })
    }

    /// Replaces those that are over or not among `relays` any more. New ones come by weight, none related to another or to one of `guards`; only
    /// where there are not enough such relays, one of the guards or a relay of theirs will do until there are, still not related to another one.
    pub(super) fn handle_relays(
        &mut self,
        relays: &[&SnapshotRelay],
        guards: &[&SnapshotRelay],
        now: Now,
        rng: &mut StdRng,
    ) {
        // One that is to live longer than any can was kept by another clock.
        let is_current = |record: &&Record| record.until > now.unix && record.until.since(now.unix) <= LIFETIME.1;
        let known = |relay: &SnapshotRelay| self.kept.iter().find(|kept| kept.relay == relay.hop.id).filter(is_current);
        let is_apart = |relay: &SnapshotRelay| guards.iter().all(|guard| fit(guard, relay));
        let class = |relay: &&SnapshotRelay| match known(relay) {
            Some(kept) if !kept.is_near || is_apart(relay) => 0,
            None if is_apart(relay) => 1,
            Some(_) => 2,
            None => 3,
        };
        let mut order = random_order(relays.iter().copied(), rng);
        order.sort_by_key(class);
        let (mut chosen, mut next): (Vec<&SnapshotRelay>, Vec<Record>) = (Vec::new(), Vec::new());
        for relay in order {
            if chosen.len() < COUNT && chosen.iter().all(|other| fit(other, relay)) {
                let until = known(relay).map_or_else(|| now.unix.plus(lifetime(rng)), |kept| kept.until);
                next.push(Record { relay: relay.hop.id, until, is_near: class(&relay) > 1 });
                chosen.push(relay);
            }
        }
        next.sort_unstable_by_key(|record| record.relay);
        self.is_changed |= next != self.kept;
        self.kept = next;
    }

    /// The second-layer guards.
    pub fn relays(&self) -> impl Iterator<Item = NodeId> {
        self.kept.iter().map(|record| record.relay)
    }

    /// Until when each of them serves.
    pub fn lifetimes(&self) -> impl Iterator<Item = (NodeId, UnixMillis)> {
        self.kept.iter().map(|record| (record.relay, record.until))
    }

    /// What is to be kept, if it changed.
    pub(super) fn poll_persist(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        codec::encode(&self.kept, MAX_STATE).ok()
    }
}

fn lifetime(rng: &mut StdRng) -> Duration {
    let mut draw = || rng.random_range(LIFETIME.0..=LIFETIME.1);
    draw().max(draw())
}

#[cfg(test)]
#[path = "layer2_tests.rs"]
mod tests;
