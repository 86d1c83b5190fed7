//! Contents for tests.

use std::time::Instant;

use fog_base::{Now, UnixMillis};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::{
    blob::{BLOCK, Blob, BlobId, GROUP_BYTES, PARENT_BYTES},
    slice::Step,
};

/// When a test starts.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
pub(crate) fn start() -> Now {
    Now { mono: Instant::now(), unix: UnixMillis(0) }
}

/// Sizes around every boundary of a small tree.
pub(crate) fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        0usize..3_000,
        (0usize..12, 0usize..3).prop_map(|(groups, more)| (groups * GROUP_BYTES + more).saturating_sub(1)),
        0usize..1_200_000,
    ]
}

/// A random content with its tree.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) blob: Blob,
    pub(crate) bytes: Vec<u8>,
    pub(crate) outboard: Vec<u8>,
}

impl Content {
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        let mut bytes = vec![0; size];
        ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        let outboard = bao_tree::io::outboard::PreOrderMemOutboard::create(&bytes, BLOCK);
        let blob = Blob::new(BlobId(*blake3::hash(&bytes).as_bytes()), size as u64).unwrap();
        Self { blob, bytes, outboard: outboard.data }
    }

    pub(crate) fn group(&self, group: u64) -> &[u8] {
        let start = self.blob.offset(group) as usize;
        &self.bytes[start..start + self.blob.group_len(group)]
    }

    pub(crate) fn read(&self, step: &Step) -> Vec<u8> {
        let mut out = Vec::new();
        for at in &step.parents {
            out.extend_from_slice(&self.outboard[*at as usize..*at as usize + PARENT_BYTES]);
        }
        out.extend_from_slice(&self.bytes[step.data.start as usize..step.data.end as usize]);
        out
    }
}
