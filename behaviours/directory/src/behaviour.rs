//! The directory in a swarm: the pure parts, a clock, and libp2p's request-response. Nothing is decided here.
#![expect(clippy::disallowed_methods, reason = "this is where the core's clock is read")]

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fog_base::{DropCounters, Epoch, EpochSchedule, NodeId, Now, UnixMillis};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    request_response::{self, ProtocolSupport},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};
use tokio::time::{Sleep, sleep_until};

use crate::{
    codec::Codec,
    core::{
        council::Council,
        descriptor::{Facts, Reject},
        exchange::{Exchange, Output as Asked},
        publisher::{Publisher, Signer},
        relay_set::{Acceptance, Config, Output, RelaySet, Source, Verdict},
        seating::OpenSeating,
        snapshot::Snapshot,
    },
    event::Event,
};

/// The name of the protocol, and its version.
const NAME: (&str, u32) = ("directory", 1);
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_STREAMS: usize = 8;

/// The directory as a libp2p behaviour.
pub struct Behaviour {
    pub(crate) inner: request_response::Behaviour<Codec>,
    pub(crate) schedule: EpochSchedule,
    pub(crate) set: RelaySet,
    pub(crate) exchange: Exchange,
    pub(crate) publisher: Publisher,
    /// Of a network whose file names relays; the others are open.
    pub(crate) council: Option<Council>,
    timer: Pin<Box<Sleep>>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour").field("relays", &self.set.len()).finish_non_exhaustive()
    }
}

pub(crate) fn clock() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix: UnixMillis(0).plus(unix) }
}

pub(crate) fn node(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).ok()
}

