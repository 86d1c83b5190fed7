//! The node's keys: made on the first run, kept in files that only their owner reads, never made twice.
//!
//! Five secrets of 32 bytes, each with one use: `identity` (Ed25519: who the node is), `seal` (X25519: messages are sealed for it; the
//! circuit key and the key as a client of services are derived from it),
//! `vrf` (sr25519: the lottery, and the salt of a relay's delays), `slot` (Ed25519: claims the node's mailbox slots, so that a
//! mailbox cannot tell whose they are) and `storage` (XChaCha20-Poly1305: private state at rest). They are created together, as one
//! directory that is renamed into place, and are never made again while any of them is there.

mod file;
mod passphrase;
pub mod sealing;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use ed25519_dalek::SigningKey;
use fog_base::NodeId;
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};
use zeroize::Zeroizing;

pub use self::{
    file::FileError,
    passphrase::{Passphrase, PassphraseError, PassphraseSource, Purpose, VARIABLE as PASSPHRASE_VARIABLE},
};
use self::{
    file::KeyFile,
    sealing::{Derivation, SealError, SealKey},
};
use crate::platform::{self, files};

/// A secret; wiped when dropped.
pub type Secret = Zeroizing<[u8; 32]>;

const DIRECTORY: &str = "keys";
const UNFINISHED: &str = "keys.new";
const MAX_FILE: u64 = 4096;

/// Which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyKind {
    /// Ed25519: who the node is.
    Identity = 1,
    /// X25519: messages are sealed for it.
    Seal = 2,
    /// sr25519: lottery and delays.
    Vrf = 3,
    /// Ed25519: claims mailbox slots.
    Slot = 4,
    /// XChaCha20-Poly1305: private state at rest.
    Storage = 5,
}

impl KeyKind {
    /// All of them, in the order of [`Secrets`].
    pub const ALL: [Self; 5] = [Self::Identity, Self::Seal, Self::Vrf, Self::Slot, Self::Storage];

    /// The name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Identity => "identity.key",
            Self::Seal => "seal.key",
            Self::Vrf => "vrf.key",
            Self::Slot => "slot.key",
            Self::Storage => "storage.key",
        }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Nothing is there yet.
    #[error("`{0}` holds no keys yet")]
    None(PathBuf),
    /// They are there already.
    #[error("`{0}` holds keys already")]
    Exist(PathBuf),
    /// Some files are there and some are not.
    #[error("`{dir}` lacks {missing}, and holds other keys")]
    Missing {
        /// The directory of the keys.
        dir: PathBuf,
        /// The files that are not there.
        missing: String,
    },
    /// Others can read it.
    #[error("others can read `{path}` (mode {mode:04o})")]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// Not the file of a key.
    #[error("`{path}` cannot be used: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: FileError,
    },
    /// The passphrase does not open it.
    #[error("the passphrase does not open `{0}`")]
    WrongPassphrase(PathBuf),
    /// There is no passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The disk said no.
    #[error("`{path}`: {source}")]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

impl KeysError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// What to do about it, in one line.
    pub fn hint(&self) -> String {
        match self {
            Self::None(_) => "start the node once with `fog run`".into(),
            Self::Exist(_) => "use another --data-dir, or move this one away".into(),
            Self::Exposed { path, wanted, .. } => format!("chmod {wanted:o} '{}'", path.display()),
            Self::Missing { .. } | Self::File { .. } => {
                "move the data directory away and `fog restore` a backup; without one, start as a new node in another --data-dir".into()
            }
            Self::WrongPassphrase(_) | Self::Passphrase(_) => {
                format!("name a file whose first line is the passphrase in {PASSPHRASE_VARIABLE}, or run in a terminal")
            }
            Self::Seal(_) => "try again".into(),
            Self::Io { .. } => "see that the directory exists, belongs to you, and that its disk has room".into(),
        }
    }
}

/// The five secrets, in the order of [`KeyKind::ALL`].
pub type Secrets = [Secret; KeyKind::ALL.len()];

/// The node's keys, ready for use.
pub struct Keys {
    identity: SigningKey,
    seal: Secret,
    vrf: Keypair,
    slot: SigningKey,
    storage: Secret,
    secrets: Secrets,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("node", &self.node_id()).finish_non_exhaustive()
    }
}

