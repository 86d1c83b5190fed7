//! Counters that all threads add to.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use fog_base::{DropCounters, NodeId};

use super::lock;

/// What went through this node since it started.
#[derive(Debug, Default)]
pub struct Stats {
    /// Packets that came from peers.
    pub received: AtomicU64,
    /// Packets handed to the link of a next hop.
    pub forwarded: AtomicU64,
    /// Packets whose last hop was this node.
    pub delivered: AtomicU64,
    /// Packets of this node's own that left.
    pub sent: AtomicU64,
    /// Of those, loops and drop packets.
    pub cover_sent: AtomicU64,
    /// Packets that fault injection lost.
    pub faulted: AtomicU64,
    /// Packets in the mixing pool.
    pub pool: AtomicUsize,
    /// What was dropped.
    pub drops: Arc<DropCounters>,
    status: Mutex<Status>,
}

/// How the engine stands, as of its last look.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether a path of the default length can be built now, and answered.
    pub ready: bool,
    /// So many loops are lost that something holds packets back.
    pub loop_alarm: bool,
    /// Loops that came back.
    pub loops_returned: u64,
    /// Loops that did not.
    pub loops_lost: u64,
    /// Mailboxes that hold a claim of this node.
    pub mailboxes: Vec<NodeId>,
    /// Bounded things: name, used, greatest.
    pub usage: Vec<(&'static str, u64, u64)>,
    /// What the user should know, in a line: a key file that cannot be written.
    pub trouble: Option<String>,
}

impl Stats {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// How the engine stands.
    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    /// The engine says how it stands.
    pub fn set_status(&self, status: Status) {
        *lock(&self.status) = status;
    }
}
