//! An endpoint: what a node sends and receives for itself, as opposed to what it relays for others.
//!
//! Applications hand in messages and pings; the endpoint cuts them into packets that leave on the send clock, and turns packets
//! that arrive into messages, each handed to the application once. `send.rs` says what leaves, `crowd.rs` builds it, `receive.rs`
//! takes packets in, `answers.rs` gives out reply blocks and answers by those of others, `paths.rs` draws paths, `measure.rs` sends loops through every relay, `types.rs` says what goes in and comes out, [`claims`] keeps a mailbox for a node that is no relay, `rtt.rs`
//! says when a packet is late and which relays to avoid.

mod answers;
pub mod claims;
mod crowd;
#[cfg(test)]
mod crowd_tests;
mod measure;
mod paths;
mod receive;
mod rtt;
mod send;
mod types;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{
    BoundedQueue, DropCounters, DropReason, Epoch, MessageId, NetworkId, NodeId, Now,
    relay::{PathSelector, Role},
};
use fog_sphinx::{MixPublicKey, Surb};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

pub use self::types::{
    Audience, Config, Delivery, Kind, Output, Ping, ReplyBlock, Restored, Secrets, Send, SendError, SentNews, SentState,
};
use self::{
    claims::Claims,
    crowd::{Ahead, Unsent},
    measure::Measure,
    rtt::{LateEstimate, Suspects},
};
use super::{
    PacketBuf,
    cover::{Cover, SendClock},
    loops::LoopMonitor,
    mailbox::{Claim, Slot},
    outgoing::{Address, Outgoing, Standing},
    reassembly::{Limits, Reassembly},
    seal,
    surbs::{SurbTable, UsedSurbs},
};
use crate::wire::{Form, MAX_MESSAGE};

/// Messages on their way at one time, and their bytes.
const MAX_OUTGOING: usize = 512;
const MAX_OUTGOING_BYTES: usize = 64 << 20;
/// Acknowledgements, pongs and pings that wait for a tick.
const MAX_WAITING: usize = 1024;
/// Message ids that are remembered so that no message is delivered twice.
const MAX_SEEN: usize = 262_144;
/// A message older than this is refused; so long its id is remembered.
pub const MESSAGE_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// A node with roles is a relay after this, or it is not reachable and needs a mailbox.
const BECOMES_RELAY: Duration = Duration::from_secs(30);
/// Without paths, a packet is tried again after this.
const NO_PATH_RETRY: Duration = Duration::from_secs(1);
/// To how many relays a path is looked for before there is said to be none.
const READY_TRIES: usize = 8;
/// The clocks differ by more than this in what passed between two looks: the machine slept, or its time was set.
const SLEPT: Duration = Duration::from_secs(2);
const SIGNATURE_LABEL: &[u8] = b"fog mix message v1\0";

#[derive(Debug, Clone)]
struct PingJob {
    id: u64,
    to: Address,
    hops: usize,
}

/// Reply blocks by which a message is acknowledged.
#[derive(Debug, Default)]
struct AckState {
    surbs: VecDeque<Surb>,
    count: u16,
    queued: bool,
}

/// A message that the application is storing.
#[derive(Debug)]
struct Completing {
    created: u64,
    incarnation: [u8; 8],
}

/// What a node sends and receives for itself.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    secrets: Secrets,
    seal_public: [u8; 32],
    paths: Arc<dyn PathSelector + std::marker::Send + Sync>,
    /// An epoch that packets are not of yet, and whether its relays are known.
    coming: Option<(Epoch, bool)>,
    rng: ChaCha20Rng,
    drops: Arc<DropCounters>,
    outputs: VecDeque<Output>,
    // sending
    clock: SendClock,
    ahead: Ahead,
    #[cfg(test)]
    built: usize,
    /// The packet of the next tick is to be built, now that the last one has left.
    unprepared: bool,
    messages: BTreeMap<MessageId, Outgoing>,
    held: BTreeMap<MessageId, Instant>,
    stored_reported: BTreeSet<MessageId>,
    last_served: MessageId,
    replies_first: bool,
    loops_first: bool,
    surbs: SurbTable,
    late: LateEstimate,
    suspects: Suspects,
    keys: BTreeMap<[u8; 32], MixPublicKey>,
    // pings and loops
    pings: BoundedQueue<PingJob>,
    ping_deadlines: BTreeMap<u64, Instant>,
    loops: LoopMonitor,
    loop_clock: SendClock,
    loops_due: u32,
    measure: Measure,
    last_timeout: Now,
    // receiving
    reassembly: Reassembly,
    completing: BTreeMap<MessageId, Completing>,
    origins: BTreeMap<MessageId, BTreeSet<(NodeId, u64)>>,
    seen: BTreeMap<MessageId, u64>,
    seen_by_age: BTreeSet<(u64, MessageId)>,
    acks: BTreeMap<MessageId, AckState>,
    ack_order: VecDeque<MessageId>,
    pongs: BoundedQueue<Surb>,
    answers: BoundedQueue<answers::Answer>,
    claims: Claims,
    claims_from: Instant,
    claiming: bool,
    acks_tidied: Instant,
    used_surbs: UsedSurbs,
}

