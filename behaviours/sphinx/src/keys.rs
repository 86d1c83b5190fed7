//! The mix keys of relays: X25519, one pair per relay and epoch.

use core::fmt;
use core::hash::{Hash, Hasher};

use fog_x25519::GroupPoint;
use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::KeyError;

/// The private half of a mix key. Erased when dropped; `Debug` shows nothing of it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MixSecretKey([u8; 32]);

impl MixSecretKey {
    /// Any 32 bytes; they are clamped whenever they are used, as RFC 7748 does.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes that [`from_bytes`](Self::from_bytes) takes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    /// A new random key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut key = Self([0; 32]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> MixPublicKey {
        MixPublicKey(GroupPoint::public_key(&self.0))
    }

    pub(crate) const fn secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MixSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MixSecretKey(..)")
    }
}

/// The public half of a mix key: a point of the prime-order subgroup, canonically encoded.
#[derive(Debug, Clone, Copy)]
pub struct MixPublicKey(GroupPoint);

impl MixPublicKey {
    /// Decodes and validates a key. It costs about one scalar multiplication: do it when a descriptor arrives, not
    /// per packet.
    ///
    /// # Errors
    /// Whatever is not the one encoding of a point of prime order is refused, with the reason.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        GroupPoint::decode(bytes).map(Self)
    }

    /// The encoding, as descriptors carry it.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub(crate) const fn point(&self) -> &GroupPoint {
        &self.0
    }
}

impl PartialEq for MixPublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for MixPublicKey {}

impl Hash for MixPublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to_bytes().hash(state);
    }
}
