//! Between libp2p's names for nodes and ours: both hold the same Ed25519 key.

use fog_base::NodeId;
use libp2p::PeerId;

/// The libp2p id of a node.
pub(crate) fn peer_id(node: NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.to_peer_id_bytes()).ok()
}

/// The node that a libp2p id names.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).ok()
}
