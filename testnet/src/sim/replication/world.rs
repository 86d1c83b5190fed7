//! Full nodes and the lines between them, in virtual time: a gossip mesh, the exchange, and relays that publish.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{Epoch, Network, NodeId, Now, UnixMillis};
use fog_directory::{
    core::{
        certificate::timetable::Timetable,
        descriptor::Candidacy,
        lottery::{Lottery, prove},
    },
    wire::{Request, Response},
};
use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    super::{
        queue::Queue,
        relays::{NETWORK, Relay, beginning},
        swarm::{Links, Presence},
    },
    node::{Action, Interned, Node, Shared, Topic},
};

/// How descriptors are gossiped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gossip {
    /// Peers that each node sends descriptors to as they come; 0 leaves them to the exchange.
    pub(super) mesh: usize,
    /// What is added to a message: sender, sequence number, topic, signature, framing.
    pub(super) overhead: u64,
    /// What the announcements of a message cost a node, in and out: in so many heartbeats, to so many peers that are not in the
    /// mesh, its name.
    pub(super) announced: u64,
}

/// As gossipsub comes: names of 32 bytes, in three heartbeats, to six peers.
pub(super) const GOSSIPSUB: Gossip = Gossip { mesh: 6, overhead: 190, announced: 3 * 6 * 34 };
/// What a request or an answer costs besides its bytes: the negotiation of the protocol, framing.
const EXCHANGE_OVERHEAD: u64 = 150;
/// A request to a node that is not there fails after this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A message is remembered for this long.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Loops of a seat through each other seat, on average.
const LOOPS: usize = 24;
const EXCHANGE_TICK: Duration = Duration::from_secs(1);
const NODE_TICK: Duration = Duration::from_secs(300);
/// Full nodes to which a relay that is none itself gives its descriptor.
const ENTRIES: usize = 3;

/// What is simulated.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) full_nodes: usize,
    /// Relays, the full nodes among them.
    pub(super) relays: usize,
    pub(super) epoch: Duration,
    /// Peers of each node.
    pub(super) connections: usize,
    /// Of descriptors; what certifies goes as gossipsub has it.
    pub(super) gossip: Gossip,
    /// The chance that a message gets lost on a line (a full queue: lines themselves lose nothing).
    pub(super) loss: f64,
    /// Parts of full nodes with even and odd numbers do not reach each other then.
    pub(super) partitions: Vec<std::ops::Range<Duration>>,
}

/// Bytes in and out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) gossip: [u64; 2],
    pub(super) ballots: [u64; 2],
    pub(super) announcements: [u64; 2],
    pub(super) exchange: [u64; 2],
}

impl Traffic {
    pub(super) fn total(&self) -> [u64; 2] {
        [0, 1].map(|way| self.gossip[way] + self.ballots[way] + self.announcements[way] + self.exchange[way])
    }
}

#[derive(Debug)]
enum Event {
    Connect(usize, usize),
    Publish(usize),
    Gossip {
        to: usize,
        from: usize,
        message: u64,
    },
    Request {
        to: usize,
        from: usize,
        request: Request,
    },
    Response {
        to: usize,
        from: usize,
        response: Response,
    },
    Failure {
        at: usize,
        peer: usize,
    },
    ExchangeTick(usize),
    NodeTick(usize),
    /// A moment of the timetable, with its node's clock.
    Moment(usize),
}

#[derive(Debug)]
struct Message {
    topic: Topic,
    bytes: Arc<Vec<u8>>,
    published: Duration,
    /// Of each node: when the first copy that is on its way arrives.
    arrives: Vec<Option<Duration>>,
    handled: Vec<bool>,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) shared: Arc<Shared>,
    pub(super) nodes: Vec<Node>,
    pub(super) presence: Vec<Presence>,
    /// The first are the full nodes.
    pub(super) relays: Vec<Relay>,
    pub(super) traffic: Vec<Traffic>,
    /// How long descriptors took to nodes, in seconds: some of them.
    pub(super) delays: Vec<f64>,
    /// The bytes of all descriptors that were published in this epoch, and how many.
    pub(super) published: (u64, usize),
    peers: Vec<Vec<usize>>,
    mesh: Vec<Vec<usize>>,
    places: HashMap<NodeId, usize>,
    queue: Queue<Event>,
    messages: HashMap<u64, Message>,
    by_hash: HashMap<[u8; 32], u64>,
    next_message: u64,
    links: Links,
    begin: Now,
    pub(super) rng: ChaCha8Rng,
}

