#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start their clocks somewhere"))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod core;
pub mod wire;

pub use crate::core::{
    coordinator::{self, Coordinator},
    ids::{ExecutionId, TaskId},
    outcome::{Ending, HostEnd, Outcome, ResultHash, Trap},
    work::{Content, Input, Limits, Work, WorkId},
    worker::{self, Worker},
};
