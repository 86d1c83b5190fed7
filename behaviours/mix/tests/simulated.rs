//! A network of cores in one process: real packets, a clock that the test moves, links that lose what the test says.
#![allow(clippy::disallowed_methods, reason = "the clock starts somewhere")]

use std::{
    collections::BTreeMap,
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
    endpoint::{Config, Delivery, Endpoint, Output, Ping, Restored, Secrets, Send, SendError, SentNews, SentState},
    keyring::{EpochKey, Keyring},
    mailbox::{self, Mailbox, MailboxLimits},
    outgoing::Address,
    relay::{Arrival, Done, Outcome, Processor, ReplayLog},
    replay::Fingerprint,
    seal,
};
use fog_mix::wire::ReplyBody;
use fog_sphinx::{MixSecretKey, SURB_LEN, Surb};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

const NETWORK: NetworkId = NetworkId([1; 32]);
const DELAYS: Delays = Delays { mean: Duration::from_millis(20), max: Duration::from_millis(200) };

fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(120))
}

#[derive(Debug, Default)]
struct Relays(BTreeMap<NodeId, RelayHop>);

impl PathSelector for Relays {
    fn path(&self, request: &PathRequest<'_>, rng: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath> {
        let last = self.0.get(&request.last).ok_or(NoPath::UnknownRelay(request.last))?;
        let needed = request.hops - 1;
        let usable = |avoid: &[NodeId]| -> Vec<&RelayHop> {
            self.0
                .values()
                .filter(|r| r.id != request.last && !request.exclude.contains(&r.id) && !avoid.contains(&r.id))
                .collect()
        };
        let mut pool = usable(request.avoid);
        if pool.len() < needed {
            pool = usable(&[]);
        }
        if pool.len() < needed {
            return Err(NoPath::TooFewRelays { hops: request.hops, needed, known: pool.len() });
        }
        let mut path: Vec<RelayHop> =
            (0..needed).map(|_| pool.swap_remove(rng.random_range(0..pool.len())).clone()).collect();
        path.push(last.clone());
        Ok(path)
    }
    fn relay(&self, _: Epoch, id: NodeId) -> Option<RelayHop> {
        self.0.get(&id).cloned()
    }
    fn with_role(&self, _: Epoch, _: Role) -> Vec<NodeId> {
        self.0.keys().copied().collect()
    }
}

struct NoLog;
impl ReplayLog for NoLog {
    fn append(&self, _: Epoch, _: &[Fingerprint]) -> bool {
        true
    }
}

struct Node {
    endpoint: Endpoint,
    keyring: Keyring,
    mailbox: Mailbox,
    drops: Arc<DropCounters>,
    inbox: Vec<(MessageId, Option<NodeId>, Vec<u8>)>,
    stores: bool,
    online: bool,
}

enum Event {
    Packet(NodeId, fog_mix::core::PacketBuf),
    Ready(NodeId, Outcome),
}

struct Net {
    now: Now,
    rng: ChaCha20Rng,
    nodes: BTreeMap<NodeId, Node>,
    relays: Arc<Relays>,
    events: BTreeMap<(Instant, u64), Event>,
    order: u64,
    sent: BTreeMap<MessageId, Vec<SentState>>,
    pongs: BTreeMap<(NodeId, u64), Option<Duration>>,
    loss: f64,
    left: Vec<(NodeId, Instant)>,
}

fn id(n: u8) -> NodeId {
    NodeId(ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes())
}

fn seal_key(n: u8) -> [u8; 32] {
    seal::public_key(&Zeroizing::new([n; 32])).unwrap()
}

fn config(n: u8, cover: Cover) -> Config {
    Config {
        me: id(n),
        network: NETWORK,
        schedule: schedule(),
        delays: DELAYS,
        send_per_second: 50.0,
        cover,
        loops_per_second: 0.2,
        hops: 4,
        offers_roles: true,
    }
}

