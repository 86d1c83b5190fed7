//! Devices with disks, the lines between them, a mixnet with mailboxes, in virtual time. An engine is what a node runs; around it is
//! what a node's swarm, store and mixnet do.
//!
//! Gossip is a flood in which everybody passes on to a few: meshes, announcements and scores of gossipsub are left out, and what a
//! line loses is lost. A question that gets lost fails at the asking side, as a stream does.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now, UnixMillis};
use fog_chat::core::engine::{Chat, Config, Event as Told, MessageId, MixProgress, Output, Row, State, Validation};
use rand::{Rng, RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use zeroize::Zeroizing;

use super::{
    super::{queue::Queue, relays::NETWORK, swarm::Links},
    accounts,
    cast::{Act, Talk},
    node::{Node, Store},
    plan::{Fault, Plan, Role},
};

/// Peers to which a node passes an envelope on.
const FAN_OUT: usize = 6;
/// A question that gets lost fails after this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest write to a disk.
const DISK_MS: u64 = 20;
/// How long a payload is in the mixnet, in milliseconds, and when one that was lost is given up.
const MIX_MS: std::ops::Range<u64> = 400..3_000;
const MIX_TIMEOUT: Duration = Duration::from_secs(60);
/// When a node that came back has asked its mailboxes.
const MAIL_AFTER: Duration = Duration::from_secs(5);
/// Events that wait for one write come out in this time.
const TOGETHER: Duration = Duration::from_millis(100);
const BEGIN: UnixMillis = UnixMillis(1_800_000_000_000);

pub(super) enum Event {
    Timer(usize),
    Persisted { at: usize, opened: u32, number: u64, rows: Vec<Row> },
    Gossip { to: usize, from: usize, bucket: u8, bytes: Arc<Vec<u8>> },
    Request { to: usize, from: usize, opened: [u32; 2], request: u64, bytes: Vec<u8> },
    Response { to: usize, from: usize, opened: [u32; 2], request: u64, bytes: Option<Vec<u8>> },
    Mix { to: usize, from: usize, opened: u32, handle: u64, bytes: Option<Vec<u8>> },
    Mail(usize),
    Act(Act),
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    pub(super) events: u64,
    pub(super) gossip: u64,
    pub(super) lost: u64,
    pub(super) requests: u64,
    pub(super) crashes: u64,
    pub(super) blamed: u64,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) nodes: Vec<Node>,
    pub(super) at: Duration,
    pub(super) rng: ChaCha8Rng,
    pub(super) queue: Queue<Event>,
    pub(super) counted: Counted,
    /// Whether lines lose nothing any more.
    pub(super) is_calm: bool,
    /// Frames for these nodes are kept.
    pub(super) tapped: BTreeMap<usize, Vec<Vec<u8>>>,
    /// What this node is answered and given is kept.
    pub(super) witness: Option<usize>,
    pub(super) heard: Vec<Vec<u8>>,
    pub(super) talks: Vec<Talk>,
    /// Texts so far.
    pub(super) said: u64,
    /// What engines refused to people.
    pub(super) refused: BTreeMap<String, u64>,
    /// Envelopes that liars send again.
    pub(super) overheard: Vec<(u8, Arc<Vec<u8>>)>,
    /// A digest of everything that happened: when, what, between whom, how long. Of no key and no ciphertext.
    trace: blake3::Hasher,
    links: Links,
    loss_seed: [u8; 32],
    begin: Instant,
}

pub(super) fn node_id(n: usize) -> NodeId {
    let mut id = [0x17; 32];
    for (to, from) in id.iter_mut().zip((n as u32).to_be_bytes()) {
        *to = from;
    }
    NodeId(id)
}

pub(super) fn place(node: NodeId) -> usize {
    let [a, b, c, d, ..] = node.0;
    u32::from_be_bytes([a, b, c, d]) as usize
}

impl World {
    /// Without devices.
    pub(super) fn new(plan: Plan, mut rng: ChaCha8Rng) -> Self {
        let links = Links { seed: rng.random(), loss: 0.0, partitions: vec![plan.parted.clone()] };
        Self {
            plan,
            nodes: Vec::new(),
            at: Duration::ZERO,
            loss_seed: rng.random(),
            rng,
            queue: Queue::new(),
            counted: Counted::default(),
            is_calm: false,
            tapped: BTreeMap::new(),
            witness: None,
            heard: Vec::new(),
            talks: Vec::new(),
            said: 0,
            refused: BTreeMap::new(),
            overheard: Vec::new(),
            trace: blake3::Hasher::new(),
            links,
            begin: Instant::now(),
        }
    }