impl World {
    /// All full nodes are genesis relays of equal stake.
    pub(super) fn new(plan: Plan, mut rng: ChaCha8Rng) -> Self {
        let relays: Vec<_> = (0..plan.relays).map(|n| Relay::new(n, 1_000, false)).collect();
        let genesis = relays.iter().take(plan.full_nodes).map(|relay| (relay.id, relay.stake)).collect();
        let network = Network { name: "sim".into(), id: NETWORK, epoch_length: plan.epoch, genesis, ..Network::lan() };
        let begin = Now { mono: Instant::now(), unix: network.schedule().start(network.schedule().at(beginning())) };
        let interned = Arc::new(Interned::default());
        let shared = Arc::new(Shared { network, interned });
        let nodes: Vec<_> =
            relays.iter().take(plan.full_nodes).map(|relay| Node::new(relay.identity(), &shared, begin)).collect();
        let links = Links { seed: rng.random(), loss: plan.loss, partitions: plan.partitions.clone() };
        let count = nodes.len();
        let peers = graph(count, plan.connections, &mut rng);
        let mesh = graph_within(&peers, plan.gossip.mesh);
        let mut world = Self {
            presence: (0..count).map(|_| Presence::always()).collect(),
            traffic: vec![Traffic::default(); count],
            delays: Vec::new(),
            published: (0, 0),
            places: nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect(),
            queue: Queue::new(),
            messages: HashMap::new(),
            by_hash: HashMap::new(),
            next_message: 0,
            plan,
            shared,
            nodes,
            relays,
            peers,
            mesh,
            links,
            begin,
            rng,
        };
        (0..count).for_each(|node| world.start(node, Duration::ZERO));
        world
    }

    /// Brings a node into the world: its clocks run, and it meets its peers.
    fn start(&mut self, node: usize, at: Duration) {
        for peer in self.peers[node].clone() {
            self.queue.schedule(at, Event::Connect(node, peer));
        }
        let jitter = Duration::from_millis(self.rng.random_range(0..1_000));
        self.queue.schedule(at + jitter, Event::ExchangeTick(node));
        self.queue.schedule(at + jitter, Event::NodeTick(node));
        self.queue.schedule(at + jitter / 4, Event::Moment(node));
    }

    /// One more full node, which is no relay, with these peers.
    pub(super) fn join(&mut self, peers: &[usize], at: Duration) -> usize {
        let (number, node) = (self.nodes.len(), Relay::new(5_000_000 + self.nodes.len(), 0, false));
        self.nodes.push(Node::new(node.identity(), &self.shared, self.at(at)));
        self.places.insert(node.id, number);
        self.presence.push(Presence::always());
        self.traffic.push(Traffic::default());
        self.peers.push(peers.to_vec());
        let mesh: Vec<_> = peers.iter().copied().take(self.plan.gossip.mesh).collect();
        mesh.iter().for_each(|peer| self.mesh[*peer].push(number));
        peers.iter().for_each(|peer| self.peers[*peer].push(number));
        self.mesh.push(mesh);
        peers.iter().for_each(|peer| self.queue.schedule(at, Event::Connect(*peer, number)));
        self.start(number, at);
        number
    }

    /// One more line.
    pub(super) fn connect(&mut self, a: usize, b: usize, at: Duration) {
        for (from, to) in [(a, b), (b, a)] {
            self.peers[from].push(to);
            self.mesh[from].push(to);
            self.queue.schedule(at, Event::Connect(from, to));
        }
    }

    pub(super) fn at(&self, at: Duration) -> Now {
        self.begin.plus(at)
    }

    pub(super) fn unix(&self, at: Duration) -> UnixMillis {
        self.at(at).unix
    }

