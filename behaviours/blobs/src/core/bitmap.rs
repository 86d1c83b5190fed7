//! A set of numbers below a fixed bound, one bit each.

use std::ops::Range;

/// A set of numbers below [`Bitmap::len`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: u64,
    count: u64,
}

impl Bitmap {
    /// The empty set of numbers below `len`.
    pub fn new(len: u64) -> Self {
        Self { words: vec![0; usize::try_from(len.div_ceil(64)).unwrap_or(0)], len, count: 0 }
    }

    /// All numbers below `len`.
    pub fn full(len: u64) -> Self {
        let mut map = Self::new(len);
        for i in 0..len {
            map.set(i);
        }
        map
    }

    /// From bytes, the lowest number in the lowest bit of the first byte. `None` unless there are exactly as many bytes as `len`
    /// takes, and no bit is set beyond it.
    pub fn from_bytes(len: u64, bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 != len.div_ceil(8) {
            return None;
        }
        let mut map = Self::new(len);
        for (word, chunk) in map.words.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            *word = u64::from_le_bytes(whole);
            map.count += u64::from(word.count_ones());
        }
        let beyond = !len.is_multiple_of(64) && map.words.last().is_some_and(|word| word >> (len % 64) != 0);
        (!beyond).then_some(map)
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(usize::try_from(self.len.div_ceil(8)).unwrap_or(0));
        bytes
    }

    /// The bound.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether everything is in the set.
    pub fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// How many are in the set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether `i` is in the set.
    pub fn get(&self, i: u64) -> bool {
        let word = usize::try_from(i / 64).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    /// Adds `i`, and says whether that is new. What is not below the bound is not added.
    pub fn set(&mut self, i: u64) -> bool {
        self.change(i, true)
    }

    /// Removes `i`, and says whether it was there.
    pub fn clear(&mut self, i: u64) -> bool {
        self.change(i, false)
    }

    fn change(&mut self, i: u64, to: bool) -> bool {
        if i >= self.len || self.get(i) == to {
            return false;
        }
        let Some(word) = usize::try_from(i / 64).ok().and_then(|at| self.words.get_mut(at)) else { return false };
        *word ^= 1 << (i % 64);
        self.count = if to { self.count + 1 } else { self.count - 1 };
        true
    }

    /// The numbers of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let bits = |word: u64| (0..64u64).filter(move |bit| word >> bit & 1 == 1);
        self.words.iter().zip(0u64..).flat_map(move |(word, at)| bits(*word).map(move |bit| at * 64 + bit))
    }

    /// Whether all of `range` is in the set.
    pub fn has_all(&self, mut range: Range<u64>) -> bool {
        range.all(|i| self.get(i))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(len in 1u64..300, steps in prop::collection::vec((0u64..320, any::<bool>()), 0..200)) {
            let (mut map, mut set) = (Bitmap::new(len), BTreeSet::new());
            for (i, add) in steps {
                if add {
                    prop_assert_eq!(map.set(i), i < len && set.insert(i));
                } else {
                    prop_assert_eq!(map.clear(i), set.remove(&i));
                }
                set.retain(|i| *i < len);
            }
            prop_assert!(map.iter().eq(set.iter().copied()));
            prop_assert_eq!(map.count(), set.len() as u64);
            prop_assert_eq!(Bitmap::from_bytes(len, &map.to_bytes()), Some(map));
        }

        #[test]
        fn bytes_of_another_length_or_with_bits_beyond_are_refused(len in 1u64..300, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let fits = bytes.len() as u64 == len.div_ceil(8)
                && (len.is_multiple_of(8) || bytes.last().unwrap() >> (len % 8) == 0);
            prop_assert_eq!(Bitmap::from_bytes(len, &bytes).is_some(), fits);
        }
    }

    #[test]
    fn a_full_set_has_everything() {
        let mut map = Bitmap::full(130);
        assert!(map.is_full() && map.has_all(0..130) && !map.get(130));
        map.clear(64);
        assert!(!map.has_all(60..70) && map.has_all(65..130));
    }
}
