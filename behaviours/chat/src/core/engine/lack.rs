//! What a direct conversation lacks of the other side: messages that were given up there, or rows that were lost here. Olm brings nothing of it any
//! more; so the other device is asked, and sends again what it has not given up, and of the others the places alone, for the order of what follows.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::{MessageId as FrameId, Now};

use super::{
    Chat, ConversationId, MessageId, Reject,
    direct::{FRAME_LACK, FRAME_MESSAGE, LIFETIME},
    talk::Delivery,
    window::{Cargo, MAX_WAITING},
};
use crate::core::{
    delivery::{State, Via},
    id::DeviceId,
    message::Verified,
    secrets::Kind,
};

/// What is under way comes in any order: a gap may close by itself for so long. The other side answers no more often.
const SOON: Duration = Duration::from_secs(30);
/// Between two questions about one gap: at first, and at last. There is one under way at a time.
const AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3_600));
/// Messages that one question brings.
const MAX_ANSWER: u32 = 512;
/// Places that go with a message, and messages that are looked at for one that stays.
const MAX_PLACES: usize = 64;

/// When a gap is asked about, and when the other side may ask again.
#[derive(Debug, Default)]
pub(super) struct Gap {
    ask_at: Option<Instant>,
    /// From which number, and how often.
    first: u32,
    asked: u32,
    question: Option<FrameId>,
    answer_at: Option<Instant>,
}

impl Chat {
    /// Asks the other device of a direct conversation for what is missing before what is here, if that stays away.
    pub(super) fn ask_other(&mut self, id: ConversationId, now: Now) {
        let Some((peer, first, last)) = self.missing(id) else { return };
        let Some(talk) = self.talks.get_mut(&id) else { return };
        if now.mono < *talk.gap.ask_at.get_or_insert(now.mono + SOON) {
            return;
        }
        // Answers that bring something are asked for the rest without delay.
        let asked = if talk.gap.first == first { talk.gap.asked } else { 0 };
        let question = talk.gap.question;
        let is_under_way = question.is_some_and(|question| self.secrets.pending(&peer).contains(&question));
        // Behind what waits it would come late, and take its place.
        if is_under_way || !self.leaves_at_once(peer) {
            return;
        }
        let body = [&[FRAME_LACK], &first.to_be_bytes()[..], &last.to_be_bytes()].concat();
        let question = self.queue_frame(peer, Kind::Data, &body, Via::Auto, now.unix.plus(LIFETIME), now);
        if let Some(talk) = self.talks.get_mut(&id) {
            let again = AGAIN.0.saturating_mul(1 << asked.min(6)).min(AGAIN.1);
            let answer_at = talk.gap.answer_at;
            let (ask_at, asked, question) = (Some(now.mono + again), asked + 1, Some(question));
            talk.gap = Gap { ask_at, first, asked, question, answer_at };
        }
    }

    /// The other device, and the numbers of its messages that are missing; `None` if nobody is to be asked.
    fn missing(&self, id: ConversationId) -> Option<(DeviceId, u32, u32)> {
        let talk = self.talks.get(&id).filter(|talk| talk.is_listed())?;
        let peer = talk.record.peer.filter(|peer| !self.terms(*peer).1)?;
        let first = talk.dag.latest_seq(&peer).checked_add(1)?;
        let last = match talk.dag.first_waiting(&peer) {
            Some(next) => next.checked_sub(1)?,
            // What waits is of this device, and names what is missing.
            None => first.saturating_add(MAX_ANSWER - 1),
        };
        (last >= first).then_some((peer, first, last))
    }

    /// A message of a direct conversation was taken: the next gap is another one if nothing waits.
    pub(super) fn end_gap(&mut self, id: ConversationId) {
        if let Some(talk) = self.talks.get_mut(&id).filter(|talk| talk.dag.len().1 == 0) {
            talk.gap = Gap { answer_at: talk.gap.answer_at, ..Gap::default() };
        }
    }

