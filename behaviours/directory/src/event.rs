//! What the directory asks of the node that it is part of.

use fog_base::{Epoch, NodeId};

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
    /// Send a message about certified sets by gossip, on their own topic.
    Broadcast(Vec<u8>),
    /// Write what this node is about to sign, sync, and then call [`crate::Behaviour::recorded`].
    Record(Vec<u8>),
    /// Keep a link of the chain of certificates for ever.
    KeepLink {
        /// Whose set it certifies.
        epoch: Epoch,
        /// The link.
        bytes: Vec<u8>,
    },
    /// Keep a certified set across restarts, and forget an older one.
    KeepSet {
        /// Whose set it is.
        epoch: Epoch,
        /// Its descriptors.
        set: Vec<u8>,
        /// Its state.
        state: Vec<u8>,
        /// Whose set is of no use any more.
        forget: Option<Epoch>,
    },
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
