//! What this node knows of a blob across restarts: its manifest, where the file is, and whether all of it is there. A record
//! contains the key of the file, so it is sealed.
//!
//! `ID.blob` is a nonce of 24 bytes and XChaCha20-Poly1305 of the CBOR of the record, with the id as associated data, under
//! `BLAKE3 derive_key("fog blobs v1 records", secret)`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, KeyInit, Payload},
};
use fog_base::{NodeId, codec};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    core::{blob::BlobId, manifest::Manifest},
    files::{FileError, at, beside, sync_dir, write_synced},
};

const CONTEXT: &str = "fog blobs v1 records";
const NONCE_BYTES: usize = 24;
/// Two paths, 64 sources, a manifest.
const MAX_RECORD_BYTES: usize = 16 * 1024;
const VERSION: u8 = 1;
/// The sources that a record names.
pub(crate) const MAX_SOURCES: usize = 64;

/// What is known of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) manifest: Manifest,
    /// Where the file is, or will be.
    pub(crate) path: PathBuf,
    /// Where it is until all of it is there.
    pub(crate) part: Option<PathBuf>,
    /// Who may have it.
    pub(crate) sources: Vec<NodeId>,
    /// Whether it goes on only when it is asked for.
    pub(crate) is_paused: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    version: u8,
    #[serde(with = "serde_bytes")]
    manifest: Vec<u8>,
    path: String,
    part: Option<String>,
    sources: Vec<NodeId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_paused: bool,
}

/// Seals and opens records.
pub(crate) struct Sealer(XChaCha20Poly1305);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn text(path: &Path) -> io::Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| invalid("the path is not Unicode"))
}

impl Sealer {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let key = Zeroizing::new(blake3::derive_key(CONTEXT, secret));
        Self(XChaCha20Poly1305::new((&*key).into()))
    }

    fn seal(&self, record: &Record, nonce: &[u8; NONCE_BYTES]) -> io::Result<Vec<u8>> {
        let manifest = record.manifest.encode().map_err(|_| invalid("a manifest of more bytes than one has"))?;
        let body = Body {
            version: VERSION,
            manifest,
            path: text(&record.path)?,
            part: record.part.as_deref().map(text).transpose()?,
            sources: record.sources.iter().take(MAX_SOURCES).copied().collect(),
            is_paused: record.is_paused,
        };
        let body = codec::encode(&body, MAX_RECORD_BYTES).map(Zeroizing::new);
        let body = body.map_err(|_| invalid("the path is too long"))?;
        let payload = Payload { msg: &body, aad: &record.manifest.blob.id().0 };
        let sealed = self.0.encrypt(nonce.into(), payload).map_err(|_| invalid("it cannot be sealed"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open(&self, id: &BlobId, bytes: &[u8]) -> Option<Record> {
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let body = self.0.decrypt(nonce.into(), Payload { msg: sealed, aad: &id.0 }).map(Zeroizing::new).ok()?;
        let body: Body = codec::decode(&body, MAX_RECORD_BYTES).ok()?;
        let manifest = Manifest::decode(&body.manifest).ok()?;
        let fits = body.version == VERSION && manifest.blob.id() == *id;
        let Body { path, part, sources, is_paused, .. } = body;
        fits.then(|| Record { manifest, path: path.into(), part: part.map(PathBuf::from), sources, is_paused })
    }

    /// Writes the record, in place of an older one, so that it is there after a loss of power. `nonce` is random.
    pub(crate) fn write(&self, dir: &Path, record: &Record, nonce: &[u8; NONCE_BYTES]) -> Result<(), FileError> {
        let path = beside(dir, record.manifest.blob.id(), "blob");
        let new = path.with_extension("blob.new");
        let bytes = at("seal", &record.path, self.seal(record, nonce))?;
        at("write", &new, write_synced(&new, &bytes))?;
        at("rename", &new, fs::rename(&new, &path))?;
        sync_dir(&path);
        Ok(())
    }

    /// All records of `dir`; what does not open under this secret is left alone.
    pub(crate) fn read_all(&self, dir: &Path) -> Result<Vec<Record>, FileError> {
        let mut found = Vec::new();
        for entry in at("read", dir, fs::read_dir(dir))? {
            let path = at("read", dir, entry)?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()).and_then(blob_of) else { continue };
            let record = fs::read(&path).ok().and_then(|bytes| self.open(&id, &bytes));
            if record.is_none() {
                tracing::debug!(path = %path.display(), "a record does not open");
            }
            found.extend(record);
        }
        Ok(found)
    }
}

/// Forgets a blob; the file itself stays.
pub(crate) fn remove(dir: &Path, blob: BlobId) -> Result<(), FileError> {
    let path = beside(dir, blob, "blob");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => at("remove", &path, Err(error)),
        _ => Ok(()),
    }
}

