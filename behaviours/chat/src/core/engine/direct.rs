//! Frames between two devices: what they carry, attempts and their repetition.
//!
//! Olm keeps a frame until it is acknowledged ([`crate::core::secrets::Device`]); here stands by which transports it is tried and when
//! again. What waits to get under way is in `window.rs`.

use std::time::{Duration, Instant};

use fog_base::{MessageId as FrameId, NodeId, Now, UnixMillis};

use super::{
    Chat, Timer,
    gossip::pack,
    pack::{direct_id, direct_tag_key, envelope_key, inbox, mode},
    people::Person,
    talk::Delivery,
    window::{Cargo, FULL, parts},
};
use crate::core::{
    delivery::{Policy, Reason, State, Transport, Via},
    envelope::{self, Envelope, Priority},
    id::{ConversationId, DeviceId, MessageId},
    message::Message,
    secrets::{Kind, Reject as SecretReject, bundle::Bundle},
};

/// How long a direct message is tried.
pub(super) const LIFETIME: Duration = envelope::LIFETIME;
/// The first byte of a data frame's body: a message, a card, a part of an invite, up to where messages were read, a
/// message of a group, a key to start a session from.
pub(super) const FRAME_MESSAGE: u8 = 0;
pub(super) const FRAME_CARD: u8 = 1;
pub(super) const FRAME_INVITE: u8 = 2;
pub(super) const FRAME_READ: u8 = 3;
pub(super) const FRAME_OF_GROUP: u8 = 4;
pub(super) const FRAME_KEY: u8 = 5;
/// What is missing of the other side.
pub(super) const FRAME_LACK: u8 = 7;
/// The first repetition of a frame; then doubled, up to the last; ± 20 %.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// The last of one that a mailbox has. It keeps packets on its disk, and has room for a few hundred frames; so the oldest frame alone is repeated
/// until an acknowledgement shows that the device is there, and the others a day later, in case that a mailbox is gone.
const RETRY_STORED: Duration = Duration::from_secs(3_600);
const STORED: Duration = Duration::from_secs(86_400);
/// After an acknowledgement those of other frames follow, or these go again.
const AFTER_ACK: Duration = Duration::from_secs(10);
/// A frame under way.
#[derive(Debug)]
pub(super) struct Flight {
    /// The own messages that it carries, if any.
    pub(super) messages: Vec<MessageId>,
    /// What is brought again if this is given up.
    pub(super) cargo: Vec<Cargo>,
    pub(super) via: Via,
    expires: UnixMillis,
    /// When the first of what it carries was written.
    pub(super) since: Instant,
    pub(super) envelope: Option<Envelope>,
    /// It carries a message with a short life.
    pub(super) is_short: bool,
    attempts: u32,
    /// A mailbox has it.
    pub(super) is_stored: bool,
    /// Of this attempt: what has not begun.
    pub(super) starts: Vec<(Instant, Transport)>,
    next: Instant,
}

impl Flight {
    pub(super) fn new(messages: Vec<MessageId>, via: Via, expires: UnixMillis, since: Instant, now: Now) -> Self {
        Self {
            messages,
            cargo: Vec::new(),
            via,
            expires,
            since,
            envelope: None,
            is_short: false,
            attempts: 0,
            is_stored: false,
            starts: Vec::new(),
            next: now.mono,
        }
    }
}

