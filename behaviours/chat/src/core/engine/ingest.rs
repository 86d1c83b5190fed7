//! What comes: verified messages are ordered and stored, and what follows is told.

use fog_base::{NodeId, Now, UnixMillis};

use super::{Chat, ConversationKind, Event, talk::Talk};
use crate::core::{
    dag::{Output as Order, fork},
    delivery::Transport,
    id::{ConversationId, DeviceId, MessageId},
    message::{Kind, SignedHeader, Verified},
    reject::Reject,
    secrets::vault::RowKind,
};

/// Devices of which it is remembered how their last frame came.
pub(super) const MAX_SOURCES: usize = 1_024;

impl Chat {
    pub(super) fn take_olm(
        &mut self,
        from: DeviceId,
        olm: &[u8],
        node: NodeId,
        via: Transport,
        now: Now,
    ) -> Result<(), Reject> {
        if self.people.get(&from).is_some_and(|person| self.is_shut_out(person)) {
            return Err(Reject::Unknown);
        }
        self.secrets.handle_message(from, olm, now)?;
        if self.sources.len() >= MAX_SOURCES {
            self.sources.clear();
        }
        self.sources.insert(from, (node, via));
        Ok(())
    }

    /// Takes the body of a message that came bare before: a peer that did not know better gave its place alone.
    pub(super) fn fill_bare(
        &mut self,
        id: ConversationId,
        message: &Verified,
        via: Transport,
        now: Now,
    ) -> Result<(), Reject> {
        let talk = self.talks.get(&id).ok_or(Reject::Unknown)?;
        // Nobody gives a message a text after this device has answered to its place.
        let last = talk.dag.at(&self.device, talk.dag.latest_seq(&self.device));
        let is_answered = last.is_some_and(|last| talk.dag.precedes(&message.id(), &last) == Some(true));
        if !self.lacks_body(talk, &message.id()) || is_answered && !talk.is_shared() {
            return Err(Reject::Known);
        }
        let name = talk.record.vault_name();
        self.store(&name, &message.id(), Some(via), &message.encode(), now);
        if let Some(talk) = self.talks.get_mut(&id) {
            talk.bare.remove(&message.id());
        }
        self.show_new(id, message.id(), Some(message));
        Ok(())
    }

    pub(super) fn lacks_body(&self, talk: &Talk, id: &MessageId) -> bool {
        match talk.kind {
            ConversationKind::Group => self.load(talk, id).is_some_and(|stored| stored.message.is_bare()),
            _ => talk.bare.contains(id),
        }
    }

    /// Takes a verified message of another device, by whichever way it came.
    pub(super) fn take_message(
        &mut self,
        id: ConversationId,
        message: &Verified,
        from: Option<NodeId>,
        via: Transport,
        now: Now,
    ) -> Result<(), Reject> {
        let author = message.header().author;
        let talk = self.talks.get_mut(&id).ok_or(Reject::Unknown)?;
        if let Err(reject) = talk.dag.handle_message(message, from, now) {
            // A message that is refused may prove a fork all the same, and end what waited for it.
            self.drain_dag(id, None, now);
            return Err(reject);
        }
        let (name, is_shared) = (talk.record.vault_name(), talk.is_shared());
        if message.is_bare() && !is_shared {
            talk.bare.insert(message.id());
        }
        self.store(&name, &message.id(), Some(via), &message.encode(), now);
        if message.header().kind == Kind::MEMBERSHIP.0 {
            self.take_membership(id, message, now);
        }
        if author == self.device {
            // Another one has what this device wrote: a restored message is known already.
            self.end_publication(id, message.id());
        }
        self.drain_dag(id, Some(message), now);
        if is_shared {
            self.mark_all_dirty(id);
        }
        Ok(())
    }

