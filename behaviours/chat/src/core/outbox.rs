//! What is on its way: sealed, stored before its first byte leaves, tried until a receipt or the end of its time.
//!
//! The attack that the order stops: after a crash a node that sends what it did not store would use a ratchet's key or a
//! sequence number twice, and so break its own secrets or fork its own history.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fog_base::{BoundedQueue, Now, UnixMillis};

use super::{
    delivery::{Policy, Reach, Reason, State, Transport, Via, allowed, plan},
    envelope::{Envelope, Packed, Priority},
    id::{ConversationId, DeviceId, MessageId},
    message::Verified,
};

/// The most entries.
pub const MAX_ENTRIES: usize = 4_096;
/// The most entries for one recipient.
pub const MAX_FOR_RECIPIENT: usize = 1_024;
/// The most that is sealed for one device and not acknowledged: a ratchet keeps 40 skipped keys.
pub const WINDOW: usize = 32;
/// The most recipients of whom it is remembered how they are reachable; beyond, only those with entries.
const MAX_RECIPIENTS: usize = MAX_ENTRIES;
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LAST: Duration = Duration::from_secs(600);
/// Outputs are polled after each call; one call makes at most a few for each entry.
const MAX_OUTPUTS: usize = 8 * MAX_ENTRIES;

/// Whom an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recipient {
    /// One device, which answers with a receipt.
    Device(DeviceId),
    /// All members, by gossip; reconciliation does the rest.
    Members(ConversationId),
}

/// A message on its way to one recipient.
pub type Key = (MessageId, Recipient);

/// How a message is to travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What goes first.
    pub priority: Priority,
    /// What the contact allows.
    pub policy: Policy,
    /// What was asked for.
    pub via: Via,
    /// When it is given up.
    pub expires: UnixMillis,
    /// Whether the recipient is blocked.
    pub is_blocked: bool,
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Which message, to whom.
    pub key: Key,
    /// How.
    pub terms: Terms,
    /// The sealed envelope; none if it waits for the window.
    pub envelope: Option<Envelope>,
    /// How far it was when it was written; whoever stores [`Output::State`] puts the later state here on the way back.
    pub state: State,
}

/// One thing to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// This node's own message, and with it its author's last seq.
    Message {
        /// Which.
        id: MessageId,
        /// Where.
        conversation: ConversationId,
        /// Who.
        author: DeviceId,
        /// The author's last number from now on.
        seq: u32,
        /// The message.
        bytes: Vec<u8>,
    },
    /// An entry of the outbox.
    Entry(Box<Saved>),
    /// An entry is over.
    Delete(Key),
    /// State of the sealer, such as a ratchet's next step.
    Seal {
        /// Its key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
}

/// What is written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// By which [`Outbox::handle_persisted`] names it.
    pub number: u64,
    /// Whether it must be on disk before it is named.
    pub sync: bool,
    /// What.
    pub writes: Vec<Write>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Seal the message for the recipient and give the envelope to [`Outbox::handle_packed`].
    Pack(Key),
    /// Write a batch.
    Persist(Batch),
    /// Send the envelope by this transport; the outcome is told to the outbox.
    Send {
        /// Which entry.
        key: Key,
        /// By which way, and no other.
        transport: Transport,
        /// What.
        envelope: Box<Envelope>,
    },
    /// A state advanced, or a queued message waits for something else.
    State {
        /// Which entry.
        key: Key,
        /// How far.
        state: State,
        /// By which way it came there.
        via: Option<Transport>,
        /// Why it failed, or what it waits for.
        reason: Option<Reason>,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Waits for the window, or for its envelope.
    Unsealed { is_asked: bool },
    /// Waits for the disk.
    Storing,
    /// Stored.
    Ready,
}

#[derive(Debug)]
struct Entry {
    terms: Terms,
    allowed: Reach,
    /// Written with the first batch of the entry.
    message: Option<Verified>,
    envelope: Option<Envelope>,
    stage: Stage,
    state: State,
    reason: Option<Reason>,
    attempts: u32,
    /// Of this attempt: what has not started.
    starts: Vec<(Instant, Transport)>,
    next_attempt: Option<Instant>,
    /// When its time is over, by the monotonic clock; looked at again by UTC then.
    deadline: Instant,
    timer: Option<Instant>,
    /// The order of submission.
    number: u64,
}

