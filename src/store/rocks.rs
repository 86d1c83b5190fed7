//! The store on disk. **The only file that imports `rocksdb`.**
//!
//! Tuned for a small footprint, not for throughput: an idle node may use 90 MB in all (issue 2), and its writes are few. Every
//! memtable and cache has a bound here.
//!
//! When the disk is full, RocksDB turns read-only and, for a failed write-ahead log, stays so. Then commits fail with
//! [`StoreError::Full`] and reads go on, until a probe file shows that there is room again and the database is opened anew. What was
//! committed is in the log; what failed was never answered with success.

use std::{
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, Direction, Error, ErrorKind,
    IteratorMode, LogLevel, Options, WriteBatch, WriteOptions,
};

use super::{Batch, Change, Durability, Row, Store, StoreError, Table};
use crate::platform::files;

const MIB: usize = 1024 * 1024;
/// All tables together read through this much cache.
const BLOCK_CACHE: usize = 8 * MIB;
/// One memtable.
const WRITE_BUFFER: usize = MIB;
/// All memtables together.
const WRITE_BUFFERS: usize = 8 * MIB;
/// The write-ahead log, before memtables are flushed to shorten it.
const WRITE_AHEAD_LOG: u64 = 16 * MIB as u64;
/// Table files kept open.
const OPEN_FILES: i32 = 64;
/// RocksDB's own diagnostics: this many files of this size.
const DIAGNOSTIC_FILES: usize = 2;
const DIAGNOSTIC_BYTES: usize = MIB;

/// What an open store may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything; one process at a time.
    ReadWrite,
    /// Read what was there when it was opened.
    ReadOnly,
}

/// Room that the disk must have before the database is opened again: for its log, a memtable's file, and some more.
const ROOM: usize = 4 * MIB;
/// How often that is probed.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A store in a RocksDB directory.
pub(super) struct RocksStore {
    dir: PathBuf,
    database: RwLock<Database>,
}

struct Database {
    /// `None` if it could not be opened again after the disk had been full.
    db: Option<DB>,
    /// Since the disk was full: when the next probe is due.
    full: Option<Instant>,
}

impl RocksStore {
    /// Opens the store in `dir`; with write access, creates it if it is not there.
    pub(super) fn open(dir: &Path, access: Access) -> Result<Self, StoreError> {
        let db = match access {
            Access::ReadWrite => {
                files::create_private_dir(dir)
                    .map_err(|error| StoreError::Io(format!("`{}`: {error}", dir.display())))?;
                open_writable(dir)
            }
            Access::ReadOnly => {
                let there = DB::list_cf(&Options::default(), dir).map_err(store_error)?;
                if Table::ALL.iter().any(|table| !there.iter().any(|name| name == table.name())) {
                    return Err(StoreError::Io("it has an older layout; start the node once with `fog run`".into()));
                }
                DB::open_cf_descriptors_read_only(&Options::default(), dir, tables(), false).map_err(store_error)
            }
        }?;
        Ok(Self { dir: dir.to_owned(), database: RwLock::new(Database { db: Some(db), full: None }) })
    }

    fn database(&self) -> RwLockReadGuard<'_, Database> {
        // The only writer replaces one whole value by another: there is no half-changed state to fear.
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a full disk: opens the database anew if there is room. Until then commits fail here.
    fn recover(&self) -> Result<(), StoreError> {
        let Some(due) = self.database().full else {
            return Ok(());
        };
        let still_full = || StoreError::Full("there is no room to write again".into());
        let now = now();
        if now < due {
            return Err(still_full());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        database.full = Some(now + PROBE_EVERY);
        if !files::has_room(&self.dir, ROOM) {
            return Err(still_full());
        }
        // The old one must be closed before its directory can be opened again.
        database.db = None;
        database.db = Some(open_writable(&self.dir)?);
        database.full = None;
        tracing::info!("the disk has room again, and the store writes again");
        Ok(())
    }
}

fn open_writable(dir: &Path) -> Result<DB, StoreError> {
    DB::open_cf_descriptors(&database_options(), dir, tables()).map_err(store_error)
}

fn tables() -> impl Iterator<Item = ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE);
    Table::ALL.into_iter().map(move |table| ColumnFamilyDescriptor::new(table.name(), table_options(&cache)))
}

