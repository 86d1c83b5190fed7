//! What is fetched: the hash and the size of a content, and how it is cut.
//!
//! The tree is BLAKE3's own, cut at chunk groups of 16 chunks, so a blob's id is the plain BLAKE3 hash of its bytes.

use std::{fmt, ops::Range};

use bao_tree::{BaoTree, BlockSize};
use fog_base::id::byte_array;
use serde::{Deserialize, Serialize};

/// A chunk group is 2^4 chunks of 1,024 bytes.
pub(crate) const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
/// The chunks of BLAKE3 in a group.
pub(crate) const GROUP_CHUNKS: u64 = 16;
/// What is verified at once, in bytes; the last group of a blob may be shorter.
pub const GROUP_BYTES: usize = 16 * 1024;
/// The groups of a piece, which is the unit of availability and the longest request: 1 MiB.
pub const PIECE_GROUPS: u64 = 64;
/// The largest blob: 64 GiB. ChaCha20 with a 32-bit block counter would reach 256 GiB.
pub const MAX_BLOB_BYTES: u64 = 64 << 30;
/// The most groups of a blob.
pub const MAX_GROUPS: u64 = MAX_BLOB_BYTES / GROUP_BYTES as u64;
/// The most pieces of a blob.
pub const MAX_PIECES: u64 = MAX_GROUPS / PIECE_GROUPS;
/// The parents above a group in the largest tree.
pub const MAX_DEPTH: usize = MAX_GROUPS.trailing_zeros() as usize;
/// A stored parent: the hashes of its two children.
pub const PARENT_BYTES: usize = 64;

/// BLAKE3 of a blob's bytes as they travel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobId(#[serde(with = "byte_array")] pub [u8; 32]);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An id with its size. BLAKE3's root does not name the size, so both come from whoever names the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Blob {
    id: BlobId,
    size: u64,
}

impl Blob {
    /// `None` above [`MAX_BLOB_BYTES`].
    pub fn new(id: BlobId, size: u64) -> Option<Self> {
        (size <= MAX_BLOB_BYTES).then_some(Self { id, size })
    }

    /// The hash.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Groups; an empty blob has one, which is empty.
    pub fn groups(&self) -> u64 {
        self.size.div_ceil(GROUP_BYTES as u64).max(1)
    }

    /// Pieces.
    pub fn pieces(&self) -> u64 {
        self.groups().div_ceil(PIECE_GROUPS)
    }

    /// The groups of `piece`.
    pub fn piece_groups(&self, piece: u64) -> Range<u64> {
        let start = piece.saturating_mul(PIECE_GROUPS).min(self.groups());
        start..start.saturating_add(PIECE_GROUPS).min(self.groups())
    }

    /// Where `group` starts, in bytes.
    pub fn offset(&self, group: u64) -> u64 {
        group.saturating_mul(GROUP_BYTES as u64).min(self.size)
    }

    /// The bytes of `group`.
    pub fn group_len(&self, group: u64) -> usize {
        usize::try_from(self.offset(group.saturating_add(1)) - self.offset(group)).unwrap_or(0)
    }

    /// The bytes of all parents: [`PARENT_BYTES`] for each, in pre-order.
    pub fn outboard_bytes(&self) -> u64 {
        self.tree().outboard_size()
    }

    pub(crate) fn tree(&self) -> BaoTree {
        BaoTree::new(self.size, BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_pieces_cover_the_blob() {
        for size in [0, 1, 16_383, 16_384, 16_385, 1 << 20, (1 << 20) + 1, 16 << 30, MAX_BLOB_BYTES] {
            let blob = Blob::new(BlobId([0; 32]), size).unwrap();
            assert_eq!(
                (0..blob.pieces()).map(|piece| blob.piece_groups(piece).count() as u64).sum::<u64>(),
                blob.groups()
            );
            let last = blob.groups() - 1;
            assert_eq!(blob.offset(last) + blob.group_len(last) as u64, size);
            assert_eq!(blob.group_len(blob.groups()), 0);
            assert_eq!(blob.outboard_bytes(), last * PARENT_BYTES as u64);
        }
        assert!(Blob::new(BlobId([0; 32]), MAX_BLOB_BYTES + 1).is_none());
        assert_eq!((MAX_GROUPS, MAX_PIECES, MAX_DEPTH), (1 << 22, 1 << 16, 22));
    }
}