impl Keys {
    /// Fresh keys, in memory only.
    pub fn generate() -> Result<Self, KeysError> {
        let mut secrets: Secrets = Default::default();
        for secret in &mut secrets {
            **secret = sealing::random()?;
        }
        Ok(Self::from_secrets(secrets))
    }

    /// The keys that these secrets make.
    pub fn from_secrets(secrets: Secrets) -> Self {
        let [identity, seal, vrf, slot, storage] = &secrets;
        // Any 32 bytes are a sr25519 mini secret; from_bytes refuses other lengths only.
        #[expect(clippy::expect_used, reason = "the length is right by its type")]
        let vrf =
            MiniSecretKey::from_bytes(vrf.as_slice()).expect("32 bytes").expand_to_keypair(ExpansionMode::Uniform);
        Self {
            identity: SigningKey::from_bytes(identity),
            seal: seal.clone(),
            vrf,
            slot: SigningKey::from_bytes(slot),
            storage: storage.clone(),
            secrets,
        }
    }

    /// Reads the keys of a data directory, or makes them if it has none. New ones are sealed if a passphrase file is named or
    /// `seal_new` is set.
    pub fn open_or_create(data_dir: &Path, passphrases: &PassphraseSource, seal_new: bool) -> Result<Self, KeysError> {
        match Self::open(data_dir, passphrases) {
            Err(KeysError::None(_)) => {
                let passphrase = (seal_new || passphrases.has_file())
                    .then(|| passphrases.get(Purpose::Seal, "the node's new keys"))
                    .transpose()?;
                let keys = Self::generate()?;
                keys.create(data_dir, passphrase.as_ref())?;
                Ok(keys)
            }
            outcome => outcome,
        }
    }

    /// Reads the keys of a data directory. Asks for the passphrase at most once, and only if they are sealed.
    pub fn open(data_dir: &Path, passphrases: &PassphraseSource) -> Result<Self, KeysError> {
        let dir = data_dir.join(DIRECTORY);
        let mut unlocked: Option<(Derivation, SealKey)> = None;
        let mut secrets: Secrets = Default::default();
        for ((path, file), secret) in read_files(&dir)?.into_iter().zip(&mut secrets) {
            *secret = match file {
                KeyFile::Open(secret) => secret,
                KeyFile::Sealed(sealed) => {
                    let key = match unlocked.take() {
                        Some((derivation, key)) if derivation == sealed.derivation => key,
                        _ => {
                            let passphrase =
                                passphrases.get(Purpose::Open, &format!("the keys in {}", dir.display()))?;
                            SealKey::derive(&passphrase, &sealed.derivation)?
                        }
                    };
                    let opened = sealed.open(&key).map_err(|_| KeysError::WrongPassphrase(path))?;
                    unlocked = Some((sealed.derivation, key));
                    opened
                }
            };
        }
        Ok(Self::from_secrets(secrets))
    }

    /// Writes the keys into a data directory that has none: all five or nothing.
    pub fn create(&self, data_dir: &Path, passphrase: Option<&Passphrase>) -> Result<(), KeysError> {
        let dir = data_dir.join(DIRECTORY);
        if has_entries(&dir)? {
            return Err(KeysError::Exist(dir));
        }
        let sealing = passphrase
            .map(|passphrase| {
                let derivation = Derivation::fresh()?;
                Ok::<_, SealError>((SealKey::derive(passphrase, &derivation)?, derivation))
            })
            .transpose()?;
        let unfinished = data_dir.join(UNFINISHED);
        let outcome = self.write_all(&unfinished, sealing.as_ref()).and_then(|()| put_in_place(&unfinished, &dir));
        if outcome.is_err() {
            // The error above is the one that matters; the next attempt clears what is left.
            let _left_over = fs::remove_dir_all(&unfinished);
        }
        outcome
    }

    fn write_all(&self, dir: &Path, sealing: Option<&(SealKey, Derivation)>) -> Result<(), KeysError> {
        if dir.exists() {
            // Left by a run that ended before the rename: nobody ever used these keys.
            fs::remove_dir_all(dir).map_err(KeysError::io(dir))?;
        }
        files::create_private_dir(dir).map_err(KeysError::io(dir))?;
        for (kind, secret) in KeyKind::ALL.into_iter().zip(&self.secrets) {
            let path = dir.join(kind.file_name());
            let bytes = file::encode(kind, secret, sealing.map(|(key, derivation)| (key, derivation)))?;
            files::create_synced(&path, &bytes).map_err(KeysError::io(&path))?;
        }
        files::sync_dir(dir).map_err(KeysError::io(dir))
    }

