//! The libp2p behaviour: connections on one side, the engine's requests and events on the other. No rules of the protocol.

mod calls;

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc::TrySendError},
    task::{Context, Poll},
};

use fog_base::NetworkId;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandlerSelect, ConnectionId, DialFailure, FromSwarm,
        NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use crate::{
    core::{VERSIONS, endpoint::Output},
    event::Event,
    handler::{Handler, Report, Shared},
    ids::{node_id, peer_id},
    link_protocol::LinkProtocol,
    mailbox_exchange::{Inner, MailboxExchange, Told},
    peers::{Relays, is_unreachable},
    runtime::{
        engine::{self, Input, Request},
        links::Links,
        now,
        start::{Config, Runtime, StartError},
        stats::Stats,
    },
};

/// While so many requests wait for the engine, peers' requests are refused. Our own are few, and none of them may be lost.
const BUSY: usize = 256;

/// The mixnet in a swarm.
pub struct Behaviour {
    runtime: Runtime,
    shared: Shared,
    relays: Relays,
    mailbox: MailboxExchange,
    pending: VecDeque<Input>,
    stopped: bool,
    actions: VecDeque<ToSwarm<Event, THandlerInEvent<Self>>>,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}

impl Behaviour {
    /// Starts the mixnet's threads.
    pub fn new(config: Config) -> Result<Self, StartError> {
        let network: NetworkId = config.endpoint.network;
        let relays = Relays::new(&config);
        let runtime = Runtime::start(config)?;
        let protocol = |name| StreamProtocol::try_from_owned(network.protocol(name, 1));
        // The names are made of ASCII letters and begin with a slash.
        let shared = Shared {
            protocol: LinkProtocol::new(&network, &VERSIONS),
            ingress: Arc::clone(&runtime.ingress),
            buffers: Arc::clone(&runtime.buffers),
            stats: Arc::clone(&runtime.stats),
        };
        Ok(Self {
            runtime,
            shared,
            relays,
            mailbox: MailboxExchange::new(protocol("mailbox").unwrap_or(StreamProtocol::new("/fog/mailbox/1"))),
            pending: VecDeque::new(),
            stopped: false,
            actions: VecDeque::new(),
        })
    }

