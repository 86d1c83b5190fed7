//! Services as JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A service of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// `….fog`
    pub address: String,
    /// What it is called here.
    pub name: String,
    /// Where its streams go, `HOST:PORT`.
    pub target: String,
    /// The port under which it is reached.
    pub port: u16,
    /// `starting`, `publishing`, `reachable`, `degraded` or `unreachable`.
    pub state: String,
    /// Introduction points that are established.
    pub introductions: usize,
    /// Directories that have its newest descriptor, as far as they showed.
    pub published: usize,
    /// Clients that are authorized; without any, everybody is.
    pub clients: usize,
    /// The last time that the service was tried as a client would.
    pub last_self_probe: Option<SelfProbe>,
}

/// What a service found out about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SelfProbe {
    /// Whether it can be reached.
    pub ok: bool,
    /// When it was tried, RFC 3339.
    pub at: String,
    /// What happened.
    pub detail: String,
}

/// A service that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Added {
    /// `….fog`
    pub address: String,
    /// What it is called here.
    pub name: String,
    /// Where its streams go.
    pub target: String,
}

/// A service that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// What it was called here.
    pub name: String,
    /// `….fog`; its key is destroyed.
    pub address: String,
}

/// What a lookup found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lookup {
    /// `….fog`
    pub address: String,
    /// How many introduction points it names.
    pub introduction_points: usize,
    /// Until when it is valid, RFC 3339.
    pub expires_at: String,
    /// Its revision.
    pub revision: u64,
    /// How long it took.
    pub latency_ms: f64,
}

/// Who may use a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Clients {
    /// How many clients are authorized.
    pub clients: usize,
}

/// This node's own key as a client of services that ask for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientKey {
    /// X25519, base32; give it to whoever runs the service.
    pub client_key: String,
}
