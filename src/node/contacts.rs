//! Whom to dial, and when: bootstrap peers while there are few others, neighbours that were found, and the relays of the snapshot
//! while they are few, so that a mix link is there before the first packet needs it.
//!
//! Failures wait twice as long each time. Of two nodes that find each other at the same time the one with the larger id waits a
//! moment, so that usually one connection is made and not two.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Bootstrap peers are dialled while fewer peers are connected.
const FEW_PEERS: usize = 8;
/// Relays of the snapshot are dialled while there are at most so many.
pub(super) const MAX_RELAYS: usize = 48;
const MAX_FOUND: usize = 256;
const MAX_ADDRESSES: usize = 8;
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(120);
/// A bootstrap peer is the only way in: it is tried more often.
const LONGEST_BOOTSTRAP_DELAY: Duration = Duration::from_secs(15);
/// How long the larger id waits for the smaller one's dial.
const COURTESY: Duration = Duration::from_millis(1500);
/// Dials in one round.
const MAX_DIALS: usize = 8;

/// Why somebody is a contact; the first applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Bootstrap,
    Relay,
    Found,
}

/// What finds neighbours on the local network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finder {
    /// mDNS on IPv4: anybody says anything.
    MdnsV4,
    /// mDNS on IPv6.
    MdnsV6,
    /// Our own beacon: signed, and from the address that it names.
    Beacon,
}

#[derive(Debug)]
struct Contact {
    reason: Reason,
    /// What finds it now.
    finders: BTreeSet<Finder>,
    addresses: Vec<Multiaddr>,
    failures: u32,
    next: Instant,
    /// Whether a dial is under way that is told of here.
    is_dialled: bool,
}

/// Somebody to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dial {
    /// Who, if that is known.
    pub(super) peer: Option<PeerId>,
    /// Where.
    pub(super) addresses: Vec<Multiaddr>,
}

/// Everybody that this node may dial of its own accord.
#[derive(Debug)]
pub(super) struct Contacts {
    me: PeerId,
    by_peer: BTreeMap<PeerId, Contact>,
    /// Bootstrap addresses whose peer is not known yet.
    nameless: Vec<(Multiaddr, u32, Instant)>,
}

/// The peer id at the end of an address, and the address without it.
pub(super) fn split(address: &Multiaddr) -> (Option<PeerId>, Multiaddr) {
    let mut bare = address.clone();
    match bare.pop() {
        Some(Protocol::P2p(peer)) => (Some(peer), bare),
        _ => (None, address.clone()),
    }
}

impl Contacts {
    /// With the bootstrap addresses.
    pub(super) fn new(me: PeerId, bootstrap: &[Multiaddr], now: Instant) -> Self {
        let mut contacts = Self { me, by_peer: BTreeMap::new(), nameless: Vec::new() };
        for address in bootstrap {
            match split(address) {
                (Some(peer), bare) => contacts.add(peer, vec![bare], Reason::Bootstrap, now),
                (None, bare) => contacts.nameless.push((bare, 0, now)),
            }
        }
        contacts
    }

    fn add(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reason: Reason, now: Instant) {
        if peer == self.me {
            return;
        }
        let courtesy = if reason != Reason::Bootstrap && self.me > peer { COURTESY } else { Duration::ZERO };
        let contact = self.by_peer.entry(peer).or_insert_with(|| Contact {
            reason,
            finders: BTreeSet::new(),
            addresses: Vec::new(),
            failures: 0,
            next: now + courtesy,
            is_dialled: false,
        });
        contact.reason = contact.reason.min(reason);
        for address in addresses {
            if contact.addresses.contains(&address) {
                continue;
            }
            if contact.addresses.len() >= MAX_ADDRESSES {
                contact.addresses.remove(0);
            }
            contact.addresses.push(address);
        }
    }

