//! Paths through a snapshot: hops drawn by weight, under the rules (no relay twice, no two that one operator may hold).
//!
//! In a network with layers the hops before the last go through the layers 0, 1, 2 in this order (and again from 0, for
//! longer paths); in an open network every mix may stand anywhere. Drawing a whole path, hop by hop and without regard
//! to the rules, and drawing all of it again when it breaks one, gives each allowed path exactly its share: the product
//! of its relays' weights. Where the rules leave few paths, a search finds one if there is one; it prefers heavy
//! relays, but its shares are not exact.

use fog_base::{
    Epoch, NodeId,
    relay::{NoPath, PathRequest, PathSelector, RelayHop, Role},
};
use rand::{Rng, RngExt, seq::SliceRandom};

use super::{
    alias::AliasTable,
    lottery::LAYERS,
    snapshot::{Snapshot, SnapshotRelay},
};

/// Whole paths that are drawn before the search.
pub(super) const DRAWS: usize = 64;
/// Relays that the search looks at before it gives up: enough for every small network; a large one in which this is not
/// enough has too few unrelated relays to be of use.
const SEARCH_STEPS: usize = 20_000;

/// The relays that one hop may be drawn from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pool {
    /// Their places in the snapshot.
    relays: Vec<usize>,
    table: Option<AliasTable>,
}

/// What middle hops are drawn from: one pool for each layer, or one for all in an open network.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pools(Vec<Pool>);

impl Pools {
    /// From the relays of a snapshot. Those without weight carry nothing; if any mix has a layer, those without one do
    /// not either.
    pub(super) fn new(relays: &[SnapshotRelay]) -> Self {
        let is_mix = |relay: &SnapshotRelay| relay.weight > 0 && relay.descriptor.facts().roles.has(Role::Mix);
        let layers: Vec<_> = if relays.iter().any(|relay| is_mix(relay) && relay.layer.is_some()) {
            (0..LAYERS).map(Some).collect()
        } else {
            vec![None]
        };
        let pool = |layer| Pool::new(relays, |relay| is_mix(relay) && relay.layer == layer);
        Self(layers.into_iter().map(pool).collect())
    }

    /// How many relays the fullest pool has.
    pub(super) fn widest(&self) -> usize {
        self.0.iter().map(|pool| pool.relays.len()).max().unwrap_or(0)
    }

    /// The pools of a path's first hops.
    fn first(&self, hops: usize) -> impl Iterator<Item = &Pool> {
        self.0.iter().cycle().take(hops)
    }
}

impl Pool {
    /// Of the relays of a snapshot those with a weight that `belongs` names.
    pub(super) fn new(relays: &[SnapshotRelay], belongs: impl Fn(&SnapshotRelay) -> bool) -> Self {
        let members = relays.iter().enumerate().filter(|(_, relay)| relay.weight > 0 && belongs(relay));
        let weights: Vec<_> = members.clone().map(|(_, relay)| relay.weight).collect();
        Self { relays: members.map(|(at, _)| at).collect(), table: AliasTable::new(&weights) }
    }

    /// Its relays.
    pub(super) fn relays<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a SnapshotRelay> {
        self.relays.iter().filter_map(|at| snapshot.relays().get(*at))
    }

    /// One of its relays, by weight.
    pub(super) fn draw<'a>(&self, snapshot: &'a Snapshot, rng: &mut dyn Rng) -> Option<&'a SnapshotRelay> {
        snapshot.relays().get(*self.relays.get(self.table.as_ref()?.draw(rng))?)
    }
}

impl PathSelector for Snapshot {
    fn path(&self, request: &PathRequest<'_>, rng: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath> {
        let draw = Draw::new(self, request)?;
        let found = match draw.middle_hops(request.avoid, rng) {
            Err(_) if !request.avoid.is_empty() => draw.middle_hops(&[], rng),
            found => found,
        };
        draw.path(found)
    }

    fn measuring_path(
        &self,
        request: &PathRequest<'_>,
        measured: &dyn Fn(&NodeId) -> u32,
        rng: &mut dyn Rng,
    ) -> Result<Vec<RelayHop>, NoPath> {
        let draw = Draw::new(self, request)?;
        let order =
            |avoid: &[NodeId], rng: &mut dyn Rng| draw.search(|pool| draw.least_first(pool, avoid, measured, rng));
        let mut found = match order(request.avoid, rng) {
            Err(_) if !request.avoid.is_empty() => order(&[], rng),
            found => found,
        };
        // In one pool the search names the least measured first: where on the path it stands must not tell.
        if let (Ok(hops), [_]) = (&mut found, self.pools().0.as_slice()) {
            hops.shuffle(rng);
        }
        draw.path(found)
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
    version: u16,
    exclude: &'a [NodeId],
}

impl<'a> Draw<'a> {
    fn new(snapshot: &'a Snapshot, request: &PathRequest<'a>) -> Result<Self, NoPath> {
        let unknown = NoPath::UnknownRelay(request.last);
        if request.epoch != snapshot.epoch() {
            return Err(unknown);
        }
        let last = snapshot.find(request.last).ok_or(unknown)?;
        if !last.hop.speaks(request.version) {
            return Err(NoPath::UnknownVersion(request.last, request.version));
        }
        let middle = request.hops.saturating_sub(1);
        Ok(Self { snapshot, last, middle, version: request.version, exclude: request.exclude })
    }

