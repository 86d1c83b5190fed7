//! What a node holds besides the live set and gives to whoever asks: sets named by their Merkle root, the chain of
//! certificates, and the state that a certificate commits to.

use std::sync::Arc;

use fog_base::Epoch;

pub use crate::core::certificate::named_set::NamedSet;

type Hash = [u8; 32];

/// What this node holds besides the live set, for peers that ask.
pub trait Archive {
    /// The set under this Merkle root.
    fn set(&self, root: &Hash) -> Option<Arc<NamedSet>>;
    /// Links of the chain after `after`, oldest first, as many as fit `max_bytes`; whether there are more.
    fn links(&self, after: Epoch, max_bytes: usize) -> (Vec<Vec<u8>>, bool);
    /// Part of the state bytes with this hash, from `offset`, at most `max` bytes; and their whole length.
    fn state(&self, hash: &Hash, offset: u32, max: usize) -> Option<(u32, Vec<u8>)>;
}

/// The archive of a node that certifies nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoArchive;

impl Archive for NoArchive {
    fn set(&self, _: &Hash) -> Option<Arc<NamedSet>> {
        None
    }

    fn links(&self, _: Epoch, _: usize) -> (Vec<Vec<u8>>, bool) {
        (Vec::new(), false)
    }

    fn state(&self, _: &Hash, _: u32, _: usize) -> Option<(u32, Vec<u8>)> {
        None
    }
}
