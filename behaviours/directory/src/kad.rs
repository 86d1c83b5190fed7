//! Kademlia in a swarm: libp2p's, with what it lacks: records that are checked, a routing table of peers that were dialled, answers
//! at a bounded rate, dials at a bounded rate. What is decided is decided in `core/`.
#![expect(clippy::disallowed_methods, reason = "this is where the core's clock is read")]

mod swarm;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    net::IpAddr,
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fog_base::{DropCounters, DropReason, Epoch, EpochSchedule, NetworkId, NodeId, Now, TokenBucket, UnixMillis};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    kad::{self, GetRecordOk, InboundRequest, KBucketKey, QueryId, QueryResult, Record, RecordKey},
    multiaddr::Protocol,
    swarm::{
        ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, NotifyHandler, THandlerInEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::time::Sleep;

use crate::{
    core::{
        address::{Address, Net, Scope, scope},
        descriptor::Descriptor,
        kad_record::{self, Rules},
        lookup::Lookup,
        routing::{Output as Routed, Routing},
        throttle::Throttle,
    },
    kad_store::Store,
};

/// The name of the protocol, and its version.
const NAME: (&str, u32) = ("kad", 1);
/// A query, and one request of it, may take so long.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// A descriptor and twenty peers with their addresses fit well.
const MAX_PACKET: usize = 8 * 1024;
/// Disjoint paths of a query.
const PATHS: NonZeroUsize = NonZeroUsize::new(3).unwrap();
/// Requests of one peer that are answered per second, and at once.
const SERVE_RATE: f64 = 20.0;
const SERVE_BURST: f64 = 256.0;
/// Dials for queries per second, and at once.
const DIAL_RATE: f64 = 4.0;
const DIAL_BURST: f64 = 32.0;
/// While the table has fewer peers, the network is walked again and again.
const FEW_PEERS: usize = 16;
const FIRST_WALK: Duration = Duration::from_secs(1);
const LAST_WALK: Duration = Duration::from_secs(60);
/// Our descriptor is sent again to a table that has grown, after this time, until it has had as many peers as keep a record.
const GROWTH: Duration = Duration::from_secs(1);
/// And when nobody took it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
const MAX_LOOKUPS: usize = 8;
const MAX_EVENTS: usize = 4096;

/// What bounds Kademlia.
#[derive(Debug, Clone)]
pub struct KadConfig {
    /// The network.
    pub network: NetworkId,
    /// How its time is cut.
    pub schedule: EpochSchedule,
    /// The most relays whose descriptors are served.
    pub max_relays: usize,
    /// The most connections while which it still dials for its queries.
    pub max_connections: usize,
    /// The network of an address, of which only few peers are routed to: [`Address::net`], but for tests.
    pub net: fn(&Address) -> Option<Net>,
}

impl KadConfig {
    /// The figures of the README.
    pub fn new(network: NetworkId, schedule: EpochSchedule, max_connections: usize) -> Self {
        Self { network, schedule, max_relays: 10_000, max_connections, net: Address::net }
    }
}

/// What Kademlia tells the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KadEvent {
    /// A descriptor that came as a record and was verified: the set is to judge it.
    Record {
        /// Who brought it.
        from: NodeId,
        /// The descriptor.
        bytes: Vec<u8>,
    },
    /// A lookup ended.
    LookedUp {
        /// Whose descriptor was sought.
        relay: NodeId,
        /// Whether enough answers were compared; what is believed came as [`KadEvent::Record`] before.
        found: bool,
    },
    /// A peer sent what no honest peer sends.
    Misbehaved {
        /// Who.
        peer: NodeId,
    },
    /// A peer asks more often than any honest peer.
    Flooding {
        /// Who.
        peer: NodeId,
    },
}

type Inner = kad::Behaviour<Store>;
type Answer = (PeerId, NotifyHandler, THandlerInEvent<Inner>);

/// A connection: whose, from which host, and whether this node dialled.
#[derive(Debug)]
struct Link {
    peer: PeerId,
    host: Option<IpAddr>,
}

/// Our descriptor on its way to others.
#[derive(Debug)]
struct Own {
    descriptor: Arc<Descriptor>,
    due: Option<Instant>,
    wait: Duration,
}

/// Kademlia as a libp2p behaviour.
pub struct Kad {
    inner: Inner,
    me: PeerId,
    rules: Rules,
    max_connections: usize,
    routing: Routing,
    throttle: Throttle<Answer>,
    dials: TokenBucket,
    links: HashMap<ConnectionId, Link>,
    /// Feelers under way, and those that have answered and are being closed.
    feelers: HashMap<ConnectionId, NodeId>,
    felt: HashSet<ConnectionId>,
    lookups: HashMap<QueryId, Lookup>,
    own: Option<Own>,
    putting: Option<QueryId>,
    walk: (Duration, Instant),
    walking: Option<QueryId>,
    drops: DropCounters,
    events: VecDeque<KadEvent>,
    timer: Pin<Box<Sleep>>,
}

