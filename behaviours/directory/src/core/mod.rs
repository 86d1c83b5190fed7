//! The directory as pure decisions: no IO, no clock, no ambient randomness.

pub mod address;
pub mod delay_vrf;
pub mod descriptor;
pub mod exchange;
pub mod path;
pub mod publisher;
pub mod relay_set;
pub mod seating;
pub mod snapshot;

#[cfg(test)]
pub(crate) mod testing;
