#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start their clocks somewhere"))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod core;
#[cfg(feature = "libp2p")]
pub mod runtime;
pub mod wire;

pub use crate::core::{
    address::{Address, AddressError},
    client::{Client, Failure},
    reject::Reject,
    service::Service,
};
