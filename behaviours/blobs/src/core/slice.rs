//! A contiguous run of groups as it travels and as it is verified: bao-tree's pre-order encoding, cut behind each group.
//!
//! The step for a group is the parents above it that no earlier step of the slice had, from the root down, and the group's bytes.
//! A step is verified by itself against what the steps before it proved, so a wrong byte is found with the group that it is in,
//! and whoever sends can stop behind any group.

use std::{fmt, ops::Range};

use bao_tree::{
    BaoTree, ChunkNum, ChunkRanges,
    iter::{BaoChunk, ResponseIter},
};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::blob::{Blob, GROUP_BYTES, GROUP_CHUNKS, MAX_DEPTH, PARENT_BYTES};

type Hash = [u8; 32];

/// The longest step: all parents and a whole group.
pub const MAX_STEP_BYTES: usize = MAX_DEPTH * PARENT_BYTES + GROUP_BYTES;

/// What the next step of a slice is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The group.
    pub group: u64,
    /// Where each parent is in the outboard, in bytes, from the root down.
    pub parents: Vec<u64>,
    /// Where the group is in the blob, in bytes.
    pub data: Range<u64>,
}

impl Step {
    /// The length of the step, in bytes.
    pub fn len(&self) -> usize {
        let data = usize::try_from(self.data.end.saturating_sub(self.data.start)).unwrap_or(0);
        self.parents.len() * PARENT_BYTES + data
    }

    /// Whether the step is empty: that of an empty blob.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A step whose every byte was proved to belong to the blob. Only [`Slice::accept`] makes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    step: Step,
    bytes: Vec<u8>,
}

impl Verified {
    /// The group.
    pub fn group(&self) -> u64 {
        self.step.group
    }

    /// Where the group is in the blob, in bytes.
    pub fn offset(&self) -> u64 {
        self.step.data.start
    }

    /// The group's bytes.
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.step.parents.len() * PARENT_BYTES..).unwrap_or_default()
    }

    /// The group's bytes, to be decrypted in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.step.parents.len() * PARENT_BYTES..).unwrap_or_default()
    }

    /// The parents: where each is in the outboard, in bytes, and its [`PARENT_BYTES`] bytes.
    pub fn parents(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.step.parents.iter().copied().zip(self.bytes.chunks_exact(PARENT_BYTES))
    }

    /// The whole step as it travels.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("group", &self.step.group).finish_non_exhaustive()
    }
}

/// The bytes are not the blob's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("group {group} does not verify")]
pub struct Mismatch {
    /// The group in whose step the wrong bytes were.
    pub group: u64,
}

struct Parent {
    is_root: bool,
    left: bool,
    right: bool,
}

/// The steps of a slice, in the order in which they travel.
#[derive(Debug)]
pub struct Steps {
    tree: BaoTree,
    chunks: ResponseIter,
}

struct Next {
    step: Step,
    parents: Vec<Parent>,
    is_root: bool,
}

impl Steps {
    /// The groups `groups` of `blob`; groups beyond its end do not exist.
    pub fn new(blob: &Blob, groups: Range<u64>) -> Self {
        let tree = blob.tree();
        let chunk = |group: u64| ChunkNum(group.saturating_mul(GROUP_CHUNKS));
        let ranges = if groups.start >= groups.end || groups.start >= blob.groups() {
            ChunkRanges::empty()
        } else if groups.end >= blob.groups() {
            // An open end is how bao-tree writes "up to the end of the blob".
            ChunkRanges::from(chunk(groups.start)..)
        } else {
            ChunkRanges::from(chunk(groups.start)..chunk(groups.end))
        };
        Self { tree, chunks: ResponseIter::new(tree, ranges) }
    }

