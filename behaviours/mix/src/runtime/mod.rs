//! The threads around the core: workers that do the arithmetic, one engine that holds the pool and the endpoint, and what lies
//! between them and the connections. Everything between two threads is bounded.
//!
//! ```text
//! handlers ──batches──▶ Ingress ──▶ workers ──outcomes──▶ engine ──packets──▶ Links ──▶ handlers
//!                                                            ▲│
//!                                                   requests ││ events
//!                                                      Behaviour
//! ```
//!
//! Clocks and threads are read and made here and in `handler.rs`, nowhere else in this crate.

pub mod buffers;
pub mod engine;
pub mod faults;
pub mod ingress;
pub mod keystore;
pub mod links;
pub mod start;
pub mod stats;
pub mod workers;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use fog_base::{Now, UnixMillis};

/// Reads both clocks.
#[allow(clippy::disallowed_methods, reason = "the shell is where clocks are read")]
pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix: UnixMillis(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)) }
}

/// Locks; what these mutexes hold is whole after a panic elsewhere, as each change is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