impl Chat {
    /// A frame of a device that was open when the node stopped.
    pub(super) fn resume_flight(&mut self, to: DeviceId, id: FrameId, now: Now) {
        let deliveries = self.talks.get(&self.conversation_with(to)).map(|talk| &talk.deliveries);
        let of_frame = |(_, delivery): &(&MessageId, &Delivery)| delivery.frame == Some(id);
        let carried: Vec<_> = deliveries.into_iter().flatten().filter(of_frame).collect();
        // What brings a message once more goes by the ways of the message, and does not tell how far that is.
        let again = deliveries.and_then(|all| all.values().find(|delivery| delivery.again == Some(id)));
        let via = carried.first().map(|(_, delivery)| *delivery).or(again).map_or(Via::Auto, Delivery::asked);
        let expires = carried.iter().map(|(_, delivery)| delivery.expires).max();
        let since = carried.iter().map(|(_, delivery)| delivery.since(now)).min().unwrap_or(now.mono);
        let messages = carried.iter().map(|(message, _)| **message).collect();
        let expires = expires.unwrap_or_else(|| now.unix.plus(LIFETIME));
        let in_mailbox = |(_, delivery): &(&MessageId, &Delivery)| {
            delivery.state() == State::Carried && delivery.via() == Some(Transport::Mailbox)
        };
        let is_stored = !carried.is_empty() && carried.iter().all(in_mailbox);
        let is_short = carried.iter().any(|(_, delivery)| delivery.is_short());
        let flight = Flight::new(messages, via, expires, since, now);
        self.flights.insert((to, id), Flight { cargo: self.group_cargo(to, id), is_short, ..flight });
        if is_stored {
            self.note_stored(to, id, now);
        }
        self.at(now.mono, Timer::Flight(to, id));
    }

    /// Olm sealed a frame, for the first time or anew: an attempt begins. Without an id it is an acknowledgement.
    pub(super) fn handle_sealed(&mut self, to: DeviceId, id: Option<FrameId>, olm: &[u8], now: Now) {
        let expires = id.and_then(|id| self.flights.get(&(to, id))).map(|flight| flight.expires);
        let lifetime = expires.map_or(LIFETIME, |expires| expires.since(now.unix));
        let Some(envelope) = self.pack_direct(to, olm, id.is_some(), lifetime, now) else { return };
        let Some(id) = id else {
            self.acknowledge(to, envelope, None, now);
            return;
        };
        let begin = || Flight::new(Vec::new(), Via::Auto, now.unix.plus(LIFETIME), now.mono, now);
        let flight = self.flights.entry((to, id)).or_insert_with(begin);
        flight.envelope = Some(envelope);
        self.begin_attempt(to, id, now);
    }

    fn begin_attempt(&mut self, to: DeviceId, id: FrameId, now: Now) {
        let via = self.flights.get(&(to, id)).map_or(Via::Auto, |flight| flight.via);
        let plan = self.plan_for(to, via);
        let [spread] = self.random();
        let Some(flight) = self.flights.get_mut(&(to, id)) else { return };
        let longest = if flight.is_stored { RETRY_STORED } else { RETRY.1 };
        let wait = RETRY.0.saturating_mul(1 << flight.attempts.min(10)).min(longest);
        flight.attempts = flight.attempts.saturating_add(1);
        flight.next = now.mono + wait.mul_f64(0.8 + 0.4 * f64::from(spread) / 255.0);
        flight.starts = plan.iter().map(|(transport, after)| (now.mono + *after, *transport)).collect();
        let messages = flight.messages.clone();
        let reason = if flight.starts.is_empty() { Reason::NoRoute } else { Reason::Retry };
        self.wait_for(to, &messages, reason);
        if self.is_dial_wanted(to, via) {
            self.dial(to);
        }
        self.run_flight(to, id, now);
    }