    fn advance(&mut self) -> Option<Next> {
        let (mut offsets, mut parents) = (Vec::new(), Vec::new());
        loop {
            match self.chunks.next()? {
                BaoChunk::Parent { node, is_root, left, right, .. } => {
                    let at = self.tree.pre_order_offset(node).unwrap_or(u64::MAX);
                    offsets.push(at.saturating_mul(PARENT_BYTES as u64));
                    parents.push(Parent { is_root, left, right });
                }
                BaoChunk::Leaf { size, is_root, start_chunk, .. } => {
                    let start = start_chunk.to_bytes();
                    let data = start..start.saturating_add(size as u64);
                    let step = Step { group: start / GROUP_BYTES as u64, parents: offsets, data };
                    return Some(Next { step, parents, is_root });
                }
            }
        }
    }
}

impl Iterator for Steps {
    type Item = Step;
    fn next(&mut self) -> Option<Step> {
        self.advance().map(|next| next.step)
    }
}

/// A slice that is being verified.
pub struct Slice {
    /// What is behind the next step.
    steps: Steps,
    next: Option<Next>,
    /// The hashes that the next steps must have, the next on top.
    expected: Vec<Hash>,
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice").field("step", &self.step()).finish_non_exhaustive()
    }
}

impl Slice {
    /// The groups `groups` of `blob`; groups beyond its end do not exist.
    pub fn new(blob: &Blob, groups: Range<u64>) -> Self {
        let mut steps = Steps::new(blob, groups);
        let next = steps.advance();
        Self { steps, next, expected: vec![blob.id().0] }
    }

    /// The next step; `None` when there is none.
    pub fn step(&self) -> Option<&Step> {
        self.next.as_ref().map(|next| &next.step)
    }

    /// Verifies the bytes of the next step. After a mismatch nothing more is accepted.
    pub fn accept(&mut self, bytes: Vec<u8>) -> Result<Verified, Mismatch> {
        let Some(next) = self.next.take() else { return Err(Mismatch { group: u64::MAX }) };
        let mismatch = Mismatch { group: next.step.group };
        if bytes.len() != next.step.len() {
            return Err(mismatch);
        }
        let (parents, data) = bytes.split_at_checked(next.parents.len() * PARENT_BYTES).ok_or(mismatch)?;
        for (parent, pair) in next.parents.iter().zip(parents.chunks_exact(PARENT_BYTES)) {
            self.descend(parent, pair).ok_or(mismatch)?;
        }
        let found = if next.is_root {
            *blake3::hash(data).as_bytes()
        } else {
            blake3::Hasher::new().set_input_offset(next.step.data.start).update(data).finalize_non_root()
        };
        if self.expected.pop() != Some(found) {
            return Err(mismatch);
        }
        self.next = self.steps.advance();
        Ok(Verified { step: next.step, bytes })
    }

