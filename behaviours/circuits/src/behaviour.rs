//! The libp2p behaviour: connections on one side, the engine's links and events on the other. No rules of the protocol.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    thread::JoinHandle,
};

use fog_base::{NetworkId, NodeId};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use zeroize::Zeroizing;

use crate::{
    core::{
        crypto::handshake::RelaySecret,
        node::{self, Core},
        path::PathSource,
        policy::is_global,
        types::Job,
    },
    event::Event,
    handle::Circuits,
    handler::Handler,
    ids::{node_id, peer_id},
    runtime::{
        clock,
        engine::Engine,
        hub::{Hub, Told},
        pipe::End,
    },
};

/// The name and the version of the protocol.
pub const PROTOCOL: (&str, u32) = ("circuits", 1);
/// Handshakes that wait for their thread.
const MAX_JOBS: usize = 1024;

/// What the circuits of a node need.
#[derive(Debug)]
pub struct Config {
    /// Whose network.
    pub network: NetworkId,
    /// Who this node is.
    pub id: NodeId,
    /// The private half of its circuit key, X25519.
    pub secret: Zeroizing<[u8; 32]>,
    /// What it allows.
    pub core: node::Config,
    /// Whether relays may send this node to addresses that are not global: for testnets and LANs.
    pub allows_private: bool,
}

/// Why circuits cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("no thread is started: {0}")]
pub struct StartError(#[from] std::io::Error);

/// Circuits in a swarm.
#[derive(Debug)]
pub struct Behaviour {
    hub: Arc<Hub>,
    protocol: StreamProtocol,
    allows_private: bool,
    connections: BTreeMap<PeerId, Vec<ConnectionId>>,
    /// Links that wait for a connection.
    dialing: BTreeMap<PeerId, Vec<End>>,
    actions: VecDeque<ToSwarm<Event, End>>,
    engine: Option<JoinHandle<()>>,
}

impl Behaviour {
    /// Starts the threads; `paths` chooses relays.
    #[expect(clippy::disallowed_methods, reason = "this is where the randomness of keys enters")]
    pub fn new(config: Config, paths: Box<dyn PathSource>) -> Result<Self, StartError> {
        let hub = Arc::new(Hub::default());
        let secret = RelaySecret::new(config.id, &config.secret);
        let core = Core::new(config.core, secret, paths, Arc::clone(&hub.drops), rand::random(), clock());
        let (jobs, queue) = mpsc::sync_channel::<Job>(MAX_JOBS);
        let answers = Arc::clone(&hub);
        std::thread::Builder::new().name("circuits-keys".into()).spawn(move || {
            // Ends when the engine has ended.
            queue.iter().for_each(|job| answers.answer(job.run()));
        })?;
        let engine = Engine::new(Arc::clone(&hub), core, jobs);
        let engine = std::thread::Builder::new().name("circuits".into()).spawn(move || engine.run())?;
        let name = config.network.protocol(PROTOCOL.0, PROTOCOL.1);
        Ok(Self {
            hub,
            // The name starts with a slash, which is all that libp2p asks for.
            protocol: StreamProtocol::try_from_owned(name).unwrap_or(StreamProtocol::new("/fog/circuits/1")),
            allows_private: config.allows_private,
            connections: BTreeMap::new(),
            dialing: BTreeMap::new(),
            actions: VecDeque::new(),
            engine: Some(engine),
        })
    }

    /// What the node and other protocols call.
    pub fn circuits(&self) -> Circuits {
        Circuits(Arc::clone(&self.hub))
    }

    fn handler(&self, peer: &PeerId) -> Result<Handler, ConnectionDenied> {
        let node = node_id(peer).ok_or_else(|| ConnectionDenied::new(NotAFogNode))?;
        Ok(Handler::new(self.protocol.clone(), Arc::clone(&self.hub), node))
    }

    fn open_link(&mut self, peer_id: PeerId, event: End) {
        // Without a connection the end is dropped, and the engine hears of it. Of several the newest is the one that surely works: the peer may have
        // started again.
        if let Some(connection) = self.connections.get(&peer_id).and_then(|all| all.last()) {
            let handler = NotifyHandler::One(*connection);
            self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
        }
    }

    fn link(&mut self, node: NodeId, addresses: Vec<Vec<u8>>, is_hint: bool, end: End) {
        let Some(peer) = peer_id(node) else { return };
        if self.connections.contains_key(&peer) {
            return self.open_link(peer, end);
        }
        let usable = |address: &Multiaddr| !is_hint || is_direct(address, self.allows_private);
        let parsed = addresses.into_iter().filter_map(|bytes| Multiaddr::try_from(bytes).ok());
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(parsed.filter(usable).collect())
            .extend_addresses_through_behaviour()
            .build();
        self.dialing.entry(peer).or_default().push(end);
        self.actions.push_back(ToSwarm::Dial { opts });
    }
}

/// Whether an address that another node named may be dialled: an IP address, never a name that would have to be looked up.
fn is_direct(address: &Multiaddr, allows_private: bool) -> bool {
    let ip: Option<IpAddr> = address.iter().next().and_then(|first| match first {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    });
    let is_relayed = address.iter().any(|part| matches!(part, Protocol::P2pCircuit));
    !is_relayed && ip.is_some_and(|ip| allows_private || is_global(ip))
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.hub.stop();
        // A thread that panicked has said so itself.
        let _ended = self.engine.take().map(JoinHandle::join);
    }
}

/// The peer's id does not embed an Ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("the peer's key is not an Ed25519 key")]
struct NotAFogNode;

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(new) => {
                self.connections.entry(new.peer_id).or_default().push(new.connection_id);
                for end in self.dialing.remove(&new.peer_id).unwrap_or_default() {
                    self.open_link(new.peer_id, end);
                }
            }
            FromSwarm::ConnectionClosed(old) => {
                if let Some(connections) = self.connections.get_mut(&old.peer_id) {
                    connections.retain(|connection| *connection != old.connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&old.peer_id);
                    }
                }
            }
            // While another dial to the peer is under way, that one decides.
            FromSwarm::DialFailure(failure) if !matches!(failure.error, DialError::DialPeerConditionFalse(_)) => {
                failure.peer_id.and_then(|peer| self.dialing.remove(&peer));
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Poll::Ready(action);
            }
            let Poll::Ready(told) = self.hub.poll_told(cx) else { return Poll::Pending };
            match told {
                None => return Poll::Ready(ToSwarm::GenerateEvent(Event::Stopped)),
                Some(Told::Event(event)) => return Poll::Ready(ToSwarm::GenerateEvent(event)),
                Some(Told::Link { node, addresses, is_hint, end }) => self.link(node, addresses, is_hint, end),
            }
        }
    }
}
