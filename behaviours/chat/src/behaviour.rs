//! Chat in a swarm: the engine, a clock, and libp2p's request-response. Nothing is decided here; gossip, mixnet, store and dialling are
//! the node's, which is told by [`Event`].
#![expect(clippy::disallowed_methods, reason = "this is where the core's clock is read")]

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fog_base::{NetworkId, NodeId, Now, UnixMillis};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    request_response::{self, Event as Exchanged, Message, OutboundRequestId, ProtocolSupport},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};
use tokio::time::{Sleep, sleep_until};

use crate::{
    codec::Codec,
    core::{
        engine::{self, Chat, MixAddress, MixProgress, Output, Row, Validation},
        reject::Reject,
    },
};

/// The name of the protocol and its version.
const NAME: (&str, u32) = ("chat", 1);
const TIMEOUT: Duration = Duration::from_secs(15);
/// Requests of one peer that are answered at a time.
const MAX_STREAMS: usize = 16;

/// What chat asks of the node, or tells it.
#[derive(Debug)]
pub enum Event {
    /// Write the rows as one batch, then call [`Behaviour::handle_persisted`].
    Persist {
        /// The number of the batch.
        number: u64,
        /// The rows.
        rows: Vec<Row>,
        /// Whether they must be on the disk before the call.
        is_synced: bool,
    },
    /// Take part in the topic of a bucket, or no longer.
    Subscribe(u8, bool),
    /// Give an envelope to gossip, then call [`Behaviour::handle_published`].
    Publish {
        /// Its name in that call.
        handle: u64,
        /// Its topic.
        bucket: u8,
        /// The envelope.
        bytes: Vec<u8>,
    },
    /// Send through the mixnet, and tell by [`Behaviour::handle_mix_progress`] how far it is.
    Mix {
        /// Its name in that call.
        handle: u64,
        /// Where to.
        to: MixAddress,
        /// What.
        bytes: Vec<u8>,
    },
    /// A connection is wanted.
    Dial(NodeId),
    /// A peer sent what nobody honest sends.
    Blame(NodeId, Reject),
    /// Something that a person should see.
    Chat(engine::Event),
}

