//! The network: nodes with keys of their own for each epoch, clocks that may differ, relays that may misbehave, links with latency
//! and loss.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{
    DropCounters, DropReason, Epoch, EpochSchedule, MessageId, NetworkId, NodeId, Now, UnixMillis,
    relay::{NoPath, PathRequest, PathSelector, RelayHop, Role},
};
use fog_mix::core::{
    cover::Cover,
    delay::Delays,
    endpoint::{
        Audience, Config, Delivery, Endpoint, Kind, Output, ReplyBlock, Restored, Secrets, Send, SendError, SentNews,
        SentState,
    },
    keyring::{EpochKey, Keyring, Rotation},
    loops::LoopEnd,
    mailbox::{self, Mailbox, MailboxLimits},
    outgoing::Address,
    relay::{Arrival, Done, Outcome, Processor, ReplayLog},
    replay::Fingerprint,
    seal,
};
use fog_mix::wire::{Application, ReplyBody};
use fog_sphinx::{MixSecretKey, SURB_LEN, Surb};
use rand::{Rng, RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

pub(crate) const NETWORK: NetworkId = NetworkId([1; 32]);
pub(crate) const DELAYS: Delays = Delays { mean: Duration::from_millis(20), max: Duration::from_millis(200) };

/// Relay `n`'s mix key of `epoch`.
pub(crate) fn secret(n: u8, epoch: Epoch) -> MixSecretKey {
    let input = [&[n], epoch.0.to_be_bytes().as_slice()].concat();
    MixSecretKey::from_bytes(*blake3::hash(&input).as_bytes())
}

pub(crate) fn salt(n: u8, epoch: Epoch) -> [u8; 32] {
    *blake3::hash(&[epoch.0.to_be_bytes().as_slice(), &[n]].concat()).as_bytes()
}

/// The relays of all epochs that a test comes to.
#[derive(Debug, Default)]
pub(crate) struct Relays(BTreeMap<(Epoch, NodeId), RelayHop>);

impl Relays {
    fn new(relays: u8, epochs: RangeInclusive<u32>) -> Self {
        let hop = |n: u8, epoch: Epoch| RelayHop {
            id: id(n),
            mix_key: secret(n, epoch).public().to_bytes(),
            delay_salt: salt(n, epoch),
            seal_key: seal_key(n),
            versions: [1].into(),
        };
        let all = epochs.map(Epoch).flat_map(|epoch| (1..=relays).map(move |n| (epoch, n)));
        Self(all.map(|(epoch, n)| ((epoch, id(n)), hop(n, epoch))).collect())
    }
}

/// The relays of those epochs that a node knows: as the node does it, the last one's (for its grace), the running one's, the next.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) relays: Arc<Relays>,
    pub(crate) epochs: RangeInclusive<u32>,
    /// Relays of which nothing is known.
    pub(crate) without: Vec<NodeId>,
}

impl Known {
    fn of(&self, epoch: Epoch) -> impl Iterator<Item = &RelayHop> {
        let (from, to) = ((epoch, NodeId([0; 32])), (epoch, NodeId([255; 32])));
        let all = self.relays.0.range(from..=to).map(|(_, relay)| relay);
        all.filter(move |relay| self.epochs.contains(&epoch.0) && !self.without.contains(&relay.id))
    }

    fn usable(&self, request: &PathRequest<'_>, avoid: &[NodeId]) -> Vec<&RelayHop> {
        let usable = |relay: &&RelayHop| {
            relay.id != request.last && !request.exclude.contains(&relay.id) && !avoid.contains(&relay.id)
        };
        self.of(request.epoch).filter(|relay| relay.speaks(request.version)).filter(usable).collect()
    }

    fn path_of(
        &self,
        request: &PathRequest<'_>,
        choose: impl FnOnce(Vec<&RelayHop>) -> Vec<RelayHop>,
    ) -> Result<Vec<RelayHop>, NoPath> {
        let last = self.relay(request.epoch, request.last).ok_or(NoPath::UnknownRelay(request.last))?;
        let needed = request.hops - 1;
        let mut pool = self.usable(request, request.avoid);
        if pool.len() < needed {
            pool = self.usable(request, &[]);
        }
        if pool.len() < needed {
            return Err(NoPath::TooFewRelays { hops: request.hops, needed, known: pool.len() });
        }
        Ok(choose(pool).into_iter().take(needed).chain([last]).collect())
    }
}

