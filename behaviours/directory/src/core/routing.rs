//! Who stands in the Kademlia routing table: peers that this node has dialled itself, and not too many of one network.
//!
//! Ids can be ground next to any key, and a peer can name any address as its own. What an attacker cannot have for nothing is many
//! networks, and an address where its node answers. So a peer that dialled us is dialled back – a *feeler* – where it says that it
//! can be reached and where its connection came from (elsewhere we would knock at strangers' doors for it), and of one global /16
//! (IPv6 /32) at most two peers are in a bucket and ten in the table (go-libp2p's kad-dht has such a rule: `maxPrefixCountPerCpl`,
//! `maxPrefixCount`). Old peers are kept: a full bucket takes nobody while its peers answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    time::{Duration, Instant},
};

use fog_base::{BoundedQueue, DropCounters, DropReason, NodeId, TokenBucket};

use super::address::{Address, Net};

/// Peers in a bucket: Kademlia's k.
pub const MAX_BUCKET: usize = 20;
/// Peers of one network in a bucket.
pub const MAX_NET_BUCKET: usize = 2;
/// Peers of one network in the table.
pub const MAX_NET_TABLE: usize = 10;
/// Peers that serve and are connected.
const MAX_SERVING: usize = 4096;
/// Feelers per second, and at once.
const FEELER_RATE: f64 = 2.0;
const FEELER_BURST: f64 = 16.0;
/// When a feeler that failed is sent again; after the last, not before the peer comes anew.
const RETRIES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];
/// A peer of the table that is not connected is dialled so often, and leaves the table when so many dials in a row have failed.
const PROBE_INTERVAL: Duration = Duration::from_secs(120);
const MAX_FAILURES: u32 = 3;
const MAX_OUTPUTS: usize = 1024;

/// What the table wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Route to this peer, which answered at this address.
    Admit {
        /// Who.
        peer: NodeId,
        /// Where.
        address: Address,
    },
    /// Route to it no more.
    Remove {
        /// Who.
        peer: NodeId,
    },
    /// Dial it, to see whether it answers; nothing else is done with the connection.
    Feel {
        /// Who.
        peer: NodeId,
        /// Where.
        address: Address,
    },
}

#[derive(Debug)]
struct Seat {
    address: Address,
    bucket: u32,
    failures: u32,
    probed: Instant,
}

/// A connected peer that serves Kademlia.
#[derive(Debug)]
struct Serving {
    bucket: u32,
    /// Where it may be dialled back.
    addresses: Vec<Address>,
    attempts: usize,
    next: Option<Instant>,
}

impl Serving {
    /// When it is to be felt; never while it names no address where it may be.
    fn due(&self) -> Option<Instant> {
        self.next.filter(|_| !self.addresses.is_empty())
    }
}

/// The rules of the table; the buckets themselves are libp2p's.
#[derive(Debug)]
pub struct Routing {
    net: fn(&Address) -> Option<Net>,
    seats: BTreeMap<NodeId, Seat>,
    serving: BTreeMap<NodeId, Serving>,
    connected: BTreeSet<NodeId>,
    /// Connected peers that this node dialled.
    dialled: BTreeMap<NodeId, Address>,
    feelers: TokenBucket,
    /// The one that was felt last: the turn goes on behind it, so that nobody is kept waiting by those with smaller ids.
    last_felt: NodeId,
    outputs: BoundedQueue<Output>,
    drops: DropCounters,
}

impl Routing {
    /// An empty table. `net` names the network of an address, if it is one that is counted: [`Address::net`].
    pub fn new(net: fn(&Address) -> Option<Net>, now: Instant) -> Self {
        Self {
            net,
            seats: BTreeMap::new(),
            serving: BTreeMap::new(),
            connected: BTreeSet::new(),
            dialled: BTreeMap::new(),
            feelers: TokenBucket::new(FEELER_RATE, FEELER_BURST, now),
            last_felt: NodeId([0; 32]),
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            drops: DropCounters::default(),
        }
    }

    /// A peer is connected.
    pub fn handle_connected(&mut self, peer: NodeId) {
        self.connected.insert(peer);
    }

    /// A connected peer says that it serves Kademlia at `addresses`; its connections come from `hosts`. `bucket` is the one that
    /// it belongs to.
    pub fn handle_serving(&mut self, peer: NodeId, bucket: u32, addresses: &[Address], hosts: &[IpAddr], now: Instant) {
        let addresses: Vec<_> = addresses.iter().filter(|address| hosts.contains(&address.ip)).copied().collect();
        if self.seats.contains_key(&peer) || (self.serving.len() >= MAX_SERVING && !self.serving.contains_key(&peer)) {
            return;
        }
        // Other addresses are no new turn: a peer can push a list as often as it likes.
        let new = Serving { bucket, addresses: Vec::new(), attempts: 0, next: Some(now) };
        self.serving.entry(peer).or_insert(new).addresses = addresses;
        if self.dialled.contains_key(&peer) {
            self.admit(peer, now);
        }
    }

