//! The directory as pure decisions: no IO, no clock, no ambient randomness.

pub mod address;
pub mod alias;
pub mod beacon;
pub mod certificate;
pub mod circuit_path;
pub mod council;
pub mod delay_vrf;
pub mod descriptor;
pub mod exchange;
pub mod guards;
pub mod kad_record;
pub mod layer2;
pub mod lookup;
pub mod loops;
pub mod lottery;
pub mod path;
pub mod publisher;
pub mod relay_set;
pub mod routing;
pub mod seating;
pub mod snapshot;
pub mod standing;
pub mod throttle;
pub mod weight;

#[cfg(test)]
pub(crate) mod testing;