#[expect(clippy::disallowed_methods, reason = "the store is IO: it paces its own probes")]
fn now() -> Instant {
    Instant::now()
}

impl Database {
    fn open(&self) -> Result<&DB, StoreError> {
        self.db.as_ref().ok_or_else(|| StoreError::Full("the store could not be opened again".into()))
    }
}

fn column(db: &DB, table: Table) -> Result<&ColumnFamily, StoreError> {
    let missing = || StoreError::Damaged(format!("the table `{}` is not there", table.name()));
    db.cf_handle(table.name()).ok_or_else(missing)
}

impl Store for RocksStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let database = self.database();
        let db = database.open()?;
        db.get_cf(column(db, table)?, key).map_err(store_error)
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let database = self.database();
        let db = database.open()?;
        let mut rows = Vec::new();
        for row in db.iterator_cf(column(db, table)?, IteratorMode::From(prefix, Direction::Forward)) {
            let (key, value) = row.map_err(store_error)?;
            if !key.starts_with(prefix) {
                break;
            }
            rows.push((key.into_vec(), value.into_vec()));
        }
        Ok(rows)
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        self.recover()?;
        let outcome = write(self.database().open()?, &batch, durability);
        if matches!(outcome, Err(StoreError::Full(_))) {
            self.database.write().unwrap_or_else(PoisonError::into_inner).full = Some(now() + PROBE_EVERY);
        }
        outcome
    }

    fn compact(&self, table: Table) -> Result<(), StoreError> {
        let database = self.database();
        let db = database.open()?;
        let column = column(db, table)?;
        db.flush_cf(column).map_err(store_error)?;
        db.compact_range_cf(column, None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }
}

fn write(db: &DB, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
    let mut write = WriteBatch::default();
    for change in batch.changes() {
        match change {
            Change::Put(table, key, value) => write.put_cf(column(db, *table)?, key, value),
            Change::Delete(table, key) => write.delete_cf(column(db, *table)?, key),
        }
    }
    let mut options = WriteOptions::default();
    options.set_sync(durability == Durability::Synced);
    db.write_opt(write, &options).map_err(store_error)
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(WRITE_BUFFERS);
    // Also for the table `default`, which every database has and this one does not use.
    options.set_write_buffer_size(WRITE_BUFFER);
    options.set_max_total_wal_size(WRITE_AHEAD_LOG);
    options.set_max_open_files(OPEN_FILES);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(DIAGNOSTIC_FILES);
    options.set_max_log_file_size(DIAGNOSTIC_BYTES);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options
}

