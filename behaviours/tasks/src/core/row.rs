//! What a core wants kept across restarts. Both cores share one table: the first byte of a key says whose and what it is.

/// A change of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Under this key.
    pub key: Vec<u8>,
    /// What to keep there; `None` removes it.
    pub value: Option<Vec<u8>>,
}

impl Row {
    pub(crate) fn put(prefix: u8, name: &[u8], value: Vec<u8>) -> Self {
        Self { key: Self::key(prefix, name), value: Some(value) }
    }

    pub(crate) fn remove(prefix: u8, name: &[u8]) -> Self {
        Self { key: Self::key(prefix, name), value: None }
    }

    pub(crate) fn key(prefix: u8, name: &[u8]) -> Vec<u8> {
        [&[prefix], name].concat()
    }
}
