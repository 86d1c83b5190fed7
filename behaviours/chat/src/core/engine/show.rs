//! What a person sees: histories, states, reasons, what is read.

use std::collections::BTreeMap;

use fog_base::{Now, UnixMillis};

use super::{
    Chat, ConversationKind, Refusal, Shown, Why,
    direct::{FRAME_READ, LIFETIME},
    open::Stored,
    rooms::{MAX_TOPIC, unknown},
    talk::Talk,
    text::{clean_line, clean_text},
};
use crate::core::{
    dag::Standing,
    delivery::{Reason, State, Transport, Via},
    id::{ConversationId, DeviceId, MessageId},
    message::Kind,
    secrets,
};

/// Topics that are passed over: too long, or of those who were no members.
const MAX_PASSED: usize = 64;

impl Chat {
    /// What is shown of a conversation, oldest first, in causal order; the last `limit` of it.
    pub fn history(&self, id: ConversationId, limit: Option<usize>) -> Result<Vec<Shown>, Refusal> {
        let talk = self.talks.get(&id).ok_or_else(|| unknown(id))?;
        let latest = talk.dag.history().rev().filter_map(|message| self.show(talk, &message));
        let mut shown: Vec<_> = latest.take(limit.unwrap_or(usize::MAX)).collect();
        shown.reverse();
        Ok(shown)
    }

    /// One message; `None` if it is not shown.
    pub fn shown(&self, id: &MessageId) -> Option<Shown> {
        self.talk_of(id).and_then(|talk| self.show(talk, id))
    }

    /// Why a message stands where it stands, and how far it is.
    pub fn why(&self, id: &MessageId) -> Option<Why> {
        let talk = self.talk_of(id)?;
        let order = talk.dag.why(id)?;
        let via = self.load(talk, id).and_then(|stored| stored.via);
        let (state, via, reason) = self.state_of(talk, id, order.author, order.seq, via);
        Some(Why { id: *id, conversation: talk.record.id, order, state, via, reason })
    }

    /// Everything in a conversation was seen. A contact of a direct one is told so.
    pub fn mark_read(&mut self, id: ConversationId, now: Now) {
        let Some(talk) = self.talks.get_mut(&id) else { return };
        let last = talk.dag.settled().last().copied().unwrap_or((0, MessageId([0; 32])));
        if talk.unread.is_empty() && talk.record.read_to >= last {
            return;
        }
        talk.unread.clear();
        talk.record.read_to = talk.record.read_to.max(last);
        let peer = talk.record.peer;
        let seq = peer.map_or(0, |peer| talk.dag.latest_seq(&peer));
        let is_news = seq > talk.record.told_read;
        if let Some(peer) = peer.filter(|_| is_news)
            && self.people.get(&peer).is_some_and(|person| person.is_contact && !person.is_blocked)
        {
            if let Some(talk) = self.talks.get_mut(&id) {
                talk.record.told_read = seq;
            }
            let body = [&[FRAME_READ], &seq.to_be_bytes()[..]].concat();
            self.queue_frame(peer, secrets::Kind::Data, &body, Via::Auto, now.unix.plus(LIFETIME), now);
        }
        self.save_record(id, false);
        self.settle(now);
    }

    /// What a room or group is about: what was said of it last in the order of history, by somebody who is heard here.
    pub(super) fn topic(&self, talk: &Talk) -> Option<String> {
        let heard = talk.topics.iter().rev().filter(|(_, author)| self.is_for_people(Kind::TOPIC.0, **author));
        let settled = heard.map(|(place, _)| place).filter(|place| talk.dag.settled().contains(place));
        let last = settled.take(MAX_PASSED).find_map(|(_, id)| self.show(talk, id))?;
        String::from_utf8(last.body).ok().filter(|topic| !topic.is_empty())
    }

    pub(super) fn talk_of(&self, id: &MessageId) -> Option<&Talk> {
        self.talks.values().find(|talk| talk.dag.contains(id))
    }

    /// Whether a person sees a message of this kind and author.
    pub(super) fn is_for_people(&self, kind: u8, author: DeviceId) -> bool {
        let is_blocked = self.people.get(&author).is_some_and(|person| self.is_shut_out(person));
        [Kind::TEXT.0, Kind::FILE.0, Kind::TOPIC.0].contains(&kind) && !is_blocked
    }

    fn show(&self, talk: &Talk, id: &MessageId) -> Option<Shown> {
        let Stored { via, message } = self.load(talk, id)?;
        if message.is_bare() {
            return None;
        }
        let header = message.header().clone();
        if !self.is_for_people(header.kind, header.author) || !self.may_speak(talk, id, header.author) {
            return None;
        }
        let clock: BTreeMap<DeviceId, u32> = talk.dag.clock(id).unwrap_or_default();
        let (state, via, reason) = self.state_of(talk, id, header.author, header.seq, via);
        let body = message.trusted().body().to_vec();
        if header.kind == Kind::TOPIC.0 && (!talk.is_shared() || body.len() > MAX_TOPIC) {
            return None;
        }
        let body = match Kind(header.kind) {
            Kind::TEXT => clean_text(&body).into_bytes(),
            Kind::TOPIC => clean_line(&body).into_bytes(),
            _ => body,
        };
        let is_after_lost = header.previous.is_some_and(|previous| talk.bare.contains(&previous));
        let standing = talk.dag.why(id).map(|why| why.standing);
        let warning = match standing {
            Some(Standing::Disputed | Standing::Aside) => Some("its author sent conflicting histories".to_owned()),
            _ => None,
        };
        Some(Shown {
            conversation: talk.record.id,
            id: *id,
            author: header.author,
            name: self.name_of(header.author),
            seq: header.seq,
            clock,
            parents: header.predecessors().collect(),
            kind: Kind(header.kind),
            body,
            state,
            via,
            reason,
            sent_at: UnixMillis(header.sent_at),
            gap_before: is_after_lost || talk.dag.gap_before(id),
            warning,
        })
    }

    fn state_of(
        &self,
        talk: &Talk,
        id: &MessageId,
        author: DeviceId,
        seq: u32,
        via: Option<Transport>,
    ) -> (State, Option<Transport>, Option<Reason>) {
        if author != self.device {
            return (State::Delivered, via, None);
        }
        if let Some(delivery) = talk.deliveries.get(id).filter(|_| talk.kind == ConversationKind::Direct) {
            let state = delivery.state();
            let is_read = state == State::Delivered && seq <= talk.record.peer_read;
            return (if is_read { State::Read } else { state }, delivery.via(), delivery.reason());
        }
        if seq <= talk.delivered_to {
            return (State::Delivered, Some(Transport::Gossip), None);
        }
        match talk.deliveries.get(id) {
            Some(delivery) => (delivery.state(), delivery.via(), delivery.reason()),
            None => (State::Sent, Some(Transport::Gossip), None),
        }
    }
}
