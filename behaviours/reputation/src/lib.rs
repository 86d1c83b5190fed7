#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod core;
pub mod wire;

#[cfg(feature = "libp2p")]
mod behaviour;
#[cfg(feature = "libp2p")]
mod codec;
#[cfg(feature = "libp2p")]
mod event;

#[cfg(feature = "libp2p")]
pub use behaviour::Behaviour;
#[cfg(feature = "libp2p")]
pub use event::{Change, Event};

pub use crate::core::{
    beta::Beta,
    config::Config,
    evidence::{Evidence, Kind, Observation, Outcome},
    exchange::{Acceptance, Counts},
    opinion::Opinion,
    receipt::{Deal, Receipt, Service, Terms, Verdict},
    reject::Reject,
    reputation::{Output, Reputation, Summary},
};
