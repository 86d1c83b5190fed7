//! The engine: one thread that holds the mixing pool, the endpoint and the mailbox, and sleeps until the next deadline.
//!
//! It never waits for the swarm: what goes to the swarm is an event on a bounded channel that the swarm empties first of all.

mod departures;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use fog_base::{
    DropReason, Epoch, MessageId, NodeId, Now, UnixMillis,
    relay::{PathSelector, Role, Roles},
};
use fog_sphinx::{BODY_LEN, MixSecretKey, PACKET_LEN, SURB_LEN, Surb};
use rand::{RngExt, rngs::StdRng};
use tokio::sync::{mpsc as events, oneshot};

use super::{
    buffers::Buffers,
    faults::Faults,
    keystore::{KeyStore, StoredKey},
    links::{Addressed, Links, Refusal},
    lock,
    stats::{Stats, Status},
    workers::SharedKeyring,
};
use crate::{
    core::{
        PacketBuf, Write,
        delay::Delays,
        endpoint::{self, Endpoint, Ping, Send, SendError},
        keyring::{EpochKey, Keyring, Rotation},
        mailbox::{self, Mailbox, Slot, Stored},
        pool::Pool,
        relay::Outcome,
    },
    wire::ReplyBody,
};

/// Inputs that may wait for the engine.
pub const INPUTS: usize = 1024;
/// Outcomes and requests that are taken before the pool is looked at again: packets leave at their deadlines, whatever arrives.
const TURN: usize = 256;
/// Events that may wait for the swarm.
pub const EVENTS: usize = 1024;
/// Packets wait for a connection to their next hop for so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Packets that are due leave together if the last ones left less than this ago: a wakeup, a write and a system call for each
/// alone would cost more than all else. Sleepers wake late by 50 µs on Linux, so this makes a packet late by 200 µs at most.
const RELEASE_GAP: Duration = Duration::from_micros(150);
/// The status is looked at this often, and things without a deadline of their own are tidied.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// What the engine is told.
#[derive(Debug)]
pub enum Input {
    /// Packets that a worker has processed.
    Processed(Vec<Outcome>),
    /// A request.
    Request(Request),
    /// Stop.
    Stop,
}

/// What the swarm asks of the engine.
#[derive(Debug)]
pub enum Request {
    /// Send a message.
    Send(Send),
    /// Ping.
    Ping(Ping),
    /// Answer by a reply block.
    Answer(Box<[u8; SURB_LEN]>, Vec<u8>),
    /// The application has stored a message, or could not.
    Accepted(MessageId, bool),
    /// The application has written what [`Event::Persist`] asked for, or could not.
    Persisted(u64, bool),
    /// New paths.
    SetPaths(Arc<dyn PathSelector + std::marker::Send + Sync>),
    /// Loops a second that measure relays; `None` for loops as configured.
    SetLoops(Option<f64>),
    /// A relay has answered a claim.
    ClaimAnswered(NodeId, bool),
    /// A peer is connected now.
    Connected(NodeId),
    /// A peer is connected no longer.
    Disconnected(NodeId),
    /// A peer cannot be connected to.
    Unreachable(NodeId),
    /// A mailbox of ours has pushed packets.
    Pushed(NodeId, Slot, Vec<Stored>),
    /// A client claims a slot of our mailbox.
    Claim(NodeId, Vec<u8>, oneshot::Sender<Option<UnixMillis>>),
    /// A client needs packets no longer.
    Done(NodeId, Slot, Vec<u64>),
    /// A push of ours that began with this packet has arrived, or not.
    PushResult(NodeId, Slot, u64, bool),
}

/// What the engine tells the swarm.
#[derive(Debug)]
pub enum Event {
    /// Connect to a peer: packets wait for it.
    Dial(NodeId),
    /// What the endpoint wants done, other than sending packets.
    Endpoint(endpoint::Output),
    /// A message is not sent.
    SendRefused(MessageId, SendError),
    /// A ping is not sent.
    PingRefused(u64, SendError),
    /// Push packets to a client of our mailbox.
    Push(NodeId, Slot, Vec<Stored>),
    /// Store mailbox entries, and answer with [`Request::Persisted`] and this number.
    Persist(u64, Vec<Write>),
    /// Our public mix keys, whenever they change.
    Keys(Vec<(Epoch, [u8; 32])>),
}

