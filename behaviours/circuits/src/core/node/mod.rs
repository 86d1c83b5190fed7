//! All circuits of a node, as their client and as a relay.
//!
//! Cells come in by [`Core::handle_cell`] and are taken out, link by link, by [`Core::next_cell`] when the link has room: nothing is
//! encrypted before it leaves, and what cannot leave waits where flow control sees it.

mod build;
mod cells;
mod experience;
pub(crate) mod record;
mod relaying;
mod spare;
mod streams;

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{DropCounters, DropReason, NodeId, Now, TokenBucket};
use rand::{SeedableRng, rngs::StdRng};

use self::experience::Experiences;
use super::{
    cell::{CELL_LEN, Cell},
    client::ClientCircuit,
    crypto::handshake::RelaySecret,
    edge::Edge,
    links::{Links, MAX_PER_PEER, Turn, Way},
    numbers::ByNumber,
    path::PathSource,
    policy::ExitPolicy,
    relay::{Next, RelayCircuit},
    suspects::Suspects,
    timeouts::Timeouts,
    types::{CircuitId, CircuitInfo, CloseReason, LinkId, Output, Side},
};

/// The most hops of a circuit.
pub const MAX_HOPS: usize = 8;
/// How long cells are held for what the node is about to do: it takes it milliseconds.
const HOLD: Duration = Duration::from_secs(10);
/// Idle circuits and links are looked for this often.
const TICK: Duration = Duration::from_secs(1);
/// A link without circuits is closed after so long.
const LINK_IDLE: Duration = Duration::from_secs(120);

/// What a node allows.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether this node is a relay; if not, it takes no circuits of others.
    pub is_relay: bool,
    /// What this node connects to for others; nothing by default.
    pub exit: ExitPolicy,
    /// Relays of a circuit, unless something else is asked for.
    pub hops: usize,
    /// Circuits that are built ahead of need; 0 for none.
    pub spares: usize,
    /// Those that are built ahead for services: how many relays they have before the one where they are to end, and how many there are.
    pub service_spares: Vec<(usize, usize)>,
    /// Circuits of others at a time.
    pub max_circuits: usize,
    /// Circuits that one peer may have here: relays have many.
    pub max_circuits_per_peer: usize,
    /// Circuits of others whose handshake or extension is under way.
    pub max_half_open: usize,
    /// New circuits a second that one link may ask for, and at once.
    pub creates: (f64, f64),
    /// What cells and streams may hold altogether, in bytes; then the circuit that has waited longest is closed.
    pub max_held_bytes: usize,
    /// Circuits of this node's own at a time.
    pub max_own: usize,
    /// After its first use a circuit gets no new streams when so long has passed.
    pub max_dirtiness: Duration,
    /// A circuit without streams and messages is closed after so long.
    pub idle: Duration,
    /// How often another path is tried.
    pub attempts: u32,
    /// How long a link may take to come about.
    pub connect: Duration,
    /// Whether everything that comes is told, for tests: [`Output::Recorded`].
    pub is_recorded: bool,
    /// For tests: this fraction of others' circuits is not answered.
    pub drops_circuits: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            is_relay: true,
            exit: ExitPolicy::default(),
            hops: 3,
            spares: 2,
            service_spares: Vec::new(),
            max_circuits: 8192,
            max_circuits_per_peer: 4096,
            max_half_open: 512,
            creates: (50.0, 200.0),
            max_held_bytes: 256 * 1024 * 1024,
            max_own: 1024,
            max_dirtiness: Duration::from_secs(600),
            idle: Duration::from_secs(3600),
            attempts: 4,
            connect: Duration::from_secs(10),
            is_recorded: false,
            drops_circuits: 0.0,
        }
    }
}

#[derive(Debug)]
enum Circuit {
    Client(Box<ClientCircuit>),
    Relay(Box<RelayCircuit>),
}

