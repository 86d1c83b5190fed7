//! Secret bytes, erased when dropped.

use core::ops::{Deref, DerefMut};

use zeroize::{Zeroize, ZeroizeOnDrop, optimization_barrier};

/// As `Zeroizing`, but erased as a block of memory is: `Zeroizing` writes every byte by itself, and for the keys of one hop that
/// takes as long as deriving them.
pub(crate) struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    pub(crate) const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }
}

impl<const N: usize> Deref for Secret<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> DerefMut for Secret<N> {
    fn deref_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Zeroize for Secret<N> {
    fn zeroize(&mut self) {
        self.0.fill(0);
        optimization_barrier(&self.0);
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}
