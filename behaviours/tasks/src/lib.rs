#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start their clocks somewhere"))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(feature = "libp2p")]
mod behaviour;
pub mod core;
#[cfg(feature = "libp2p")]
mod handler;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "libp2p")]
mod ids;
#[cfg(feature = "sandbox")]
pub mod sandbox;
#[cfg(feature = "libp2p")]
mod streams;
pub mod wire;

#[cfg(feature = "libp2p")]
pub use behaviour::Behaviour;
#[cfg(feature = "libp2p")]
pub use streams::{Arrived, MAX_FRAME, Streams};

pub use crate::core::{
    coordinator::{self, Coordinator},
    ids::{ExecutionId, TaskId},
    outcome::{Ending, HostEnd, Outcome, ResultHash, Trap},
    work::{Content, Input, Limits, Work, WorkId},
    worker::{self, Worker},
};