    pub(super) fn epoch(&self, at: Duration) -> Epoch {
        self.shared.network.schedule().at(self.unix(at))
    }

    pub(super) fn timetable(&self) -> Timetable {
        Timetable::new(self.shared.network.schedule())
    }

    /// Every relay signs at a random moment of the first half of the epoch that begins at `at`.
    pub(super) fn publish_all(&mut self, at: Duration) {
        self.published = (0, 0);
        let half = self.plan.epoch.as_millis() as u64 / 2;
        for relay in 0..self.relays.len() {
            let moment = Duration::from_millis(self.rng.random_range(2_000..half));
            self.queue.schedule(at + moment, Event::Publish(relay));
        }
    }

    /// Lets time pass.
    pub(super) fn run_until(&mut self, end: Duration) {
        while let Some((at, event)) = self.queue.pop() {
            if at >= end {
                self.queue.schedule(at, event);
                break;
            }
            self.handle(event, at);
        }
        let shared = self.shared.clone();
        shared.interned.sweep(self.unix(end));
        self.messages.retain(|_, message| message.published + REMEMBERED > end);
        self.by_hash.retain(|_, number| self.messages.contains_key(number));
    }

    fn is_up(&self, node: usize, at: Duration) -> bool {
        self.presence[node].is_there(at)
    }

    fn handle(&mut self, event: Event, at: Duration) {
        let now = self.at(at);
        match event {
            Event::Connect(node, peer) => {
                let peer = self.nodes[peer].id;
                self.nodes[node].handle_connected(peer, now);
                self.act(node, at);
            }
            Event::Publish(relay) => self.publish(relay, at),
            Event::Gossip { to, from, message } => self.gossip(to, from, message, at),
            Event::Request { to, from, request } => self.request(to, from, request, at),
            Event::Response { to, from, response } => {
                if self.is_up(to, at) {
                    let from = self.nodes[from].id;
                    self.nodes[to].handle_response(from, response, now);
                    self.act(to, at);
                }
            }
            Event::Failure { at: node, peer } => {
                let peer = self.nodes[peer].id;
                self.nodes[node].handle_failure(peer, now);
                self.act(node, at);
            }
            Event::ExchangeTick(node) => {
                self.queue.schedule(at + EXCHANGE_TICK, Event::ExchangeTick(node));
                if self.is_up(node, at) {
                    self.nodes[node].handle_exchange(now);
                    self.act(node, at);
                }
            }
            Event::NodeTick(node) => {
                self.queue.schedule(at + NODE_TICK, Event::NodeTick(node));
                self.tick(node, at);
            }
            Event::Moment(node) => {
                let next = self.timetable().next(now.unix).since(now.unix);
                // Clocks differ by up to a quarter of a second.
                let skew = Duration::from_millis(self.rng.random_range(1..250));
                self.queue.schedule(at + next + skew, Event::Moment(node));
                self.tick(node, at);
            }
        }
    }

    fn tick(&mut self, node: usize, at: Duration) {
        if self.is_up(node, at) {
            let now = self.at(at);
            self.nodes[node].handle_timeout(now);
            self.act(node, at);
        }
    }

    fn publish(&mut self, number: usize, at: Duration) {
        let (now, schedule) = (self.at(at), self.shared.network.schedule());
        let relay = &self.relays[number];
        let is_full = number < self.plan.full_nodes;
        if is_full && !self.is_up(number, at) {
            return;
        }
        let next = schedule.at(now.unix).next();
        let council = is_full.then(|| &self.nodes[number].council);
        let ticket = council.and_then(|council| council.beacon(next)).map(|beacon| {
            let lottery = Lottery { network: &NETWORK, epoch: next, beacon: &beacon };
            prove(&relay.vrf(), &relay.id, &lottery, &[1; 32])
        });
        if is_full {
            self.send_loops(number, at);
        }
        let loops = if is_full { self.nodes[number].council.loops(schedule.at(now.unix)) } else { None };
        let (relay, candidacy) = (&self.relays[number], Candidacy { ticket, loops });
        let (id, descriptor) = (relay.id, relay.sign(&relay.facts(), &candidacy, &schedule, now.unix));
        self.published.0 += descriptor.as_bytes().len() as u64;
        self.published.1 += 1;
        if is_full {
            self.nodes[number].handle_own(descriptor.as_bytes(), now);
            return self.act(number, at);
        }
        let entries: Vec<_> = (0..ENTRIES).map(|_| self.rng.random_range(0..self.plan.full_nodes)).collect();
        for entry in entries.into_iter().filter(|entry| self.presence[*entry].is_there(at)).collect::<Vec<_>>() {
            self.traffic[entry].gossip[0] += descriptor.as_bytes().len() as u64 + self.plan.gossip.overhead;
            if self.nodes[entry].handle_descriptor(id, descriptor.as_bytes(), now) {
                self.spread(entry, Topic::Directory, descriptor.as_bytes().to_vec(), at);
            }
            self.act(entry, at);
        }
    }

