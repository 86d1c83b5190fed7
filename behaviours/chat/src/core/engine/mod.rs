//! The engine: all conversations, secrets, order and delivery of one device, as one state machine.
//!
//! Everything that a person does, that the network brings and that the store says comes in by a method; everything that follows comes
//! out of [`Chat::poll_output`]. No IO, no clock, no libp2p. Each call ends with [`Chat::settle`], which takes out of the ratchets what
//! they have to say, so that what belongs together is in one batch.

mod absent;
mod card;
mod deliver;
mod direct;
mod disk;
mod fetch;
mod gossip;
mod groups;
mod ingest;
mod kept;
mod lack;
mod links;
mod live;
mod loads;
mod meet;
mod nick;
mod open;
mod owed;
mod pack;
mod people;
mod rooms;
mod short;
mod show;
mod strangers;
mod successor;
mod talk;
mod text;
mod trace;
mod types;
mod window;

#[cfg(test)]
mod away_tests;
#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod nick_tests;
#[cfg(test)]
mod rough_tests;
#[cfg(test)]
mod short_tests;
#[cfg(test)]
mod strangers_tests;
#[cfg(test)]
mod successor_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod topic_tests;
#[cfg(test)]
mod trace_tests;
#[cfg(test)]
mod world_tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{DropReason, MessageId as FrameId, NodeId, Now};
use rand::Rng;
use rand_chacha::ChaCha20Rng;

pub use self::{
    card::{Card, MAX_CARD, MAX_MAILBOXES, MAX_NAME},
    kept::kept,
    loads::Load,
    nick::default_name,
    text::{MAX_TEXT, clean_name, clean_text, is_clean},
    types::{
        Config, Contact, Conversation, ConversationKind, Counts, Event, Member, MixAddress, MixProgress, OpenError,
        Output, Refusal, Role, RoomKey, Row, Rows, Shown, Trace, Validation, Why,
    },
};
use self::{
    direct::Flight,
    disk::Disk,
    links::{Asked, Link},
    people::Person,
    talk::Talk,
    window::Frame,
};
use crate::core::{
    carrier::Carrier,
    envelope::Envelope,
    limits::{Limits, Rates},
    message::KeyCache,
    secrets::{
        Device,
        device::{Came, Output as Secret, Report},
    },
    seen::Seen,
    tag::TagBook,
};
pub use crate::core::{
    dag::Standing,
    delivery::{Policy, Reason, State, Transport, Via},
    id::{ConversationId, DeviceId, MessageId},
    message::Kind,
    reject::Reject,
};

/// The most rooms and groups.
pub const MAX_CONVERSATIONS: usize = 1_024;
/// The most envelopes that wait for the key of a group session.
const MAX_PARKED: usize = 256;
/// Envelopes of conversations that are not ours, per second and at once, that are forwarded for one peer.
const FORWARD_RATE: (f64, f64) = (200.0, 2_000.0);
/// How often what has no timer of its own is looked at.
const TICK: Duration = Duration::from_secs(600);

/// What is due at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The next transport or attempt of a frame.
    Flight(DeviceId, FrameId),
    /// Frames that wait for others go.
    Window(DeviceId),
    /// Gossip is given a message again.
    Publish(ConversationId, MessageId),
    /// A connected peer is asked again.
    Meet(NodeId),
    /// A connected peer may be asked for missing messages again.
    Fetch(NodeId),
    /// Members of groups who are away are served.
    Absent,
    /// Acknowledgements that found no way.
    Owed,
    /// Expiry of what is rarely looked at.
    Tick,
}

