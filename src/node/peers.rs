//! The peers of a node: how each is connected, how it behaves, and when that is enough of it.
//!
//! A score of 0 is neutral and decays towards it; below −100 a peer is banned for an hour. Only what a peer certainly did itself
//! lowers its score. Scores outlive connections, or a peer would come back clean; the table is bounded.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_directory::{Scope, core::address::scope};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};

use super::reachability::ip;

/// Half of a score is forgotten after this time.
const HALF_LIFE: Duration = Duration::from_secs(600);
/// Below this score a peer is banned.
const BAN_SCORE: f64 = -100.0;
const BAN_TIME: Duration = Duration::from_secs(3600);
/// Peers whose scores are remembered after they left.
const MAX_REMEMBERED: usize = 1024;

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

/// What a peer did that lowers its score, and by how much: a third offence of the middle kind bans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offence {
    /// What no honest peer sends: an invalid record, an answer to another question.
    Invalid,
    /// More than it may send.
    Flood,
}

impl Offence {
    fn cost(self) -> f64 {
        match self {
            Self::Invalid => 40.0,
            Self::Flood => 10.0,
        }
    }
}

#[derive(Debug, Clone)]
struct Connection {
    address: Multiaddr,
    since: Instant,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    connections: BTreeMap<ConnectionId, Connection>,
    agent: String,
    is_identified: bool,
    rtt: Option<Duration>,
    score: f64,
    scored_at: Option<Instant>,
    banned_until: Option<Instant>,
}

impl Entry {
    fn score(&self, now: Instant) -> f64 {
        let age = self.scored_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.score * (-(age.as_secs_f64() / HALF_LIFE.as_secs_f64())).exp2()
    }

    /// The connection with the best path; of several the oldest.
    fn best(&self) -> Option<(&Connection, PathKind)> {
        let with_path = self.connections.values().map(|connection| (connection, PathKind::of(&connection.address)));
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
    /// 0 is neutral.
    pub(super) score: f64,
    /// For how long it is connected.
    pub(super) connected: Duration,
}

/// All peers that are connected or remembered.
#[derive(Debug, Default)]
pub(super) struct Peers {
    entries: BTreeMap<PeerId, Entry>,
}

impl Peers {
    /// A connection was made.
    pub(super) fn handle_connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        address: Multiaddr,
        now: Instant,
    ) {
        let entry = self.entries.entry(peer).or_default();
        entry.connections.insert(connection, Connection { address, since: now });
    }

    /// A connection is gone.
    pub(super) fn handle_disconnected(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        entry.connections.remove(&connection);
        if entry.connections.is_empty() {
            entry.rtt = None;
            entry.is_identified = false;
        }
        self.forget(now);
    }

    /// Drops those who left with a clean score, and the cleanest ones when there are too many.
    fn forget(&mut self, now: Instant) {
        self.entries.retain(|_, entry| {
            !entry.connections.is_empty() || entry.banned_until.is_some() || entry.score(now) < -1.0
        });
        let gone = self.entries.iter().filter(|(_, entry)| entry.connections.is_empty());
        let mut gone: Vec<_> = gone.map(|(peer, entry)| (*peer, entry.score(now))).collect();
        if gone.len() > MAX_REMEMBERED {
            gone.sort_by(|a, b| b.1.total_cmp(&a.1));
            for (peer, _) in gone.iter().take(gone.len() - MAX_REMEMBERED) {
                self.entries.remove(peer);
            }
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

    /// Lowers a peer's score; true if it is banned from now on.
    pub(super) fn punish(&mut self, peer: PeerId, offence: Offence, now: Instant) -> bool {
        let entry = self.entries.entry(peer).or_default();
        entry.score = (entry.score(now) - offence.cost()).max(2.0 * BAN_SCORE);
        entry.scored_at = Some(now);
        let is_new = entry.score < BAN_SCORE && entry.banned_until.is_none();
        if is_new {
            entry.banned_until = Some(now + BAN_TIME);
        }
        is_new
    }

    /// Ends the bans that are over, and says whose.
    pub(super) fn pardon(&mut self, now: Instant) -> Vec<PeerId> {
        let over = self.entries.iter_mut().filter(|(_, entry)| entry.banned_until.is_some_and(|until| now >= until));
        over.map(|(peer, entry)| {
            entry.banned_until = None;
            *peer
        })
        .collect()
    }

    /// Whether a peer is connected.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| !entry.connections.is_empty())
    }

    /// Whether it is connected and of our network.
    pub(super) fn is_identified(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.is_identified)
    }

