//! Descriptors that were fetched, and the highest revision that was seen of each.

use std::collections::BTreeMap;

use fog_base::Epoch;

use crate::core::{blinding::BlindedKey, descriptor::Descriptor};

/// Descriptors that are kept.
const CAPACITY: usize = 256;

#[derive(Debug, Default)]
pub(in crate::core) struct Cache {
    kept: BTreeMap<BlindedKey, (u64, Descriptor)>,
    uses: u64,
}

impl Cache {
    /// The newest that was seen, while it is valid.
    pub(in crate::core) fn get(&mut self, key: &BlindedKey, epoch: Epoch) -> Option<Descriptor> {
        self.uses += 1;
        let (used, descriptor) = self.kept.get_mut(key)?;
        *used = self.uses;
        descriptor.check(epoch).is_ok().then(|| descriptor.clone())
    }

    /// The highest revision that was seen.
    pub(in crate::core) fn revision(&self, key: &BlindedKey) -> Option<u64> {
        self.kept.get(key).map(|(_, descriptor)| descriptor.header().revision)
    }

    /// Keeps it, if none as new is kept. The one that was not used for longest makes room.
    pub(in crate::core) fn put(&mut self, descriptor: Descriptor) {
        let key = descriptor.header().key;
        if self.revision(&key).is_some_and(|revision| revision >= descriptor.header().revision) {
            return;
        }
        if self.kept.len() >= CAPACITY && !self.kept.contains_key(&key) {
            let oldest = self.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.map(|oldest| self.kept.remove(&oldest));
        }
        self.uses += 1;
        self.kept.insert(key, (self.uses, descriptor));
    }
}
