#![doc = include_str!("../../../SECRETS.md")]

pub mod block;
pub mod bundle;
pub mod device;
pub mod frame;
pub mod group;
mod incoming;
pub mod key;
mod peer;
pub mod reject;
mod restore;
pub mod room;
mod seen;
mod sessions;
pub mod vault;
pub mod words;

pub use block::BlockList;
pub use bundle::{Bundle, DeviceId, PreKeyKind};
pub use device::{Device, Output, Report};
pub use frame::Kind;
pub use group::GroupKeys;
pub use key::SecretKey;
pub use peer::MAX_PENDING;
pub use reject::Reject;
pub use room::{Mode, Room};
pub use vault::{Row, RowKind, Vault, WipeStep};
pub use words::safety_words;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod testing;
