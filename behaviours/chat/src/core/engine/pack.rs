//! The inside of an envelope, the same for all kinds of conversations: `length (2) ‖ body ‖ zeros`, under XChaCha20-Poly1305 with the
//! conversation's envelope key. A body begins with its mode. So nobody outside sees which kind of conversation an envelope is of, how
//! long its text is, or a ratchet's keys.

use ed25519_dalek::{SigningKey, VerifyingKey};
use fog_base::NetworkId;

use crate::core::{
    id::{ConversationId, DeviceId},
    seal::{Opened, Seal, SealError, Sealed},
    secrets::{
        SecretKey,
        key::{NONCE, TAG},
    },
    tag::TagKey,
};

/// [`Mode`] as the first byte of a body.
pub(super) mod mode {
    use crate::core::secrets::Mode;

    pub(in crate::core::engine) const OPEN: u8 = Mode::Open as u8;
    pub(in crate::core::engine) const PASSWORD: u8 = Mode::Password as u8;
    pub(in crate::core::engine) const GROUP: u8 = Mode::Group as u8;
    pub(in crate::core::engine) const DIRECT: u8 = Mode::Direct as u8;
    pub(in crate::core::engine) const FIRST: u8 = Mode::First as u8;
    pub(in crate::core::engine) const MEMBERSHIP: u8 = Mode::Membership as u8;
}

const ENVELOPE_KEY: &str = "fog chat v1 envelope key";
const DIRECT: &str = "fog chat v1 direct";
const DIRECT_TAG_KEY: &str = "fog chat v1 direct tag key";
const INBOX: &str = "fog chat v1 inbox";
const INBOX_TAG_KEY: &str = "fog chat v1 inbox tag key";

/// Seals one envelope.
pub(super) struct Inside<'a> {
    pub(super) key: &'a SecretKey,
    pub(super) nonce: [u8; NONCE],
}

impl Seal for Inside<'_> {
    fn overhead(&self) -> usize {
        NONCE + TAG + 2
    }

    fn seal(&mut self, header: &[u8], body: &[u8], length: usize) -> Result<Sealed, SealError> {
        let short = u16::try_from(body.len()).map_err(|_| SealError)?.to_be_bytes();
        let filler = length.checked_sub(body.len() + self.overhead()).ok_or(SealError)?;
        let parts = [short.as_slice(), body, &vec![0; filler]];
        let ciphertext = self.key.seal_parts(&self.nonce, header, &parts).ok_or(SealError)?;
        Ok(Sealed { ciphertext, state: Vec::new() })
    }

    fn open(&mut self, header: &[u8], ciphertext: &[u8]) -> Result<Opened, SealError> {
        let text = self.key.open(header, ciphertext).ok_or(SealError)?;
        let (length, rest) = text.split_first_chunk::<2>().ok_or(SealError)?;
        let plaintext = rest.get(..usize::from(u16::from_be_bytes(*length))).ok_or(SealError)?.to_vec();
        Ok(Opened { plaintext, state: Vec::new() })
    }
}

/// The envelope key of whatever has a tag key and no password.
pub(super) fn envelope_key(tag_key: &TagKey) -> SecretKey {
    SecretKey::new(tag_key.0).derive(ENVELOPE_KEY, &[])
}

fn hash(context: &'static str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    *hasher.finalize().as_bytes()
}

/// The conversation of two devices.
pub(super) fn direct_id(network: &NetworkId, a: DeviceId, b: DeviceId) -> ConversationId {
    ConversationId(hash(DIRECT, &[&network.0, &a.min(b).0, &a.max(b).0]))
}

/// Its tag key: from X25519 of the two device keys in Montgomery form (RFC 7748). `None` for a key that is no point, or of low order.
pub(super) fn direct_tag_key(own: &SigningKey, peer: DeviceId) -> Option<TagKey> {
    let point = VerifyingKey::from_bytes(&peer.0).ok().filter(|key| !key.is_weak())?.to_montgomery();
    Some(TagKey(hash(DIRECT_TAG_KEY, &[&(own.to_scalar() * point).to_bytes()])))
}

/// What stands for the first envelopes that a device gets of strangers.
pub(super) fn inbox(network: &NetworkId, device: DeviceId) -> (ConversationId, TagKey) {
    let parts: [&[u8]; 2] = [&network.0, &device.0];
    (ConversationId(hash(INBOX, &parts)), TagKey(hash(INBOX_TAG_KEY, &parts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_devices_make_the_same_tag_key_and_no_third_one_does() {
        let keys: Vec<_> = (1..4).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
        let device = |n: usize| DeviceId(keys[n].verifying_key().to_bytes());
        let ab = direct_tag_key(&keys[0], device(1)).unwrap();
        assert_eq!(direct_tag_key(&keys[1], device(0)).unwrap(), ab);
        assert_ne!(direct_tag_key(&keys[2], device(0)).unwrap(), ab);
        assert_ne!(direct_tag_key(&keys[2], device(1)).unwrap(), ab);
        // A point of low order would make a key that everybody knows.
        assert!(direct_tag_key(&keys[0], DeviceId([0; 32])).is_none());
    }

    #[test]
    fn what_is_inside_opens_with_its_header_alone() {
        let key = SecretKey::new([1; 32]);
        let mut inside = Inside { key: &key, nonce: [2; NONCE] };
        let sealed = inside.seal(b"header", b"body", 488).unwrap().ciphertext;
        assert_eq!(sealed.len(), 488);
        assert_eq!(inside.open(b"header", &sealed).unwrap().plaintext, b"body");
        assert!(inside.open(b"other", &sealed).is_err());
        assert!(inside.seal(b"", &[0; 100], 100).is_err());
    }
}
