//! The transports of frames: links, the mixnet, carriers. A policy is looked at before each byte.

use std::time::Duration;

use fog_base::{MessageId as FrameId, NodeId, Now};

use super::{Chat, MixAddress, MixProgress, Output, State, Transport, links::Asked};
use crate::{
    core::{
        delivery::{Policy, Reach, Via, allowed, plan},
        envelope::Envelope,
        id::{DeviceId, EnvelopeId},
        reject::Reject,
    },
    wire::request::{MAX_CARRIED_AT_ONCE, Request},
};

/// Bytes of carried envelopes that a peer is handed at a time.
const MAX_HANDED: usize = 256 * 1024;
/// Carriers that get one frame, in one attempt.
const CARRIERS: usize = 3;

impl Chat {
    /// By what a device can be reached now, of what its policy and the message allow.
    pub(super) fn plan_for(&self, to: DeviceId, via: Via) -> Vec<(Transport, Duration)> {
        let (policy, is_blocked) = self.terms(to);
        let Some(person) = self.people.get(&to).filter(|_| !is_blocked) else { return Vec::new() };
        let Ok(allowed) = allowed(policy, via) else { return Vec::new() };
        let mut reach = Reach::default();
        if let Some(link) = self.links.get(&person.card.node) {
            reach = reach.with(if link.is_lan { Transport::Lan } else { Transport::Direct });
        } else if self.carriers(person.card.node).next().is_some() {
            reach = reach.with(Transport::Carrier);
        }
        if self.is_mix_ready {
            reach = reach.with(Transport::Mix);
        }
        plan(allowed, reach)
    }

    /// Connected nodes of contacts and of those who share a conversation.
    fn carriers(&self, not: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let is_contact = |node: &NodeId| {
            self.people.values().any(|person| person.is_contact && !person.is_blocked && person.card.node == *node)
        };
        let links = self
            .links
            .iter()
            .filter(move |(node, link)| **node != not && (!link.shares.is_empty() || is_contact(node)));
        links.map(|(node, _)| *node)
    }

    /// Whether a connection would help.
    pub(super) fn is_dial_wanted(&self, to: DeviceId, via: Via) -> bool {
        let (policy, is_blocked) = self.terms(to);
        let node = self.node_of(to);
        let is_open = allowed(policy, via).is_ok_and(|reach| reach.has(Transport::Direct) || reach.has(Transport::Lan));
        !is_blocked && is_open && policy == Policy::Auto && node.is_some_and(|node| !self.links.contains_key(&node))
    }

    pub(super) fn dial(&mut self, to: DeviceId) {
        if let Some(node) = self.node_of(to) {
            self.disk.push(Output::Dial(node));
        }
    }

    /// Gives an envelope to one transport, behind what it depends on.
    pub(super) fn transmit(&mut self, to: DeviceId, id: FrameId, transport: Transport, envelope: &Envelope) {
        let Some(card) = self.people.get(&to).map(|person| person.card.clone()) else { return };
        match transport {
            Transport::Lan | Transport::Direct => {
                let asked = Asked::Frame { to, id: Some(id), transport };
                self.ask_held(card.node, &Request::Envelope(envelope.encode()), asked);
            }
            Transport::Mix => {
                let handle = self.number();
                self.mixing.insert(handle, (to, id));
                while self.mixing.len() > super::disk::MAX_OUTPUTS {
                    self.mixing.pop_first();
                }
                let to = MixAddress::from(&card);
                self.disk.hold(Output::Mix { handle, to, bytes: envelope.encode() });
            }
            Transport::Carrier => {
                let carriers: Vec<_> = self.carriers(card.node).take(CARRIERS).collect();
                for carrier in carriers {
                    let request = Request::Carried(vec![envelope.encode()]);
                    self.ask_held(carrier, &request, Asked::Carry { to, id });
                }
            }
            Transport::Gossip | Transport::Mailbox => {}
        }
    }

    /// Sends by the first way that is open, and once. `None` without a way; else the handle, if it is in the mixnet.
    pub(super) fn send_once(&mut self, to: DeviceId, envelope: &Envelope) -> Option<Option<u64>> {
        let (transport, _) = self.plan_for(to, Via::Auto).first().copied()?;
        let card = self.people.get(&to).map(|person| person.card.clone())?;
        match transport {
            Transport::Lan | Transport::Direct => {
                let asked = Asked::Frame { to, id: None, transport };
                self.ask_held(card.node, &Request::Envelope(envelope.encode()), asked);
                Some(None)
            }
            Transport::Mix => {
                let handle = self.number();
                self.disk.hold(Output::Mix { handle, to: MixAddress::from(&card), bytes: envelope.encode() });
                Some(Some(handle))
            }
            _ => {
                let carriers: Vec<_> = self.carriers(card.node).take(CARRIERS).collect();
                for carrier in carriers {
                    self.ask_held(carrier, &Request::Carried(vec![envelope.encode()]), Asked::Push);
                }
                Some(None)
            }
        }
    }

