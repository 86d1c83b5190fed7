//! The level `mixed`: one request to a service and its answer, through the mixnet (README, "The level `mixed`").
//!
//! What is here is pure: a client's exchanges, what is sealed in them, and when a request or an answer is whole. What a relay and a
//! service do stands with their other parts.

mod client;
mod gather;
pub mod http;
mod parts;
mod sealed;

pub use client::{Asker, Asking, Failure, JobId, Output, Sent};
pub use gather::Gather;
pub use parts::Assembly;
pub use sealed::{Answerer, MAX_ANSWER, MAX_REQUEST, NotServed, Request, open_answer};

#[cfg(test)]
mod tests;
