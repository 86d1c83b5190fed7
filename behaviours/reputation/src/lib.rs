#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod core;
pub mod wire;

pub use crate::core::{
    beta::Beta,
    config::Config,
    evidence::{Evidence, Kind, Observation, Outcome},
    opinion::Opinion,
    receipt::{Deal, Receipt, Service, Terms, Verdict},
    reject::Reject,
    reputation::{Output, Reputation},
};
