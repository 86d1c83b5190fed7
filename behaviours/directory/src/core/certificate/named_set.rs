//! A set that is named by its Merkle root.

use std::{collections::BTreeMap, sync::Arc};

use fog_base::{EpochSchedule, NetworkId, NodeId, UnixMillis, record::SignedRecord};

use super::{Hash, merkle};
use crate::core::{
    descriptor::{Descriptor, Reject},
    exchange::reconcile::Items,
};

/// Descriptors that do not change any more, one for each relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSet {
    /// Sorted by relay.
    relays: Vec<Arc<Descriptor>>,
    /// Where each is, by hash.
    by_hash: BTreeMap<Hash, usize>,
    items: Items,
    root: Hash,
}

impl NamedSet {
    /// From descriptors in any order; of two of one relay the first is kept.
    pub fn new(mut relays: Vec<Arc<Descriptor>>) -> Self {
        relays.sort_by_key(|descriptor| descriptor.relay());
        relays.dedup_by_key(|descriptor| descriptor.relay());
        let by_hash: BTreeMap<_, _> = relays.iter().map(|descriptor| descriptor.hash()).zip(0..).collect();
        let root = merkle::root(&by_hash.keys().copied().collect::<Vec<_>>());
        let items = Items::new(relays.iter().map(|descriptor| (descriptor.seq(), descriptor.hash())));
        Self { relays, by_hash, items, root }
    }

    /// What is reconciled.
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// Its name.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The descriptors, sorted by relay.
    pub fn relays(&self) -> &[Arc<Descriptor>] {
        &self.relays
    }

    /// How many there are, as a statement says it.
    pub fn count(&self) -> u32 {
        u32::try_from(self.relays.len()).unwrap_or(u32::MAX)
    }

    /// The sorted hashes.
    pub fn hashes(&self) -> impl Iterator<Item = Hash> {
        self.by_hash.keys().copied()
    }

    /// The descriptor with this hash.
    pub fn by_hash(&self, hash: &Hash) -> Option<&Arc<Descriptor>> {
        self.relays.get(*self.by_hash.get(hash)?)
    }

    /// The descriptor of `relay`.
    pub fn find(&self, relay: &NodeId) -> Option<&Arc<Descriptor>> {
        let at = self.relays.binary_search_by_key(relay, |descriptor| descriptor.relay()).ok()?;
        self.relays.get(at)
    }

    /// Shows that the descriptor of `relay` is in it.
    pub fn proof(&self, relay: &NodeId) -> Option<merkle::Proof> {
        let hash = self.find(relay)?.hash();
        let sorted: Vec<_> = self.by_hash.keys().copied().collect();
        merkle::Proof::new(&sorted, sorted.binary_search(&hash).ok()?)
    }

    /// All descriptors, one after the other, each with its length (u16) before it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.relays.iter().flat_map(|descriptor| {
            let bytes = descriptor.as_bytes();
            // A descriptor has at most 3,300 bytes.
            (bytes.len() as u16).to_be_bytes().into_iter().chain(bytes.iter().copied())
        });
        bytes.collect()
    }

    /// Reads [`NamedSet::to_bytes`], and verifies each descriptor as of `at`.
    pub fn from_bytes(
        mut bytes: &[u8],
        network: &NetworkId,
        schedule: &EpochSchedule,
        at: UnixMillis,
    ) -> Result<Self, Reject> {
        let mut relays = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let (record, rest) = rest.split_at_checked(length).ok_or(Reject::Malformed)?;
            let descriptor = Descriptor::verify(SignedRecord::parse(record)?, network, schedule, at)?;
            relays.push(Arc::new(descriptor));
            bytes = rest;
        }
        if bytes.is_empty() { Ok(Self::new(relays)) } else { Err(Reject::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{NETWORK, node, relay, schedule, start};

    #[test]
    fn a_set_reads_back_and_proves_its_members() {
        let set = NamedSet::new([3, 1, 2].map(|n| Arc::new(relay(n))).to_vec());
        let read = |bytes: &[u8]| NamedSet::from_bytes(bytes, &NETWORK, &schedule(), start().unix);
        let bytes = set.to_bytes();
        assert_eq!(read(&bytes).as_ref(), Ok(&set));
        assert!(read(&bytes[..bytes.len() - 1]).is_err() && read(&[&bytes[..], &[0]].concat()).is_err());
        for n in 1..=3 {
            let proof = set.proof(&node(n)).unwrap();
            assert!(proof.verify(&set.root(), set.count(), &set.find(&node(n)).unwrap().hash()));
            assert!(!proof.verify(&set.root(), set.count(), &[0; 32]));
        }
        assert_eq!((set.proof(&node(4)), set.by_hash(&[0; 32])), (None, None));
        assert!(set.hashes().all(|hash| set.by_hash(&hash).is_some_and(|found| found.hash() == hash)));
    }
}
