//! What is decided, without IO, clock or ambient randomness.

pub mod address;
pub mod blinding;
pub(crate) mod bytes;
pub mod circuit;
pub mod client;
pub mod descriptor;
pub mod handshake;
pub mod introduction;
pub mod kdf;
pub mod mixed;
pub mod period;
pub mod pow;
pub mod random;
pub mod reject;
pub mod relay;
pub mod replay;
pub mod ring;
pub mod service;
pub mod view;

#[cfg(test)]
mod primitives_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod world_tests;
