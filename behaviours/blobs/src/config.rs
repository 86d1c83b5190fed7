//! What the files of a node need, and why they cannot be started.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use fog_base::NetworkId;
use zeroize::Zeroizing;

use crate::files::FileError;

/// How long a fetch waits for a source by default.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the files of a node need.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose network.
    pub network: NetworkId,
    /// Where trees, bitmaps and records are; no other process may use it.
    pub dir: PathBuf,
    /// Seals the records, which contain the keys of files.
    pub secret: Zeroizing<[u8; 32]>,
    /// Bytes a second that are sent to all peers; `None` for no limit.
    pub up: Option<u64>,
    /// Bytes a second that are received of all peers; `None` for no limit.
    pub down: Option<u64>,
    /// A fetch of which nothing comes for so long has failed.
    pub patience: Duration,
}

impl Config {
    /// No limits, and ten minutes of patience.
    pub fn new(network: NetworkId, dir: &Path, secret: Zeroizing<[u8; 32]>) -> Self {
        Self { network, dir: dir.to_owned(), secret, up: None, down: None, patience: PATIENCE }
    }
}

/// Why the files cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory cannot be made or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system starts no thread.
    #[error("no thread is started: {0}")]
    Thread(#[from] std::io::Error),
}
