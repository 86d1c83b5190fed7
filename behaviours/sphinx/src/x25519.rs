//! Every scalar multiplication of this crate: X25519 (RFC 7748) for many packets at once.
//!
//! Multiplying on the Edwards form of the curve is twice as fast as dalek's Montgomery ladder, and the inversions
//! that lead back share one exponentiation per batch. A u-coordinate on the quadratic twist has no Edwards form and
//! takes the ladder; which of the two happens depends on public bytes only. Either way the result is RFC 7748's, bit
//! for bit.

use curve25519_dalek::scalar::{Scalar, clamp_integer};
use curve25519_dalek::{EdwardsPoint, MontgomeryPoint};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::KeyError;

/// A u-coordinate in the form in which it is multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Point {
    Curve(EdwardsPoint),
    Twist(MontgomeryPoint),
}

impl Point {
    /// Any 32 bytes, as RFC 7748 decodes them: bit 255 is ignored, non-canonical values are reduced.
    pub(crate) fn decode(u: &[u8; 32]) -> Self {
        let u = MontgomeryPoint(*u);
        // The sign of the Edwards point is lost again in the u-coordinate of the product.
        u.to_edwards(0).map_or(Self::Twist(u), Self::Curve)
    }
}

/// X25519 of one secret with many points. Overwrites `out`, one result per point.
pub(crate) fn one_secret<'a>(secret: &[u8; 32], points: impl IntoIterator<Item = &'a Point>, out: &mut Vec<[u8; 32]>) {
    many_secrets(points.into_iter().map(|point| (secret, point)), out);
}

/// X25519 of many secrets, each with its own point. Overwrites `out`, one result per pair.
pub(crate) fn many_secrets<'a>(pairs: impl IntoIterator<Item = (&'a [u8; 32], &'a Point)>, out: &mut Vec<[u8; 32]>) {
    let pairs = pairs.into_iter();
    // Room for all of them: a vector that grows leaves copies of secrets behind.
    let (at_least, at_most) = pairs.size_hint();
    let mut products: Vec<EdwardsPoint> = Vec::with_capacity(at_most.unwrap_or(at_least));
    out.clear();
    for (secret, point) in pairs {
        match point {
            Point::Curve(point) => {
                products.push(point.mul_clamped(*secret));
                out.push([0; 32]);
            }
            Point::Twist(point) => {
                products.push(EdwardsPoint::default());
                out.push(point.mul_clamped(*secret).to_bytes());
            }
        }
    }
    let mut affine = EdwardsPoint::to_montgomery_batch(&products);
    for (result, u) in out.iter_mut().zip(&affine) {
        // A place that the ladder filled has the neutral element here, whose u is 0; a zero result stays zero.
        for (byte, other) in result.iter_mut().zip(u.as_bytes()) {
            *byte |= other;
        }
    }
    affine.iter_mut().for_each(Zeroize::zeroize);
    products.iter_mut().for_each(Zeroize::zeroize);
}

/// X25519 of one secret with one point.
pub(crate) fn single(secret: &[u8; 32], point: &Point) -> [u8; 32] {
    match point {
        Point::Curve(point) => point.mul_clamped(*secret).to_montgomery().to_bytes(),
        Point::Twist(point) => point.mul_clamped(*secret).to_bytes(),
    }
}

/// X25519 of a secret with the base point: its public key.
pub(crate) fn public_key(secret: &[u8; 32]) -> EdwardsPoint {
    EdwardsPoint::mul_base_clamped(*secret)
}

/// The one canonical encoding of a point of the prime-order subgroup other than the neutral element; anything else is
/// refused.
pub(crate) fn decode_public_key(u: &[u8; 32]) -> Result<EdwardsPoint, KeyError> {
    let point = MontgomeryPoint(*u).to_edwards(0).ok_or(KeyError::Twist)?;
    if point.to_montgomery().to_bytes() != *u {
        return Err(KeyError::NonCanonical);
    }
    if point.is_small_order() {
        return Err(KeyError::LowOrder);
    }
    if !point.is_torsion_free() {
        return Err(KeyError::Torsion);
    }
    Ok(point)
}

/// The sender's scalar, times every blinding factor so far, modulo the group order ℓ.
///
/// Reducing is sound here and only here: the base point and every mix key lie in the subgroup of order ℓ
/// ([`decode_public_key`]), and no clamped scalar is a multiple of ℓ.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct SenderScalar(Scalar);

impl SenderScalar {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self(Scalar::from_bytes_mod_order(clamp_integer(secret)))
    }

    /// What the relay does to α, done to the scalar.
    pub(crate) fn blind(&mut self, blinding: [u8; 32]) {
        self.0 *= Scalar::from_bytes_mod_order(clamp_integer(blinding));
    }

    /// α as this hop receives it, to be encoded together with the others.
    pub(crate) fn alpha(&self) -> EdwardsPoint {
        EdwardsPoint::mul_base(&self.0)
    }

    /// The secret shared with the holder of a mix key.
    pub(crate) fn shared(&self, key: &EdwardsPoint) -> [u8; 32] {
        (key * self.0).to_montgomery().to_bytes()
    }
}

/// The u-coordinates of many points, for one inversion.
pub(crate) fn encode(points: &[EdwardsPoint]) -> impl Iterator<Item = [u8; 32]> {
    EdwardsPoint::to_montgomery_batch(points).into_iter().map(|u| u.to_bytes())
}