impl Entry {
    fn new(terms: Terms, now: Now) -> Self {
        Self {
            terms,
            allowed: Reach::default(),
            message: None,
            envelope: None,
            stage: Stage::Ready,
            state: State::Queued,
            reason: Some(Reason::NotStored),
            attempts: 0,
            starts: Vec::new(),
            next_attempt: None,
            deadline: now.mono + terms.expires.since(now.unix),
            timer: None,
            number: 0,
        }
    }
}

/// The outbox.
#[derive(Debug)]
pub struct Outbox {
    entries: BTreeMap<Key, Entry>,
    /// By recipient and order of submission.
    by_recipient: BTreeMap<Recipient, BTreeMap<u64, MessageId>>,
    reachable: BTreeMap<Recipient, Reach>,
    timers: BTreeSet<(Instant, Key)>,
    storing: BTreeMap<u64, Key>,
    seed: [u8; 32],
    numbers: u64,
    outputs: BoundedQueue<Output>,
}

impl Outbox {
    /// Without entries; `seed` spreads repetitions.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_recipient: BTreeMap::new(),
            reachable: BTreeMap::new(),
            timers: BTreeSet::new(),
            storing: BTreeMap::new(),
            seed,
            numbers: 0,
            outputs: BoundedQueue::new(MAX_OUTPUTS),
        }
    }

    /// Takes this node's own message for one recipient. An error is a failure at once, and nothing is kept.
    pub fn handle_submit(&mut self, message: &Verified, to: Recipient, terms: Terms, now: Now) -> Result<(), Reason> {
        let key = (message.id(), to);
        if terms.is_blocked {
            return Err(Reason::Blocked);
        }
        let allowed = allowed(terms.policy, terms.via)?;
        let for_recipient = self.by_recipient.get(&to).map_or(0, BTreeMap::len);
        if self.entries.len() >= MAX_ENTRIES || for_recipient >= MAX_FOR_RECIPIENT {
            return Err(Reason::QueueFull);
        }
        if terms.expires <= now.unix {
            return Err(Reason::Expired);
        }
        if self.entries.contains_key(&key) {
            return Ok(());
        }
        let stage = Stage::Unsealed { is_asked: false };
        self.insert(key, allowed, Entry { message: Some(message.clone()), stage, ..Entry::new(terms, now) });
        self.push(Output::State { key, state: State::Queued, via: None, reason: Some(Reason::NotStored) });
        self.fill_window(to);
        // What must wait to be sealed is stored now; the rest is stored with its envelope.
        if self.entries.get(&key).is_some_and(|entry| entry.stage == Stage::Unsealed { is_asked: false }) {
            self.wait_for(key, Reason::Window);
            let number = self.number();
            self.persist(number, key, Vec::new());
        }
        Ok(())
    }

    /// Takes back an entry that was stored. What was sealed may have left before: it is sent again, and is the same.
    pub fn restore(&mut self, saved: Saved, now: Now) -> Result<(), Reason> {
        let allowed = allowed(saved.terms.policy, saved.terms.via)?;
        if self.entries.len() >= MAX_ENTRIES {
            return Err(Reason::QueueFull);
        }
        let stage = if saved.envelope.is_some() { Stage::Ready } else { Stage::Unsealed { is_asked: false } };
        let entry = Entry { envelope: saved.envelope, stage, state: saved.state, ..Entry::new(saved.terms, now) };
        self.insert(saved.key, allowed, entry);
        self.begin(saved.key, now.mono);
        self.fill_window(saved.key.1);
        Ok(())
    }

    /// Takes the envelope that [`Output::Pack`] asked for, and has it stored with all that belongs to it.
    pub fn handle_packed(&mut self, key: Key, packed: Packed) {
        let number = self.number();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.stage != (Stage::Unsealed { is_asked: true }) {
            return;
        }
        entry.envelope = Some(packed.envelope);
        entry.stage = Stage::Storing;
        self.storing.insert(number, key);
        let seal = packed.state.into_iter().map(|(key, value)| Write::Seal { key, value }).collect();
        self.persist(number, key, seal);
    }

    /// The message fits no envelope, or the sealer refused for good.
    pub fn handle_unsealable(&mut self, key: Key) {
        self.end(key, State::Failed, None, Some(Reason::Unsealable));
    }

    /// A batch is on disk: what it holds may leave.
    pub fn handle_persisted(&mut self, batch: u64, now: Now) {
        let Some(key) = self.storing.remove(&batch) else { return };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.stage = Stage::Ready;
            self.begin(key, now.mono);
        }
    }

    /// By what a recipient can be reached from now on. What waits for a way starts at once.
    pub fn handle_reachable(&mut self, to: Recipient, reach: Reach, now: Now) {
        let before = self.reachable.insert(to, reach).unwrap_or_default();
        if reach == Reach::default() {
            self.reachable.remove(&to);
        }
        if self.reachable.len() > MAX_RECIPIENTS {
            self.reachable.retain(|to, _| self.by_recipient.contains_key(to));
        }
        let is_new = Transport::ALL.into_iter().any(|transport| reach.has(transport) && !before.has(transport));
        if !is_new {
            return;
        }
        let keys: Vec<_> =
            self.by_recipient.get(&to).into_iter().flat_map(BTreeMap::values).map(|id| (*id, to)).collect();
        for key in keys {
            if let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.stage == Stage::Ready) {
                entry.attempts = 0;
                self.begin(key, now.mono);
            }
        }
    }

    /// A transport took the bytes (`Sent`), or a mailbox or carrier has them (`Carried`).
    pub fn handle_progress(&mut self, key: Key, transport: Transport, state: State) {
        if !matches!(state, State::Sent | State::Carried) {
            return;
        }
        if matches!(key.1, Recipient::Members(_)) {
            // Members have no receipts: from here on reconciliation brings it to everybody.
            self.end(key, state, Some(transport), None);
            return;
        }
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.stage == Stage::Ready) else { return };
        if entry.state.advance(state) {
            entry.reason = None;
            self.push(Output::State { key, state, via: Some(transport), reason: None });
        }
    }

    /// A transport failed: the next one of the attempt starts now.
    pub fn handle_failure(&mut self, key: Key, now: Now) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some((at, _)) = entry.starts.first_mut() {
            *at = (*at).min(now.mono);
        }
        self.set_timer(key);
        self.handle_timeout(now);
    }

    /// The recipient has the message (`Delivered`) or its person read it (`Read`). Nothing more is sent.
    pub fn handle_receipt(&mut self, key: Key, via: Option<Transport>, state: State) {
        if matches!(state, State::Delivered | State::Read) {
            self.end(key, state, via, None);
            self.fill_window(key.1);
        }
    }

    /// Starts transports, begins attempts, gives up what is over.
    pub fn handle_timeout(&mut self, now: Now) {
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(at, _)| *at <= now.mono) {
            let Some((_, key)) = self.timers.pop_first() else { break };
            due.push(key);
        }
        // Important first, then as they were submitted.
        due.sort_by_key(|key| {
            self.entries.get(key).map(|entry| (std::cmp::Reverse(entry.terms.priority), entry.number))
        });
        for key in due {
            self.run(key, now);
        }
    }

    /// When [`Outbox::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// How far an entry is, and what it waits for; `None` once it is over.
    pub fn state(&self, key: &Key) -> Option<(State, Option<Reason>)> {
        self.entries.get(key).map(|entry| (entry.state, entry.reason))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, key: Key, allowed: Reach, entry: Entry) {
        let number = self.number();
        self.entries.insert(key, Entry { allowed, number, ..entry });
        self.by_recipient.entry(key.1).or_default().insert(number, key.0);
        self.set_timer(key);
    }

    /// Has as many entries of a recipient sealed as may be under way at once, in order.
    fn fill_window(&mut self, to: Recipient) {
        let Some(ids) = self.by_recipient.get(&to) else { return };
        let window = if matches!(to, Recipient::Device(_)) { WINDOW } else { MAX_FOR_RECIPIENT };
        let keys: Vec<_> = ids.values().take(window).map(|id| (*id, to)).collect();
        for key in keys {
            if let Some(entry) = self.entries.get_mut(&key)
                && entry.stage == (Stage::Unsealed { is_asked: false })
            {
                entry.stage = Stage::Unsealed { is_asked: true };
                self.push(Output::Pack(key));
            }
        }
    }

    fn persist(&mut self, number: u64, key: Key, seal: Vec<Write>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let mut writes = Vec::new();
        if let Some(message) = entry.message.take() {
            let header = message.header();
            writes.push(Write::Message {
                id: key.0,
                conversation: header.conversation,
                author: header.author,
                seq: header.seq,
                bytes: message.encode(),
            });
        }
        let saved = Saved { key, terms: entry.terms, envelope: entry.envelope.clone(), state: entry.state };
        writes.push(Write::Entry(Box::new(saved)));
        writes.extend(seal);
        self.push(Output::Persist(Batch { number, sync: true, writes }));
    }

    /// Begins an attempt.
    fn begin(&mut self, key: Key, now: Instant) {
        let reachable = self.reachable.get(&key.1).copied().unwrap_or_default();
        let spread = self.spread(key);
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.stage == Stage::Ready) else { return };
        let ways = plan(entry.allowed, reachable);
        entry.starts = ways.into_iter().map(|(transport, after)| (now + after, transport)).collect();
        entry.next_attempt = Some(now + backoff(entry.attempts).mul_f64(spread));
        entry.attempts = entry.attempts.saturating_add(1);
        let reason = if entry.starts.is_empty() { Reason::NoRoute } else { Reason::Retry };
        self.wait_for(key, reason);
        self.set_timer(key);
    }

    fn run(&mut self, key: Key, now: Now) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.terms.expires <= now.unix {
            self.end(key, State::Failed, None, Some(Reason::Expired));
            self.fill_window(key.1);
            return;
        }
        entry.timer = None;
        entry.deadline = now.mono + entry.terms.expires.since(now.unix);
        if entry.stage != Stage::Ready {
            self.set_timer(key);
            return;
        }
        let due = entry.starts.iter().take_while(|(at, _)| *at <= now.mono).count();
        let started: Vec<_> = entry.starts.drain(..due).map(|(_, transport)| transport).collect();
        if let Some(envelope) = entry.envelope.clone() {
            for transport in started {
                self.push(Output::Send { key, transport, envelope: Box::new(envelope.clone()) });
            }
        }
        let is_over = self.entries.get(&key).is_some_and(|entry| entry.next_attempt.is_none_or(|at| at <= now.mono));
        if is_over { self.begin(key, now.mono) } else { self.set_timer(key) }
    }

    /// Says what a queued entry waits for, if that is new.
    fn wait_for(&mut self, key: Key, reason: Reason) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.state == State::Queued && entry.reason != Some(reason) {
            entry.reason = Some(reason);
            self.push(Output::State { key, state: State::Queued, via: None, reason: Some(reason) });
        }
    }

    fn end(&mut self, key: Key, state: State, via: Option<Transport>, reason: Option<Reason>) {
        let Some(entry) = self.entries.remove(&key) else { return };
        if let Some(ids) = self.by_recipient.get_mut(&key.1) {
            ids.remove(&entry.number);
            if ids.is_empty() {
                self.by_recipient.remove(&key.1);
            }
        }
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, key));
        }
        self.push(Output::State { key, state, via, reason });
        let number = self.number();
        self.push(Output::Persist(Batch { number, sync: false, writes: vec![Write::Delete(key)] }));
    }

    /// One timer for an entry: its next start, its next attempt or its end.
    fn set_timer(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let start = entry.starts.first().map(|(at, _)| *at);
        let at = start.into_iter().chain(entry.next_attempt).chain([entry.deadline]).min();
        if let Some(before) = entry.timer {
            self.timers.remove(&(before, key));
        }
        entry.timer = at;
        self.timers.extend(at.map(|at| (at, key)));
    }

    /// 0.8 to 1.2.
    fn spread(&mut self, (id, _): Key) -> f64 {
        let number = self.number();
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&id.0).update(&number.to_be_bytes());
        let [a, b, ..] = *hasher.finalize().as_bytes();
        0.8 + 0.4 * f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn push(&mut self, output: Output) {
        // Outputs are polled after each call, and one call makes fewer than there is room for.
        let _room = self.outputs.push(output);
    }
}

fn backoff(attempts: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << attempts.min(7)).min(RETRY_LAST)
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
