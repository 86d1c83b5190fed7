//! Reputation as pure decisions: no IO, no clock, no ambient randomness.

pub mod beta;
pub mod blame;
pub mod config;
pub mod evidence;
pub mod exchange;
pub mod hearsay;
pub mod opinion;
pub mod peers;
pub mod proof;
pub mod receipt;
pub mod reject;
pub mod report;
pub mod reporter;
pub mod reputation;
pub mod saved;
pub mod score;
pub mod shelf;
pub mod sources;

#[cfg(test)]
mod attack_tests;
#[cfg(test)]
pub(crate) mod testing;