    /// How many there are for each reason: bootstrap peers, relays, neighbours.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let of = |reason| self.by_peer.values().filter(|contact| contact.reason == reason).count();
        (of(Reason::Bootstrap) + self.nameless.len(), of(Reason::Relay), of(Reason::Found))
    }

    /// A neighbour was found.
    pub(super) fn handle_found(&mut self, finder: Finder, peer: PeerId, address: Multiaddr, now: Instant) {
        let found = self.by_peer.values().filter(|contact| contact.reason == Reason::Found).count();
        if found < MAX_FOUND || self.by_peer.contains_key(&peer) {
            self.add(peer, vec![split(&address).1], Reason::Found, now);
        }
        if let Some(contact) = self.by_peer.get_mut(&peer) {
            contact.finders.insert(finder);
        }
    }

    /// A neighbour is found no more; what nothing else finds, and nothing else needs, is dialled no more.
    pub(super) fn handle_lost(&mut self, finder: Finder, peer: &PeerId) {
        let Some(contact) = self.by_peer.get_mut(peer) else { return };
        contact.finders.remove(&finder);
        if contact.finders.is_empty() {
            self.forget_found(peer);
        }
    }

    /// The relays of the snapshot changed; many are not kept connected.
    pub(super) fn set_relays(&mut self, relays: Vec<(PeerId, Vec<Multiaddr>)>, now: Instant) {
        let few = relays.len() <= MAX_RELAYS;
        let stays = |peer: &PeerId| few && relays.iter().any(|(relay, _)| relay == peer);
        self.by_peer.retain(|peer, contact| contact.reason != Reason::Relay || stays(peer));
        for (peer, addresses) in relays.into_iter().filter(|_| few) {
            // A descriptor's addresses are the newest.
            if let Some(contact) = self.by_peer.get_mut(&peer).filter(|contact| contact.reason == Reason::Relay) {
                contact.addresses.clear();
            }
            self.add(peer, addresses, Reason::Relay, now);
        }
    }

    /// A connection was made, outbound to `address` or inbound.
    pub(super) fn handle_connected(&mut self, peer: PeerId, dialled: Option<&Multiaddr>, now: Instant) {
        let address = dialled.map(|address| split(address).1);
        if let Some(at) = self.nameless.iter().position(|(nameless, ..)| Some(nameless) == address.as_ref()) {
            let (address, ..) = self.nameless.swap_remove(at);
            self.add(peer, vec![address], Reason::Bootstrap, now);
        }
        if let Some(contact) = self.by_peer.get_mut(&peer) {
            contact.failures = 0;
            contact.is_dialled = false;
        }
    }

    /// A dial of `peer` failed: whether it was one of these.
    pub(super) fn handle_failed(&mut self, peer: &PeerId) -> bool {
        self.by_peer.get_mut(peer).is_some_and(|contact| std::mem::take(&mut contact.is_dialled))
    }

    /// The last connection of a peer is gone: it is dialled again soon, but not at once.
    pub(super) fn handle_disconnected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(contact) = self.by_peer.get_mut(peer) {
            contact.next = contact.next.max(now + FIRST_DELAY);
        }
    }

    /// A neighbour is of another network: it is dialled no more.
    pub(super) fn forget_found(&mut self, peer: &PeerId) {
        if self.by_peer.get(peer).is_some_and(|contact| contact.reason == Reason::Found) {
            self.by_peer.remove(peer);
        }
    }

    /// Whether a peer is one of those that are kept connected.
    pub(super) fn is_wanted(&self, peer: &PeerId) -> bool {
        self.by_peer.get(peer).is_some_and(|contact| contact.reason != Reason::Found)
    }

    /// Whom to dial now, and how many at most. Each counts as a failure until it is connected.
    pub(super) fn due(
        &mut self,
        connected: impl Fn(&PeerId) -> bool,
        peers: usize,
        room: usize,
        now: Instant,
    ) -> Vec<Dial> {
        let mut dials = Vec::new();
        let limit = room.min(MAX_DIALS);
        if peers < FEW_PEERS {
            for (address, failures, next) in self.nameless.iter_mut().filter(|(.., next)| now >= *next).take(limit) {
                *next = now + delay(*failures, LONGEST_BOOTSTRAP_DELAY);
                *failures += 1;
                dials.push(Dial { peer: None, addresses: vec![address.clone()] });
            }
        }
        for (peer, contact) in &mut self.by_peer {
            let is_due = now >= contact.next && !contact.addresses.is_empty() && !connected(peer);
            if dials.len() >= limit || !is_due || (contact.reason == Reason::Bootstrap && peers >= FEW_PEERS) {
                continue;
            }
            let longest = if contact.reason == Reason::Bootstrap { LONGEST_BOOTSTRAP_DELAY } else { LONGEST_DELAY };
            contact.next = now + delay(contact.failures, longest);
            contact.failures += 1;
            contact.is_dialled = true;
            dials.push(Dial { peer: Some(*peer), addresses: contact.addresses.clone() });
        }
        dials
    }
}

