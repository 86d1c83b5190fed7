//! A small world of devices: links that lose, delay and reorder, disks, crashes, virtual time, a mixnet with mailboxes. All from one seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fog_base::{NetworkId, NodeId, Now, UnixMillis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zeroize::Zeroizing;

use super::{
    Chat, Config, ConversationId, Event, Kind, MessageId, MixProgress, Output, Rows, State, Transport, Validation, Via,
};

pub(crate) const NETWORK: NetworkId = NetworkId([9; 32]);

/// A disk that outlives its device.
#[derive(Clone, Default)]
pub(crate) struct Store(pub(crate) Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>);

impl Rows for Store {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        for (key, value) in self.0.lock().unwrap().range(prefix.to_vec()..) {
            if !key.starts_with(prefix) || !visit(key, value) {
                return;
            }
        }
    }
}

/// Something under way.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Gossip { from: usize, bytes: Vec<u8> },
    Request { from: usize, request: u64, bytes: Vec<u8> },
    Response { from: usize, request: u64, bytes: Option<Vec<u8>> },
    Mix { bytes: Vec<u8>, from: usize, handle: u64 },
}

pub(crate) struct Node {
    pub(crate) chat: Option<Chat>,
    pub(crate) store: Store,
    pub(crate) events: Vec<Event>,
    /// States as they were told, to see that they only advance.
    pub(crate) states: BTreeMap<MessageId, State>,
    buckets: BTreeSet<u8>,
    opened: u64,
    pub(crate) is_mix_ready: bool,
    pub(crate) persisted: u64,
    /// Crash when so many batches are on disk; whether the last one makes it there.
    pub(crate) crash_at: Option<(u64, bool)>,
    pub(crate) skew: i64,
    /// By which transports bytes left, for whom.
    pub(crate) left: Vec<(Transport, Vec<u8>)>,
    pub(crate) blamed: usize,
    /// What was answered.
    pub(crate) answered: Vec<Vec<u8>>,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Now,
    pub(crate) rng: ChaCha8Rng,
    links: BTreeSet<(usize, usize)>,
    pub(crate) lan: bool,
    wire: BTreeMap<(Instant, u64), (usize, Packet)>,
    number: u64,
    pub(crate) loss: f64,
    pub(crate) jitter: Duration,
    mailboxes: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Nobody acknowledges by itself what was dialled.
    pub(crate) dials: Vec<(usize, NodeId)>,
    /// Whether wanted connections come about.
    pub(crate) can_dial: bool,
    /// Gossip says that it took what nobody hears.
    pub(crate) is_gossip_content: bool,
}

pub(crate) fn node_id(n: usize) -> NodeId {
    NodeId([u8::try_from(n).unwrap() + 1; 32])
}