impl Endpoint {
    /// An endpoint that knows no relay yet; `paths` may be empty.
    pub fn new(
        config: Config,
        secrets: Secrets,
        restored: Restored,
        paths: Arc<dyn PathSelector + std::marker::Send + Sync>,
        drops: Arc<DropCounters>,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, SendError> {
        let rng = ChaCha20Rng::from_seed(seed);
        let seal_public = seal::public_key(&secrets.seal).map_err(|_| SendError::BadKey)?;
        let mut endpoint = Self {
            seal_public,
            paths,
            coming: None,
            drops,
            outputs: VecDeque::new(),
            clock: SendClock::new(config.send_per_second),
            ahead: Ahead::default(),
            #[cfg(test)]
            built: 0,
            unprepared: false,
            messages: BTreeMap::new(),
            held: BTreeMap::new(),
            stored_reported: BTreeSet::new(),
            last_served: MessageId([0; 16]),
            replies_first: false,
            loops_first: false,
            surbs: SurbTable::default(),
            late: LateEstimate::default(),
            suspects: Suspects::default(),
            keys: BTreeMap::new(),
            pings: BoundedQueue::new(MAX_WAITING),
            ping_deadlines: BTreeMap::new(),
            loops: LoopMonitor::default(),
            loop_clock: SendClock::new(config.loops_per_second),
            loops_due: 0,
            measure: Measure::default(),
            last_timeout: now,
            reassembly: Reassembly::new(Limits::default()),
            completing: BTreeMap::new(),
            origins: BTreeMap::new(),
            seen: BTreeMap::new(),
            seen_by_age: BTreeSet::new(),
            acks: BTreeMap::new(),
            ack_order: VecDeque::new(),
            pongs: BoundedQueue::new(MAX_WAITING),
            answers: BoundedQueue::new(MAX_WAITING),
            claims: Claims::new(&restored.mailboxes, now.mono),
            claims_from: now.mono + if config.offers_roles { BECOMES_RELAY } else { Duration::ZERO },
            claiming: false,
            acks_tidied: now.mono,
            used_surbs: UsedSurbs::default(),
            rng,
            config,
            secrets,
        };
        restored.seen.into_iter().for_each(|(message, created)| endpoint.remember(message, created));
        if endpoint.has_loops() {
            endpoint.loop_clock.wake(now.mono, &mut endpoint.rng);
        }
        Ok(endpoint)
    }

    /// Paths are drawn from `paths` from now on.
    pub fn set_paths(&mut self, paths: Arc<dyn PathSelector + std::marker::Send + Sync>) {
        self.paths = paths;
        self.coming = None;
        let unsent = self.ahead.set_paths(&*self.paths);
        self.take_back(unsent);
        // Validated keys are kept for the relays of a few epochs; a larger cache has outlived its relays.
        if self.keys.len() > 40_000 {
            self.keys.clear();
        }
    }

    /// Starts to send a message.
    pub fn send(&mut self, send: Send, now: Now) -> Result<(), SendError> {
        let hops = self.check_hops(send.hops)?;
        if send.body.len() > MAX_MESSAGE {
            return Err(SendError::TooLarge(send.body.len()));
        }
        let queued: usize = self.messages.values().map(|m| m.length() as usize).sum();
        if self.messages.len() >= MAX_OUTGOING || queued + send.body.len() > MAX_OUTGOING_BYTES {
            return Err(SendError::Busy);
        }
        let form = self.check_route(&send.to, hops, now)?;
        let (id, created) = (send.id, now.unix.as_secs());
        let bytes = self.envelope(&send, hops, now)?;
        let message = Outgoing::new(id, send.to, form, hops, created, now.mono + send.timeout, bytes);
        self.messages.insert(id, message);
        self.report_sent(id, SentState::Progress);
        self.run_clock(now);
        Ok(())
    }

    /// Starts a ping; [`Output::Pong`] ends it.
    pub fn ping(&mut self, ping: Ping, now: Now) -> Result<(), SendError> {
        let Ping { id, to, hops, timeout } = ping;
        let hops = self.check_hops(hops)?;
        self.check_route(&to, hops, now)?;
        self.pings.push(PingJob { id, to, hops }).map_err(|_| SendError::Busy)?;
        self.ping_deadlines.insert(id, now.mono + timeout);
        self.run_clock(now);
        Ok(())
    }

    /// Whether a path of the default length can be built now, to some relay, and answered.
    pub fn ready(&mut self, now: Now) -> bool {
        let epoch = self.sending_epoch(now);
        let (me, hops) = (self.config.me, self.config.hops);
        let others = self.paths.with_role(epoch, Role::Mix);
        // To one that has a seat it takes one relay more than to one that has none: the first of them does not say it all.
        let mut some = others.into_iter().filter(|relay| *relay != me).take(READY_TRIES);
        some.any(|last| self.check_paths(epoch, hops, last, now).is_ok())
    }

    /// The loops: whether so many are lost that the user must know, and how many came back and did not.
    pub fn loops(&self) -> (bool, u64, u64) {
        (self.loops.alarm(), self.loops.returned_total(), self.loops.lost_total())
    }

    /// How much is kept: name, used, greatest.
    pub fn usage(&self) -> [(&'static str, u64, u64); 4] {
        [
            ("outgoing_messages", self.messages.len() as u64, MAX_OUTGOING as u64),
            ("reassembly_bytes", self.reassembly.bytes() as u64, Limits::default().bytes as u64),
            ("reply_blocks", self.surbs.len() as u64, super::surbs::CAPACITY as u64),
            ("remembered_messages", self.seen.len() as u64, MAX_SEEN as u64),
        ]
    }

    /// Whether `node` is a relay of `epoch`, as far as this node knows.
    pub fn is_relay(&self, epoch: Epoch, node: NodeId) -> bool {
        self.paths.relay(epoch, node).is_some()
    }

    /// This node's public seal key.
    pub fn seal_key(&self) -> [u8; 32] {
        self.seal_public
    }

    /// The mailboxes in use.
    pub fn mailboxes(&self) -> Vec<NodeId> {
        self.claims.chosen()
    }

    /// The mailboxes that hold a claim now.
    pub fn mailboxes_holding(&self) -> Vec<NodeId> {
        self.claims.holding().collect()
    }

    /// A relay has answered a claim, or could not be reached.
    pub fn claim_answered(&mut self, relay: NodeId, holds: bool, now: Now) {
        self.claims.answered(&relay, holds, now.mono);
    }

    /// The connection to `peer` ended.
    pub fn disconnected(&mut self, peer: NodeId, now: Now) {
        self.claims.disconnected(&peer, now.mono);
        self.suspects.disconnected(peer, now.mono);
        self.loops.disconnected(peer, now.mono);
    }

    /// `peer` is connected.
    pub fn connected(&mut self, peer: &NodeId) {
        self.suspects.connected(peer);
    }

    /// `first` cannot be reached: what was sent to it takes another path at once.
    pub fn unreachable(&mut self, first: NodeId, now: Now) {
        self.suspects.unreachable(first, now.mono);
        self.loops.unreachable(&first);
        let unsent = self.ahead.unreachable(first);
        self.take_back(unsent);
        self.messages.values_mut().for_each(|message| message.unreachable(&first, now.mono));
        self.run_clock(now);
    }

    /// Packets to `first` wait while it is dialled.
    pub fn dialling(&mut self, first: NodeId) {
        self.loops.dialling(&first);
    }

    /// From now on, this many loops a second, each through the relays that the fewest have gone through in its epoch, whatever the
    /// cover; `None` for what the configuration says.
    pub fn set_loops(&mut self, per_second: Option<f64>, now: Now) {
        if self.measure.set_rate(per_second) {
            self.loop_clock = SendClock::new(per_second.unwrap_or(self.config.loops_per_second));
            self.loops_due = 0;
            if self.has_loops() {
                self.loop_clock.wake(now.mono, &mut self.rng);
            }
        }
    }

    fn has_loops(&self) -> bool {
        self.config.cover != Cover::None || self.measure.is_on()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.notice_sleep(now);
        self.surbs.handle_timeout(now.mono);
        self.loops.handle_timeout(now.mono);
        self.tell_loops();
        self.reassembly.handle_timeout(now.mono);
        self.forget_evicted();
        self.forget_acks(now);
        self.fail_late(now);
        self.forget_old(now);
        self.claim_due(now);
        while self.has_loops() && self.loop_clock.tick(now.mono, &mut self.rng) {
            // One loop a tick at most is worth waiting for; a backlog says nothing new.
            self.loops_due = (self.loops_due + 1).min(4);
        }
        self.run_clock(now);
    }

    /// When [`Endpoint::handle_timeout`] must be called.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let messages = self.messages.values().filter_map(|m| {
            let due = m.poll_timeout(now).map(|due| self.held.get(&m.id).map_or(due, |held| due.max(*held)));
            due.into_iter().chain([m.deadline]).min()
        });
        // Whoever sleeps is woken by `run_clock`; while the clock runs, nothing leaves before its tick.
        let work = messages.min();
        let sending = match self.clock.next() {
            Some(tick) => Some(tick),
            None => work.filter(|due| *due > now).or_else(|| work.map(|_| now + NO_PATH_RETRY)),
        };
        let others = [
            self.unprepared.then_some(now),
            sending,
            work.filter(|due| *due > now),
            self.loops.poll_timeout(now),
            self.loop_clock.next(),
            self.ahead.next_ends(),
            self.reassembly.poll_timeout(),
            self.claims.poll_timeout().filter(|_| self.claiming),
            self.ping_deadlines.values().min().copied(),
        ];
        others.into_iter().flatten().min()
    }

    /// The next thing to do; to be called until it returns `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn check_hops(&self, hops: Option<usize>) -> Result<usize, SendError> {
        let hops = hops.unwrap_or(self.config.hops);
        if (1..=fog_sphinx::MAX_HOPS).contains(&hops) { Ok(hops) } else { Err(SendError::Hops(hops)) }
    }

    /// Whether a packet to `to` could leave now and be answered, and in which form.
    fn check_route(&mut self, to: &Address, hops: usize, now: Now) -> Result<Form, SendError> {
        let epoch = self.sending_epoch(now);
        let (form, last) = self.last_hop(to, epoch, None)?;
        self.check_paths(epoch, hops, last, now).map(|()| form)
    }

    fn fail_late(&mut self, now: Now) {
        let late: Vec<_> = self.messages.values().filter(|m| m.deadline <= now.mono).map(|m| m.id).collect();
        for id in late {
            self.report_sent(id, SentState::Failed);
            self.end_message(&id);
        }
        let lost: Vec<u64> =
            self.ping_deadlines.iter().filter(|(_, due)| **due <= now.mono).map(|(id, _)| *id).collect();
        for ping in lost {
            self.ping_deadlines.remove(&ping);
            self.outputs.push_back(Output::Pong { ping, rtt: None });
        }
        let waiting = &self.ping_deadlines;
        self.pings.retain(|job| waiting.contains_key(&job.id));
    }

    fn end_message(&mut self, id: &MessageId) {
        self.messages.remove(id);
        self.ahead.ended(id);
        self.held.remove(id);
        self.stored_reported.remove(id);
    }

    fn report_sent(&mut self, message: MessageId, state: SentState) {
        let Some(m) = self.messages.get(&message) else { return };
        self.outputs.push_back(Output::Sent(SentNews {
            message,
            state,
            acknowledged: m.acknowledged(),
            packets: u64::from(m.count()),
            retransmissions: m.retransmissions(),
        }));
    }

    /// Reports how a message stands after news of it.
    fn report_standing(&mut self, id: MessageId) {
        match self.messages.get(&id).map(Outgoing::standing) {
            Some(Standing::Delivered) => {
                self.report_sent(id, SentState::Delivered);
                self.end_message(&id);
            }
            Some(Standing::Stored) if self.stored_reported.insert(id) => self.report_sent(id, SentState::Stored),
            Some(_) => self.report_sent(id, SentState::Progress),
            None => {}
        }
    }

    /// What has waited for a tick and does not leave is to leave again. An answer cannot: its reply block is used.
    fn take_back(&mut self, unsent: Option<Unsent>) {
        match unsent {
            Some(Unsent::Loop) => self.loops_due += 1,
            Some(Unsent::Ping(ping)) => {
                let full = self.pings.push(ping).is_err();
                self.drops.add(DropReason::QueueFull, u64::from(full));
            }
            Some(Unsent::Reply) => self.drops.count(DropReason::Expired),
            None => {}
        }
    }

    fn tell_loops(&mut self) {
        while let Some(end) = self.loops.poll_end() {
            self.outputs.push_back(Output::Loop(end));
        }
    }

    /// A machine that sleeps stops one clock and not the other.
    fn notice_sleep(&mut self, now: Now) {
        let before = std::mem::replace(&mut self.last_timeout, now);
        let awake = now.mono.saturating_duration_since(before.mono);
        if now.unix.since(before.unix).abs_diff(awake) > SLEPT {
            self.loops.slept();
        }
    }

    fn claim_due(&mut self, now: Now) {
        let epoch = self.sending_epoch(now);
        let me = self.config.me;
        // A relay receives by itself; one that has just started will be known as one in a moment.
        self.claiming = self.paths.relay(epoch, me).is_none() && now.mono >= self.claims_from;
        if !self.claiming {
            return;
        }
        let candidates = self.paths.with_role(epoch, Role::Mailbox);
        let (due, changed) = self.claims.poll(&candidates, now.mono, &mut self.rng);
        if changed {
            self.outputs.push_back(Output::Mailboxes(self.claims.chosen()));
        }
        for relay in due {
            let claim = Claim { relay, client: me };
            if let Ok(record) = claim.sign(&self.config.network, &self.secrets.slot, now.unix) {
                self.outputs.push_back(Output::Claim { relay, record: record.as_bytes().to_vec() });
            }
        }
    }

    /// What reassembly gave up is given up everywhere.
    fn forget_evicted(&mut self) {
        for message in self.reassembly.take_evicted() {
            self.drops.count(DropReason::Expired);
            self.acks.remove(&message);
            self.done_with(&message);
        }
    }

    /// Reply blocks end with their epoch.
    fn forget_acks(&mut self, now: Now) {
        if now.mono.saturating_duration_since(self.acks_tidied) < Duration::from_secs(1) {
            return;
        }
        self.acks_tidied = now.mono;
        let schedule = self.config.schedule;
        self.acks.retain(|_, state| {
            state.surbs.retain(|surb| !schedule.is_over(Epoch(surb.epoch()), now.unix));
            state.queued || !state.surbs.is_empty()
        });
    }

    fn remember(&mut self, message: MessageId, created: u64) {
        self.seen.insert(message, created);
        self.seen_by_age.insert((created, message));
        while self.seen.len() > MAX_SEEN {
            let Some((_, oldest)) = self.seen_by_age.pop_first() else { return };
            self.seen.remove(&oldest);
        }
    }

    fn forget_old(&mut self, now: Now) {
        let oldest = now.unix.minus(MESSAGE_LIFETIME + fog_base::time::CLOCK_TOLERANCE * 2).as_secs();
        while let Some((created, message)) = self.seen_by_age.first().copied().filter(|(created, _)| *created < oldest)
        {
            self.seen_by_age.remove(&(created, message));
            self.seen.remove(&message);
        }
    }

    fn mix_key(&mut self, bytes: &[u8; 32]) -> Option<MixPublicKey> {
        if let Some(key) = self.keys.get(bytes) {
            return Some(*key);
        }
        let key = MixPublicKey::from_bytes(bytes).ok()?;
        self.keys.insert(*bytes, key);
        Some(key)
    }

    fn wait_after_no_path(&mut self, message: MessageId, now: Instant) {
        self.held.insert(message, now + NO_PATH_RETRY);
    }

    fn slot(&self) -> Slot {
        self.secrets.slot.verifying_key().to_bytes()
    }

    fn deadline_of(&self, epoch: Epoch, now: Now) -> Instant {
        let over = self.config.schedule.end(epoch).plus(self.config.schedule.grace());
        now.mono + over.since(now.unix)
    }

    /// Until when packets of `epoch` leave: half a grace before its end, or until its end if the next is not known then.
    fn sends_until(&self, epoch: Epoch, now: Now) -> Instant {
        let end = self.config.schedule.end(epoch);
        let early = end.minus(self.config.schedule.grace() / 2);
        now.mono + if now.unix < early { early } else { end }.since(now.unix)
    }

    fn pick<T: Copy>(rng: &mut impl Rng, items: &[T]) -> Option<T> {
        if items.is_empty() { None } else { items.get(rng.random_range(0..items.len())).copied() }
    }
}

/// What a sender signs: the label, the network, the message's id, the recipient's seal key, the time, and the body.
fn signed_bytes(network: &NetworkId, id: &MessageId, recipient: &[u8; 32], created: u64, body: &[u8]) -> Vec<u8> {
    [SIGNATURE_LABEL, &network.0, &id.0, recipient, &created.to_be_bytes(), body].concat()
}
