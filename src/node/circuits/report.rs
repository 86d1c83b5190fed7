//! Circuits as JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A circuit of this node's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Circuit {
    /// Its number; used once by a process.
    pub id: u64,
    /// `connecting`, `building` or `open`.
    pub state: String,
    /// What it is for.
    pub purpose: String,
    /// Its relays so far, the guard first.
    pub hops: Vec<String>,
    /// Streams on it.
    pub streams: usize,
    /// How old it is.
    pub age_s: f64,
    /// Bytes in cells that this node sent on it.
    pub bytes_up: u64,
    /// Bytes in cells that came for it.
    pub bytes_down: u64,
}

/// A request to the proxy that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProxyRequest {
    /// Where to.
    pub target: String,
    /// `circuit`, `descriptor`, `introduction`, `rendezvous`, `connecting` or `open`.
    pub stage: String,
    /// How long it runs.
    pub age_s: f64,
}
