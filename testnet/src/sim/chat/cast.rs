//! Who is in a world, and what they do: people who talk, come and go, and adversaries.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use ed25519_dalek::{Signer, SigningKey};
use fog_chat::{
    Dag, Envelope, Message, Priority,
    core::{
        engine::{ConversationId, DeviceId, Kind, MessageId, RoomKey, Via},
        reconcile::Messages,
        seal::{Opened, Seal, SealError, Sealed},
        tag::TagKey,
    },
    wire::request::Request,
};
use rand::{Rng, RngExt};

use super::{
    super::{chance::exponential, relays::NETWORK},
    node::Store,
    plan::{AWAY, CALM, Fault, LATE, NEWCOMER, PRESENT, Role, TALK},
    world::{Event, World, node_id},
};

/// Messages of a burst, more than an author may send at once, and how many bursts.
const BURST: usize = 300;
const BURSTS: u32 = 2;
/// Members of a group.
const GROUP: usize = 8;
/// How often buffers are looked at, and how often an adversary does something.
const SAMPLE: Duration = Duration::from_secs(10);
const MISCHIEF: Duration = Duration::from_secs(12);

/// What kind of conversation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Open,
    Password,
    Group,
    Direct,
}

/// A conversation: who is in it.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) name: String,
    pub(super) sort: Sort,
    pub(super) members: Vec<usize>,
    pub(super) id: Option<ConversationId>,
    /// Texts in it.
    pub(super) texts: u64,
}

/// Something that somebody does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Say(usize),
    Invite { talk: usize, member: usize },
    Leave(usize),
    Return(usize),
    Split(usize),
    Flood { who: usize, talk: usize },
    Lie(usize),
    Noise(usize),
    Sample,
    Calm,
    Newcomer,
}

/// Argon2id takes a fraction of a second: the rooms are the same in all worlds.
fn password_rooms() -> &'static [RoomKey] {
    static ROOMS: OnceLock<Vec<RoomKey>> = OnceLock::new();
    ROOMS
        .get_or_init(|| (0..3).filter_map(|n| RoomKey::derive(&NETWORK, &format!("secret{n}"), "horse").ok()).collect())
}

/// How a liar seals envelopes of an open room: as the specification says.
#[derive(Debug)]
struct OpenSeal {
    key: [u8; 32],
    nonce: [u8; 24],
}

impl Seal for OpenSeal {
    fn overhead(&self) -> usize {
        24 + 16 + 2
    }

    fn seal(&mut self, header: &[u8], body: &[u8], length: usize) -> Result<Sealed, SealError> {
        let mut padded = u16::try_from(body.len()).map_err(|_| SealError)?.to_be_bytes().to_vec();
        padded.extend_from_slice(body);
        padded.resize(length.saturating_sub(24 + 16), 0);
        let cipher = XChaCha20Poly1305::new(&self.key.into());
        let payload = Payload { msg: &padded, aad: header };
        let sealed = cipher.encrypt(&self.nonce.into(), payload).map_err(|_| SealError)?;
        Ok(Sealed { ciphertext: [&self.nonce, sealed.as_slice()].concat(), state: Vec::new() })
    }

    fn open(&mut self, _header: &[u8], _ciphertext: &[u8]) -> Result<Opened, SealError> {
        Err(SealError)
    }
}

