//! Kademlia's place in the swarm: what comes goes to the parts that decide, and what they want is done.

use std::task::{Context, Poll};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    kad,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use tokio::time::sleep_until;

use super::{Felt, Inner, Kad, KadEvent, Link, clock, host, node, plain};
use crate::core::address::scope;
use fog_base::{DropReason, NodeId};

impl NetworkBehaviour for Kad {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = KadEvent;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    /// What others say of where a peer is, without what lies in a narrower network than ours. Where a relay is that has signed where
    /// it is, nobody else says: its descriptor's addresses come from the directory.
    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let store = self.inner.store_mut();
        if peer.as_ref().and_then(node).is_some_and(|relay| store.newest(relay).is_some()) {
            return Ok(Vec::new());
        }
        let mut found = self.inner.handle_pending_outbound_connection(id, peer, addresses, role)?;
        let floor = self.floor();
        found.retain(|address| {
            let scope = host(address).and_then(scope);
            scope.is_none() || floor.is_none_or(|floor| scope >= Some(floor))
        });
        Ok(found)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if let Some(node) = self.feelers.remove(&id) {
            // The peer has proved its identity there. The connection ends before anything else learns of it.
            self.felt.insert(id);
            if let Some(address) = plain(remote) {
                self.routing.handle_dialled(node, address, clock().mono);
            }
            return Err(ConnectionDenied::new(Felt));
        }
        self.inner.handle_established_outbound_connection(id, peer, remote, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::DialFailure(failure) => return self.on_dial_failure(failure),
            FromSwarm::ConnectionEstablished(established) => {
                let remote = established.endpoint.get_remote_address();
                let peer = established.peer_id;
                self.links.insert(established.connection_id, Link { peer, host: host(remote) });
                if let Some(node) = node(&peer) {
                    self.routing.handle_connected(node);
                    if let (ConnectedPoint::Dialer { .. }, Some(address)) = (established.endpoint, plain(remote)) {
                        self.routing.handle_dialled(node, address, clock().mono);
                    }
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.links.remove(&closed.connection_id);
                if let Some(node) = node(&closed.peer_id).filter(|_| closed.remaining_established == 0) {
                    self.routing.handle_disconnected(node, clock().mono);
                    self.throttle.handle_disconnected(node);
                }
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<KadEvent, THandlerInEvent<Self>>> {
        loop {
            let now = clock();
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(event));
            }
            if let Some(peer) = self.throttle.poll_flooding() {
                self.drops.count(DropReason::RateLimited);
                return Poll::Ready(ToSwarm::GenerateEvent(KadEvent::Flooding { peer }));
            }
            if let Some((peer_id, handler, event)) = self.throttle.poll_output(now.mono) {
                return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
            }
            if let Some(output) = self.routing.poll_output() {
                match self.handle_routed(output) {
                    Some(opts) => return Poll::Ready(ToSwarm::Dial { opts }),
                    None => continue,
                }
            }
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(kad::Event::InboundRequest { request })) => {
                    self.handle_request(request, now);
                }
                Poll::Ready(ToSwarm::GenerateEvent(kad::Event::OutboundQueryProgressed {
                    id, result, step, ..
                })) => {
                    self.handle_result(id, result, step.last, now);
                }
                Poll::Ready(ToSwarm::GenerateEvent(_)) => {}
                // What goes to one connection is the answer to a request; requests of our queries go to any.
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: handler @ NotifyHandler::One(_), event }) => {
                    let Some(from) = node(&peer_id) else { continue };
                    match self.throttle.offer(from, (peer_id, handler, event), now.mono) {
                        Ok(Some((peer_id, handler, event))) => {
                            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
                        }
                        Ok(None) => {}
                        Err(_dropped) => self.drops.count(DropReason::QueueFull),
                    }
                }
                Poll::Ready(ToSwarm::Dial { opts }) => {
                    if self.allow_dial(&opts, now) {
                        return Poll::Ready(ToSwarm::Dial { opts });
                    }
                }
                // Nothing else carries an event.
                Poll::Ready(other) => {
                    return Poll::Ready(other.map_out(|_| KadEvent::Flooding { peer: NodeId([0; 32]) }));
                }
                Poll::Pending => match self.next_timeout(now) {
                    Some(due) if due <= now.mono => self.handle_timeout(now),
                    Some(due) => {
                        self.timer.set(sleep_until(due.into()));
                        if self.timer.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                    }
                    None => return Poll::Pending,
                },
            }
        }
    }
}
