//! From events to actions: whatever one protocol must know of another passes through here. No IO and no clock: the event loop hands
//! in what happened, and does what comes back.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use fog_base::{DropCounters, DropReason, Epoch, EpochSchedule, NetworkId, NodeId, Now, relay::Roles};
use fog_directory::{Address, Facts, Scope};
use fog_mix::core::loops::LoopEnd;
use libp2p::{Multiaddr, PeerId, gossipsub::MessageId, multiaddr::Protocol, swarm::ConnectionId};

use super::{
    behaviour::{node_id, peer_id},
    chain,
    clock::Clocks,
    contacts::{Contacts, Dial, Finder},
    event::Event,
    gossip::Topic,
    peers::{PathKind, Peers},
    reachability::{Reachability, multiaddr, plain},
    reputation::{self, Evidence, Offence},
};
use crate::store::{Batch, Table};

/// Descriptors that wait for somebody who listens on gossip.
const MAX_UNPUBLISHED: usize = 64;
/// Of the connections that are allowed, so many in eight may be used before the least useful ones are closed.
const CROWDED_EIGHTHS: usize = 7;
/// A connection is not closed for lack of room before this age.
const GRACE: Duration = Duration::from_secs(60);
/// Behind NAT for so long, a node asks others to relay for it; and how many of them.
const RESERVE_AFTER: Duration = Duration::from_secs(20);
const MAX_RESERVATIONS: usize = 2;
const MAX_RELAY_CANDIDATES: usize = 16;
/// libp2p's name for peers that relay (circuit relay v2).
const HOP_PROTOCOL: &str = "/libp2p/circuit/relay/0.2.0/hop";

/// Something that the event loop does.
#[derive(Debug)]
pub(super) enum Action {
    /// Connect to somebody.
    Dial(Dial),
    /// Close all connections to a peer.
    Disconnect(PeerId),
    /// Close one connection.
    Close(ConnectionId),
    /// Refuse a peer from now on.
    Block(PeerId),
    /// Accept it again.
    Unblock(PeerId),
    /// Tell others an address of ours.
    Tell(Multiaddr),
    /// Tell it no more.
    Withhold(Multiaddr),
    /// Serve Kademlia and relay for others, or stop doing so.
    Serve(bool),
    /// Ask a peer to relay for us, at this address.
    Reserve(Multiaddr),
    /// A peer serves Kademlia at these addresses.
    Route { peer: PeerId, addresses: Vec<Multiaddr> },
    /// It does so no more.
    Unroute(PeerId),
    /// The set has a new descriptor of this relay, or none any more: Kademlia answers with what the set holds.
    Keep(NodeId),
    /// Have the directory judge a descriptor that came through Kademlia.
    JudgeRecord { from: NodeId, bytes: Vec<u8> },
    /// Ask others for the newest descriptor of a relay.
    LookUp(NodeId),
    /// Have its protocol judge a gossip message.
    Judge { topic: Topic, from: PeerId, id: MessageId, bytes: Vec<u8> },
    /// Send by gossip.
    Publish { topic: Topic, bytes: Vec<u8> },
    /// Tell reputation.
    Learn(Evidence),
    /// Count a loop for the directory's reports.
    CountLoop(LoopEnd),
    /// Write to the store.
    Store(Batch),
    /// Write to the store, and see that it survives a loss of power: all nodes of a network may lose it at once.
    StoreSynced(Batch),
    /// Write what this node is about to sign, and tell the directory when it is on the disk.
    Record(Batch),
    /// What our descriptor says from now on.
    Describe(Option<(Epoch, Facts)>),
    /// Make new snapshots.
    Snapshots,
    /// Tell the user where we listen.
    Announce(Multiaddr),
    /// What the mixnet tells those who use it.
    Mix(fog_mix::Event),
    /// Tell who waits for a file.
    Blobs(fog_blobs::Event),
    /// Do what chat wants.
    Chat(fog_chat::Event),
    /// Tell chat that a peer of our network is connected.
    Meet { peer: PeerId, is_lan: bool },
    /// Tell chat that it is gone.
    Part(PeerId),
}

/// What does not change while the node runs.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) me: PeerId,
    pub(super) network_id: NetworkId,
    /// Text by which peers of one network know each other.
    pub(super) network: String,
    /// The name of our Kademlia.
    pub(super) kad: String,
    pub(super) schedule: EpochSchedule,
    pub(super) roles: Roles,
    pub(super) seal_key: [u8; 32],
    /// Packets per second.
    pub(super) capacity: u32,
    pub(super) max_connections: usize,
}

