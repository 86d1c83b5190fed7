//! A device in a room, and a peer that does to it what the input says.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use fog_base::{MessageId, NodeId, Now};
use fog_chat::core::{
    engine::{Chat, Config, ConversationId, Event, Kind as Body, Output, Rows, Via, is_clean},
    secrets::{Device, Kind, Output as Secret, SecretKey},
};
use zeroize::Zeroizing;

use super::{NETWORK, author, card, derive, envelope, header, node, now, operation, room, signed_message};

/// Steps of one input; more would be slow and find nothing else.
const MAX_STEPS: usize = 64;
const US: u8 = 1;
const PEER: u8 = 2;

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

/// A device, its disk, and what it asked.
struct Node {
    chat: Chat,
    store: Store,
    number: u8,
    asked: VecDeque<(NodeId, u64, Vec<u8>)>,
    published: Vec<Vec<u8>>,
    shown: usize,
}

fn open(number: u8, store: &Store, now: Now) -> Chat {
    let config = Config { network: NETWORK, node: node(number), name: format!("dev{number}"), seal_key: [number; 32] };
    Chat::open(config, Zeroizing::new([number; 32]), Box::new(store.clone()), [number; 32], now).unwrap()
}

impl Node {
    fn new(number: u8, now: Now) -> Self {
        let store = Store::default();
        let chat = open(number, &store, now);
        let mut node = Self { chat, store, number, asked: VecDeque::new(), published: Vec::new(), shown: 0 };
        node.act(|chat| chat.join_room("#lobby", None, now).unwrap());
        node
    }

    fn say(&mut self, text: &str, now: Now) {
        self.act(|chat| chat.send(room("lobby"), Body::TEXT, text.as_bytes(), Via::Auto, now).unwrap());
    }

    /// Something happens, and its rows are stored at once.
    fn act<T>(&mut self, what: impl FnOnce(&mut Chat) -> T) -> T {
        let result = what(&mut self.chat);
        while let Some(output) = self.chat.poll_output() {
            match output {
                Output::Persist { number, rows, .. } => {
                    let mut disk = self.store.0.lock().unwrap();
                    for row in rows {
                        match row.value {
                            Some(value) => disk.insert(row.key, value),
                            None => disk.remove(&row.key),
                        };
                    }
                    drop(disk);
                    self.chat.handle_persisted(number, true, now());
                }
                Output::Request { to, request, bytes } => self.asked.push_back((to, request, bytes)),
                Output::Publish { bytes, .. } => self.published.push(bytes),
                Output::Event(Event::Message(id)) => {
                    let shown = self.chat.shown(&id);
                    assert!(shown.is_some(), "what is told is shown");
                    assert!(self.chat.why(&id).is_some());
                    self.shown += 1;
                }
                _ => {}
            }
        }
        result
    }
}

/// The device that is fuzzed, and the one whose key its peer has for direct messages.
struct World {
    us: Node,
    now: Now,
    peer: Option<Device>,
    frames: u64,
}

impl World {
    fn new() -> Self {
        let now = now();
        let mut us = Node::new(US, now);
        us.say("hello", now);
        us.act(|chat| chat.handle_connected(node(PEER), true, now));
        Self { us, now, peer: None, frames: 0 }
    }

