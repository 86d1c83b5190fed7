//! Mix keys and replay logs on disk: one directory, for each epoch a `.key` file and a `.tags` file.
//!
//! The log is what makes replay protection survive `kill -9`: a packet's fingerprint is written (to the kernel, which outlives
//! the process) before the packet is processed. It does not survive a loss of power, as it is not synced for each packet. So a
//! key is used again only if its log is known to be whole: the machine has not been restarted since (same boot id), or the node
//! was stopped in good order, which syncs the logs. Otherwise the key is destroyed, and packets of its epoch are lost.
//!
//! `NUMBER.key`: `"fogmixk1" ‖ boot id (16, zero if unknown) ‖ nonce (24) ‖ XChaCha20-Poly1305(storage key, secret) (48)`, the
//! epoch's number (u32, big-endian) as associated data. `NUMBER.tags`: fingerprints of 8 bytes, one after the other.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use fog_base::Epoch;
use fog_sphinx::MixSecretKey;
use zeroize::Zeroizing;

use super::lock;
use crate::core::{relay::ReplayLog, replay::Fingerprint};

const MAGIC: &[u8; 8] = b"fogmixk1";
const KEY_FILE_LEN: usize = 8 + 16 + 24 + 48;
const CLEAN: &str = "clean";

/// What the directory is opened with.
#[derive(Clone)]
pub struct KeyStoreConfig {
    /// The directory; made if it does not exist, readable by its owner only.
    pub directory: PathBuf,
    /// Names the machine's boot, where the platform has such a name.
    pub boot_id: Option<[u8; 16]>,
    /// Seals the keys.
    pub storage_key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for KeyStoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStoreConfig").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// The directory of one node's mix keys.
#[derive(Debug)]
pub struct KeyStore {
    config: KeyStoreConfig,
    logs: Mutex<BTreeMap<Epoch, Log>>,
}

/// A replay log, and how long it is.
#[derive(Debug)]
struct Log {
    file: File,
    len: u64,
}

/// A key that may be used again, with what its relay has seen.
#[derive(Debug)]
pub struct StoredKey {
    /// Its epoch.
    pub epoch: Epoch,
    /// The key.
    pub secret: MixSecretKey,
    /// Fingerprints of the packets that were seen.
    pub seen: Vec<Fingerprint>,
}

impl KeyStore {
    /// Opens the directory and returns the keys that may be used again; destroys the others.
    pub fn open(config: KeyStoreConfig) -> io::Result<(Self, Vec<StoredKey>)> {
        fs::create_dir_all(&config.directory)?;
        owner_only(&config.directory)?;
        // From here on a crash is not a stop in good order.
        let clean = remove_if_there(&config.directory.join(CLEAN))?;
        // Before any packet is taken: after a loss of power the mark must not be there again.
        sync_directory(&config.directory)?;
        let store = Self { config, logs: Mutex::default() };
        let mut keys = Vec::new();
        for epoch in store.epochs()? {
            match store.load(epoch, clean) {
                Ok(Some(key)) => keys.push(key),
                Ok(None) => store.destroy(epoch)?,
                Err(error) => return Err(error),
            }
        }
        Ok((store, keys))
    }

    /// Writes a new key and starts its log.
    pub fn create(&self, epoch: Epoch, secret: &MixSecretKey, nonce: [u8; 24]) -> io::Result<()> {
        let mut sealed = secret.to_bytes().to_vec();
        XChaCha20Poly1305::new((&*self.config.storage_key).into())
            .encrypt_in_place(&nonce.into(), &epoch.0.to_be_bytes(), &mut sealed)
            .map_err(|_| io::Error::other("the mix key cannot be sealed"))?;
        let boot_id = self.config.boot_id.unwrap_or_default();
        let bytes = [MAGIC.as_slice(), &boot_id, &nonce, &sealed].concat();
        // The log first: a key without a log would look like a key that has seen nothing.
        let log = private(OpenOptions::new().append(true).create_new(true)).open(self.path(epoch, "tags"))?;
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(self.path(epoch, "key"))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        lock(&self.logs).insert(epoch, Log { file: log, len: 0 });
        Ok(())
    }