/// What is counted for `/metrics`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) connected_in: u64,
    pub(super) connected_out: u64,
    pub(super) disconnected: u64,
    pub(super) dials_failed: u64,
    pub(super) inbound_failed: u64,
    pub(super) gossip: u64,
    pub(super) other_network: u64,
    pub(super) offences: u64,
    pub(super) bans: u64,
    pub(super) links: u64,
    pub(super) links_lost: u64,
    pub(super) links_failed: u64,
    pub(super) saved: u64,
}

/// Everything that the node knows of its network.
#[derive(Debug)]
pub(super) struct Wiring {
    pub(super) identity: Identity,
    pub(super) peers: Peers,
    pub(super) contacts: Contacts,
    pub(super) reachability: Reachability,
    pub(super) clocks: Clocks,
    pub(super) counts: Counts,
    pub(super) drops: DropCounters,
    /// Our public mix keys by epoch; without those of this epoch and the next nothing is published.
    mix_keys: BTreeMap<Epoch, [u8; 32]>,
    described: Option<(Epoch, Facts)>,
    told: BTreeSet<Address>,
    serving: bool,
    unpublished: VecDeque<(Topic, Vec<u8>)>,
    /// The relays of the snapshot.
    pub(super) seated: BTreeSet<PeerId>,
    /// Connected ones whose link counted as evidence.
    pub(super) linked: BTreeSet<PeerId>,
    relays: BTreeMap<PeerId, Multiaddr>,
    reserved: BTreeSet<PeerId>,
    unreachable_since: Instant,
}

impl Wiring {
    pub(super) fn new(identity: Identity, bootstrap: &[Multiaddr], now: Now) -> Self {
        Self {
            contacts: Contacts::new(identity.me, bootstrap, now.mono),
            identity,
            peers: Peers::default(),
            reachability: Reachability::default(),
            clocks: Clocks::default(),
            counts: Counts::default(),
            drops: DropCounters::default(),
            mix_keys: BTreeMap::new(),
            described: None,
            told: BTreeSet::new(),
            serving: false,
            unpublished: VecDeque::new(),
            seated: BTreeSet::new(),
            linked: BTreeSet::new(),
            relays: BTreeMap::new(),
            reserved: BTreeSet::new(),
            unreachable_since: now.mono,
        }
    }