impl PathSelector for Known {
    fn path(&self, request: &PathRequest<'_>, rng: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath> {
        self.path_of(request, |mut pool| {
            pool.shuffle(rng);
            pool.into_iter().cloned().collect()
        })
    }

    fn measuring_path(
        &self,
        request: &PathRequest<'_>,
        measured: &dyn Fn(&NodeId) -> u32,
        rng: &mut dyn Rng,
    ) -> Result<Vec<RelayHop>, NoPath> {
        self.path_of(request, |mut pool| {
            pool.shuffle(rng);
            pool.sort_by_key(|relay| measured(&relay.id));
            pool.into_iter().cloned().collect()
        })
    }

    fn relay(&self, epoch: Epoch, id: NodeId) -> Option<RelayHop> {
        self.of(epoch).find(|relay| relay.id == id).cloned()
    }

    fn with_role(&self, epoch: Epoch, _: Role) -> Vec<NodeId> {
        self.of(epoch).map(|relay| relay.id).collect()
    }
}

struct NoLog;
impl ReplayLog for NoLog {
    fn append(&self, _: Epoch, _: &[Fingerprint]) -> bool {
        true
    }
}

pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) keyring: Keyring,
    pub(crate) mailbox: Mailbox,
    pub(crate) drops: Arc<DropCounters>,
    pub(crate) inbox: Vec<(MessageId, Option<NodeId>, Vec<u8>)>,
    /// Reply blocks that came with messages that ask.
    pub(crate) blocks: Vec<ReplyBlock>,
    pub(crate) answers: Vec<(Application, MessageId, Vec<u8>)>,
    pub(crate) stores: bool,
    pub(crate) online: bool,
    /// Its clock is ahead of the true one by this many milliseconds.
    pub(crate) skew: i64,
    /// As a relay it keeps packets longer than it claims, by this much.
    pub(crate) holds: Duration,
    /// The share of packets that it drops as a relay.
    pub(crate) loses: f64,
    pub(crate) loops: Vec<LoopEnd>,
    pub(crate) retransmissions: u64,
    pub(crate) number: u8,
}

enum Event {
    Packet(NodeId, fog_mix::core::PacketBuf),
    Ready(NodeId, Outcome),
}

pub(crate) struct Net {
    pub(crate) schedule: EpochSchedule,
    pub(crate) start: Now,
    pub(crate) now: Now,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) relays: Arc<Relays>,
    events: BTreeMap<(Instant, u64), Event>,
    pub(crate) order: u64,
    pub(crate) sent: BTreeMap<MessageId, Vec<SentState>>,
    pub(crate) pongs: BTreeMap<(NodeId, u64), Option<Duration>>,
    pub(crate) loss: f64,
    pub(crate) left: Vec<(NodeId, Instant)>,
}

pub(crate) fn id(n: u8) -> NodeId {
    NodeId(ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes())
}

pub(crate) fn seal_key(n: u8) -> [u8; 32] {
    seal::public_key(&Zeroizing::new([n; 32])).unwrap()
}

pub(crate) fn config(n: u8, cover: Cover, schedule: EpochSchedule) -> Config {
    Config {
        me: id(n),
        network: NETWORK,
        schedule,
        delays: DELAYS,
        send_per_second: 50.0,
        cover,
        loops_per_second: 0.2,
        hops: 4,
        offers_roles: true,
    }
}

pub(crate) fn secrets(n: u8) -> Secrets {
    Secrets {
        identity: ed25519_dalek::SigningKey::from_bytes(&[n; 32]),
        seal: Zeroizing::new([n; 32]),
        slot: ed25519_dalek::SigningKey::from_bytes(&[n.wrapping_add(50); 32]),
    }
}