    /// Counters, and how the engine stands.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.runtime.stats)
    }

    /// The queues to connected peers: benches load them with packets of their own.
    pub fn links(&self) -> Arc<Links> {
        Arc::clone(&self.runtime.links)
    }

    /// Packets that wait for a worker, and how many may.
    pub fn ingress_usage(&self) -> (usize, usize) {
        self.runtime.ingress.usage()
    }

    fn request(&mut self, request: Request) {
        self.pending.push_back(Input::Request(request));
        self.flush();
        self.mailbox.busy = self.pending.len() >= BUSY;
    }

    /// Hands requests to the engine in order, as long as it has room. True if some wait.
    fn flush(&mut self) -> bool {
        while let Some(input) = self.pending.pop_front() {
            match self.runtime.engine.try_send(input) {
                Ok(()) => {}
                Err(TrySendError::Full(input)) => {
                    self.pending.push_front(input);
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        false
    }

    fn handle_engine(&mut self, event: engine::Event) {
        let event = match event {
            engine::Event::Dial(peer) => {
                if let Some(peer) = peer_id(peer) {
                    let opts = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
                    self.actions.push_back(ToSwarm::Dial { opts });
                }
                return;
            }
            engine::Event::Push(to, slot, packets) => {
                return self.mailbox.push(to, slot, packets);
            }
            engine::Event::Endpoint(Output::Claim { relay, record }) => {
                return self.mailbox.claim(relay, record);
            }
            engine::Event::Endpoint(Output::Done { relay, slot, ids }) => {
                return self.mailbox.done(relay, slot, ids);
            }
            // The engine carries packets to their links itself.
            engine::Event::Endpoint(Output::Send { .. }) => return,
            engine::Event::Endpoint(Output::Deliver(delivery)) => Event::Deliver(delivery),
            engine::Event::Endpoint(Output::Sent(news)) => Event::Sent(news),
            engine::Event::Endpoint(Output::Answer { application, message, data }) => {
                Event::Answer(application, message, data)
            }
            engine::Event::Endpoint(Output::Pong { ping, rtt }) => Event::Pong(ping, rtt),
            engine::Event::Endpoint(Output::Loop(end)) => Event::Loop(end),
            engine::Event::Endpoint(Output::Mailboxes(relays)) => Event::Mailboxes(relays),
            engine::Event::SendRefused(message, why) => Event::SendRefused(message, why),
            engine::Event::PingRefused(ping, why) => Event::PingRefused(ping, why),
            engine::Event::Persist(token, writes) => Event::Persist(token, writes),
            engine::Event::Keys(keys) => Event::Keys(keys),
        };
        self.actions.push_back(ToSwarm::GenerateEvent(event));
    }

    fn handler(&mut self, peer: &PeerId, connection: ConnectionId) -> Result<Handler, ConnectionDenied> {
        let node = node_id(peer).ok_or_else(|| ConnectionDenied::new(NotAFogNode))?;
        let link = self.runtime.links.connected(node, connection, now().mono);
        Ok(Handler::new(self.shared.clone(), link, connection))
    }

    fn closed(&mut self, closed: &ConnectionClosed<'_>) {
        let Some(node) = node_id(&closed.peer_id) else { return };
        if let Some(lost) = self.runtime.links.disconnected(node, closed.connection_id) {
            self.runtime.stats.drops.add(fog_base::DropReason::NoRoute, lost as u64);
            self.request(Request::Disconnected(node));
        }
    }
}

/// The peer's id does not embed an Ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("the peer's key is not an Ed25519 key")]
struct NotAFogNode;

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = ConnectionHandlerSelect<Handler, THandler<Inner>>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let mailbox = self.mailbox.inner.handle_established_inbound_connection(id, peer, local, remote)?;
        Ok(libp2p::swarm::ConnectionHandler::select(self.handler(&peer, id)?, mailbox))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let mailbox = self.mailbox.inner.handle_established_outbound_connection(id, peer, addr, role, port)?;
        Ok(libp2p::swarm::ConnectionHandler::select(self.handler(&peer, id)?, mailbox))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.mailbox.inner.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                if let Some(node) = node_id(&established.peer_id).filter(|_| established.other_established == 0) {
                    self.request(Request::Connected(node));
                }
            }
            FromSwarm::ConnectionClosed(closed) => self.closed(&closed),
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, .. }) if is_unreachable(error) => {
                if let Some(node) = node_id(&peer) {
                    self.request(Request::Unreachable(node));
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            either::Either::Left(report) => {
                let Some(node) = node_id(&peer) else { return };
                match report {
                    Report::Flooding => self.actions.extend(self.relays.flooded(peer, node)),
                    Report::Unsupported => self.request(Request::Unreachable(node)),
                }
            }
            either::Either::Right(event) => {
                self.mailbox.inner.on_connection_handler_event(peer, connection, event);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Poll::Ready(action);
            }
            match self.runtime.events.poll_recv(cx) {
                Poll::Ready(Some(event)) => {
                    self.handle_engine(event);
                    continue;
                }
                Poll::Ready(None) if !self.stopped => {
                    self.stopped = true;
                    return Poll::Ready(ToSwarm::GenerateEvent(Event::Stopped));
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            match self.mailbox.poll(cx) {
                Poll::Ready(Told::Request(request)) => self.request(request),
                Poll::Ready(Told::Swarm(action)) => {
                    self.actions.push_back(action.map_in(either::Either::Right).map_out(|never| match never {}));
                }
                Poll::Pending => {
                    // The engine has been full; it empties its queue in microseconds.
                    if self.flush() {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}
