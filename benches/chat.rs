//! What chat costs beside the ratchets that it is built on: a direct message through both devices against vodozemac alone, and a live
//! message of a group and of a room from envelope to stored row and event.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod harness;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fog_base::{MessageId, NetworkId, NodeId, Now, UnixMillis};
use fog_chat::core::{
    engine::{Chat, Config, ConversationId, Event, Kind as Body, Output, Rows, Via},
    secrets::{Device, Kind, Output as Secret, SecretKey},
};
use harness::{Harness, Side, Target, on_core};
use vodozemac::olm::{Account, OlmMessage, Session, SessionConfig};
use zeroize::Zeroizing;

const NETWORK: NetworkId = NetworkId([9; 32]);
const TEXT: [u8; 1024] = [7; 1024];
/// Runs of the ingest, messages in each, and how many are written before the other side takes them in.
const RUNS: usize = 7;
const MESSAGES: usize = 4_000;
const AT_ONCE: usize = 50;
/// One author's pace, so that its rate limit is no part of the cost.
const PACE: Duration = Duration::from_millis(50);

fn main() {
    let mut harness = Harness::from_env();
    // Acknowledgements go when 16 wait: what a flow of messages one way costs. And a dialogue, in which each message turns the ratchet.
    for (name, batch) in [("chat_encrypt_decrypt", 16), ("chat_encrypt_decrypt_dialogue", 1)] {
        if harness.wants(name) {
            let (mut ours, mut rival) = (Pair::new(), Alone::new());
            let ours = Side::new(batch, || ours.round(batch));
            let rival = Side::new(batch, || rival.round(batch));
            harness.compare_us(name, ours, Some(("vodozemac 0.11", rival)), Some(1.2));
        }
    }
    if harness.wants("chat_group_ingest_per_s") {
        let mut runs = ingest(World::group);
        harness.medians("chat_group_ingest_per_s", &mut runs, None, "1/s", Some(Target::AtLeast(15_000.0)));
    }
    if harness.wants("chat_room_ingest_per_s") {
        let mut runs = ingest(World::room);
        harness.medians("chat_room_ingest_per_s", &mut runs, None, "1/s", Some(Target::AtLeast(15_000.0)));
    }
    harness.finish();
}

fn start() -> Now {
    Now { mono: Instant::now(), unix: UnixMillis(1_800_000_000_000) }
}

/// Two sessions of vodozemac, and nothing else.
struct Alone(Session, Session);

impl Alone {
    fn new() -> Self {
        let (alice, mut bob) = (Account::new(), Account::new());
        bob.generate_fallback_key();
        let key = *bob.fallback_key().values().next().unwrap();
        let mut a = alice.create_outbound_session(SessionConfig::version_2(), bob.curve25519_key(), key).unwrap();
        let OlmMessage::PreKey(first) = a.encrypt("").unwrap() else { panic!("a first message") };
        let made = bob.create_inbound_session(SessionConfig::version_2(), alice.curve25519_key(), &first).unwrap();
        let mut b = made.session;
        carry(&mut b, &mut a, b"");
        Self(a, b)
    }

    /// Messages one way, and one answer of an acknowledgement's length that turns the ratchet.
    fn round(&mut self, batch: u32) {
        let Self(a, b) = self;
        (0..batch).for_each(|_| carry(a, b, &TEXT));
        carry(b, a, &vec![0; 88 + 16 * batch as usize]);
    }
}

fn carry(from: &mut Session, to: &mut Session, text: &[u8]) {
    let (kind, bytes) = from.encrypt(text).unwrap().to_parts();
    to.decrypt(&OlmMessage::from_parts(kind, &bytes).unwrap()).unwrap();
}

/// Two devices with frames, windows, duplicates and sealed rows; the store takes everything at once.
struct Pair {
    a: Device,
    b: Device,
    now: Now,
    sent: u64,
}

