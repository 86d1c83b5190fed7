//! Secret keys of 32 bytes, and sealing under them.
//!
//! Sealing is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03). Its 24-byte nonces are random and so need no counter that a crash
//! could turn back. Keys are derived with BLAKE3's `derive_key` mode, whose context string separates the domains.

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, AeadInOut, Payload},
};
use zeroize::Zeroizing;

/// Bytes of a nonce, which stands before the ciphertext.
pub const NONCE: usize = 24;
/// Bytes of an authenticator, which ends the ciphertext.
pub const TAG: usize = 16;

/// A secret of 32 bytes, wiped when dropped. `Debug` prints nothing of it.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; 32]>);

impl SecretKey {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// `BLAKE3-derive-key(context, key ‖ for each part: its length as u64, big-endian ‖ its bytes)`.
    pub fn derive(&self, context: &'static str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.0.as_slice());
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Self::new(*hasher.finalize().as_bytes())
    }

    /// The bytes, for a primitive or to be sealed.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// `nonce ‖ ciphertext ‖ authenticator` of `text`, bound to `aad`. The nonce must never come twice with this key.
    /// `None` only for texts beyond the cipher's limit of 256 GiB.
    pub fn seal(&self, nonce: &[u8; NONCE], aad: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        self.seal_parts(nonce, aad, &[text])
    }

    /// [`Self::seal`] of these parts one after the other. They are put together where they are sealed, so that no copy is left behind.
    pub fn seal_parts(&self, nonce: &[u8; NONCE], aad: &[u8], parts: &[&[u8]]) -> Option<Vec<u8>> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut out = Vec::with_capacity(NONCE + length + TAG);
        out.extend_from_slice(nonce);
        parts.iter().for_each(|part| out.extend_from_slice(part));
        let (_, text) = out.split_at_mut_checked(NONCE)?;
        let tag = self.cipher().encrypt_inout_detached(&(*nonce).into(), aad, text.into()).ok()?;
        out.extend_from_slice(&tag);
        Some(out)
    }

    /// The text that [`Self::seal`] sealed with the same `aad`; `None` for anything else.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE>()?;
        self.cipher().decrypt(&(*nonce).into(), Payload { msg: text, aad }).ok().map(Zeroizing::new)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.0).into())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_and_context_alone() {
        let key = SecretKey::new([1; 32]);
        let sealed = key.seal(&[2; NONCE], b"row", b"text").unwrap();
        assert_eq!(sealed.len(), NONCE + 4 + TAG);
        assert_eq!(key.open(b"row", &sealed).unwrap().as_slice(), b"text");
        assert!(key.open(b"other row", &sealed).is_none());
        assert!(SecretKey::new([3; 32]).open(b"row", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(key.open(b"row", &bad).is_none(), "byte {at}");
            assert!(key.open(b"row", &sealed[..at]).is_none(), "{at} bytes");
        }
    }

    #[test]
    fn derived_keys_differ_by_context_and_by_the_borders_of_the_parts() {
        let key = SecretKey::new([1; 32]);
        let keys = [
            key.derive("fog chat test a", &[b"ab", b"c"]),
            key.derive("fog chat test a", &[b"a", b"bc"]),
            key.derive("fog chat test b", &[b"ab", b"c"]),
            SecretKey::new([2; 32]).derive("fog chat test a", &[b"ab", b"c"]),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().map(|key| *key.expose()).collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn debug_prints_nothing_of_a_key() {
        assert_eq!(format!("{:?}", SecretKey::new([0xab; 32])), "SecretKey(..)");
    }
}
