//! Everything that is decided: no IO, no clock, no ambient randomness, no threads that would show in a result.

pub mod coordinator;
#[cfg(test)]
mod endurance_tests;
pub mod explain;
pub mod harvest;
pub mod ids;
pub mod matcher;
pub mod memo;
pub mod mixed;
#[cfg(test)]
mod mixed_tests;
#[cfg(test)]
mod model_tests;
pub mod nsga;
pub mod offer;
pub mod offers;
pub mod outcome;
pub mod pay;
pub mod placement;
pub mod reject;
pub mod row;
pub(crate) mod signer;
#[cfg(test)]
mod simulation_tests;
pub mod standing;
pub mod terms;
#[cfg(test)]
pub(crate) mod testing;
mod timers;
pub mod uptime;
pub mod verify;
pub mod work;
pub mod worker;