    /// Overwrites and removes a key and its log. On a flash disk or a journal old blocks may survive; the storage key's
    /// passphrase is the protection against that.
    pub fn destroy(&self, epoch: Epoch) -> io::Result<()> {
        lock(&self.logs).remove(&epoch);
        let path = self.path(epoch, "key");
        let overwritten = match OpenOptions::new().write(true).open(&path) {
            Ok(mut file) => file.write_all(&[0; KEY_FILE_LEN]).and_then(|()| file.sync_all()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        // Removed in any case: a name less is better than nothing.
        remove_if_there(&path)?;
        remove_if_there(&self.path(epoch, "tags"))?;
        sync_directory(&self.config.directory)?;
        overwritten
    }

    /// Syncs the logs: the keys may be used again after a restart of the machine.
    pub fn close(&self) -> io::Result<()> {
        let logs = std::mem::take(&mut *lock(&self.logs));
        logs.values().try_for_each(|log| log.file.sync_all())?;
        private(OpenOptions::new().write(true).create(true).truncate(true))
            .open(self.config.directory.join(CLEAN))?
            .sync_all()?;
        sync_directory(&self.config.directory)
    }

    fn path(&self, epoch: Epoch, extension: &str) -> PathBuf {
        self.config.directory.join(format!("{epoch}.{extension}"))
    }

    /// Every epoch that has a key file or a log.
    fn epochs(&self) -> io::Result<Vec<Epoch>> {
        let mut epochs = Vec::new();
        for entry in fs::read_dir(&self.config.directory)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            epochs.extend(number.map(Epoch));
        }
        epochs.sort();
        epochs.dedup();
        Ok(epochs)
    }

    /// The key of `epoch` if it may be used again, with its log open for more.
    fn load(&self, epoch: Epoch, clean: bool) -> io::Result<Option<StoredKey>> {
        let Some(bytes) = read_if_there(&self.path(epoch, "key"), KEY_FILE_LEN)? else { return Ok(None) };
        let Some((secret, boot_id)) = self.unseal(epoch, &bytes) else { return Ok(None) };
        let same_boot = self.config.boot_id.is_some_and(|boot| boot == boot_id);
        if !same_boot && !clean {
            return Ok(None);
        }
        let path = self.path(epoch, "tags");
        let Some(bytes) = read_if_there(&path, usize::MAX)? else { return Ok(None) };
        let (seen, torn) = bytes.as_chunks::<8>();
        if !torn.is_empty() {
            return Ok(None);
        }
        let seen = seen.to_vec();
        let log = Log { file: OpenOptions::new().append(true).open(&path)?, len: bytes.len() as u64 };
        lock(&self.logs).insert(epoch, log);
        Ok(Some(StoredKey { epoch, secret, seen }))
    }

    fn unseal(&self, epoch: Epoch, bytes: &[u8]) -> Option<(MixSecretKey, [u8; 16])> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (boot_id, rest) = rest.split_first_chunk::<16>()?;
        let (nonce, sealed) = rest.split_first_chunk::<24>()?;
        let mut secret = Zeroizing::new(sealed.to_vec());
        XChaCha20Poly1305::new((&*self.config.storage_key).into())
            .decrypt_in_place(&(*nonce).into(), &epoch.0.to_be_bytes(), &mut *secret)
            .ok()?;
        let secret: [u8; 32] = secret.as_slice().try_into().ok()?;
        Some((MixSecretKey::from_bytes(secret), *boot_id))
    }
}

impl ReplayLog for KeyStore {
    fn append(&self, epoch: Epoch, fingerprints: &[Fingerprint]) -> bool {
        // One write for the batch. If it fails (a full disk) what it left is cut off; if not even that works, the log is given
        // up, and with it every further packet of the epoch.
        let mut logs = lock(&self.logs);
        let Some(log) = logs.get_mut(&epoch) else { return false };
        let bytes = fingerprints.as_flattened();
        if log.file.write_all(bytes).is_ok() {
            log.len += bytes.len() as u64;
            return true;
        }
        if log.file.set_len(log.len).is_err() {
            logs.remove(&epoch);
        }
        false
    }
}

fn read_if_there(path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(u64::try_from(max).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes created and removed names durable. Other systems do so by themselves, or offer no way to ask for it.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Files that only their owner can read. Other systems inherit the data directory's own protection.
#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(unix)]
fn owner_only(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}

#[cfg(not(unix))]
fn owner_only(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &Path, boot: u8) -> KeyStoreConfig {
        let boot_id = Some([boot; 16]);
        KeyStoreConfig { directory: directory.into(), boot_id, storage_key: Zeroizing::new([7; 32]) }
    }

    fn with_key(directory: &Path) -> KeyStore {
        let (store, keys) = KeyStore::open(config(directory, 1)).unwrap();
        assert!(keys.is_empty());
        store.create(Epoch(5), &MixSecretKey::from_bytes([3; 32]), [1; 24]).unwrap();
        assert!(store.append(Epoch(5), &[[1; 8], [2; 8]]));
        store
    }

    fn epochs(keys: &[StoredKey]) -> Vec<u32> {
        keys.iter().map(|k| k.epoch.0).collect()
    }

    #[test]
    fn after_a_crash_the_key_comes_back_with_everything_it_has_seen() {
        let directory = tempfile::tempdir().unwrap();
        drop(with_key(directory.path()));
        let (store, keys) = KeyStore::open(config(directory.path(), 1)).unwrap();
        assert_eq!(epochs(&keys), [5]);
        assert_eq!(keys[0].seen, [[1; 8], [2; 8]]);
        assert_eq!(keys[0].secret.to_bytes().as_slice(), [3; 32]);
        assert!(store.append(Epoch(5), &[[3; 8]]));
        drop(store);
        let (_, keys) = KeyStore::open(config(directory.path(), 1)).unwrap();
        assert_eq!(keys[0].seen.len(), 3);
    }

    #[test]
    fn after_a_loss_of_power_or_a_torn_log_the_key_is_destroyed() {
        let directory = tempfile::tempdir().unwrap();
        drop(with_key(directory.path()));
        assert!(KeyStore::open(config(directory.path(), 2)).unwrap().1.is_empty(), "another boot");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

        drop(with_key(directory.path()));
        let log = OpenOptions::new().append(true).open(directory.path().join("5.tags"));
        log.unwrap().write_all(&[9; 3]).unwrap();
        assert!(KeyStore::open(config(directory.path(), 1)).unwrap().1.is_empty(), "a torn tail");

        drop(with_key(directory.path()));
        fs::remove_file(directory.path().join("5.tags")).unwrap();
        assert!(KeyStore::open(config(directory.path(), 1)).unwrap().1.is_empty(), "no log");
    }

    #[test]
    fn after_a_stop_in_good_order_a_restart_of_the_machine_is_no_loss() {
        let directory = tempfile::tempdir().unwrap();
        with_key(directory.path()).close().unwrap();
        let (store, keys) = KeyStore::open(config(directory.path(), 2)).unwrap();
        assert_eq!(epochs(&keys), [5]);
        drop(store);
        assert!(KeyStore::open(config(directory.path(), 3)).unwrap().1.is_empty(), "but only once");
    }

    #[test]
    fn a_key_sealed_by_another_storage_key_is_not_used_and_a_destroyed_one_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        drop(with_key(directory.path()));
        let other = KeyStoreConfig { storage_key: Zeroizing::new([8; 32]), ..config(directory.path(), 1) };
        assert!(KeyStore::open(other).unwrap().1.is_empty());
        let store = with_key(directory.path());
        store.destroy(Epoch(5)).unwrap();
        assert!(!store.append(Epoch(5), &[[4; 8]]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_files() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let _store = with_key(directory.path());
        for name in ["5.key", "5.tags"] {
            assert_eq!(fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
