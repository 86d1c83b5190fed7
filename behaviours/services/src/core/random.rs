//! Randomness from a seed that the caller provides: BLAKE3's output stream, one position a call.

use std::time::Duration;

use zeroize::Zeroizing;

/// A generator. Its seed has 32 random bytes and is used for nothing else.
pub struct Random {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

impl Random {
    /// From a secret seed.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed: Zeroizing::new(seed), counter: 0 }
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.counter = self.counter.wrapping_add(1);
        blake3::Hasher::new_keyed(&self.seed).update(&self.counter.to_be_bytes()).finalize_xof().fill(bytes);
    }

    /// Uniform below `end`, up to 2⁻⁶⁴·`end`; zero if `end` is.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(u64::from_be_bytes(self.bytes())) * u128::from(end);
        (wide >> 64) as u64
    }

    /// Uniform in `from ..= to`, to a millisecond.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX - 1);
        from + Duration::from_millis(self.below(span + 1))
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_range_and_reach_all_of_it() {
        let mut random = Random::new([1; 32]);
        let mut seen = [0u32; 7];
        for _ in 0..7000 {
            seen[random.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
        let (from, to) = (Duration::from_millis(3), Duration::from_millis(5));
        let drawn: std::collections::BTreeSet<_> = (0..100).map(|_| random.between(from, to).as_millis()).collect();
        assert_eq!(drawn, [3, 4, 5].into());
        assert_eq!((random.below(0), random.pick::<u8>(&[])), (0, None));
    }

    #[test]
    fn a_shuffle_keeps_the_items_and_moves_them() {
        let mut items: Vec<_> = (0..100).collect();
        Random::new([2; 32]).shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert!(items.into_iter().eq(0..100));
    }
}