    /// The other device lacks own messages: `first (4) ‖ last (4)`, their numbers.
    pub(super) fn take_lack(&mut self, from: DeviceId, range: &[u8], now: Now) -> Result<(), Reject> {
        let (first, last) = range.split_first_chunk().ok_or(Reject::Malformed)?;
        let (first, last) = (u32::from_be_bytes(*first), last.try_into().map_err(|_| Reject::Malformed)?);
        let last = u32::from_be_bytes(last).min(first.saturating_add(MAX_ANSWER - 1));
        let id = self.conversation_with(from);
        let is_idle = self.waiting.get(&from).is_none_or(std::collections::VecDeque::is_empty);
        let talk = self.talks.get_mut(&id).ok_or(Reject::Unknown)?;
        if !is_idle || talk.gap.answer_at.is_some_and(|at| now.mono < at) {
            return Err(Reject::RateLimited);
        }
        talk.gap.answer_at = Some(now.mono + SOON);
        let messages: Vec<_> = (first..=last).map_while(|seq| talk.dag.at(&self.device, seq)).collect();
        let pending = self.secrets.pending(&from);
        let messages = messages.into_iter().filter_map(|message| self.once_more(id, message, &pending)).collect();
        self.queue_cargo(from, messages, now);
        Ok(())
    }

    /// Own messages were given up: if one that stays follows, the other side is given their places, so that it need not wait and ask.
    pub(super) fn give_places(&mut self, now: Now) {
        let mut places: BTreeMap<DeviceId, Vec<MessageId>> = BTreeMap::new();
        for (peer, message) in std::mem::take(&mut self.given_up) {
            let Some(talk) = self.talks.get(&self.conversation_with(peer)) else { continue };
            let stays = |later: &MessageId| {
                let delivery = talk.deliveries.get(later);
                delivery.is_none_or(|delivery| delivery.state() != State::Failed && !delivery.is_short())
            };
            let seq = talk.dag.seq_of(&message);
            let later = (seq.saturating_add(1)..).map_while(|seq| talk.dag.at(&self.device, seq));
            if later.take(MAX_PLACES).any(|later| stays(&later)) {
                places.entry(peer).or_default().push(message);
            }
        }
        for (peer, messages) in places {
            self.give(peer, messages, now);
        }
    }

    /// The same where `message`, which stays, is written after them.
    pub(super) fn give_places_before(&mut self, peer: DeviceId, message: &Verified, now: Now) {
        let Some(talk) = self.talks.get(&self.conversation_with(peer)) else { return };
        let before = (1..message.header().seq).rev().map_while(|seq| talk.dag.at(&self.device, seq));
        let before = before.map_while(|message| Some((message, talk.deliveries.get(&message)?)));
        let is_failed = |delivery: &&Delivery| delivery.state() == State::Failed;
        // What stays has its own before it.
        let between = before.take_while(|(_, delivery)| is_failed(delivery) || delivery.is_short()).take(MAX_PLACES);
        let failed = between.filter(|(_, delivery)| is_failed(delivery)).map(|(message, _)| message).collect();
        self.give(peer, failed, now);
    }

    fn give(&mut self, peer: DeviceId, mut messages: Vec<MessageId>, now: Now) {
        let (id, pending) = (self.conversation_with(peer), self.secrets.pending(&peer));
        let waiting = self.waiting.get(&peer);
        let Some(talk) = self.talks.get(&id).filter(|_| waiting.is_none_or(|queue| queue.len() < MAX_WAITING / 2))
        else {
            // There is no room for more: it will ask.
            return;
        };
        messages.retain(|message| !waiting.into_iter().flatten().any(|frame| frame.brings_again(message)));
        messages.sort_by_key(|message| talk.dag.seq_of(message));
        let places = messages.into_iter().filter_map(|message| self.once_more(id, message, &pending)).collect();
        self.queue_cargo(peer, places, now);
    }

    /// A message that the other side lacks, unless it is on its way: its place alone if it was given up.
    fn once_more(&self, id: ConversationId, message: MessageId, pending: &[FrameId]) -> Option<(Vec<u8>, Cargo, Via)> {
        let talk = self.talks.get(&id)?;
        // How it may go is not known without its row.
        let delivery = talk.deliveries.get(&message)?;
        let is_on_its_way = delivery.again.is_some_and(|again| pending.contains(&again));
        if delivery.state() < State::Failed || is_on_its_way {
            return None;
        }
        let stored = self.load(talk, &message)?.message.trusted();
        // What had a short life is not brought again after it.
        let is_given_up = delivery.state() == State::Failed || delivery.is_short();
        let bytes = if is_given_up { stored.signed_header().as_bytes().to_vec() } else { stored.encode() };
        Some(([&[FRAME_MESSAGE], &bytes[..]].concat(), Cargo::Again(message), delivery.asked()))
    }
}