/// What waits in the mixing pool.
#[derive(Debug)]
enum Held {
    Forward(NodeId, PacketBuf),
    Slot(PacketBuf, Slot, Option<[u8; 16]>),
    /// A packet that a faulty link delays.
    Faulty(NodeId, PacketBuf),
}

/// A relay's VRF output for an epoch.
pub type DelaySalt = Arc<dyn Fn(Epoch) -> [u8; 32] + std::marker::Send + Sync>;

/// What the engine is made of.
pub struct Parts {
    /// What the node sends and receives.
    pub endpoint: Endpoint,
    /// What the node keeps for others.
    pub mailbox: Mailbox,
    /// What the node does for others.
    pub roles: Roles,
    /// The network's epochs.
    pub schedule: fog_base::EpochSchedule,
    /// The network's delays.
    pub delays: Delays,
    /// Packets in the mixing pool.
    pub pool: usize,
    /// Packets that a replay filter takes.
    pub replay_capacity: usize,
    /// The relay's VRF.
    pub delay_salt: DelaySalt,
    /// Fault injection.
    pub faults: Option<Faults>,
    /// The keys of the workers.
    pub keyring: Arc<SharedKeyring>,
    /// Keys on disk.
    pub keystore: Arc<KeyStore>,
    /// To the peers.
    pub links: Arc<Links>,
    /// Packet buffers.
    pub buffers: Arc<Buffers>,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Randomness for keys, receipts' delays and faults.
    pub rng: StdRng,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("roles", &self.roles).finish_non_exhaustive()
    }
}

/// The engine's state.
#[derive(Debug)]
pub struct Engine {
    parts: Parts,
    pool: Pool<Held>,
    ring: Keyring,
    inputs: mpsc::Receiver<Input>,
    events: events::Sender<Event>,
    waiting: BTreeMap<NodeId, (Instant, VecDeque<PacketBuf>)>,
    unpersisted: BTreeMap<u64, Vec<(NodeId, PacketBuf)>>,
    next_token: u64,
    next_rotation: UnixMillis,
    next_housekeeping: Instant,
    /// Keys that are not used any more and could not be removed from the disk yet.
    undestroyed: BTreeSet<Epoch>,
    trouble: Option<String>,
    /// The pool releases nothing before this.
    next_release: Instant,
    /// What the pool has released, what leaves at the end of this turn, what no link takes, and buffers that are free again.
    due: Vec<Held>,
    leaving: Vec<Addressed>,
    refused: Vec<(Refusal, Addressed)>,
    spent: Vec<PacketBuf>,
}

impl Engine {
    /// An engine with the keys that an earlier run left.
    pub fn new(
        parts: Parts,
        stored: Vec<StoredKey>,
        inputs: mpsc::Receiver<Input>,
        events: events::Sender<Event>,
        now: Now,
    ) -> Self {
        // A receipt may be held for a second delay, and a faulty link's packet as long as it says.
        let late = parts.faults.map_or(Duration::ZERO, |faults| faults.delay * 5 + Duration::from_millis(50));
        let horizon = parts.delays.max + late;
        let pool = Pool::new(parts.pool, horizon, now.mono);
        let mut engine = Self {
            pool,
            ring: Keyring::default(),
            inputs,
            events,
            waiting: BTreeMap::new(),
            unpersisted: BTreeMap::new(),
            next_token: 0,
            next_rotation: now.unix,
            next_housekeeping: now.mono,
            undestroyed: BTreeSet::new(),
            trouble: None,
            next_release: now.mono,
            due: Vec::new(),
            leaving: Vec::new(),
            refused: Vec::new(),
            spent: Vec::new(),
            parts,
        };
        for key in stored {
            engine.add_key(key.epoch, key.secret, key.seen);
        }
        engine
    }

