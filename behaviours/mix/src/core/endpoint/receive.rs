//! What arrives: bodies and replies, from the relay part of this node or from its mailbox.

use ed25519_dalek::{Signature, VerifyingKey};
use fog_base::{DropReason, MessageId, NodeId, Now, time::CLOCK_TOLERANCE};
use fog_sphinx::{BODY_LEN, PAYLOAD_LEN, Surb, TAG_LEN};
use rand::RngExt;

use super::{Audience, Completing, Delivery, Endpoint, MAX_WAITING, MESSAGE_LIFETIME, Output, SentState, signed_bytes};
use crate::{
    core::{
        mailbox::{Slot, Stored},
        reassembly::Outcome,
        seal,
        surbs::Purpose,
    },
    wire::{Content, Envelope, Form, Fragment, ReplyBody},
};

/// Reply blocks kept for one message: one to acknowledge with, and spare ones.
const SPARE_SURBS: usize = 3;

impl Endpoint {
    /// A body whose last hop was this node.
    pub fn handle_body(&mut self, body: &[u8; BODY_LEN], now: Now) {
        let mut sealed = *body;
        self.handle_sealed(&mut sealed, Form::Deliver, None, now);
        self.run_clock(now);
    }

    /// Packets that one of this node's mailboxes has kept for it.
    pub fn handle_pushed(&mut self, relay: NodeId, slot: &Slot, packets: Vec<Stored>, now: Now) {
        // Only the mailboxes that this node chose may push, and only what is for its slot.
        if !self.claims.uses(&relay) || *slot != self.slot() {
            return self.drops.add(DropReason::NoRoute, packets.len() as u64);
        }
        let mut done = Vec::new();
        for mut packet in packets {
            let id = packet.id;
            let finished = match packet.surb {
                Some(surb) => {
                    self.take_reply(&surb, &packet.data, now);
                    true
                }
                None => self.handle_sealed(&mut packet.data, Form::Slot, Some((relay, id)), now),
            };
            if finished {
                done.push(id);
            }
        }
        self.tell_done(relay, done);
        self.run_clock(now);
    }

    /// The payload of a packet that answers one of this node's reply blocks.
    pub fn handle_reply(&mut self, surb: &[u8; 16], payload: &[u8; PAYLOAD_LEN], now: Now) {
        self.take_reply(surb, payload, now);
        self.run_clock(now);
    }

    /// The application has stored a message, or could not: then the sender is asked for it again later.
    pub fn accepted(&mut self, message: MessageId, stored: bool, now: Now) {
        let Some(completing) = self.completing.remove(&message) else { return };
        // If it was not stored, the sender learns by a new incarnation that all of it is needed again.
        if stored {
            self.remember(message, completing.created);
            self.queue_ack(message);
            self.done_with(&message);
        } else {
            self.acks.remove(&message);
            self.origins.remove(&message);
            self.drops.count(DropReason::QueueFull);
        }
        self.run_clock(now);
    }

    /// True if the packet is no longer needed where it came from.
    fn handle_sealed(&mut self, sealed: &mut [u8], form: Form, origin: Option<(NodeId, u64)>, now: Now) -> bool {
        let opened = seal::open(sealed, &self.secrets.seal, &self.config.network);
        let Ok(content) = opened.map_err(|_| DropReason::BadPayload) else {
            self.drops.count(DropReason::BadPayload);
            return true;
        };
        // The content borrows the buffer, and handling it borrows all of the endpoint.
        match Content::read(content, form) {
            Ok(Content::Drop) => {}
            Ok(Content::Loop { id }) => {
                if !self.loops.returned(&id, now.mono) {
                    self.drops.count(DropReason::Expired);
                }
                self.tell_loops();
            }
            Ok(Content::Ping { surb }) => match Surb::parse(surb.as_slice()) {
                Ok(_) if !self.used_surbs.take(surb) => self.drops.count(DropReason::Replayed),
                Ok(surb) => {
                    if self.pongs.push(surb).is_err() {
                        self.drops.count(DropReason::QueueFull);
                    }
                }
                Err(_) => self.drops.count(DropReason::Malformed),
            },
            Ok(Content::Fragment(fragment)) => return self.handle_fragment(&fragment, form, origin, now),
            Err(_) => self.drops.count(DropReason::Malformed),
        }
        true
    }

    fn handle_fragment(
        &mut self,
        fragment: &Fragment<'_>,
        form: Form,
        origin: Option<(NodeId, u64)>,
        now: Now,
    ) -> bool {
        let message = fragment.message;
        let (secs, tolerance) = (now.unix.as_secs(), CLOCK_TOLERANCE.as_secs());
        if fragment.created > secs + 2 * tolerance || fragment.created + MESSAGE_LIFETIME.as_secs() < secs {
            self.drops.count(DropReason::Expired);
            return true;
        }
        self.keep_surb(fragment);
        if self.seen.contains_key(&message) {
            self.queue_ack(message);
            return true;
        }
        if let Some(origin) = origin {
            self.origins.entry(message).or_default().insert(origin);
        }
        if self.completing.contains_key(&message) {
            return false;
        }
        let fresh = self.rng.random();
        let outcome = self.reassembly.insert(fragment, form, fresh, now.mono);
        self.forget_evicted();
        match outcome {
            Outcome::Incomplete => self.queue_ack(message),
            Outcome::Contradiction => {
                self.drops.count(DropReason::Malformed);
                return true;
            }
            Outcome::Complete { bytes, incarnation } => {
                self.complete(message, Completing { created: fragment.created, incarnation }, &bytes);
            }
        }
        false
    }

