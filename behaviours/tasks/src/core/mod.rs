//! Everything that is decided: no IO, no clock, no ambient randomness, no threads that would show in a result.

pub mod explain;
pub mod ids;
pub mod matcher;
pub mod memo;
pub mod offer;
pub mod offers;
pub mod outcome;
pub mod pay;
pub mod standing;
pub mod terms;
pub mod verify;
pub mod work;

#[cfg(test)]
mod simulation_tests;