    /// Runs until it is told to stop or nobody listens any more.
    pub fn run(mut self) {
        let mut now = super::now();
        loop {
            self.turn(now);
            let wait = self.next_deadline(now).saturating_duration_since(now.mono);
            let input = match self.inputs.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            now = super::now();
            let mut next = input;
            let mut budget = TURN;
            while let Some(input) = next {
                match input {
                    Input::Processed(outcomes) => {
                        budget = budget.saturating_sub(outcomes.len());
                        outcomes.into_iter().for_each(|outcome| self.hold(outcome, now));
                    }
                    Input::Request(request) => {
                        budget = budget.saturating_sub(1);
                        self.handle(request, now);
                    }
                    Input::Stop => return self.stop(),
                }
                next = if budget > 0 { self.inputs.try_recv().ok() } else { None };
            }
        }
        self.stop();
    }

    fn stop(&mut self) {
        if let Err(error) = self.parts.keystore.close() {
            tracing::warn!(%error, "the replay logs could not be synced: the mix keys will be destroyed at the next start");
        }
    }

    /// Does all that is due.
    fn turn(&mut self, now: Now) {
        if now.unix >= self.next_rotation {
            self.rotate(now);
        }
        self.release(now);
        self.parts.endpoint.handle_timeout(now);
        if now.mono >= self.next_housekeeping {
            self.next_housekeeping = now.mono + HOUSEKEEPING;
            self.housekeeping(now);
        }
        self.drain(now);
        // What learns that a peer cannot be reached may send again.
        while self.push(now) {
            self.drain(now);
        }
        self.parts.buffers.give(&mut self.spent);
        self.parts.stats.pool.store(self.pool.len(), std::sync::atomic::Ordering::Relaxed);
    }

    /// Lets go what is due in the pool.
    fn release(&mut self, now: Now) {
        if now.mono < self.next_release {
            return;
        }
        let mut due = std::mem::take(&mut self.due);
        self.pool.release(now.mono, &mut due);
        if !due.is_empty() {
            self.next_release = now.mono + RELEASE_GAP;
        }
        for held in due.drain(..) {
            match held {
                Held::Forward(next, packet) => {
                    Stats::add(&self.parts.stats.forwarded, 1);
                    self.link(next, packet, now);
                }
                Held::Slot(packet, slot, surb) => {
                    self.store(&packet, slot, surb, now);
                    self.spent.push(packet);
                }
                Held::Faulty(next, packet) => self.leaving.push((next, packet)),
            }
        }
        self.due = due;
    }

