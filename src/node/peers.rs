//! The peers of a node: how each is connected, and who is kept out.
//!
//! What a peer did, and when that is enough, is fog-reputation's to say: here are its penalties, as they are shown, and its bans.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use fog_base::UnixMillis;
use fog_directory::{Scope, core::address::scope};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};

use super::reachability::ip;

/// Bans that are remembered: as many as fog-reputation knows peers.
const MAX_BANS: usize = 4_096;
/// Neighbours whose addresses are remembered: as many as fog-lan knows.
const MAX_NEIGHBOURS: usize = 256;
const MAX_NEIGHBOUR_ADDRESSES: usize = 8;

/// How packets get to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathKind {
    /// On this host or the local network.
    Lan,
    /// Over the internet, without a relay between.
    Direct,
    /// Through a libp2p relay.
    Relayed,
}

impl PathKind {
    /// The name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }

    /// The path of a connection with `address` at its other end.
    pub(super) fn of(address: &Multiaddr) -> Self {
        if address.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
            return Self::Relayed;
        }
        // A link-local address has no scope to be told in, and is on the LAN all the same.
        match ip(address).map(scope) {
            Some(Some(Scope::Global)) | None => Self::Direct,
            Some(_) => Self::Lan,
        }
    }
}

#[derive(Debug, Clone)]
struct Connection {
    address: Multiaddr,
    path: PathKind,
    is_outbound: bool,
    since: Instant,
}

/// Of two bans the lesser ends first if there are too many: those of peers with whom this node has had nothing to do, then those that end
/// sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ban {
    met: bool,
    until: UnixMillis,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    connections: BTreeMap<ConnectionId, Connection>,
    agent: String,
    is_identified: bool,
    rtt: Option<Duration>,
    penalty: f64,
}

impl Entry {
    /// The connection with the best path; of several the oldest.
    fn best(&self) -> Option<(&Connection, PathKind)> {
        let with_path = self.connections.values().map(|connection| (connection, connection.path));
        with_path.min_by_key(|(connection, path)| (*path, connection.since))
    }
}

/// A connected peer, for reports.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PeerView {
    /// Who.
    pub(super) id: PeerId,
    /// The other end of its best connection.
    pub(super) address: Multiaddr,
    /// That connection's path.
    pub(super) path: PathKind,
    /// The last round trip.
    pub(super) rtt: Option<Duration>,
    /// What it says it is.
    pub(super) agent: String,
    /// 0 is neutral; its penalty is taken off.
    pub(super) score: f64,
    /// For how long it is connected.
    pub(super) connected: Duration,
}

/// All peers that are connected, and those who are banned.
#[derive(Debug, Default)]
pub(super) struct Peers {
    entries: BTreeMap<PeerId, Entry>,
    /// Addresses on this host's own networks that peers told by beacon, whatever their scope.
    neighbours: BTreeMap<PeerId, BTreeSet<IpAddr>>,
    bans: BTreeMap<PeerId, Ban>,
}

