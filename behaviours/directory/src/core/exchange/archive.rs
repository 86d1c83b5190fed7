//! What a node holds besides the live set and gives to whoever asks: sets named by their Merkle root, the chain of
//! certificates, and the state that a certificate commits to.

use std::sync::Arc;

use fog_base::Epoch;

use super::reconcile::Items;
use crate::core::{certificate::merkle, descriptor::Descriptor};

type Hash = [u8; 32];

/// What this node holds besides the live set, for peers that ask.
pub trait Archive {
    /// The set under this Merkle root.
    fn set(&self, root: &Hash) -> Option<Arc<NamedSet>>;
    /// Links of the chain after `after`, oldest first, as many as fit `max_bytes`; whether there are more.
    fn links(&self, after: Epoch, max_bytes: usize) -> (Vec<Vec<u8>>, bool);
    /// Part of the state bytes with this hash, from `offset`, at most `max` bytes; and their whole length.
    fn state(&self, hash: &Hash, offset: u32, max: usize) -> Option<(u32, Vec<u8>)>;
}

/// The archive of a node that certifies nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoArchive;

impl Archive for NoArchive {
    fn set(&self, _: &Hash) -> Option<Arc<NamedSet>> {
        None
    }

    fn links(&self, _: Epoch, _: usize) -> (Vec<Vec<u8>>, bool) {
        (Vec::new(), false)
    }

    fn state(&self, _: &Hash, _: u32, _: usize) -> Option<(u32, Vec<u8>)> {
        None
    }
}

/// A set of descriptors under its root. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSet {
    descriptors: Vec<Arc<Descriptor>>,
    /// Sorted; with the place among the descriptors.
    places: Vec<(Hash, usize)>,
    items: Items,
    root: Hash,
}

impl NamedSet {
    /// Of descriptors in any order; what comes twice counts once.
    pub fn new(mut descriptors: Vec<Arc<Descriptor>>) -> Self {
        descriptors.sort_by_key(|descriptor| (descriptor.relay(), descriptor.hash()));
        descriptors.dedup_by_key(|descriptor| descriptor.hash());
        let mut places: Vec<_> = descriptors.iter().enumerate().map(|(at, one)| (one.hash(), at)).collect();
        places.sort_unstable();
        let hashes: Vec<_> = places.iter().map(|(hash, _)| *hash).collect();
        let items = Items::new(descriptors.iter().map(|descriptor| (descriptor.seq(), descriptor.hash())));
        Self { root: merkle::root(&hashes), descriptors, places, items }
    }

    /// Its Merkle root.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The descriptors, sorted by relay.
    pub fn descriptors(&self) -> &[Arc<Descriptor>] {
        &self.descriptors
    }

    /// The hashes of the descriptors, sorted.
    pub fn hashes(&self) -> impl Iterator<Item = Hash> {
        self.places.iter().map(|(hash, _)| *hash)
    }

    /// The descriptor with this hash.
    pub fn by_hash(&self, hash: &Hash) -> Option<&Arc<Descriptor>> {
        let at = self.places.binary_search_by_key(&hash, |(hash, _)| hash).ok()?;
        self.descriptors.get(self.places.get(at)?.1)
    }

    /// What is reconciled.
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// How many descriptors.
    pub fn len(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }
}