impl World {
    /// Everybody is there, knows whom they know, and everything that is going to happen is on the calendar.
    pub(super) fn populate(&mut self) {
        let peers = self.plan.peers;
        for n in 0..peers {
            self.add(self.plan.role(n), n, Store::default());
        }
        let engines: Vec<_> = (0..peers).filter(|n| self.nodes[*n].role != Role::Noise).collect();
        self.link(&(0..peers).collect::<Vec<_>>(), 2);
        self.room("lobby", None, engines.clone(), 2 * 60);
        for n in 0..=peers / 100 {
            let members = self.some(&engines, (peers / 10).max(6));
            self.link(&members, 1);
            self.room(&format!("room{n}"), None, members, 60);
        }
        let flooders: Vec<_> = (0..peers).filter(|n| self.nodes[*n].role == Role::Flooder).collect();
        let crowd = self.some(&engines, (peers / 3).min(24));
        let crowd: BTreeSet<_> = crowd.into_iter().chain(flooders.iter().copied()).collect();
        let crowd: Vec<_> = crowd.into_iter().collect();
        self.link(&crowd, 1);
        let flooded = self.room("flooded", None, crowd, 20);
        for (n, key) in password_rooms().iter().enumerate().take(1 + peers / 250) {
            let members = self.some(&engines, (peers / 8).max(6));
            self.link(&members, 1);
            self.room(&format!("secret{n}"), Some(key), members, 60);
        }
        let honest: Vec<_> = engines.iter().copied().filter(|n| self.nodes[*n].is_honest()).collect();
        for n in 0..(peers / 60).max(1) {
            self.group(n, &honest, &engines);
        }
        for n in 0..(peers / 10).max(2) {
            let pair = self.some(&honest, 2);
            self.direct(pair[0], pair[1], n % 2 == 0);
        }
        self.churn(&honest);
        self.mischief(&flooders, flooded);
    }

    fn some(&mut self, of: &[usize], count: usize) -> Vec<usize> {
        let mut some = of.to_vec();
        let count = count.min(some.len());
        for at in 0..count {
            let other = self.rng.random_range(at..some.len());
            some.swap(at, other);
        }
        some.truncate(count);
        some
    }

    /// A ring through all, and `chords` lines from each to others.
    fn link(&mut self, members: &[usize], chords: usize) {
        for (at, member) in members.iter().enumerate() {
            self.connect(*member, members[(at + 1) % members.len()]);
            for _ in 0..chords {
                let other = members[self.rng.random_range(0..members.len())];
                self.connect(*member, other);
            }
        }
    }

    fn room(&mut self, name: &str, key: Option<&RoomKey>, members: Vec<usize>, texts: u32) -> usize {
        let mut id = None;
        for member in &members {
            let joined = self.act(*member, |chat, now| chat.join_room(name, key.cloned(), now));
            id = joined.and_then(Result::ok).or(id);
        }
        let sort = if key.is_some() { Sort::Password } else { Sort::Open };
        self.talk(Talk { name: format!("#{name}"), sort, members, id, texts: 0 }, texts)
    }

    fn talk(&mut self, talk: Talk, texts: u32) -> usize {
        self.talks.push(talk);
        let number = self.talks.len() - 1;
        for _ in 0..texts {
            let at = self.between(TALK, CALM);
            self.queue.schedule(at, Event::Act(Act::Say(number)));
        }
        for _ in 0..3 {
            let at = self.between(LATE, LATE + Duration::from_secs(30));
            self.queue.schedule(at, Event::Act(Act::Say(number)));
        }
        number
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        Duration::from_millis(self.rng.random_range(from.as_millis() as u64..to.as_millis() as u64))
    }

    fn befriend(&mut self, a: usize, b: usize) {
        if let Some(card) = self.act(b, |chat, now| chat.card(now)) {
            let added = self.act(a, |chat, now| chat.add_contact(card, None, now));
            self.note(added.and_then(Result::err));
        }
    }

    fn note(&mut self, refusal: Option<impl std::fmt::Debug>) {
        if let Some(refusal) = refusal {
            *self.refused.entry(format!("{refusal:?}")).or_default() += 1;
        }
    }

