//! Bare substreams of one protocol: what a hostile peer and the rival of the bench use.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

/// A stream, and whether the peer opened it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    /// Whether the peer opened it.
    pub(crate) is_inbound: bool,
}

/// Opens and takes streams.
pub(crate) struct Raw {
    protocol: StreamProtocol,
    actions: VecDeque<ToSwarm<Opened, ()>>,
    waker: Option<Waker>,
}

impl Raw {
    pub(crate) fn new(protocol: String) -> Self {
        Self { protocol: StreamProtocol::try_from_owned(protocol).unwrap(), actions: VecDeque::new(), waker: None }
    }

    /// Opens a stream to a connected peer.
    pub(crate) fn open(&mut self, peer_id: PeerId) {
        self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event: () });
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn handler(&self) -> Handler {
        Handler { protocol: self.protocol.clone(), opens: 0, opened: VecDeque::new() }
    }
}

pub(crate) struct Handler {
    protocol: StreamProtocol,
    opens: usize,
    opened: VecDeque<Opened>,
}

type Event = ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, (), Opened>;

impl ConnectionHandler for Handler {
    type FromBehaviour = ();
    type ToBehaviour = Opened;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, (): ()) {
        self.opens += 1;
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.opened.push_back(Opened { stream, is_inbound: true });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                self.opened.push_back(Opened { stream, is_inbound: false });
            }
            _ => {}
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        if self.opens > 0 {
            self.opens -= 1;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        let opened = self.opened.pop_front().map(ConnectionHandlerEvent::NotifyBehaviour);
        opened.map_or(Poll::Pending, Poll::Ready)
    }
}

impl NetworkBehaviour for Raw {
    type ConnectionHandler = Handler;
    type ToSwarm = Opened;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        self.actions.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Opened, THandlerInEvent<Self>>> {
        self.waker = Some(cx.waker().clone());
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
