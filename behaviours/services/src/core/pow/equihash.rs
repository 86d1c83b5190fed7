//! Equihash with n = 60 and k = 3 over BLAKE3 (Biryukov and Khovratovich, "Equihash: asymmetric proof-of-work based on the generalized
//! birthday problem", 2016). Eight of 65,536 items that xor to zero, level by level; found by Wagner's algorithm.
//!
//! Equi-X has the same shape over random programs, which slow graphics cards down more; BLAKE3 does not. An honest sender needs about
//! 2 MiB and ten milliseconds for the two solutions that a challenge has in the mean. An attacker with less memory pays more time.

use super::{Puzzle, SOLUTION};

const ITEMS: usize = 1 << 16;
/// Bits that must be zero on each level but the last, where twice as many must.
const BITS: u32 = 15;
const ITEM_MASK: u64 = (1 << (4 * BITS)) - 1;
const LEVEL_MASK: u64 = (1 << BITS) - 1;
/// Pairs that are kept on a level; twice what is expected.
const MAX_PAIRS: usize = 2 * ITEMS;
const LEAVES: usize = 8;

/// The puzzle; README, "Proof of work".
#[derive(Debug, Clone, Copy, Default)]
pub struct Equihash;

fn stream(challenge: &[u8; 32]) -> blake3::OutputReader {
    blake3::Hasher::new_keyed(challenge).update(b"items").finalize_xof()
}

fn item(stream: &mut blake3::OutputReader, index: u16) -> u64 {
    let mut bytes = [0; 8];
    stream.set_position(u64::from(index) * 8);
    stream.fill(&mut bytes);
    u64::from_le_bytes(bytes) & ITEM_MASK
}

/// One level of the search: what is left of each value, the lowest leaf's place, and which two values below it was made of.
struct Level {
    values: Vec<u64>,
    first: Vec<u16>,
    made_of: Vec<(u32, u32)>,
}

impl Level {
    fn leaves(challenge: &[u8; 32]) -> Self {
        let mut bytes = vec![0; ITEMS * 8];
        stream(challenge).fill(&mut bytes);
        let values = bytes.chunks_exact(8).map(|chunk| chunk.try_into().map_or(0, u64::from_le_bytes) & ITEM_MASK);
        Self { values: values.collect(), first: (0..=u16::MAX).collect(), made_of: Vec::new() }
    }

    /// The values by their low bits: a counting sort's places.
    fn buckets(&self) -> (Vec<u32>, Vec<u32>) {
        let bucket = |value: &u64| (value & LEVEL_MASK) as usize;
        let mut ends = vec![0u32; 1 << BITS];
        for value in &self.values {
            if let Some(n) = ends.get_mut(bucket(value)) {
                *n += 1;
            }
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum - *end;
        }
        // From here on `ends` are the starts, and move to the ends as the places fill.
        let mut places = vec![0u32; self.values.len()];
        for (n, value) in (0u32..).zip(&self.values) {
            let Some(at) = ends.get_mut(bucket(value)) else { continue };
            if let Some(place) = places.get_mut(*at as usize) {
                *place = n;
            }
            *at += 1;
        }
        (places, ends)
    }

    /// Calls `found` for each two values whose low bits are equal, the one with the lower first leaf first.
    fn pairs(&self, mut found: impl FnMut(u32, u32, u64, u16)) {
        let (places, ends) = self.buckets();
        let mut start = 0;
        for end in ends {
            let bucket = places.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            for (n, &one) in bucket.iter().enumerate() {
                for &other in bucket.get(n + 1..).unwrap_or_default() {
                    let Some(((value, first), (other_value, other_first))) = self.at(one).zip(self.at(other)) else {
                        continue;
                    };
                    match first.cmp(&other_first) {
                        std::cmp::Ordering::Less => found(one, other, value ^ other_value, first),
                        std::cmp::Ordering::Greater => found(other, one, value ^ other_value, other_first),
                        std::cmp::Ordering::Equal => {}
                    }
                }
            }
        }
    }

    fn at(&self, n: u32) -> Option<(u64, u16)> {
        Some((*self.values.get(n as usize)?, *self.first.get(n as usize)?))
    }

    /// The next level: each two values whose low bits are equal, without those bits.
    fn next(&self) -> Self {
        let mut next = Self { values: Vec::new(), first: Vec::new(), made_of: Vec::new() };
        self.pairs(|left, right, value, first| {
            if next.values.len() < MAX_PAIRS {
                next.values.push(value >> BITS);
                next.first.push(first);
                next.made_of.push((left, right));
            }
        });
        next
    }

    fn parts(&self, n: u32) -> Option<[u32; 2]> {
        self.made_of.get(n as usize).map(|(left, right)| [*left, *right])
    }
}

fn encode(leaves: &[u32]) -> Option<[u8; SOLUTION]> {
    let leaves = leaves.iter().map(|leaf| u16::try_from(*leaf).ok()).collect::<Option<Vec<_>>>()?;
    leaves.iter().flat_map(|leaf| leaf.to_be_bytes()).collect::<Vec<_>>().try_into().ok()
}

impl Puzzle for Equihash {
    fn solve(&self, challenge: &[u8; 32]) -> Vec<[u8; SOLUTION]> {
        let leaves = Level::leaves(challenge);
        let twos = leaves.next();
        let fours = twos.next();
        let mut solutions = Vec::new();
        fours.pairs(|left, right, value, _| {
            if value != 0 {
                return;
            }
            let leaves = [left, right].into_iter().flat_map(|four| fours.parts(four)).flatten();
            let leaves: Vec<_> = leaves.flat_map(|two| twos.parts(two)).flatten().collect();
            // Some have one item twice.
            solutions.extend(encode(&leaves).filter(|solution| self.verify(challenge, solution)));
        });
        solutions
    }

    fn verify(&self, challenge: &[u8; 32], solution: &[u8; SOLUTION]) -> bool {
        let mut indices = [0; LEAVES];
        for (index, bytes) in indices.iter_mut().zip(solution.chunks_exact(2)) {
            *index = bytes.try_into().map_or(0, u16::from_be_bytes);
        }
        let [a, b, c, d, e, f, g, h] = indices;
        let ordered = [(a, b), (c, d), (e, f), (g, h), (a, c), (e, g), (a, e)].iter().all(|(left, right)| left < right);
        let mut sorted = indices;
        sorted.sort_unstable();
        if !ordered || sorted.windows(2).any(|two| two.first() == two.last()) {
            return false;
        }
        let mut stream = stream(challenge);
        let [a, b, c, d, e, f, g, h] = indices.map(|index| item(&mut stream, index));
        let low = |value: u64, levels: u32| value & ((1 << (levels * BITS)) - 1) == 0;
        let twos = [a ^ b, c ^ d, e ^ f, g ^ h];
        let (left, right) = (a ^ b ^ c ^ d, e ^ f ^ g ^ h);
        twos.iter().all(|two| low(*two, 1)) && low(left, 2) && low(right, 2) && left == right
    }
}