    /// One more node, with a device of `identity` on this disk.
    pub(super) fn add(&mut self, role: Role, identity: usize, store: Store) -> usize {
        let skew =
            if self.plan.skew_ms == 0 { 0 } else { self.rng.random_range(-self.plan.skew_ms..=self.plan.skew_ms) };
        let is_new = store.is_empty();
        self.nodes.push(Node::new(role, identity, store, skew));
        let n = self.nodes.len() - 1;
        if role != Role::Noise {
            if is_new {
                self.begin(n);
            }
            self.open(n);
        }
        n
    }

    pub(super) fn now(&self, n: usize) -> Now {
        let unix = BEGIN.plus(self.at).0.saturating_add_signed(self.nodes[n].skew);
        Now { mono: self.begin + self.at, unix: UnixMillis(unix) }
    }

    pub(super) fn config(n: usize, identity: usize) -> (Config, Zeroizing<[u8; 32]>) {
        let config =
            Config { network: NETWORK, node: node_id(n), name: format!("dev{identity}"), seal_key: node_id(n).0 };
        let NodeId(master) = node_id(identity + 1_000_000);
        (config, Zeroizing::new(master))
    }

    /// A device gets its keys.
    fn begin(&mut self, n: usize) {
        let (config, master) = Self::config(n, self.nodes[n].identity);
        let (seed, now) = (self.rng.random(), self.now(n));
        let store = &self.nodes[n].store;
        if let Ok(mut chat) = Chat::open(config, master.clone(), Box::new(store.clone()), seed, now) {
            while let Some(output) = chat.poll_output() {
                if let Output::Persist { number, rows, .. } = output {
                    store.write(rows);
                    chat.handle_persisted(number, true, now);
                }
            }
        }
        if accounts::settle(store, *master, &mut self.rng).is_none() {
            self.nodes[n].log.lost.push(MessageId([0; 32]));
        }
    }

    /// A process begins, with what its disk has.
    pub(super) fn open(&mut self, n: usize) {
        let (config, master) = Self::config(n, self.nodes[n].identity);
        let (seed, now) = (self.rng.random(), self.now(n));
        let node = &mut self.nodes[n];
        node.opened += 1;
        node.buckets.clear();
        node.armed = None;
        let Ok(chat) = Chat::open(config, master, Box::new(node.store.clone()), seed, now) else {
            node.log.lost.push(MessageId([0; 32]));
            return;
        };
        node.chat = Some(chat);
        self.act(n, |chat, now| chat.handle_mix_ready(true, now));
        for peer in self.nodes[n].links.clone() {
            self.tell_connected(n, peer);
            self.tell_connected(peer, n);
        }
        self.queue.schedule(self.at + MAIL_AFTER, Event::Mail(n));
        self.check_written(n);
    }

    /// What a person was told of must still be there. A message whose write was under way when the process ended was not told.
    fn check_written(&mut self, n: usize) {
        let Node { chat: Some(chat), log, .. } = &mut self.nodes[n] else { return };
        let gone: Vec<_> = log.written.keys().filter(|id| chat.why(id).is_none()).copied().collect();
        for id in gone {
            log.written.remove(&id);
            log.lost.push(id);
        }
    }

    fn tell_connected(&mut self, n: usize, peer: usize) {
        if self.nodes[n].chat.is_some() && self.nodes[peer].is_up() {
            self.act(n, |chat, now| chat.handle_connected(node_id(peer), false, now));
        }
    }

    /// The process ends; what is not on disk is gone.
    pub(super) fn crash(&mut self, n: usize) {
        if self.nodes[n].chat.take().is_none() {
            return;
        }
        self.counted.crashes += 1;
        for peer in self.nodes[n].links.clone() {
            self.act(peer, |chat, now| chat.handle_disconnected(node_id(n), now));
        }
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let is_unhealed = self.plan.fault == Some(Fault::Unhealed) && self.is_calm && a.min(b) == 0;
        if a != b && !is_unhealed && self.nodes[a].links.insert(b) {
            self.nodes[b].links.insert(a);
            self.tell_connected(a, b);
            self.tell_connected(b, a);
        }
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        if self.nodes[a].links.remove(&b) {
            self.nodes[b].links.remove(&a);
            self.act(a, |chat, now| chat.handle_disconnected(node_id(b), now));
            self.act(b, |chat, now| chat.handle_disconnected(node_id(a), now));
        }
    }

