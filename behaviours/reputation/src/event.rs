//! What reputation asks of the node that it is part of.

use fog_base::{NodeId, UnixMillis};

/// A row that is kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value, in the form that [`crate::Behaviour::load`] reads; `None` if it is to be forgotten.
    pub value: Option<Vec<u8>>,
}

/// What the node does for reputation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Keep or forget these rows.
    Save(Vec<Change>),
    /// Send an item by gossip.
    Publish(Vec<u8>),
    /// End the connection.
    Disconnect(NodeId),
    /// Keep it out for a while.
    Ban {
        /// Whom.
        peer: NodeId,
        /// Until then.
        until: UnixMillis,
        /// Whether this node has had to do with it: then it is not only for what others prove.
        met: bool,
    },
}
