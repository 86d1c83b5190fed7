//! Reconciliation with connected peers: hellos, ranges, lists, pushes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fog_base::{NodeId, Now};

use super::{
    Chat, ConversationKind, Timer, Transport,
    links::{Asked, Link},
    talk::Talk,
};
use crate::{
    core::{
        id::{ConversationId, MessageId},
        message::{Claimed, Message},
        reconcile::{self, Hello, Lists, MAX_ANSWER_BYTES, Messages, Session},
        reject::Reject,
        tag::Tag,
    },
    wire::{
        MAX_HELLO, MAX_PROOFS, RangesAnswer,
        request::{MAX_FETCH, Request},
    },
};

/// How long after a hello the next one may follow if something changed.
pub(super) const AGAIN: Duration = Duration::from_secs(30);
/// How long after one a hello may follow at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// For how long others wait while messages of a conversation are exchanged with one peer.
const TURN: Duration = Duration::from_secs(5);

impl Chat {
    /// Whether a conversation may be reconciled with a node: rooms with whoever knows their key; groups with the nodes of members, for one
    /// who was removed still knows the key.
    fn may_meet(&self, talk: &Talk, node: NodeId) -> bool {
        match (&talk.club, talk.kind) {
            _ if !talk.is_listed() => false,
            (_, ConversationKind::Direct) => false,
            (Some(club), _) => {
                let at_node = |device: &&crate::core::id::DeviceId| self.node_of(**device) == Some(node);
                club.group.members().contains_key(&self.device)
                    && club.group.members().keys().any(|device| at_node(&device))
            }
            (None, _) => true,
        }
    }

    /// Asks a connected peer what it has.
    pub(super) fn meet(&mut self, node: NodeId, now: Now) {
        let salt = self.random();
        let own = self.config.node;
        let [a, b]: [u8; 2] = self.random();
        let mut talks: Vec<_> = self.talks.values().filter(|talk| self.may_meet(talk, node)).collect();
        // One hello has a bound: each begins somewhere else.
        let from = usize::from(u16::from_be_bytes([a, b])).checked_rem(talks.len()).unwrap_or_default();
        if talks.len() > MAX_HELLO {
            talks.rotate_left(from);
            talks.truncate(MAX_HELLO);
        }
        let hello = reconcile::hello(salt, own, node, talks.iter().map(|talk| (&talk.tag_key, &talk.dag)));
        let tokens = hello.entries.iter().zip(&talks).map(|(entry, talk)| (entry.token, talk.record.id)).collect();
        if let Some(link) = self.links.get_mut(&node) {
            link.is_dirty = false;
            link.asked_at = Some(now.mono);
            link.again = AGAIN;
            link.has_brought = false;
        }
        self.at(now.mono + AGAIN, Timer::Meet(node));
        if !hello.entries.is_empty() {
            self.ask(node, &Request::Hello(hello), Asked::Hello { salt, tokens });
        }
    }

    /// An exchange brings both sides what they lack: the node with the lower id asks at once, the other one only if it is not asked.
    pub(super) fn meet_new(&mut self, node: NodeId, now: Now) {
        if self.config.node < node {
            self.meet(node, now);
        } else {
            self.at(now.mono + AT_ONCE, Timer::Meet(node));
        }
    }

    /// Asks again if something changed.
    pub(super) fn meet_again(&mut self, node: NodeId, now: Now) {
        let Some(link) = self.links.get(&node) else { return };
        let asked = link.asked_at.map(|at| at + link.again);
        let due = asked.max(link.heard_at.map(|at| at + link.again / 2)).unwrap_or(now.mono);
        if due > now.mono {
            self.at(due, Timer::Meet(node));
        } else if link.is_dirty {
            self.meet(node, now);
        } else {
            self.at(now.mono + AGAIN, Timer::Meet(node));
        }
    }

