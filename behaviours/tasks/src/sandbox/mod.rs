//! What runs a module: a WASI of our own, wasmtime with deterministic settings, a process with limits around it, and who supervises
//! those processes. Deadlines and limits of the host enter here, so endings that depend on them are [`HostEnd`](crate::HostEnd)s.

#![expect(
    clippy::disallowed_methods,
    reason = "deadlines of runs are read from the clock here, and nowhere in a result"
)]

mod child;
mod confine;
mod engine;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter;
mod frame;
mod pool;
mod run;
pub mod wasi;

pub use self::{
    child::serve,
    pool::{Busy, Pool, PoolConfig, PoolEvent, PoolUse, RunId},
    run::{Job, Runner},
    wasi::{Bytes, Log, Stream},
};