impl World {
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        let now = Now { mono: Instant::now(), unix: UnixMillis(1_800_000_000_000) };
        let mut world = Self {
            nodes: Vec::new(),
            now,
            rng: ChaCha8Rng::seed_from_u64(seed),
            links: BTreeSet::new(),
            lan: false,
            wire: BTreeMap::new(),
            number: 0,
            loss: 0.0,
            jitter: Duration::from_millis(20),
            mailboxes: BTreeMap::new(),
            dials: Vec::new(),
            can_dial: false,
            is_gossip_content: false,
        };
        for n in 0..count {
            world.nodes.push(Node {
                chat: None,
                store: Store::default(),
                events: Vec::new(),
                states: BTreeMap::new(),
                buckets: BTreeSet::new(),
                opened: 0,
                is_mix_ready: false,
                persisted: 0,
                crash_at: None,
                skew: 0,
                left: Vec::new(),
                blamed: 0,
                answered: Vec::new(),
            });
            world.open(n);
        }
        world
    }

    pub(crate) fn time(&self, n: usize) -> Now {
        let unix = self.now.unix.0.saturating_add_signed(self.nodes[n].skew);
        Now { mono: self.now.mono, unix: UnixMillis(unix) }
    }

    pub(crate) fn open(&mut self, n: usize) {
        let now = self.time(n);
        let node = &mut self.nodes[n];
        node.opened += 1;
        let mut seed = [u8::try_from(n).unwrap(); 32];
        seed[..8].copy_from_slice(&node.opened.to_be_bytes());
        let config = Config {
            network: NETWORK,
            node: node_id(n),
            name: format!("dev{n}"),
            seal_key: [u8::try_from(n).unwrap(); 32],
        };
        let rows = Box::new(node.store.clone());
        let chat = Chat::open(config, Zeroizing::new([u8::try_from(n).unwrap() + 100; 32]), rows, seed, now).unwrap();
        node.chat = Some(chat);
        node.buckets.clear();
        if self.nodes[n].is_mix_ready {
            self.act(n, |chat, now| chat.handle_mix_ready(true, now));
        }
        for (a, b) in self.links.clone() {
            if a == n {
                self.tell_connected(n, b);
            } else if b == n {
                self.tell_connected(n, a);
            }
        }
        self.drain(n);
    }

    fn tell_connected(&mut self, n: usize, other: usize) {
        let lan = self.lan;
        if self.nodes[other].chat.is_some() && self.nodes[n].chat.is_some() {
            self.act(n, |chat, now| chat.handle_connected(node_id(other), lan, now));
        }
    }

    /// The process ends; what is not on disk is gone.
    pub(crate) fn crash(&mut self, n: usize) {
        self.nodes[n].chat = None;
        self.nodes[n].crash_at = None;
        for (a, b) in self.links.clone() {
            let other = if a == n { b } else { a };
            if (a == n || b == n) && self.nodes[other].chat.is_some() {
                self.act(other, |chat, now| chat.handle_disconnected(node_id(n), now));
            }
        }
        // Streams end with their process, on both sides.
        let is_of = |packet: &Packet| matches!(packet, Packet::Request { from, .. } if *from == n);
        self.wire.retain(|_, (to, packet)| (*to != n || matches!(packet, Packet::Mix { .. })) && !is_of(packet));
    }

    /// Opens a device again; its peers see it come.
    pub(crate) fn reopen(&mut self, n: usize) {
        self.open(n);
        for (a, b) in self.links.clone() {
            if a == n {
                self.tell_connected(b, n);
            } else if b == n {
                self.tell_connected(a, n);
            }
        }
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        if a != b && self.links.insert((a.min(b), a.max(b))) {
            for (n, other) in [(a, b), (b, a)] {
                if self.nodes[n].chat.is_some() {
                    self.tell_connected(n, other);
                }
            }
        }
    }

    pub(crate) fn disconnect(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            for (n, other) in [(a, b), (b, a)] {
                if self.nodes[n].chat.is_some() {
                    self.act(n, |chat, now| chat.handle_disconnected(node_id(other), now));
                }
            }
        }
    }

    pub(crate) fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                self.connect(a, b);
            }
        }
    }

    pub(crate) fn is_linked(&self, a: usize, b: usize) -> bool {
        self.links.contains(&(a.min(b), a.max(b)))
    }

    /// Something happens at a device, and all that follows from it at once.
    pub(crate) fn act<T>(&mut self, n: usize, what: impl FnOnce(&mut Chat, Now) -> T) -> T {
        let now = self.time(n);
        let result = what(self.nodes[n].chat.as_mut().unwrap(), now);
        self.drain(n);
        result
    }

    pub(crate) fn chat(&self, n: usize) -> &Chat {
        self.nodes[n].chat.as_ref().unwrap()
    }

    fn drain(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].chat.as_mut().and_then(Chat::poll_output) {
            self.output(n, output);
        }
    }

    fn output(&mut self, n: usize, output: Output) {
        match output {
            Output::Persist { number, rows, .. } => self.persist(n, number, rows),
            Output::Subscribe(bucket) => drop(self.nodes[n].buckets.insert(bucket)),
            Output::Unsubscribe(bucket) => drop(self.nodes[n].buckets.remove(&bucket)),
            Output::Publish { handle, bucket, bytes } => {
                let peers = self.mesh(n, bucket);
                self.nodes[n].left.push((Transport::Gossip, bytes.clone()));
                for peer in &peers {
                    self.post(*peer, Packet::Gossip { from: n, bytes: bytes.clone() });
                }
                let (now, is_content) = (self.time(n), self.is_gossip_content);
                if let Some(chat) = &mut self.nodes[n].chat {
                    chat.handle_published(handle, is_content || !peers.is_empty(), now);
                }
            }
            Output::Request { to, request, bytes } => {
                let to = usize::from(to.0[0]) - 1;
                let via = if self.lan { Transport::Lan } else { Transport::Direct };
                self.nodes[n].left.push((via, bytes.clone()));
                self.post(to, Packet::Request { from: n, request, bytes });
            }
            Output::Mix { handle, to, bytes } => {
                let to = usize::from(to.node.0[0]) - 1;
                self.nodes[n].left.push((Transport::Mix, bytes.clone()));
                self.post(to, Packet::Mix { bytes, from: n, handle });
            }
            Output::Dial(node) => {
                let to = usize::from(node.0[0]) - 1;
                self.dials.push((n, node));
                if self.can_dial && self.nodes[to].chat.is_some() {
                    self.connect(n, to);
                }
            }
            Output::Blame { node, reject } => {
                println!("device {n} blames {node} for {reject:?}");
                self.nodes[n].blamed += 1;
            }
            Output::Event(event) => {
                if let Event::State(id) = event {
                    let state = self.chat(n).shown(&id).map(|shown| shown.state);
                    if let Some(state) = state {
                        let before = self.nodes[n].states.insert(id, state);
                        assert!(before.is_none_or(|before| before <= state), "{before:?} {state:?}");
                    }
                }
                self.nodes[n].events.push(event);
            }
        }
    }

    fn persist(&mut self, n: usize, number: u64, rows: Vec<super::Row>) {
        let node = &mut self.nodes[n];
        let crash = node.crash_at.filter(|(at, _)| node.persisted >= *at);
        if crash.is_none_or(|(_, makes_it)| makes_it) {
            let mut disk = node.store.0.lock().unwrap();
            for row in rows {
                match row.value {
                    Some(value) => drop(disk.insert(row.key, value)),
                    None => drop(disk.remove(&row.key)),
                }
            }
        }
        node.persisted += 1;
        if crash.is_some() {
            self.crash(n);
            return;
        }
        let now = self.time(n);
        if let Some(chat) = &mut self.nodes[n].chat {
            chat.handle_persisted(number, true, now);
        }
    }

    fn mesh(&self, n: usize, bucket: u8) -> Vec<usize> {
        let linked = (0..self.nodes.len()).filter(|other| *other != n && self.is_linked(n, *other));
        linked
            .filter(|other| self.nodes[*other].chat.is_some() && self.nodes[*other].buckets.contains(&bucket))
            .collect()
    }

    fn post(&mut self, to: usize, packet: Packet) {
        self.number += 1;
        let jitter = self.rng.random_range(1..=self.jitter.as_millis() as u64);
        let at = self.now.mono + Duration::from_millis(jitter);
        self.wire.insert((at, self.number), (to, packet));
    }

    fn arrive(&mut self, to: usize, packet: Packet) {
        let is_lossy = matches!(packet, Packet::Gossip { .. } | Packet::Mix { .. });
        let is_lost = is_lossy && self.loss > 0.0 && self.rng.random_bool(self.loss);
        if is_lost || (self.nodes[to].chat.is_none() && !matches!(packet, Packet::Mix { .. })) {
            return;
        }
        match packet {
            Packet::Gossip { from, bytes } => {
                if !self.is_linked(from, to) {
                    return;
                }
                let verdict = self.act(to, |chat, now| chat.handle_gossip(node_id(from), &bytes, now));
                if verdict == Validation::Accept && self.nodes[to].chat.is_some() {
                    for bucket in self.nodes[to].buckets.clone() {
                        for peer in self.mesh(to, bucket).into_iter().filter(|peer| *peer != from) {
                            self.post(peer, Packet::Gossip { from: to, bytes: bytes.clone() });
                        }
                    }
                }
            }
            Packet::Request { from, request, bytes } => {
                if !self.is_linked(from, to) {
                    return;
                }
                // A stream that breaks: the asking side is told.
                let breaks = self.loss > 0.0 && self.rng.random_bool(self.loss / 2.0);
                let answer = if breaks {
                    None
                } else {
                    self.act(to, |chat, now| chat.handle_request(node_id(from), &bytes, now)).ok()
                };
                if let Some(answer) = &answer {
                    self.nodes[to].answered.push(answer.clone());
                }
                self.post(from, Packet::Response { from: to, request, bytes: answer });
            }
            Packet::Response { from, request, bytes } => {
                let answer = bytes.as_deref().ok_or(());
                self.act(to, |chat, now| chat.handle_response(node_id(from), request, answer, now));
            }
            Packet::Mix { bytes, from, handle } => self.arrive_mixed(to, bytes, from, handle),
        }
    }

    fn arrive_mixed(&mut self, to: usize, bytes: Vec<u8>, from: usize, handle: u64) {
        let progress = if self.nodes[to].chat.is_some() && self.nodes[to].is_mix_ready {
            self.act(to, |chat, now| chat.handle_mix(&bytes, now));
            MixProgress::Acknowledged
        } else {
            self.mailboxes.entry(to).or_default().push(bytes);
            MixProgress::Stored
        };
        if self.nodes[from].chat.is_some() {
            self.act(from, |chat, now| chat.handle_mix_progress(handle, progress, now));
        }
    }

    /// A device fetches its mailboxes.
    pub(crate) fn fetch_mail(&mut self, n: usize) {
        for bytes in self.mailboxes.remove(&n).unwrap_or_default() {
            if self.nodes[n].chat.is_some() {
                self.act(n, |chat, now| chat.handle_mix(&bytes, now));
            }
        }
    }

    /// What waits for one device comes to another.
    pub(crate) fn redirect_mail(&mut self, from: usize, to: usize) {
        let mail = self.mailboxes.remove(&from).unwrap_or_default();
        self.mailboxes.entry(to).or_default().extend(mail);
    }

    /// A device fetches its mailboxes, the last one first.
    pub(crate) fn fetch_mail_backwards(&mut self, n: usize) {
        self.mailboxes.entry(n).or_default().reverse();
        self.fetch_mail(n);
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        let mut steps = 0u64;
        loop {
            steps += 1;
            assert!(steps < 20_000_000, "no end");
            let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timers = self.nodes.iter().filter_map(|node| node.chat.as_ref()?.poll_timeout()).min();
            let Some(next) = wire.into_iter().chain(timers).min().filter(|at| *at <= end) else { break };
            self.now = self.now.plus(next.saturating_duration_since(self.now.mono));
            if wire == Some(next)
                && let Some((_, (to, packet))) = self.wire.pop_first()
            {
                self.arrive(to, packet);
                continue;
            }
            for n in 0..self.nodes.len() {
                let due = self.nodes[n].chat.as_ref().and_then(Chat::poll_timeout).is_some_and(|at| at <= next);
                if due {
                    self.act(n, Chat::handle_timeout);
                }
            }
        }
        self.now = self.now.plus(end.saturating_duration_since(self.now.mono));
    }

    pub(crate) fn join_all(&mut self, room: &str) -> ConversationId {
        let ids: Vec<_> =
            (0..self.nodes.len()).map(|n| self.act(n, |chat, now| chat.join_room(room, None, now)).unwrap()).collect();
        ids[0]
    }

    pub(crate) fn say(&mut self, n: usize, to: ConversationId, text: &str) -> MessageId {
        self.act(n, |chat, now| chat.send(to, Kind::TEXT, text.as_bytes(), Via::Auto, now)).unwrap()
    }

    pub(crate) fn history(&self, n: usize, of: ConversationId) -> Vec<MessageId> {
        self.chat(n).history(of, None).unwrap().into_iter().map(|shown| shown.id).collect()
    }

    pub(crate) fn texts(&self, n: usize, of: ConversationId) -> Vec<String> {
        let history = self.chat(n).history(of, None).unwrap();
        history.into_iter().map(|shown| String::from_utf8(shown.body).unwrap()).collect()
    }

    /// `a` has the invite of `b`.
    pub(crate) fn befriend(&mut self, a: usize, b: usize) -> ConversationId {
        let card = self.act(b, |chat, now| chat.card(now));
        self.act(a, |chat, now| chat.add_contact(card, None, now)).unwrap();
        self.chat(a).resolve(&format!("@dev{b}")).unwrap()
    }
}
