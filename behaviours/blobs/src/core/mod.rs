//! Blobs as pure decisions: no IO, no clock, no ambient randomness.

pub mod bitmap;
pub mod blob;
pub mod download;
pub mod manifest;
pub mod reject;
pub mod seal;
pub mod slice;
pub mod storage;
pub mod upload;

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod swarm_tests;
#[cfg(test)]
pub(crate) mod testing;