    /// Begins the transports that are due, then the next attempt.
    pub(super) fn run_flight(&mut self, to: DeviceId, id: FrameId, now: Now) {
        let Some(flight) = self.flights.get_mut(&(to, id)) else { return };
        if flight.expires <= now.unix {
            self.end_flight(to, id, Reason::Expired, now);
            return;
        }
        let due = flight.starts.iter().take_while(|(at, _)| *at <= now.mono).count();
        let begun: Vec<_> = flight.starts.drain(..due).map(|(_, transport)| transport).collect();
        let (envelope, via) = (flight.envelope.clone(), flight.via);
        if let Some(envelope) = envelope {
            for transport in begun {
                // Once more: the policy may be another one than when the attempt began.
                if self.plan_for(to, via).iter().any(|(allowed, _)| *allowed == transport) {
                    self.transmit(to, id, transport, &envelope);
                }
            }
        }
        let Some(flight) = self.flights.get(&(to, id)) else { return };
        if flight.next <= now.mono {
            // Its outcome is a frame that is sealed again: `handle_sealed` begins the attempt.
            let is_stored = flight.is_stored;
            let secrets = &mut self.secrets;
            let outcome = if is_stored { secrets.handle_repeat(to, id) } else { secrets.handle_resend(to, id) };
            match outcome {
                Ok(()) => {}
                // The core behind has too much to write at the moment.
                Err(SecretReject::Full) => {
                    self.flights.get_mut(&(to, id)).into_iter().for_each(|flight| flight.next = now.mono + FULL);
                    self.at(now.mono + FULL, Timer::Flight(to, id));
                }
                Err(_) => {
                    self.flights.remove(&(to, id));
                    self.fill_window(to, now);
                }
            }
            return;
        }
        let at = flight.starts.first().map_or(flight.next, |(at, _)| (*at).min(flight.next));
        // The next attempt may be later than its end; and the two clocks need not agree.
        let ends = flight.is_short.then(|| now.mono + flight.expires.since(now.unix).max(FULL));
        self.at(ends.map_or(at, |ends| ends.min(at)), Timer::Flight(to, id));
    }

    /// A mailbox has a frame.
    pub(super) fn note_stored(&mut self, to: DeviceId, id: FrameId, now: Now) {
        let Some(flight) = self.flights.get_mut(&(to, id)) else { return };
        flight.is_stored = true;
        if self.oldest_stored(to) != Some(id)
            && let Some(flight) = self.flights.get_mut(&(to, id))
        {
            flight.next = now.mono + STORED;
        }
    }

    /// Of the frames that a mailbox has for a device the one that was sealed first.
    fn oldest_stored(&self, to: DeviceId) -> Option<FrameId> {
        let is_stored = |id: &FrameId| self.flights.get(&(to, *id)).is_some_and(|flight| flight.is_stored);
        self.secrets.pending(&to).into_iter().find(is_stored)
    }

    /// A device is there: what mailboxes have of it is acknowledged soon, or goes again.
    fn expect_acknowledgements(&mut self, to: DeviceId, now: Now) {
        let (of, at) = ((to, FrameId([0; 16]))..=(to, FrameId([0xff; 16])), now.mono + AFTER_ACK);
        let mut ids = Vec::new();
        for ((_, id), flight) in self.flights.range_mut(of).filter(|(_, flight)| flight.is_stored && flight.next > at) {
            flight.next = at;
            ids.push(*id);
        }
        for id in ids {
            self.at(at, Timer::Flight(to, id));
        }
    }

    /// A transport failed: the next one of the attempt begins now.
    pub(super) fn hasten(&mut self, to: DeviceId, id: FrameId, now: Now) {
        if let Some(flight) = self.flights.get_mut(&(to, id)) {
            if let Some((at, _)) = flight.starts.first_mut() {
                *at = (*at).min(now.mono);
            }
            self.run_flight(to, id, now);
        }
    }

    /// Everything under way to a device is tried anew, at once.
    pub(super) fn restart_flights(&mut self, to: DeviceId, now: Now) {
        let of = (to, FrameId([0; 16]))..=(to, FrameId([0xff; 16]));
        let mut ids = Vec::new();
        for ((_, id), flight) in self.flights.range_mut(of) {
            flight.attempts = 0;
            flight.next = now.mono;
            ids.push(*id);
        }
        // In the order in which they were sealed.
        let order = self.secrets.pending(&to);
        ids.sort_by_key(|id| order.iter().position(|pending| pending == id));
        for id in ids {
            self.run_flight(to, id, now);
        }
    }

    /// A node is connected: what waits for its devices goes.
    pub(super) fn handle_reachable(&mut self, node: NodeId, now: Now) {
        let devices: Vec<_> =
            self.people.values().filter(|person| person.card.node == node).map(|person| person.card.device).collect();
        for device in devices {
            if self.terms(device).0 == Policy::Auto {
                self.restart_flights(device, now);
            }
        }
    }