    fn step(&mut self, what: u8, bytes: &[u8]) {
        let (now, peer) = (self.now, node(PEER));
        let first = bytes.first().copied().unwrap_or_default();
        match what % 10 {
            0 => self.gossip(bytes),
            1 => _ = self.us.act(|chat| chat.handle_request(peer, bytes, now)),
            2 => {
                let asked = self.us.asked.iter().position(|(to, ..)| *to == peer);
                if let Some((_, request, _)) = asked.and_then(|at| self.us.asked.remove(at)) {
                    self.us.act(|chat| chat.handle_response(peer, request, Ok(bytes), now));
                }
            }
            3 => self.us.act(|chat| chat.handle_mix(bytes, now)),
            // Any body in an envelope of the room.
            4 => {
                if let Some(bytes) = envelope(&room("lobby").0, bytes) {
                    self.gossip(&bytes);
                }
            }
            // A signed message of one of four authors.
            5 => {
                let message =
                    signed_message(bytes.get(1..).unwrap_or_default(), &room("lobby"), &author(10 + first % 4));
                if let Some(bytes) = envelope(&room("lobby").0, &[&[0], &message[..]].concat()) {
                    self.gossip(&bytes);
                }
            }
            6 => {
                self.now = now.plus(Duration::from_secs(u64::from(first)));
                let now = self.now;
                self.us.act(|chat| chat.handle_timeout(now));
            }
            7 if first % 2 == 0 => self.us.act(|chat| chat.handle_disconnected(peer, now)),
            7 => self.us.act(|chat| chat.handle_connected(peer, first % 4 == 1, now)),
            // A card over the peer's link, rightly signed.
            8 => {
                let card = card(bytes, &author(30));
                _ = self.us.act(|chat| chat.handle_request(peer, &[&[9], &card[..]].concat(), now));
            }
            _ => self.frame(first, bytes.get(1..).unwrap_or_default()),
        }
    }

    fn gossip(&mut self, bytes: &[u8]) {
        let now = self.now;
        self.us.act(|chat| chat.handle_gossip(node(PEER), bytes, now));
    }

    /// What a device writes to ours inside Olm; it need not be a contact.
    fn frame(&mut self, how: u8, body: &[u8]) {
        let (now, to) = (self.now, self.us.chat.device());
        let card = self.us.act(|chat| chat.card(now)).to_bytes();
        let peer = self.peer.get_or_insert_with(|| {
            let mut peer = Device::new(NETWORK, [20; 32], SecretKey::new([20; 32]), [20; 32], now);
            peer.handle_bundle(&card[1..179], now).unwrap();
            peer
        });
        self.frames += 1;
        let id = MessageId(u128::from(self.frames).to_be_bytes());
        let kind = if how & 1 == 0 { Kind::Data } else { Kind::GroupKey };
        // Its window may be full, or the body too long.
        let _outcome = peer.handle_send(to, id, kind, body);
        let mut wires = Vec::new();
        while let Some(output) = peer.poll_output() {
            match output {
                Secret::Persist { batch, .. } => peer.handle_persisted(batch),
                Secret::Send { bytes, .. } => wires.push(bytes),
                _ => {}
            }
        }
        let inbox = derive("fog chat v1 inbox tag key", &[&NETWORK.0, &to.0]);
        for wire in wires {
            let Some(bytes) = envelope(&inbox, &[&[4], &peer.id().0[..], &wire].concat()) else { continue };
            if how & 2 == 0 {
                self.us.act(|chat| chat.handle_mix(&bytes, now));
            } else {
                let request = [&[7], &bytes[..]].concat();
                _ = self.us.act(|chat| chat.handle_request(node(PEER), &request, now));
            }
        }
    }

    /// What must hold whatever came: the own message stands, texts are clean, and the rows open again.
    fn check(&mut self) {
        let lobby = room("lobby");
        for talk in self.us.chat.conversations() {
            assert!(is_clean(&talk.to), "{:?}", talk.to);
        }
        let own = |chat: &Chat, of: ConversationId| {
            let history = chat.history(of, None).unwrap();
            let is_own = |author| author == chat.device();
            assert_eq!(history.iter().filter(|shown| is_own(shown.author)).count(), 1);
            history.len()
        };
        let shown = own(&self.us.chat, lobby);
        let opened = open(self.us.number, &self.us.store, self.now);
        assert!(own(&opened, lobby) <= shown, "a restart shows nothing new");
        assert_eq!(opened.counts().drops.values().sum::<u64>(), 0, "{:?}", opened.counts());
    }
}

/// The input is steps: what (1), a length (2), that many bytes. How many messages were told.
pub fn run(data: &[u8]) -> usize {
    let mut world = World::new();
    let mut rest = data;
    for _ in 0..MAX_STEPS {
        let Some((&[what, high, low], after)) = rest.split_first_chunk::<3>() else { break };
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (bytes, after) = after.split_at(length);
        world.step(what, bytes);
        rest = after;
    }
    world.check();
    world.us.shown
}

