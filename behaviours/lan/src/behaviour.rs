//! The beacon in a swarm: where the node listens is told to its neighbours, and theirs to the node.

#![expect(clippy::disallowed_methods, reason = "clocks are read here")]

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use fog_base::{NodeId, Now, UnixMillis};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint as Role, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, ListenAddresses, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};
use tokio::time::{Sleep, sleep_until};

use crate::{
    core::{
        lan::{Config, Lan, Output},
        local::{Endpoint, Ports},
    },
    sockets::{self, Sockets},
};

/// Packets that are read before others have their turn.
const MAX_AT_ONCE: usize = 32;

/// What happened on the LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A neighbour is new, was restarted, or is somewhere else.
    Found {
        /// Who.
        peer: PeerId,
        /// All addresses that it told, each on a network of this host.
        addresses: Vec<Multiaddr>,
    },
    /// Nothing was heard of it for long.
    Lost {
        /// Who.
        peer: PeerId,
    },
}

/// The beacon as a libp2p behaviour.
#[derive(Debug)]
pub struct Behaviour {
    lan: Lan,
    sockets: Sockets,
    listening: ListenAddresses,
    has_moved: bool,
    events: VecDeque<Event>,
    timer: Pin<Box<Sleep>>,
}

fn clock() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix: UnixMillis(0).plus(unix) }
}

fn node(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).ok()
}

fn peer(node: NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.to_peer_id_bytes()).ok()
}

/// As libp2p dials it. A link-local address has its zone in front.
fn multiaddrs(endpoint: &Endpoint) -> impl Iterator<Item = Multiaddr> + use<> {
    let mut base = Multiaddr::empty();
    if endpoint.at.zone() != 0 {
        base.push(Protocol::Ip6zone(endpoint.at.zone().to_string().into()));
    }
    base.push(endpoint.at.ip().into());
    let Ports { tcp, quic } = endpoint.ports;
    let quic = (quic != 0).then(|| base.clone().with(Protocol::Udp(quic)).with(Protocol::QuicV1));
    let tcp = (tcp != 0).then(|| base.with(Protocol::Tcp(tcp)));
    tcp.into_iter().chain(quic)
}

/// Where the node listens, by IP address; of several ports of one kind the first.
fn ports<'a>(listening: impl Iterator<Item = &'a Multiaddr>) -> BTreeMap<IpAddr, Ports> {
    let mut by_ip: BTreeMap<IpAddr, Ports> = BTreeMap::new();
    for address in listening {
        let parts: Vec<_> = address.iter().collect();
        let (ip, rest) = match parts.as_slice() {
            [Protocol::Ip4(ip), rest @ ..] => (IpAddr::from(*ip), rest),
            [Protocol::Ip6(ip), rest @ ..] => (IpAddr::from(*ip), rest),
            _ => continue,
        };
        let of = by_ip.entry(ip).or_default();
        match rest {
            [Protocol::Tcp(port), Protocol::P2p(_)] | [Protocol::Tcp(port)] if of.tcp == 0 => of.tcp = *port,
            [Protocol::Udp(port), Protocol::QuicV1, Protocol::P2p(_)] | [Protocol::Udp(port), Protocol::QuicV1]
                if of.quic == 0 =>
            {
                of.quic = *port;
            }
            _ => {}
        }
    }
    by_ip
}

impl Behaviour {
    /// Knows nobody, and tells nothing before the node listens. `seed` is random and secret. Must be made within a tokio runtime.
    pub fn new(config: Config, identity: Arc<SigningKey>, seed: [u8; 32]) -> Self {
        Self {
            lan: Lan::new(config, identity, seed, clock()),
            sockets: Sockets::new(config.port),
            listening: ListenAddresses::default(),
            has_moved: true,
            events: VecDeque::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// What is known of the neighbours, and what was counted.
    pub fn lan(&self) -> &Lan {
        &self.lan
    }

    /// Looks at the interfaces: before each beacon, and when the node listens elsewhere.
    fn look(&mut self, now: Now) {
        match sockets::locals(&ports(self.listening.iter())) {
            Ok(locals) => self.lan.set_locals(locals, now),
            Err(error) => tracing::debug!(%error, "the system does not tell of its interfaces"),
        }
        self.sockets.set_locals(self.lan.locals());
    }

    fn poll_core(&mut self) {
        while let Some(output) = self.lan.poll_output() {
            match output {
                Output::Send { from, bytes } => self.sockets.send(from, &bytes),
                Output::Found { node, endpoints } => {
                    let Some(peer) = peer(node) else { continue };
                    let addresses = endpoints.iter().flat_map(multiaddrs).collect();
                    self.events.push_back(Event::Found { peer, addresses });
                }
                Output::Lost(node) => self.events.extend(peer(node).map(|peer| Event::Lost { peer })),
            }
        }
    }

    /// Reads what came; whether there may be more.
    fn receive(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        for _ in 0..MAX_AT_ONCE {
            let Poll::Ready((source, packet)) = self.sockets.poll_receive(cx) else { return false };
            if let Err(reject) = self.lan.handle_packet(&packet, source, now) {
                tracing::trace!(%reject, "a packet was not believed");
            }
        }
        true
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Role,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let endpoints = peer.as_ref().and_then(node).map(|node| self.lan.endpoints(node)).unwrap_or_default();
        Ok(endpoints.iter().flat_map(multiaddrs).collect())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Role,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        let never: Infallible = event;
        match never {}
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.has_moved |= self.listening.on_swarm_event(&event);
        match event {
            FromSwarm::ConnectionEstablished(made) if made.other_established == 0 => {
                if let Some(node) = node(&made.peer_id) {
                    self.lan.handle_connected(node, clock());
                }
            }
            FromSwarm::ConnectionClosed(closed) if closed.remaining_established == 0 => {
                if let Some(node) = node(&closed.peer_id) {
                    self.lan.handle_disconnected(node, clock());
                }
            }
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        let now = clock();
        let is_due = self.lan.poll_timeout() <= now.mono;
        if is_due || std::mem::take(&mut self.has_moved) {
            self.look(now);
            self.lan.handle_timeout(now);
            self.poll_core();
        }
        if self.events.is_empty() && self.receive(now, cx) {
            cx.waker().wake_by_ref();
        }
        self.poll_core();
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(event));
        }
        self.timer.set(sleep_until(self.lan.poll_timeout().into()));
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
