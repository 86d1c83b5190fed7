//! The engine's rows as the store keeps them. A batch that is on its way to the disk can be read already.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use fog_chat::core::engine::{Row, Rows};

use crate::store::{Store, Table};

/// The table of chat, and what is being written to it.
#[derive(Clone)]
pub(super) struct StoredRows {
    store: Arc<dyn Store>,
    staged: Arc<Mutex<Staged>>,
}

/// By row: the newest value, and the batch that writes it.
type Staged = BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>;

impl StoredRows {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, staged: Arc::default() }
    }

    /// A batch is handed to the store.
    pub(super) fn stage(&self, number: u64, rows: &[Row]) {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        staged.extend(rows.iter().map(|row| (row.key.clone(), (number, row.value.clone()))));
    }

    /// The store has answered for it.
    pub(super) fn settle(&self, number: u64) {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        staged.retain(|_, (written_by, _)| *written_by != number);
    }
}

impl Rows for StoredRows {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = staged.get(key) {
            return value.clone();
        }
        drop(staged);
        self.store
            .get(Table::Chat, key)
            .inspect_err(|error| tracing::warn!(%error, "a row of chat cannot be read"))
            .ok()?
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let rows = self.store.scan(Table::Chat, prefix);
        let stored =
            rows.inspect_err(|error| tracing::warn!(%error, "the rows of chat cannot be read")).unwrap_or_default();
        let mut rows: BTreeMap<_, _> = stored.into_iter().collect();
        for (key, (_, value)) in self.staged.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if !key.starts_with(prefix) {
                continue;
            }
            match value {
                Some(value) => drop(rows.insert(key.clone(), value.clone())),
                None => drop(rows.remove(key)),
            }
        }
        let _stopped = rows.iter().all(|(key, value)| visit(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Durability, MemoryStore};

    #[test]
    fn what_is_on_its_way_is_read_and_then_the_store() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let mut batch = Batch::new();
        batch.put(Table::Chat, *b"a1", *b"old").put(Table::Chat, *b"a2", *b"stays").put(Table::Chat, *b"a3", *b"goes");
        store.commit(batch, Durability::Relaxed).unwrap();
        let rows = StoredRows::new(store);
        let row = |key: &[u8], value: Option<&[u8]>| Row { key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
        rows.stage(1, &[row(b"a1", Some(b"new")), row(b"a3", None)]);
        rows.stage(2, &[row(b"a1", Some(b"newest")), row(b"b", Some(b"other"))]);
        let seen = |rows: &StoredRows| {
            let mut seen = Vec::new();
            rows.scan(b"a", &mut |key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                true
            });
            seen
        };
        let pair = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
        assert_eq!(seen(&rows), [pair(b"a1", b"newest"), pair(b"a2", b"stays")]);
        assert_eq!((rows.get(b"a3"), rows.get(b"b")), (None, Some(b"other".to_vec())));
        rows.settle(1);
        assert_eq!(rows.get(b"a3"), Some(b"goes".to_vec()), "the batch failed, or the store has it by now");
        assert_eq!(rows.get(b"a1"), Some(b"newest".to_vec()));
        rows.settle(2);
        assert_eq!(rows.get(b"a1"), Some(b"old".to_vec()));
    }
}
