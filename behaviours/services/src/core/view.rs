//! What services and clients must know of the network; the directory knows it, and the node passes it on when it changes.

use std::collections::BTreeMap;

use fog_base::NodeId;

use super::{period::Period, ring::Ring};

/// The network as of now.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Relays that this node chooses introduction and rendezvous points from; itself as any other, or it were found by being the only one that its
    /// services never choose.
    pub relays: Vec<NodeId>,
    /// This node, if it is a relay: others may choose it.
    pub us: Option<NodeId>,
    /// The rings of the open periods that are known.
    pub rings: BTreeMap<Period, Ring>,
}

impl View {
    /// From relays and rings in any order.
    pub fn new(mut relays: Vec<NodeId>, us: Option<NodeId>, rings: impl IntoIterator<Item = Ring>) -> Self {
        relays.sort_unstable();
        relays.dedup();
        Self { relays, us, rings: rings.into_iter().map(|ring| (ring.period(), ring)).collect() }
    }

    /// Whether `relay` is one, this node included.
    pub fn has(&self, relay: &NodeId) -> bool {
        self.us == Some(*relay) || self.relays.binary_search(relay).is_ok()
    }
}
