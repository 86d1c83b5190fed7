//! Client authorization: a cookie that the clients a service knows can open, among decoys (rend-spec-v3, section 2.5.1.2).
//!
//! Who is not among them sees neither who is nor, beyond the next multiple of 16, how many there are. Removing a client takes effect
//! with the next descriptor, whose points must then be new ones.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD_NOCASE;
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};

use super::DescriptorError;
use crate::core::{blinding::Subcredential, bytes::Reader, kdf, kdf::Once, random::Random};

/// Clients of one service.
pub const MAX_CLIENTS: usize = 160;

const STEP: usize = 16;
const SEALED: usize = 16 + kdf::TAG;
const SLOT: usize = 8 + SEALED;
const LABEL: &[u8] = b"fog services client v1";

/// A text that is not a client's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client key has 52 characters, the letters a to z and the digits 2 to 7")]
pub struct KeyError;

/// A client's public key, which it gives to the service. Prints as 52 characters of base32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(pub [u8; 32]);

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl FromStr for ClientKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = BASE32_NOPAD_NOCASE.decode(text.as_bytes()).map_err(|_| KeyError)?;
        bytes.try_into().map(Self).map_err(|_| KeyError)
    }
}

/// A client's secret key.
#[derive(Clone)]
pub struct ClientSecret(StaticSecret);

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

impl ClientSecret {
    /// From 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    /// The public half.
    pub fn public(&self) -> ClientKey {
        ClientKey(PublicKey::from(&self.0).to_bytes())
    }
}

/// How a slot is found and opened.
struct SlotKeys {
    id: [u8; 8],
    once: Once,
}

impl SlotKeys {
    /// `None` if the other's key is of small order.
    fn derive(
        ours: &StaticSecret,
        theirs: &[u8; 32],
        descriptor: &[u8; 32],
        subcredential: &Subcredential,
    ) -> Option<Self> {
        let shared = ours.diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() {
            return None;
        }
        let okm = kdf::hkdf::<52>(&subcredential.0, &[shared.as_bytes()], &[LABEL, descriptor]);
        let mut reader = Reader(okm.as_slice());
        let (id, key, nonce) = (reader.array()?, reader.array()?, reader.array()?);
        Some(Self { id, once: Once::from_parts(&key, &nonce) })
    }
}

/// Writes the slots of `clients` and the decoys: key (32), count (1), slots in random order. Clients beyond [`MAX_CLIENTS`] and keys
/// of small order get none.
pub(super) fn write(
    clients: &[ClientKey],
    cookie: &[u8; 16],
    subcredential: &Subcredential,
    random: &mut Random,
) -> Vec<u8> {
    let secret = StaticSecret::from(random.bytes::<32>());
    let public = PublicKey::from(&secret).to_bytes();
    let keys = clients.iter().take(MAX_CLIENTS);
    let keys = keys.filter_map(|client| SlotKeys::derive(&secret, &client.0, &public, subcredential));
    let mut slots: Vec<Vec<u8>> =
        keys.map(|keys| [keys.id.as_slice(), &keys.once.seal(&[], cookie)].concat()).collect();
    let groups = slots.len().div_ceil(STEP).clamp(1, MAX_CLIENTS / STEP);
    while slots.len() < groups * STEP {
        slots.push(random.bytes::<SLOT>().to_vec());
    }
    random.shuffle(&mut slots);
    let count = u8::try_from(groups).unwrap_or(u8::MAX);
    [public.as_slice(), &[count], &slots.concat()].concat()
}

/// The slots of a descriptor.
pub(super) struct Slots<'a> {
    key: [u8; 32],
    slots: &'a [u8],
}

impl<'a> Slots<'a> {
    /// The slots, and what follows them.
    pub(super) fn read(outer: &'a [u8]) -> Result<(Self, &'a [u8]), DescriptorError> {
        let wrong = DescriptorError::Malformed("client slots");
        let mut reader = Reader(outer);
        let key = reader.array().ok_or(wrong)?;
        let groups = reader.u8().ok_or(wrong)?;
        if groups == 0 || usize::from(groups) > MAX_CLIENTS / STEP {
            return Err(wrong);
        }
        let slots = reader.slice(usize::from(groups) * STEP * SLOT).ok_or(wrong)?;
        Ok((Self { key, slots }, reader.0))
    }

    /// The cookie, if `client` has a slot.
    pub(super) fn cookie(&self, client: &ClientSecret, subcredential: &Subcredential) -> Option<[u8; 16]> {
        let keys = SlotKeys::derive(&client.0, &self.key, &self.key, subcredential)?;
        self.slots.chunks_exact(SLOT).find_map(|slot| {
            let (id, sealed) = slot.split_at_checked(8)?;
            let found = bool::from(id.ct_eq(&keys.id));
            let cookie = found.then(|| keys.once.open(&[], sealed)).flatten()?;
            cookie.as_slice().try_into().ok()
        })
    }
}