fn table_options(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    // Indexes and filters count towards the cache instead of growing beside it.
    blocks.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(WRITE_BUFFER);
    options.set_max_write_buffer_number(2);
    options.set_target_file_size_base(8 * MIB as u64);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

/// RocksDB tells a full disk by the operating system's text alone.
const FULL: [&str; 3] = ["No space left on device", "not enough space on the disk", "Disk quota exceeded"];

fn store_error(error: Error) -> StoreError {
    let text = error.to_string();
    if FULL.iter().any(|full| text.contains(full)) {
        return StoreError::Full(text);
    }
    match error.kind() {
        ErrorKind::Corruption => StoreError::Damaged(text),
        _ => StoreError::Io(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(table: Table, rows: &[(&str, &str)]) -> Batch {
        let mut batch = Batch::new();
        for (key, value) in rows {
            batch.put(table, *key, *value);
        }
        batch
    }

    #[test]
    fn rows_survive_a_restart_and_tables_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        let store = RocksStore::open(dir.path(), Access::ReadWrite).unwrap();
        store.commit(batch(Table::Inbox, &[("a/1", "x"), ("a/2", "y"), ("b/1", "z")]), Durability::Synced).unwrap();
        store.commit(batch(Table::Outbox, &[("a/1", "other")]), Durability::Relaxed).unwrap();
        drop(store);
        let store = RocksStore::open(dir.path(), Access::ReadWrite).unwrap();
        assert_eq!(store.get(Table::Outbox, b"a/1").unwrap().unwrap(), b"other");
        assert_eq!(store.get(Table::Seen, b"a/1").unwrap(), None);
        let rows = store.scan(Table::Inbox, b"a/").unwrap();
        assert_eq!(rows, [(b"a/1".to_vec(), b"x".to_vec()), (b"a/2".to_vec(), b"y".to_vec())]);
        let mut removal = Batch::new();
        removal.delete(Table::Inbox, *b"a/1").delete(Table::Inbox, *b"never there");
        store.commit(removal, Durability::Synced).unwrap();
        assert_eq!(store.scan(Table::Inbox, b"").unwrap().len(), 2);
    }

    #[test]
    fn a_reader_beside_the_writer_sees_what_was_committed() {
        let dir = tempfile::tempdir().unwrap();
        let store = RocksStore::open(dir.path(), Access::ReadWrite).unwrap();
        store.commit(batch(Table::Inbox, &[("key", "value")]), Durability::Relaxed).unwrap();
        let reader = RocksStore::open(dir.path(), Access::ReadOnly).unwrap();
        assert_eq!(reader.get(Table::Inbox, b"key").unwrap().unwrap(), b"value");
        assert!(reader.commit(batch(Table::Inbox, &[("key", "other")]), Durability::Synced).is_err());
    }

    #[test]
    fn a_damaged_store_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        drop(RocksStore::open(dir.path(), Access::ReadWrite).unwrap());
        std::fs::write(dir.path().join("CURRENT"), b"MANIFEST-999999\n").unwrap();
        assert!(RocksStore::open(dir.path(), Access::ReadWrite).is_err());
    }

    #[test]
    fn a_refusal_of_the_disk_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(matches!(RocksStore::open(&file.join("x"), Access::ReadWrite), Err(StoreError::Io(_))));
    }

    /// A small file system of its own, taken down with the value; `None` where this user may not mount one.
    #[cfg(target_os = "linux")]
    struct SmallDisk(tempfile::TempDir);

    #[cfg(target_os = "linux")]
    impl SmallDisk {
        fn mount() -> Option<Self> {
            let dir = tempfile::tempdir().unwrap();
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(dir.path());
            mount.output().is_ok_and(|output| output.status.success()).then_some(Self(dir))
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _left_mounted = std::process::Command::new("umount").arg("-l").arg(self.0.path()).output();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_loses_nothing_and_is_forgotten_when_there_is_room() {
        let Some(disk) = SmallDisk::mount() else {
            eprintln!("skipped: this user may not mount a tmpfs");
            return;
        };
        let ballast = disk.0.path().join("ballast");
        let store = RocksStore::open(&disk.0.path().join("store"), Access::ReadWrite).unwrap();
        store.commit(batch(Table::Inbox, &[("before", "kept")]), Durability::Synced).unwrap();
        // Fill what is left; `write` stops with an error when the disk is full.
        let mut file = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        drop(file);
        let large = "x".repeat(64 * 1024);
        let full = (0..100).find_map(|n| {
            store.commit(batch(Table::Inbox, &[(&format!("full/{n}"), &large)]), Durability::Synced).err()
        });
        assert!(matches!(full, Some(StoreError::Full(_))), "{full:?}");
        assert_eq!(store.get(Table::Inbox, b"before").unwrap().unwrap(), b"kept", "reads go on");
        std::fs::remove_file(&ballast).unwrap();
        let deadline = now() + Duration::from_secs(60);
        while let Err(error) = store.commit(batch(Table::Inbox, &[("after", "kept too")]), Durability::Synced) {
            assert!(matches!(error, StoreError::Full(_)), "{error}");
            assert!(now() < deadline, "it never writes again");
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(store);
        let store = RocksStore::open(&disk.0.path().join("store"), Access::ReadWrite).unwrap();
        assert_eq!(store.get(Table::Inbox, b"before").unwrap().unwrap(), b"kept");
        assert_eq!(store.get(Table::Inbox, b"after").unwrap().unwrap(), b"kept too");
    }
}
