//! Maps by numbers that this node gives out itself, one after another: nobody else chooses them, so they need no keyed hash, which is looked
//! up a dozen times for each cell.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map by such numbers; never one by what a peer chooses.
pub(crate) type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// One multiplication by 2⁶⁴ over the golden ratio (Knuth, TAOCP 3, 6.4), and its upper bits over the lower ones.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32) ^ (self.0 >> 47)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use super::*;

    #[test]
    fn odd_and_even_rows_of_numbers_are_spread_over_buckets_and_tags() {
        for (from, step) in [(1u64, 2), (2, 2), (0, 1), (1 << 40, 64)] {
            let hash = |i: u64| BuildHasherDefault::<Mix>::default().hash_one(from + i * step);
            let buckets: HashSet<_> = (0..1024).map(|i| hash(i) % 1024).collect();
            let tags: HashSet<_> = (0..1024).map(|i| hash(i) >> 57).collect();
            // Of even draws, 63 % of the buckets.
            assert!(buckets.len() > 600 && tags.len() == 128, "{from} {step}: {} {}", buckets.len(), tags.len());
        }
    }
}