/// One device.
#[derive(Debug)]
pub struct Chat {
    config: Config,
    signing: SigningKey,
    device: DeviceId,
    card: Card,
    mailboxes: Vec<(NodeId, [u8; 32])>,
    rng: ChaCha20Rng,
    secrets: Device,
    disk: Disk,
    people: BTreeMap<DeviceId, Person>,
    talks: BTreeMap<ConversationId, Talk>,
    book: TagBook,
    inbox: ConversationId,
    seen: Seen,
    limits: Limits,
    forwards: Rates<NodeId>,
    keys: KeyCache,
    links: BTreeMap<NodeId, Link>,
    /// Peers that are to be asked for missing messages when the call ends.
    fetching: BTreeSet<NodeId>,
    buckets: BTreeSet<u8>,
    is_mix_ready: bool,
    carrier: Carrier,
    requests: BTreeMap<u64, (NodeId, Asked)>,
    flights: BTreeMap<(DeviceId, FrameId), Flight>,
    /// Frames for which a peer's window has no room.
    waiting: BTreeMap<DeviceId, VecDeque<Frame>>,
    /// Those of them that have a short life.
    short: BTreeMap<DeviceId, VecDeque<Frame>>,
    /// Own direct messages that were given up, until the call ends.
    given_up: BTreeSet<(DeviceId, MessageId)>,
    mixing: BTreeMap<u64, (DeviceId, FrameId)>,
    owed: owed::Owed,
    absent: absent::Absent,
    publishing: BTreeMap<u64, (ConversationId, MessageId)>,
    parked: VecDeque<(ConversationId, NodeId, Envelope)>,
    /// When a person was told of another device at a contact's node.
    successors: BTreeMap<NodeId, Instant>,
    /// From which node and by which way a device's last frame came.
    sources: BTreeMap<DeviceId, (NodeId, Transport)>,
    timers: BTreeSet<(Instant, Timer)>,
    numbers: u64,
    drops: BTreeMap<DropReason, u64>,
    desynced: u64,
    healed: u64,
}

impl Chat {
    /// The own device.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// What others must know to write to this device; its fallback key is replaced when it is due.
    pub fn card(&mut self, now: Now) -> Card {
        self.secrets.handle_timeout(now);
        self.renew_card(now);
        self.settle(now);
        self.card.clone()
    }

    /// The node's mailboxes: relay and slot.
    pub fn set_mailboxes(&mut self, mailboxes: Vec<(NodeId, [u8; 32])>, now: Now) {
        if self.mailboxes != mailboxes {
            self.mailboxes = mailboxes;
            self.tell_contacts(now);
            self.settle(now);
        }
    }