impl Pair {
    fn new() -> Self {
        let now = start();
        let device = |key: u8| Device::new(NETWORK, [key; 32], SecretKey::new([key; 32]), [key; 32], now);
        let (mut a, mut b) = (device(1), device(2));
        a.handle_bundle(&b.bundle(), now).unwrap();
        b.handle_bundle(&a.bundle(), now).unwrap();
        let mut pair = Self { a, b, now, sent: 0 };
        pair.round(1);
        // And one the other way: each knows then that the other has its bundle.
        std::mem::swap(&mut pair.a, &mut pair.b);
        pair.round(1);
        pair
    }

    /// Messages one way, and the acknowledgement of them all.
    fn round(&mut self, batch: u32) {
        let (a_id, b_id) = (self.a.id(), self.b.id());
        for _ in 0..batch {
            self.sent += 1;
            let id = MessageId(u128::from(self.sent).to_be_bytes());
            self.a.handle_send(b_id, id, Kind::Data, &TEXT).unwrap();
        }
        for wire in outputs(&mut self.a) {
            self.b.handle_message(a_id, &wire, self.now).unwrap();
        }
        self.b.handle_timeout(self.now.plus(Duration::from_secs(1)));
        for wire in outputs(&mut self.b) {
            self.a.handle_message(b_id, &wire, self.now).unwrap();
        }
        assert!(outputs(&mut self.a).is_empty() && self.a.pending(&b_id).is_empty());
    }
}

fn outputs(device: &mut Device) -> Vec<Vec<u8>> {
    let mut wires = Vec::new();
    while let Some(output) = device.poll_output() {
        match output {
            Secret::Persist { batch, .. } => device.handle_persisted(batch),
            Secret::Send { bytes, .. } => wires.push(bytes),
            _ => {}
        }
    }
    wires
}

/// Messages that one core takes in a second of its time, in each run; the one before the runs makes it warm.
fn ingest(begin: fn() -> (World, ConversationId)) -> Vec<f64> {
    let (mut world, to) = begin();
    let mut run = || {
        world.spent = Duration::ZERO;
        let had = world.shown;
        for number in 0..MESSAGES {
            let body = format!("{number:0>1000}");
            world.act(0, |chat, now| _ = chat.send(to, Body::TEXT, body.as_bytes(), Via::Auto, now).unwrap());
            if (number + 1) % AT_ONCE == 0 {
                world.run(PACE * AT_ONCE as u32);
            }
        }
        assert_eq!(world.shown - had, MESSAGES);
        MESSAGES as f64 / world.spent.as_secs_f64()
    };
    run();
    (0..RUNS).map(|_| run()).collect()
}

/// Rows in memory.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>);

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

enum Packet {
    Gossip(Vec<u8>),
    Request(u64, Vec<u8>),
    Response(u64, Vec<u8>),
}

/// Two devices and what is under way between them. What the second one does is measured.
struct World {
    chats: [(Chat, Store); 2],
    wire: Vec<(usize, Packet)>,
    now: Now,
    spent: Duration,
    /// Messages that the second one showed.
    shown: usize,
}

impl World {
    fn new() -> Self {
        let now = start();
        let chats = [0, 1].map(|n: u8| {
            let config = Config { network: NETWORK, node: node(n.into()), name: format!("dev{n}"), seal_key: [n; 32] };
            let store = Store::default();
            let rows = Box::new(store.clone());
            (Chat::open(config, Zeroizing::new([n; 32]), rows, [n; 32], now).unwrap(), store)
        });
        Self { chats, wire: Vec::new(), now, spent: Duration::ZERO, shown: 0 }
    }

    fn connect(&mut self) {
        for n in [0, 1] {
            self.act(n, |chat, now| chat.handle_connected(node(1 - n), true, now));
        }
        self.run(Duration::from_secs(60));
    }

    fn room() -> (Self, ConversationId) {
        let mut world = Self::new();
        let ids = [0, 1].map(|n| world.act(n, |chat, now| chat.join_room("#lobby", None, now).unwrap()));
        world.connect();
        (world, ids[0])
    }