    /// Asks all peers soon: a conversation is new, or something is missing that nobody here has shown to have.
    pub(super) fn meet_all(&mut self, now: Now) {
        let is_ready = |link: &Link| link.asked_at.is_none_or(|at| now.mono.saturating_duration_since(at) >= AT_ONCE);
        let ready: Vec<_> = self.links.iter().filter(|(_, link)| is_ready(link)).map(|(node, _)| *node).collect();
        for link in self.links.values_mut() {
            link.is_dirty = true;
        }
        for node in ready {
            self.meet(node, now);
        }
    }

    pub(super) fn mark_all_dirty(&mut self, id: ConversationId) {
        for link in self.links.values_mut().filter(|link| link.shares.contains(&id) || link.shares.is_empty()) {
            link.is_dirty = true;
        }
    }

    /// Peers that share a conversation are asked sooner than usual.
    pub(super) fn meet_sooner(&mut self, id: ConversationId, now: Now) {
        let shares = |link: &Link| link.shares.contains(&id) || link.shares.is_empty();
        let nodes: Vec<_> = self.links.iter().filter(|(_, link)| shares(link)).map(|(node, _)| *node).collect();
        nodes.into_iter().for_each(|node| self.hasten_link(node, now));
    }

    fn hasten_link(&mut self, node: NodeId, now: Now) {
        let Some(link) = self.links.get_mut(&node).filter(|link| link.again > AT_ONCE) else { return };
        link.again = AT_ONCE;
        self.at(now.mono + AT_ONCE, Timer::Meet(node));
    }

    /// A peer that brought something and answers no more is asked again soon: it may have a rate.
    pub(super) fn hasten_if_worthwhile(&mut self, node: NodeId, now: Now) {
        if self.links.get(&node).is_some_and(|link| link.has_brought) {
            self.hasten_link(node, now);
        }
    }

    /// Whether messages of a conversation are being exchanged with another peer: two would bring the same ones. A peer that is slow keeps
    /// nobody else waiting for long.
    fn must_wait(&self, id: ConversationId, from: NodeId, now: Now) -> bool {
        let exchange = self.talks.get(&id).and_then(|talk| talk.exchange);
        exchange.is_some_and(|(peer, begun)| peer != from && self.links.contains_key(&peer) && now.mono < begun + TURN)
    }

    /// An exchange with a peer is over: the next one's turn.
    pub(super) fn end_exchange(&mut self, id: ConversationId, from: NodeId, now: Now) {
        let Some(talk) = self.talks.get_mut(&id) else { return };
        if talk.exchange.is_some_and(|(peer, _)| peer != from) {
            return;
        }
        talk.exchange = None;
        let next = std::iter::from_fn(|| talk.deferred.pop_first()).find(|node| self.links.contains_key(node));
        if let Some(node) = next {
            self.meet(node, now);
        }
    }

    /// The conversation that a peer names by a token.
    fn named(&self, from: NodeId, salt: &[u8; 32], token: &Tag) -> Option<&Talk> {
        let own = self.config.node;
        self.talks.values().find(|talk| talk.tag_key.token(salt, from, own) == *token && self.may_meet(talk, from))
    }

    pub(super) fn answer_hello(&mut self, from: NodeId, hello: &Hello, now: Now) -> Result<RangesAnswer, Reject> {
        self.limits.hellos.take(from, now.mono)?;
        let own = self.config.node;
        let tokens: BTreeMap<Tag, &Talk> = self
            .talks
            .values()
            .filter(|talk| self.may_meet(talk, from))
            .map(|talk| (talk.tag_key.token(&hello.salt, from, own), talk))
            .collect();
        let mut answer = RangesAnswer::default();
        let (mut shares, mut in_sync) = (BTreeSet::new(), Vec::new());
        for entry in &hello.entries {
            let Some(talk) = tokens.get(&entry.token) else { continue };
            shares.insert(talk.record.id);
            if reconcile::summary(&talk.dag, &entry.token) != entry.summary {
                answer.0.push((entry.token, reconcile::ranges(&talk.dag, &hello.salt)));
            } else if talk.club.is_some() {
                in_sync.push(talk.record.id);
            }
        }
        for id in in_sync {
            self.note_in_sync(id, from);
        }
        let has_shares = !shares.is_empty();
        if let Some(link) = self.links.get_mut(&from) {
            link.shares = shares;
            link.heard_at = Some(now.mono);
        }
        if has_shares {
            self.ask_card(from);
        }
        Ok(answer)
    }