impl Behaviour {
    /// An empty directory. `seed` is fresh randomness. Must be made within a tokio runtime.
    pub fn new(config: Config, signer: Signer, council: Option<Council>, seed: [u8; 32]) -> Self {
        let (network, schedule, now) = (config.network, config.schedule, clock());
        let name = network.protocol(NAME.0, NAME.1);
        // The name starts with a slash, which is all that libp2p asks for.
        let protocol = StreamProtocol::try_from_owned(name).unwrap_or(StreamProtocol::new("/fog/directory/1"));
        let limits =
            request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(MAX_STREAMS);
        let publisher_seed = *blake3::hash(&seed).as_bytes();
        Self {
            inner: request_response::Behaviour::with_codec(Codec, [(protocol, ProtocolSupport::Full)], limits),
            schedule,
            set: RelaySet::new(config, now),
            exchange: Exchange::new(network, schedule, seed, now),
            publisher: Publisher::new(signer, network, schedule, publisher_seed, now),
            council,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// All descriptors.
    pub fn relays(&self) -> &RelaySet {
        &self.set
    }

    /// What the exchange refused, by reason.
    pub fn exchange_drops(&self) -> &DropCounters {
        self.exchange.drops()
    }

    /// The relays of `epoch`.
    pub fn snapshot(&self, epoch: Epoch) -> Snapshot {
        match &self.council {
            Some(council) => council.snapshot(epoch, &self.set),
            None => self.set.snapshot(epoch, &OpenSeating),
        }
    }

    /// Takes a descriptor out of the store.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        self.set.handle_descriptor(bytes, Source::Store, clock()).map(|_| ())
    }

    /// Takes a gossip message that `from` forwarded, and says what to do with it.
    pub fn handle_gossip(&mut self, from: &PeerId, bytes: &[u8]) -> Acceptance {
        node(from).map_or(Acceptance::Ignore, |from| self.set.handle_gossip(from, bytes, clock()))
    }

    /// Takes a descriptor that `from` brought through Kademlia.
    pub fn handle_record(&mut self, from: NodeId, bytes: &[u8]) -> Result<Verdict, Reject> {
        self.set.handle_descriptor(bytes, Source::Exchange(from), clock())
    }

    /// What our descriptor says from now on, with the mix keys of that epoch and the next; `None` for a node that is no relay.
    pub fn set_facts(&mut self, facts: Option<(Epoch, Facts)>) {
        let seat =
            facts.as_ref().zip(self.council.as_ref()).is_some_and(|((epoch, _), council)| council.has_seat(*epoch));
        self.publisher.set_seat(seat);
        self.publisher.set_facts(facts, clock());
    }

    /// Whether others have a descriptor of ours that serves in this epoch.
    pub fn is_published(&self) -> bool {
        self.publisher.is_in_force()
    }

    fn handle_timeout(&mut self, now: Now) {
        self.exchange.handle_timeout(&mut self.set, now);
        self.hold_council(now);
        let (council, publisher) = (self.council.as_ref(), &mut self.publisher);
        let loops = |epoch| council.and_then(|council| council.loops(epoch));
        match publisher.handle_timeout(self.set.next_seq(publisher.node()), loops, now) {
            Some(Ok(own)) => {
                if let Err(error) = self.set.handle_descriptor(own.as_bytes(), Source::Own, now) {
                    tracing::warn!(%error, "this node's own descriptor is not valid");
                }
            }
            Some(Err(error)) => tracing::warn!(%error, "this node's descriptor cannot be signed"),
            None => {}
        }
        self.set.handle_timeout(now);
    }

    fn poll_core(&mut self) -> Option<Event> {
        while let Some(output) = self.exchange.poll_output() {
            match output {
                Asked::Send { to, request } => match PeerId::from_bytes(&to.to_peer_id_bytes()) {
                    Ok(peer) => drop(self.inner.send_request(&peer, request)),
                    Err(_) => self.exchange.handle_failure(to, clock()),
                },
                Asked::Clock { peer, offset_ms } => return Some(Event::Clock { peer, offset_ms }),
                Asked::Misbehaved { peer } => return Some(Event::Misbehaved { peer }),
                Asked::Flooding { peer } => return Some(Event::Flooding { peer }),
                Asked::Set { set, .. } => self.tell_council(|council, now| council.handle_set(set, now)),
                Asked::State { bytes, .. } => self.tell_council(|council, now| council.handle_state(&bytes, now)),
                Asked::Links { peer, links, more } => {
                    self.tell_council(|council, now| council.handle_links(peer, links, more, now));
                }
            }
        }
        if let Some(event) = self.poll_council() {
            return Some(event);
        }
        Some(match self.set.poll_output()? {
            Output::Persist { relay, bytes } => Event::Persist { relay, bytes },
            Output::Forget { relay } => Event::Forget { relay },
            Output::Publish(bytes) => Event::Publish(bytes),
            Output::Changed => Event::Changed,
            Output::Equivocation { relay } => Event::Equivocation { relay },
        })
    }

    fn next_timeout(&self) -> Option<Instant> {
        let council = self.council.as_ref().and_then(Council::poll_timeout);
        [self.exchange.poll_timeout(), self.publisher.poll_timeout(), self.set.poll_timeout(), council]
            .into_iter()
            .flatten()
            .min()
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

    /// Whoever dials a relay by its id gets the addresses of its descriptor.
    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let relay = peer.as_ref().and_then(node).and_then(|relay| self.set.get(relay));
        let addresses = relay.map_or(&[][..], |relay| &relay.facts().addresses);
        Ok(addresses.iter().filter_map(|address| address.to_string().parse().ok()).collect())
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
                    self.exchange.handle_connected(peer, &mut self.set, clock());
                    self.tell_council(Council::handle_connected);
                }
            }
            FromSwarm::ConnectionClosed(closed) if closed.remaining_established == 0 => {
                if let Some(peer) = node(&closed.peer_id) {
                    self.exchange.handle_disconnected(peer, clock());
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
            if let Some(event) = self.poll_core() {
                return Poll::Ready(ToSwarm::GenerateEvent(event));
            }
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    self.handle_exchanged(event, clock());
                    continue;
                }
                Poll::Ready(other) => return Poll::Ready(other.map_out(|_| Event::Changed)),
                Poll::Pending => {}
            }
            let now = clock();
            match self.next_timeout() {
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
