//! The threads around the cores: one that decides and hashes, and those that read and write files. Nothing here waits for a peer.
//!
//! The swarm's tasks, which only carry bytes, and the threads meet in [`hub::Hub`] and [`pipe::Pipe`].

pub(crate) mod disk;
pub(crate) mod engine;
pub(crate) mod hub;
pub(crate) mod pipe;
pub(crate) mod place;
pub(crate) mod queue;
pub(crate) mod record;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The value behind a lock. A thread that panicked with it has already ended the node.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