impl Peers {
    /// A connection was made.
    pub(super) fn handle_connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        (address, is_outbound): (Multiaddr, bool),
        now: Instant,
    ) {
        let on_lan = |ip: IpAddr| self.neighbours.get(&peer).is_some_and(|ips| ips.contains(&ip.to_canonical()));
        let path = match PathKind::of(&address) {
            PathKind::Direct if ip(&address).is_some_and(on_lan) => PathKind::Lan,
            path => path,
        };
        let entry = self.entries.entry(peer).or_default();
        entry.connections.insert(connection, Connection { address, path, is_outbound, since: now });
    }

    /// A peer's beacon came from this address, which is on one of this host's networks: connections to it there are of the LAN, also
    /// where each host of the LAN has an address of the internet.
    pub(super) fn handle_neighbour(&mut self, peer: PeerId, address: &Multiaddr) {
        let Some(neighbour) = ip(address).map(|ip| ip.to_canonical()) else { return };
        if self.neighbours.len() < MAX_NEIGHBOURS || self.neighbours.contains_key(&peer) {
            let addresses = self.neighbours.entry(peer).or_default();
            if addresses.len() >= MAX_NEIGHBOUR_ADDRESSES {
                addresses.clear();
            }
            addresses.insert(neighbour);
        }
        let connections = self.entries.get_mut(&peer).into_iter().flat_map(|entry| entry.connections.values_mut());
        for connection in connections.filter(|connection| connection.path == PathKind::Direct) {
            if ip(&connection.address).is_some_and(|ip| ip.to_canonical() == neighbour) {
                connection.path = PathKind::Lan;
            }
        }
    }

    /// Its beacons are heard no more; connections stay what they are.
    pub(super) fn forget_neighbour(&mut self, peer: &PeerId) {
        self.neighbours.remove(peer);
    }

    /// A connection is gone.
    pub(super) fn handle_disconnected(&mut self, peer: PeerId, connection: ConnectionId) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        entry.connections.remove(&connection);
        if entry.connections.is_empty() {
            self.entries.remove(&peer);
        }
    }

    /// A peer said what it is.
    pub(super) fn handle_identified(&mut self, peer: PeerId, agent: &str) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.agent = agent.chars().filter(|c| !c.is_control()).take(64).collect();
            entry.is_identified = true;
        }
    }

    /// A round trip was measured.
    pub(super) fn handle_ping(&mut self, peer: PeerId, rtt: Duration) {
        if let Some(entry) = self.entries.get_mut(&peer).filter(|entry| !entry.connections.is_empty()) {
            entry.rtt = Some(rtt);
        }
    }

    /// What fog-reputation holds against each connected peer now.
    pub(super) fn set_penalties(&mut self, penalty: impl Fn(&PeerId) -> f64) {
        for (peer, entry) in &mut self.entries {
            entry.penalty = penalty(peer);
        }
    }

    /// Keeps a peer out until then; `met` if this node has experience of its own with it. Of too many bans one ends now: that peer is
    /// returned, which may be this one.
    pub(super) fn ban(&mut self, peer: PeerId, until: UnixMillis, met: bool) -> Option<PeerId> {
        let ban = self.bans.entry(peer).or_insert(Ban { met, until });
        *ban = Ban { met: ban.met || met, until: ban.until.max(until) };
        if self.bans.len() <= MAX_BANS {
            return None;
        }
        let least = self.bans.iter().min_by_key(|(_, ban)| **ban).map(|(peer, _)| *peer)?;
        self.bans.remove(&least);
        Some(least)
    }

    /// Ends the bans that are over, and says whose.
    pub(super) fn pardon(&mut self, now: UnixMillis) -> Vec<PeerId> {
        let over: Vec<_> = self.bans.iter().filter(|(_, ban)| now >= ban.until).map(|(peer, _)| *peer).collect();
        self.bans.retain(|_, ban| now < ban.until);
        over
    }

    /// Whether a peer is connected.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| !entry.connections.is_empty())
    }

    /// Whether it is connected and of our network.
    pub(super) fn is_identified(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.is_identified)
    }

    /// Whether its best path is on this host or the local network.
    pub(super) fn is_lan(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).and_then(Entry::best).is_some_and(|(_, path)| path == PathKind::Lan)
    }

    /// Whether it is banned.
    pub(super) fn is_banned(&self, peer: &PeerId) -> bool {
        self.bans.contains_key(peer)
    }

    /// The last round trip to a peer.
    pub(super) fn rtt(&self, peer: &PeerId) -> Option<Duration> {
        self.entries.get(peer)?.rtt
    }

    fn connected(&self) -> impl Iterator<Item = (&PeerId, &Entry)> {
        self.entries.iter().filter(|(_, entry)| !entry.connections.is_empty())
    }

    /// The connected peers of our network.
    pub(super) fn identified(&self) -> impl Iterator<Item = &PeerId> {
        self.connected().filter(|(_, entry)| entry.is_identified).map(|(peer, _)| peer)
    }

    /// How many those are.
    pub(super) fn count(&self) -> usize {
        self.identified().count()
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> usize {
        self.entries.values().map(|entry| entry.connections.len()).sum()
    }

    /// Connected peers without a place in `keep` that this node did not dial, and that are connected for `age` at least: the worst
    /// first, and of equals the newest. Ids can be ground and connections made again; long ones cannot be had at once.
    pub(super) fn expendable(&self, keep: impl Fn(&PeerId) -> bool, age: Duration, now: Instant) -> Vec<PeerId> {
        let dialled = |entry: &Entry| entry.connections.values().any(|connection| connection.is_outbound);
        let since = |entry: &Entry| entry.best().map(|(connection, _)| connection.since);
        let old = |since: &Instant| now.saturating_duration_since(*since) >= age;
        let others = self.connected().filter(|(peer, entry)| !keep(peer) && !dialled(entry));
        let mut peers: Vec<_> =
            others.filter_map(|(peer, entry)| Some((*peer, entry.penalty, since(entry).filter(old)?))).collect();
        peers.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.cmp(&a.2)));
        peers.into_iter().map(|(peer, ..)| peer).collect()
    }

    /// The widest scope of the peers' addresses, relayed ones left out.
    pub(super) fn widest_scope(&self) -> Option<Scope> {
        let connections = self.connected().flat_map(|(_, entry)| entry.connections.values());
        let direct = connections.filter(|connection| connection.path != PathKind::Relayed);
        direct.filter_map(|connection| ip(&connection.address).and_then(scope)).max()
    }

    /// The narrowest scope in which a peer is connected directly: addresses of a narrower one mean nothing there.
    pub(super) fn scope(&self, peer: &PeerId) -> Option<Scope> {
        let connections = self.entries.get(peer)?.connections.values();
        let direct = connections.filter(|connection| connection.path != PathKind::Relayed);
        direct.filter_map(|connection| ip(&connection.address).and_then(scope)).min()
    }

    /// The connected peers of our network.
    pub(super) fn views(&self, now: Instant) -> Vec<PeerView> {
        let view = |(id, entry): (&PeerId, &Entry)| {
            let (connection, path) = entry.best()?;
            let since = entry.connections.values().map(|connection| connection.since).min()?;
            Some(PeerView {
                id: *id,
                address: connection.address.clone(),
                path,
                rtt: entry.rtt,
                agent: entry.agent.clone(),
                score: 0.0 - entry.penalty,
                connected: now.saturating_duration_since(since),
            })
        };
        self.connected().filter(|(_, entry)| entry.is_identified).filter_map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(peers: &mut Peers, n: usize, address: &str, now: Instant) -> PeerId {
        let peer = PeerId::random();
        peers.handle_connected(peer, ConnectionId::new_unchecked(n), (address.parse().unwrap(), false), now);
        peers.handle_identified(peer, "fog/1");
        peer
    }

    fn now() -> Instant {
        crate::node::clock::now().mono
    }

    #[test]
    fn the_path_follows_the_best_connection() {
        let (mut peers, now) = (Peers::default(), now());
        let peer = connected(&mut peers, 1, "/ip4/8.8.8.8/tcp/1/p2p-circuit", now);
        let path = |peers: &Peers| peers.views(now).first().map(|view| view.path);
        assert_eq!(path(&peers), Some(PathKind::Relayed));
        let again = |n: usize, text: &str| (ConnectionId::new_unchecked(n), (text.parse().unwrap(), false));
        let (connection, address) = again(2, "/ip4/8.8.4.4/tcp/1");
        peers.handle_connected(peer, connection, address, now);
        assert_eq!(path(&peers), Some(PathKind::Direct));
        let (connection, address) = again(3, "/ip6/fe80::1/tcp/1");
        peers.handle_connected(peer, connection, address, now);
        assert_eq!(path(&peers), Some(PathKind::Lan));
        assert_eq!((peers.count(), peers.connections()), (1, 3));
        for n in 1..4 {
            peers.handle_disconnected(peer, ConnectionId::new_unchecked(n));
        }
        assert_eq!((peers.count(), peers.entries.len()), (0, 0), "a peer that left is forgotten");
    }

    #[test]
    fn a_neighbour_by_beacon_is_of_the_lan_at_that_address_alone() {
        let (mut peers, now) = (Peers::default(), now());
        let path = |peers: &Peers, peer| peers.views(now).iter().find(|view| view.id == peer).map(|view| view.path);
        let before = connected(&mut peers, 1, "/ip6/2001:db8::1/tcp/1", now);
        assert_eq!(path(&peers, before), Some(PathKind::Direct));
        peers.handle_neighbour(before, &"/ip6/2001:db8::1/tcp/9".parse().unwrap());
        assert_eq!(path(&peers, before), Some(PathKind::Lan));
        peers.forget_neighbour(&before);
        assert_eq!(path(&peers, before), Some(PathKind::Lan), "its connection is what it was");
        let [elsewhere, after] = [(); 2].map(|()| PeerId::random());
        for (n, peer, address) in
            [(2, elsewhere, "/ip6/2001:db8:9::1/tcp/1"), (3, after, "/ip6/2001:db8::2/udp/1/quic-v1")]
        {
            peers.handle_neighbour(peer, &"/ip6/2001:db8::2/tcp/9".parse().unwrap());
            peers.handle_connected(peer, ConnectionId::new_unchecked(n), (address.parse().unwrap(), true), now);
            peers.handle_identified(peer, "fog/1");
        }
        assert_eq!((path(&peers, elsewhere), path(&peers, after)), (Some(PathKind::Direct), Some(PathKind::Lan)));
        (0..2 * MAX_NEIGHBOURS)
            .for_each(|_| peers.handle_neighbour(PeerId::random(), &"/ip4/10.0.0.1/tcp/1".parse().unwrap()));
        assert_eq!(peers.neighbours.len(), MAX_NEIGHBOURS);
    }

    #[test]
    fn a_ban_outlives_the_connection_and_ends() {
        let (mut peers, now) = (Peers::default(), now());
        let peer = connected(&mut peers, 1, "/ip4/8.8.8.8/tcp/1", now);
        assert_eq!(peers.ban(peer, UnixMillis(5_000), true), None);
        peers.handle_disconnected(peer, ConnectionId::new_unchecked(1));
        assert!(peers.is_banned(&peer), "leaving does not help");
        assert_eq!(peers.pardon(UnixMillis(4_999)), []);
        assert_eq!(peers.pardon(UnixMillis(5_000)), [peer]);
        assert!(!peers.is_banned(&peer));
    }

    #[test]
    fn bans_are_bounded_and_the_one_that_ends_first_goes_first() {
        let mut peers = Peers::default();
        let first = PeerId::random();
        assert_eq!(peers.ban(first, UnixMillis(1), true), None);
        let displaced: Vec<_> =
            (0..MAX_BANS).filter_map(|n| peers.ban(PeerId::random(), UnixMillis(2 + n as u64), true)).collect();
        assert_eq!((displaced, peers.bans.len()), (vec![first], MAX_BANS));
    }

    #[test]
    fn a_ban_for_a_mere_proof_ends_no_other_and_goes_first() {
        let mut peers = Peers::default();
        (0..MAX_BANS - 1).for_each(|n| assert!(peers.ban(PeerId::random(), UnixMillis(2 + n as u64), true).is_none()));
        let [proven, other, met] = [(); 3].map(|()| PeerId::random());
        assert_eq!(peers.ban(proven, UnixMillis(90_000), false), None);
        assert_eq!(peers.ban(other, UnixMillis(80_000), false), Some(other), "there is no room for it");
        assert_eq!(peers.ban(met, UnixMillis(1), true), Some(proven));
        assert_eq!(peers.ban(met, UnixMillis(0), false), None);
        assert!(peers.pardon(UnixMillis(0)).is_empty(), "a proof shortens no ban");
        assert_eq!(
            peers.ban(other, UnixMillis(80_000), false),
            Some(other),
            "nor does it make it one for a mere proof"
        );
    }

    #[test]
    fn a_penalty_is_shown_below_zero() {
        let (mut peers, now) = (Peers::default(), now());
        let peer = connected(&mut peers, 1, "/ip4/8.8.8.8/tcp/1", now);
        let score = |peers: &Peers| peers.views(now).first().map(|view| view.score);
        assert_eq!(score(&peers), Some(0.0));
        peers.set_penalties(|of| if *of == peer { 2.5 } else { 0.0 });
        assert_eq!(score(&peers), Some(-2.5));
    }

    #[test]
    fn the_expendable_are_old_enough_and_the_worst_come_first() {
        let (mut peers, now) = (Peers::default(), now());
        let [good, bad, kept] = [1, 2, 3].map(|n| connected(&mut peers, n, "/ip4/8.8.8.8/tcp/1", now));
        peers.set_penalties(|peer| f64::from(u8::from(*peer == bad)));
        let age = Duration::from_secs(60);
        assert_eq!(peers.expendable(|peer| *peer == kept, age, now), []);
        assert_eq!(peers.expendable(|peer| *peer == kept, age, now + age), [bad, good]);
    }

    #[test]
    fn of_equals_the_newest_is_expendable_first_and_whom_this_node_dialled_not_at_all() {
        let (mut peers, start) = (Peers::default(), now());
        let age = Duration::from_secs(60);
        let by_age: Vec<_> =
            (0..9).map(|n| connected(&mut peers, n, "/ip4/8.8.8.8/tcp/1", start + age * n as u32)).collect();
        let address = ("/ip4/8.8.8.8/tcp/1".parse().unwrap(), true);
        peers.handle_connected(PeerId::random(), ConnectionId::new_unchecked(9), address, start);
        let expendable = peers.expendable(|_| false, age, start + age * 9);
        assert_eq!(expendable, by_age.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn the_widest_scope_counts_direct_connections_only() {
        let (mut peers, now) = (Peers::default(), now());
        connected(&mut peers, 1, "/ip4/192.168.1.1/tcp/1", now);
        connected(&mut peers, 2, "/ip4/8.8.8.8/tcp/1/p2p-circuit", now);
        assert_eq!(peers.widest_scope(), Some(Scope::Private));
        connected(&mut peers, 3, "/ip4/8.8.8.8/tcp/1", now);
        assert_eq!(peers.widest_scope(), Some(Scope::Global));
    }
}