    fn descend(&mut self, parent: &Parent, pair: &[u8]) -> Option<()> {
        let (left, right) = pair.split_first_chunk::<32>()?;
        let right = right.first_chunk::<32>()?;
        let found = if parent.is_root {
            *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
        } else {
            merge_subtrees_non_root(left, right, Mode::Hash)
        };
        if self.expected.pop()? != found {
            return None;
        }
        self.expected.extend(parent.right.then_some(*right));
        self.expected.extend(parent.left.then_some(*left));
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use bao_tree::io::{
        outboard::PreOrderMemOutboard,
        sync::{encode_ranges, truncate_ranges},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::core::{
        blob::{BLOCK, BlobId},
        testing::{Content, sizes},
    };

    fn steps(content: &Content, groups: Range<u64>) -> Vec<Vec<u8>> {
        let mut slice = Slice::new(&content.blob, groups);
        let mut steps = Vec::new();
        while let Some(step) = slice.step().cloned() {
            let bytes = content.read(&step);
            assert_eq!(bytes.len(), step.len());
            assert!(bytes.len() <= MAX_STEP_BYTES);
            assert_eq!(slice.accept(bytes.clone()).unwrap().data(), content.group(step.group));
            steps.push(bytes);
        }
        steps
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_slice_is_the_encoding_of_bao_tree(size in sizes(), from in 0u64..80, count in 1u64..80) {
            let content = Content::new(size, 1);
            let from = from % content.blob.groups();
            let to = (from + count).min(content.blob.groups());
            let steps = steps(&content, from..to);
            prop_assert_eq!(steps.len() as u64, to - from);
            let outboard = PreOrderMemOutboard::create(&content.bytes, BLOCK);
            prop_assert_eq!(*outboard.root.as_bytes(), content.blob.id().0);
            prop_assert_eq!(&outboard.data, &content.outboard);
            let end = if to == content.blob.groups() { content.blob.tree().chunks().0.max(1) } else { to * GROUP_CHUNKS };
            let ranges = ChunkRanges::from(ChunkNum(from * GROUP_CHUNKS)..ChunkNum(end));
            let mut expected = Vec::new();
            encode_ranges(&content.bytes[..], &outboard, truncate_ranges(&ranges, size as u64), &mut expected).unwrap();
            prop_assert_eq!(steps.concat(), expected);
        }

        #[test]
        fn any_flipped_bit_is_found_in_its_own_step(size in sizes(), from in 0u64..80, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let content = Content::new(size, 2);
            let from = from % content.blob.groups();
            let mut steps = steps(&content, from..content.blob.groups());
            let all: usize = steps.iter().map(Vec::len).sum();
            prop_assume!(all > 0);
            let mut at = at.index(all);
            let step = steps.iter().position(|step| { let here = at < step.len(); if !here { at -= step.len() } here }).unwrap();
            steps[step][at] ^= 1 << bit;
            let mut slice = Slice::new(&content.blob, from..content.blob.groups());
            for (i, bytes) in steps.into_iter().enumerate() {
                let outcome = slice.accept(bytes);
                if i < step {
                    prop_assert!(outcome.is_ok());
                } else {
                    prop_assert_eq!(outcome, Err(Mismatch { group: from + step as u64 }));
                    break;
                }
            }
            prop_assert!(slice.accept(Vec::new()).is_err(), "nothing is accepted after a lie");
        }

        #[test]
        fn steps_of_another_length_or_order_do_not_verify(size in 40_000usize..200_000, cut in 1usize..100) {
            let content = Content::new(size, 3);
            let steps = steps(&content, 0..content.blob.groups());
            let fresh = || Slice::new(&content.blob, 0..content.blob.groups());
            prop_assert!(fresh().accept(steps[0][..steps[0].len() - cut].to_vec()).is_err());
            prop_assert!(fresh().accept([steps[0].clone(), vec![0; cut]].concat()).is_err());
            prop_assert!(fresh().accept(steps[1].clone()).is_err());
        }

        #[test]
        fn a_wrong_size_does_not_verify_to_the_end(size in sizes(), other in sizes()) {
            let content = Content::new(size, 4);
            let claimed = Blob::new(BlobId(content.blob.id().0), other as u64).unwrap();
            prop_assume!(other != size);
            let mut slice = Slice::new(&claimed, 0..claimed.groups());
            let mut honest = Slice::new(&content.blob, 0..content.blob.groups());
            let failed = loop {
                let (Some(_), Some(step)) = (slice.step(), honest.step().cloned()) else { break slice.step().is_some() };
                let bytes = content.read(&step);
                honest.accept(bytes.clone()).unwrap();
                if slice.accept(bytes).is_err() {
                    break true;
                }
            };
            prop_assert!(failed);
        }
    }

    #[test]
    fn the_deepest_path_fits_a_step() {
        let blob = Blob::new(BlobId([0; 32]), super::super::blob::MAX_BLOB_BYTES).unwrap();
        for group in [0, 12_345, blob.groups() - 1] {
            let slice = Slice::new(&blob, group..group + 1);
            assert_eq!(slice.step().unwrap().parents.len(), MAX_DEPTH);
        }
        assert!(Slice::new(&blob, blob.groups()..blob.groups() + 1).step().is_none());
        assert!(Slice::new(&blob, 5..5).step().is_none());
    }
}
