//! The key file of chat, `chat.key`: 32 random bytes under which all rows of chat are sealed, themselves sealed under the node's storage key. A
//! backup does not hold it, so a restored node begins as a new device; `panic` destroys it first.

use std::{
    fs, io,
    io::{Seek, Write},
    path::Path,
};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use crate::{
    keys::{
        Keys,
        sealing::{self, SealKey},
    },
    platform::files,
};

/// Its name in the data directory.
pub const FILE: &str = "chat.key";
const CONTEXT: &[u8] = b"fog chat.key v1";
const SEALED: usize = sealing::NONCE + 32 + sealing::TAG;
/// What a destroyed key is overwritten with, one after the other.
const OVERWRITES: [u8; 2] = [0xff, 0x00];

/// What the key file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Chat goes on under this key.
    Key(Zeroizing<[u8; 32]>),
    /// There is none: chat has not begun, or its data directory was restored from a backup.
    Nothing,
    /// It was overwritten: what it sealed is to be erased.
    Destroyed,
}

/// Reads the key of a data directory.
pub(super) fn read(data_dir: &Path, keys: &Keys) -> anyhow::Result<Found> {
    let path = data_dir.join(FILE);
    let sealed = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        read => read.with_context(|| format!("`{}`", path.display()))?,
    };
    if OVERWRITES.iter().any(|byte| sealed == [*byte; SEALED]) {
        return Ok(Found::Destroyed);
    }
    let opened = SealKey::new(keys.storage().clone()).open(CONTEXT, &sealed);
    let damaged =
        || format!("`{}` is damaged or of another node; without it chat begins anew: remove it", path.display());
    let Ok(key) = opened.with_context(damaged)?.as_slice().try_into() else { bail!(damaged()) };
    Ok(Found::Key(Zeroizing::new(key)))
}

/// Writes a new key; the file is replaced as a whole.
pub(super) fn create(data_dir: &Path, keys: &Keys) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let path = data_dir.join(FILE);
    let key = Zeroizing::new(sealing::random()?);
    let sealed = SealKey::new(keys.storage().clone()).seal(CONTEXT, key.as_slice())?;
    files::replace(&path, &sealed).with_context(|| format!("`{}`", path.display()))?;
    Ok(key)
}

/// Overwrites the key, on the disk when this returns. The file stays until [`create`] replaces it: after a crash it tells that the rest is
/// still to be erased. That there is none is fine.
pub(super) fn destroy(data_dir: &Path) -> io::Result<()> {
    let mut file = match fs::OpenOptions::new().write(true).open(data_dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    for byte in OVERWRITES {
        file.rewind()?;
        file.write_all(&[byte; SEALED])?;
        file.sync_all()?;
    }
    // A file that was longer is no key, nor a destroyed one.
    file.set_len(SEALED as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_until_it_is_destroyed_and_lies_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        assert_eq!(read(dir.path(), &keys).unwrap(), Found::Nothing);
        destroy(dir.path()).unwrap();
        assert_eq!(read(dir.path(), &keys).unwrap(), Found::Nothing);
        let key = create(dir.path(), &keys).unwrap();
        assert_eq!(read(dir.path(), &keys).unwrap(), Found::Key(key.clone()));
        let file = dir.path().join(FILE);
        let bytes = fs::read(&file).unwrap();
        assert_eq!(bytes.len(), SEALED);
        assert!(!bytes.windows(32).any(|window| window == key.as_slice()));
        assert!(read(dir.path(), &Keys::generate().unwrap()).is_err(), "another node's");
        fs::write(&file, &bytes[..40]).unwrap();
        assert!(read(dir.path(), &keys).is_err(), "torn: a new one would orphan all rows without a word");
        fs::write(&file, &bytes).unwrap();
        destroy(dir.path()).unwrap();
        assert_eq!(read(dir.path(), &keys).unwrap(), Found::Destroyed);
        fs::write(&file, [0xff; SEALED]).unwrap();
        assert_eq!(read(dir.path(), &keys).unwrap(), Found::Destroyed, "a crash between the two passes");
        assert_ne!(create(dir.path(), &keys).unwrap(), key);
    }
}
