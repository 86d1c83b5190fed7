#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start their clocks somewhere"))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(feature = "libp2p")]
pub mod behaviour;
pub mod core;
#[cfg(feature = "libp2p")]
mod event;
#[cfg(feature = "libp2p")]
mod handler;
#[cfg(feature = "libp2p")]
mod ids;
#[cfg(feature = "libp2p")]
mod link_protocol;
#[cfg(feature = "libp2p")]
mod mailbox_exchange;
#[cfg(feature = "libp2p")]
mod mailbox_protocol;
#[cfg(feature = "libp2p")]
mod peers;
#[cfg(feature = "libp2p")]
pub mod runtime;
pub mod wire;

#[cfg(feature = "libp2p")]
pub use behaviour::Behaviour;
#[cfg(feature = "libp2p")]
pub use event::Event;
#[cfg(feature = "libp2p")]
pub use ids::{node_id, peer_id};