    /// Something happens at a device, if its process runs, and all that follows from it at once.
    pub(super) fn act<T>(&mut self, n: usize, what: impl FnOnce(&mut Chat, Now) -> T) -> Option<T> {
        let now = self.now(n);
        let result = what(self.nodes[n].chat.as_mut()?, now);
        while let Some(output) = self.nodes[n].chat.as_mut().and_then(Chat::poll_output) {
            self.output(n, output);
        }
        let node = &mut self.nodes[n];
        if let Some(due) = node.chat.as_ref().and_then(Chat::poll_timeout) {
            let due = due.saturating_duration_since(self.begin).max(self.at);
            if node.armed.is_none_or(|armed| due < armed) {
                node.armed = Some(due);
                self.queue.schedule(due, Event::Timer(n));
            }
        }
        Some(result)
    }

    fn output(&mut self, n: usize, output: Output) {
        match output {
            Output::Persist { number, rows, .. } => {
                let took = Duration::from_millis(self.rng.random_range(1..=DISK_MS));
                let opened = self.nodes[n].opened;
                let event = Event::Persisted { at: n, opened, number, rows };
                self.queue.schedule(self.at + took, event);
            }
            Output::Subscribe(bucket) => drop(self.nodes[n].buckets.insert(bucket)),
            Output::Unsubscribe(bucket) => drop(self.nodes[n].buckets.remove(&bucket)),
            Output::Publish { handle, bucket, bytes } => {
                let count = self.spread(n, n, bucket, &Arc::new(bytes));
                let now = self.now(n);
                if let Some(chat) = &mut self.nodes[n].chat {
                    chat.handle_published(handle, count > 0, now);
                }
            }
            Output::Request { to, request, bytes } => self.ask(n, place(to), request, bytes),
            Output::Mix { handle, to, bytes } => self.mix(n, place(to.node), handle, bytes),
            Output::Dial(node) => {
                let peer = place(node);
                if self.nodes.get(peer).is_some_and(Node::is_up) {
                    self.connect(n, peer);
                }
            }
            Output::Blame { node, reject } => {
                self.counted.blamed += 1;
                self.nodes[n].log.blamed.push((place(node), format!("{reject:?}")));
            }
            Output::Event(event) => self.hear(n, event),
        }
    }

    fn hear(&mut self, n: usize, event: Told) {
        let Node { chat: Some(chat), log, .. } = &mut self.nodes[n] else { return };
        match event {
            Told::Message(id) => {
                // One that was shown with a gap is told again when it is whole. Both wait for the disk, and may come together.
                let is_whole = chat.shown(&id).is_some_and(|shown| !shown.clock.is_empty());
                if is_whole && log.told.insert(id, self.at).is_some_and(|before| before + TOGETHER < self.at) {
                    log.twice.push(id);
                }
            }
            Told::Retracted { message, .. } => drop(log.told.remove(&message)),
            Told::State(id) => {
                let Some(why) = chat.why(&id) else { return log.lost.push(id) };
                // What changes a group is in no history.
                if log.said.contains(&id) {
                    log.written.insert(id, why.conversation);
                }
                log.hear_state(id, why.state);
                if self.plan.breaks(Fault::FallingStates, n) {
                    log.hear_state(id, State::Queued);
                }
            }
            Told::Forked { conversation, author } if !self.plan.breaks(Fault::BlindToForks, n) => {
                log.forked.insert((conversation, author));
            }
            _ => {}
        }
    }

    /// The chance that a line loses what it carries: up to the plan's most, each line its own.
    fn loses(&mut self, a: usize, b: usize, share: f64) -> bool {
        let draw = self.rng.random::<f64>();
        if self.is_calm {
            return false;
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.loss_seed);
        hasher.update(&a.min(b).to_be_bytes()).update(&a.max(b).to_be_bytes());
        let [first, ..] = *hasher.finalize().as_bytes();
        let is_lost = draw < share * self.plan.loss * f64::from(first) / 255.0;
        self.counted.lost += u64::from(is_lost);
        is_lost
    }

    /// Whether a device of this role keeps its words from this peer.
    fn hides(&self, n: usize, peer: usize) -> bool {
        self.nodes[n].role == Role::Half && peer % 2 == 1
    }

