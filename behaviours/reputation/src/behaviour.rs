//! Reputation in a swarm: the pure parts, a clock, and libp2p's request-response. Nothing is decided here.
#![expect(clippy::disallowed_methods, reason = "this is where the core's clock is read")]

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use fog_base::{NodeId, Now, UnixMillis};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    request_response::{self, Event as Exchanged, Message, ProtocolSupport},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};
use serde_bytes::ByteBuf;
use tokio::time::{Sleep, sleep_until};

use crate::{
    codec::Codec,
    core::{
        config::Config,
        evidence::{Observation, Outcome},
        exchange::{Acceptance, Exchange, Output as Asked},
        reject::Reject,
        reputation::{Output, Reputation},
    },
    event::{Change, Event},
    wire::{Contradiction, Request, Response},
};

/// The name of the protocol and of the gossip topic, and its version.
const NAME: (&str, u32) = ("reputation", 1);
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_STREAMS: usize = 4;
/// The most rows in one event.
const MAX_CHANGES: usize = 256;

/// Reputation as a libp2p behaviour.
pub struct Behaviour {
    inner: request_response::Behaviour<Codec>,
    topic: String,
    reputation: Reputation,
    exchange: Exchange,
    timer: Pin<Box<Sleep>>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour")
            .field("topic", &self.topic)
            .field("sizes", &self.reputation.sizes())
            .finish_non_exhaustive()
    }
}

fn clock() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix: UnixMillis(0).plus(unix) }
}

fn node(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).ok()
}

