//! The protocol without IO, clock and ambient randomness.

pub mod cell;
mod client;
pub mod congestion;
pub mod crypto;
pub mod edge;
mod links;
pub mod node;
pub(crate) mod numbers;
pub mod path;
pub mod policy;
mod relay;
mod stream;
mod suspects;
pub mod timeouts;
pub mod types;

/// The version of the protocol, in the extra data of handshakes.
const VERSION: u8 = 1;