    /// An envelope goes to some of the peers that hear its topic. To how many it left.
    pub(super) fn spread(&mut self, n: usize, from: usize, bucket: u8, bytes: &Arc<Vec<u8>>) -> usize {
        let hears = |peer: &usize| {
            let peer_node = &self.nodes[*peer];
            *peer != from && peer_node.is_up() && (peer_node.buckets.contains(&bucket) || peer_node.role == Role::Noise)
        };
        let mut peers: Vec<_> = self.nodes[n].links.iter().copied().filter(hears).collect();
        if n == from {
            peers.retain(|peer| !self.hides(n, *peer));
        }
        peers.shuffle(&mut self.rng);
        peers.truncate(FAN_OUT);
        for peer in &peers {
            self.counted.gossip += 1;
            let is_lost = self.loses(n, *peer, 1.0);
            let took = self.links.carry(n, *peer, self.at, &mut self.rng);
            if let Some(took) = took.filter(|_| !is_lost) {
                let event = Event::Gossip { to: *peer, from: n, bucket, bytes: bytes.clone() };
                self.queue.schedule(self.at + took, event);
            }
        }
        peers.len()
    }

    /// A question goes to a peer; liars ask without an engine.
    pub(super) fn ask(&mut self, from: usize, to: usize, request: u64, bytes: Vec<u8>) {
        self.counted.requests += 1;
        if let Some(tapped) = self.tapped.get_mut(&to)
            && let [7, envelope @ ..] = bytes.as_slice()
        {
            tapped.push(envelope.to_vec());
        }
        let opened = [from, to].map(|n| self.nodes[n].opened);
        let is_lost = self.loses(from, to, 0.5);
        let took = self.links.carry(from, to, self.at, &mut self.rng);
        if let Some(took) = took.filter(|_| !is_lost) {
            self.queue.schedule(self.at + took, Event::Request { to, from, opened, request, bytes });
        } else {
            let event = Event::Response { to: from, from: to, opened, request, bytes: None };
            self.queue.schedule(self.at + REQUEST_TIMEOUT, event);
        }
    }

    fn mix(&mut self, from: usize, to: usize, handle: u64, bytes: Vec<u8>) {
        if let Some(tapped) = self.tapped.get_mut(&to) {
            tapped.push(bytes.clone());
        }
        let opened = self.nodes[from].opened;
        let took = Duration::from_millis(self.rng.random_range(MIX_MS));
        let is_lost = self.loses(from, to, 0.5);
        let (at, bytes) = if is_lost { (self.at + MIX_TIMEOUT, None) } else { (self.at + took, Some(bytes)) };
        self.queue.schedule(at, Event::Mix { to, from, opened, handle, bytes });
    }

    /// Lets time pass.
    pub(super) fn run_until(&mut self, end: Duration) {
        while let Some((at, event)) = self.queue.pop() {
            if at >= end {
                self.queue.schedule(at, event);
                break;
            }
            self.at = at;
            self.counted.events += 1;
            self.handle(event);
        }
        self.at = end;
    }

    /// Takes an event into the digest of all: its time, its kind, whom it concerns, and a length.
    fn record(&mut self, event: &Event) {
        let some = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(usize::MAX, Vec::len);
        let [kind, to, from, length] = match event {
            Event::Timer(n) => [0, *n, 0, 0],
            Event::Persisted { at, rows, .. } => [1, *at, 0, rows.len()],
            Event::Gossip { to, from, bytes, .. } => [2, *to, *from, bytes.len()],
            Event::Request { to, from, bytes, .. } => [3, *to, *from, bytes.len()],
            Event::Response { to, from, bytes, .. } => [4, *to, *from, some(bytes)],
            Event::Mix { to, from, bytes, .. } => [5, *to, *from, some(bytes)],
            Event::Mail(n) => [6, *n, 0, 0],
            Event::Act(_) => [7, 0, 0, 0],
        };
        let at = u64::try_from(self.at.as_nanos()).unwrap_or(u64::MAX);
        for number in [at, kind as u64, to as u64, from as u64, length as u64] {
            self.trace.update(&number.to_be_bytes());
        }
    }

    /// The digest of everything that happened so far.
    pub(super) fn digest(&self) -> [u8; 32] {
        *self.trace.finalize().as_bytes()
    }

