//! Secrets under a key, and keys from passphrases.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) with random 24-byte nonces, which need no counter; Argon2id (RFC 9106) with
//! 64 MiB and three passes, its second recommended setting with one lane, so that unlocking takes a fraction of a second
//! on a laptop and much more of a guesser's memory.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroizing;

use super::Passphrase;

/// Bytes of a nonce.
pub const NONCE: usize = 24;
/// Bytes that sealing adds to a text, without the nonce.
pub const TAG: usize = 16;
/// Bytes of a salt.
pub const SALT: usize = 16;

/// Why sealing or unsealing failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key is another one, or the text was changed.
    #[error("the wrong key or passphrase, or changed bytes")]
    Refused,
    /// The cost parameters are outside what Argon2 takes or this program accepts.
    #[error("key derivation parameters out of range")]
    Cost,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

/// `N` bytes from the operating system's generator.
pub fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(|_| SealError::NoRandomness)?;
    Ok(bytes)
}

/// What turning a passphrase into a key costs, and the salt: stored beside what is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Derivation {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// The salt.
    pub salt: [u8; SALT],
}

impl Derivation {
    /// Bytes of the stored form.
    pub const LEN: usize = 12 + SALT;
    const MAX_MEMORY_KIB: u32 = 1024 * 1024;
    const MAX_PASSES: u32 = 64;
    const MAX_LANES: u32 = 16;

    /// Today's cost with a fresh salt.
    pub fn fresh() -> Result<Self, SealError> {
        Ok(Self { memory_kib: 64 * 1024, passes: 3, lanes: 1, salt: random()? })
    }

    /// Three big-endian numbers and the salt.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let numbers = [self.memory_kib, self.passes, self.lanes].map(u32::to_be_bytes);
        let fields = numbers.iter().flatten().chain(&self.salt);
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = *from;
        }
        bytes
    }

    /// Reads the stored form; costs that would exhaust this machine are refused.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, SealError> {
        let number = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        let salt = bytes.get(12..).and_then(|b| b.try_into().ok());
        let (Some(memory_kib), Some(passes), Some(lanes), Some(salt)) = (number(0), number(4), number(8), salt) else {
            return Err(SealError::Cost);
        };
        let fits = memory_kib <= Self::MAX_MEMORY_KIB && passes <= Self::MAX_PASSES && lanes <= Self::MAX_LANES;
        fits.then_some(Self { memory_kib, passes, lanes, salt }).ok_or(SealError::Cost)
    }
}

/// A key that seals; prints nothing of itself.
pub struct SealKey(Zeroizing<[u8; 32]>);

impl SealKey {
    /// From 32 secret bytes.
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// From a passphrase. Slow on purpose.
    pub fn derive(passphrase: &Passphrase, derivation: &Derivation) -> Result<Self, SealError> {
        let params = Params::new(derivation.memory_kib, derivation.passes, derivation.lanes, Some(32));
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(|_| SealError::Cost)?);
        let mut key = Zeroizing::new([0; 32]);
        argon
            .hash_password_into(passphrase.as_bytes(), &derivation.salt, key.as_mut_slice())
            .map_err(|_| SealError::Cost)?;
        Ok(Self(key))
    }

    /// Seals `text`, bound to `context`, under a nonce that must never come twice with this key.
    pub fn seal_with(&self, nonce: &[u8; NONCE], context: &[u8], text: &[u8]) -> Result<Vec<u8>, SealError> {
        self.cipher().encrypt(&(*nonce).into(), Payload { msg: text, aad: context }).map_err(|_| SealError::Refused)
    }

    /// Opens what [`Self::seal_with`] sealed.
    pub fn open_with(
        &self,
        nonce: &[u8; NONCE],
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let opened = self.cipher().decrypt(&(*nonce).into(), Payload { msg: sealed, aad: context });
        opened.map(Zeroizing::new).map_err(|_| SealError::Refused)
    }

    /// Seals `text`, bound to `context`, under a random nonce, which comes first.
    pub fn seal(&self, context: &[u8], text: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = random::<NONCE>()?;
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(&self.seal_with(&nonce, context, text)?);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] sealed.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>().ok_or(SealError::Refused)?;
        self.open_with(nonce, context, rest)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Derivation {
        Derivation { memory_kib: 64, passes: 1, lanes: 1, salt: [7; SALT] }
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_context_alone() {
        let key = SealKey::new(Zeroizing::new([1; 32]));
        let sealed = key.seal(b"here", b"text").unwrap();
        assert_eq!(key.open(b"here", &sealed).unwrap().as_slice(), b"text");
        assert_eq!(key.open(b"there", &sealed), Err(SealError::Refused));
        assert_eq!(SealKey::new(Zeroizing::new([2; 32])).open(b"here", &sealed), Err(SealError::Refused));
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(b"here", &changed), Err(SealError::Refused), "bit {bit}");
        }
        assert_eq!(key.open(b"here", &sealed[..10]), Err(SealError::Refused));
    }

    #[test]
    fn a_passphrase_gives_the_same_key_for_the_same_salt_alone() {
        let derive = |text: &str, salt: u8| {
            let derivation = Derivation { salt: [salt; SALT], ..cheap() };
            SealKey::derive(&Passphrase::new(text.to_owned().into()).unwrap(), &derivation).unwrap().0
        };
        assert_eq!(derive("correct horse", 1), derive("correct horse", 1));
        assert_ne!(derive("correct horse", 1), derive("correct horse", 2));
        assert_ne!(derive("correct horse", 1), derive("correct house", 1));
    }

    #[test]
    fn a_derivation_reads_back_and_an_absurd_cost_is_refused() {
        assert_eq!(Derivation::from_bytes(&cheap().to_bytes()), Ok(cheap()));
        let absurd = Derivation { memory_kib: u32::MAX, ..cheap() };
        assert_eq!(Derivation::from_bytes(&absurd.to_bytes()), Err(SealError::Cost));
    }
}