    /// The loops of an epoch, so that seats have something to report: through random seats, one in twelve lost.
    fn send_loops(&mut self, node: usize, at: Duration) {
        let Some(certified) = self.nodes[node].council.certified(self.epoch(at)).cloned() else { return };
        let seats: Vec<_> = certified.tip.electorate().seats().iter().map(|seat| seat.node).collect();
        for _ in 0..LOOPS * seats.len() / 3 {
            let hops: [NodeId; 3] = std::array::from_fn(|_| seats[self.rng.random_range(0..seats.len())]);
            let is_delivered = self.rng.random_bool(11.0 / 12.0);
            self.nodes[node].council.handle_loop(&hops, is_delivered);
        }
    }

    /// Does what a node's cores want done.
    fn act(&mut self, node: usize, at: Duration) {
        for action in std::mem::take(&mut self.nodes[node].actions) {
            match action {
                Action::Publish(topic, bytes) => self.spread(node, topic, bytes, at),
                Action::Ask(to, request) => self.ask(node, to, request, at),
            }
        }
    }

    fn ask(&mut self, from: usize, to: NodeId, request: Request, at: Duration) {
        let Some(to) = self.places.get(&to).copied() else { return };
        let bytes = request.encode().map_or(0, |bytes| bytes.len() as u64) + EXCHANGE_OVERHEAD;
        self.traffic[from].exchange[1] += bytes;
        match self.carry(from, to, at).filter(|_| self.is_up(to, at)) {
            Some(arrives) => {
                self.traffic[to].exchange[0] += bytes;
                self.queue.schedule(arrives, Event::Request { to, from, request });
            }
            None => self.queue.schedule(at + REQUEST_TIMEOUT, Event::Failure { at: from, peer: to }),
        }
    }

    fn request(&mut self, to: usize, from: usize, request: Request, at: Duration) {
        let (now, asker) = (self.at(at), self.nodes[from].id);
        let response = self.nodes[to].handle_request(asker, request, now);
        let bytes = response.encode().map_or(0, |bytes| bytes.len() as u64) + EXCHANGE_OVERHEAD;
        self.traffic[to].exchange[1] += bytes;
        match self.carry(to, from, at) {
            Some(arrives) => {
                self.traffic[from].exchange[0] += bytes;
                self.queue.schedule(arrives, Event::Response { to: from, from: to, response });
            }
            None => self.queue.schedule(at + REQUEST_TIMEOUT, Event::Failure { at: from, peer: to }),
        }
        self.act(to, at);
    }

    /// When a stream's bytes arrive: what a line loses comes again a second later.
    fn carry(&mut self, from: usize, to: usize, at: Duration) -> Option<Duration> {
        let sent = self.links.carry(from, to, at, &mut self.rng).map(|took| at + took);
        let again = at + Duration::from_secs(1);
        sent.or_else(|| self.links.carry(from, to, again, &mut self.rng).map(|took| again + took))
    }