/// Chat as a libp2p behaviour.
pub struct Behaviour {
    inner: request_response::Behaviour<Codec>,
    chat: Chat,
    asked: BTreeMap<OutboundRequestId, (NodeId, u64)>,
    timer: Pin<Box<Sleep>>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour").field("counts", &self.chat.counts()).finish_non_exhaustive()
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
    /// Around an engine. Must be made within a tokio runtime.
    pub fn new(network: &NetworkId, chat: Chat) -> Self {
        // The name starts with a slash, which is all that libp2p asks for.
        let protocol = StreamProtocol::try_from_owned(network.protocol(NAME.0, NAME.1))
            .unwrap_or(StreamProtocol::new("/fog/chat/1"));
        let limits =
            request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(MAX_STREAMS);
        Self {
            inner: request_response::Behaviour::with_codec(Codec, [(protocol, ProtocolSupport::Full)], limits),
            chat,
            asked: BTreeMap::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// Another engine from now on; what the old one asked for is forgotten.
    pub fn replace(&mut self, chat: Chat) {
        self.chat = chat;
        self.asked.clear();
    }

    /// The engine.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// The engine, for what a person does.
    pub fn chat_mut(&mut self) -> &mut Chat {
        &mut self.chat
    }

    /// A node is connected; `is_lan` if one of its connections is on the local network.
    pub fn handle_connected(&mut self, node: NodeId, is_lan: bool) {
        self.chat.handle_connected(node, is_lan, clock());
    }

    /// It is not connected any more.
    pub fn handle_disconnected(&mut self, node: NodeId) {
        self.chat.handle_disconnected(node, clock());
    }

    /// Takes envelopes with whoever forwarded them, and says what to do with each.
    pub fn handle_gossips(&mut self, came: &[(PeerId, &[u8])]) -> Vec<Validation> {
        let named: Vec<_> = came.iter().map(|(peer, bytes)| node(peer).map(|from| (from, *bytes))).collect();
        let taken: Vec<_> = named.iter().copied().flatten().collect();
        let mut verdicts = self.chat.handle_gossips(&taken, clock()).into_iter();
        named.iter().map(|named| named.and_then(|_| verdicts.next()).unwrap_or(Validation::Ignore)).collect()
    }

    /// Gossip took an envelope, or nobody listens.
    pub fn handle_published(&mut self, handle: u64, ok: bool) {
        self.chat.handle_published(handle, ok, clock());
    }

    /// Takes what came through the mixnet.
    pub fn handle_mix(&mut self, bytes: &[u8]) {
        self.chat.handle_mix(bytes, clock());
    }

    /// How far something is in the mixnet.
    pub fn handle_mix_progress(&mut self, handle: u64, progress: MixProgress) {
        self.chat.handle_mix_progress(handle, progress, clock());
    }

    /// Whether the mixnet can be used.
    pub fn handle_mix_ready(&mut self, is_ready: bool) {
        self.chat.handle_mix_ready(is_ready, clock());
    }

    /// The store has answered.
    pub fn handle_persisted(&mut self, number: u64, ok: bool) {
        self.chat.handle_persisted(number, ok, clock());
    }

    fn handle_exchanged(&mut self, event: Exchanged<Vec<u8>, Vec<u8>>, now: Now) -> Option<Event> {
        match event {
            Exchanged::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let from = node(&peer)?;
                // A request without an answer ends the stream, which tells the peer enough.
                match self.chat.handle_request(from, &request, now) {
                    Ok(response) => drop(self.inner.send_response(channel, response)),
                    Err(reject) => {
                        tracing::debug!(%peer, %reject, "a request is refused");
                        return reject.is_misbehaviour().then_some(Event::Blame(from, reject));
                    }
                }
            }
            Exchanged::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some((node, request)) = self.asked.remove(&request_id) {
                    self.chat.handle_response(node, request, Ok(&response), now);
                }
            }
            Exchanged::OutboundFailure { request_id, peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request failed");
                if let Some((node, request)) = self.asked.remove(&request_id) {
                    self.chat.handle_response(node, request, Err(()), now);
                }
            }
            Exchanged::InboundFailure { peer, error, .. } => tracing::debug!(%peer, %error, "an answer failed"),
            Exchanged::ResponseSent { .. } => {}
        }
        None
    }

    fn poll_core(&mut self, now: Now) -> Option<Event> {
        loop {
            return Some(match self.chat.poll_output()? {
                Output::Request { to, request, bytes } => {
                    match PeerId::from_bytes(&to.to_peer_id_bytes()) {
                        Ok(peer) => drop(self.asked.insert(self.inner.send_request(&peer, bytes), (to, request))),
                        Err(_) => self.chat.handle_response(to, request, Err(()), now),
                    }
                    continue;
                }
                Output::Persist { number, rows, is_synced } => Event::Persist { number, rows, is_synced },
                Output::Subscribe(bucket) => Event::Subscribe(bucket, true),
                Output::Unsubscribe(bucket) => Event::Subscribe(bucket, false),
                Output::Publish { handle, bucket, bytes } => Event::Publish { handle, bucket, bytes },
                Output::Mix { handle, to, bytes } => Event::Mix { handle, to, bytes },
                Output::Dial(node) => Event::Dial(node),
                Output::Blame { node, reject } => Event::Blame(node, reject),
                Output::Event(event) => Event::Chat(event),
            });
        }
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
                Poll::Ready(ToSwarm::GenerateEvent(event)) => match self.handle_exchanged(event, now) {
                    Some(event) => return Poll::Ready(ToSwarm::GenerateEvent(event)),
                    None => continue,
                },
                // Every event of request-response was taken above.
                Poll::Ready(other) => return Poll::Ready(other.map_out(|_| Event::Subscribe(0, false))),
                Poll::Pending => {}
            }
            match self.chat.poll_timeout() {
                Some(due) if due <= now.mono => self.chat.handle_timeout(now),
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