    /// A group whose owner is honest; in the first one is one adversary of each kind that has an engine.
    fn group(&mut self, number: usize, honest: &[usize], engines: &[usize]) {
        let owner = self.some(honest, 1)[0];
        let mut members = vec![owner];
        if number == 0 {
            let roles = [Role::Twin, Role::Half];
            let adversaries = roles.iter().filter_map(|role| engines.iter().find(|n| self.nodes[**n].role == *role));
            members.extend(adversaries);
        }
        for other in self.some(engines, GROUP) {
            if members.len() < GROUP && !members.contains(&other) {
                members.push(other);
            }
        }
        let name = format!("crew{number}");
        let id = self.act(owner, |chat, now| chat.create_group(&name, now)).and_then(Result::ok);
        for (at, a) in members.iter().enumerate() {
            members.iter().skip(at + 1).for_each(|b| self.connect(*a, *b));
        }
        for member in &members[1..] {
            self.befriend(owner, *member);
            self.befriend(*member, owner);
        }
        let talk = self.talk(Talk { name: format!("&{name}"), sort: Sort::Group, members, id, texts: 0 }, 40);
        for member in 1..self.talks[talk].members.len() {
            let at = Duration::from_secs(3 + 4 * member as u64);
            let member = self.talks[talk].members[member];
            self.queue.schedule(at, Event::Act(Act::Invite { talk, member }));
        }
    }

    fn direct(&mut self, a: usize, b: usize, is_linked: bool) {
        if self
            .talks
            .iter()
            .any(|talk| talk.sort == Sort::Direct && talk.members.contains(&a) && talk.members.contains(&b))
        {
            return;
        }
        if is_linked {
            self.connect(a, b);
        }
        self.befriend(a, b);
        self.befriend(b, a);
        let name = format!("@dev{}", self.nodes[b].identity);
        let id = self.act(a, |chat, _| chat.resolve(&name)).and_then(Result::ok);
        self.talk(Talk { name, sort: Sort::Direct, members: vec![a, b], id, texts: 0 }, 10);
    }

    fn churn(&mut self, honest: &[usize]) {
        for n in honest {
            let mut at = TALK;
            loop {
                at += Duration::from_secs_f64(exponential(PRESENT.as_secs_f64(), &mut self.rng));
                if at >= CALM {
                    break;
                }
                self.queue.schedule(at, Event::Act(Act::Leave(*n)));
                at += Duration::from_secs_f64(exponential(AWAY.as_secs_f64(), &mut self.rng));
                self.queue.schedule(at.min(CALM), Event::Act(Act::Return(*n)));
            }
        }
        self.queue.schedule(CALM, Event::Act(Act::Calm));
        self.queue.schedule(NEWCOMER, Event::Act(Act::Newcomer));
        self.queue.schedule(SAMPLE, Event::Act(Act::Sample));
    }

    fn mischief(&mut self, flooders: &[usize], flooded: usize) {
        for n in 0..self.plan.peers {
            let at = TALK + Duration::from_millis(self.rng.random_range(0..MISCHIEF.as_millis() as u64));
            match self.nodes[n].role {
                Role::Twin => self.queue.schedule(at + MISCHIEF, Event::Act(Act::Split(n))),
                Role::Liar => self.queue.schedule(at, Event::Act(Act::Lie(n))),
                Role::Noise => self.queue.schedule(at, Event::Act(Act::Noise(n))),
                _ => {}
            }
        }
        for who in flooders {
            for _ in 0..BURSTS {
                let at = self.between(TALK, CALM);
                self.queue.schedule(at, Event::Act(Act::Flood { who: *who, talk: flooded }));
            }
        }
    }

    pub(super) fn perform(&mut self, act: Act) {
        match act {
            Act::Say(talk) => {
                let members = &self.talks[talk].members;
                let present: Vec<_> = members.iter().copied().filter(|n| self.nodes[*n].chat.is_some()).collect();
                if !present.is_empty() {
                    let who = present[self.rng.random_range(0..present.len())];
                    self.say(who, talk);
                }
            }
            Act::Invite { talk, member } => {
                let (owner, id) = (self.talks[talk].members[0], self.talks[talk].id);
                let name = format!("dev{}", self.nodes[member].identity);
                let invited = id.and_then(|id| self.act(owner, |chat, now| chat.invite(id, &name, now)));
                self.note(invited.and_then(Result::err));
            }
            Act::Leave(n) => self.crash(n),
            Act::Return(n) => {
                if self.nodes[n].chat.is_none() {
                    self.open(n);
                }
            }
            Act::Split(n) => self.split(n),
            Act::Flood { who, talk } => (0..BURST).for_each(|_| self.say(who, talk)),
            Act::Lie(n) => {
                self.lie(n);
                self.again(Act::Lie(n), MISCHIEF);
            }
            Act::Noise(n) => {
                self.disturb(n);
                self.again(Act::Noise(n), MISCHIEF / 4);
            }
            Act::Sample => {
                self.sample();
                self.queue.schedule(self.at + SAMPLE, Event::Act(Act::Sample));
            }
            Act::Calm => self.calm(),
            Act::Newcomer => self.newcomer(),
        }
    }