    /// A peer that is connected does not serve Kademlia, or is banned.
    pub fn handle_not_serving(&mut self, peer: NodeId) {
        self.serving.remove(&peer);
        self.remove(peer);
    }

    /// This node dialled `peer` at `address`, and it answered.
    pub fn handle_dialled(&mut self, peer: NodeId, address: Address, now: Instant) {
        if let Some(seat) = self.seats.get_mut(&peer) {
            seat.failures = 0;
            seat.probed = now;
            return;
        }
        // One that is gone already would never be taken out again.
        if self.connected.contains(&peer) && self.dialled.len() < MAX_SERVING {
            self.dialled.insert(peer, address);
        }
        self.admit(peer, now);
    }

    /// A dial of `peer` failed. That of a connected one says nothing.
    pub fn handle_unreachable(&mut self, peer: NodeId) {
        let Some(seat) = self.seats.get_mut(&peer).filter(|_| !self.connected.contains(&peer)) else { return };
        seat.failures += 1;
        if seat.failures >= MAX_FAILURES {
            self.remove(peer);
        }
    }

    /// The last connection of `peer` is gone. Its place in the table is not.
    pub fn handle_disconnected(&mut self, peer: NodeId, now: Instant) {
        self.connected.remove(&peer);
        self.serving.remove(&peer);
        self.dialled.remove(&peer);
        if let Some(seat) = self.seats.get_mut(&peer) {
            seat.probed = now;
        }
    }

    fn admit(&mut self, peer: NodeId, now: Instant) {
        let (Some(serving), Some(address)) = (self.serving.get_mut(&peer), self.dialled.get(&peer).copied()) else {
            return;
        };
        serving.next = None;
        let bucket = serving.bucket;
        if !self.has_room(bucket, &address) {
            return self.drops.count(DropReason::QueueFull);
        }
        self.seats.insert(peer, Seat { address, bucket, failures: 0, probed: now });
        self.push(Output::Admit { peer, address });
    }

    fn has_room(&self, bucket: u32, address: &Address) -> bool {
        let beside = |seat: &&Seat| seat.bucket == bucket;
        if self.seats.values().filter(beside).count() >= MAX_BUCKET {
            return false;
        }
        let Some(net) = (self.net)(address) else { return true };
        let of_net = || self.seats.values().filter(|seat| (self.net)(&seat.address) == Some(net));
        of_net().count() < MAX_NET_TABLE && of_net().filter(beside).count() < MAX_NET_BUCKET
    }

    fn remove(&mut self, peer: NodeId) {
        if self.seats.remove(&peer).is_some() {
            self.push(Output::Remove { peer });
        }
    }

    /// Sends the feelers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut due: Vec<(NodeId, Address)> = Vec::new();
        let is_due = |(peer, serving): (&NodeId, &Serving)| serving.due().is_some_and(|at| now >= at).then_some(*peer);
        let behind = (Bound::Excluded(self.last_felt), Bound::Unbounded);
        let turn = self.serving.range(behind).chain(self.serving.range(..=self.last_felt));
        let turn: Vec<_> = turn.filter_map(is_due).collect();
        for peer in turn {
            let Some(serving) = self.serving.get_mut(&peer) else { continue };
            if !self.feelers.try_take(now) {
                break;
            }
            self.last_felt = peer;
            // Another address at each attempt.
            let at = serving.attempts.checked_rem(serving.addresses.len());
            serving.next = RETRIES.get(serving.attempts).map(|wait| now + *wait);
            serving.attempts += 1;
            due.extend(at.and_then(|at| serving.addresses.get(at)).map(|address| (peer, *address)));
        }
        for (peer, seat) in &mut self.seats {
            if now.saturating_duration_since(seat.probed) < PROBE_INTERVAL {
                continue;
            }
            let is_connected = self.connected.contains(peer);
            if is_connected || self.feelers.try_take(now) {
                seat.probed = now;
                due.extend((!is_connected).then_some((*peer, seat.address)));
            }
        }
        for (peer, address) in due {
            self.push(Output::Feel { peer, address });
        }
    }

    /// When [`Routing::handle_timeout`] is due.
    pub fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let feelers = self.serving.values().filter_map(Serving::due);
        let probes = self.seats.values().map(|seat| seat.probed + PROBE_INTERVAL);
        let next = feelers.chain(probes).min()?;
        // Not before there is a token, or an overdue feeler would spin.
        let token = now + self.feelers.wait(now).unwrap_or(PROBE_INTERVAL);
        Some(next.max(token))
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// How many peers are in the table.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Peers that found no room, under [`DropReason::QueueFull`].
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn push(&mut self, output: Output) {
        if self.outputs.push(output).is_err() {
            self.drops.count(DropReason::QueueFull);
        }
    }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