fn secrets(n: u8) -> Secrets {
    Secrets {
        identity: ed25519_dalek::SigningKey::from_bytes(&[n; 32]),
        seal: Zeroizing::new([n; 32]),
        slot: ed25519_dalek::SigningKey::from_bytes(&[n.wrapping_add(50); 32]),
    }
}

impl Net {
    /// Relays 1 to `relays`, and clients from 100 on.
    fn new(relays: u8, clients: u8, cover: Cover) -> Self {
        let now = Now { mono: Instant::now(), unix: UnixMillis(1_800_000_000_000) };
        let epoch = schedule().at(now.unix);
        let hop = |n: u8| RelayHop {
            id: id(n),
            mix_key: MixSecretKey::from_bytes([n; 32]).public().to_bytes(),
            delay_salt: [n; 32],
            seal_key: seal_key(n),
        };
        let table = Arc::new(Relays((1..=relays).map(|n| (id(n), hop(n))).collect()));
        let nodes = (1..=relays).chain((0..clients).map(|n| 100 + n)).map(|n| {
            let drops = Arc::new(DropCounters::default());
            let (config, secrets) = (Config { offers_roles: n <= relays, ..config(n, cover) }, secrets(n));
            let endpoint =
                Endpoint::new(config, secrets, Restored::default(), table.clone(), drops.clone(), [n; 32], now)
                    .unwrap();
            let mut keyring = Keyring::default();
            for e in [epoch, epoch.next(), epoch.next().next()] {
                keyring.insert(EpochKey::new(e, MixSecretKey::from_bytes([n; 32]), [n; 32], 1 << 20, 1, []));
            }
            let mailbox = Mailbox::new(id(n), NETWORK, MailboxLimits::default(), []);
            (id(n), Node { endpoint, keyring, mailbox, drops, inbox: Vec::new(), stores: true, online: true })
        });
        Self {
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
        }
    }

    fn node(&mut self, n: u8) -> &mut Node {
        self.nodes.get_mut(&id(n)).unwrap()
    }

    fn address(&self, n: u8) -> Address {
        let slot = ed25519_dalek::SigningKey::from_bytes(&[n.wrapping_add(50); 32]).verifying_key().to_bytes();
        let mailboxes = self.nodes[&id(n)].endpoint.mailboxes().into_iter().map(|relay| (relay, slot)).collect();
        Address { node: id(n), seal_key: seal_key(n), mailboxes }
    }

    fn send(&mut self, from: u8, to: u8, body: Vec<u8>, anonymous: bool) -> Result<MessageId, SendError> {
        let (to, now) = (self.address(to), self.now);
        let timeout = Duration::from_secs(3000);
        let id = MessageId(self.rng.random());
        self.node(from).endpoint.send(Send { id, to, body, hops: None, anonymous, timeout }, now).map(|()| id)
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    /// Runs until `done` or for `limit`.
    fn run(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now.mono + limit;
        loop {
            let ids: Vec<_> = self.nodes.keys().copied().collect();
            for node in ids {
                self.drain(node);
            }
            if done(self) {
                return true;
            }
            let online = self.nodes.values().filter(|n| n.online);
            let timer = online.filter_map(|n| n.endpoint.poll_timeout(self.now.mono)).min();
            let event = self.events.keys().next().map(|(at, _)| *at);
            let Some(next) = timer.into_iter().chain(event).min().filter(|next| *next <= end) else {
                self.now = self.now.plus(end - self.now.mono);
                return false;
            };
            let step = next.saturating_duration_since(self.now.mono).max(Duration::from_micros(1));
            self.now = self.now.plus(step);
            // `unix` counts whole milliseconds: carry what is lost.
            self.handle_due();
        }
    }

    fn handle_due(&mut self) {
        let now = self.now;
        while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= now.mono) {
            match entry.remove() {
                Event::Packet(to, packet) => self.arrive(to, packet),
                Event::Ready(at, outcome) => self.ready(at, outcome),
            }
        }
        self.nodes.values_mut().filter(|n| n.online).for_each(|node| node.endpoint.handle_timeout(now));
    }