    fn handle(&mut self, event: Event) {
        self.record(&event);
        match event {
            Event::Timer(n) => {
                if self.nodes[n].armed == Some(self.at) {
                    self.nodes[n].armed = None;
                    self.act(n, Chat::handle_timeout);
                }
            }
            Event::Persisted { at: n, opened, number, rows } => {
                if self.nodes[n].opened == opened && self.nodes[n].chat.is_some() {
                    // A disk that lies says so and has nothing.
                    if self.plan.fault != Some(Fault::LyingDisk) || self.is_calm {
                        self.nodes[n].store.write(rows);
                    }
                    self.act(n, |chat, now| chat.handle_persisted(number, true, now));
                }
            }
            Event::Gossip { to, from, bucket, bytes } => self.arrive(to, from, bucket, &bytes),
            Event::Request { to, from, opened, request, bytes } => self.answer(to, from, opened, request, &bytes),
            Event::Response { to, from, opened, request, bytes } => {
                if self.nodes[to].opened == opened[0] {
                    if self.witness == Some(to) {
                        self.heard.extend(bytes.clone());
                    }
                    self.act(to, |chat, now| {
                        chat.handle_response(node_id(from), request, bytes.as_deref().ok_or(()), now)
                    });
                }
            }
            Event::Mix { to, from, opened, handle, bytes } => self.arrive_mixed(to, from, opened, handle, bytes),
            Event::Mail(n) => {
                if self.nodes[n].chat.is_some() {
                    for bytes in std::mem::take(&mut self.nodes[n].mail) {
                        self.act(n, |chat, now| chat.handle_mix(&bytes, now));
                    }
                }
            }
            Event::Act(act) => self.perform(act),
        }
    }

    fn is_linked(&self, a: usize, b: usize) -> bool {
        self.nodes[a].links.contains(&b) && self.nodes[a].is_up() && self.nodes[b].is_up()
    }

    fn arrive(&mut self, to: usize, from: usize, bucket: u8, bytes: &Arc<Vec<u8>>) {
        if !self.is_linked(to, from) {
            return;
        }
        if self.nodes[to].role == Role::Noise && self.overheard.len() < 1_000 {
            self.overheard.push((bucket, bytes.clone()));
        }
        let verdict = self.act(to, |chat, now| chat.handle_gossip(node_id(from), bytes, now));
        match verdict {
            Some(Validation::Accept) => drop(self.spread(to, from, bucket, bytes)),
            Some(Validation::Reject) => {
                self.counted.blamed += 1;
                self.nodes[to].log.blamed.push((from, "gossip".to_owned()));
            }
            _ => {}
        }
    }

    fn answer(&mut self, to: usize, from: usize, opened: [u32; 2], request: u64, bytes: &[u8]) {
        if self.witness == Some(to) {
            self.heard.push(bytes.to_vec());
        }
        let is_there = self.nodes[to].opened == opened[1] && self.is_linked(to, from) && !self.hides(to, from);
        let answer = if !is_there {
            None
        } else if self.nodes[to].role == Role::Noise {
            Some(self.noise(200))
        } else {
            self.act(to, |chat, now| chat.handle_request(node_id(from), bytes, now)).and_then(|answer| match answer {
                Ok(answer) => Some(answer),
                Err(reject) => {
                    if reject.is_misbehaviour() {
                        self.counted.blamed += 1;
                        self.nodes[to].log.blamed.push((from, format!("asked: {reject:?}")));
                    }
                    None
                }
            })
        };
        let took = self.links.carry(to, from, self.at, &mut self.rng);
        let (took, mut bytes) = took.map_or((REQUEST_TIMEOUT, None), |took| (took, answer));
        if self.plan.breaks(Fault::Forged, to)
            && let Some(kind) = bytes.as_mut().and_then(|bytes| bytes.first_mut())
        {
            *kind ^= 0x80;
        }
        let event = Event::Response { to: from, from: to, opened, request, bytes };
        self.queue.schedule(self.at + took, event);
    }

    pub(super) fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.random_range(1..most)];
        self.rng.fill_bytes(&mut bytes);
        bytes[0] %= 12;
        bytes
    }

    fn arrive_mixed(&mut self, to: usize, from: usize, opened: u32, handle: u64, bytes: Option<Vec<u8>>) {
        let progress = match bytes {
            None => MixProgress::Failed,
            Some(bytes) if self.nodes[to].chat.is_some() => {
                self.act(to, |chat, now| chat.handle_mix(&bytes, now));
                MixProgress::Acknowledged
            }
            Some(bytes) => {
                self.nodes[to].mail.push(bytes);
                MixProgress::Stored
            }
        };
        if self.nodes[from].opened == opened {
            self.act(from, |chat, now| chat.handle_mix_progress(handle, progress, now));
        }
    }

    /// How full the buffers of all honest devices are.
    pub(super) fn sample(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.is_honest()) {
            let Some(chat) = &node.chat else { continue };
            for load in chat.loads() {
                let (held, most) = node.log.loads.entry(load.name).or_default();
                *held = load.held.max(*held);
                *most = load.most;
            }
        }
    }
}