    /// Tells what followed in the order of a conversation; `at_hand` need not be read from the store.
    pub(super) fn drain_dag(&mut self, id: ConversationId, at_hand: Option<&Verified>, now: Now) {
        while let Some(output) = self.talks.get_mut(&id).and_then(|talk| talk.dag.poll_output()) {
            match output {
                Order::Show { id: message, .. } => {
                    self.show_new(id, message, at_hand.filter(|verified| verified.id() == message));
                }
                Order::Fill(message) => {
                    self.see(id, &message);
                    self.tell(Event::Message(message));
                }
                Order::Refuse { id: message, reason, .. } => {
                    let name = self.talks.get(&id).map(|talk| talk.record.vault_name()).unwrap_or_default();
                    self.delete(RowKind::History, &name, &message.0);
                    // Whoever brought it could not know: it waited there as well.
                    self.count(reason);
                    if let Some(talk) = self.talks.get_mut(&id) {
                        talk.unread.remove(&message);
                    }
                    self.tell(Event::Retracted { conversation: id, message });
                }
                Order::Conflict { known, other } => self.prove_fork(id, &known, &other),
                Order::Forked { author, .. } => self.tell(Event::Forked { conversation: id, author }),
                Order::Fetch { ids, from } => self.fetch(id, &ids, from, now),
                Order::Reread => {}
            }
        }
    }

    fn show_new(&mut self, id: ConversationId, message: MessageId, at_hand: Option<&Verified>) {
        self.see(id, &message);
        let Some(talk) = self.talks.get(&id) else { return };
        let stored = if at_hand.is_none() { self.load(talk, &message) } else { None };
        let stored = stored.as_ref().map(|stored| &stored.message);
        let Some(shown) = at_hand.map(Verified::message).or(stored) else { return };
        let (author, sent_at) = (shown.header().author, shown.header().sent_at);
        let (kind, place) = (shown.header().kind, (shown.header().lamport, message));
        if kind == Kind::TOPIC.0
            && let Some(talk) = self.talks.get_mut(&id)
        {
            talk.topics.insert(place, author);
        }
        let Some(talk) = self.talks.get(&id) else { return };
        if shown.is_bare() || !self.is_for_people(kind, author) || !self.may_speak(talk, &message, author) {
            return;
        }
        let is_own = author == self.device;
        if let Some(talk) = self.talks.get_mut(&id).filter(|_| !is_own) {
            talk.unread.insert(message);
            talk.last_at = talk.last_at.max(Some(UnixMillis(sent_at)));
        }
        self.tell(Event::Message(message));
    }

    /// A complete message shows which own ones its author has.
    fn see(&mut self, id: ConversationId, message: &MessageId) {
        let own = self.device;
        let Some(talk) = self.talks.get_mut(&id).filter(|talk| talk.is_shared()) else { return };
        let seen = talk.dag.seen_seq(message, &own);
        if seen <= talk.delivered_to || talk.dag.at(&own, seen).as_ref() == Some(message) {
            return;
        }
        let delivered: Vec<_> = (talk.delivered_to + 1..=seen).filter_map(|seq| talk.dag.at(&own, seq)).collect();
        talk.delivered_to = seen;
        for own in delivered {
            self.end_publication(id, own);
            self.tell(Event::State(own));
        }
    }

    fn prove_fork(&mut self, id: ConversationId, known: &MessageId, other: &SignedHeader) {
        let Some(talk) = self.talks.get(&id) else { return };
        let Some(stored) = self.load(talk, known) else { return };
        let stored = stored.message.trusted();
        let proof = fork::prove(stored.signed_header(), other);
        self.take_proof(id, &proof, None);
    }

    /// Takes a fork proof, and stores it if it is news.
    pub(super) fn take_proof(&mut self, id: ConversationId, proof: &[u8], from: Option<NodeId>) {
        let Some(talk) = self.talks.get_mut(&id) else { return };
        match talk.dag.handle_proof(proof, &mut self.keys) {
            Ok(fork) => {
                let name = talk.record.vault_name();
                self.put(RowKind::Proof, &name, &fork.author.0, proof, true);
                self.mark_all_dirty(id);
            }
            Err(Reject::Known) => {}
            Err(reject) => self.refuse(from, reject),
        }
    }
}
