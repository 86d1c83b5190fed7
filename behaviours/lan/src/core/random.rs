//! Random bytes from a seed, for nonces and jitter.

use std::time::Duration;

/// BLAKE3 keyed with the seed, of a counter.
#[derive(Clone)]
pub(super) struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random(..)")
    }
}

impl Random {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// The next `N` bytes, at most 32.
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 32) };
        self.counter = self.counter.wrapping_add(1);
        let hash = blake3::keyed_hash(&self.seed, &self.counter.to_be_bytes());
        let mut bytes = [0; N];
        bytes.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Uniform from zero to `longest`.
    pub(super) fn up_to(&mut self, longest: Duration) -> Duration {
        let fraction = f64::from(u32::from_be_bytes(self.bytes())) / f64::from(u32::MAX);
        longest.mul_f64(fraction)
    }
}
