//! What comes: envelopes are opened, messages verified, ordered and stored, and what follows is told.

use fog_base::{NodeId, Now, UnixMillis};

use super::{Chat, ConversationKind, Event, MAX_PARKED, links::Asked, pack::mode};
use crate::core::{
    dag::{Output as Order, fork},
    delivery::Transport,
    envelope::Envelope,
    id::{ConversationId, DeviceId, MessageId},
    message::{Kind, Message, SignedHeader, Verified},
    reject::Reject,
    secrets::vault::RowKind,
};
use crate::wire::request::{MAX_FETCH, Request};

/// Devices of which it is remembered how their last frame came.
pub(super) const MAX_SOURCES: usize = 1_024;

impl Chat {
    /// Takes an envelope whose tag is one of ours.
    pub(super) fn take_envelope(
        &mut self,
        envelope: &Envelope,
        from: NodeId,
        via: Transport,
        now: Now,
    ) -> Result<(), Reject> {
        let id = self.book.find(envelope, now.unix).ok_or(Reject::Unknown)?;
        let body = self.open_envelope(id, envelope)?;
        let (&first, rest) = body.split_first().ok_or(Reject::Malformed)?;
        let Some(talk) = self.talks.get(&id) else {
            let (sender, olm) = rest.split_first_chunk::<32>().ok_or(Reject::Sealed)?;
            return if first == mode::FIRST {
                self.take_olm(DeviceId(*sender), olm, from, via, now)
            } else {
                Err(Reject::Sealed)
            };
        };
        match (talk.kind, first) {
            (ConversationKind::Open, mode::OPEN) | (ConversationKind::Password, mode::PASSWORD) => {
                self.take_live(id, rest, None, from, via, now)
            }
            (ConversationKind::Group, mode::MEMBERSHIP) => {
                let message = Message::parse(rest, &self.config.network)?;
                let is_membership = message.header().kind == Kind::MEMBERSHIP.0;
                if is_membership { self.take_live(id, rest, None, from, via, now) } else { Err(Reject::Sealed) }
            }
            (ConversationKind::Group, mode::GROUP) => self.take_group(id, envelope, &body, from, now),
            (ConversationKind::Direct, mode::DIRECT) => {
                let peer = talk.record.peer.ok_or(Reject::Unknown)?;
                self.take_olm(peer, &body, from, via, now)
            }
            // Another way of sealing than the conversation's: nobody can downgrade it.
            _ => Err(Reject::Sealed),
        }
    }

    fn take_olm(&mut self, from: DeviceId, olm: &[u8], node: NodeId, via: Transport, now: Now) -> Result<(), Reject> {
        if self.people.get(&from).is_some_and(|person| person.is_blocked) {
            return Err(Reject::Unknown);
        }
        self.secrets.handle_message(from, olm, now)?;
        if self.sources.len() >= MAX_SOURCES {
            self.sources.clear();
        }
        self.sources.insert(from, (node, via));
        Ok(())
    }

    fn take_group(
        &mut self,
        id: ConversationId,
        envelope: &Envelope,
        body: &[u8],
        from: NodeId,
        now: Now,
    ) -> Result<(), Reject> {
        match self.open_group(id, body) {
            Ok((author, bytes)) => self.take_live(id, &bytes, Some(author), from, Transport::Gossip, now),
            Err(crate::core::secrets::Reject::NoKey) => {
                // The key comes by another way; what finds no room comes by reconciliation.
                if self.parked.len() >= MAX_PARKED {
                    self.parked.pop_front();
                    self.count(Reject::Full);
                }
                self.parked.push_back((id, from, envelope.clone()));
                Ok(())
            }
            Err(reject) => Err(reject.into()),
        }
    }

    /// Takes again what waited for keys of a group.
    pub(super) fn unpark(&mut self, id: ConversationId, now: Now) {
        let (ready, rest) = std::mem::take(&mut self.parked).into_iter().partition(|(of, ..)| *of == id);
        self.parked = rest;
        for (_, from, envelope) in Vec::from(ready) {
            if let Err(reject) = self.take_envelope(&envelope, from, Transport::Gossip, now) {
                self.count(reject);
            }
        }
    }

