//! Paths through a snapshot: uniform over all that obey the rules (no relay twice, no two that one operator may hold).
//!
//! Drawing a whole path and drawing again when it breaks a rule is exactly uniform. Where the rules leave few paths, a search
//! through a random order finds one if there is one.

use fog_base::{
    Epoch, NodeId,
    relay::{NoPath, PathRequest, PathSelector, RelayHop, Role},
};
use rand::{Rng, RngExt, seq::SliceRandom};

use super::snapshot::{Snapshot, SnapshotRelay};

/// Whole paths that are drawn before the search.
const DRAWS: usize = 64;
/// Relays that the search looks at before it gives up: enough for every small network; a large one in which this is not enough has too
/// few unrelated relays to be of use.
const SEARCH_STEPS: usize = 20_000;

impl PathSelector for Snapshot {
    fn path(&self, request: &PathRequest<'_>, rng: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath> {
        let unknown = NoPath::UnknownRelay(request.last);
        if request.epoch != self.epoch() {
            return Err(unknown);
        }
        let last = self.find(request.last).ok_or(unknown)?;
        let draw = Draw { snapshot: self, last, middle: request.hops.saturating_sub(1), exclude: request.exclude };
        let found = match draw.middle_hops(request.avoid, rng) {
            Err(_) if !request.avoid.is_empty() => draw.middle_hops(&[], rng),
            found => found,
        };
        match found {
            Ok(middle) => Ok(middle.into_iter().chain([last]).map(|relay| relay.hop.clone()).collect()),
            Err(known) => Err(NoPath::TooFewRelays { hops: request.hops, needed: draw.middle, known }),
        }
    }

    fn relay(&self, epoch: Epoch, id: NodeId) -> Option<RelayHop> {
        if epoch == self.epoch() { self.find(id).map(|relay| relay.hop.clone()) } else { None }
    }

    fn with_role(&self, epoch: Epoch, role: Role) -> Vec<NodeId> {
        let relays = if epoch == self.epoch() { self.relays() } else { &[] };
        relays.iter().filter(|relay| relay.descriptor.facts().roles.has(role)).map(|relay| relay.hop.id).collect()
    }
}

struct Draw<'a> {
    snapshot: &'a Snapshot,
    last: &'a SnapshotRelay,
    middle: usize,
    exclude: &'a [NodeId],
}

impl<'a> Draw<'a> {
    /// The hops before the last, or how many can stand on one path at most.
    fn middle_hops(&self, avoid: &[NodeId], rng: &mut dyn Rng) -> Result<Vec<&'a SnapshotRelay>, usize> {
        if self.snapshot.mix_count() > 0 {
            for _ in 0..DRAWS {
                if let Some(hops) = self.draw(avoid, rng) {
                    return Ok(hops);
                }
            }
        }
        self.search(avoid, rng)
    }

    fn draw(&self, avoid: &[NodeId], rng: &mut dyn Rng) -> Option<Vec<&'a SnapshotRelay>> {
        let mut hops = Vec::with_capacity(self.middle + 1);
        for _ in 0..self.middle {
            let relay = self.snapshot.mix_at(rng.random_range(0..self.snapshot.mix_count()))?;
            if !self.is_allowed(relay, avoid) || !self.fits(relay, &hops) {
                return None;
            }
            hops.push(relay);
        }
        Some(hops)
    }

    fn is_allowed(&self, relay: &SnapshotRelay, avoid: &[NodeId]) -> bool {
        let id = relay.hop.id;
        id != self.last.hop.id && !self.exclude.contains(&id) && !avoid.contains(&id) && !relay.is_related_to(self.last)
    }

    fn fits(&self, relay: &SnapshotRelay, hops: &[&SnapshotRelay]) -> bool {
        hops.iter().all(|hop| hop.hop.id != relay.hop.id && !hop.is_related_to(relay))
    }

    /// Depth first through a random order of the relays that are allowed.
    fn search(&self, avoid: &[NodeId], rng: &mut dyn Rng) -> Result<Vec<&'a SnapshotRelay>, usize> {
        let mut relays: Vec<_> = self.snapshot.mixes().filter(|relay| self.is_allowed(relay, avoid)).collect();
        relays.shuffle(rng);
        let (mut chosen, mut deepest, mut steps) = (Vec::with_capacity(self.middle), 0, 0);
        let mut at = 0;
        while chosen.len() < self.middle {
            steps += 1;
            let hops: Vec<_> = chosen.iter().filter_map(|i: &usize| relays.get(*i).copied()).collect();
            match relays.get(at) {
                Some(relay) if steps < SEARCH_STEPS => {
                    if self.fits(relay, &hops) {
                        chosen.push(at);
                        deepest = deepest.max(chosen.len());
                    }
                    at += 1;
                }
                Some(_) => return Err(deepest),
                None => at = chosen.pop().ok_or(deepest)? + 1,
            }
        }
        Ok(chosen.into_iter().filter_map(|i| relays.get(i).copied()).collect())
    }
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