fn delay(failures: u32, longest: Duration) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        (a.min(b), a.max(b))
    }

    fn address(n: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{n}").parse().unwrap()
    }

    fn now() -> Instant {
        crate::node::clock::now().mono
    }

    fn nobody(_: &PeerId) -> bool {
        false
    }

    #[test]
    fn a_bootstrap_peer_is_tried_at_once_and_then_less_and_less_often() {
        let ((me, peer), start) = (ids(), now());
        let mut contacts = Contacts::new(me, &[address(1).with(Protocol::P2p(peer))], start);
        let mut tries = Vec::new();
        for second in 0..60 {
            if !contacts.due(nobody, 0, 9, start + Duration::from_secs(second)).is_empty() {
                tries.push(second);
            }
        }
        assert_eq!(tries, [0, 1, 3, 7, 15, 30, 45]);
        assert_eq!(contacts.due(nobody, FEW_PEERS, 9, start + LONGEST_DELAY), [], "enough others are there");
    }

    #[test]
    fn an_address_without_a_peer_id_gets_one_when_it_answers() {
        let ((me, peer), start) = (ids(), now());
        let mut contacts = Contacts::new(me, &[address(1)], start);
        assert_eq!(contacts.due(nobody, 0, 9, start), [Dial { peer: None, addresses: vec![address(1)] }]);
        contacts.handle_connected(peer, Some(&address(1).with(Protocol::P2p(peer))), start);
        let later = start + Duration::from_secs(60);
        assert_eq!(contacts.due(|p| *p == peer, 1, 9, later), []);
        assert_eq!(contacts.due(nobody, 0, 9, later), [Dial { peer: Some(peer), addresses: vec![address(1)] }]);
    }

    #[test]
    fn the_larger_id_waits_for_the_smaller_one() {
        let ((small, large), start) = (ids(), now());
        let (mut a, mut b) = (Contacts::new(small, &[], start), Contacts::new(large, &[], start));
        a.handle_found(Finder::Beacon, large, address(1), start);
        b.handle_found(Finder::Beacon, small, address(1), start);
        assert_eq!(a.due(nobody, 0, 9, start).len(), 1);
        assert_eq!(b.due(nobody, 0, 9, start).len(), 0);
        assert_eq!(b.due(nobody, 0, 9, start + COURTESY).len(), 1);
    }

    #[test]
    fn a_neighbour_is_dialled_until_nothing_finds_it_and_at_its_newest_addresses() {
        let ((me, peer), start) = (ids(), now());
        let mut contacts = Contacts::new(me, &[], start);
        contacts.handle_found(Finder::MdnsV4, peer, address(1), start);
        for port in 2..=MAX_ADDRESSES as u16 + 1 {
            contacts.handle_found(Finder::Beacon, peer, address(port), start);
        }
        contacts.handle_lost(Finder::Beacon, &peer);
        contacts.handle_lost(Finder::MdnsV6, &peer);
        let addresses = (2..=MAX_ADDRESSES as u16 + 1).map(address).collect();
        assert_eq!(contacts.due(nobody, 0, 9, start), [Dial { peer: Some(peer), addresses }]);
        contacts.handle_lost(Finder::MdnsV4, &peer);
        assert_eq!(contacts.due(nobody, 0, 9, start + LONGEST_DELAY), []);
    }

    #[test]
    fn relays_are_kept_connected_while_they_are_few() {
        let ((me, peer), start) = (ids(), now());
        let mut contacts = Contacts::new(me, &[], start);
        contacts.set_relays(vec![(peer, vec![address(1)]), (me, vec![address(2)])], start);
        assert!(contacts.is_wanted(&peer) && !contacts.is_wanted(&me));
        contacts.set_relays(vec![(peer, vec![address(3)])], start);
        let dials = contacts.due(nobody, 20, 9, start + COURTESY);
        assert_eq!(dials, [Dial { peer: Some(peer), addresses: vec![address(3)] }], "the newest addresses");
        let many = (0..=MAX_RELAYS).map(|_| (PeerId::random(), vec![address(1)])).collect();
        contacts.set_relays(many, start);
        assert_eq!(contacts.due(nobody, 20, 9, start + LONGEST_DELAY), []);
    }

    #[test]
    fn dials_respect_the_room_that_is_left() {
        let ((me, _), start) = (ids(), now());
        let mut contacts = Contacts::new(me, &[], start);
        for _ in 0..20 {
            contacts.handle_found(Finder::MdnsV4, PeerId::random(), address(1), start);
        }
        let later = start + COURTESY;
        assert_eq!(contacts.due(nobody, 0, 0, later).len(), 0);
        assert_eq!(contacts.due(nobody, 0, 3, later).len(), 3);
        assert_eq!(contacts.due(nobody, 0, 99, later).len(), MAX_DIALS);
    }
}