impl Behaviour {
    /// Knows nobody. `seed` is random and secret. Must be made within a tokio runtime.
    pub fn new(config: Config, identity: Arc<SigningKey>, seed: [u8; 32]) -> Self {
        let (name, now) = (config.network.protocol(NAME.0, NAME.1), clock());
        // The name starts with a slash, which is all that libp2p asks for.
        let protocol = StreamProtocol::try_from_owned(name.clone()).unwrap_or(StreamProtocol::new("/fog/reputation/1"));
        let limits =
            request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(MAX_STREAMS);
        Self {
            inner: request_response::Behaviour::with_codec(Codec, [(protocol, ProtocolSupport::Full)], limits),
            topic: name,
            reputation: Reputation::new(config, identity, seed, now),
            exchange: Exchange::new(*blake3::hash(&seed).as_bytes(), now),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// The gossip topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What is known of everybody.
    pub fn reputation(&self) -> &Reputation {
        &self.reputation
    }

    /// What came and went between peers.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Takes a row out of the store.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Reject> {
        let now = clock();
        let proof = self.reputation.restore(key, value, now)?;
        if let Some(proof) = proof.and_then(|node| self.reputation.proof(node)) {
            self.exchange.restore_proof(proof, &self.reputation, now);
        }
        Ok(())
    }

    /// From now on these are the relays: others' proofs against them count.
    pub fn set_relays(&mut self, relays: impl IntoIterator<Item = NodeId>) {
        self.reputation.set_relays(relays.into_iter().collect());
    }

    /// What [`Event::Save`] named under `key` could not be stored: it comes again.
    pub fn handle_not_saved(&mut self, key: &[u8]) {
        self.reputation.handle_not_saved(key);
    }

    /// Takes a piece of this node's own experience.
    pub fn handle_observation(&mut self, observation: Observation) -> Result<(), Reject> {
        self.reputation.handle_observation(observation, clock())
    }

    /// Takes the fate of something that went over these relays, with the most that it says of each.
    pub fn handle_path(&mut self, hops: &[NodeId], outcome: Outcome, weight: f64) {
        self.reputation.handle_path(hops, outcome, weight, clock());
    }

    /// Takes a receipt that this node signed as client.
    pub fn handle_receipt(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        self.reputation.handle_receipt(bytes, clock())
    }

    /// Takes two records of this node's own protocols that contradict each other, and tells others.
    pub fn handle_contradiction(&mut self, first: &[u8], second: &[u8]) -> Result<(), Reject> {
        let pair = Contradiction { first: ByteBuf::from(first), second: ByteBuf::from(second) };
        let proof = pair.encode().map_err(|_| Reject::Malformed)?;
        self.exchange.handle_own_proof(proof, &mut self.reputation, clock())
    }

    /// Takes a gossip message that `from` forwarded, and says what to do with it.
    pub fn handle_gossip(&mut self, from: &PeerId, bytes: &[u8]) -> Acceptance {
        let take = |from| self.exchange.handle_gossip(from, bytes, &mut self.reputation, clock());
        node(from).map_or(Acceptance::Ignore, take)
    }

    /// What changed since it was last saved: for a node that stops.
    pub fn unsaved(&mut self) -> Vec<Change> {
        self.reputation.save();
        std::iter::from_fn(|| self.reputation.poll_output()).filter_map(|output| change(output).ok()).collect()
    }

    fn handle_exchanged(&mut self, event: Exchanged<Request, Response>, now: Now) {
        match event {
            Exchanged::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let Some(peer) = node(&peer) else { return };
                let response = self.exchange.handle_request(peer, &request, &mut self.reputation, now);
                if self.inner.send_response(channel, response).is_err() {
                    tracing::debug!(%peer, "the peer left before its answer");
                }
            }
            Exchanged::Message { peer, message: Message::Response { response, .. }, .. } => {
                let Some(peer) = node(&peer) else { return };
                self.exchange.handle_response(peer, response, &mut self.reputation, now);
            }
            Exchanged::OutboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "the peer does not tell what it has heard");
                if let Some(peer) = node(&peer) {
                    self.exchange.handle_failure(peer);
                }
            }
            Exchanged::InboundFailure { peer, error, .. } => tracing::debug!(%peer, %error, "a request failed"),
            Exchanged::ResponseSent { .. } => {}
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.reputation.handle_timeout(now);
        self.exchange.handle_timeout(&self.reputation, now);
    }

    fn poll_core(&mut self, now: Now) -> Option<Event> {
        let mut changes = Vec::new();
        while changes.len() < MAX_CHANGES {
            match self.reputation.poll_output().map(change) {
                Some(Ok(change)) => changes.push(change),
                // The core hands out everything else before changes, so none of those is left behind here.
                Some(Err(Output::Disconnect(peer))) => return Some(Event::Disconnect(peer)),
                Some(Err(Output::Ban { peer, until, met })) => return Some(Event::Ban { peer, until, met }),
                Some(Err(Output::Publish(report))) => self.exchange.handle_own_report(report, &self.reputation, now),
                Some(Err(Output::Persist { .. } | Output::Forget { .. })) => {}
                None => break,
            }
        }
        if !changes.is_empty() {
            return Some(Event::Save(changes));
        }
        while let Some(output) = self.exchange.poll_output() {
            match output {
                Asked::Send { to, request } => match PeerId::from_bytes(&to.to_peer_id_bytes()) {
                    Ok(peer) => drop(self.inner.send_request(&peer, request)),
                    Err(_) => self.exchange.handle_failure(to),
                },
                Asked::Publish(bytes) => return Some(Event::Publish(bytes)),
            }
        }
        None
    }

    fn next_timeout(&self, now: Now) -> Option<Instant> {
        [self.reputation.poll_timeout(now), self.exchange.poll_timeout()].into_iter().flatten().min()
    }
}

fn change(output: Output) -> Result<Change, Output> {
    match output {
        Output::Persist { key, value } => Ok(Change { key, value: Some(value) }),
        Output::Forget { key } => Ok(Change { key, value: None }),
        other => Err(other),
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <request_response::Behaviour<Codec> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, remote, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(established) if established.other_established == 0 => {
                if let Some(peer) = node(&established.peer_id) {
                    self.exchange.handle_connected(peer, &self.reputation, clock());
                }
            }
            FromSwarm::ConnectionClosed(closed) if closed.remaining_established == 0 => {
                if let Some(peer) = node(&closed.peer_id) {
                    self.exchange.handle_disconnected(peer);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            let now = clock();
            if let Some(event) = self.poll_core(now) {
                return Poll::Ready(ToSwarm::GenerateEvent(event));
            }
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    self.handle_exchanged(event, now);
                    continue;
                }
                Poll::Ready(other) => return Poll::Ready(other.map_out(|_| Event::Save(Vec::new()))),
                Poll::Pending => {}
            }
            match self.next_timeout(now) {
                Some(due) if due <= now.mono => self.handle_timeout(now),
                Some(due) => {
                    self.timer.set(sleep_until(due.into()));
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                None => return Poll::Pending,
            }
        }
    }
}