    /// Whether it is banned.
    pub(super) fn is_banned(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.banned_until.is_some())
    }

    /// The last round trip to a peer.
    pub(super) fn rtt(&self, peer: &PeerId) -> Option<Duration> {
        self.entries.get(peer)?.rtt
    }

    fn connected(&self) -> impl Iterator<Item = (&PeerId, &Entry)> {
        self.entries.iter().filter(|(_, entry)| !entry.connections.is_empty())
    }

    /// How many peers of our network are connected.
    pub(super) fn count(&self) -> usize {
        self.connected().filter(|(_, entry)| entry.is_identified).count()
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> usize {
        self.entries.values().map(|entry| entry.connections.len()).sum()
    }

    /// Connected peers without a place in `keep`, that are connected for `age` at least: the worst first.
    pub(super) fn expendable(&self, keep: impl Fn(&PeerId) -> bool, age: Duration, now: Instant) -> Vec<PeerId> {
        let old = |entry: &Entry| entry.best().is_some_and(|(c, _)| now.saturating_duration_since(c.since) >= age);
        let mut peers: Vec<_> = self
            .connected()
            .filter(|(peer, entry)| !keep(peer) && old(entry))
            .map(|(p, e)| (*p, e.score(now)))
            .collect();
        peers.sort_by(|a, b| a.1.total_cmp(&b.1));
        peers.into_iter().map(|(peer, _)| peer).collect()
    }

    /// The widest scope of the peers' addresses, relayed ones left out.
    pub(super) fn widest_scope(&self) -> Option<Scope> {
        let connections = self.connected().flat_map(|(_, entry)| entry.connections.values());
        let direct = connections.filter(|connection| PathKind::of(&connection.address) != PathKind::Relayed);
        direct.filter_map(|connection| ip(&connection.address).and_then(scope)).max()
    }

    /// The narrowest scope in which a peer is connected directly: addresses of a narrower one mean nothing there.
    pub(super) fn scope(&self, peer: &PeerId) -> Option<Scope> {
        let connections = self.entries.get(peer)?.connections.values();
        let direct = connections.filter(|connection| PathKind::of(&connection.address) != PathKind::Relayed);
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
                score: entry.score(now),
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
        peers.handle_connected(peer, ConnectionId::new_unchecked(n), address.parse().unwrap(), now);
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
        peers.handle_connected(peer, ConnectionId::new_unchecked(2), "/ip4/8.8.4.4/tcp/1".parse().unwrap(), now);
        assert_eq!(path(&peers), Some(PathKind::Direct));
        peers.handle_connected(peer, ConnectionId::new_unchecked(3), "/ip6/fe80::1/tcp/1".parse().unwrap(), now);
        assert_eq!(path(&peers), Some(PathKind::Lan));
        assert_eq!((peers.count(), peers.connections()), (1, 3));
        for n in 1..4 {
            peers.handle_disconnected(peer, ConnectionId::new_unchecked(n), now);
        }
        assert_eq!((peers.count(), peers.entries.len()), (0, 0), "a clean peer that left is forgotten");
    }

    #[test]
    fn the_third_invalid_record_bans_and_the_ban_ends() {
        let (mut peers, now) = (Peers::default(), now());
        let peer = connected(&mut peers, 1, "/ip4/8.8.8.8/tcp/1", now);
        assert!(!peers.punish(peer, Offence::Invalid, now));
        assert!(!peers.punish(peer, Offence::Invalid, now));
        assert!(peers.punish(peer, Offence::Invalid, now));
        assert!(!peers.punish(peer, Offence::Invalid, now), "a ban is told once");
        peers.handle_disconnected(peer, ConnectionId::new_unchecked(1), now);
        assert!(peers.is_banned(&peer), "leaving does not help");
        assert_eq!(peers.pardon(now + BAN_TIME - Duration::from_secs(1)), []);
        assert_eq!(peers.pardon(now + BAN_TIME), [peer]);
        assert!(!peers.is_banned(&peer));
    }

    #[test]
    fn a_score_halves_in_ten_minutes() {
        let (mut peers, now) = (Peers::default(), now());
        let peer = connected(&mut peers, 1, "/ip4/8.8.8.8/tcp/1", now);
        peers.punish(peer, Offence::Invalid, now);
        let score = |time| peers.views(time).first().map_or(0.0, |view| view.score);
        assert!((score(now) + 40.0).abs() < 1e-9);
        assert!((score(now + HALF_LIFE) + 20.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_remembered_of_those_who_left_is_bounded() {
        let (mut peers, now) = (Peers::default(), now());
        for n in 0..MAX_REMEMBERED + 100 {
            let peer = connected(&mut peers, n, "/ip4/8.8.8.8/tcp/1", now);
            peers.punish(peer, Offence::Flood, now);
            peers.handle_disconnected(peer, ConnectionId::new_unchecked(n), now);
        }
        assert_eq!(peers.entries.len(), MAX_REMEMBERED);
    }

    #[test]
    fn the_expendable_are_old_enough_and_the_worst_come_first() {
        let (mut peers, now) = (Peers::default(), now());
        let [good, bad, kept] = [1, 2, 3].map(|n| connected(&mut peers, n, "/ip4/8.8.8.8/tcp/1", now));
        peers.punish(bad, Offence::Flood, now);
        let age = Duration::from_secs(60);
        assert_eq!(peers.expendable(|peer| *peer == kept, age, now), []);
        assert_eq!(peers.expendable(|peer| *peer == kept, age, now + age), [bad, good]);
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
