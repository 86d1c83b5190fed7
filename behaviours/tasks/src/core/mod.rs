//! Everything that is decided: no IO, no clock, no ambient randomness, no threads that would show in a result.

pub mod nsga;
pub mod outcome;
pub mod placement;
pub mod work;
