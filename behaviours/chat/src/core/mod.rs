//! BitChat as pure decisions: no IO, no clock, no ambient randomness.

pub mod carrier;
pub mod dag;
pub mod delivery;
pub mod engine;
pub mod envelope;
pub mod id;
pub mod limits;
pub mod membership;
pub mod message;
pub mod reconcile;
pub mod reject;
pub mod seal;
pub mod secrets;
pub mod seen;
pub mod signature;
pub mod tag;

#[cfg(test)]
pub(crate) mod testing;
