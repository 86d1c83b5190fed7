//! What follows from what peers do on their links: who is a relay, and what says that one cannot be reached.

use std::sync::Arc;

use fog_base::{Epoch, EpochSchedule, NodeId, relay::PathSelector};
use libp2p::{
    PeerId,
    swarm::{CloseConnection, DialError, ToSwarm},
};

use crate::{
    event::Event,
    runtime::{now, start::Config},
};

/// The relays from which paths are drawn.
pub(crate) struct Relays {
    schedule: EpochSchedule,
    pub(crate) paths: Arc<dyn PathSelector + Send + Sync>,
}

impl Relays {
    /// Those that the configuration says.
    pub(crate) fn new(config: &Config) -> Self {
        Self { schedule: config.endpoint.schedule, paths: Arc::clone(&config.paths) }
    }

    fn contains(&self, node: NodeId) -> bool {
        let Epoch(running) = self.schedule.at(now().unix);
        let mut epochs = (running.saturating_sub(1)..=running.saturating_add(1)).map(Epoch);
        epochs.any(|epoch| self.paths.relay(epoch, node).is_some())
    }

    /// A peer sends far more than it may: it is told of and disconnected. A relay sends what others chose to send through it: its excess
    /// is dropped and nothing else follows, or else strangers could end the connections between relays.
    pub(crate) fn flooded<T>(&self, peer: PeerId, node: NodeId) -> Vec<ToSwarm<Event, T>> {
        if self.contains(node) {
            return Vec::new();
        }
        let close = ToSwarm::CloseConnection { peer_id: peer, connection: CloseConnection::All };
        vec![ToSwarm::GenerateEvent(Event::Flooding(node)), close]
    }
}

/// Whether the peer could not be reached. It could if this node itself did not want the connection (a feeler that has done its work, a
/// limit of its own), and nothing is known while it is being dialled already or connected; what waits for it waits until then.
pub(crate) fn is_unreachable(error: &DialError) -> bool {
    !matches!(error, DialError::Denied { .. } | DialError::DialPeerConditionFalse(_))
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::{ConnectionDenied, dial_opts::PeerCondition};

    use super::*;

    #[test]
    fn a_dial_that_this_node_itself_ended_makes_nobody_unreachable() {
        let denied = DialError::Denied { cause: ConnectionDenied::new("a feeler") };
        assert!(!is_unreachable(&denied));
        assert!(!is_unreachable(&DialError::DialPeerConditionFalse(PeerCondition::NotDialing)));
        assert!(is_unreachable(&DialError::Transport(Vec::new())) && is_unreachable(&DialError::NoAddresses));
    }
}
