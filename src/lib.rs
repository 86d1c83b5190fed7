//! The `fog` program as a library: composition and IO, no protocol rules. See ARCHITECTURE.md for the map.

pub mod api;
pub mod cli;
mod clock;
pub mod config;
pub mod invite;
pub mod keys;
pub mod node;
pub mod platform;
mod proxy;
pub mod store;
