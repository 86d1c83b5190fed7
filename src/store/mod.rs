//! What survives a restart: a small key-value store with one table per kind of state.
//!
//! The [`Store`] trait is all that the node sees. [`open`] gives it a RocksDB directory with its schema checked and its private
//! tables sealed; [`MemoryStore`] serves tests and simulation. Writes go through a [`Writer`], a thread that commits them off
//! the event loop. Losing a relaxed write is harmless by design: other peers' records come back by reconciliation. A synced one is
//! on the disk when its answer comes.

mod lock;
mod memory;
mod rocks;
mod schema;
mod sealed;
mod writer;

use std::{path::Path, sync::Arc};

use zeroize::Zeroizing;

use self::rocks::{Access, RocksStore};
pub use self::{
    lock::{DataDirLock, LockError},
    memory::MemoryStore,
    schema::SCHEMA_VERSION,
    sealed::Sealed,
    writer::{Committed, QUEUE as WRITER_QUEUE, Writer, WriterFull},
};

/// The kinds of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Few and small: versions, counters, bookkeeping.
    Meta = 0,
    /// Relay descriptors, as they were signed.
    Descriptors = 1,
    /// Messages that wait for their acknowledgement. Private.
    Outbox = 2,
    /// Messages received. Private.
    Inbox = 3,
    /// Ids of messages that were delivered, so that none is delivered twice.
    Seen = 4,
    /// What this node keeps for others as their mailbox. Private.
    Slots = 5,
    /// People and their invites. Private.
    Contacts = 6,
    /// What was certified: the chain, the last sets, and what this node signed.
    Certificates = 7,
    /// What this node knows of others by experience, proof and hearsay. Private.
    Reputation = 8,
    /// Chat: its rows are sealed by chat itself, under a key that it can destroy.
    Chat = 9,
    /// The services that this node runs, their keys included. Private.
    Services = 10,
    /// Tasks that this node submitted, what it paid and was paid. Private.
    Tasks = 11,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 12] = [
        Self::Meta,
        Self::Descriptors,
        Self::Outbox,
        Self::Inbox,
        Self::Seen,
        Self::Slots,
        Self::Contacts,
        Self::Certificates,
        Self::Reputation,
        Self::Chat,
        Self::Services,
        Self::Tasks,
    ];

    /// Its name: of the column family, and in errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Descriptors => "descriptors",
            Self::Outbox => "outbox",
            Self::Inbox => "inbox",
            Self::Seen => "seen",
            Self::Slots => "slots",
            Self::Contacts => "contacts",
            Self::Certificates => "certificates",
            Self::Reputation => "reputation",
            Self::Chat => "chat",
            Self::Services => "services",
            Self::Tasks => "tasks",
        }
    }

    /// Whether values are sealed at rest. Keys are not: they must say nothing private (random ids, times, public ids of peers).
    pub fn is_private(self) -> bool {
        matches!(
            self,
            Self::Outbox | Self::Inbox | Self::Slots | Self::Contacts | Self::Reputation | Self::Services | Self::Tasks
        )
    }
}

/// Whether a commit may return before the disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Survives the end of the process, not a loss of power.
    Relaxed,
    /// Survives both.
    Synced,
}

/// Why the store failed. Cloneable, as one failed commit answers several writers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Something on the disk is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Written by a later program.
    #[error("the store has schema version {found}, and this fog knows {known}")]
    Newer {
        /// The version found.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// Any other refusal of the disk or of the database.
    #[error("the store failed: {0}")]
    Io(String),
    /// The writer is gone: the node is stopping.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What to do about it, in one line.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Full(_) => "free some space; what was stored is safe, and the node writes again when there is room",
            Self::Damaged(_) => "move the `store` directory away and `fog restore` a backup; keys are not affected",
            Self::Newer { .. } => "use the newer fog, or another --data-dir",
            Self::Io(_) => "see that the data directory belongs to you and that its disk works",
            Self::Closed => "start the node again with `fog run`",
        }
    }
}

/// A row: its key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a value.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a key; that it is not there is fine.
    Delete(Table, Vec<u8>),
}

impl Change {
    fn size(&self) -> usize {
        match self {
            Self::Put(_, key, value) => key.len() + value.len(),
            Self::Delete(_, key) => key.len(),
        }
    }
}

/// Changes that happen together or not at all, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

impl Batch {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Change::Put(table, key.into(), value.into()))
    }

    /// Removes `key`.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Change::Delete(table, key.into()))
    }

    fn push(&mut self, change: Change) -> &mut Self {
        self.bytes += change.size();
        self.changes.push(change);
        self
    }

    /// The changes, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds the changes of `other` after those that are here.
    pub fn append(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.changes.extend(other.changes);
    }
}

/// A store.
pub trait Store: Send + Sync {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// All rows whose key begins with `prefix`, in the order of their keys.
    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError>;

    /// Makes all changes of a batch, or none.
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError>;

    /// Rewrites a table's files without what was deleted from it.
    fn compact(&self, table: Table) -> Result<(), StoreError>;
}

const DIRECTORY: &str = "store";

/// Where the store of a data directory is.
pub fn directory(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join(DIRECTORY)
}

/// Opens the store of a data directory, creates what is missing, brings its schema up to date, and seals its private tables
/// under `storage_key`. The caller holds the [`DataDirLock`].
pub fn open(data_dir: &Path, storage_key: &Zeroizing<[u8; 32]>) -> Result<Arc<dyn Store>, StoreError> {
    let store = Sealed::new(RocksStore::open(&directory(data_dir), Access::ReadWrite)?, storage_key);
    schema::prepare(&store)?;
    Ok(Arc::new(store))
}

/// Opens the store of a data directory to read what it holds now, beside a node that may be running: for a backup.
pub fn open_to_read(data_dir: &Path, storage_key: &Zeroizing<[u8; 32]>) -> Result<Arc<dyn Store>, StoreError> {
    let store = Sealed::new(RocksStore::open(&directory(data_dir), Access::ReadOnly)?, storage_key);
    schema::check(&store)?;
    Ok(Arc::new(store))
}