    fn take_live(
        &mut self,
        id: ConversationId,
        bytes: &[u8],
        author: Option<DeviceId>,
        from: NodeId,
        via: Transport,
        now: Now,
    ) -> Result<(), Reject> {
        let message = Message::parse(bytes, &self.config.network)?;
        let claimed = message.header().author;
        if author.is_some_and(|author| author != claimed) {
            return Err(Reject::BadSignature);
        }
        if self.talks.get(&id).is_some_and(|talk| talk.dag.contains(&message.id())) {
            return self.fill_bare(id, message, via, now);
        }
        // The rate is spent by who signed, not by whoever writes a name.
        let message = message.verify(&id, &mut self.keys)?;
        self.limits.authors.take(claimed, now.mono)?;
        self.take_message(id, &message, Some(from), via, now)
    }

    /// Takes the body of a message that came bare before: a peer that did not know better gave its place alone.
    fn fill_bare(&mut self, id: ConversationId, message: Message, via: Transport, now: Now) -> Result<(), Reject> {
        let talk = self.talks.get(&id).ok_or(Reject::Unknown)?;
        let may_be_bare = talk.kind == ConversationKind::Group && !message.is_bare();
        let is_bare = || self.load(talk, &message.id()).is_some_and(|stored| stored.message.is_bare());
        if !may_be_bare || !is_bare() {
            return Err(Reject::Known);
        }
        let name = talk.record.vault_name();
        let message = message.verify(&id, &mut self.keys)?;
        self.store(&name, &message.id(), Some(via), &message.encode(), now);
        self.show_new(id, message.id());
        Ok(())
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
            self.drain_dag(id, now);
            return Err(reject);
        }
        let (name, is_shared) = (talk.record.vault_name(), talk.is_shared());
        self.store(&name, &message.id(), Some(via), &message.encode(), now);
        if message.header().kind == Kind::MEMBERSHIP.0 {
            self.take_membership(id, message, now);
        }
        if author == self.device {
            // Another one has what this device wrote: a restored message is known already.
            self.end_publication(id, message.id());
        }
        self.drain_dag(id, now);
        if is_shared {
            self.mark_all_dirty(id);
        }
        Ok(())
    }

    /// Tells what followed in the order of a conversation.
    pub(super) fn drain_dag(&mut self, id: ConversationId, now: Now) {
        while let Some(output) = self.talks.get_mut(&id).and_then(|talk| talk.dag.poll_output()) {
            match output {
                Order::Show { id: message, .. } => self.show_new(id, message),
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

    fn show_new(&mut self, id: ConversationId, message: MessageId) {
        self.see(id, &message);
        let Some(talk) = self.talks.get(&id) else { return };
        let Some(stored) = self.load(talk, &message) else { return };
        let header = stored.message.header();
        let (author, sent_at) = (header.author, header.sent_at);
        if stored.message.is_bare()
            || !self.is_for_people(header.kind, author)
            || !self.may_speak(talk, &message, author)
        {
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

    /// Asks a peer that shares the conversation for messages.
    fn fetch(&mut self, id: ConversationId, ids: &[MessageId], from: Option<NodeId>, now: Now) {
        let shares = |node: &NodeId| self.links.get(node).is_some_and(|link| link.shares.contains(&id));
        let node = from.filter(shares).or_else(|| {
            let all: Vec<_> = self.links.keys().copied().filter(shares).collect();
            let at = (self.numbers as usize).checked_rem(all.len())?;
            all.get(at).copied()
        });
        let Some(node) = node else {
            self.meet_all(now);
            return;
        };
        let salt = self.random();
        let Some(talk) = self.talks.get(&id) else { return };
        let token = talk.tag_key.token(&salt, self.config.node, node);
        let ids = ids.iter().copied().take(MAX_FETCH).collect();
        self.ask(node, &Request::Fetch { salt, token, ids }, Asked::Fetch { conversation: id, token });
    }
}