    fn arrive(&mut self, at: NodeId, packet: fog_mix::core::PacketBuf) {
        let processor = Processor { schedule: schedule(), delays: DELAYS, forwards: true };
        let now = self.now;
        let node = self.nodes.get_mut(&at).unwrap();
        if !node.online {
            return;
        }
        let mut done = Done::default();
        let mut arrivals = vec![Arrival { packet, at: now.mono }];
        processor.process(&node.keyring, &NoLog, &mut arrivals, now.unix, &node.drops, &mut done);
        for outcome in done.outcomes {
            let when = match &outcome {
                Outcome::Forward { deadline, .. } | Outcome::Slot { deadline, .. } => *deadline,
                _ => now.mono,
            };
            self.push(when, Event::Ready(at, outcome));
        }
    }

    fn ready(&mut self, at: NodeId, outcome: Outcome) {
        let now = self.now;
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
            let now = self.now;
            self.nodes.get_mut(&from).unwrap().endpoint.unreachable(to, now);
        } else if !self.rng.random_bool(self.loss) {
            let latency = Duration::from_micros(self.rng.random_range(200..3000));
            self.push(self.now.mono + latency, Event::Packet(to, packet));
        }
    }

    fn drain(&mut self, at: NodeId) {
        let now = self.now;
        while let Some(output) = self.nodes.get_mut(&at).and_then(|n| n.endpoint.poll_output()) {
            match output {
                Output::Send { first, packet, .. } => {
                    self.left.push((at, now.mono));
                    self.link(at, first, packet);
                }
                Output::Deliver(Delivery { message, from, body, .. }) => {
                    let node = self.nodes.get_mut(&at).unwrap();
                    if node.stores {
                        node.inbox.push((message, from, body));
                    }
                    node.endpoint.accepted(message, node.stores, now);
                }
                Output::Sent(SentNews { message, state, .. }) => self.sent.entry(message).or_default().push(state),
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
                let client = self.nodes.get_mut(&to).unwrap();
                let online = client.online;
                if online {
                    client.endpoint.handle_pushed(at, &slot, packets, now);
                }
                self.nodes.get_mut(&at).unwrap().mailbox.push_result(to, slot, first, online, now.unix);
            }
        }
    }

    fn state(&self, message: &MessageId) -> Option<SentState> {
        self.sent.get(message).and_then(|states| states.last().copied())
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.nodes.values().map(|n| n.drops.get(reason)).sum()
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn messages_of_all_sizes_arrive_once_signed_and_anonymous() {
    let mut net = Net::new(7, 0, Cover::Loops);
    for (size, anonymous) in [(0, false), (1, true), (1508, false), (1509, true), (100_000, false)] {
        let message = net.send(1, 2, bytes(size), anonymous).unwrap();
        assert!(net.run(Duration::from_secs(120), |n| n.state(&message) == Some(SentState::Delivered)), "{size} bytes");
        let (id, from, body) = net.node(2).inbox.pop().unwrap();
        assert_eq!((id, from, body), (message, (!anonymous).then(|| self::id(1)), bytes(size)));
        assert!(net.node(2).inbox.is_empty());
    }
    assert_eq!(DropReason::ALL.into_iter().map(|r| net.drops(r)).sum::<u64>(), 0);
}

#[test]
fn a_mebibyte_arrives_over_links_that_lose_packets() {
    let mut net = Net::new(7, 0, Cover::None);
    net.loss = 0.03;
    let message = net.send(3, 4, bytes(1 << 20), false).unwrap();
    assert!(net.run(Duration::from_secs(300), |n| n.state(&message) == Some(SentState::Delivered)));
    assert_eq!(net.node(4).inbox.len(), 1);
    assert_eq!(net.node(4).inbox[0].2, bytes(1 << 20));
}

#[test]
fn a_client_without_roles_sends_and_receives_through_mailboxes_also_while_it_is_away() {
    let mut net = Net::new(7, 2, Cover::Loops);
    net.run(Duration::from_secs(2), |_| false);
    assert!(net.send(100, 1, bytes(10), false).is_ok());
    let to_client = net.send(1, 100, bytes(5000), false).unwrap();
    let between_clients = net.send(101, 100, bytes(5000), true).unwrap();
    let all = |n: &Net| [to_client, between_clients].iter().all(|m| n.state(m) == Some(SentState::Delivered));
    assert!(net.run(Duration::from_secs(60), all));
    assert_eq!((net.node(100).inbox.len(), net.node(1).inbox.len()), (2, 1));

    net.node(100).online = false;
    let while_away = net.send(2, 100, bytes(20_000), false).unwrap();
    assert!(net.run(Duration::from_secs(60), |n| n.state(&while_away) == Some(SentState::Stored)));
    net.node(100).online = true;
    for relay in 1..=7 {
        let now = net.now;
        net.node(100).endpoint.disconnected(id(relay), now);
    }
    assert!(net.run(Duration::from_secs(90), |n| n.nodes[&id(100)].inbox.len() == 3));
    assert_eq!(net.node(100).inbox[2].2, bytes(20_000));
    assert!(net.run(Duration::from_secs(300), |n| n.state(&while_away) == Some(SentState::Delivered)));
    let kept: usize = (1..=7).map(|relay| net.node(relay).mailbox.usage().1).sum();
    assert_eq!((net.node(100).inbox.len(), kept), (3, 0), "delivered once, and the mailboxes are empty again");
}

#[test]
fn a_dead_relay_loses_no_message_and_duplicates_none() {
    let mut net = Net::new(8, 0, Cover::None);
    let mut messages = Vec::new();
    for n in 0..250u32 {
        for sender in 1..=4u8 {
            let to = 1 + ((u32::from(sender) + n) % 4) as u8;
            let to = if to == sender { 5 } else { to };
            messages.push(net.send(sender, to, n.to_be_bytes().to_vec(), false).unwrap());
        }
        if n == 100 {
            net.node(8).online = false;
        }
        net.run(Duration::from_millis(60), |_| false);
    }
    assert!(net.run(Duration::from_secs(120), |n| messages.iter().all(|m| n.state(m) == Some(SentState::Delivered))));
    let mut delivered: Vec<_> = net.nodes.values().flat_map(|n| n.inbox.iter().map(|(id, ..)| *id)).collect();
    delivered.sort();
    messages.sort();
    assert_eq!(delivered, messages, "each exactly once");
}

#[test]
fn an_inbox_that_cannot_store_gets_the_message_later_and_once() {
    let mut net = Net::new(7, 0, Cover::None);
    net.node(2).stores = false;
    let message = net.send(1, 2, bytes(4000), false).unwrap();
    net.run(Duration::from_secs(10), |_| false);
    assert_ne!(net.state(&message), Some(SentState::Delivered));
    net.node(2).stores = true;
    assert!(net.run(Duration::from_secs(120), |n| n.state(&message) == Some(SentState::Delivered)));
    assert_eq!(net.node(2).inbox.len(), 1);
}

#[test]
fn pings_come_back_and_too_few_relays_is_an_error() {
    let mut net = Net::new(5, 0, Cover::None);
    let (to, now) = (net.address(2), net.now);
    let ping = |id, hops| Ping { id, to: to.clone(), hops, timeout: Duration::from_secs(10) };
    let pings: Vec<_> = (0..50).inspect(|id| net.node(1).endpoint.ping(ping(*id, None), now).unwrap()).collect();
    assert!(net.run(Duration::from_secs(10), |n| n.pongs.len() == 50));
    assert!(pings.iter().all(|p| net.pongs[&(id(1), *p)].is_some()));
    assert_eq!(
        net.node(1).endpoint.ping(ping(50, Some(5)), now),
        Err(SendError::NoPath(NoPath::TooFewRelays { hops: 5, needed: 4, known: 3 }))
    );
    assert_eq!(net.node(1).endpoint.ping(ping(51, Some(6)), now), Err(SendError::Hops(6)));
    assert_eq!(net.relays.0.len(), 5);
}

/// With full cover the gaps between packets have one distribution, whether the node sends or not: a two-sample
/// Kolmogorov–Smirnov test, and the same number of packets.
#[test]
fn with_full_cover_packets_leave_at_the_same_rate_whether_the_node_sends_or_not() {
    let gaps = |sends: bool| {
        let mut net = Net::new(6, 0, Cover::Full);
        for _ in 0..60 {
            if sends {
                net.send(1, 2, bytes(3000), false).unwrap();
            }
            net.run(Duration::from_secs(1), |_| false);
        }
        let times: Vec<_> = net.left.iter().filter(|(node, _)| *node == id(1)).map(|(_, at)| *at).collect();
        let mut gaps: Vec<f64> = times.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        gaps.sort_by(f64::total_cmp);
        gaps
    };
    let (idle, busy) = (gaps(false), gaps(true));
    // 3,000 expected in a minute, standard deviation 55.
    assert!(
        (2_750..3_250).contains(&idle.len()) && (2_750..3_250).contains(&busy.len()),
        "{} {}",
        idle.len(),
        busy.len()
    );
    let below = |sorted: &[f64], x: f64| sorted.partition_point(|g| *g <= x) as f64 / sorted.len() as f64;
    let distance = idle.iter().chain(&busy).map(|x| (below(&idle, *x) - below(&busy, *x)).abs()).fold(0.0, f64::max);
    // Critical value for alpha = 0.001 with two samples of about 3,000: 1.95 · sqrt(2/3000).
    assert!(distance < 1.95 * (2.0f64 / 3000.0).sqrt(), "{distance}");
}

#[test]
fn acknowledgements_do_not_run_out_however_many_messages_come() {
    let mut net = Net::new(6, 0, Cover::None);
    // More messages than acknowledgements that may wait, each of several fragments with spare reply blocks.
    for n in 0..1100u32 {
        let message = net.send(1 + (n % 3) as u8, 5, bytes(4000), true).unwrap();
        if n % 50 == 49 {
            assert!(net.run(Duration::from_secs(60), |net| net.state(&message) == Some(SentState::Delivered)), "{n}");
        } else {
            net.run(Duration::from_millis(60), |_| false);
        }
    }
    assert!(net.run(Duration::from_secs(60), |n| n.nodes[&id(5)].inbox.len() == 1100));
}

#[test]
fn more_at_once_than_reassembly_holds_arrives_all_the_same() {
    let mut net = Net::new(6, 0, Cover::None);
    let messages: Vec<_> = (0..18).map(|n| net.send(1 + n % 4, 5, bytes(1 << 20), true).unwrap()).collect();
    let all = |n: &Net| messages.iter().all(|m| n.state(m) == Some(SentState::Delivered));
    assert!(net.run(Duration::from_secs(2000), all));
    assert_eq!(net.node(5).inbox.len(), 18);
}

#[test]
fn a_relay_with_mailboxes_of_an_earlier_run_sleeps_until_something_is_due() {
    let mut net = Net::new(6, 0, Cover::None);
    let (me, now) = (id(1), net.now);
    let restored = Restored { mailboxes: vec![id(2)], ..Restored::default() };
    let config = Config { offers_roles: false, ..config(1, Cover::None) };
    let mut endpoint =
        Endpoint::new(config, secrets(1), restored, net.relays.clone(), Arc::default(), [1; 32], now).unwrap();
    endpoint.handle_timeout(now);
    assert!(endpoint.poll_timeout(now.mono).is_none_or(|due| due > now.mono));
    net.nodes.remove(&me);
}

#[test]
fn without_work_or_cover_nothing_leaves() {
    let mut net = Net::new(6, 0, Cover::None);
    net.run(Duration::from_secs(60), |_| false);
    assert!(net.left.is_empty());
}
