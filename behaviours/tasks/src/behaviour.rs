//! The libp2p behaviour: connections on one side, frames on the other. No rules of the protocol.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
};

use fog_base::NetworkId;
use futures::channel::mpsc;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use crate::{
    handler::Handler,
    ids::node_id,
    streams::{Arrived, Streams},
};

/// The name and the version of the protocol.
const PROTOCOL: (&str, u32) = ("tasks", 1);
/// Frames that wait for whoever drives the cores; one more for each connection.
const MAX_ARRIVED: usize = 256;

/// Tasks in a swarm.
#[derive(Debug)]
pub struct Behaviour {
    protocol: StreamProtocol,
    streams: Streams,
    arrived: mpsc::Sender<Arrived>,
    connections: BTreeMap<PeerId, Vec<ConnectionId>>,
    /// Being connected, as something waits for them.
    dialing: BTreeSet<PeerId>,
    /// News for which there was no room; one for each connection that came or went.
    untold: VecDeque<Arrived>,
    actions: VecDeque<ToSwarm<Infallible, ()>>,
}

impl Behaviour {
    /// The behaviour, and what comes from it.
    pub fn new(network: &NetworkId) -> (Self, Streams, mpsc::Receiver<Arrived>) {
        let (arrived, receiver) = mpsc::channel(MAX_ARRIVED);
        let streams = Streams::default();
        // The name starts with a slash, which is all that libp2p asks for.
        let protocol = StreamProtocol::try_from_owned(network.protocol(PROTOCOL.0, PROTOCOL.1))
            .unwrap_or(StreamProtocol::new("/fog/tasks/1"));
        let behaviour = Self {
            protocol,
            streams: streams.clone(),
            arrived,
            connections: BTreeMap::new(),
            dialing: BTreeSet::new(),
            untold: VecDeque::new(),
            actions: VecDeque::new(),
        };
        (behaviour, streams, receiver)
    }

    fn handler(&self, peer: PeerId) -> Result<Handler, ConnectionDenied> {
        let node = node_id(&peer).ok_or_else(|| ConnectionDenied::new(NotAFogNode))?;
        Ok(Handler::new(self.protocol.clone(), (peer, node), self.streams.clone(), self.arrived.clone()))
    }

    fn open(&mut self, peer_id: PeerId) {
        if let Some(connection) = self.connections.get(&peer_id).and_then(|all| all.first()) {
            let handler = NotifyHandler::One(*connection);
            return self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: () });
        }
        if self.dialing.insert(peer_id) {
            let opts = DialOpts::peer_id(peer_id).condition(PeerCondition::DisconnectedAndNotDialing).build();
            self.actions.push_back(ToSwarm::Dial { opts });
        }
    }

    /// Nothing can be sent to a peer.
    fn gone(&mut self, peer: &PeerId) {
        self.dialing.remove(peer);
        let _dropped = self.streams.forget(peer);
        self.tell(node_id(peer).map(Arrived::Gone));
    }

    fn tell(&mut self, news: Option<Arrived>) {
        self.untold.extend(news);
    }
}

/// The peer's id does not embed an Ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("the peer's key is not an Ed25519 key")]
struct NotAFogNode;

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(new) => {
                let connections = self.connections.entry(new.peer_id).or_default();
                connections.push(new.connection_id);
                if connections.len() == 1 {
                    self.tell(node_id(&new.peer_id).map(Arrived::Connected));
                }
                if self.dialing.remove(&new.peer_id) {
                    self.open(new.peer_id);
                }
            }
            FromSwarm::ConnectionClosed(old) => {
                let Some(connections) = self.connections.get_mut(&old.peer_id) else { return };
                connections.retain(|connection| *connection != old.connection_id);
                if connections.is_empty() {
                    self.connections.remove(&old.peer_id);
                    self.gone(&old.peer_id);
                } else {
                    // The stream may have been that connection's.
                    self.streams.detach(&old.peer_id);
                }
            }
            // While another dial to the peer is under way, that one decides.
            FromSwarm::DialFailure(failure) if !matches!(failure.error, DialError::DialPeerConditionFalse(_)) => {
                if let Some(peer) = failure.peer_id.filter(|peer| self.dialing.contains(peer)) {
                    self.gone(&peer);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, _: THandlerOutEvent<Self>) {
        self.gone(&peer);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        while !self.untold.is_empty()
            && let Poll::Ready(ready) = self.arrived.poll_ready(cx)
        {
            if let (Ok(()), Some(news)) = (ready, self.untold.pop_front()) {
                drop(self.arrived.start_send(news));
            }
        }
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Poll::Ready(action);
            }
            let Poll::Ready(peer) = self.streams.poll_wanted(cx) else { return Poll::Pending };
            self.open(peer);
        }
    }
}