    /// Who this node is.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.identity.verifying_key().to_bytes())
    }

    /// The identity key.
    pub fn identity(&self) -> &SigningKey {
        &self.identity
    }

    /// The private X25519 key that messages are sealed for.
    pub fn seal_secret(&self) -> &Secret {
        &self.seal
    }

    /// The public X25519 key that messages are sealed for.
    pub fn seal_public(&self) -> [u8; 32] {
        x25519_dalek::x25519(*self.seal, x25519_dalek::X25519_BASEPOINT_BYTES)
    }

    /// The private X25519 key by which circuits are built to this relay.
    pub fn circuit_secret(&self) -> Secret {
        Zeroizing::new(blake3::derive_key("fog circuit key v1", self.seal.as_slice()))
    }

    /// Its public half.
    pub fn circuit_public(&self) -> [u8; 32] {
        x25519_dalek::x25519(*self.circuit_secret(), x25519_dalek::X25519_BASEPOINT_BYTES)
    }

    /// The private X25519 key of this node as a client of services that ask for one.
    pub fn service_client_secret(&self) -> Secret {
        Zeroizing::new(blake3::derive_key("fog service client key v1", self.seal.as_slice()))
    }

    /// The VRF key.
    pub fn vrf(&self) -> &Keypair {
        &self.vrf
    }

    /// The key that claims mailbox slots.
    pub fn slot(&self) -> &SigningKey {
        &self.slot
    }

    /// The key of private state at rest.
    pub fn storage(&self) -> &Secret {
        &self.storage
    }

    /// The secrets that the keys are made from: for a backup.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

/// Whether the key files of a data directory are whole and closed to others; needs no passphrase. Says whether they are sealed.
pub fn inspect(data_dir: &Path) -> Result<bool, KeysError> {
    let files = read_files(&data_dir.join(DIRECTORY))?;
    Ok(files.iter().all(|(_, file)| matches!(file, KeyFile::Sealed(_))))
}

fn read_files(dir: &Path) -> Result<Vec<(PathBuf, KeyFile)>, KeysError> {
    if !has_entries(dir)? {
        return Err(KeysError::None(dir.to_owned()));
    }
    refuse_exposed(dir)?;
    let missing: Vec<_> =
        KeyKind::ALL.map(KeyKind::file_name).into_iter().filter(|name| !dir.join(name).exists()).collect();
    if !missing.is_empty() {
        return Err(KeysError::Missing { dir: dir.to_owned(), missing: missing.join(", ") });
    }
    KeyKind::ALL.into_iter().map(|kind| read_file(dir, kind)).collect()
}

fn read_file(dir: &Path, kind: KeyKind) -> Result<(PathBuf, KeyFile), KeysError> {
    let path = dir.join(kind.file_name());
    refuse_exposed(&path)?;
    let size = path.metadata().map_err(KeysError::io(&path))?.len();
    if size > MAX_FILE {
        return Err(KeysError::File { path, reason: FileError::Damaged });
    }
    let bytes = Zeroizing::new(fs::read(&path).map_err(KeysError::io(&path))?);
    match file::decode(kind, &bytes) {
        Ok(file) => Ok((path, file)),
        Err(reason) => Err(KeysError::File { path, reason }),
    }
}

fn refuse_exposed(path: &Path) -> Result<(), KeysError> {
    match platform::exposure(path).map_err(KeysError::io(path))? {
        None => Ok(()),
        Some(found) => Err(KeysError::Exposed { path: path.to_owned(), mode: found.mode, wanted: found.wanted }),
    }
}

fn has_entries(dir: &Path) -> Result<bool, KeysError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(KeysError::io(dir)(error)),
    }
}

fn put_in_place(unfinished: &Path, dir: &Path) -> Result<(), KeysError> {
    if dir.exists() {
        // Empty, as the caller saw; a rename onto it works on Unix only. An entry made meanwhile makes this fail, as it should.
        fs::remove_dir(dir).map_err(KeysError::io(dir))?;
    }
    fs::rename(unfinished, dir).map_err(KeysError::io(dir))?;
    dir.parent().map_or(Ok(()), files::sync_dir).map_err(KeysError::io(dir))
}

#[cfg(test)]
mod tests;