    fn group() -> (Self, ConversationId) {
        let mut world = Self::new();
        let group = world.act(0, |chat, now| chat.create_group("crew", now).unwrap());
        for n in [0, 1] {
            let card = world.act(1 - n, Chat::card);
            world.act(n, |chat, now| drop(chat.add_contact(card, None, now).unwrap()));
        }
        world.connect();
        world.act(0, |chat, now| chat.invite(group, "dev1", now).unwrap());
        world.run(Duration::from_secs(120));
        assert_eq!(world.chats[1].0.members(group).unwrap().len(), 2);
        (world, group)
    }

    /// Something happens at a device, and its rows are stored at once.
    fn act<T>(&mut self, n: usize, what: impl FnOnce(&mut Chat, Now) -> T) -> T {
        let now = self.now;
        let (chat, store) = &mut self.chats[n];
        let result = what(chat, now);
        while let Some(output) = chat.poll_output() {
            match output {
                Output::Persist { number, rows, .. } => {
                    let mut disk = store.0.lock().unwrap();
                    for row in rows {
                        match row.value {
                            Some(value) => disk.insert(row.key, value),
                            None => disk.remove(&row.key),
                        };
                    }
                    drop(disk);
                    chat.handle_persisted(number, true, now);
                }
                Output::Publish { handle, bytes, .. } => {
                    self.wire.push((1 - n, Packet::Gossip(bytes)));
                    chat.handle_published(handle, true, now);
                }
                Output::Request { request, bytes, .. } => self.wire.push((1 - n, Packet::Request(request, bytes))),
                Output::Event(Event::Message(_)) if n == 1 => self.shown += 1,
                Output::Blame { reject, .. } => panic!("{reject:?}"),
                _ => {}
            }
        }
        result
    }

    fn deliver(&mut self) {
        while !self.wire.is_empty() {
            let (first, second): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.wire).into_iter().partition(|(to, _)| *to == 0);
            first.into_iter().for_each(|(to, packet)| self.arrive(to, packet));
            let begun = on_core();
            self.arrive_at_second(second.into_iter().map(|(_, packet)| packet));
            self.spent += on_core().saturating_sub(begun);
        }
    }

    /// What gossip brought is taken as a node takes it: what came in a row at once.
    fn arrive_at_second(&mut self, packets: impl Iterator<Item = Packet>) {
        let mut envelopes = Vec::new();
        for packet in packets {
            match packet {
                Packet::Gossip(bytes) => envelopes.push(bytes),
                other => {
                    self.take_in(std::mem::take(&mut envelopes));
                    self.arrive(1, other);
                }
            }
        }
        self.take_in(envelopes);
    }

    fn take_in(&mut self, envelopes: Vec<Vec<u8>>) {
        let came: Vec<_> = envelopes.iter().map(|bytes| (node(0), &bytes[..])).collect();
        self.act(1, |chat, now| chat.handle_gossips(&came, now));
    }

    fn arrive(&mut self, to: usize, packet: Packet) {
        let from = node(1 - to);
        match packet {
            Packet::Gossip(bytes) => _ = self.act(to, |chat, now| chat.handle_gossip(from, &bytes, now)),
            Packet::Request(request, bytes) => {
                let answer = self.act(to, |chat, now| chat.handle_request(from, &bytes, now)).unwrap();
                self.wire.push((1 - to, Packet::Response(request, answer)));
            }
            Packet::Response(request, bytes) => {
                self.act(to, |chat, now| chat.handle_response(from, request, Ok(&bytes), now));
            }
        }
    }

    /// Lets time pass; what is due at the end of it is done.
    fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            self.deliver();
            let due = self.chats.each_ref().map(|(chat, _)| chat.poll_timeout().filter(|at| *at <= end));
            let Some(next) = due.into_iter().flatten().min() else { break };
            self.now = self.now.plus(next.saturating_duration_since(self.now.mono));
            for n in [0, 1] {
                if due[n].is_some_and(|at| at <= next) {
                    self.act(n, Chat::handle_timeout);
                }
            }
        }
        self.now = self.now.plus(end.saturating_duration_since(self.now.mono));
    }
}

fn node(n: usize) -> NodeId {
    NodeId([n as u8 + 1; 32])
}
