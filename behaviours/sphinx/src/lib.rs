#![doc = include_str!("../README.md")]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod error;
mod header;
mod hmac;
mod kdf;
mod keys;
mod layout;
mod relay;
mod secret;
mod sender;
mod surb;
mod wide_block;

pub use error::{BuildError, Reject};
pub use fog_x25519::PointError as KeyError;
pub use keys::{MixPublicKey, MixSecretKey};
pub use layout::{
    BODY_LEN, HEADER_LEN, MAX_HOPS, PACKET_LEN, PAYLOAD_LEN, PacketBytes, SURB_LEN, TAG_LEN, VERSION, body, payload,
    peek,
};
#[doc(hidden)]
pub use relay::symmetric_part;
pub use relay::{Opened, Unwrapped, open, open_batch, process_batch};
pub use sender::{DelaySeeds, Hop, LastHop, Order, Route, build, build_batch};
pub use surb::{SURB_KEYS_LEN, Surb, SurbKeys, SurbOrder, build_surb, build_surbs};

#[cfg(test)]
mod tests;
