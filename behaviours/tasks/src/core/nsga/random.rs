//! Randomness that is named by a seed and a number, so that what is drawn does not depend on which thread draws it.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

/// The generator of everything in placement.
pub type Random = ChaCha8Rng;

/// The `number`th generator of `seed`.
pub fn stream(seed: [u8; 32], number: u64) -> Random {
    let mut random = Random::from_seed(seed);
    random.set_stream(number);
    random
}

/// Uniform in `0..bound`, with a bias below `bound` / 2⁶⁴; 0 if `bound` is 0.
pub fn below(random: &mut Random, bound: usize) -> usize {
    ((u128::from(random.next_u64()) * bound as u128) >> 64) as usize
}

/// Uniform in [0, 1), a multiple of 2⁻⁵³.
pub fn unit(random: &mut Random) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