    /// The whole path, if its middle hops were found; else they say how many there could be.
    fn path(&self, middle: Result<Vec<&'a SnapshotRelay>, usize>) -> Result<Vec<RelayHop>, NoPath> {
        match middle {
            Ok(middle) => Ok(middle.into_iter().chain([self.last]).map(|relay| relay.hop.clone()).collect()),
            Err(known) => Err(NoPath::TooFewRelays { hops: self.middle + 1, needed: self.middle, known }),
        }
    }

    /// The hops before the last, or how many can stand on one path at most.
    fn middle_hops(&self, avoid: &[NodeId], rng: &mut dyn Rng) -> Result<Vec<&'a SnapshotRelay>, usize> {
        let mut hops = Vec::with_capacity(self.middle + 1);
        for _ in 0..DRAWS {
            if self.draw(avoid, &mut hops, rng) {
                return Ok(hops);
            }
        }
        self.search(|pool| self.random_order(pool, avoid, rng))
    }

    /// Draws a path into `hops`, and says whether it obeys the rules.
    fn draw(&self, avoid: &[NodeId], hops: &mut Vec<&'a SnapshotRelay>, rng: &mut dyn Rng) -> bool {
        hops.clear();
        for pool in self.snapshot.pools().first(self.middle) {
            match pool.draw(self.snapshot, rng) {
                Some(relay) if self.is_allowed(relay, avoid) && self.fits(relay, hops) => hops.push(relay),
                _ => return false,
            }
        }
        true
    }

    fn is_allowed(&self, relay: &SnapshotRelay, avoid: &[NodeId]) -> bool {
        let id = relay.hop.id;
        let fits = fit(relay, self.last) && relay.hop.speaks(self.version);
        fits && !self.exclude.contains(&id) && !avoid.contains(&id)
    }

    fn fits(&self, relay: &SnapshotRelay, hops: &[&SnapshotRelay]) -> bool {
        hops.iter().all(|hop| fit(hop, relay))
    }

    /// Depth first, each hop through its pool in the order that `order` says.
    fn search(&self, order: impl FnMut(&Pool) -> Vec<&'a SnapshotRelay>) -> Result<Vec<&'a SnapshotRelay>, usize> {
        search(&self.snapshot.pools().0.iter().map(order).collect::<Vec<_>>(), self.middle)
    }

    fn random_order(&self, pool: &Pool, avoid: &[NodeId], rng: &mut dyn Rng) -> Vec<&'a SnapshotRelay> {
        random_order(self.allowed(pool, avoid), rng)
    }

    /// The allowed relays of `pool`, those with the lowest number first, equal ones in a random order.
    fn least_first(
        &self,
        pool: &Pool,
        avoid: &[NodeId],
        measured: &dyn Fn(&NodeId) -> u32,
        rng: &mut dyn Rng,
    ) -> Vec<&'a SnapshotRelay> {
        let mut order: Vec<_> = self.allowed(pool, avoid).collect();
        order.shuffle(rng);
        order.sort_by_key(|relay| measured(&relay.hop.id));
        order
    }

    fn allowed(&self, pool: &Pool, avoid: &[NodeId]) -> impl Iterator<Item = &'a SnapshotRelay> {
        pool.relays(self.snapshot).filter(|relay| self.is_allowed(relay, avoid))
    }
}

/// Depth first: `hops` relays of which each two fit, the first out of `orders[0]`, the next out of `orders[1]`, and again from the
/// front; each order's first relays first. An error says how many were found.
pub(super) fn search<'a>(orders: &[Vec<&'a SnapshotRelay>], hops: usize) -> Result<Vec<&'a SnapshotRelay>, usize> {
    // Of each hop chosen so far, the relay and its place in the order of its pool.
    let mut chosen: Vec<(usize, &SnapshotRelay)> = Vec::with_capacity(hops);
    let (mut deepest, mut steps, mut at) = (0, 0, 0);
    while chosen.len() < hops {
        steps += 1;
        let order = orders.get(chosen.len() % orders.len().max(1)).ok_or(deepest)?;
        match order.get(at) {
            Some(_) if steps >= SEARCH_STEPS => return Err(deepest),
            Some(relay) if chosen.iter().all(|(_, hop)| fit(hop, relay)) => {
                chosen.push((at, relay));
                deepest = deepest.max(chosen.len());
                at = first_place(&chosen, orders.len());
            }
            Some(_) => at += 1,
            None => at = chosen.pop().ok_or(deepest)?.0 + 1,
        }
    }
    Ok(chosen.into_iter().map(|(_, relay)| relay).collect())
}

/// Relays in the order of exponential variables with their weights as rates: as if each next one were drawn by weight from
/// those that are left (Efraimidis and Spirakis, 2006).
pub(super) fn random_order<'a>(
    relays: impl Iterator<Item = &'a SnapshotRelay>,
    rng: &mut dyn Rng,
) -> Vec<&'a SnapshotRelay> {
    let mut order: Vec<_> = relays.map(|relay| (-rng.random::<f64>().ln() / relay.weight as f64, relay)).collect();
    order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    order.into_iter().map(|(_, relay)| relay).collect()
}

/// Where the search for the hop after `chosen` starts: hops of one pool are chosen in its order, as their exchange
/// would be no new path to try.
fn first_place(chosen: &[(usize, &SnapshotRelay)], pools: usize) -> usize {
    chosen.len().checked_sub(pools).and_then(|before| chosen.get(before)).map_or(0, |(at, _)| at + 1)
}

/// Whether both may stand on one path.
pub(super) fn fit(a: &SnapshotRelay, b: &SnapshotRelay) -> bool {
    a.hop.id != b.hop.id && !a.is_related_to(b)
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "path_layers_tests.rs"]
mod layers_tests;
