#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod core;
pub mod wire;

#[cfg(feature = "libp2p")]
mod behaviour;
#[cfg(feature = "libp2p")]
mod certifying;
#[cfg(feature = "libp2p")]
mod codec;
#[cfg(feature = "libp2p")]
mod event;
#[cfg(feature = "libp2p")]
mod exchanging;
#[cfg(feature = "libp2p")]
mod kad;
#[cfg(feature = "libp2p")]
mod kad_store;

#[cfg(feature = "libp2p")]
pub use behaviour::Behaviour;
#[cfg(feature = "libp2p")]
pub use event::Event;
#[cfg(feature = "libp2p")]
pub use kad::{Kad, KadConfig, KadEvent, is_felt};

pub use crate::core::{
    address::{Address, Net, Scope, Transport},
    council::Serving,
    descriptor::{Descriptor, Facts, Reject},
    publisher::Signer,
    relay_set::{Acceptance, Config, RelaySet},
    snapshot::{Snapshot, SnapshotRelay},
};
