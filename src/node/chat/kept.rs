//! What a backup keeps of chat, on its way from one device to the next: rows of the table of contacts, until the new device has taken them.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use fog_chat::{Chat, core::engine};

use super::{
    key::{self, Found},
    rows::StoredRows,
};
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
    let kept = engine::kept(master, &StoredRows(Arc::clone(store)))?;
    let row = |value: &[u8]| Ok(([PREFIX, &sealing::random::<8>()?].concat(), value.to_vec()));
    kept.iter().map(|value| row(value)).collect()
}

/// The device takes what is there; the keys of rows that are to go with its first batch.
pub(super) fn adopt(chat: &mut Chat, store: &dyn Store) -> Result<Vec<Vec<u8>>, StoreError> {
    let rows = store.scan(Table::Contacts, PREFIX)?;
    let rows = rows.into_iter().filter(|(key, _)| key.len() == KEY);
    let adopted = rows.map(|(key, value)| {
        if !chat.adopt(&value, crate::node::clock::now()) {
            tracing::warn!("somebody or a room that the backup kept cannot be read and is left out");
        }
        key
    });
    Ok(adopted.collect())
}
