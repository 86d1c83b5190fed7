//! Blinded keys: under which a service is known in one period, and which say nothing of its name (rend-spec-v3, appendix A.2).
//!
//! Generic over the constants: Tor's published vectors test this code with Tor's constants.

use curve25519_dalek::{
    edwards::{CompressedEdwardsY, EdwardsPoint},
    scalar::{Scalar, clamp_integer},
};
use ed25519_dalek::{
    Signature, SigningKey, VerifyingKey,
    hazmat::{ExpandedSecretKey, raw_sign},
};
use sha2::Sha512;
use sha3::{Digest, Sha3_256};
use zeroize::Zeroizing;

use super::address::{AddressError, ServiceKey};

const BASE_POINT: &[u8] = b"(15112221349535400772501151409588531511454012693041857206046113283949847762202, \
46316835694926478169428394003475163141307993866256225615783033603165251855960)";

/// The strings that one network's services differ in from another's.
pub trait Constants: 'static {
    /// What a name ends in.
    const SUFFIX: &'static str;
    /// The version in a name.
    const VERSION: u8;
    /// Stands before the key in a name's checksum.
    const CHECKSUM: &'static [u8];
    /// Stands first in the blinding factor's hash.
    const BLIND: &'static [u8];
    /// Stands first in the hash of the blinded key's nonce prefix.
    const BLIND_PREFIX: &'static [u8];
    /// Stands before number and length of the period.
    const NONCE: &'static [u8];
    /// Stands first in the credential.
    const CREDENTIAL: &'static [u8];
    /// Stands first in the subcredential.
    const SUBCREDENTIAL: &'static [u8];
}

/// Fog's constants.
#[derive(Debug, Clone, Copy)]
pub struct Fog;

impl Constants for Fog {
    const SUFFIX: &'static str = ".fog";
    const VERSION: u8 = 1;
    const CHECKSUM: &'static [u8] = b".fog checksum";
    const BLIND: &'static [u8] = b"fog services blinded key\0";
    const BLIND_PREFIX: &'static [u8] = b"fog services blinded key hash input";
    const NONCE: &'static [u8] = b"key-blind";
    const CREDENTIAL: &'static [u8] = b"credential";
    const SUBCREDENTIAL: &'static [u8] = b"subcredential";
}

/// What a key is blinded for.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The network's id; empty for Tor's vectors.
    pub secret: &'a [u8],
    /// The period's number.
    pub period: u64,
    /// The period's length, in the constants' unit.
    pub length: u64,
}

impl Context<'_> {
    fn factor<C: Constants>(&self, key: &ServiceKey) -> [u8; 32] {
        let hasher = Sha3_256::new().chain_update(C::BLIND).chain_update(key.as_bytes()).chain_update(self.secret);
        let hasher = hasher.chain_update(BASE_POINT).chain_update(C::NONCE);
        hasher.chain_update(self.period.to_be_bytes()).chain_update(self.length.to_be_bytes()).finalize().into()
    }
}

/// A service's public key in one period: a canonical point of prime order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlindedKey([u8; 32]);

impl BlindedKey {
    /// Checks the bytes as [`ServiceKey::from_bytes`] does.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, AddressError> {
        ServiceKey::from_bytes(bytes).map(|key| Self(*key.as_bytes()))
    }

    /// The blinded form of `key`.
    pub fn derive<C: Constants>(key: &ServiceKey, context: &Context<'_>) -> Self {
        let factor = Scalar::from_bytes_mod_order(clamp_integer(context.factor::<C>(key)));
        // A checked key has a point; the identity stands for none and is refused wherever keys are read.
        let point = CompressedEdwardsY(*key.as_bytes()).decompress().unwrap_or_default();
        let blinded: EdwardsPoint = point * factor;
        Self(blinded.compress().0)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this key signed `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        verify(&self.0, message, signature)
    }
}

/// Strict verification: no small-order key, no other encoding.
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

/// What only those know who know the name: takes part in every key of the period.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subcredential(pub [u8; 32]);

impl std::fmt::Debug for Subcredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subcredential(…)")
    }
}

impl Subcredential {
    /// Of a service and its blinded key.
    pub fn derive<C: Constants>(key: &ServiceKey, blinded: &BlindedKey) -> Self {
        let credential = Sha3_256::new().chain_update(C::CREDENTIAL).chain_update(key.as_bytes()).finalize();
        let hasher = Sha3_256::new().chain_update(C::SUBCREDENTIAL).chain_update(credential);
        Self(hasher.chain_update(blinded.0).finalize().into())
    }
}

/// A service's secret identity key.
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    key: ServiceKey,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// From the 32-byte seed of an Ed25519 key.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, AddressError> {
        let public = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        Ok(Self { seed: Zeroizing::new(seed), key: ServiceKey::from_bytes(public)? })
    }

    /// The public half.
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// The secret key of one period.
    pub fn blind<C: Constants>(&self, context: &Context<'_>) -> BlindedSecret {
        let expanded = ExpandedSecretKey::from(&*self.seed);
        BlindedSecret::derive::<C>(&expanded, &self.key, context)
    }
}

/// The secret half of a blinded key.
pub struct BlindedSecret {
    expanded: ExpandedSecretKey,
    key: BlindedKey,
}

impl std::fmt::Debug for BlindedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlindedSecret").field("key", &self.key).finish_non_exhaustive()
    }
}

impl BlindedSecret {
    fn derive<C: Constants>(identity: &ExpandedSecretKey, key: &ServiceKey, context: &Context<'_>) -> Self {
        let factor = Scalar::from_bytes_mod_order(clamp_integer(context.factor::<C>(key)));
        let hash = Sha512::new().chain_update(C::BLIND_PREFIX).chain_update(identity.hash_prefix).finalize();
        let mut hash_prefix = [0; 32];
        hash_prefix.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        let expanded = ExpandedSecretKey { scalar: identity.scalar * factor, hash_prefix };
        let key = BlindedKey(EdwardsPoint::mul_base(&expanded.scalar).compress().0);
        Self { expanded, key }
    }

    /// The public half.
    pub fn key(&self) -> &BlindedKey {
        &self.key
    }

    /// Bytes that only the holder of this key knows, for keys that are derived from it.
    pub fn prefix(&self) -> &[u8; 32] {
        &self.expanded.hash_prefix
    }

    /// Signs `message`; `None` if the key is none.
    pub fn sign(&self, message: &[u8]) -> Option<[u8; 64]> {
        let public = VerifyingKey::from_bytes(&self.key.0).ok()?;
        Some(raw_sign::<Sha512>(&self.expanded, message, &public).to_bytes())
    }
}

#[cfg(test)]
#[path = "blinding_tests.rs"]
pub(super) mod tests;
