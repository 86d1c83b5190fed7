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

/// Why a packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait already.
    Full,
    /// The peer is not connected.
    NoLink,
    /// The peer is connected and does not take packets.
    Unsupported,
}

/// A packet and the peer that it goes to.
pub type Addressed = (NodeId, PacketBuf);

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

    /// Whether more than `limit` packets beyond the rate have added up. If so they add up anew.
    pub fn is_flooded(&self, limit: u64) -> bool {
        let mut state = lock(&self.state);
        let is_flooded = state.excess > limit;
        if is_flooded {
            state.excess = 0;
        }
        is_flooded
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

    /// Queues all of `packets` for their peers, those for one peer in their order, and wakes the connections that will write
    /// them. What is not taken goes to `refused`.
    pub fn push(&self, packets: &mut Vec<Addressed>, refused: &mut Vec<(Refusal, Addressed)>) {
        // Those of one peer together: its queue is locked once for all of them.
        packets.sort_by_key(|(peer, _)| *peer);
        let mut wakers = Vec::new();
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let mut rest = packets.drain(..).peekable();
        while let Some((peer, _)) = rest.peek() {
            let peer = *peer;
            let of_peer = std::iter::from_fn(|| rest.next_if(|(next, _)| *next == peer));
            let Some(link) = links.get(&peer) else {
                refused.extend(of_peer.map(|packet| (Refusal::NoLink, packet)));
                continue;
            };
            let mut state = lock(&link.state);
            for (_, packet) in of_peer {
                if state.unsupported {
                    refused.push((Refusal::Unsupported, (peer, packet)));
                } else if state.packets.len() >= CAPACITY {
                    refused.push((Refusal::Full, (peer, packet)));
                } else {
                    state.packets.push_back(packet);
                }
            }
            wakers.extend(state.connections.values_mut().filter_map(Option::take));
        }
        drop(links);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether `peer` is connected and takes packets, as far as is known.
    pub fn takes(&self, peer: &NodeId) -> bool {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(peer).is_some_and(|link| !lock(&link.state).unsupported)
    }
}

#[cfg(test)]
mod tests {
    use fog_sphinx::PACKET_LEN;

    use super::*;

    fn packet(peer: u8, mark: u8) -> Addressed {
        (NodeId([peer; 32]), Box::new([mark; PACKET_LEN]))
    }

    #[test]
    fn packets_go_to_their_peers_in_order_and_what_no_peer_takes_comes_back() {
        let now = super::super::now().mono;
        let links = Links::new(1e6, 1e6);
        let connection = ConnectionId::new_unchecked(1);
        let [one, two, deaf] = [1, 2, 3].map(|peer| links.connected(NodeId([peer; 32]), connection, now));
        assert_eq!(deaf.unsupported(), 0);
        let mut packets = vec![packet(2, 1), packet(1, 2), packet(3, 3), packet(2, 4), packet(4, 5), packet(1, 6)];
        let mut refused = Vec::new();
        links.push(&mut packets, &mut refused);
        assert!(packets.is_empty());
        let marks = |link: &Link| {
            let mut taken = Vec::new();
            link.take(connection, 10, &mut taken, Waker::noop());
            taken.iter().map(|packet| packet[0]).collect::<Vec<_>>()
        };
        assert_eq!((marks(&one), marks(&two)), (vec![2, 6], vec![1, 4]));
        let refused: Vec<_> = refused.iter().map(|(why, (peer, packet))| (*why, peer.0[0], packet[0])).collect();
        assert_eq!(refused, [(Refusal::Unsupported, 3, 3), (Refusal::NoLink, 4, 5)]);
    }

    #[test]
    fn a_full_queue_refuses_what_comes_last() {
        let links = Links::new(1e6, 1e6);
        let connection = ConnectionId::new_unchecked(1);
        let _link = links.connected(NodeId([1; 32]), connection, super::super::now().mono);
        let mut packets: Vec<_> = (0..CAPACITY + 1).map(|n| packet(1, u8::from(n == CAPACITY))).collect();
        let mut refused = Vec::new();
        links.push(&mut packets, &mut refused);
        assert!(matches!(refused.as_slice(), [(Refusal::Full, (_, last))] if last[0] == 1));
        assert_eq!(links.disconnected(NodeId([1; 32]), connection), Some(CAPACITY));
    }
}
