//! The threads around the core: an engine that holds it, and one that answers handshakes. The swarm's tasks only carry cells.
//!
//! ```text
//! handlers ──cells──▶ Pipe ──▶        ──jobs──▶ handshakes
//!          ◀──bytes──       ◀── engine ◀─answers──
//! Streams ◀──bytes──▶ Flow ──▶    ▲│
//!                          commands││events
//!                             Behaviour, Circuits
//! ```
//!
//! Everything between two threads is bounded. The swarm, the applications' tasks and the threads meet in [`hub::Hub`].

pub(crate) mod engine;
pub(crate) mod flow;
pub(crate) mod hub;
pub(crate) mod pipe;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use fog_base::{Now, UnixMillis};

/// Reads both clocks.
#[expect(clippy::disallowed_methods, reason = "this is where the core's clock is read")]
pub(crate) fn clock() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix: UnixMillis(0).plus(unix) }
}

/// The value behind a lock. A thread that panicked with it has already ended the node.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
