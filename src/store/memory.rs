//! A store in memory, for tests and simulation. Nothing survives.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Batch, Change, Durability, Row, Store, StoreError, Table};

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Rows>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // No code that can panic runs under this lock, and each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows().get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows();
        let from = rows.range((table, prefix.to_vec())..);
        let matching = from.take_while(|((at, key), _)| *at == table && key.starts_with(prefix));
        Ok(matching.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, batch: Batch, _durability: Durability) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for change in batch.changes {
            match change {
                Change::Put(table, key, value) => rows.insert((table, key), value),
                Change::Delete(table, key) => rows.remove(&(table, key)),
            };
        }
        Ok(())
    }

    fn compact(&self, _: Table) -> Result<(), StoreError> {
        Ok(())
    }
}