impl fmt::Debug for Kad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kad").field("me", &self.me).field("peers", &self.routing.len()).finish_non_exhaustive()
    }
}

/// A feeler has done what it was for.
#[derive(Debug, thiserror::Error)]
#[error("the peer answers; nothing more was wanted")]
struct Felt;

/// Whether a dial "failed" because it was a feeler that has done what it was for.
pub fn is_felt(error: &DialError) -> bool {
    let cause = match error {
        DialError::Denied { cause } => std::error::Error::source(cause),
        _ => None,
    };
    cause.is_some_and(|cause| cause.is::<Felt>())
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

/// An address without the peer id at its end, if it is one that a descriptor may have.
fn plain(address: &Multiaddr) -> Option<Address> {
    let mut address = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    Address::from_bytes(&address.to_vec())
}

/// The host of a direct connection.
fn host(address: &Multiaddr) -> Option<IpAddr> {
    let is_relayed = address.iter().any(|part| matches!(part, Protocol::P2pCircuit));
    match address.iter().next()? {
        Protocol::Ip4(ip) if !is_relayed => Some(ip.into()),
        Protocol::Ip6(ip) if !is_relayed => Some(ip.into()),
        _ => None,
    }
}

impl Kad {
    /// As a client, with an empty table. Must be made within a tokio runtime.
    pub fn new(me: PeerId, config: KadConfig) -> Self {
        let (rules, now) = (Rules { network: config.network, schedule: config.schedule }, clock());
        // The name starts with a slash, which is all that libp2p asks for.
        let name = config.network.protocol(NAME.0, NAME.1);
        let protocol = StreamProtocol::try_from_owned(name).unwrap_or(StreamProtocol::new("/fog/kad/1"));
        let mut settings = kad::Config::new(protocol);
        settings
            .set_query_timeout(QUERY_TIMEOUT)
            .set_substreams_timeout(REQUEST_TIMEOUT)
            .set_max_packet_size(MAX_PACKET)
            .set_parallelism(PATHS)
            .disjoint_query_paths(true)
            .set_kbucket_inserts(kad::BucketInserts::Manual)
            .set_record_filtering(kad::StoreInserts::FilterBoth)
            .set_caching(kad::Caching::Disabled)
            // The set is whole everywhere: gossip and exchange replicate it, and its relays publish.
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_publication_interval(None)
            .set_periodic_bootstrap_interval(None);
        let mut inner = kad::Behaviour::with_config(me, Store::new(rules, config.max_relays), settings);
        inner.set_mode(Some(kad::Mode::Client));
        Self {
            inner,
            me,
            rules,
            max_connections: config.max_connections,
            routing: Routing::new(config.net, now.mono),
            throttle: Throttle::new(SERVE_RATE, SERVE_BURST),
            dials: TokenBucket::new(DIAL_RATE, DIAL_BURST, now.mono),
            links: HashMap::new(),
            feelers: HashMap::new(),
            felt: HashSet::new(),
            lookups: HashMap::new(),
            own: None,
            putting: None,
            walk: (FIRST_WALK, now.mono + FIRST_WALK),
            walking: None,
            drops: DropCounters::default(),
            events: VecDeque::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// Whether others are served.
    pub fn serve(&mut self, serve: bool) {
        self.inner.set_mode(Some(if serve { kad::Mode::Server } else { kad::Mode::Client }));
    }

    /// A connected peer of our network says that it serves Kademlia at `addresses`, or that it does not.
    pub fn handle_identified(&mut self, peer: &PeerId, serves: bool, addresses: &[Multiaddr]) {
        let (Some(node), Some(bucket)) = (node(peer), self.bucket(peer)) else { return };
        if !serves {
            return self.routing.handle_not_serving(node);
        }
        let addresses: Vec<_> = addresses.iter().filter_map(plain).collect();
        let hosts: Vec<_> =
            self.links.values().filter(|link| link.peer == *peer).filter_map(|link| link.host).collect();
        self.routing.handle_serving(node, bucket, &addresses, &hosts, clock().mono);
    }

    /// Nothing is to be asked of this peer any more.
    pub fn ban(&mut self, peer: &PeerId) {
        if let Some(node) = node(peer) {
            self.routing.handle_not_serving(node);
        }
    }

    /// The set holds `descriptor` as the newest of its relay.
    pub fn keep(&mut self, descriptor: Arc<Descriptor>) {
        let now = clock();
        self.inner.store_mut().keep(descriptor.clone(), now);
        if peer(descriptor.relay()) == Some(self.me) {
            self.own = Some(Own { descriptor, due: Some(now.mono), wait: FIRST_RETRY });
        }
    }

    /// The set holds nothing of `relay` any more.
    pub fn forget(&mut self, relay: NodeId) {
        self.inner.store_mut().forget(relay);
    }

    /// Asks for the descriptor that `relay` signed in `epoch`; false if too many are being asked for.
    pub fn look_up(&mut self, relay: NodeId, epoch: Epoch) -> bool {
        let is_sought = self.lookups.values().any(|lookup| lookup.relay() == relay);
        if self.lookups.len() >= MAX_LOOKUPS || is_sought {
            return false;
        }
        let key = kad_record::key(&self.rules.network, relay, epoch);
        let query = self.inner.get_record(RecordKey::new(&key));
        self.lookups.insert(query, Lookup::new(relay));
        true
    }

    /// How many peers stand in the routing table.
    pub fn peers(&self) -> usize {
        self.routing.len()
    }

    /// The peers of the routing table.
    pub fn routed(&mut self) -> Vec<PeerId> {
        let buckets = self.inner.kbuckets();
        buckets.flat_map(|bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>()).collect()
    }

    /// How many records are answered with.
    pub fn records(&mut self) -> usize {
        self.inner.store_mut().len()
    }

    /// What was refused, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// How many answers were held back because a peer asked too fast.
    pub fn delayed(&self) -> u64 {
        self.throttle.delayed()
    }

    fn bucket(&self, peer: &PeerId) -> Option<u32> {
        KBucketKey::from(self.me).distance(&KBucketKey::from(*peer)).ilog2()
    }

    /// The narrowest scope that is dialled because others say so: on the internet nobody has us knock at doors of our LAN.
    fn floor(&self) -> Option<Scope> {
        self.links.values().filter_map(|link| link.host.and_then(scope)).max()
    }

    fn tell(&mut self, event: KadEvent) {
        if self.events.len() >= MAX_EVENTS {
            return self.drops.count(DropReason::QueueFull);
        }
        self.events.push_back(event);
    }

    /// Every record passes here, whoever sent it and why.
    fn verify(&mut self, from: NodeId, record: &Record, now: Now) -> Option<Descriptor> {
        let store = self.inner.store_mut();
        let known = |relay| store.newest(relay).map(|descriptor| descriptor.seq());
        let verified = kad_record::verify(record.key.as_ref(), &record.value, known, &self.rules, now.unix);
        verified.inspect_err(|reject| self.refuse(from, *reject)).ok()
    }

    fn refuse(&mut self, from: NodeId, reject: kad_record::Reject) {
        tracing::debug!(peer = %from, %reject, "a record is refused");
        self.drops.count(reject.drop_reason());
        if reject.is_misbehaviour() {
            self.tell(KadEvent::Misbehaved { peer: from });
        }
    }

    fn handle_request(&mut self, request: InboundRequest, now: Now) {
        match request {
            InboundRequest::PutRecord { source, record: Some(record), .. } => {
                let Some(from) = node(&source) else { return };
                // Twenty neighbours put what everybody has.
                if self.inner.store_mut().has(record.key.as_ref(), &record.value) {
                    return;
                }
                if self.verify(from, &record, now).is_some() {
                    self.tell(KadEvent::Record { from, bytes: record.value });
                }
            }
            // Nothing is provided in this network. It is the one request that has no answer to be held back.
            InboundRequest::AddProvider { record: Some(record) } => {
                self.drops.count(DropReason::NoRoute);
                if let Some(from) = node(&record.provider) {
                    self.throttle.charge(from, now.mono);
                }
            }
            _ => {}
        }
    }

    fn handle_result(&mut self, id: QueryId, result: QueryResult, is_last: bool, now: Now) {
        match result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                // What is known here is no answer of a peer.
                let Some(from) = found.peer.as_ref().and_then(node) else { return };
                let Some(descriptor) = self.verify(from, &found.record, now) else { return };
                let Some(lookup) = self.lookups.get_mut(&id) else { return };
                lookup.handle_answer(from, descriptor);
                if lookup.is_enough()
                    && let Some(mut query) = self.inner.query_mut(&id)
                {
                    query.finish();
                }
            }
            QueryResult::GetRecord(_) => {}
            QueryResult::PutRecord(outcome) if self.putting == Some(id) => {
                self.putting = None;
                if let Some(own) = self.own.as_mut().filter(|_| outcome.is_err()) {
                    own.due = Some(now.mono + own.wait);
                    own.wait = (own.wait * 2).min(LAST_RETRY);
                }
            }
            _ => {}
        }
        if is_last {
            self.walking = self.walking.filter(|walk| *walk != id);
            if let Some(lookup) = self.lookups.remove(&id) {
                self.believe(lookup);
            }
        }
    }

    fn believe(&mut self, lookup: Lookup) {
        let relay = lookup.relay();
        let believed = lookup.believed();
        let found = !believed.is_empty();
        for (from, descriptor) in believed {
            self.tell(KadEvent::Record { from, bytes: descriptor.as_bytes().to_vec() });
        }
        self.tell(KadEvent::LookedUp { relay, found });
    }

    /// A query wants to dial; told at once that it failed when too much is dialled already.
    fn allow_dial(&mut self, opts: &DialOpts, now: Now) -> bool {
        if self.links.len() < self.max_connections && self.dials.try_take(now.mono) {
            return true;
        }
        self.drops.count(DropReason::RateLimited);
        self.inner.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: opts.get_peer_id(),
            error: &DialError::Aborted,
            connection_id: opts.connection_id(),
        }));
        false
    }

    /// Does what the table wants; a feeler is dialled by the swarm.
    fn handle_routed(&mut self, output: Routed) -> Option<DialOpts> {
        match output {
            Routed::Admit { peer: node, address } => {
                let (peer, address) = (peer(node)?, Multiaddr::try_from(address.to_bytes()).ok()?);
                let _admitted = self.inner.add_address(&peer, address);
                let has_grown = self.routing.len() <= kad::K_VALUE.get();
                if let Some(own) = self.own.as_mut().filter(|own| has_grown && own.due.is_none()) {
                    own.due = Some(clock().mono + GROWTH);
                }
                None
            }
            Routed::Remove { peer: node } => {
                self.inner.remove_peer(&peer(node)?);
                None
            }
            Routed::Feel { peer: node, address } => {
                let address = Multiaddr::try_from(address.to_bytes()).ok()?;
                let opts = DialOpts::peer_id(peer(node)?)
                    .condition(PeerCondition::Always)
                    .addresses(vec![address])
                    .allocate_new_port()
                    .build();
                self.feelers.insert(opts.connection_id(), node);
                Some(opts)
            }
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.routing.handle_timeout(now.mono);
        let (wait, at) = self.walk;
        if now.mono >= at {
            self.walk = ((wait * 2).min(LAST_WALK), now.mono + wait);
            // Its own id, then a random id in each bucket farther away; whoever is asked is dialled, and so becomes a candidate.
            if self.routing.len() < FEW_PEERS && self.walking.is_none() {
                self.walking = self.inner.bootstrap().ok();
            }
        }
        self.publish(now);
    }

    fn publish(&mut self, now: Now) {
        let is_due = |own: &&mut Own| own.due.is_some_and(|due| now.mono >= due);
        let Some(own) = self.own.as_mut().filter(is_due) else { return };
        own.due = None;
        let (key, value) = (self.inner.store_mut().key(&own.descriptor).to_vec(), own.descriptor.as_bytes().to_vec());
        let expires = Some(now.mono + own.descriptor.expires().since(now.unix));
        let record = Record { key: RecordKey::from(key), value, publisher: None, expires };
        let put = if self.routing.is_empty() { None } else { self.inner.put_record(record, kad::Quorum::One).ok() };
        if put.is_none() {
            own.due = Some(now.mono + own.wait);
            own.wait = (own.wait * 2).min(LAST_RETRY);
        }
        self.putting = put;
    }

    fn next_timeout(&mut self, now: Now) -> Option<Instant> {
        let own = self.own.as_ref().and_then(|own| own.due);
        [self.routing.poll_timeout(now.mono), self.throttle.poll_timeout(), own, Some(self.walk.1)]
            .into_iter()
            .flatten()
            .min()
    }

    fn on_dial_failure(&mut self, failure: DialFailure<'_>) {
        let felt = self.felt.remove(&failure.connection_id);
        let feeler = self.feelers.remove(&failure.connection_id);
        let is_gone = match failure.error {
            DialError::Transport(_) | DialError::NoAddresses => true,
            // Others may have named that address; of a feeler it is the one where the peer answered.
            DialError::WrongPeerId { .. } => feeler.is_some(),
            _ => false,
        };
        if let Some(node) = failure.peer_id.as_ref().and_then(node).filter(|_| is_gone && !felt) {
            self.routing.handle_unreachable(node);
        }
        // To libp2p's Kademlia a failed feeler of a connected peer would look like a failed request.
        if !felt && feeler.is_none() {
            self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
        }
    }
}

#[cfg(test)]
mod tests;
