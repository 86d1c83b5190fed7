//! The links of a node, and whose cell goes next on each: one cell of each circuit in turn, so a circuit with much to send delays
//! the others by no more than one cell each.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Instant,
};

use fog_base::{NodeId, TokenBucket};

use super::{
    cell::{Cell, Command, HopId},
    numbers::ByNumber,
    types::{CircuitId, LinkId},
};

/// CREATE, CREATED and DESTROY cells that wait on one link: a peer that lets more pile up does not read.
const MAX_CONTROL: usize = 4096;
/// Ids that the side that did not open a link takes begin here.
const ANSWERING: u32 = 1 << 31;
/// Links with one peer: one that each opened, and each one again while an old one closes.
pub(super) const MAX_PER_PEER: usize = 4;

/// Which of a circuit's links: towards its client, or away from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Back,
    Away,
}

/// A link, and the number of a circuit on it.
pub(super) type Attachment = (LinkId, HopId);

#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: NodeId,
    next_id: u32,
    circuits: HashMap<HopId, (CircuitId, Way)>,
    /// How many of them are the peer's.
    of_peer: usize,
    control: VecDeque<Cell>,
    /// Circuits with cells for this link, each once.
    turns: VecDeque<(CircuitId, Way)>,
    pub(super) creates: TokenBucket,
    pub(super) empty_since: Option<Instant>,
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) enum Turn {
    Control(Cell),
    Circuit(CircuitId, Way),
}

#[derive(Debug, Default)]
pub(super) struct Links {
    links: ByNumber<LinkId, Link>,
    by_peer: HashMap<NodeId, Vec<LinkId>>,
    /// Links that have something to send.
    ready: BTreeSet<LinkId>,
}

impl Links {
    pub(super) fn insert(&mut self, id: LinkId, peer: NodeId, is_opener: bool, creates: TokenBucket, now: Instant) {
        let link = Link {
            peer,
            next_id: if is_opener { 1 } else { ANSWERING },
            circuits: HashMap::new(),
            of_peer: 0,
            control: VecDeque::new(),
            turns: VecDeque::new(),
            creates,
            empty_since: Some(now),
        };
        self.links.insert(id, link);
        self.by_peer.entry(peer).or_default().push(id);
    }

    /// Removes a link, and says which circuits were on it.
    pub(super) fn remove(&mut self, id: LinkId) -> Vec<CircuitId> {
        self.ready.remove(&id);
        let Some(link) = self.links.remove(&id) else { return Vec::new() };
        if let Some(links) = self.by_peer.get_mut(&link.peer) {
            links.retain(|other| *other != id);
            if links.is_empty() {
                self.by_peer.remove(&link.peer);
            }
        }
        link.circuits.into_values().map(|(circuit, _)| circuit).collect()
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    pub(super) fn peer(&self, id: LinkId) -> Option<NodeId> {
        self.links.get(&id).map(|link| link.peer)
    }

    /// The oldest link with a peer.
    pub(super) fn with(&self, peer: &NodeId) -> Option<LinkId> {
        self.by_peer.get(peer)?.first().copied()
    }

    pub(super) fn count_with(&self, peer: &NodeId) -> usize {
        self.by_peer.get(peer).map_or(0, Vec::len)
    }

    /// Circuits of a peer's making.
    pub(super) fn circuits_of(&self, peer: &NodeId) -> usize {
        let links = self.by_peer.get(peer).into_iter().flatten();
        links.filter_map(|id| self.links.get(id)).map(|link| link.of_peer).sum()
    }

    /// A new circuit on a link, of this side's making; `None` if the link is gone or has used up its ids.
    pub(super) fn attach(&mut self, id: LinkId, circuit: CircuitId) -> Option<Attachment> {
        let link = self.links.get_mut(&id)?;
        let hop = HopId(link.next_id);
        let next = link.next_id.checked_add(1)?;
        if next == ANSWERING {
            return None;
        }
        link.next_id = next;
        link.empty_since = None;
        link.circuits.insert(hop, (circuit, Way::Away));
        Some((id, hop))
    }

    /// A new circuit of the peer's making; false if the id is not one of the peer's, or in use.
    pub(super) fn attach_back(&mut self, (id, hop): Attachment, circuit: CircuitId) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        let is_peers = (link.next_id < ANSWERING) == (hop.0 >= ANSWERING);
        if !is_peers || link.circuits.contains_key(&hop) {
            return false;
        }
        link.empty_since = None;
        link.circuits.insert(hop, (circuit, Way::Back));
        link.of_peer += 1;
        true
    }

    /// The circuit has another number from now on.
    pub(super) fn rename(&mut self, (id, hop): Attachment, circuit: CircuitId) {
        if let Some((old, _)) = self.links.get_mut(&id).and_then(|link| link.circuits.get_mut(&hop)) {
            *old = circuit;
        }
    }

    pub(super) fn detach(&mut self, (id, hop): Attachment, now: Instant) {
        if let Some(link) = self.links.get_mut(&id) {
            if matches!(link.circuits.remove(&hop), Some((_, Way::Back))) {
                link.of_peer -= 1;
            }
            if link.circuits.is_empty() {
                link.empty_since = Some(now);
            }
        }
    }

    /// Which circuit a cell belongs to, and from which of its links it comes.
    pub(super) fn circuit(&self, (id, hop): Attachment) -> Option<(CircuitId, Way)> {
        self.links.get(&id)?.circuits.get(&hop).copied()
    }

    /// A cell that goes before those of circuits; false if too many wait.
    pub(super) fn push_control(&mut self, id: LinkId, cell: Cell) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return true };
        let is_room = link.control.len() < MAX_CONTROL;
        if is_room {
            link.control.push_back(cell);
            self.ready.insert(id);
        }
        is_room
    }

    /// As [`Links::push_control`], with DESTROY.
    pub(super) fn destroy(&mut self, (id, hop): Attachment) -> bool {
        self.push_control(id, Cell::new(hop, Command::Destroy))
    }

    /// The circuit has a cell for this link; whoever calls holds that it is listed once.
    pub(super) fn list(&mut self, id: LinkId, circuit: CircuitId, way: Way) {
        if let Some(link) = self.links.get_mut(&id) {
            link.turns.push_back((circuit, way));
            self.ready.insert(id);
        }
    }

    /// Whose turn it is on a link.
    pub(super) fn turn(&mut self, id: LinkId) -> Option<Turn> {
        let link = self.links.get_mut(&id)?;
        let control = link.control.pop_front().map(Turn::Control);
        let turn = control.or_else(|| link.turns.pop_front().map(|(circuit, way)| Turn::Circuit(circuit, way)));
        if turn.is_none() {
            self.ready.remove(&id);
        }
        turn
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = LinkId> {
        self.ready.iter().copied()
    }

    /// Links that have had no circuit since `before`.
    pub(super) fn empty_since(&self, before: Instant) -> Vec<LinkId> {
        let is_old = |link: &Link| link.empty_since.is_some_and(|since| since < before);
        self.links.iter().filter(|(_, link)| is_old(link)).map(|(id, _)| *id).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }
}
