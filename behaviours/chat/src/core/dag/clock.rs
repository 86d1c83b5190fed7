//! Vector clocks by slot, and their digest.
//!
//! A slot is this node's own number for an author; nothing on the wire knows slots.

use std::sync::Arc;

use crate::core::id::DeviceId;

const ENTRY_CONTEXT: &str = "fog chat v1 clock entry";

/// An author's number on this node.
pub(super) type Slot = u32;

/// Seq per slot; what is beyond the end is 0. Shared, because most messages' clocks are looked at and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Clock(Arc<Vec<u32>>);

impl Clock {
    pub(super) fn get(&self, slot: Slot) -> u32 {
        self.0.get(slot as usize).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, slot: Slot, seq: u32) {
        let entries = Arc::make_mut(&mut self.0);
        let at = slot as usize;
        if entries.len() <= at {
            entries.resize(at + 1, 0);
        }
        if let Some(entry) = entries.get_mut(at) {
            *entry = seq;
        }
    }

    /// The entrywise maximum.
    pub(super) fn join(&mut self, other: &Self) {
        if Arc::ptr_eq(&self.0, &other.0) {
            return;
        }
        let entries = Arc::make_mut(&mut self.0);
        if entries.len() < other.0.len() {
            entries.resize(other.0.len(), 0);
        }
        for (to, from) in entries.iter_mut().zip(other.0.iter()) {
            *to = (*to).max(*from);
        }
    }

    /// The entries that are not 0.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Slot, u32)> + '_ {
        (0..).zip(self.0.iter().copied()).filter(|(_, seq)| *seq > 0)
    }

    /// The entries that differ from `earlier`, which is nowhere above.
    pub(super) fn since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = (Slot, u32)> + 'a {
        self.entries().filter(|(slot, seq)| earlier.get(*slot) != *seq)
    }
}

/// A sum modulo 2²⁵⁶ of the entries' hashes, so that a change costs one entry and not the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Digest([u64; 4]);

impl Digest {
    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let mut limbs = [0; 4];
        for (limb, word) in limbs.iter_mut().zip(words) {
            *limb = u64::from_le_bytes(*word);
        }
        Self(limbs)
    }

    pub(super) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (to, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *to = limb.to_le_bytes();
        }
        bytes
    }

    fn add(&mut self, other: Self) {
        let mut carry = false;
        for (to, from) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = to.overflowing_add(from);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *to = sum;
            carry = first || second;
        }
    }

    fn subtract(&mut self, other: Self) {
        let mut borrow = false;
        for (to, from) in self.0.iter_mut().zip(other.0) {
            let (rest, first) = to.overflowing_sub(from);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            *to = rest;
            borrow = first || second;
        }
    }
}

/// Makes the hashes of entries; the context is hashed once.
#[derive(Debug)]
pub(super) struct EntryHasher(blake3::Hasher);

impl Default for EntryHasher {
    fn default() -> Self {
        Self(blake3::Hasher::new_derive_key(ENTRY_CONTEXT))
    }
}

impl EntryHasher {
    /// Replaces in `digest` the author's entry `old` (none if 0) by `new`.
    pub(super) fn replace(&self, digest: &mut Digest, author: DeviceId, old: u32, new: u32) {
        if old > 0 {
            digest.subtract(self.entry(author, old));
        }
        digest.add(self.entry(author, new));
    }

    fn entry(&self, author: DeviceId, seq: u32) -> Digest {
        let mut hasher = self.0.clone();
        hasher.update(&author.0).update(&seq.to_be_bytes());
        Digest::from_bytes(hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clock(entries: &[(u32, u32)]) -> Clock {
        let mut clock = Clock::default();
        for (slot, seq) in entries {
            clock.set(*slot, *seq);
        }
        clock
    }

    #[test]
    fn a_join_takes_the_larger_entries_and_since_tells_which_changed() {
        let (a, b) = (clock(&[(0, 3), (2, 1)]), clock(&[(0, 1), (1, 4), (2, 1)]));
        let mut both = a.clone();
        both.join(&b);
        assert_eq!(both, clock(&[(0, 3), (1, 4), (2, 1)]));
        assert_eq!(both.since(&a).collect::<Vec<_>>(), [(1, 4)]);
        assert_eq!(both.since(&Clock::default()).count(), 3);
    }

    #[test]
    fn carries_and_borrows_cross_limbs() {
        let mut digest = Digest([u64::MAX, u64::MAX, 0, 0]);
        digest.add(Digest([1, 0, 0, 0]));
        assert_eq!(digest, Digest([0, 0, 1, 0]));
        digest.subtract(Digest([1, 0, 0, 0]));
        assert_eq!(digest, Digest([u64::MAX, u64::MAX, 0, 0]));
    }

    proptest! {
        #[test]
        fn a_digest_does_not_depend_on_the_way_to_its_entries(seqs in proptest::collection::vec(1u32..9, 1..8)) {
            let author = |i: usize| DeviceId([u8::try_from(i).unwrap(); 32]);
            let hasher = EntryHasher::default();
            let (mut at_once, mut by_steps) = (Digest::default(), Digest::default());
            for (i, seq) in seqs.iter().enumerate() {
                hasher.replace(&mut at_once, author(i), 0, *seq);
            }
            for (i, seq) in seqs.iter().enumerate().rev() {
                for step in 1..=*seq {
                    hasher.replace(&mut by_steps, author(i), step - 1, step);
                }
            }
            prop_assert_eq!(at_once, by_steps);
            prop_assert_eq!(Digest::from_bytes(&at_once.to_bytes()), at_once);
        }
    }
}