    fn next_deadline(&self, now: Now) -> Instant {
        let rotation = now.mono + self.next_rotation.since(now.unix);
        let deadlines = [
            self.pool.next_deadline().map(|due| due.max(self.next_release)),
            self.parts.endpoint.poll_timeout(now.mono),
            Some(self.next_housekeeping),
            Some(rotation),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(self.next_housekeeping)
    }

    /// Keeps a processed packet until its deadline, or hands it to the endpoint at once if it is for this node.
    fn hold(&mut self, outcome: Outcome, now: Now) {
        let (deadline, held) = match outcome {
            Outcome::Forward { packet, next, deadline } => (deadline, Held::Forward(next, packet)),
            Outcome::Slot { packet, slot, surb, deadline } => (deadline, Held::Slot(packet, slot, surb)),
            Outcome::Deliver { packet } => {
                Stats::add(&self.parts.stats.delivered, 1);
                self.parts.endpoint.handle_body(fog_sphinx::body(&packet), now);
                return self.spent.push(packet);
            }
            Outcome::Reply { packet, surb } => {
                Stats::add(&self.parts.stats.delivered, 1);
                self.parts.endpoint.handle_reply(&surb, fog_sphinx::payload(&packet), now);
                return self.spent.push(packet);
            }
        };
        self.insert(deadline, held, now);
    }

    fn insert(&mut self, deadline: Instant, held: Held, now: Now) {
        if let Err(Held::Forward(_, packet) | Held::Slot(packet, ..) | Held::Faulty(_, packet)) =
            self.pool.insert(deadline, held, now.mono)
        {
            self.drop_packet(DropReason::QueueFull, packet);
        }
    }

    fn handle(&mut self, request: Request, now: Now) {
        let endpoint = &mut self.parts.endpoint;
        match request {
            Request::Send(send) => {
                let id = send.id;
                if let Err(why) = endpoint.send(send, now) {
                    self.emit(Event::SendRefused(id, why));
                }
            }
            Request::Ping(ping) => {
                let id = ping.id;
                if let Err(why) = endpoint.ping(ping, now) {
                    self.emit(Event::PingRefused(id, why));
                }
            }
            Request::Answer(block, data) => endpoint.answer(&block, data, now),
            Request::Accepted(message, stored) => endpoint.accepted(message, stored, now),
            Request::Persisted(token, ok) => self.persisted(token, ok, now),
            Request::SetPaths(paths) => {
                endpoint.set_paths(paths);
                self.next_housekeeping = now.mono;
            }
            Request::SetLoops(per_second) => endpoint.set_loops(per_second, now),
            Request::ClaimAnswered(relay, holds) => endpoint.claim_answered(relay, holds, now),
            Request::Connected(peer) => self.connected(peer),
            Request::Disconnected(peer) => {
                endpoint.disconnected(peer, now);
                self.parts.mailbox.disconnected(peer);
            }
            Request::Unreachable(peer) => self.unreachable(peer, now),
            Request::Pushed(relay, slot, packets) => {
                Stats::add(&self.parts.stats.delivered, packets.len());
                endpoint.handle_pushed(relay, &slot, packets, now);
            }
            Request::Claim(client, record, reply) => {
                let wanted = self.parts.roles.has(Role::Mailbox);
                let holds = wanted.then(|| self.parts.mailbox.claim(client, &record, now.unix).ok()).flatten();
                let _gone = reply.send(holds);
            }
            Request::Done(client, slot, ids) => self.parts.mailbox.done(client, slot, &ids),
            Request::PushResult(client, slot, first, ok) => {
                self.parts.mailbox.push_result(client, slot, first, ok, now.unix);
            }
        }
    }

    /// Carries out what the endpoint and the mailbox want.
    fn drain(&mut self, now: Now) {
        while let Some(output) = self.parts.endpoint.poll_output() {
            match output {
                endpoint::Output::Send { first, packet, cover } => {
                    Stats::add(&self.parts.stats.sent, 1);
                    Stats::add(&self.parts.stats.cover_sent, usize::from(cover));
                    self.link(first, packet, now);
                }
                output => self.emit(Event::Endpoint(output)),
            }
        }
        self.drain_mailbox(None);
    }

    /// Passes on what the mailbox wants; `receipt` leaves once what it attests is written.
    fn drain_mailbox(&mut self, receipt: Option<(NodeId, PacketBuf)>) {
        let mut receipts: Vec<_> = receipt.into_iter().collect();
        while let Some(output) = self.parts.mailbox.poll_output() {
            match output {
                mailbox::Output::Push { to, slot, packets } => self.emit(Event::Push(to, slot, packets)),
                mailbox::Output::Persist(writes) => {
                    self.next_token += 1;
                    let token = self.next_token;
                    self.unpersisted.insert(token, std::mem::take(&mut receipts));
                    self.emit(Event::Persist(token, writes));
                }
            }
        }
    }

    /// A packet for a slot, at the end of its delay. The receipt mixes once more before it leaves.
    fn store(&mut self, packet: &PacketBuf, slot: Slot, surb: Option<[u8; 16]>, now: Now) {
        Stats::add(&self.parts.stats.delivered, 1);
        let (data, receipt) = match surb {
            Some(_) => (fog_sphinx::payload(packet).to_vec(), None),
            None => {
                let body: &[u8; BODY_LEN] = fog_sphinx::body(packet);
                let (receipt, sealed) = body.split_at(SURB_LEN);
                (sealed.to_vec(), Surb::parse(receipt).ok())
            }
        };
        if !self.parts.roles.has(Role::Mailbox) {
            return self.parts.stats.drops.count(DropReason::NoRoute);
        }
        // Nothing of earlier packets may share this one's write.
        self.drain_mailbox(None);
        if let Err(why) = self.parts.mailbox.store(slot, surb, data, now.unix) {
            return self.parts.stats.drops.count(why);
        }
        let receipt = receipt.and_then(|receipt| {
            let mut packet: PacketBuf = Box::new([0; PACKET_LEN]);
            let epoch = Epoch(receipt.epoch());
            let first = NodeId(receipt.reply(&ReplyBody::Stored.to_body().ok()?, &mut packet));
            self.parts.endpoint.is_relay(epoch, first).then_some((first, packet))
        });
        self.drain_mailbox(receipt);
    }

    fn persisted(&mut self, token: u64, ok: bool, now: Now) {
        let receipts = self.unpersisted.remove(&token).unwrap_or_default();
        if !ok {
            return;
        }
        for (first, packet) in receipts {
            let delay = self.parts.delays.draw(&self.parts.rng.random(), &self.parts.rng.random());
            self.insert(now.mono + delay, Held::Forward(first, packet), now);
        }
    }

    fn drop_packet(&mut self, why: DropReason, packet: PacketBuf) {
        self.parts.stats.drops.count(why);
        self.spent.push(packet);
    }

    fn housekeeping(&mut self, now: Now) {
        // A clock that was set back is noticed here, as the next rotation is then far ahead.
        if self.ring.rotation(&self.parts.schedule, now.unix) != Rotation::default() || !self.undestroyed.is_empty() {
            self.rotate(now);
        }
        let expired = self.parts.mailbox.handle_timeout(now.unix);
        self.parts.stats.drops.add(DropReason::Expired, expired);
        let late = |since: &Instant| now.mono.saturating_duration_since(*since) >= CONNECT_TIMEOUT;
        let given_up: Vec<_> =
            self.waiting.iter().filter(|(_, (since, _))| late(since)).map(|(peer, _)| *peer).collect();
        given_up.into_iter().for_each(|peer| self.unreachable(peer, now));
        let (loop_alarm, loops_returned, loops_lost) = self.parts.endpoint.loops();
        let (slots, bytes) = self.parts.mailbox.usage();
        let limits = *self.parts.mailbox.limits();
        let mut usage = self.parts.endpoint.usage().to_vec();
        usage.push(("mix_pool", self.pool.len() as u64, self.pool.capacity() as u64));
        usage.push(("mailbox_slots", slots as u64, limits.slots as u64));
        usage.push(("mailbox_bytes", bytes as u64, limits.bytes as u64));
        self.parts.stats.set_status(Status {
            ready: self.parts.endpoint.ready(now),
            loop_alarm,
            loops_returned,
            loops_lost,
            mailboxes: self.parts.endpoint.mailboxes_holding(),
            usage,
            trouble: self.trouble.clone(),
        });
    }

    /// Makes and destroys mix keys.
    fn rotate(&mut self, now: Now) {
        self.next_rotation = Keyring::next_rotation(&self.parts.schedule, now.unix);
        // A node without roles needs no mix key: nobody sends to it.
        if self.parts.roles.is_empty() {
            return;
        }
        let rotation = self.ring.rotation(&self.parts.schedule, now.unix);
        self.trouble = None;
        rotation.destroy.iter().for_each(|epoch| self.ring.remove(*epoch));
        self.undestroyed.extend(rotation.destroy);
        for epoch in std::mem::take(&mut self.undestroyed) {
            if let Err(error) = self.parts.keystore.destroy(epoch) {
                self.trouble = Some(format!("the mix key of epoch {epoch} could not be destroyed: {error}"));
                self.undestroyed.insert(epoch);
            }
        }
        for epoch in rotation.make {
            let secret = MixSecretKey::from_bytes(self.parts.rng.random());
            match self.parts.keystore.create(epoch, &secret, self.parts.rng.random()) {
                Ok(()) => self.add_key(epoch, secret, Vec::new()),
                Err(error) => {
                    self.trouble = Some(format!("the mix key of epoch {epoch} could not be written: {error}"));
                    // Half-written files would stand in the way of the next attempt.
                    let _removed = self.parts.keystore.destroy(epoch);
                    self.next_rotation = now.unix.plus(Duration::from_secs(5));
                }
            }
        }
        *lock(&self.parts.keyring) = Arc::new(self.ring.clone());
        self.emit(Event::Keys(self.ring.public()));
    }

    fn add_key(&mut self, epoch: Epoch, secret: MixSecretKey, seen: Vec<[u8; 8]>) {
        let salt = (self.parts.delay_salt)(epoch);
        let filter = self.parts.rng.random();
        self.ring.insert(EpochKey::new(epoch, secret, salt, self.parts.replay_capacity, filter, seen));
    }

    /// Events wait for room: the swarm empties the channel before anything else, and nothing here is needed by it meanwhile.
    fn emit(&self, event: Event) {
        let _stopping = self.events.blocking_send(event);
    }
}
