//! The file of one key, version 1.
//!
//! | bytes | field |
//! |---|---|
//! | 6 | `fogkey` |
//! | 1 | version, 1 |
//! | 1 | kind |
//! | 1 | 0: the secret follows · 1: it is sealed with a passphrase |
//! | 28 | only if sealed: Argon2id memory (KiB), passes, lanes (u32 each, big-endian), salt (16) |
//! | 32, or 24 + 48 | the secret, or nonce and XChaCha20-Poly1305 ciphertext with all bytes before as associated data |
//! | 32 | BLAKE3 of all bytes before: tells damage from a wrong passphrase |

use zeroize::Zeroizing;

use super::{
    KeyKind, Secret,
    sealing::{Derivation, NONCE, SealError, SealKey, TAG, random},
};

const MAGIC: &[u8; 6] = b"fogkey";
const VERSION: u8 = 1;
const SECRET: usize = 32;

/// Why bytes are not the file of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Another file, a torn one, or flipped bits.
    #[error("it is damaged: its checksum or layout is wrong")]
    Damaged,
    /// A file of a later program.
    #[error("it was written by a newer fog (key file version {0})")]
    Newer(u8),
    /// The file of another key.
    #[error("it holds another key than its name says")]
    WrongKind,
}

/// A key file as it came: its checksum was right, and it may still be sealed.
pub(super) enum KeyFile {
    /// The secret itself.
    Open(Secret),
    /// The secret under a passphrase.
    Sealed(SealedSecret),
}

/// A secret that needs its passphrase.
pub(super) struct SealedSecret {
    pub(super) derivation: Derivation,
    header: Vec<u8>,
    nonce: [u8; NONCE],
    text: [u8; SECRET + TAG],
}

impl SealedSecret {
    /// Opens it with the key that its derivation gives.
    pub(super) fn open(&self, key: &SealKey) -> Result<Secret, SealError> {
        let opened = key.open_with(&self.nonce, &self.header, &self.text)?;
        opened.as_slice().try_into().map(Zeroizing::new).map_err(|_| SealError::Refused)
    }
}

/// The bytes of a file; sealed if a key and its derivation are given.
pub(super) fn encode(
    kind: KeyKind,
    secret: &Secret,
    sealing: Option<(&SealKey, &Derivation)>,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(256));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[VERSION, kind as u8, u8::from(sealing.is_some())]);
    match sealing {
        None => bytes.extend_from_slice(secret.as_slice()),
        Some((key, derivation)) => {
            bytes.extend_from_slice(&derivation.to_bytes());
            let nonce = random::<NONCE>()?;
            let text = key.seal_with(&nonce, &bytes, secret.as_slice())?;
            bytes.extend_from_slice(&nonce);
            bytes.extend_from_slice(&text);
        }
    }
    let checksum = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

/// Reads the bytes of the file that should hold `kind`.
pub(super) fn decode(kind: KeyKind, bytes: &[u8]) -> Result<KeyFile, FileError> {
    let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(FileError::Damaged)?;
    // The version comes first: a later one may place its checksum elsewhere.
    let rest = body.strip_prefix(MAGIC).ok_or(FileError::Damaged)?;
    let ([version, found, sealed], rest) = rest.split_first_chunk::<3>().ok_or(FileError::Damaged)?;
    if *version > VERSION {
        return Err(FileError::Newer(*version));
    }
    if *version != VERSION || blake3::hash(body) != *checksum {
        return Err(FileError::Damaged);
    }
    if *found != kind as u8 {
        return Err(FileError::WrongKind);
    }
    match sealed {
        0 => rest.try_into().map(Zeroizing::new).map(KeyFile::Open).map_err(|_| FileError::Damaged),
        1 => decode_sealed(body, rest).map(KeyFile::Sealed).ok_or(FileError::Damaged),
        _ => Err(FileError::Damaged),
    }
}

fn decode_sealed(body: &[u8], rest: &[u8]) -> Option<SealedSecret> {
    let (derivation, rest) = rest.split_first_chunk::<{ Derivation::LEN }>()?;
    let (nonce, text) = rest.split_first_chunk::<NONCE>()?;
    Some(SealedSecret {
        derivation: Derivation::from_bytes(derivation).ok()?,
        header: body.get(..body.len() - rest.len())?.to_vec(),
        nonce: *nonce,
        text: text.try_into().ok()?,
    })
}
