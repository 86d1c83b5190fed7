#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod core;
#[cfg(feature = "host")]
pub mod host;

pub use crate::core::{
    outcome::{Ending, HostEnd, Outcome, ResultHash, Trap},
    work::{Content, Input, Limits, Work, WorkId},
};
