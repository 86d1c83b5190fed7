#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start their clocks somewhere"))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod codec;
pub mod drops;
pub mod id;
pub mod network;
pub mod queue;
pub mod record;
pub mod relay;
pub mod time;
pub mod token_bucket;

pub use drops::{DropCounters, DropReason};
pub use id::{MessageId, NetworkId, NodeId};
pub use network::Network;
pub use queue::BoundedQueue;
pub use time::{Epoch, EpochSchedule, Now, UnixMillis};
pub use token_bucket::TokenBucket;
