//! What the directory asks of the node that it is part of.

use fog_base::NodeId;

/// What the node does for the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Keep a descriptor across restarts.
    Persist {
        /// Whose.
        relay: NodeId,
        /// The descriptor.
        bytes: Vec<u8>,
    },
    /// Forget what was kept.
    Forget {
        /// Whose.
        relay: NodeId,
    },
    /// Send a descriptor by gossip.
    Publish(Vec<u8>),
    /// Snapshots made before are outdated.
    Changed,
    /// A relay signed two descriptors with one sequence number.
    Equivocation {
        /// Who did.
        relay: NodeId,
    },
    /// A peer's clock is ahead of ours by so many milliseconds.
    Clock {
        /// Whose.
        peer: NodeId,
        /// Positive if it is ahead.
        offset_ms: i64,
    },
    /// A peer sent what no honest peer sends.
    Misbehaved {
        /// Who.
        peer: NodeId,
    },
    /// A peer asks more often than any honest peer.
    Flooding {
        /// Who.
        peer: NodeId,
    },
}
