//! HMAC-SHA256 (RFC 2104, FIPS 180-4) over short messages, on the compression function of crate `sha2`.
//!
//! A hop's keys take two dozen compressions of 64 bytes each. The general HMAC spends as long again on what it needs for messages
//! of any length and origin: copies of a buffer and of a second hasher that is only read.

use sha2::block_api::compress256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::secret::Secret;

const BLOCK: usize = 64;
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// HMAC-SHA256 that has taken in its key. Erased when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Keyed {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl Keyed {
    /// The key has at most 64 bytes, as all of ours do; a longer one does not compile.
    pub(crate) fn new<const N: usize>(key: &[u8; N]) -> Self {
        const { assert!(N <= BLOCK) };
        Self { inner: absorbed(key, 0x36), outer: absorbed(key, 0x5c) }
    }

    pub(crate) fn hmac<const PARTS: usize>(&self, parts: [&[u8]; PARTS]) -> [u8; 32] {
        let mut inner = Sha256 { state: self.inner, block: Secret::new([0; BLOCK]), filled: 0, length: BLOCK };
        parts.into_iter().for_each(|part| inner.update(part));
        let digest = Secret::new(inner.finish());
        let mut outer = Sha256 { state: self.outer, block: Secret::new([0; BLOCK]), filled: 0, length: BLOCK };
        outer.update(&*digest);
        outer.finish()
    }
}

/// The hash's state after the key's block.
fn absorbed(key: &[u8], pad: u8) -> [u32; 8] {
    let mut block = Secret::new([pad; BLOCK]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to ^= from);
    let mut state = INITIAL;
    compress256(&mut state, core::slice::from_ref(&*block));
    state
}

/// A hash on its way. Erased when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Sha256 {
    state: [u32; 8],
    block: Secret<BLOCK>,
    filled: usize,
    /// Bytes taken in so far, the key's block among them.
    length: usize,
}

impl Sha256 {
    fn update(&mut self, mut part: &[u8]) {
        self.length += part.len();
        loop {
            let (_, free) = self.block.split_at_mut(self.filled.min(BLOCK));
            let (now, later) = part.split_at(part.len().min(free.len()));
            free.split_at_mut(now.len()).0.copy_from_slice(now);
            self.filled += now.len();
            if self.filled < BLOCK {
                return;
            }
            self.compress();
            part = later;
        }
    }

    fn compress(&mut self) {
        compress256(&mut self.state, core::slice::from_ref(&*self.block));
        self.filled = 0;
    }

    /// Pads with a one bit, zeros, and the length in bits.
    fn finish(mut self) -> [u8; 32] {
        let bits = self.length as u64 * 8;
        self.update(&[0x80]);
        self.block.split_at_mut(self.filled).1.fill(0);
        if self.filled > BLOCK - 8 {
            self.compress();
            self.block.fill(0);
        }
        self.block.split_at_mut(BLOCK - 8).1.copy_from_slice(&bits.to_be_bytes());
        self.compress();
        let mut digest = [0; 32];
        for (chunk, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *chunk = word.to_be_bytes();
        }
        digest
    }
}