    pub(super) fn answer_lists(&mut self, from: NodeId, lists: &Lists, now: Now) -> Result<Messages, Reject> {
        self.limits.lists.take(from, now.mono)?;
        let talk = self.named(from, &lists.salt, &lists.token).ok_or(Reject::Unknown)?;
        let mut answer = reconcile::answer(&talk.dag, lists, |id| self.load_for(talk, id, from));
        if answer.wanted.len() > MAX_FETCH {
            // Who lacks much asks for it itself: so it comes in order, and as much as answers hold.
            answer.wanted.clear();
            let is_ready = |link: &Link| link.asked_at.is_none_or(|at| now.mono >= at + AT_ONCE);
            if self.links.get(&from).is_some_and(is_ready) {
                self.meet(from, now);
            }
        }
        Ok(answer)
    }

    pub(super) fn answer_fetch(
        &mut self,
        from: NodeId,
        salt: &[u8; 32],
        token: Tag,
        ids: &[MessageId],
        now: Now,
    ) -> Result<Messages, Reject> {
        self.limits.fetches.take(from, now.mono)?;
        let talk = self.named(from, salt, &token).ok_or(Reject::Unknown)?;
        let (mut messages, mut bytes) = (Vec::new(), 0);
        for message in ids.iter().filter_map(|id| self.load_for(talk, id, from)) {
            bytes += message.len() + 2;
            if bytes > MAX_ANSWER_BYTES {
                break;
            }
            messages.push(message);
        }
        Ok(Messages { token, complete_to: 0, messages, wanted: Vec::new() })
    }

    /// Takes what this node said in an answer that it lacks.
    pub(super) fn take_push(
        &mut self,
        from: NodeId,
        salt: &[u8; 32],
        messages: &Messages,
        now: Now,
    ) -> Result<u16, Reject> {
        self.limits.lists.take(from, now.mono)?;
        let id = self.named(from, salt, &messages.token).ok_or(Reject::Unknown)?.record.id;
        let taken = self.take_brought(from, id, &messages.messages, true, now)?;
        Ok(u16::try_from(taken).unwrap_or(u16::MAX))
    }

    pub(super) fn take_ranges(
        &mut self,
        from: NodeId,
        salt: [u8; 32],
        tokens: &BTreeMap<Tag, ConversationId>,
        answer: &RangesAnswer,
        now: Now,
    ) -> Result<(), Reject> {
        for (token, ranges) in &answer.0 {
            let id = *tokens.get(token).ok_or(Reject::Unasked)?;
            if let Some(link) = self.links.get_mut(&from) {
                link.shares.insert(id);
            }
            for proof in &ranges.proofs {
                self.take_proof(id, proof, Some(from));
            }
            if ranges.proofs.len() >= MAX_PROOFS
                && let Some(link) = self.links.get_mut(&from)
            {
                // There may be more.
                link.is_dirty = true;
            }
            self.drain_dag(id, None, now);
            let must_wait = self.must_wait(id, from, now);
            let Some(talk) = self.talks.get_mut(&id) else { continue };
            if must_wait {
                talk.deferred.insert(from);
                self.links.get_mut(&from).into_iter().for_each(|link| link.is_dirty = true);
                continue;
            }
            let (session, lists) = Session::start(salt, *token, &talk.dag, ranges);
            if let Some(lists) = lists {
                talk.exchange = Some((from, now.mono));
                self.ask(from, &Request::Lists(lists), Asked::Lists { conversation: id, salt, session });
            }
        }
        Ok(())
    }

