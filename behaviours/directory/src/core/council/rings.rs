//! The rings of `.fog` services: which directories keep the descriptors of a period, as everybody finds it from the chain.
//!
//! Who could place an id next to a service's key in the ring would hide the service. So a relay stands in a ring only if it stood
//! before the ring's beacon could be foreseen: in the set before the one whose tickets make the beacon. (It is not enough to have
//! stood in that one: its tickets are published before it is closed, so an id could be ground against them.) README, "Rings".
//!
//! The sets that a ring follows from are kept for as long as the ring is of use, and given to whoever joins later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fog_base::{Epoch, NodeId, Now, relay::Role};

use super::{Council, Incomplete, Output};
use crate::core::certificate::{state::State, succession::Certified};

/// Epochs in a period of services.
pub const PERIOD: u32 = 48;
/// How many epochs before its period a ring is fixed, if all goes well.
pub const LEAD: u32 = 2;

/// The directories of one period, fixed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// What positions are computed from; unknown to everybody when the relays had to stand.
    pub beacon: [u8; 32],
    /// Sorted. Some may have left since, and are in no current snapshot.
    pub relays: Vec<NodeId>,
}

/// What rings need of the chain's past.
#[derive(Debug, Default)]
pub(super) struct Rings {
    rings: BTreeMap<u32, Ring>,
    /// The sets that the rings follow from.
    sources: BTreeMap<Epoch, Arc<Certified>>,
    /// A source that is to be fetched.
    lacking: Option<Incomplete>,
    /// Whole sets on the disk.
    stored: BTreeSet<Epoch>,
}

/// The epoch from which on a set fixes the ring of `period`.
fn beacon_epoch(period: u32) -> Epoch {
    Epoch(period.saturating_mul(PERIOD).saturating_sub(LEAD))
}

impl Rings {
    pub(super) fn new(stored: BTreeSet<Epoch>) -> Self {
        Self { stored, ..Self::default() }
    }

    /// The sources that are here.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Arc<Certified>> {
        self.sources.values()
    }

    /// Whose set and state are to be fetched.
    pub(super) fn lacking(&self) -> Option<&Incomplete> {
        self.lacking.as_ref()
    }

    /// A state that came; perhaps the one that was lacking.
    pub(super) fn handle_state(&mut self, bytes: &[u8]) {
        if let (Some(lacking), Ok(state)) = (&mut self.lacking, State::from_bytes(bytes))
            && lacking.tip.statement().state == State::hash_of(bytes)
        {
            lacking.state = Some(state);
        }
    }

    /// A set was written; which one is of no use any more. At most one, as at most one is written.
    pub(super) fn keep(&mut self, epoch: Epoch, is_of_use: impl Fn(&Epoch) -> bool) -> Option<Epoch> {
        self.stored.insert(epoch);
        let is_source = |epoch: &Epoch| self.sources.contains_key(epoch);
        let old = self.stored.iter().find(|epoch| !is_of_use(epoch) && !is_source(epoch)).copied();
        old.filter(|old| self.stored.remove(old))
    }
}

impl Council {
    /// The directories of the period that begins with epoch [`PERIOD`] · `period`: of the running one, and of the next from its lead
    /// on. `None` until it is fixed, and here: some of it may have to be fetched.
    pub fn ring(&self, period: u32) -> Option<&Ring> {
        self.rings.rings.get(&period)
    }

    /// Keeps and computes what belongs to the rings of now. Whether something new is here.
    pub(super) fn turn_rings(&mut self, now: Now) -> bool {
        let wanted = self.open_rings(now);
        let needed: BTreeSet<_> = wanted.values().flat_map(|(_, sources)| sources.iter().copied()).collect();
        self.rings.rings.retain(|period, _| wanted.contains_key(period));
        self.rings.sources.retain(|epoch, _| needed.contains(epoch));
        for epoch in &needed {
            if let Some(certified) = self.certified.get(epoch) {
                self.rings.sources.insert(*epoch, certified.clone());
            }
        }
        let has_fetched = self.complete_source();
        let mut has_turned = false;
        for (period, (fixed_by, sources)) in &wanted {
            if !self.rings.rings.contains_key(period)
                && let Some(ring) = self.follow_ring(*fixed_by, sources)
            {
                self.rings.rings.insert(*period, ring);
                self.push(Output::Changed);
                has_turned = true;
            }
        }
        let lacking = needed.iter().rev().find(|epoch| !self.rings.sources.contains_key(epoch)).copied();
        if self.rings.lacking.as_ref().map(|lacking| lacking.tip.statement().epoch) != lacking {
            let kept = lacking.and_then(|epoch| self.kept(epoch));
            self.rings.lacking =
                kept.map(|(tip, link, signed)| Incomplete { tip, certificate: link.certificate, signed, state: None });
        }
        has_fetched || has_turned
    }

