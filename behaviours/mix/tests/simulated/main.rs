//! A network of cores in one process: real packets, a clock that the test moves, links that lose what the test says.
#![allow(clippy::disallowed_methods, reason = "the clock starts somewhere")]

mod answers;
mod epochs;
mod loops;
mod messages;
mod net;
