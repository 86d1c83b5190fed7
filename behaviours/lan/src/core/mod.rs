//! The beacon without sockets, clocks and ambient randomness.

pub mod lan;
mod limits;
pub mod local;
mod neighbours;
mod random;
pub mod reject;
mod replay;
mod schedule;

#[cfg(test)]
mod lan_tests;