    /// A link took an envelope, or did not.
    pub(super) fn handle_frame_answer(
        &mut self,
        to: DeviceId,
        id: Option<FrameId>,
        transport: Transport,
        is_taken: bool,
        now: Now,
    ) {
        let Some(id) = id else { return };
        if is_taken { self.progress(to, id, State::Sent, transport) } else { self.hasten(to, id, now) }
    }

    pub(super) fn handle_carried(&mut self, to: DeviceId, id: FrameId) {
        self.progress(to, id, State::Carried, Transport::Carrier);
    }

    fn progress(&mut self, to: DeviceId, id: FrameId, state: State, via: Transport) {
        let Some(flight) = self.flights.get(&(to, id)) else { return };
        let (messages, cargo) = (flight.messages.clone(), flight.cargo.clone());
        for message in messages {
            self.advance(self.conversation_with(to), message, state, Some(via), None);
        }
        if state == State::Carried {
            self.note_of_group(&cargo, state, Some(via));
        }
    }

    /// Whether the mixnet can be used at all.
    pub fn handle_mix_ready(&mut self, is_ready: bool, now: Now) {
        let was_ready = std::mem::replace(&mut self.is_mix_ready, is_ready);
        if is_ready && !was_ready {
            let mut waiting: Vec<_> = self.flights.keys().map(|(to, _)| *to).collect();
            waiting.dedup();
            for to in waiting {
                self.restart_flights(to, now);
            }
        }
        self.settle(now);
    }

    /// How far a payload is in the mixnet.
    pub fn handle_mix_progress(&mut self, handle: u64, progress: MixProgress, now: Now) {
        let Some((to, id)) = self.mixing.get(&handle).copied() else {
            self.handle_owed_progress(handle, progress, now);
            return self.settle(now);
        };
        match progress {
            MixProgress::Sent | MixProgress::Acknowledged => self.progress(to, id, State::Sent, Transport::Mix),
            MixProgress::Stored => {
                self.note_stored(to, id, now);
                self.progress(to, id, State::Carried, Transport::Mailbox);
            }
            MixProgress::Failed => self.hasten(to, id, now),
        }
        if matches!(progress, MixProgress::Acknowledged | MixProgress::Failed) {
            self.mixing.remove(&handle);
        }
        self.settle(now);
    }

    /// Takes a payload that came through the mixnet: an envelope for this device.
    pub fn handle_mix(&mut self, bytes: &[u8], now: Now) {
        let outcome = Envelope::parse(bytes, now.unix)
            .and_then(|envelope| self.take_private(&envelope, self.config.node, Transport::Mix, now));
        if let Err(reject) = outcome {
            self.count(reject);
        }
        self.settle(now);
    }

    /// Takes an envelope that was addressed to this node.
    pub(super) fn take_private(
        &mut self,
        envelope: &Envelope,
        from: NodeId,
        via: Transport,
        now: Now,
    ) -> Result<(), Reject> {
        self.book.find(envelope, now.unix).ok_or(Reject::Unknown)?;
        // No look at `seen`: a copy is known to the ratchet, and is acknowledged again.
        self.take_envelope(envelope, from, via, now)
    }

    /// Takes envelopes that a peer carries: for this device, or to be carried on. How many were taken.
    pub(super) fn take_carried(&mut self, from: NodeId, envelopes: &[Vec<u8>], now: Now) -> Result<u16, Reject> {
        let mut taken = 0;
        for bytes in envelopes {
            let envelope = Envelope::parse(bytes, now.unix)?;
            let outcome = match self.book.find(&envelope, now.unix) {
                Some(_) => self.take_private(&envelope, from, Transport::Carrier, now),
                None => self.carry(&envelope, from, now),
            };
            match outcome {
                Ok(()) | Err(Reject::Known) => taken += 1,
                Err(reject) => {
                    self.count(reject);
                    break;
                }
            }
        }
        Ok(taken)
    }

    fn carry(&mut self, envelope: &Envelope, from: NodeId, now: Now) -> Result<(), Reject> {
        self.carrier.handle_envelope(envelope, from, now.unix)?;
        // Whom it is for may be connected; the others carry it on.
        let nodes: Vec<_> = self.carriers(from).take(CARRIERS).collect();
        if let Ok(next) = envelope.forwarded() {
            for node in nodes {
                self.ask(node, &Request::Carried(vec![next.encode()]), Asked::Carried(vec![envelope.id()]));
            }
        }
        Ok(())
    }

    /// Hands what is carried to a peer.
    pub(super) fn hand_over(&mut self, node: NodeId, now: Now) {
        let offered = self.carrier.offer(node, MAX_HANDED, now.unix);
        for portion in offered.chunks(MAX_CARRIED_AT_ONCE) {
            let ids: Vec<EnvelopeId> = portion.iter().map(Envelope::id).collect();
            // Until it says no: the same envelope is not offered to it twice at a time.
            let request = Request::Carried(portion.iter().map(Envelope::encode).collect());
            self.ask(node, &request, Asked::Carried(ids));
        }
    }
}
