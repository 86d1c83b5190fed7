//! What a backup keeps of chat, on its way from one device to the next: rows of the table of contacts, until the new device has taken them.

use std::{cell::RefCell, path::Path, sync::Arc};

use anyhow::Context as _;
use fog_chat::{
    Chat,
    core::engine::{self, Rows},
};

use super::key::{self, Found};
use crate::{
    keys::{Keys, sealing},
    store::{Row, Store, StoreError, Table},
};

/// How their keys begin; eight random bytes follow. Other rows of the table have the id of a node as their key.
const PREFIX: &[u8] = b"kept/";
const KEY: usize = PREFIX.len() + 8;

/// What a backup of this data directory keeps of its device besides the rows that are there already.
pub(crate) fn rows(data_dir: &Path, keys: &Keys, store: &Arc<dyn Store>) -> anyhow::Result<Vec<Row>> {
    let Found::Key(master) = key::read(data_dir, keys).context("the key of chat cannot be read")? else {
        return Ok(Vec::new());
    };
    let rows = ReadRows { store: &**store, failed: RefCell::new(None) };
    let kept = engine::kept(master, &rows)?;
    if let Some(error) = rows.failed.into_inner() {
        return Err(error.into());
    }
    let row = |value: &[u8]| Ok(([PREFIX, &sealing::random::<8>()?].concat(), value.to_vec()));
    kept.iter().map(|value| row(value)).collect()
}

/// The rows of chat, and whether they could be read: what cannot must not pass as nothing.
struct ReadRows<'a> {
    store: &'a dyn Store,
    failed: RefCell<Option<StoreError>>,
}

impl ReadRows<'_> {
    fn noted<T: Default>(&self, outcome: Result<T, StoreError>) -> T {
        outcome.map_err(|error| self.failed.replace(Some(error))).unwrap_or_default()
    }
}

impl Rows for ReadRows<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.noted(self.store.get(Table::Chat, key))
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let rows = self.noted(self.store.scan(Table::Chat, prefix));
        let _stopped = rows.iter().all(|(key, value)| visit(key, value));
    }
}

/// Whether there is something that no device has taken.
pub(super) fn is_there(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(store.scan(Table::Contacts, PREFIX)?.iter().any(|(key, _)| key.len() == KEY))
}

/// The device takes what is there; the keys of rows that are to go with its first batch.
pub(super) fn adopt(chat: &mut Chat, store: &dyn Store) -> Result<Vec<Vec<u8>>, StoreError> {
    let rows = store.scan(Table::Contacts, PREFIX)?;
    let rows = rows.into_iter().filter(|(key, _)| key.len() == KEY);
    let adopted = rows.map(|(key, value)| {
        if !chat.adopt(&value, crate::node::clock::now()) {
            tracing::warn!("somebody or a room that the backup kept cannot be read, or finds no room, and is left out");
        }
        key
    });
    Ok(adopted.collect())
}

/// Deleted rows lie in old tables, under the node's key and not that of chat, which `panic` destroys: they go now.
pub(super) fn forget(store: Arc<dyn Store>) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = store.compact(Table::Contacts) {
            tracing::warn!(%error, "what the backup kept of chat is taken over, but still on the disk");
        }
    });
}