    /// The actions that an event asks for.
    pub(super) fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        match event {
            Event::Listening(address) => self.handle_listening(address, now),
            Event::NotListening(address) => {
                self.reachability.handle_not_listening(&address);
                self.refresh(now)
            }
            Event::Connected { peer, connection, remote, inbound_at } => {
                self.handle_connected(peer, connection, remote, inbound_at.as_ref(), now)
            }
            Event::Disconnected { peer, connection, remaining } => {
                self.handle_disconnected(peer, connection, remaining, now)
            }
            Event::DialFailed { peer, unanswered, reason, .. } => {
                tracing::debug!(?peer, reason, "cannot connect");
                self.counts.dials_failed += 1;
                let silent = peer.filter(|_| unanswered);
                let mut actions: Vec<_> = silent.and_then(|peer| self.note_silence(&peer, now)).into_iter().collect();
                actions.extend(self.look_up(peer));
                actions
            }
            Event::InboundFailed => {
                self.counts.inbound_failed += 1;
                Vec::new()
            }
            Event::Confirmed(address) => self.handle_confirmed(address, now),
            Event::Unconfirmed(address) => {
                self.reachability.handle_unconfirmed(&address);
                self.refresh(now)
            }
            Event::Identified { peer, network, agent, addresses, protocols } => {
                self.handle_identified(peer, &network, &agent, &addresses, &protocols)
            }
            Event::Pinged { peer, rtt } => {
                self.peers.handle_ping(peer, rtt);
                Vec::new()
            }
            Event::Unresponsive(connection) => vec![Action::Close(connection)],
            Event::Found(finder, found) => self.handle_found(finder, found, now),
            Event::Lost(finder, peers) => self.handle_lost(finder, &peers),
            Event::Gossip { topic, from, id, bytes } => {
                self.counts.gossip += 1;
                vec![Action::Judge { topic, from, id, bytes }]
            }
            Event::Slow { peer } => {
                tracing::debug!(%peer, "the peer reads too slowly");
                Vec::new()
            }
            Event::Directory(event) => self.handle_directory(event, now),
            Event::Reputation(event) => self.handle_reputation(event),
            Event::Kad(event) => self.handle_kad(event, now),
            Event::Mix(fog_mix::Event::Keys(keys)) => self.set_mix_keys(keys, now),
            Event::Mix(fog_mix::Event::Flooding(node)) => self.handle_offence(node, Offence::Flood, now),
            Event::Mix(fog_mix::Event::Loop(end)) => {
                vec![reputation::handle_loop(&end.hops, end.returned), Action::CountLoop(end)]
            }
            Event::Mix(event) => vec![Action::Mix(event)],
            Event::Blobs(event) => vec![Action::Blobs(event)],
            Event::Chat(event) => vec![Action::Chat(event)],
        }
    }

    fn handle_found(&mut self, finder: Finder, found: Vec<(PeerId, Multiaddr)>, now: Now) -> Vec<Action> {
        for (peer, address) in found {
            if finder == Finder::Beacon {
                self.peers.handle_neighbour(peer, &address);
            }
            self.contacts.handle_found(finder, peer, address, now.mono);
        }
        self.dial(now)
    }

    fn handle_lost(&mut self, finder: Finder, peers: &[PeerId]) -> Vec<Action> {
        for peer in peers {
            if finder == Finder::Beacon {
                self.peers.forget_neighbour(peer);
            }
            self.contacts.handle_lost(finder, peer);
        }
        Vec::new()
    }

    fn handle_listening(&mut self, address: Multiaddr, now: Now) -> Vec<Action> {
        self.reachability.handle_listening(&address);
        let mut actions = vec![Action::Announce(address)];
        actions.extend(self.refresh(now));
        actions
    }

    fn handle_confirmed(&mut self, address: Multiaddr, now: Now) -> Vec<Action> {
        self.reachability.handle_confirmed(&address);
        let mut actions = self.refresh(now);
        // libp2p tells every confirmed address to others; those that are not to be told are taken back.
        let is_relayed = PathKind::of(&address) == PathKind::Relayed && self.reachability.may_be_told(&address);
        let is_told = is_relayed || plain(&address).is_some_and(|address| self.told.contains(&address));
        if !is_told {
            actions.push(Action::Withhold(address));
        }
        actions
    }

    fn handle_connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        remote: Multiaddr,
        inbound_at: Option<&Multiaddr>,
        now: Now,
    ) -> Vec<Action> {
        self.contacts.handle_connected(peer, inbound_at.is_none().then_some(&remote), now.mono);
        match inbound_at {
            Some(local) => {
                self.counts.connected_in += 1;
                if PathKind::of(&remote) != PathKind::Relayed && PathKind::of(local) != PathKind::Relayed {
                    self.reachability.handle_inbound(local, &remote);
                }
            }
            None => self.counts.connected_out += 1,
        }
        self.peers.handle_connected(peer, connection, (remote, inbound_at.is_none()), now.mono);
        self.refresh(now)
    }

    fn handle_disconnected(&mut self, peer: PeerId, connection: ConnectionId, remaining: u32, now: Now) -> Vec<Action> {
        self.counts.disconnected += 1;
        self.peers.handle_disconnected(peer, connection);
        if remaining > 0 {
            return self.refresh(now);
        }
        self.contacts.handle_disconnected(&peer, now.mono);
        self.relays.remove(&peer);
        self.reserved.remove(&peer);
        if let Some(node) = node_id(&peer) {
            self.clocks.handle_disconnected(&node);
        }
        let mut actions = vec![Action::Part(peer)];
        actions.extend(self.note_loss(&peer, now));
        actions.extend(self.refresh(now));
        actions
    }

    fn handle_identified(
        &mut self,
        peer: PeerId,
        network: &str,
        agent: &str,
        addresses: &[Multiaddr],
        protocols: &[String],
    ) -> Vec<Action> {
        if network != self.identity.network {
            tracing::debug!(%peer, "the peer is of another network");
            self.counts.other_network += 1;
            self.contacts.forget_found(&peer);
            return vec![self.let_go(peer)];
        }
        self.peers.handle_identified(peer, agent);
        // A peer on the internet that names addresses of a LAN would have us dial into ours.
        let scope = self.peers.scope(&peer).unwrap_or(Scope::Global);
        let is_useful = |address: &&Multiaddr| plain(address).is_some_and(|address| address.scope() >= scope);
        let addresses: Vec<_> = addresses.iter().filter(is_useful).cloned().collect();
        if protocols.iter().any(|name| name == HOP_PROTOCOL)
            && let Some(address) = addresses.first()
            && self.relays.len() < MAX_RELAY_CANDIDATES
        {
            self.relays.insert(peer, address.clone());
        }
        let serves_kad = protocols.contains(&self.identity.kad) && !addresses.is_empty();
        let route = if serves_kad { Action::Route { peer, addresses } } else { Action::Unroute(peer) };
        vec![Action::Meet { peer, is_lan: self.peers.is_lan(&peer) }, route]
    }

    fn handle_directory(&mut self, event: fog_directory::Event, now: Now) -> Vec<Action> {
        use fog_directory::Event as Directory;
        let mut batch = Batch::new();
        match event {
            Directory::Persist { relay, bytes } => {
                batch.put(Table::Descriptors, relay.0, bytes);
                vec![Action::Store(batch), Action::Keep(relay)]
            }
            Directory::Forget { relay } => {
                batch.delete(Table::Descriptors, relay.0);
                vec![Action::Store(batch), Action::Keep(relay)]
            }
            Directory::Publish(bytes) => vec![Action::Publish { topic: Topic::Descriptors, bytes }],
            Directory::Broadcast(bytes) => vec![Action::Publish { topic: Topic::Certificates, bytes }],
            Directory::Record { record, set } => {
                vec![Action::Record(chain::keep_record(&self.identity.network_id, record, set))]
            }
            Directory::SignedTwice { relay } => vec![reputation::signed_twice(relay, now)],
            Directory::KeepLink { epoch, bytes } => {
                vec![Action::StoreSynced(chain::keep_link(&self.identity.network_id, epoch, bytes))]
            }
            Directory::KeepSet { epoch, set, state, forget } => {
                vec![Action::StoreSynced(chain::keep_set(&self.identity.network_id, epoch, (set, state), forget))]
            }
            Directory::Changed => vec![Action::Snapshots],
            Directory::Equivocation { relay } => {
                tracing::debug!(%relay, "a relay signed two descriptors with one sequence number");
                vec![Action::Learn(Evidence::Equivocation(relay))]
            }
            Directory::Clock { peer, offset_ms } => {
                self.clocks.handle_offset(peer, offset_ms);
                Vec::new()
            }
            Directory::Misbehaved { peer } => self.handle_offence(peer, Offence::Invalid, now),
            Directory::Flooding { peer } => self.handle_offence(peer, Offence::Excess, now),
        }
    }

    /// Our public mix keys: of the running epoch and the next at least.
    pub(super) fn set_mix_keys(&mut self, keys: Vec<(Epoch, [u8; 32])>, now: Now) -> Vec<Action> {
        self.mix_keys = keys.into_iter().collect();
        self.refresh(now)
    }

    /// The relays of the snapshot, with their addresses.
    pub(super) fn set_relays(&mut self, relays: impl Iterator<Item = (NodeId, Vec<Address>)>, now: Now) -> Vec<Action> {
        // In a network on the internet only addresses of the internet are dialled; neighbours are found on the LAN.
        let on_internet = self.peers.widest_scope() == Some(Scope::Global);
        let is_useful = |address: &Address| !on_internet || address.scope() == Scope::Global;
        let dialled = relays.filter_map(|(relay, addresses)| {
            Some((peer_id(relay)?, addresses.into_iter().filter(is_useful).filter_map(multiaddr).collect()))
        });
        let dialled: Vec<_> = dialled.collect();
        self.seated = dialled.iter().map(|(peer, _)| *peer).collect();
        self.contacts.set_relays(dialled, now.mono);
        self.dial(now)
    }

    /// Nobody listened when this was published.
    pub(super) fn keep_unpublished(&mut self, topic: Topic, bytes: Vec<u8>) {
        if self.unpublished.len() >= MAX_UNPUBLISHED {
            self.unpublished.pop_front();
            self.drops.count(DropReason::QueueFull);
        }
        self.unpublished.push_back((topic, bytes));
    }

    /// What is due: dials, the end of bans, room for others, messages that wait, the descriptor of a new epoch.
    pub(super) fn tick(&mut self, now: Now) -> Vec<Action> {
        let mut actions: Vec<_> = self.peers.pardon(now.unix).into_iter().map(Action::Unblock).collect();
        actions.extend(self.note_links(now));
        actions.extend(self.refresh(now));
        actions.extend(self.dial(now));
        actions.extend(self.make_room(now));
        actions.extend(self.reserve(now));
        if self.peers.count() > 0 {
            let waiting = self.unpublished.drain(..);
            actions.extend(waiting.map(|(topic, bytes)| Action::Publish { topic, bytes }));
        }
        actions
    }

    fn dial(&mut self, now: Now) -> Vec<Action> {
        let room = self.identity.max_connections.saturating_sub(self.peers.connections());
        let peers = &self.peers;
        let out_of_reach = |peer: &PeerId| peers.is_connected(peer) || peers.is_banned(peer);
        self.contacts.due(out_of_reach, peers.count(), room / 2, now.mono).into_iter().map(Action::Dial).collect()
    }

    fn make_room(&mut self, now: Now) -> Vec<Action> {
        let allowed = self.identity.max_connections * CROWDED_EIGHTHS / 8;
        let excess = self.peers.connections().saturating_sub(allowed);
        if excess == 0 {
            return Vec::new();
        }
        let wanted = |peer: &PeerId| self.contacts.is_wanted(peer) || self.seated.contains(peer);
        let expendable = self.peers.expendable(wanted, GRACE, now.mono);
        expendable.into_iter().take(excess).map(|peer| self.let_go(peer)).collect()
    }

    /// On the internet and not reachable: others are asked to relay for us.
    fn reserve(&mut self, now: Now) -> Vec<Action> {
        let is_needed = self.told.is_empty()
            && self.peers.widest_scope() == Some(Scope::Global)
            && now.mono.saturating_duration_since(self.unreachable_since) >= RESERVE_AFTER;
        let room = MAX_RESERVATIONS.saturating_sub(self.reserved.len());
        if !is_needed || room == 0 {
            return Vec::new();
        }
        let fresh = self.relays.iter().filter(|(peer, _)| !self.reserved.contains(peer)).take(room);
        let chosen: Vec<_> = fresh.map(|(peer, address)| (*peer, address.clone())).collect();
        self.reserved.extend(chosen.iter().map(|(peer, _)| *peer));
        let at = |(peer, address): (PeerId, Multiaddr)| address.with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
        chosen.into_iter().map(|relay| Action::Reserve(at(relay))).collect()
    }

    /// Brings what is told to others up to date with what is true.
    fn refresh(&mut self, now: Now) -> Vec<Action> {
        self.reachability.set_network(self.peers.widest_scope());
        let addresses = self.reachability.advertised();
        if !addresses.is_empty() {
            self.unreachable_since = now.mono;
        }
        let new: BTreeSet<_> = addresses.iter().copied().collect();
        let to_action = |address: &Address, action: fn(Multiaddr) -> Action| multiaddr(*address).map(action);
        let mut actions: Vec<_> = self.told.difference(&new).filter_map(|a| to_action(a, Action::Withhold)).collect();
        actions.extend(new.difference(&self.told).filter_map(|a| to_action(a, Action::Tell)));
        self.told = new;
        let serving = !addresses.is_empty() && !self.identity.roles.is_empty();
        if serving != self.serving {
            self.serving = serving;
            actions.push(Action::Serve(serving));
        }
        let described = self.facts(addresses, now);
        if described != self.described {
            self.described = described.clone();
            actions.push(Action::Describe(described));
        }
        actions
    }

    fn facts(&self, addresses: Vec<Address>, now: Now) -> Option<(Epoch, Facts)> {
        let epoch = self.identity.schedule.at(now.unix);
        let key = |epoch| self.mix_keys.get(&epoch).copied();
        let facts = Facts {
            addresses,
            roles: self.identity.roles,
            mix_keys: [key(epoch)?, key(epoch.next())?],
            seal_key: self.identity.seal_key,
            circuit_key: None,
            capacity: self.identity.capacity,
            mix_versions: fog_mix::core::VERSIONS.to_vec(),
            family: None,
            exit_policy: None,
        };
        self.serving.then_some((epoch, facts))
    }

    /// Whether this node serves others: it has roles, and can be reached.
    pub(super) fn is_serving(&self) -> bool {
        self.serving
    }

    /// How many messages wait for somebody to listen, and how many may.
    pub(super) fn unpublished(&self) -> (usize, usize) {
        (self.unpublished.len(), MAX_UNPUBLISHED)
    }
}

#[cfg(test)]
#[path = "wiring_tests.rs"]
mod tests;