/// What the node counts, apart from drops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Links.
    pub links: usize,
    /// Circuits of this node's own.
    pub own: usize,
    /// Circuits of others.
    pub relayed: usize,
    /// Of those, how many wait for a handshake or for the next relay.
    pub half_open: usize,
    /// Cells that wait for a link.
    pub queued_cells: usize,
    /// Cells that were passed on since the start.
    pub passed_cells: u64,
}

/// The circuits of a node.
#[derive(Debug)]
pub struct Core {
    config: Config,
    secret: Arc<RelaySecret>,
    id: NodeId,
    paths: Box<dyn PathSource>,
    rng: StdRng,
    links: Links,
    circuits: ByNumber<CircuitId, Circuit>,
    /// Who waits for a link to whom.
    connecting: HashMap<NodeId, (Instant, Vec<CircuitId>)>,
    outputs: VecDeque<Output>,
    timers: BTreeSet<(Instant, CircuitId)>,
    next_tick: Instant,
    next_circuit: u64,
    counts: Counts,
    timeouts: Timeouts,
    drops: Arc<DropCounters>,
    payload: Vec<u8>,
    /// Until when none of a kind is tried.
    no_spares_until: HashMap<spare::Kind, Instant>,
    suspects: Suspects,
    experiences: Experiences,
    /// Messages after which a circuit is joined, or gets a virtual hop.
    hold_after: Vec<u8>,
}

impl Core {
    /// A node with this circuit key; `seed` is fresh randomness.
    pub fn new(
        config: Config,
        secret: RelaySecret,
        paths: Box<dyn PathSource>,
        drops: Arc<DropCounters>,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        Self {
            config,
            id: secret.public().id,
            secret: Arc::new(secret),
            paths,
            rng: StdRng::from_seed(seed),
            links: Links::default(),
            circuits: ByNumber::default(),
            connecting: HashMap::new(),
            outputs: VecDeque::new(),
            timers: BTreeSet::new(),
            next_tick: now.mono,
            next_circuit: 0,
            counts: Counts::default(),
            timeouts: Timeouts::default(),
            drops,
            payload: Vec::new(),
            no_spares_until: HashMap::new(),
            suspects: Suspects::default(),
            experiences: Experiences::new(now.mono),
            hold_after: Vec::new(),
        }
    }

    /// After a message of one of these commands the node joins its circuit, or adds a virtual hop to it: cells that come before it has are held.
    pub fn hold_after(&mut self, commands: Vec<u8>) {
        self.hold_after = commands;
    }

    /// A link with `node` is there; `is_opener` if this node opened it.
    pub fn handle_link(&mut self, link: LinkId, node: NodeId, is_opener: bool, now: Now) {
        if self.links.count_with(&node) >= MAX_PER_PEER {
            self.drops.count(DropReason::RateLimited);
            self.outputs.push_back(Output::Disconnect(link));
            return;
        }
        let (rate, burst) = self.config.creates;
        self.links.insert(link, node, is_opener, TokenBucket::new(rate, burst, now.mono), now.mono);
        for circuit in self.take_waiting(node) {
            self.handle_connected(circuit, link, now);
        }
    }

    /// A link is gone.
    pub fn handle_link_down(&mut self, link: LinkId, now: Now) {
        for circuit in self.links.remove(link) {
            self.handle_lost(circuit, CloseReason::Link, now);
        }
    }

    /// There is no link with `node`, and none comes.
    pub fn handle_unreachable(&mut self, node: NodeId, now: Now) {
        for circuit in self.take_waiting(node) {
            self.handle_lost(circuit, CloseReason::Link, now);
        }
    }

    /// The circuits that wait for a link to `node`.
    fn take_waiting(&mut self, node: NodeId) -> Vec<CircuitId> {
        let (_, mut waiting) = self.connecting.remove(&node).unwrap_or((self.next_tick, Vec::new()));
        waiting.sort_unstable();
        waiting.dedup();
        waiting.retain(|id| self.waits_for(*id, node));
        waiting
    }