    fn again(&mut self, act: Act, after: Duration) {
        if self.at + after < CALM {
            self.queue.schedule(self.at + after, Event::Act(act));
        }
    }

    /// Somebody writes.
    pub(super) fn say(&mut self, who: usize, talk: usize) {
        let Some(id) = self.talks[talk].id else { return };
        self.said += 1;
        let text = format!("{} {}", self.said, "x".repeat(self.rng.random_range(0..200)));
        let honest = self.nodes[who].is_honest();
        match self.act(who, |chat, now| chat.send(id, Kind::TEXT, text.as_bytes(), Via::Auto, now)) {
            Some(Ok(message)) => {
                self.talks[talk].texts += 1;
                self.nodes[who].log.said.insert(message);
            }
            Some(Err(refusal)) => self.note(Some((refusal, honest))),
            None => {}
        }
    }

    /// From now on this device runs twice.
    fn split(&mut self, n: usize) {
        let (identity, store) = (self.nodes[n].identity, Store::of(self.nodes[n].store.copy()));
        let twin = self.add(Role::Twin, identity, store);
        let links: Vec<_> = self.nodes[n].links.iter().copied().collect();
        for peer in links.into_iter().skip(1).step_by(2) {
            self.disconnect(n, peer);
            self.connect(twin, peer);
        }
        for talk in self.talks.iter_mut().filter(|talk| talk.members.contains(&n)) {
            talk.members.push(twin);
        }
    }

    fn calm(&mut self) {
        self.is_calm = true;
        for n in 0..self.nodes.len() {
            if self.nodes[n].chat.is_none() && self.nodes[n].role != Role::Noise {
                self.open(n);
            }
        }
        if self.plan.fault == Some(Fault::Unhealed) {
            for peer in self.nodes[0].links.clone() {
                self.disconnect(0, peer);
            }
        }
    }

    /// Somebody comes who has nothing, and joins every room.
    fn newcomer(&mut self) {
        let n = self.add(Role::Honest, self.nodes.len(), Store::default());
        self.witness = Some(n);
        for talk in 0..self.talks.len() {
            let Talk { sort, name, members, .. } = &self.talks[talk];
            let key = match sort {
                Sort::Open => None,
                Sort::Password => password_rooms().iter().enumerate().find(|(n, _)| *name == format!("#secret{n}")),
                Sort::Group | Sort::Direct => continue,
            };
            let (name, key, members) = (name.clone(), key.map(|(_, key)| key.clone()), members.clone());
            let honest: Vec<_> = members.into_iter().filter(|member| self.nodes[*member].is_honest()).collect();
            for member in self.some(&honest, 2) {
                self.connect(n, member);
            }
            let joined = self.act(n, |chat, now| chat.join_room(&name, key, now));
            self.note(joined.and_then(Result::err));
            self.talks[talk].members.push(n);
        }
    }

    /// A new name signs something false in the lobby, and some peers are given it, or all by gossip.
    fn lie(&mut self, n: usize) {
        let Some(room) = self.talks[0].id else { return };
        let key = SigningKey::from_bytes(&self.rng.random());
        let lies = self.lies(n, room, &key);
        if self.rng.random_bool(0.5) {
            for lie in lies {
                self.proclaim(n, room, &lie);
            }
            return;
        }
        let peers: Vec<_> = self.nodes[n].links.iter().copied().collect();
        for (at, peer) in self.some(&peers, 4).into_iter().enumerate() {
            let Some(lie) = lies.get(at % lies.len().max(1)) else { continue };
            let salt = self.rng.random();
            let token = TagKey(room.0).token(&salt, node_id(n), node_id(peer));
            let messages = Messages { token, complete_to: 0, messages: vec![lie.clone()], wanted: Vec::new() };
            self.ask(n, peer, u64::MAX, Request::Push { salt, messages }.encode());
        }
    }

