//! The protocol without IO, clock and ambient randomness.

pub mod cell;
pub mod crypto;
pub mod congestion;
