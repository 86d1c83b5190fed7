#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod core;
pub mod wire;

#[cfg(feature = "libp2p")]
mod behaviour;
#[cfg(feature = "libp2p")]
mod sockets;

#[cfg(feature = "libp2p")]
pub use behaviour::{Behaviour, Event};

pub use crate::core::{
    lan::{Config, Counts, Lan, Output},
    local::{Endpoint, Local, Ports, Source},
    reject::Reject,
};
