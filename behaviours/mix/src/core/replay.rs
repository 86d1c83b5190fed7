//! The replay filter: which packets a relay has seen under one mix key.
//!
//! It stops the replay attack on mixes (Danezis and Goldberg 2009): a packet sent twice would leave twice by the same link.
//! The tag comes from the shared secret alone, so no change of wire bytes gives a packet a fresh one. A filter lives exactly as
//! long as the key it protects; when it is full every packet counts as seen (it fails closed). Exact on 64-bit fingerprints: the
//! tags are outputs of HKDF, so a false positive has probability n/2⁶⁴.

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hasher},
};

/// What is kept of a tag: its first eight bytes.
pub type Fingerprint = [u8; 8];

/// What is kept of `tag`.
pub fn fingerprint(tag: &[u8; 16]) -> Fingerprint {
    let [a, b, c, d, e, f, g, h, ..] = *tag;
    [a, b, c, d, e, f, g, h]
}

/// Spreads fingerprints over the table by a secret multiplier, so that a sender who picks secrets cannot crowd one bucket.
#[derive(Debug, Clone, Copy)]
struct Spread(u64);

#[derive(Debug)]
struct SpreadHasher {
    multiplier: u64,
    state: u64,
}

impl BuildHasher for Spread {
    type Hasher = SpreadHasher;
    fn build_hasher(&self) -> SpreadHasher {
        SpreadHasher { multiplier: self.0, state: 0 }
    }
}

impl Hasher for SpreadHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        let product = u128::from(self.state ^ n ^ self.multiplier.rotate_left(32)) * u128::from(self.multiplier);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }
    fn finish(&self) -> u64 {
        self.state
    }
}

/// The tables of a filter. A table that grows copies all that it holds while packets wait: one for all packets of a busy epoch
/// would do so for seconds, and hold two copies meanwhile.
pub const TABLES: usize = 1024;

/// The filter of one key.
#[derive(Debug)]
pub struct ReplayFilter {
    tables: Vec<HashSet<u64, Spread>>,
    spread: Spread,
    len: usize,
    capacity: usize,
}

impl ReplayFilter {
    /// An empty filter for at most `capacity` packets; memory (9 bytes a packet and the tables' slack) is taken as it fills.
    pub fn new(capacity: usize, secret: u64) -> Self {
        let spread = Spread(secret | 1);
        Self { tables: vec![HashSet::with_hasher(spread); TABLES], spread, len: 0, capacity }
    }

    /// Marks a packet as seen. False if it was seen before, or if the filter is full.
    pub fn insert(&mut self, fingerprint: Fingerprint) -> bool {
        let fingerprint = u64::from_le_bytes(fingerprint);
        // The low and the highest bits of the hash find the place in the table.
        let index = (self.spread.hash_one(fingerprint) >> 32) as usize % TABLES;
        let Some(table) = self.tables.get_mut(index) else { return false };
        let fresh = self.len < self.capacity && table.insert(fingerprint);
        self.len += usize::from(fresh);
        fresh
    }

    /// How many packets were seen.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is full: from then on every packet is refused.
    pub fn is_full(&self) -> bool {
        self.len >= self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_passes_once() {
        let mut filter = ReplayFilter::new(1000, 7);
        assert!(filter.insert([1; 8]));
        assert!(!filter.insert([1; 8]));
        assert!(filter.insert([2; 8]));
    }

    #[test]
    fn a_full_filter_refuses_everything() {
        let mut filter = ReplayFilter::new(2, 7);
        assert!(filter.insert([1; 8]) && filter.insert([2; 8]));
        assert!(!filter.insert([3; 8]));
        assert!(filter.is_full());
    }

    #[test]
    fn no_table_holds_many_more_than_the_others() {
        let mut filter = ReplayFilter::new(usize::MAX, 0x9e37_79b9_7f4a_7c15);
        // Neighbours, as a sender who tries secrets could make them.
        for n in 0..100 * TABLES as u64 {
            assert!(filter.insert((n << 10).to_le_bytes()));
        }
        assert_eq!(filter.len(), 100 * TABLES);
        // Ten standard deviations.
        assert!(filter.tables.iter().all(|table| (1..200).contains(&table.len())));
    }

    #[test]
    fn fingerprints_that_differ_in_few_bits_spread() {
        // 4,096 fingerprints that share their low and high bits must not share a bucket of the low 12 bits.
        let spread = Spread(0x9e37_79b9_7f4a_7c15);
        let mut buckets = std::collections::BTreeMap::<u64, u32>::new();
        for n in 0..4096u64 {
            *buckets.entry(spread.hash_one(n << 26) & 0xfff).or_default() += 1;
        }
        assert!(buckets.values().max().unwrap() < &16, "{:?}", buckets.values().max());
    }
}