    /// Batch `number` is on disk, or the store failed: then nothing comes out any more.
    pub fn handle_persisted(&mut self, number: u64, ok: bool, _now: Now) {
        self.disk.handle_persisted(number, ok);
        if self.disk.has_failed() {
            self.secrets.handle_store_failed();
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now.mono) {
            let Some((_, timer)) = self.timers.pop_first() else { break };
            match timer {
                Timer::Flight(to, id) => self.run_flight(to, id, now),
                Timer::Window(to) => self.fill_window(to, now),
                Timer::Publish(conversation, id) => self.publish(conversation, id, now),
                Timer::Meet(node) => self.meet_again(node, now),
                Timer::Fetch(node) => self.fetch_from(node, now),
                Timer::Absent => self.serve_absent(now),
                Timer::Owed => self.run_owed(now),
                Timer::Tick => self.tick(now),
            }
        }
        self.secrets.handle_timeout(now);
        let is_due = |talk: &Talk| talk.dag.poll_timeout().is_some_and(|at| at <= now.mono);
        let due: Vec<_> = self.talks.iter().filter(|(_, talk)| is_due(talk)).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(talk) = self.talks.get_mut(&id) {
                talk.dag.handle_timeout(now.mono);
            }
            self.drain_dag(id, None, now);
        }
        self.settle(now);
    }

    /// When [`Chat::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = self.timers.first().map(|(at, _)| *at);
        let dags = self.talks.values().filter_map(|talk| talk.dag.poll_timeout()).min();
        timers.into_iter().chain(dags).chain(self.secrets.poll_timeout()).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.disk.poll()
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        let is_queued = |delivery: &&talk::Delivery| delivery.state() == State::Queued;
        let waits = |talk: &Talk| talk.deliveries.values().filter(is_queued).count();
        let mut drops = self.drops.clone();
        if self.disk.refused() > 0 {
            *drops.entry(DropReason::QueueFull).or_default() += self.disk.refused();
        }
        Counts {
            queued: self.talks.values().map(waits).sum(),
            carried_for_others: self.carrier.load().0,
            conversations: self.talks.values().filter(|talk| talk.is_listed()).count(),
            drops,
            desynced: self.desynced,
            healed: self.healed,
        }
    }

    /// Takes out of the ratchets what they have to say, until there is no more.
    fn settle(&mut self, now: Now) {
        loop {
            self.settle_secrets(now);
            if self.given_up.is_empty() {
                break;
            }
            self.give_places(now);
        }
        self.fetch_all(now);
    }

    fn settle_secrets(&mut self, now: Now) {
        while let Some(output) = self.secrets.poll_output() {
            match output {
                Secret::Persist { batch, rows, came } => {
                    // What the messages lead to goes into the same batch.
                    self.disk.write(rows, true);
                    self.secrets.handle_persisted(batch);
                    for Came { from, kind, body, .. } in came {
                        self.take_frame(from, kind, &body, now);
                    }
                }
                Secret::Send { to, id, bytes } => self.handle_sealed(to, id, &bytes, now),
                Secret::Acknowledged { to, id } => self.handle_acknowledged(to, id, now),
                Secret::Report(report) => self.report(report, now),
            }
        }
    }

    fn report(&mut self, report: Report, now: Now) {
        let event = match report {
            Report::NewPeer(_) => return,
            Report::Desynced(device) => {
                self.desynced += 1;
                Event::Desynced(device)
            }
            Report::Healed(device) => {
                self.healed += 1;
                self.fill_window(device, now);
                Event::Healed(device)
            }
            Report::NeedsInvite(device) => Event::NeedsInvite(device),
            Report::KeyUsed(device) => {
                if let Some(person) = self.people.get_mut(&device) {
                    person.has_key = false;
                }
                return self.save_person(device);
            }
        };
        self.tell(event);
    }

    fn tick(&mut self, now: Now) {
        self.parked.retain(|(_, _, envelope)| envelope.expires_at() > now.unix);
        self.tell_contacts(now);
        self.at(now.mono + TICK, Timer::Tick);
    }

    /// Contacts are told where the mailboxes are now, if they do not know it.
    fn tell_contacts(&mut self, now: Now) {
        // Members of groups write to them as well.
        let members = self.fellow_members();
        let is_told = |person: &&Person| {
            let is_known = person.is_contact && person.is_met || members.contains(&person.card.device);
            is_known && !person.is_blocked && person.card.device != self.device
        };
        let contacts: Vec<_> = self.people.values().filter(is_told).map(|person| person.card.device).collect();
        for contact in contacts {
            self.introduce(contact, now);
        }
    }

    fn at(&mut self, at: Instant, timer: Timer) {
        self.timers.insert((at, timer));
    }

    fn tell(&mut self, event: Event) {
        self.disk.hold(Output::Event(event));
    }

    fn count(&mut self, reject: Reject) {
        *self.drops.entry(reject.drop_reason()).or_default() += 1;
    }

    /// Counts what a peer sent, and has it blamed if nobody honest sends that.
    fn refuse(&mut self, node: Option<NodeId>, reject: Reject) {
        self.count(reject);
        if let Some(node) = node.filter(|_| reject.is_misbehaviour()) {
            self.disk.push(Output::Blame { node, reject });
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn check_store(&self) -> Result<(), Refusal> {
        if self.disk.has_failed() { Err(Refusal::StoreFailed) } else { Ok(()) }
    }
}