/// The id in the name of a record.
fn blob_of(name: &str) -> Option<BlobId> {
    let digits = name.strip_suffix(".blob")?;
    let mut id = [0; 32];
    if digits.len() != 2 * id.len() {
        return None;
    }
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(BlobId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{blob::Blob, manifest::FileName, seal::Key};

    fn record(id: u8) -> Record {
        let blob = Blob::new(BlobId([id; 32]), 5).unwrap();
        let key = Some(Key::from_random(*b"key-key-key-key-key-key-key-key-"));
        let manifest = Manifest { blob, name: FileName::parse("canary.txt").unwrap(), key };
        let sources = vec![NodeId([3; 32]); MAX_SOURCES];
        let part = Some("/tmp/canary.txt.part".into());
        Record { manifest, path: "/tmp/canary.txt".into(), part, sources, is_paused: id == 1 }
    }

    #[test]
    fn records_are_found_again_under_their_secret_alone() {
        let (dir, sealer) = (tempfile::tempdir().unwrap(), Sealer::new(&[1; 32]));
        sealer.write(dir.path(), &record(1), &[1; 24]).unwrap();
        let whole = Record { part: None, sources: Vec::new(), ..record(2) };
        sealer.write(dir.path(), &record(2), &[2; 24]).unwrap();
        sealer.write(dir.path(), &whole, &[3; 24]).unwrap();
        let mut found = sealer.read_all(dir.path()).unwrap();
        found.sort_by_key(|record| record.manifest.blob.id());
        assert_eq!(found, [record(1), whole]);
        assert!(Sealer::new(&[2; 32]).read_all(dir.path()).unwrap().is_empty());
        remove(dir.path(), BlobId([1; 32])).unwrap();
        assert_eq!(sealer.read_all(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_record_shows_neither_name_nor_key_and_is_not_taken_for_another_blobs() {
        let (dir, sealer) = (tempfile::tempdir().unwrap(), Sealer::new(&[1; 32]));
        sealer.write(dir.path(), &record(1), &[1; 24]).unwrap();
        let path = beside(dir.path(), BlobId([1; 32]), "blob");
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary" || window == b"key-ke"));
        fs::rename(&path, beside(dir.path(), BlobId([2; 32]), "blob")).unwrap();
        assert!(sealer.read_all(dir.path()).unwrap().is_empty());
        for cut in [0, 23, 24, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(sealer.read_all(dir.path()).unwrap().is_empty());
        }
    }

    #[test]
    fn other_files_of_the_directory_are_not_records() {
        for name in ["x.blob", "é.blob", &format!("{}.have", BlobId([1; 32])), &format!("{}g.blob", "a".repeat(63))] {
            assert_eq!(blob_of(name), None, "{name}");
        }
        let nested = format!("{}.blob.new", BlobId([1; 32]));
        assert_eq!(blob_of(&nested), None);
        assert_eq!(blob_of(&format!("{}.blob", BlobId([0xab; 32]))), Some(BlobId([0xab; 32])));
    }
}
