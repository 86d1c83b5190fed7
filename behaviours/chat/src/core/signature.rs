//! Signatures under messages, checked alone or many at once.
//!
//! Checked is RFC 8032's own equation, with the cofactor: `8 (s B − R − k A) = 0`, k = SHA-512(R ‖ A ‖ text) mod ℓ. Without the cofactor a sum of
//! several equations and each of them alone disagree about signatures that their author made with points of low order (K. Chalkias, F. Garillot,
//! V. Nikolaenko: Taming the many EdDSAs, ePrint 2020/1244): members who check differently would have different histories.
//! Besides, s is below ℓ, A and R have their one encoding each, and neither is of low order.
//!
//! Many at once: the sum of all equations, each times 128 random bits, holds if all of them do, and with a probability of at most 2⁻¹²⁵ otherwise.

use std::collections::BTreeMap;

use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::ED25519_BASEPOINT_POINT,
    edwards::CompressedEdwardsY,
    traits::{IsIdentity, VartimeMultiscalarMul},
};
use rand::Rng;
use sha2::{Digest, Sha512};

/// Bytes of a signature.
pub const SIGNATURE: usize = 64;

/// Ed25519 keys as points, which are checked and decoded once.
#[derive(Debug, Default)]
pub struct KeyCache(BTreeMap<[u8; 32], EdwardsPoint>);

/// What a signature says, and is yet to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    key: [u8; 32],
    /// −A, −R.
    minus: (EdwardsPoint, EdwardsPoint),
    s: Scalar,
    k: Scalar,
}

impl KeyCache {
    const MAX: usize = 4_096;

    /// What the signature of `text` by `key` says; `None` if it can be true of nothing.
    pub fn claim(&mut self, key: &[u8; 32], text: &[u8], signature: &[u8; SIGNATURE]) -> Option<Claim> {
        let a = self.get(key)?;
        let (r, rest) = signature.split_first_chunk::<32>()?;
        let s = Option::from(Scalar::from_canonical_bytes(rest.try_into().ok()?))?;
        let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(text).finalize();
        let k = Scalar::from_bytes_mod_order_wide(&hash.into());
        Some(Claim { key: *key, minus: (-a, -point(r)?), s, k })
    }

    fn get(&mut self, key: &[u8; 32]) -> Option<EdwardsPoint> {
        if let Some(point) = self.0.get(key) {
            return Some(*point);
        }
        let point = point(key)?;
        if self.0.len() >= Self::MAX {
            self.0.clear();
        }
        self.0.insert(*key, point);
        Some(point)
    }
}

impl Claim {
    /// Checks it alone.
    pub fn holds(&self) -> bool {
        let (minus_a, minus_r) = &self.minus;
        let sum = EdwardsPoint::vartime_double_scalar_mul_basepoint(&self.k, minus_a, &self.s) + minus_r;
        sum.mul_by_cofactor().is_identity()
    }

    /// Checks them all at once; which one is false it does not say. Nobody who makes signatures may foresee `rng`.
    pub fn all_hold(claims: &[Self], rng: &mut impl Rng) -> bool {
        if let [claim] = claims {
            return claim.holds();
        }
        let mut of_base = Scalar::ZERO;
        let mut of_keys: BTreeMap<[u8; 32], (Scalar, EdwardsPoint)> = BTreeMap::new();
        let mut terms = Vec::with_capacity(2 * claims.len() + 1);
        for Self { key, minus: (minus_a, minus_r), s, k } in claims {
            let mut random = [0; 16];
            rng.fill_bytes(&mut random);
            let z = Scalar::from(u128::from_le_bytes(random));
            of_base += z * s;
            of_keys.entry(*key).or_insert((Scalar::ZERO, *minus_a)).0 += z * k;
            terms.push((z, *minus_r));
        }
        terms.extend(of_keys.into_values());
        terms.push((of_base, ED25519_BASEPOINT_POINT));
        let scalars = terms.iter().map(|(scalar, _)| scalar);
        let sum = EdwardsPoint::vartime_multiscalar_mul(scalars, terms.iter().map(|(_, point)| point));
        sum.mul_by_cofactor().is_identity()
    }
}

/// The point of an encoding that no other one is of, unless it is of low order. Of y = ±1, which alone have two signs for x = 0, both are.
fn point(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
    let [low, middle @ .., high] = bytes;
    let is_above = *low >= 0xed && middle.iter().all(|byte| *byte == 0xff) && high & 0x7f == 0x7f;
    let point = CompressedEdwardsY(*bytes).decompress().filter(|_| !is_above)?;
    (!point.is_small_order()).then_some(point)
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