    /// The rings of now that are fixed, with what they follow from. The next one may be fixed in the epoch before its lead.
    fn open_rings(&self, now: Now) -> BTreeMap<u32, (Epoch, Vec<Epoch>)> {
        let epoch = self.schedule.at(now.unix);
        let running = epoch.0 / PERIOD;
        let next = running.checked_add(1).filter(|next| beacon_epoch(*next) <= epoch.next());
        let open = [Some(running), next].into_iter().flatten();
        open.filter_map(|period| Some((period, self.ring_sources(period)?))).collect()
    }

    /// Reads again what an earlier run has kept.
    pub(super) fn restore_rings(&mut self, mut sets: BTreeMap<Epoch, (Vec<u8>, Vec<u8>)>, now: Now) {
        for epoch in self.open_rings(now).into_values().flat_map(|(_, sources)| sources) {
            let whole = sets.remove(&epoch).zip(self.kept(epoch));
            if let Some(certified) = whole.and_then(|((set, state), kept)| self.whole(kept, &set, &state)) {
                self.rings.sources.insert(epoch, Arc::new(certified));
            }
        }
        self.turn_rings(now);
    }

    /// The epoch of the first set from the ring's beacon epoch on, and of the two sets before it, the newer first: of the one that there
    /// is, or of itself, if the chain begins there. The chain is one line, so none of them changes any more.
    fn ring_sources(&self, period: u32) -> Option<(Epoch, Vec<Epoch>)> {
        let fixed_by = self.links.first_from(beacon_epoch(period))?;
        let before: Vec<_> = self.links.newest_before(fixed_by).take(2).collect();
        Some((fixed_by, if before.is_empty() { vec![fixed_by] } else { before }))
    }

    fn follow_ring(&self, fixed_by: Epoch, sources: &[Epoch]) -> Option<Ring> {
        let mut certified = sources.iter().map(|epoch| self.rings.sources.get(epoch));
        let (last, before) = (certified.next()??, certified.next());
        let before = before.map_or(Some(None), |before| before.map(Some))?;
        let stood = |relay: &NodeId| match before {
            Some(before) => before.set.find(relay).is_some(),
            // Nobody stood before, but for those of the network file.
            None => self.genesis.contains_key(relay),
        };
        let directories = last.set.relays().iter().filter(|relay| relay.facts().roles.has(Role::Directory));
        let relays = directories.map(|descriptor| descriptor.relay()).filter(stood).collect();
        let is_first = last.epoch() == fixed_by;
        let beacon = if is_first { last.state.beacon } else { self.rules.beacon(fixed_by, Some(last)) };
        Some(Ring { beacon, relays })
    }

    /// Set and state of the lacking source are both here.
    fn complete_source(&mut self) -> bool {
        let Some(lacking) = self.rings.lacking.take_if(|lacking| lacking.state.is_some()) else { return false };
        let statement = *lacking.tip.statement();
        let (Some(set), Incomplete { tip, certificate, signed, state: Some(state) }) =
            (self.candidate(&statement), lacking.clone())
        else {
            self.rings.lacking = Some(lacking);
            return false;
        };
        let certified = Certified { tip, certificate, signed, set, state };
        let (set, state) = (certified.set.to_bytes(), certified.state.to_bytes());
        self.rings.sources.insert(statement.epoch, Arc::new(certified));
        let forget = self.forget_after(statement.epoch);
        self.push(Output::KeepSet { epoch: statement.epoch, set, state, forget });
        true
    }

    /// The set of `epoch` is being kept: which one need not be any more.
    pub(super) fn forget_after(&mut self, epoch: Epoch) -> Option<Epoch> {
        let Self { rings, certified, .. } = self;
        rings.keep(epoch, |other| *other == epoch || certified.contains_key(other))
    }
}

#[cfg(test)]
#[path = "rings_tests.rs"]
mod tests;