impl Net {
    /// Relays 1 to `relays`, and clients from 100 on; epochs of two minutes.
    pub(crate) fn new(relays: u8, clients: u8, cover: Cover) -> Self {
        Self::with_epochs(relays, clients, cover, (Duration::from_secs(120), 30))
    }

    /// With epochs of `length`, the relays of `epochs` of them.
    pub(crate) fn with_epochs(relays: u8, clients: u8, cover: Cover, (length, epochs): (Duration, u32)) -> Self {
        let schedule = EpochSchedule::new(length);
        let now = Now { mono: Instant::now(), unix: UnixMillis(1_800_000_000_000) };
        let epoch = schedule.at(now.unix).0;
        let table = Arc::new(Relays::new(relays, epoch - 1..=epoch + epochs));
        let paths = Arc::new(Known { relays: table.clone(), epochs: epoch - 1..=epoch + 1, without: Vec::new() });
        let nodes = (1..=relays).chain((0..clients).map(|n| 100 + n)).map(|n| {
            let drops = Arc::new(DropCounters::default());
            let (config, secrets) = (Config { offers_roles: n <= relays, ..config(n, cover, schedule) }, secrets(n));
            let endpoint =
                Endpoint::new(config, secrets, Restored::default(), paths.clone(), drops.clone(), [n; 32], now)
                    .unwrap();
            let mailbox = Mailbox::new(id(n), NETWORK, MailboxLimits::default(), []);
            let node = Node {
                endpoint,
                keyring: Keyring::default(),
                mailbox,
                drops,
                inbox: Vec::new(),
                blocks: Vec::new(),
                answers: Vec::new(),
                stores: true,
                online: true,
                skew: 0,
                holds: Duration::ZERO,
                loses: 0.0,
                loops: Vec::new(),
                retransmissions: 0,
                number: n,
            };
            (id(n), node)
        });
        let mut net = Self {
            schedule,
            start: now,
            now,
            rng: ChaCha20Rng::seed_from_u64(9),
            nodes: nodes.collect(),
            relays: table,
            events: BTreeMap::new(),
            order: 0,
            sent: BTreeMap::new(),
            pongs: BTreeMap::new(),
            loss: 0.0,
            left: Vec::new(),
        };
        net.rotate();
        net
    }

    /// What node `at` reads on its clocks.
    pub(crate) fn clock(&self, at: NodeId) -> Now {
        let skew = self.nodes[&at].skew;
        Now { mono: self.now.mono, unix: UnixMillis(self.now.unix.0.saturating_add_signed(skew)) }
    }

    /// Makes and destroys keys where it is time, and tells those nodes the relays of the epochs that they are in.
    fn rotate(&mut self) {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for at in ids {
            let (now, schedule, relays) = (self.clock(at), self.schedule, self.relays.clone());
            let node = self.nodes.get_mut(&at).unwrap();
            let rotation = node.keyring.rotation(&schedule, now.unix);
            if rotation == Rotation::default() {
                continue;
            }
            rotation.destroy.iter().for_each(|epoch| node.keyring.remove(*epoch));
            for epoch in rotation.make {
                let (secret, salt) = (secret(node.number, epoch), salt(node.number, epoch));
                node.keyring.insert(EpochKey::new(epoch, secret, salt, 1 << 20, 1, []));
            }
            let epoch = schedule.at(now.unix).0;
            let first = if schedule.is_over(Epoch(epoch - 1), now.unix) { epoch } else { epoch - 1 };
            node.endpoint.set_paths(Arc::new(Known { relays, epochs: first..=epoch + 1, without: Vec::new() }));
        }
    }

    fn next_rotation(&self, at: NodeId) -> Instant {
        let now = self.clock(at);
        now.mono + Keyring::next_rotation(&self.schedule, now.unix).since(now.unix)
    }

    pub(crate) fn node(&mut self, n: u8) -> &mut Node {
        self.nodes.get_mut(&id(n)).unwrap()
    }