pub fn fuzz(data: &[u8]) {
    run(data);
}

/// What two devices with different histories say to each other when they meet, each request (true) and response of the second one, which
/// is what reaches the first.
pub fn meeting() -> Vec<(bool, Vec<u8>)> {
    let mut said = Vec::new();
    let now = now();
    let (mut us, mut peer) = (Node::new(US, now), Node::new(PEER, now));
    us.say("hello", now);
    for text in ["one", "two", "three"] {
        peer.say(text, now);
    }
    us.act(|chat| chat.handle_connected(node(PEER), true, now));
    peer.act(|chat| chat.handle_connected(node(US), true, now));
    for _ in 0..8 {
        while let Some((_, request, bytes)) = us.asked.pop_front() {
            let Ok(answer) = peer.act(|chat| chat.handle_request(node(US), &bytes, now)) else { continue };
            said.push((false, answer.clone()));
            us.act(|chat| chat.handle_response(node(PEER), request, Ok(&answer), now));
        }
        while let Some((_, request, bytes)) = peer.asked.pop_front() {
            said.push((true, bytes.clone()));
            let Ok(answer) = us.act(|chat| chat.handle_request(node(PEER), &bytes, now)) else { continue };
            peer.act(|chat| chat.handle_response(node(US), request, Ok(&answer), now));
        }
    }
    said
}

fn step(what: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what], &(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// Inputs of [`fuzz`].
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let now = now();
    let mut peer = Node::new(PEER, now);
    peer.say("one", now);
    peer.say("two", now);
    let gossip: Vec<_> = peer.published.iter().flat_map(|bytes| step(0, bytes)).collect();
    let meeting: Vec<_> =
        meeting().iter().flat_map(|(is_request, bytes)| step(2 - u8::from(*is_request), bytes)).collect();
    let key = author(10);
    let first = header(&key, 1, [0; 32]);
    let signed = |header: &[u8], text: &[u8]| step(5, &[&[0], header, text].concat());
    let bytes = signed_message(&[&first[..], b"first"].concat(), &room("lobby"), &key);
    let id = fog_chat::Message::parse(&bytes, &NETWORK).unwrap().id().0;
    let later = header(&key, 2, id);
    let fork = [signed(&first, b"first"), signed(&first, b"other"), signed(&later, b"later")].concat();
    let gap = [signed(&later, b"later"), step(6, &[31]), signed(&first, b"first")].concat();
    let said = [&[3; 32][..], &[4; 32], &[3], b"ana", &[0]].concat();
    let key = author(20);
    let group = fog_chat::core::membership::Op::create(&NETWORK, &key, [7; 32]);
    let us = author_of_us();
    let invite = operation(&[&[1, 1, 1], &group.group().0[..], &[0; 32], &us, &group.id.0].concat(), &key);
    let part = |kind: u8, bytes: &[u8]| [&[kind], &(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let parts = [part(0, group.bytes()), part(0, &invite), part(1, &card(&said, &key))].concat();
    let frame = |body: &[u8]| step(9, &[&[0], body].concat());
    let invite = [&[2], &group.group().0[..], &[8; 32], &[4], b"crew", &parts].concat();
    let seeds = [
        ("gossip", gossip),
        ("meeting", meeting),
        ("body", step(4, &[&[0], &bytes[..]].concat())),
        ("fork", fork),
        ("gap", gap),
        ("links", [step(7, &[0]), step(7, &[1])].concat()),
        ("card", step(8, &said)),
        ("frame_card", frame(&[&[1], &card(&said, &key)[..]].concat())),
        ("frame_invite", frame(&invite)),
        ("frame_read", frame(&[3, 0, 0, 0, 1])),
        ("frame_key", step(9, &[&[3, 1], &group.group().0[..], &[0; 269]].concat())),
    ];
    seeds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

fn author_of_us() -> [u8; 32] {
    Node::new(US, now()).chat.device().0
}
