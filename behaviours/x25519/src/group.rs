//! The subgroup of prime order ℓ, in which a sender's secrets live: there, and only there, may scalars be reduced modulo ℓ.

use core::fmt;

use curve25519_dalek::{
    EdwardsPoint, MontgomeryPoint,
    scalar::{Scalar, clamp_integer},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Backend, backend::Kind, dalek};

/// Why 32 bytes are not a public key of the prime-order subgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PointError {
    /// The u-coordinate lies on the quadratic twist.
    #[error("the key lies on the twist of the curve")]
    Twist,
    /// The u-coordinate is not reduced modulo 2^255 - 19, or bit 255 is set.
    #[error("the key is not canonically encoded")]
    NonCanonical,
    /// The point has an order that divides 8.
    #[error("the key has low order")]
    LowOrder,
    /// The point is not in the subgroup of prime order.
    #[error("the key has a torsion component")]
    Torsion,
}

/// A point of order ℓ. Public.
#[derive(Clone, Copy)]
pub struct GroupPoint {
    u: [u8; 32],
    edwards: EdwardsPoint,
}

impl GroupPoint {
    /// Decodes and validates a point. It costs about one multiplication.
    ///
    /// # Errors
    /// Whatever is not the one canonical encoding of a point of order ℓ is refused, with the reason.
    pub fn decode(u: &[u8; 32]) -> Result<Self, PointError> {
        let edwards = MontgomeryPoint(*u).to_edwards(0).ok_or(PointError::Twist)?;
        if edwards.to_montgomery().to_bytes() != *u {
            return Err(PointError::NonCanonical);
        }
        if edwards.is_small_order() {
            return Err(PointError::LowOrder);
        }
        if !edwards.is_torsion_free() {
            return Err(PointError::Torsion);
        }
        Ok(Self { u: *u, edwards })
    }

    /// The public key of an X25519 secret.
    #[must_use]
    pub fn public_key(secret: &[u8; 32]) -> Self {
        let edwards = EdwardsPoint::mul_base_clamped(*secret);
        Self { u: edwards.to_montgomery().to_bytes(), edwards }
    }

    /// The u-coordinate.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; 32] {
        self.u
    }
}

impl fmt::Debug for GroupPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupPoint(")?;
        for byte in self.u {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// A secret integer modulo ℓ. Erased when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct GroupScalar(Scalar);

impl GroupScalar {
    /// The scalar that X25519 makes of a secret.
    #[must_use]
    pub fn clamped(secret: &[u8; 32]) -> Self {
        // No clamped scalar is a multiple of ℓ.
        Self(Scalar::from_bytes_mod_order(clamp_integer(*secret)))
    }

    /// Multiplies by the scalar that X25519 makes of `factor`.
    pub fn multiply_clamped(&mut self, factor: &[u8; 32]) {
        self.0 *= Scalar::from_bytes_mod_order(clamp_integer(*factor));
    }
}

impl fmt::Debug for GroupScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupScalar(..)")
    }
}

/// For each secret: its product with the base point, and its product with the key in the same place.
///
/// # Panics
/// If the four slices differ in length.
pub fn agree(secrets: &[GroupScalar], keys: &[&GroupPoint], public: &mut [[u8; 32]], shared: &mut [[u8; 32]]) {
    Backend::current().agree(secrets, keys, public, shared);
}

/// Secrets that are worked on together: with two products each they fill eight lanes.
const GROUP: usize = 4;

impl Backend {
    /// As [`agree`](crate::agree).
    ///
    /// # Panics
    /// If the four slices differ in length.
    pub fn agree(
        self,
        secrets: &[GroupScalar],
        keys: &[&GroupPoint],
        public: &mut [[u8; 32]],
        shared: &mut [[u8; 32]],
    ) {
        let lengths = [keys.len(), public.len(), shared.len()];
        assert!(lengths.iter().all(|length| *length == secrets.len()), "as many secrets as keys and results");
        let results = public.chunks_mut(GROUP).zip(shared.chunks_mut(GROUP));
        for ((secrets, keys), (public, shared)) in secrets.chunks(GROUP).zip(keys.chunks(GROUP)).zip(results) {
            let products = Zeroizing::new(self.agree_group(secrets, keys));
            for (pair, (public, shared)) in products.as_chunks::<2>().0.iter().zip(public.iter_mut().zip(shared)) {
                [*public, *shared] = *pair;
            }
        }
    }

    /// Per secret: the product with the base point, the product with its key.
    fn agree_group(self, secrets: &[GroupScalar], keys: &[&GroupPoint]) -> [[u8; 32]; 2 * GROUP] {
        let pairs = secrets.iter().zip(keys).enumerate();
        match self.kind() {
            #[cfg(target_arch = "x86_64")]
            Kind::Lanes(lanes) => {
                let mut points = [crate::BASE_POINT; 2 * GROUP];
                pairs.for_each(|(i, (_, key))| points[2 * i + 1] = key.u);
                lanes.multiply(|i| secrets[i / 2].0.to_bytes(), &mut points[..2 * secrets.len()]);
                points
            }
            Kind::Dalek => {
                let mut products = [EdwardsPoint::default(); 2 * GROUP];
                for (i, (secret, key)) in pairs {
                    products[2 * i] = EdwardsPoint::mul_base(&secret.0);
                    products[2 * i + 1] = key.edwards * secret.0;
                }
                dalek::to_montgomery(&mut products)
            }
        }
    }
}