    /// What waits for its time.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, circuit)) = self.timers.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.timers.remove(&(at, circuit));
            self.handle_deadline(circuit, now);
        }
        if self.next_tick <= now.mono {
            self.next_tick = now.mono + TICK;
            self.tick(now);
        }
    }

    /// When [`Core::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Instant {
        self.timers.first().map_or(self.next_tick, |(at, _)| self.next_tick.min(*at))
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Links that have cells to send.
    pub fn ready_links(&self) -> Vec<LinkId> {
        self.links.ready().collect()
    }

    /// The next cell for a link; to be asked for when the link has room.
    pub fn next_cell(&mut self, link: LinkId, now: Now) -> Option<Cell> {
        loop {
            match self.links.turn(link)? {
                Turn::Control(cell) => return Some(cell),
                Turn::Circuit(id, way) => {
                    if let Some(cell) = self.take_cell(id, way, now) {
                        return Some(cell);
                    }
                }
            }
        }
    }

    fn take_cell(&mut self, id: CircuitId, way: Way, now: Now) -> Option<Cell> {
        let cell = match self.circuits.get_mut(&id)? {
            Circuit::Client(circuit) => {
                circuit.is_listed = false;
                circuit.next_cell(&mut self.payload, now.mono)
            }
            Circuit::Relay(circuit) => {
                match way {
                    Way::Back => circuit.is_listed.0 = false,
                    Way::Away => circuit.is_listed.1 = false,
                }
                let (cell, was_queued) = circuit.next_cell(way, &mut self.payload, now.mono)?;
                if was_queued {
                    self.counts.queued_cells -= 1;
                    self.counts.passed_cells += 1;
                }
                Some(cell)
            }
        };
        self.tell_begun(id);
        self.tell_drained(id);
        self.list(id, way);
        cell
    }

    /// Gives a circuit a turn on its link if it has a cell for it.
    fn list(&mut self, id: CircuitId, way: Way) {
        let found = match self.circuits.get_mut(&id) {
            Some(Circuit::Client(circuit)) if circuit.is_ready() => circuit.link.zip(Some(&mut circuit.is_listed)),
            Some(Circuit::Relay(circuit)) if circuit.is_ready(way) => {
                let attachment = circuit.attachment(way);
                let (back, away) = &mut circuit.is_listed;
                attachment.zip(Some(if way == Way::Back { back } else { away }))
            }
            _ => None,
        };
        if let Some(((link, _), is_listed)) = found
            && !std::mem::replace(is_listed, true)
        {
            self.links.list(link, id, way);
        }
    }

    /// As [`Core::list`], towards the other end of this node's edge.
    fn list_edge(&mut self, id: CircuitId) {
        self.list(id, Way::Back);
    }

    fn edge(&mut self, id: CircuitId) -> Option<&mut Edge> {
        Some(match self.circuits.get_mut(&id)? {
            Circuit::Client(circuit) => &mut circuit.edge,
            Circuit::Relay(circuit) => &mut circuit.edge,
        })
    }

    /// An even number; the node's own are odd.
    fn next_id(&mut self) -> CircuitId {
        self.next_circuit += 2;
        CircuitId(self.next_circuit)
    }

    fn insert(&mut self, circuit: Circuit) -> CircuitId {
        let id = self.next_id();
        self.insert_as(id, circuit);
        id
    }

    fn insert_as(&mut self, id: CircuitId, circuit: Circuit) {
        match circuit {
            Circuit::Client(_) => self.counts.own += 1,
            Circuit::Relay(_) => self.counts.relayed += 1,
        }
        self.circuits.insert(id, circuit);
    }

    fn set_timer(&mut self, id: CircuitId, at: Instant) {
        self.timers.insert((at, id));
    }

    /// Closes a circuit that this node built, or that ends here.
    pub fn close(&mut self, id: CircuitId, now: Now) {
        self.remove(id, CloseReason::Asked, now);
    }

    /// Removes a circuit, and tells its neighbours, the circuit it is joined with, and this node.
    fn remove(&mut self, id: CircuitId, reason: CloseReason, now: Now) {
        let Some(circuit) = self.circuits.remove(&id) else { return };
        let (attachments, is_told, side, joined) = match circuit {
            Circuit::Client(circuit) => {
                self.counts.own -= 1;
                self.experiences.add_end(&circuit, &reason, now.mono);
                ([circuit.link, None], true, Side::Client, None)
            }
            Circuit::Relay(circuit) => {
                self.counts.relayed -= 1;
                self.counts.queued_cells -= circuit.queued();
                self.counts.half_open -= usize::from(circuit.is_half_open());
                let joined = if let Next::Joined(other) = circuit.next { Some(other) } else { None };
                ([Some(circuit.prev), circuit.attachment(Way::Away)], circuit.is_known, Side::Relay, joined)
            }
        };
        for attachment in attachments.into_iter().flatten() {
            // What the other side has closed, or lost, is not attached any more.
            if self.links.circuit(attachment).is_some_and(|(circuit, _)| circuit == id) {
                self.links.detach(attachment, now.mono);
                if !self.links.destroy(attachment) {
                    self.drops.count(DropReason::QueueFull);
                    self.outputs.push_back(Output::Disconnect(attachment.0));
                }
            }
        }
        if is_told {
            self.outputs.push_back(Output::Closed { circuit: id, side, reason: reason.clone() });
        }
        if let Some(other) = joined {
            self.remove(other, reason, now);
        }
    }

    /// One of the links of a circuit is gone, or what came from there ended it.
    fn handle_lost(&mut self, id: CircuitId, reason: CloseReason, now: Now) {
        match self.circuits.get(&id) {
            Some(Circuit::Client(circuit)) if !circuit.is_open() => {
                // Of a link that broke the connection tells.
                if reason != CloseReason::Link {
                    self.note_unanswered(id, experience::ENDED, now);
                }
                self.retry(id, reason, now);
            }
            Some(_) => self.remove(id, reason, now),
            None => {}
        }
    }

    fn handle_deadline(&mut self, id: CircuitId, now: Now) {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now.mono);
        match self.circuits.get(&id) {
            Some(Circuit::Client(circuit)) if due(circuit.deadline) => self.handle_late(id, now),
            Some(Circuit::Relay(circuit)) if due(circuit.deadline) => self.remove(id, CloseReason::Link, now),
            _ => {}
        }
    }

    /// The circuits of this node's own.
    pub fn list_circuits(&self, now: Now) -> Vec<CircuitInfo> {
        let info = |(id, circuit): (&CircuitId, &Circuit)| match circuit {
            Circuit::Relay(_) => None,
            Circuit::Client(circuit) => Some(CircuitInfo {
                circuit: *id,
                state: circuit.stage.name(),
                purpose: circuit.purpose,
                hops: circuit.path.iter().take(circuit.layers.len()).map(|hop| hop.relay.id).collect(),
                streams: circuit.edge.streams().count(),
                age: now.mono.saturating_duration_since(circuit.created),
                bytes_up: circuit.bytes.0,
                bytes_down: circuit.bytes.1,
            }),
        };
        let mut all: Vec<_> = self.circuits.iter().filter_map(info).collect();
        all.sort_by_key(|info| info.circuit);
        all
    }

    /// Numbers for `status` and metrics.
    pub fn counts(&self) -> Counts {
        Counts { links: self.links.len(), ..self.counts }
    }

    /// What all circuits hold, in bytes.
    fn held_bytes(&self) -> usize {
        let edges = self.circuits.values().map(|circuit| match circuit {
            Circuit::Client(circuit) => circuit.held_bytes(),
            Circuit::Relay(circuit) => circuit.edge.held_bytes(),
        });
        self.counts.queued_cells * CELL_LEN + edges.sum::<usize>()
    }
}
