//! Envelopes of rooms and groups that are given to gossip; `live.rs` takes them from it.

use std::time::Duration;

use fog_base::Now;

use super::{
    Chat, ConversationKind, Event, Output, State, Timer,
    pack::{Inside, mode},
    talk::Delivery,
};
use crate::core::{
    delivery::{Reason, Transport},
    envelope::{Envelope, LIFETIME, Priority},
    id::{ConversationId, MessageId},
    message::Kind,
    reject::Reject,
    secrets,
    tag::TagKey,
};

/// The first repetition of what gossip did not take; then doubled, up to the last.
const REPEAT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

impl Chat {
    /// Gossip took an envelope (at least one peer), or did not.
    pub fn handle_published(&mut self, handle: u64, ok: bool, now: Now) {
        let Some((conversation, id)) = self.publishing.remove(&handle) else { return };
        if ok {
            self.end_publication(conversation, id);
        } else {
            self.wait_for_links(conversation, id);
        }
        self.settle(now);
    }

    fn wait_for_links(&mut self, conversation: ConversationId, id: MessageId) {
        let talk = self.talks.get_mut(&conversation);
        let delivery = talk.and_then(|talk| talk.deliveries.get_mut(&id));
        if delivery.is_some_and(|delivery| delivery.wait_for(Reason::NoRoute)) {
            self.tell(Event::State(id));
        }
    }

    /// A message is with others: it needs no gossip any more. That mailboxes have it is remembered until a member shows it.
    pub(super) fn end_publication(&mut self, conversation: ConversationId, id: MessageId) {
        let Some(talk) = self.talks.get_mut(&conversation) else { return };
        talk.unpublished.remove(&id);
        let is_shown = talk.dag.seq_of(&id) <= talk.delivered_to;
        let is_over = |delivery: &Delivery| is_shown || delivery.state() < State::Carried;
        if talk.deliveries.get(&id).is_some_and(is_over) {
            talk.deliveries.remove(&id);
            self.save_delivery(conversation, &id, false);
            self.tell(Event::State(id));
        }
    }

    /// Gives an own message to gossip, and again later unless it is taken.
    pub(super) fn publish(&mut self, conversation: ConversationId, id: MessageId, now: Now) {
        let Some(talk) = self.talks.get_mut(&conversation) else { return };
        let (bucket, is_group) = (talk.tag_key.bucket(), talk.kind == ConversationKind::Group);
        let Some(unpublished) = talk.unpublished.get_mut(&id).filter(|unpublished| unpublished.next <= now.mono) else {
            return;
        };
        unpublished.next = now.mono + REPEAT.0.saturating_mul(1 << unpublished.attempts.min(7)).min(REPEAT.1);
        unpublished.attempts = unpublished.attempts.saturating_add(1);
        let next = unpublished.next;
        self.at(next, Timer::Publish(conversation, id));
        // Nobody hears, and each sealing costs a step of the group's session, and each session a key to every member; or somebody has joined since it
        // was written, who would hear it: reconciliation tells members apart.
        if is_group && (self.links.is_empty() || self.is_before_a_join(conversation, &id)) {
            return self.wait_for_links(conversation, id);
        }
        let Some(envelope) = self.pack_shared(conversation, &id, now) else { return };
        self.seen.insert(&envelope, now.unix);
        let handle = self.number();
        self.publishing.insert(handle, (conversation, id));
        while self.publishing.len() > super::disk::MAX_OUTPUTS {
            self.publishing.pop_first();
        }
        self.disk.hold(Output::Publish { handle, bucket, bytes: envelope.encode() });
    }

    /// Everything that gossip has not taken is given to it again now.
    pub(super) fn publish_all(&mut self, now: Now) {
        let mut all = Vec::new();
        for talk in self.talks.values_mut() {
            for (id, unpublished) in &mut talk.unpublished {
                unpublished.attempts = 0;
                unpublished.next = now.mono;
                all.push((talk.record.id, *id));
            }
        }
        for (conversation, id) in all {
            self.publish(conversation, id, now);
        }
    }

    /// The envelope of an own message to members.
    fn pack_shared(&mut self, conversation: ConversationId, id: &MessageId, now: Now) -> Option<Envelope> {
        let talk = self.talks.get(&conversation)?;
        let message = self.load(talk, id)?.message;
        let (kind, bytes) = (message.header().kind, message.trusted().encode());
        let body = match talk.kind {
            ConversationKind::Open => [&[mode::OPEN], &bytes[..]].concat(),
            ConversationKind::Password => [&[mode::PASSWORD], &bytes[..]].concat(),
            ConversationKind::Group if kind == Kind::MEMBERSHIP.0 => [&[mode::MEMBERSHIP], &bytes[..]].concat(),
            ConversationKind::Group => self.seal_for_group(conversation, &bytes, now)?,
            ConversationKind::Direct => return None,
        };
        let priority = if kind == Kind::MEMBERSHIP.0 { Priority::Membership } else { Priority::Message };
        let nonce = self.random();
        let talk = self.talks.get(&conversation)?;
        pack(&talk.seal, &talk.tag_key, &body, priority, LIFETIME, nonce, now)
    }

    /// Opens the outer layer of an envelope of a conversation of ours.
    pub(super) fn open_envelope(&self, id: ConversationId, envelope: &Envelope) -> Result<Vec<u8>, Reject> {
        let key = match self.talks.get(&id) {
            Some(talk) if talk.is_listed() => talk.seal.clone(),
            Some(_) => return Err(Reject::Unknown),
            None if id == self.inbox => {
                super::pack::envelope_key(&super::pack::inbox(&self.config.network, self.device).1)
            }
            None => return Err(Reject::Unknown),
        };
        let opened = envelope.open(&mut Inside { key: &key, nonce: [0; 24] })?;
        Ok(opened.plaintext)
    }

    /// The state of an own message advances.
    pub(super) fn advance(
        &mut self,
        conversation: ConversationId,
        id: MessageId,
        state: State,
        via: Option<Transport>,
        reason: Option<Reason>,
    ) {
        let Some(talk) = self.talks.get_mut(&conversation) else { return };
        let Some(delivery) = talk.deliveries.get_mut(&id) else { return };
        if delivery.advance(state, via, reason) {
            self.save_delivery(conversation, &id, false);
            self.tell(Event::State(id));
        }
    }
}

/// Seals a body into an envelope.
pub(super) fn pack(
    key: &secrets::SecretKey,
    tag_key: &TagKey,
    body: &[u8],
    priority: Priority,
    lifetime: Duration,
    nonce: [u8; 24],
    now: Now,
) -> Option<Envelope> {
    let mut inside = Inside { key, nonce };
    Envelope::pack(body, &mut inside, tag_key, priority, lifetime, now.unix).ok().map(|packed| packed.envelope)
}