    /// The policy of a contact is another one.
    pub(super) fn replan(&mut self, to: DeviceId, now: Now) {
        self.restart_flights(to, now);
    }

    pub(super) fn handle_acknowledged(&mut self, to: DeviceId, id: FrameId, now: Now) {
        if let Some(flight) = self.flights.remove(&(to, id)) {
            for message in flight.messages {
                self.advance(self.conversation_with(to), message, State::Delivered, None, None);
            }
            self.note_of_group(&flight.cargo, State::Delivered, None);
        }
        self.expect_acknowledgements(to, now);
        self.fill_window(to, now);
    }

    fn end_flight(&mut self, to: DeviceId, id: FrameId, reason: Reason, now: Now) {
        let _known = self.secrets.handle_give_up(to, id);
        if let Some(flight) = self.flights.remove(&(to, id)) {
            self.note_not_brought(to, &flight.cargo);
            self.fail_all(to, &flight.messages, reason);
        }
        // Another one is the oldest now.
        if let Some(oldest) = self.oldest_stored(to)
            && let Some(flight) = self.flights.get_mut(&(to, oldest))
        {
            flight.next = flight.next.min(now.mono + RETRY_STORED);
            let next = flight.next;
            self.at(next, Timer::Flight(to, oldest));
        }
        self.fill_window(to, now);
    }

    /// Everything for a device is given up.
    pub(super) fn give_up(&mut self, to: DeviceId, reason: Reason, now: Now) {
        self.give_up_waiting(to, reason);
        let of = (to, FrameId([0; 16]))..=(to, FrameId([0xff; 16]));
        let ids: Vec<_> = self.flights.range(of).map(|((_, id), _)| *id).collect();
        for id in ids {
            self.end_flight(to, id, reason, now);
        }
    }

    /// The envelope of an Olm message: under the key of the two, or, while the other one may not know this device, under that of its
    /// inbox.
    fn pack_direct(
        &mut self,
        to: DeviceId,
        olm: &[u8],
        is_data: bool,
        lifetime: Duration,
        now: Now,
    ) -> Option<Envelope> {
        let is_met = self.people.get(&to).is_some_and(|person| person.is_met);
        let nonce = self.random();
        let (tag_key, body) = if is_met {
            (direct_tag_key(&self.signing, to)?, olm.to_vec())
        } else {
            (inbox(&self.config.network, to).1, [&[mode::FIRST], &self.device.0[..], olm].concat())
        };
        let priority = if is_data { Priority::Message } else { Priority::Receipt };
        pack(&envelope_key(&tag_key), &tag_key, &body, priority, lifetime, nonce, now)
    }

    /// Takes what a frame carried.
    pub(super) fn take_frame(&mut self, from: DeviceId, kind: Kind, body: &[u8], now: Now) {
        if let Some(person) = self.people.get_mut(&from).filter(|person| !person.is_met) {
            person.is_met = true;
            self.save_person(from);
        }
        // It is there: what a mailbox has for it goes again, unless it is acknowledged soon.
        self.expect_acknowledgements(from, now);
        match parts(kind, body) {
            Ok(parts) => {
                for (kind, body) in parts {
                    if let Err(reject) = self.take_part(from, kind, body, now) {
                        self.count(reject);
                    }
                }
            }
            Err(reject) => self.count(reject),
        }
        self.give_key(from, now);
    }

