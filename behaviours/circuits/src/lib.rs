#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start their clocks somewhere"))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(feature = "libp2p")]
pub mod behaviour;
pub mod core;
#[cfg(feature = "libp2p")]
mod event;
#[cfg(feature = "libp2p")]
mod handle;
#[cfg(feature = "libp2p")]
mod handler;
#[cfg(feature = "libp2p")]
mod ids;
#[cfg(feature = "libp2p")]
mod runtime;
pub mod wire;

#[cfg(feature = "libp2p")]
pub use behaviour::{Behaviour, Config, StartError};
#[cfg(feature = "libp2p")]
pub use event::{Event, Inbound};
#[cfg(feature = "libp2p")]
pub use handle::Circuits;
#[cfg(feature = "libp2p")]
pub use runtime::flow::{Stream, StreamEnded};

pub use crate::{
    core::{
        crypto::handshake::{RelayKey, RelaySecret},
        node::{Config as CoreConfig, Core, Counts, record::Record},
        path::{Hop, NoPath, PathSource},
        policy::{BadPolicy, ExitPolicy},
        types::{
            CircuitId, CircuitInfo, CloseReason, End, Experience, FirstStream, Isolation, Open, Purpose, Side,
            VirtualRole,
        },
    },
    wire::{EndReason, Target},
};
