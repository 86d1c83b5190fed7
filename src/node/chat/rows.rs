//! The engine's rows as the store keeps them. What is on its way to the disk the engine knows itself.

use std::sync::Arc;

use fog_chat::core::engine::Rows;

use crate::store::{Store, Table};

/// The table of chat.
#[derive(Clone)]
pub(super) struct StoredRows(pub(super) Arc<dyn Store>);

impl Rows for StoredRows {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let row = self.0.get(Table::Chat, key);
        row.inspect_err(|error| tracing::warn!(%error, "a row of chat cannot be read")).ok()?
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let rows = self.0.scan(Table::Chat, prefix);
        let rows =
            rows.inspect_err(|error| tracing::warn!(%error, "the rows of chat cannot be read")).unwrap_or_default();
        let _stopped = rows.iter().all(|(key, value)| visit(key, value));
    }
}