    /// A node gives a message to its mesh for the first time.
    fn spread(&mut self, node: usize, topic: Topic, bytes: Vec<u8>, at: Duration) {
        let hash = *blake3::hash(&bytes).as_bytes();
        let count = self.nodes.len();
        let number = *self.by_hash.entry(hash).or_insert_with(|| {
            self.next_message += 1;
            self.next_message
        });
        let message = self.messages.entry(number).or_insert_with(|| Message {
            topic,
            bytes: Arc::new(bytes),
            published: at,
            arrives: vec![None; count],
            handled: vec![false; count],
        });
        message.arrives.resize(count, None);
        message.handled.resize(count, false);
        if !std::mem::replace(&mut message.handled[node], true) {
            self.forward(node, None, number, at);
        }
    }

    fn forward(&mut self, node: usize, from: Option<usize>, number: u64, at: Duration) {
        let Some(message) = self.messages.get(&number) else { return };
        let topic = message.topic;
        let gossip = if topic == Topic::Certificate { GOSSIPSUB } else { self.plan.gossip };
        let bytes = message.bytes.len() as u64 + gossip.overhead;
        // What certifies always has gossipsub's own mesh.
        let lines = if topic == Topic::Certificate { &self.peers[node] } else { &self.mesh[node] };
        let mesh: Vec<_> = lines.iter().take(gossip.mesh).copied().filter(|peer| Some(*peer) != from).collect();
        for peer in mesh {
            count(&mut self.traffic[node], topic, 1, bytes);
            let Some(took) = self.links.carry(node, peer, at, &mut self.rng) else { continue };
            count(&mut self.traffic[peer], topic, 0, bytes);
            let arrives = at + took;
            if !self.is_up(peer, arrives) {
                continue;
            }
            let Some(message) = self.messages.get_mut(&number) else { return };
            message.arrives.resize(self.nodes.len(), None);
            message.handled.resize(self.nodes.len(), false);
            if !message.handled[peer] && message.arrives[peer].is_none_or(|first| arrives < first) {
                message.arrives[peer] = Some(arrives);
                self.queue.schedule(arrives, Event::Gossip { to: peer, from: node, message: number });
            }
        }
        self.traffic[node].announcements.iter_mut().for_each(|way| *way += gossip.announced);
    }

    fn gossip(&mut self, to: usize, from: usize, number: u64, at: Duration) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        if std::mem::replace(&mut message.handled[to], true) {
            return;
        }
        let (topic, bytes, published) = (message.topic, message.bytes.clone(), message.published);
        let (now, sender) = (self.at(at), self.nodes[from].id);
        let is_accepted = match topic {
            Topic::Directory => {
                if number.is_multiple_of(64) {
                    self.delays.push((at - published).as_secs_f64());
                }
                self.nodes[to].handle_descriptor(sender, &bytes, now)
            }
            Topic::Certificate => self.nodes[to].handle_ballot(&bytes, now),
        };
        if is_accepted {
            self.forward(to, Some(from), number, at);
        }
        self.act(to, at);
    }
}

fn count(traffic: &mut Traffic, topic: Topic, way: usize, bytes: u64) {
    let of = match topic {
        Topic::Directory => &mut traffic.gossip,
        Topic::Certificate => &mut traffic.ballots,
    };
    of[way] += bytes;
}

/// A random graph in which everybody has at least about this many peers: a ring, so that it is one, and random lines.
fn graph(count: usize, degree: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut peers = vec![Vec::new(); count];
    let mut join = |a: usize, b: usize| {
        if a != b && !peers[a].contains(&b) {
            peers[a].push(b);
            peers[b].push(a);
        }
    };
    (0..count).for_each(|node| join(node, (node + 1) % count));
    for node in 0..count {
        for _ in 0..degree.saturating_sub(2).div_ceil(2) {
            join(node, rng.random_range(0..count));
        }
    }
    peers.iter_mut().for_each(|peers| peers.shuffle(rng));
    peers
}

/// A part of the lines: everybody has about `degree`.
fn graph_within(peers: &[Vec<usize>], degree: usize) -> Vec<Vec<usize>> {
    let mut mesh = vec![Vec::new(); peers.len()];
    for (node, peers) in peers.iter().enumerate() {
        for peer in peers {
            if mesh[node].len() < degree && mesh[*peer].len() < degree && !mesh[node].contains(peer) {
                mesh[node].push(*peer);
                mesh[*peer].push(node);
            }
        }
    }
    mesh
}
