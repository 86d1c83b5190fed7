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

/// The key of the data directory; a new one if there is none.
pub(super) fn open_or_create(data_dir: &Path, keys: &Keys) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let path = data_dir.join(FILE);
    let seal = SealKey::new(keys.storage().clone());
    match fs::read(&path) {
        Ok(sealed) => {
            let opened = seal.open(CONTEXT, &sealed).with_context(|| format!("`{}` does not open", path.display()))?;
            let Ok(key) = opened.as_slice().try_into() else { bail!("`{}` is damaged", path.display()) };
            Ok(Zeroizing::new(key))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = Zeroizing::new(sealing::random()?);
            let sealed = seal.seal(CONTEXT, key.as_slice())?;
            files::replace(&path, &sealed).with_context(|| format!("`{}`", path.display()))?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("`{}`", path.display())),
    }
}

/// Overwrites the key and removes its file; each step is on the disk before the next. That there is none is fine.
pub(super) fn destroy(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join(FILE);
    let mut file = match fs::OpenOptions::new().write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    for byte in [0xff, 0x00] {
        file.rewind()?;
        file.write_all(&[byte; SEALED])?;
        file.sync_all()?;
    }
    drop(file);
    files::remove_if_there(&path)?;
    files::sync_dir(data_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_until_it_is_destroyed_and_lies_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        let key = open_or_create(dir.path(), &keys).unwrap();
        assert_eq!(open_or_create(dir.path(), &keys).unwrap(), key);
        let bytes = fs::read(dir.path().join(FILE)).unwrap();
        assert_eq!(bytes.len(), SEALED);
        assert!(!bytes.windows(32).any(|window| window == key.as_slice()));
        assert!(open_or_create(dir.path(), &Keys::generate().unwrap()).is_err(), "another node's");
        fs::write(dir.path().join(FILE), &bytes[..40]).unwrap();
        assert!(open_or_create(dir.path(), &keys).is_err(), "torn: a new one would orphan all rows without a word");
        destroy(dir.path()).unwrap();
        destroy(dir.path()).unwrap();
        assert!(!dir.path().join(FILE).exists());
        assert_ne!(open_or_create(dir.path(), &keys).unwrap(), key);
    }
}
