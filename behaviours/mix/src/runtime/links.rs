//! Packets on their way to connected peers: one bounded queue for each peer, emptied by the handler of one of its connections.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
    task::Waker,
    time::Instant,
};

use fog_base::{NodeId, TokenBucket};
use libp2p::swarm::ConnectionId;

use super::lock;
use crate::core::PacketBuf;

/// Packets that wait for one peer.
const CAPACITY: usize = 1024;

#[derive(Debug)]
struct State {
    packets: VecDeque<PacketBuf>,
    connections: BTreeMap<ConnectionId, Option<Waker>>,
    /// The connection that carries packets out.
    writer: Option<ConnectionId>,
    unsupported: bool,
    bucket: TokenBucket,
    excess: u64,
}

/// What goes to one peer, and how fast it may send to us.
#[derive(Debug)]
pub struct Link {
    state: Mutex<State>,
}

/// Whether a packet was taken.
#[derive(Debug)]
pub enum Push {
    /// It will be written.
    Taken,
    /// Too many wait already.
    Full(PacketBuf),
    /// The peer is not connected.
    NoLink(PacketBuf),
    /// The peer is connected and does not take packets.
    Unsupported(PacketBuf),
}

impl Link {
    fn new(rate: f64, burst: f64, now: Instant) -> Self {
        let bucket = TokenBucket::new(rate, burst, now);
        let state = State {
            packets: VecDeque::new(),
            connections: BTreeMap::new(),
            writer: None,
            unsupported: false,
            bucket,
            excess: 0,
        };
        Self { state: Mutex::new(state) }
    }

    /// Moves up to `max` packets to `to` if `connection` is, or can be, the one that writes. Without packets the waker is kept.
    pub fn take(&self, connection: ConnectionId, max: usize, to: &mut Vec<PacketBuf>, waker: &Waker) {
        let mut state = lock(&self.state);
        if !state.packets.is_empty() && *state.writer.get_or_insert(connection) == connection {
            let count = max.min(state.packets.len());
            to.extend(state.packets.drain(..count));
        } else {
            state.connections.insert(connection, Some(waker.clone()));
        }
    }

    /// Whether packets wait that `connection` should write; keeps the waker if not.
    pub fn wants(&self, connection: ConnectionId, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        let wants = !state.packets.is_empty() && *state.writer.get_or_insert(connection) == connection;
        if !wants {
            state.connections.insert(connection, Some(waker.clone()));
        }
        wants
    }

    /// The peer does not speak the protocol; what waits comes back.
    pub fn unsupported(&self) -> usize {
        let mut state = lock(&self.state);
        state.unsupported = true;
        let lost = state.packets.len();
        state.packets.clear();
        lost
    }

    /// How many of `count` packets that came from the peer are within its rate. The excess adds up until the peer behaves.
    pub fn admit(&self, count: usize, now: Instant) -> usize {
        let mut state = lock(&self.state);
        let granted = state.bucket.take(u32::try_from(count).unwrap_or(u32::MAX), now) as usize;
        if granted == count {
            state.excess = state.excess.saturating_sub(granted as u64 / 4);
        } else {
            state.excess += (count - granted) as u64;
        }
        granted
    }

    /// Packets beyond the rate that add up now.
    pub fn excess(&self) -> u64 {
        lock(&self.state).excess
    }
}

/// The links to all connected peers.
#[derive(Debug)]
pub struct Links {
    links: RwLock<BTreeMap<NodeId, Arc<Link>>>,
    rate: f64,
    burst: f64,
}

impl Links {
    /// No link; each peer may send `rate` packets a second, and `burst` at once.
    pub fn new(rate: f64, burst: f64) -> Self {
        Self { links: RwLock::default(), rate, burst }
    }

    /// A connection to `peer` was established.
    pub fn connected(&self, peer: NodeId, connection: ConnectionId, now: Instant) -> Arc<Link> {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(peer).or_insert_with(|| Arc::new(Link::new(self.rate, self.burst, now)));
        let mut state = lock(&link.state);
        state.connections.insert(connection, None);
        // What one connection could not do, another one may.
        state.unsupported = false;
        drop(state);
        Arc::clone(link)
    }

    /// A connection has closed. With the last one the link ends, and the number of packets that waited is returned.
    pub fn disconnected(&self, peer: NodeId, connection: ConnectionId) -> Option<usize> {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let link = links.get(&peer)?;
        let mut state = lock(&link.state);
        state.connections.remove(&connection);
        if state.writer == Some(connection) {
            state.writer = None;
        }
        if !state.connections.is_empty() {
            state.connections.values_mut().filter_map(Option::take).for_each(Waker::wake);
            return None;
        }
        let lost = state.packets.len();
        drop(state);
        links.remove(&peer);
        Some(lost)
    }

    /// Queues a packet for `peer`. [`Links::wake`] makes the connection write it.
    pub fn push(&self, peer: &NodeId, packet: PacketBuf) -> Push {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let Some(link) = links.get(peer) else { return Push::NoLink(packet) };
        let mut state = lock(&link.state);
        if state.unsupported {
            return Push::Unsupported(packet);
        }
        if state.packets.len() >= CAPACITY {
            return Push::Full(packet);
        }
        state.packets.push_back(packet);
        Push::Taken
    }

    /// Wakes the connections of `peer`.
    pub fn wake(&self, peer: &NodeId) {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let Some(link) = links.get(peer) else { return };
        let wakers: Vec<_> = lock(&link.state).connections.values_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether `peer` is connected and takes packets, as far as is known.
    pub fn takes(&self, peer: &NodeId) -> bool {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(peer).is_some_and(|link| !lock(&link.state).unsupported)
    }
}
