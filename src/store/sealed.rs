//! Private tables at rest: their values are sealed with XChaCha20-Poly1305 under the storage key, bound to table and key, so that a
//! copied disk shows how much there is and not what, and no value can be moved to another place.

use std::fmt;

use zeroize::Zeroizing;

use super::{Batch, Change, Durability, Row, Store, StoreError, Table};
use crate::keys::sealing::SealKey;

const LABEL: &[u8] = b"fog store v1\0";

/// A store whose private tables are sealed.
pub struct Sealed<S> {
    inner: S,
    key: SealKey,
}

impl<S> Sealed<S> {
    /// Seals the private tables of `inner` under `key`.
    pub fn new(inner: S, key: &Zeroizing<[u8; 32]>) -> Self {
        Self { inner, key: SealKey::new(key.clone()) }
    }

    fn open(&self, table: Table, key: &[u8], value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        if !table.is_private() {
            return Ok(value);
        }
        let opened = self.key.open(&context(table, key), &value);
        opened.map(|text| text.to_vec()).map_err(|_| {
            StoreError::Damaged(format!("a value in `{}` does not open under the storage key", table.name()))
        })
    }

    fn seal(&self, change: Change) -> Result<Change, StoreError> {
        match change {
            Change::Put(table, key, value) if table.is_private() => {
                let sealed = self.key.seal(&context(table, &key), &value);
                let sealed = sealed.map_err(|error| StoreError::Io(error.to_string()))?;
                Ok(Change::Put(table, key, sealed))
            }
            other => Ok(other),
        }
    }
}

impl<S> fmt::Debug for Sealed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").finish_non_exhaustive()
    }
}

impl<S: Store> Store for Sealed<S> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(table, key)?.map(|value| self.open(table, key, value)).transpose()
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let rows = self.inner.scan(table, prefix)?.into_iter();
        rows.map(|(key, value)| self.open(table, &key, value).map(|value| (key, value))).collect()
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mut sealed = Batch::new();
        for change in batch.changes {
            sealed.push(self.seal(change)?);
        }
        self.inner.commit(sealed, durability)
    }

    fn compact(&self, table: Table) -> Result<(), StoreError> {
        self.inner.compact(table)
    }
}

fn context(table: Table, key: &[u8]) -> Vec<u8> {
    [LABEL, &[table as u8], key].concat()
}

#[cfg(test)]
mod tests {
    use super::{super::MemoryStore, *};

    fn storage_key(byte: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([byte; 32])
    }

    fn put(store: &impl Store, table: Table, key: &[u8], value: &[u8]) {
        let mut batch = Batch::new();
        batch.put(table, key, value);
        store.commit(batch, Durability::Synced).unwrap();
    }

    #[test]
    fn private_values_lie_sealed_and_others_open() {
        let store = Sealed::new(MemoryStore::new(), &storage_key(1));
        for table in Table::ALL {
            put(&store, table, b"key", b"a secret value");
            assert_eq!(store.get(table, b"key").unwrap().unwrap(), b"a secret value");
            assert_eq!(store.scan(table, b"k").unwrap(), [(b"key".to_vec(), b"a secret value".to_vec())]);
            let lying = store.inner.get(table, b"key").unwrap().unwrap();
            assert_eq!(lying == b"a secret value", !table.is_private(), "{}", table.name());
        }
    }

    #[test]
    fn a_value_moved_to_another_key_or_table_does_not_open() {
        let store = Sealed::new(MemoryStore::new(), &storage_key(1));
        put(&store, Table::Inbox, b"one", b"value");
        let lying = store.inner.get(Table::Inbox, b"one").unwrap().unwrap();
        put(&store.inner, Table::Inbox, b"two", &lying);
        put(&store.inner, Table::Outbox, b"one", &lying);
        assert!(matches!(store.get(Table::Inbox, b"two"), Err(StoreError::Damaged(_))));
        assert!(matches!(store.get(Table::Outbox, b"one"), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn another_storage_key_opens_nothing() {
        let store = Sealed::new(MemoryStore::new(), &storage_key(1));
        put(&store, Table::Contacts, b"key", b"value");
        let other = Sealed::new(store.inner, &storage_key(2));
        assert!(matches!(other.scan(Table::Contacts, b""), Err(StoreError::Damaged(_))));
    }
}
