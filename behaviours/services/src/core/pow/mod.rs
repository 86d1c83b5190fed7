//! Proof of work for introductions (proposals 327 and 362): who pays more is served first when there is more to do than can be done.
//!
//! The puzzle is a trait. What a service needs of one: a proof of a few bytes, verified in microseconds by anybody, that takes a
//! sender milliseconds and memory. A hash alone (the cheapest to verify) is computed thousands of times faster by a graphics card;
//! a memory-hard hash (Argon2) costs the service as much to verify as the sender to make. A puzzle in which values that collide have to be found
//! among many is hard to make without memory and verified with a few hashes: [`equihash`].

mod effort;
mod equihash;
mod queue;

pub use effort::EffortLoop;
pub use equihash::Equihash;
pub use queue::{Placed, WorkQueue};

use super::{blinding::BlindedKey, bytes::Reader};

const CHALLENGE: &str = "fog services puzzle v1";
const EFFORT: &str = "fog services effort v1";
/// The highest effort that a client pays.
pub const MAX_EFFORT: u32 = 10_000;

/// Bytes of a solution.
pub const SOLUTION: usize = 16;

/// A puzzle: from a challenge, solutions that are hard to find and easy to check.
pub trait Puzzle: std::fmt::Debug + Send + Sync {
    /// All solutions of a challenge; none for many of them.
    fn solve(&self, challenge: &[u8; 32]) -> Vec<[u8; SOLUTION]>;

    /// Whether it is one.
    fn verify(&self, challenge: &[u8; 32], solution: &[u8; SOLUTION]) -> bool;
}

/// A proof of work as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// The first bytes of the seed that it was made over.
    pub seed_head: [u8; 4],
    /// The effort that it claims; not zero.
    pub effort: u32,
    /// Chosen by the sender.
    pub nonce: [u8; 16],
    /// The puzzle's solution.
    pub solution: [u8; SOLUTION],
}

impl Work {
    /// Bytes of a proof.
    pub const BYTES: usize = 40;

    /// README, "Inside an introduction".
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        let parts = self.seed_head.into_iter().chain(self.effort.to_be_bytes()).chain(self.nonce).chain(self.solution);
        out.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        out
    }

    /// `None` for an effort of zero.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let work = Self {
            seed_head: reader.array()?,
            effort: reader.u32()?,
            nonce: reader.array()?,
            solution: reader.array()?,
        };
        (work.effort > 0).then_some(work)
    }

    /// Whether it was made over `seed` for this service and is worth the effort that it claims.
    pub fn verify(&self, puzzle: &dyn Puzzle, key: &BlindedKey, seed: &[u8; 32]) -> bool {
        let challenge = challenge(key, seed, self.effort, &self.nonce);
        // The cheaper one first.
        seed.starts_with(&self.seed_head)
            && counts(&challenge, &self.solution, self.effort)
            && puzzle.verify(&challenge, &self.solution)
    }

    /// Tries up to `tries` nonces, the numbers that follow `nonce`: a job for a thread of its own, milliseconds each.
    pub fn make(
        puzzle: &dyn Puzzle,
        key: &BlindedKey,
        seed: &[u8; 32],
        effort: u32,
        nonce: [u8; 16],
        tries: u32,
    ) -> Option<Self> {
        let effort = effort.clamp(1, MAX_EFFORT);
        let first = u128::from_be_bytes(nonce);
        (0..tries).find_map(|n| {
            let nonce = first.wrapping_add(n.into()).to_be_bytes();
            let challenge = challenge(key, seed, effort, &nonce);
            let solution = puzzle.solve(&challenge).into_iter().find(|s| counts(&challenge, s, effort))?;
            let [a, b, c, d, ..] = *seed;
            Some(Self { seed_head: [a, b, c, d], effort, nonce, solution })
        })
    }
}

fn challenge(key: &BlindedKey, seed: &[u8; 32], effort: u32, nonce: &[u8; 16]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CHALLENGE);
    *hasher.update(key.as_bytes()).update(seed).update(&effort.to_be_bytes()).update(nonce).finalize().as_bytes()
}

/// Whether a solution, if it is one, is among the one in `effort` that counts.
fn counts(challenge: &[u8; 32], solution: &[u8; SOLUTION], effort: u32) -> bool {
    let hash = *blake3::Hasher::new_derive_key(EFFORT).update(challenge).update(solution).finalize().as_bytes();
    let [a, b, c, d, ..] = hash;
    u64::from(u32::from_be_bytes([a, b, c, d])) * u64::from(effort) < 1 << 32
}

#[cfg(test)]
#[path = "../pow_tests.rs"]
mod tests;