    /// Any message in an envelope of an open room, whose key follows from its name.
    fn proclaim(&mut self, n: usize, room: ConversationId, message: &[u8]) {
        let key = blake3::Hasher::new_derive_key("fog chat v1 envelope key").update(&room.0).finalize();
        let mut seal = OpenSeal { key: *key.as_bytes(), nonce: self.rng.random() };
        let (tag_key, body) = (TagKey(room.0), [&[0], message].concat());
        let (now, lifetime) = (self.now(n).unix, Duration::from_secs(86_400));
        if let Ok(packed) = Envelope::pack(&body, &mut seal, &tag_key, Priority::Message, lifetime, now) {
            self.spread(n, n, tag_key.bucket(), &Arc::new(packed.envelope.encode()));
        }
    }

    /// One lie, or the two sides of a fork.
    fn lies(&mut self, n: usize, room: ConversationId, key: &SigningKey) -> Vec<Vec<u8>> {
        let author = DeviceId(key.verifying_key().to_bytes());
        let history = self.act(n, |chat, _| chat.history(room, Some(1))).and_then(Result::ok).unwrap_or_default();
        let (head, salt) = (history.last().map(|shown| shown.id), self.rng.random());
        let draft = || Dag::new(room, NETWORK).draft(author).ok();
        let sign = |text: &str| {
            let signed = Message::sign(draft()?, &NETWORK, key, Kind::TEXT, 0, salt, text.as_bytes());
            signed.ok()
        };
        let (Some(one), Some(other)) = (sign("one"), sign("other")) else { return Vec::new() };
        let (kind, head) = (self.rng.random_range(0..6), head.unwrap_or(MessageId([7; 32])));
        let mut header = one.header().clone();
        match kind {
            0 => return vec![one.encode(), other.encode()],
            1 => header.lamport = 1_000,
            2 => header.digest = self.rng.random(),
            3 => header.parents = vec![head],
            4 => (header.parents, header.lamport) = (vec![MessageId(self.rng.random())], 30),
            _ => (header.seq, header.previous, header.lamport) = (2, Some(head), 1_000_000),
        }
        let mut bytes = header.encode();
        let id = blake3::Hasher::new_derive_key("fog chat v1 message id").update(&NETWORK.0).update(&bytes).finalize();
        let signature = key.sign(&[b"fog chat message v1\0".as_slice(), id.as_bytes()].concat());
        bytes.extend_from_slice(&signature.to_bytes());
        bytes.extend_from_slice(&salt);
        bytes.extend_from_slice(b"one");
        vec![bytes]
    }

    /// Garbage for everybody who is near: as gossip, as questions, and what was heard before, again and changed.
    fn disturb(&mut self, n: usize) {
        for peer in self.nodes[n].links.clone() {
            let noise = self.noise(600);
            self.ask(n, peer, u64::MAX, noise.clone());
            let (mut bucket, mut bytes) = (self.rng.random_range(0..64), noise);
            if !self.overheard.is_empty() {
                let (of, heard) = &self.overheard[self.rng.random_range(0..self.overheard.len())];
                (bucket, bytes) = (*of, heard.to_vec());
            }
            match self.rng.random_range(0..4) {
                0 => {
                    let at = self.rng.random_range(0..bytes.len());
                    bytes[at] ^= 1 << self.rng.random_range(0..8);
                }
                1 => bytes.truncate(self.rng.random_range(0..bytes.len())),
                2 => self.rng.fill_bytes(&mut bytes),
                _ => {}
            }
            let event = Event::Gossip { to: peer, from: n, bucket, bytes: Arc::new(bytes) };
            self.queue.schedule(self.at + Duration::from_millis(30), event);
        }
    }
}
