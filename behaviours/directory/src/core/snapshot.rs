//! The relays of one epoch as everybody sees them: what paths are drawn from (`path.rs`).
//!
//! A snapshot never changes; a new set makes a new one. Cloning costs a reference count.

use std::sync::Arc;

use fog_base::{Epoch, NodeId, relay::RelayHop};

use super::{
    address::Net,
    descriptor::Descriptor,
    path::Pools,
    seating::{Seat, Seating},
};

const ROOT_LABEL: &str = "fog snapshot v1";

/// A relay of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRelay {
    /// What paths need of it.
    pub hop: RelayHop,
    /// Its descriptor.
    pub descriptor: Arc<Descriptor>,
    /// Its share of the traffic, relative to the others.
    pub weight: u64,
    /// Its mix layer; `None` where every relay may stand anywhere.
    pub layer: Option<u8>,
    nets: Vec<Net>,
}

impl SnapshotRelay {
    /// Whether one operator may hold both: one family, or one global network.
    pub fn is_related_to(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.descriptor.facts().family, other.descriptor.facts().family);
        (ours.is_some() && ours == theirs) || self.nets.iter().any(|net| other.nets.contains(net))
    }
}

#[derive(Debug)]
struct Inner {
    epoch: Epoch,
    root: [u8; 32],
    is_certified: bool,
    /// Sorted by id.
    relays: Vec<SnapshotRelay>,
    /// What the middle hops of paths are drawn from.
    pools: Pools,
}

/// The relays of an epoch.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Inner>);

impl Snapshot {
    /// From the descriptors with keys for `epoch`, in any order, one per relay.
    pub fn new(epoch: Epoch, mut descriptors: Vec<Arc<Descriptor>>, seating: &dyn Seating) -> Self {
        descriptors.retain(|descriptor| descriptor.covers(epoch));
        descriptors.sort_by_key(|descriptor| descriptor.relay());
        descriptors.dedup_by_key(|descriptor| descriptor.relay());
        let root = root(epoch, &descriptors);
        Self::certified(epoch, (root, false), &descriptors, seating)
    }

    /// From a certified set: its root, whether it was certified for this epoch (or serves on for lack of a newer one), and its
    /// descriptors, sorted by relay; in an epoch after its own, the newest ones of its relays.
    pub fn certified(
        epoch: Epoch,
        (root, is_certified): ([u8; 32], bool),
        descriptors: &[Arc<Descriptor>],
        seating: &dyn Seating,
    ) -> Self {
        let relays: Vec<_> =
            seating.seat(epoch, descriptors).into_iter().filter_map(|seat| seated(epoch, seat)).collect();
        let pools = Pools::new(&relays);
        Self(Arc::new(Inner { epoch, root, is_certified, relays, pools }))
    }

    /// The epoch whose keys it has.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// Names exactly this set.
    pub fn root(&self) -> [u8; 32] {
        self.0.root
    }

    /// Whether the set was certified for this epoch.
    pub fn is_certified(&self) -> bool {
        self.0.is_certified
    }

    /// The relays, sorted by id; those without weight have no seat.
    pub fn relays(&self) -> &[SnapshotRelay] {
        &self.0.relays
    }

    /// How many mixes the fullest layer has; all, where there are no layers.
    pub fn widest_layer(&self) -> usize {
        self.0.pools.widest()
    }

    /// How many of them have a seat.
    pub fn seated(&self) -> usize {
        self.0.relays.iter().filter(|relay| relay.weight > 0).count()
    }

    /// One relay.
    pub fn find(&self, relay: NodeId) -> Option<&SnapshotRelay> {
        let at = self.0.relays.binary_search_by_key(&relay, |relay| relay.hop.id).ok()?;
        self.0.relays.get(at)
    }

    /// What the middle hops of paths are drawn from.
    pub(super) fn pools(&self) -> &Pools {
        &self.0.pools
    }
}

fn seated(epoch: Epoch, seat: Seat) -> Option<SnapshotRelay> {
    let Seat { descriptor, weight, layer } = seat;
    Some(SnapshotRelay { hop: descriptor.hop(epoch)?, nets: descriptor.nets(), descriptor, weight, layer })
}

fn root(epoch: Epoch, descriptors: &[Arc<Descriptor>]) -> [u8; 32] {
    let mut hashes: Vec<_> = descriptors.iter().map(|descriptor| descriptor.hash()).collect();
    hashes.sort();
    let mut hasher = blake3::Hasher::new_derive_key(ROOT_LABEL);
    hasher.update(&epoch.0.to_be_bytes());
    for hash in &hashes {
        hasher.update(hash);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        seating::OpenSeating,
        testing::{EPOCH, relay, relay_at},
    };

    #[test]
    fn the_root_names_the_set_and_not_its_order() {
        let (a, b) = (Arc::new(relay(1)), Arc::new(relay(2)));
        let root = |set: &[&Arc<Descriptor>], epoch| {
            Snapshot::new(epoch, set.iter().map(|d| (*d).clone()).collect(), &OpenSeating).root()
        };
        assert_eq!(root(&[&a, &b], EPOCH), root(&[&b, &a], EPOCH));
        assert_ne!(root(&[&a, &b], EPOCH), root(&[&a], EPOCH));
        assert_ne!(root(&[&a, &b], EPOCH), root(&[&a, &b], EPOCH.next()));
    }

    #[test]
    fn a_relay_without_a_key_for_the_epoch_is_not_in_it() {
        let early = Arc::new(relay(1));
        let late = Arc::new(relay_at(2, EPOCH.next()));
        let snapshot = |epoch| Snapshot::new(epoch, vec![early.clone(), late.clone()], &OpenSeating);
        assert_eq!(snapshot(EPOCH).relays().len(), 1);
        assert_eq!(snapshot(EPOCH.next()).relays().len(), 2);
        assert_eq!(snapshot(EPOCH).find(late.relay()), None);
        let hop = |epoch| snapshot(epoch).find(early.relay()).unwrap().hop.clone();
        assert_eq!(hop(EPOCH).mix_key, early.facts().mix_keys[0]);
        assert_eq!(hop(EPOCH.next()).mix_key, early.facts().mix_keys[1]);
        assert_ne!(hop(EPOCH).delay_salt, hop(EPOCH.next()).delay_salt);
    }
}
