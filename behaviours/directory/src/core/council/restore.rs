//! What an earlier run has kept. It was verified before it was kept; what cannot be read is fetched again.

use std::{collections::BTreeMap, sync::Arc};

use fog_base::{Epoch, Now};

use super::{Council, Incomplete};
use crate::core::certificate::{
    chain::{Link, Tip},
    named_set::NamedSet,
    state::State,
    succession::{Certified, Signed},
};

/// Whole sets that are read again: of the running epoch and the next.
const RESTORED: usize = 2;

/// A link as a tip, and who signed it.
type Kept = (Tip, Link, Signed);

impl Council {
    pub(super) fn restore(&mut self, mut sets: BTreeMap<Epoch, (Vec<u8>, Vec<u8>)>, bound: Option<Vec<u8>>, now: Now) {
        // It is a set of this epoch or the next, if it is of use.
        let at = |epoch| self.timetable.cut_off(epoch);
        let running = self.schedule.at(now.unix);
        let read =
            |bytes: &Vec<u8>, epoch| NamedSet::from_bytes(bytes, &self.rules.network, &self.schedule, at(epoch)).ok();
        let bound = bound.and_then(|bytes| [running.next(), running].into_iter().find_map(|epoch| read(&bytes, epoch)));
        if let Some(set) = bound {
            self.bound = Some(set.root());
            self.hold(Arc::new(set));
        }
        let newest: Vec<_> = self.links.newest().take(RESTORED).collect();
        let Some((tip, link, signed)) = newest.first().and_then(|epoch| self.kept(*epoch)) else { return };
        self.certifier.handle_tip(tip.clone(), now);
        for epoch in newest {
            let whole = sets.remove(&epoch).zip(self.kept(epoch));
            if let Some(certified) = whole.and_then(|((set, state), kept)| self.whole(kept, &set, &state)) {
                self.certified.insert(epoch, Arc::new(certified));
            }
        }
        if !self.certified.contains_key(&tip.statement().epoch) {
            self.incomplete = Some(Incomplete { tip, certificate: link.certificate, signed, state: None });
        }
        self.restore_rings(sets, now);
    }

    pub(super) fn kept(&self, epoch: Epoch) -> Option<Kept> {
        let link = Link::from_bytes(&self.links.get(epoch)?).ok()?;
        let tip = Tip::from_store(&self.rules.network, link.certificate.statement, link.electorate.clone()).ok()?;
        let before = self.links.newest().find(|before| *before < epoch);
        let signed = match before {
            Some(before) => {
                let before = Link::from_bytes(&self.links.get(before)?).ok()?;
                Signed::new(&link.certificate, &before.electorate)
            }
            None => Signed::new(&link.certificate, &self.genesis_electorate()?),
        };
        Some((tip, link, signed))
    }

    pub(super) fn whole(&self, (tip, link, signed): Kept, set: &[u8], state: &[u8]) -> Option<Certified> {
        let statement = *tip.statement();
        let at = self.timetable.cut_off(statement.epoch);
        let set = NamedSet::from_bytes(set, &self.rules.network, &self.schedule, at).ok()?;
        let state = State::from_bytes(state).ok()?;
        let fits = (set.root(), set.count(), state.hash()) == (statement.root, statement.relays, statement.state);
        fits.then(|| Certified { tip, certificate: link.certificate, signed, set: Arc::new(set), state })
    }
}