    pub(super) fn take_lists(
        &mut self,
        from: NodeId,
        id: ConversationId,
        salt: [u8; 32],
        mut session: Session,
        answer: &Messages,
        now: Now,
    ) -> Result<(), Reject> {
        let taken = self.take_brought(from, id, &answer.messages, true, now)?;
        if let Some(link) = self.links.get_mut(&from) {
            link.has_brought |= taken > 0;
        }
        let Some(talk) = self.talks.get(&id) else { return Ok(()) };
        let step = session.handle_messages(answer, taken, &talk.dag)?;
        match step.ask {
            Some(lists) => self.ask(from, &Request::Lists(lists), Asked::Lists { conversation: id, salt, session }),
            None => self.end_exchange(id, from, now),
        }
        self.push_messages(from, id, &step.push);
        Ok(())
    }

    /// Sends what the other side said that it lacks, in portions, predecessors first.
    fn push_messages(&mut self, to: NodeId, id: ConversationId, ids: &[MessageId]) {
        let mut portion = Vec::new();
        let mut bytes = 0;
        for message in ids.iter().take(16 * MAX_FETCH) {
            let Some(loaded) = self.talks.get(&id).and_then(|talk| self.load_for(talk, message, to)) else { continue };
            if bytes + loaded.len() > MAX_ANSWER_BYTES {
                self.push_portion(to, id, std::mem::take(&mut portion));
                bytes = 0;
            }
            bytes += loaded.len() + 2;
            portion.push(loaded);
        }
        if !portion.is_empty() {
            self.push_portion(to, id, portion);
        }
    }

    fn push_portion(&mut self, to: NodeId, id: ConversationId, messages: Vec<Vec<u8>>) {
        let salt = self.random();
        let Some(talk) = self.talks.get(&id) else { return };
        let token = talk.tag_key.token(&salt, self.config.node, to);
        let messages = Messages { token, complete_to: 0, messages, wanted: Vec::new() };
        self.ask(to, &Request::Push { salt, messages }, Asked::Push);
    }

    /// Takes messages that a peer brought; how many were new. An error is what nobody honest brings: of what is not `settled` at the
    /// peer, because it may wait there for predecessors, it cannot know the clock.
    pub(super) fn take_brought(
        &mut self,
        from: NodeId,
        id: ConversationId,
        messages: &[Vec<u8>],
        settled: bool,
        now: Now,
    ) -> Result<usize, Reject> {
        let is_lan = self.links.get(&from).is_some_and(|link| link.is_lan);
        let via = if is_lan { Transport::Lan } else { Transport::Direct };
        let (mut claimed, mut bad) = (Vec::new(), None);
        for bytes in messages {
            match self.claim_brought(id, bytes) {
                Ok(message) => claimed.extend(message),
                Err(reject) => {
                    bad = Some(reject);
                    break;
                }
            }
        }
        let mut taken = 0;
        for message in Claimed::verify_all(claimed, &mut self.rng) {
            let message = message?;
            if message.is_bare() && !self.may_be_bare(id, message.message())? {
                continue;
            }
            match self.take_message(id, &message, Some(from), via, now) {
                Ok(()) => taken += 1,
                Err(reject) if reject.is_misbehaviour() && (settled || !reject.is_of_order()) => return Err(reject),
                Err(reject) => self.count(reject),
            }
        }
        bad.map_or(Ok(taken), Err)
    }

    /// A message that a peer brought, but for its signature; `None` if it is here.
    fn claim_brought(&mut self, id: ConversationId, bytes: &[u8]) -> Result<Option<Claimed>, Reject> {
        let message = Message::parse(bytes, &self.config.network)?;
        if self.talks.get(&id).is_some_and(|talk| talk.dag.contains(&message.id())) {
            return Ok(None);
        }
        let is_bare = message.is_bare();
        let claimed =
            if is_bare { message.claim_bare(&id, &mut self.keys) } else { message.claim(&id, &mut self.keys) };
        claimed.map(Some)
    }
}