    pub(crate) fn address(&self, n: u8) -> Address {
        let slot = ed25519_dalek::SigningKey::from_bytes(&[n.wrapping_add(50); 32]).verifying_key().to_bytes();
        let mailboxes = self.nodes[&id(n)].endpoint.mailboxes().into_iter().map(|relay| (relay, slot)).collect();
        Address { node: id(n), seal_key: seal_key(n), mailboxes }
    }

    pub(crate) fn send(&mut self, from: u8, to: u8, body: Vec<u8>, anonymous: bool) -> Result<MessageId, SendError> {
        let kind = if anonymous { Kind::Anonymous } else { Kind::Signed };
        self.send_as(kind, from, to, body)
    }

    pub(crate) fn send_as(&mut self, kind: Kind, from: u8, to: u8, body: Vec<u8>) -> Result<MessageId, SendError> {
        let (to, now) = (self.address(to), self.clock(id(from)));
        let timeout = Duration::from_secs(3000);
        let id = MessageId(self.rng.random());
        self.node(from).endpoint.send(Send { id, to, body, hops: None, kind, timeout }, now).map(|()| id)
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    /// Runs until `done` or for `limit`.
    pub(crate) fn run(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now.mono + limit;
        loop {
            let ids: Vec<_> = self.nodes.keys().copied().collect();
            for node in ids {
                self.drain(node);
            }
            if done(self) {
                return true;
            }
            let online = self.nodes.iter().filter(|(_, n)| n.online);
            let timers = online.filter_map(|(at, n)| {
                [n.endpoint.poll_timeout(self.now.mono), Some(self.next_rotation(*at))].into_iter().flatten().min()
            });
            let timer = timers.min();
            let event = self.events.keys().next().map(|(at, _)| *at);
            let Some(next) = timer.into_iter().chain(event).min().filter(|next| *next <= end) else {
                self.advance(end - self.now.mono);
                return false;
            };
            let step = next.saturating_duration_since(self.now.mono).max(Duration::from_micros(1));
            self.advance(step);
            self.handle_due();
        }
    }

    /// Both clocks go on; the wall clock shows whole milliseconds and keeps the rest.
    fn advance(&mut self, step: Duration) {
        let mono = self.now.mono + step;
        let unix = UnixMillis(self.start.unix.0 + (mono - self.start.mono).as_millis() as u64);
        self.now = Now { mono, unix };
    }

    fn handle_due(&mut self) {
        let now = self.now;
        self.rotate();
        while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= now.mono) {
            match entry.remove() {
                Event::Packet(to, packet) => self.arrive(to, packet),
                Event::Ready(at, outcome) => self.ready(at, outcome),
            }
        }
        let online: Vec<_> = self.nodes.iter().filter(|(_, n)| n.online).map(|(at, _)| *at).collect();
        for at in online {
            let now = self.clock(at);
            self.nodes.get_mut(&at).unwrap().endpoint.handle_timeout(now);
        }
    }

    fn arrive(&mut self, at: NodeId, packet: fog_mix::core::PacketBuf) {
        let processor = Processor { schedule: self.schedule, delays: DELAYS, forwards: true };
        let now = self.clock(at);
        let node = self.nodes.get_mut(&at).unwrap();
        if !node.online {
            return;
        }
        let mut done = Done::default();
        let mut arrivals = vec![Arrival { packet, at: now.mono }];
        processor.process(&node.keyring, &NoLog, &mut arrivals, now.unix, &node.drops, &mut done);
        for outcome in done.outcomes {
            let when = match &outcome {
                Outcome::Forward { .. } if self.rng.random_bool(self.nodes[&at].loses) => continue,
                Outcome::Forward { deadline, .. } => *deadline + self.nodes[&at].holds,
                Outcome::Slot { deadline, .. } => *deadline,
                _ => now.mono,
            };
            self.push(when, Event::Ready(at, outcome));
        }
    }

