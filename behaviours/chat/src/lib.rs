#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start their clocks somewhere"))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(feature = "libp2p")]
pub mod behaviour;
#[cfg(feature = "libp2p")]
mod codec;
pub mod core;
pub mod wire;

#[cfg(feature = "libp2p")]
pub use behaviour::{Behaviour, Event};

pub use crate::core::{
    dag::Dag,
    engine::Chat,
    envelope::{Envelope, Priority},
    id::{ConversationId, DeviceId, EnvelopeId, MessageId},
    message::{Message, Verified},
    reject::Reject,
};
