//! The hash over labelled fields, HKDF and the AEAD: each as README's head defines it, in one place.

use chacha20poly1305::{ChaCha20Poly1305, KeyInit, aead::AeadInOut};
use hkdf::Hkdf;
use sha2::Sha256;
use sha3::{Digest, Sha3_256};
use zeroize::{Zeroize, Zeroizing};

/// Bytes that the AEAD adds.
pub const TAG: usize = 16;
/// Key and nonce.
const KEY_NONCE: usize = 32 + 12;

/// `H(label; fields)`: SHA3-256 over the label and the fields, each with its length before it.
pub fn hash(label: &str, fields: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha3_256::new();
    for field in std::iter::once(label.as_bytes()).chain(fields.iter().copied()) {
        hasher.update((field.len() as u64).to_be_bytes());
        hasher.update(field);
    }
    hasher.finalize().into()
}

/// `HKDF(salt, ikm, info, N)` of RFC 5869 with SHA-256; `ikm` and `info` are joined from their parts. At most 8160 bytes.
pub fn hkdf<const N: usize>(salt: &[u8], ikm: &[&[u8]], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32) };
    let mut okm = Zeroizing::new([0; N]);
    let ikm = Zeroizing::new(ikm.concat());
    // Fails for lengths above 8160 only.
    let _ = Hkdf::<Sha256>::new(Some(salt), &ikm).expand_multi_info(info, okm.as_mut_slice());
    okm
}

/// A key with its nonce: seals one thing, once.
pub struct Once(Zeroizing<[u8; KEY_NONCE]>);

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl Once {
    /// The 44 bytes of HKDF are key and nonce.
    pub fn derive(salt: &[u8], ikm: &[&[u8]], info: &[&[u8]]) -> Self {
        Self(hkdf(salt, ikm, info))
    }

    /// From a key and a nonce.
    pub fn from_parts(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        let mut both = Zeroizing::new([0; KEY_NONCE]);
        both.iter_mut().zip(key.iter().chain(nonce)).for_each(|(to, from)| *to = *from);
        Self(both)
    }

    fn cipher(&self) -> (ChaCha20Poly1305, [u8; 12]) {
        let (mut key, mut nonce) = ([0; 32], [0; 12]);
        let mut bytes = self.0.iter();
        key.iter_mut().chain(&mut nonce).zip(&mut bytes).for_each(|(to, from)| *to = *from);
        let cipher = ChaCha20Poly1305::new(&key.into());
        key.zeroize();
        (cipher, nonce)
    }

    /// `plaintext` sealed: 16 bytes longer.
    pub fn seal(&self, associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut buffer = plaintext.to_vec();
        let (cipher, nonce) = self.cipher();
        // Fails for more than 256 GiB only; then nothing is sent that opens.
        if cipher.encrypt_in_place(&nonce.into(), associated, &mut buffer).is_err() {
            buffer.zeroize();
        }
        buffer
    }

    /// What was sealed, if it was with this key, nonce and associated data.
    pub fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let (cipher, nonce) = self.cipher();
        cipher.decrypt_in_place(&nonce.into(), associated, &mut *buffer).ok()?;
        Some(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_be_shifted_into_each_other() {
        assert_ne!(hash("a", &[b"bc", b"d"]), hash("a", &[b"b", b"cd"]));
        assert_ne!(hash("a", &[b"b"]), hash("ab", &[]));
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_data_only() {
        let once = Once::derive(b"salt", &[b"secret"], &[b"info"]);
        let sealed = once.seal(b"head", b"text");
        assert_eq!(once.open(b"head", &sealed).unwrap().as_slice(), b"text");
        assert!(once.open(b"heaD", &sealed).is_none());
        assert!(once.open(b"head", &sealed[1..]).is_none() && once.open(b"head", b"").is_none());
        assert!(Once::derive(b"salt", &[b"secret"], &[b"infO"]).open(b"head", &sealed).is_none());
    }
}