    /// Hands a whole message to the application, if its envelope is right.
    fn complete(&mut self, message: MessageId, completing: Completing, bytes: &[u8]) {
        let created = completing.created;
        let (from, audience, body) = match Envelope::read(bytes) {
            Ok(Envelope::Anonymous { body }) => (None, Audience::Person, body),
            Ok(Envelope::Chat { body }) => (None, Audience::Chat, body),
            Ok(Envelope::Asking { application, blocks, body }) => {
                (None, Audience::Application(application, blocks), body)
            }
            Ok(Envelope::Signed { sender, signature, body }) => {
                let signed = signed_bytes(&self.config.network, &message, &self.seal_public, created, body);
                let signature = Signature::from_bytes(signature);
                let verified =
                    VerifyingKey::from_bytes(&sender.0).and_then(|key| key.verify_strict(&signed, &signature));
                if verified.is_err() {
                    return self.refuse(&message, DropReason::BadMac);
                }
                (Some(sender), Audience::Person, body)
            }
            Err(_) => return self.refuse(&message, DropReason::Malformed),
        };
        self.completing.insert(message, completing);
        self.outputs.push_back(Output::Deliver(Delivery { message, from, audience, body: body.to_vec(), created }));
    }

    fn refuse(&mut self, message: &MessageId, why: DropReason) {
        self.drops.count(why);
        self.acks.remove(message);
        self.done_with(message);
    }

    pub(super) fn done_with(&mut self, message: &MessageId) {
        for (relay, id) in self.origins.remove(message).unwrap_or_default() {
            self.tell_done(relay, vec![id]);
        }
    }

    fn tell_done(&mut self, relay: NodeId, ids: Vec<u64>) {
        if ids.is_empty() {
            return;
        }
        // Successive packets of one relay share a message.
        if let Some(Output::Done { relay: last, ids: more, .. }) = self.outputs.back_mut()
            && *last == relay
        {
            more.extend(ids);
            return;
        }
        let slot = self.slot();
        self.outputs.push_back(Output::Done { relay, slot, ids });
    }

    fn keep_surb(&mut self, fragment: &Fragment<'_>) {
        let Ok(surb) = Surb::parse(fragment.surb.as_slice()) else {
            self.drops.count(DropReason::Malformed);
            return;
        };
        if !self.used_surbs.take(fragment.surb) {
            return;
        }
        if self.acks.len() >= MAX_WAITING && !self.acks.contains_key(&fragment.message) {
            // Whoever waits for a tick keeps its place; spare blocks give way.
            let spare = self.acks.iter().find(|(_, state)| !state.queued).map(|(id, _)| *id);
            let Some(spare) = spare else { return self.drops.count(DropReason::QueueFull) };
            self.acks.remove(&spare);
        }
        let state = self.acks.entry(fragment.message).or_default();
        state.count = fragment.count;
        state.surbs.push_back(surb);
        while state.surbs.len() > SPARE_SURBS {
            state.surbs.pop_front();
        }
    }

    fn queue_ack(&mut self, message: MessageId) {
        if let Some(state) = self.acks.get_mut(&message)
            && !state.queued
        {
            state.queued = true;
            self.ack_order.push_back(message);
        }
    }

    fn take_reply(&mut self, surb: &[u8; 16], payload: &[u8], now: Now) {
        // Replies to blocks that expired, or that were made only to look like the others, end here.
        let Some(block) = self.surbs.take(surb) else { return self.drops.count(DropReason::Expired) };
        let Ok(mut payload) = <[u8; PAYLOAD_LEN]>::try_from(payload) else {
            return self.drops.count(DropReason::Malformed);
        };
        if block.keys.open(&mut payload).is_err() {
            return self.drops.count(DropReason::BadPayload);
        }
        let Some(body) = payload.get(TAG_LEN..).and_then(|body| body.first_chunk::<BODY_LEN>()) else { return };
        let elapsed = now.mono.saturating_duration_since(block.sent);
        match (ReplyBody::read(body), block.purpose) {
            (Ok(ReplyBody::Pong), Purpose::Pong(ping)) => {
                if self.ping_deadlines.remove(&ping).is_some() {
                    self.outputs.push_back(Output::Pong { ping, rtt: Some(elapsed) });
                }
            }
            (Ok(ReplyBody::Stored), Purpose::Stored(message, index)) => {
                if let Some(outgoing) = self.messages.get_mut(&message) {
                    self.suspects.answered(outgoing.path(index), now.mono);
                    outgoing.stored(index, now.mono);
                    self.report_standing(message);
                }
            }
            (Ok(ReplyBody::Ack { message, incarnation, accepted, fragments, .. }), Purpose::Ack(sent, index))
                if message == sent =>
            {
                self.late.sample(elapsed.saturating_sub(block.predicted));
                if let Some(outgoing) = self.messages.get_mut(&message) {
                    self.suspects.answered(outgoing.path(index), now.mono);
                    outgoing.acknowledged_by(incarnation, accepted, &fragments, now.mono);
                    self.report_standing(message);
                }
            }
            (Ok(ReplyBody::Answer(data)), Purpose::Answer(application, message)) => {
                self.outputs.push_back(Output::Answer { application, message, data });
            }
            _ => self.drops.count(DropReason::Malformed),
        }
    }
}

impl SentState {
    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed)
    }
}