    fn take_part(&mut self, from: DeviceId, kind: Kind, body: &[u8], now: Now) -> Result<(), super::Reject> {
        match (kind, body.split_first()) {
            (Kind::GroupKey, _) => self.take_share(from, body, now),
            (Kind::Data, Some((&FRAME_MESSAGE, message))) => self.take_direct(from, message, now),
            (Kind::Data, Some((&FRAME_CARD, card))) => self.take_told_card(from, card, now),
            (Kind::Data, Some((&FRAME_INVITE, invite))) => self.take_invite(from, invite, now),
            (Kind::Data, Some((&FRAME_OF_GROUP, message))) => self.take_of_group(from, message, now),
            (Kind::Data, Some((&FRAME_READ, seq))) => {
                if let Some(seq) = seq.first_chunk() {
                    self.take_read(from, u32::from_be_bytes(*seq));
                }
                Ok(())
            }
            (Kind::Data, Some((&FRAME_KEY, bundle))) => self.take_key(from, bundle, now),
            (Kind::Data, Some((&FRAME_LACK, range))) => self.take_lack(from, range, now),
            _ => Err(super::Reject::Malformed),
        }
    }

    fn take_direct(&mut self, from: DeviceId, bytes: &[u8], now: Now) -> Result<(), super::Reject> {
        let id = self.begin_direct_with(from, now).map_err(|_| super::Reject::Full)?;
        let message = Message::parse(bytes, &self.config.network)?;
        // Whoever gave a message up sends its place alone, for the order of what follows.
        let claimed = if message.is_bare() {
            message.claim_bare(&id, &mut self.keys)
        } else {
            message.claim(&id, &mut self.keys)
        };
        let message = claimed?.verify()?;
        if message.header().author != from {
            return Err(super::Reject::BadSignature);
        }
        // A talk that was left is heard again when the other one writes.
        if let Some(talk) = self.talks.get_mut(&id).filter(|talk| talk.record.is_left) {
            talk.record.is_left = false;
            self.save_record(id, false);
        }
        let via = self.sources.get(&from).map_or(Transport::Mix, |(_, via)| *via);
        let outcome = match self.take_message(id, &message, None, via, now) {
            Err(super::Reject::Known) if !message.is_bare() => self.fill_bare(id, &message, via, now),
            outcome => outcome,
        };
        self.end_gap(id);
        outcome
    }

    /// A card inside a frame: the device says it of itself; the node does not.
    fn take_told_card(&mut self, from: DeviceId, card: &[u8], now: Now) -> Result<(), super::Reject> {
        let card = super::Card::from_bytes(&self.config.network, card, now.unix)?;
        if card.device != from {
            return Err(super::Reject::BadSignature);
        }
        // Over the link of the node that it names, the node stands for it.
        let came = self.sources.get(&from).copied();
        let is_proved = came.is_some_and(|(node, via)| node == card.node && via < Transport::Mix);
        self.take_card(&card, is_proved, now)?;
        if let Some(person) = self.people.get_mut(&from).filter(|person| !person.is_met) {
            person.is_met = true;
            self.save_person(from);
        }
        Ok(())
    }

    /// A contact has a one-time key of this device, for its next session: an old one that is stolen later does not open that.
    fn give_key(&mut self, to: DeviceId, now: Now) {
        let lacks = |person: &Person| person.is_contact && !person.is_blocked && !person.has_key;
        // Only what leaves at once is sure to: what waits is in memory alone.
        if !self.leaves_at_once(to) || !self.people.get(&to).is_some_and(lacks) {
            return;
        }
        // Whoever finds none has the fallback key.
        let Ok(bundles) = self.secrets.one_time_bundles(1) else { return };
        if let Some(person) = self.people.get_mut(&to) {
            person.has_key = true;
        }
        self.save_person(to);
        for bundle in bundles {
            let body = [&[FRAME_KEY], &bundle[..]].concat();
            self.queue_frame(to, Kind::Data, &body, Via::Auto, now.unix.plus(LIFETIME), now);
        }
    }

    pub(super) fn take_key(&mut self, from: DeviceId, bundle: &[u8], now: Now) -> Result<(), super::Reject> {
        // Nobody hands out another one's keys.
        if Bundle::verify(bundle, &self.config.network, now.unix)?.device != from {
            return Err(super::Reject::BadSignature);
        }
        self.secrets.handle_bundle(bundle, now)?;
        Ok(())
    }

    pub(super) fn conversation_with(&self, peer: DeviceId) -> ConversationId {
        direct_id(&self.config.network, self.device, peer)
    }
}
