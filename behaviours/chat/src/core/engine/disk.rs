//! What is written: one batch at a time, and nothing that depends on it leaves before it is on disk.

use std::collections::{BTreeMap, VecDeque};

use super::types::{Output, Row, Rows};
use crate::core::secrets::vault::{ROW_KEY, Row as Sealed};

/// Outputs that wait to be polled, or for the disk.
pub(super) const MAX_OUTPUTS: usize = 65_536;

/// Rows on their way to the disk, and outputs behind them.
pub(super) struct Disk {
    rows: Box<dyn Rows + Send>,
    batch: Vec<Sealed>,
    is_synced: bool,
    /// What is not on disk yet, by the number of its batch.
    overlay: BTreeMap<[u8; ROW_KEY], (u64, Option<Vec<u8>>)>,
    number: u64,
    waiting: Option<u64>,
    has_failed: bool,
    /// Outputs that depend on `batch`, on the waiting batch, and on nothing.
    held: VecDeque<Output>,
    behind: VecDeque<Output>,
    free: VecDeque<Output>,
    refused: u64,
}

impl Disk {
    pub(super) fn new(rows: Box<dyn Rows + Send>) -> Self {
        Self {
            rows,
            batch: Vec::new(),
            is_synced: false,
            overlay: BTreeMap::new(),
            number: 0,
            waiting: None,
            has_failed: false,
            held: VecDeque::new(),
            behind: VecDeque::new(),
            free: VecDeque::new(),
            refused: 0,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The length of the longest queue of outputs.
    pub(super) fn longest(&self) -> usize {
        self.held.len().max(self.behind.len()).max(self.free.len())
    }

    /// How many outputs found no room.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Writes rows with the next batch.
    pub(super) fn write(&mut self, rows: Vec<Sealed>, is_synced: bool) {
        self.is_synced |= is_synced && !rows.is_empty();
        for row in rows {
            self.overlay.insert(row.key, (self.number, row.value.clone()));
            self.batch.push(row);
        }
    }

    /// A row as it is, or is about to be.
    pub(super) fn get(&self, key: &[u8; ROW_KEY]) -> Option<Vec<u8>> {
        match self.overlay.get(key) {
            Some((_, value)) => value.clone(),
            None => self.rows.get(key),
        }
    }

    /// A row that a crash would leave.
    pub(super) fn get_stored(&self, key: &[u8; ROW_KEY]) -> Option<Vec<u8>> {
        if self.overlay.contains_key(key) { None } else { self.rows.get(key) }
    }

    pub(super) fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.rows.scan(prefix, visit);
    }

    /// An output that leaves behind everything written so far.
    pub(super) fn hold(&mut self, output: Output) {
        if self.held.len() >= MAX_OUTPUTS {
            self.refused += 1;
        } else {
            self.held.push_back(output);
        }
    }

    /// An output that depends on nothing written.
    pub(super) fn push(&mut self, output: Output) {
        if self.free.len() >= MAX_OUTPUTS {
            self.refused += 1;
        } else {
            self.free.push_back(output);
        }
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        if self.has_failed {
            return None;
        }
        if let Some(output) = self.free.pop_front() {
            return Some(output);
        }
        if self.waiting.is_some() {
            return None;
        }
        if self.batch.is_empty() {
            return self.held.pop_front();
        }
        let number = self.number;
        self.number += 1;
        self.waiting = Some(number);
        self.behind.append(&mut self.held);
        let rows = std::mem::take(&mut self.batch);
        let rows = rows.into_iter().map(|row| Row { key: row.key.to_vec(), value: row.value }).collect();
        Some(Output::Persist { number, rows, is_synced: std::mem::take(&mut self.is_synced) })
    }

    pub(super) fn handle_persisted(&mut self, number: u64, ok: bool) {
        if self.waiting != Some(number) {
            return;
        }
        if !ok {
            self.has_failed = true;
            return;
        }
        self.waiting = None;
        self.overlay.retain(|_, (batch, _)| *batch > number);
        self.free.append(&mut self.behind);
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}