    fn ready(&mut self, at: NodeId, outcome: Outcome) {
        let now = self.clock(at);
        let node = self.nodes.get_mut(&at).unwrap();
        if !node.online {
            return;
        }
        match outcome {
            Outcome::Forward { packet, next, .. } => self.link(at, next, packet),
            Outcome::Deliver { packet } => node.endpoint.handle_body(fog_sphinx::body(&packet), now),
            Outcome::Reply { packet, surb } => node.endpoint.handle_reply(&surb, fog_sphinx::payload(&packet), now),
            Outcome::Slot { packet, slot, surb: Some(surb), .. } => {
                let data = fog_sphinx::payload(&packet).to_vec();
                let _full = node.mailbox.store(slot, Some(surb), data, now.unix);
            }
            Outcome::Slot { packet, slot, surb: None, .. } => {
                let body = fog_sphinx::body(&packet);
                if node.mailbox.store(slot, None, body[SURB_LEN..].to_vec(), now.unix).is_ok() {
                    let receipt = Surb::parse(&body[..SURB_LEN]).unwrap();
                    let mut packet = Box::new([0; fog_sphinx::PACKET_LEN]);
                    let first = NodeId(receipt.reply(&ReplyBody::Stored.to_body().unwrap(), &mut packet));
                    self.link(at, first, packet);
                }
            }
        }
    }

    fn link(&mut self, from: NodeId, to: NodeId, packet: fog_mix::core::PacketBuf) {
        if !self.nodes[&to].online {
            let now = self.clock(from);
            self.nodes.get_mut(&from).unwrap().endpoint.unreachable(to, now);
        } else if !self.rng.random_bool(self.loss) {
            let latency = Duration::from_micros(self.rng.random_range(200..3000));
            self.push(self.now.mono + latency, Event::Packet(to, packet));
        }
    }

    fn drain(&mut self, at: NodeId) {
        let now = self.clock(at);
        while let Some(output) = self.nodes.get_mut(&at).and_then(|n| n.endpoint.poll_output()) {
            match output {
                Output::Send { first, packet, .. } => {
                    self.left.push((at, now.mono));
                    self.link(at, first, packet);
                }
                Output::Answer { application, message, data } => {
                    self.nodes.get_mut(&at).unwrap().answers.push((application, message, data));
                }
                Output::Deliver(Delivery { message, from, audience, body, .. }) => {
                    let node = self.nodes.get_mut(&at).unwrap();
                    if let Audience::Application(_, blocks) = audience {
                        node.blocks.extend(blocks);
                    }
                    if node.stores {
                        node.inbox.push((message, from, body));
                    }
                    node.endpoint.accepted(message, node.stores, now);
                }
                Output::Sent(SentNews { message, state, retransmissions, .. }) => {
                    self.sent.entry(message).or_default().push(state);
                    if state.is_final() {
                        self.nodes.get_mut(&at).unwrap().retransmissions += retransmissions;
                    }
                }
                Output::Loop(end) => self.nodes.get_mut(&at).unwrap().loops.push(end),
                Output::Pong { ping, rtt } => {
                    self.pongs.insert((at, ping), rtt);
                }
                Output::Claim { relay, record } => {
                    let online = self.nodes[&relay].online;
                    let holds =
                        online && self.nodes.get_mut(&relay).unwrap().mailbox.claim(at, &record, now.unix).is_ok();
                    self.nodes.get_mut(&at).unwrap().endpoint.claim_answered(relay, holds, now);
                }
                Output::Done { relay, slot, ids } => self.nodes.get_mut(&relay).unwrap().mailbox.done(at, slot, &ids),
                Output::Mailboxes(_) => {}
            }
        }
        while let Some(output) = self.nodes.get_mut(&at).and_then(|n| n.mailbox.poll_output()) {
            if let mailbox::Output::Push { to, slot, packets } = output {
                let first = packets[0].id;
                let theirs = self.clock(to);
                let client = self.nodes.get_mut(&to).unwrap();
                let online = client.online;
                if online {
                    client.endpoint.handle_pushed(at, &slot, packets, theirs);
                }
                self.nodes.get_mut(&at).unwrap().mailbox.push_result(to, slot, first, online, now.unix);
            }
        }
    }

    pub(crate) fn state(&self, message: &MessageId) -> Option<SentState> {
        self.sent.get(message).and_then(|states| states.last().copied())
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.nodes.values().map(|n| n.drops.get(reason)).sum()
    }
}

pub(crate) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}
