//! The order of one conversation: a hash DAG of messages, each with a clock that every receiver recomputes.
//!
//! The attack: a member that lies about what it has seen, or tells two halves of a group different things, so that others
//! wait for ever or see different histories. So the DAG is the truth and the clock follows from it; version vectors alone
//! break with Byzantine replicas (M. Kleppmann, H. Howard: Byzantine Eventual Consistency, arXiv 2012.00472), and an author
//! with two messages of one number is proved to have forked (cf. 2P-BFT-Log, arXiv 2307.08381).
//!
//! No bodies are kept here: whoever calls stores a message that was taken, and deletes what [`Output::Refuse`] names.

mod clock;
pub mod fork;
mod graph;
mod waiting;
mod why;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use fog_base::{BoundedQueue, NetworkId, NodeId, Now};

pub use self::{
    fork::Fork,
    graph::{MAX_AUTHORS, MAX_HIDDEN},
    waiting::{MAX_WAITING, MAX_WAITING_BYTES, MAX_WAITING_OF_AUTHOR, SHOWN_AFTER},
    why::{Standing, Why},
};
use self::{graph::Graph, waiting::Room};
use super::{
    id::{ConversationId, DeviceId, MessageId},
    message::{Draft, KeyCache, Kind, SignedHeader, Verified},
    reject::Reject,
};
use crate::wire::{Header, MAX_PARENTS};

/// The most outputs that wait to be polled.
const MAX_OUTPUTS: usize = 16_384;
/// The most ids that are remembered as refused.
const MAX_REFUSED: usize = 2_048;
/// The most authors that are known to have forked.
const MAX_FORKS: usize = MAX_AUTHORS;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Its clock is true.
    Complete,
    /// It waits for predecessors.
    Waiting,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask for messages: the peer that has them first, then any other member.
    Fetch {
        /// Which.
        ids: Vec<MessageId>,
        /// Who must have them; `None` is anybody.
        from: Option<NodeId>,
    },
    /// A message is shown now, at its place in the history.
    Show {
        /// Which.
        id: MessageId,
        /// Whether something before it is missing.
        has_gap: bool,
    },
    /// A message that was shown with a gap is complete; its place is the same.
    Fill(MessageId),
    /// A message that was taken turned out to be false: it is deleted. `from` could not know if it waited there as well.
    Refuse {
        /// Which.
        id: MessageId,
        /// Who sent it.
        from: Option<NodeId>,
        /// Why.
        reason: Reject,
    },
    /// An author has two messages of one number. The signed header of `known` must be loaded; [`fork::prove`] makes the
    /// proof of it and `other`, and [`Dag::handle_proof`] takes it.
    Conflict {
        /// The one that is stored.
        known: MessageId,
        /// The one that just came.
        other: Box<SignedHeader>,
    },
    /// An author's messages are disputed from this number on: the history is to be read again.
    Forked {
        /// Who.
        author: DeviceId,
        /// From which number.
        seq: u32,
    },
    /// More changed than could be told: the history is to be read again.
    Reread,
}

/// The order of one conversation.
#[derive(Debug)]
pub struct Dag {
    conversation: ConversationId,
    network: NetworkId,
    graph: Graph,
    room: Room,
    proofs: BTreeMap<DeviceId, (u32, Vec<u8>)>,
    refused: BTreeSet<MessageId>,
    refused_order: VecDeque<MessageId>,
    outputs: BoundedQueue<Output>,
    must_reread: bool,
    rejects: BTreeMap<Reject, u64>,
}

impl Dag {
    /// Without messages.
    pub fn new(conversation: ConversationId, network: NetworkId) -> Self {
        Self {
            conversation,
            network,
            graph: Graph::default(),
            room: Room::of_author(MAX_WAITING_OF_AUTHOR),
            proofs: BTreeMap::new(),
            refused: BTreeSet::new(),
            refused_order: VecDeque::new(),
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            must_reread: false,
            rejects: BTreeMap::new(),
        }
    }

    /// The same for two authors: of the one that is not this device there may wait as many messages as there is room for.
    pub fn of_two(conversation: ConversationId, network: NetworkId) -> Self {
        Self { room: Room::of_author(MAX_WAITING), ..Self::new(conversation, network) }
    }

    /// The same for members who are known, and whose messages come by the hundred after a while.
    pub fn of_members(conversation: ConversationId, network: NetworkId) -> Self {
        Self { room: Room::of_author(MAX_WAITING / 4), ..Self::new(conversation, network) }
    }

    /// What a new message of `author` says about order. The message goes through [`Dag::handle_message`] as any other.
    pub fn draft(&self, author: DeviceId) -> Result<Draft, Reject> {
        let mut header = Header {
            kind: 0,
            conversation: self.conversation,
            author,
            seq: 1,
            lamport: 1,
            sent_at: 0,
            previous: None,
            digest: [0; 32],
            body_hash: [0; 32],
            changed: 0,
            changes: Vec::new(),
            parents: Vec::new(),
        };
        self.graph.draft(&mut header, MAX_PARENTS)?;
        if self.graph.is_disputed(&author, header.seq) { Err(Reject::Frozen) } else { Ok(Draft { header }) }
    }

    /// Takes a message that `from` brought (`None` is this node itself).
    pub fn handle_message(&mut self, message: &Verified, from: Option<NodeId>, now: Now) -> Result<Taken, Reject> {
        let outcome = self.take(message, from, now.mono);
        if let Err(reject) = outcome {
            self.count(reject);
        }
        outcome
    }

    /// Takes a fork proof. `Known` if it says nothing new.
    pub fn handle_proof(&mut self, bytes: &[u8], keys: &mut KeyCache) -> Result<Fork, Reject> {
        let outcome = self.take_proof(bytes, keys);
        if let Err(reject) = outcome {
            self.count(reject);
        }
        outcome
    }

    /// Asks again, and shows what waited long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = self.room.handle_timeout(now);
        for id in due.show {
            self.show_with_gap(id);
        }
        self.fetch(due.ask, None);
    }

    /// When [`Dag::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.room.poll_timeout()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop().or_else(|| std::mem::take(&mut self.must_reread).then_some(Output::Reread))
    }

    /// What is shown, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = MessageId> + '_ {
        // Few messages are shown with a gap at any time: the two sets are merged by going through their union.
        self.graph.shown.union(&self.room.shown).map(|(_, id)| *id).collect::<Vec<_>>().into_iter()
    }

    /// Whether something that is shown has something missing right before it.
    pub fn gap_before(&self, id: &MessageId) -> bool {
        self.room.get(id).is_some_and(|waiting| waiting.is_shown) && !self.room.follows_only_shown(id)
    }

    /// Whether the message is complete.
    pub fn is_complete(&self, id: &MessageId) -> bool {
        self.graph.contains(id)
    }

    /// Whether it was taken, complete or waiting.
    pub fn contains(&self, id: &MessageId) -> bool {
        self.graph.contains(id) || self.room.get(id).is_some()
    }

    /// The clock of a complete message.
    pub fn clock(&self, id: &MessageId) -> Option<BTreeMap<DeviceId, u32>> {
        self.graph.index(id).map(|at| self.graph.named_clock(at))
    }

    /// Up to which number a complete message's author had seen the messages of `author`.
    pub fn seen_seq(&self, id: &MessageId, author: &DeviceId) -> u32 {
        self.graph.seen_seq(id, author)
    }

    /// The authors of complete messages.
    pub fn authors(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.graph.authors()
    }

    /// The latest number of an author's complete messages; 0 without any.
    pub fn latest_seq(&self, author: &DeviceId) -> u32 {
        self.graph.latest(author).map_or(0, |node| node.seq)
    }

    /// The first complete message with this author and number.
    pub fn at(&self, author: &DeviceId, seq: u32) -> Option<MessageId> {
        self.graph.at(author, seq)
    }

    /// Whether `earlier` is in the past of `later`; `None` unless both are complete.
    pub fn precedes(&self, earlier: &MessageId, later: &MessageId) -> Option<bool> {
        self.graph.precedes(earlier, later)
    }

    /// The other authors who have shown that they have seen a message.
    pub fn seen_by(&self, id: &MessageId) -> Vec<DeviceId> {
        self.graph.seen_by(id)
    }

    /// The complete messages of one kind in an order in which no predecessor comes late, disputed ones included: what group
    /// membership is computed from.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = MessageId> + '_ {
        self.graph.nodes().filter(move |node| node.kind == kind.0).map(|node| node.id)
    }

    /// The number of a complete message; 0 of others.
    pub fn seq_of(&self, id: &MessageId) -> u32 {
        self.graph.get(id).map_or(0, |node| node.seq)
    }

    /// Whether a message is complete and of a kind.
    pub fn is_of_kind(&self, id: &MessageId, kind: Kind) -> bool {
        self.graph.get(id).is_some_and(|node| node.kind == kind.0)
    }

    /// What is shown and complete, in the order of history: (lamport, id).
    pub fn settled(&self) -> &BTreeSet<(u64, MessageId)> {
        &self.graph.shown
    }

    /// The ids of the heads, ascending.
    pub fn heads(&self) -> BTreeSet<MessageId> {
        self.graph.heads.iter().map(|(_, id)| *id).collect()
    }

    /// Who forked, and from which number their messages are disputed.
    pub fn forks(&self) -> &BTreeMap<DeviceId, u32> {
        self.graph.disputes()
    }

    /// The proofs, to be stored and shown to others.
    pub fn proofs(&self) -> impl Iterator<Item = &[u8]> {
        self.proofs.values().map(|(_, proof)| proof.as_slice())
    }

    /// Ids that are wanted and not here.
    pub fn wanted(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.room.wanted()
    }

    /// The lowest number of an author's messages that wait.
    pub fn first_waiting(&self, author: &DeviceId) -> Option<u32> {
        self.room.first_of(author)
    }

    /// Whether a message is wanted and not here.
    pub fn is_wanted(&self, id: &MessageId) -> bool {
        self.room.is_wanted(id)
    }

    /// How many messages are complete, and how many wait.
    pub fn len(&self) -> (usize, usize) {
        (self.graph.len(), self.room.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// How many bytes wait.
    pub fn waiting_bytes(&self) -> usize {
        self.room.bytes()
    }

    /// What was refused, by reason.
    pub fn rejects(&self) -> &BTreeMap<Reject, u64> {
        &self.rejects
    }

    /// Why a message stands where it stands.
    pub fn why(&self, id: &MessageId) -> Option<Why> {
        why::explain(&self.graph, &self.room, id)
    }

    fn take(&mut self, message: &Verified, from: Option<NodeId>, now: Instant) -> Result<Taken, Reject> {
        let (id, header) = (message.id(), message.header());
        if header.conversation != self.conversation {
            return Err(Reject::WrongConversation);
        }
        if self.contains(&id) {
            return Err(Reject::Known);
        }
        if self.refused.contains(&id) || header.predecessors().any(|parent| self.refused.contains(&parent)) {
            self.refuse(id, Reject::RefusedAncestor);
            return Err(Reject::RefusedAncestor);
        }
        if header.predecessors().any(|parent| self.lamport(&parent).is_some_and(|of| of >= header.lamport)) {
            self.refuse(id, Reject::FalseClock);
            return Err(Reject::FalseClock);
        }
        self.detect_fork(message.signed_header());
        let is_aside = self.graph.is_disputed(&header.author, header.seq) && !self.room.is_wanted(&id);
        if is_aside && !self.graph.has_room_aside(&header.author) {
            return Err(Reject::Frozen);
        }
        let missing: BTreeSet<_> = header.predecessors().filter(|parent| !self.graph.contains(parent)).collect();
        if missing.is_empty() {
            return match self.admit(id, message.signed_header(), false) {
                Ok(()) => {
                    self.refuse_early(&id, header.lamport);
                    Ok(Taken::Complete)
                }
                Err(reject) => {
                    self.refuse(id, reject);
                    Err(reject)
                }
            };
        }
        let signed = message.signed_header().clone();
        let ask = self.room.add(signed, message.len_bytes(), from, missing, now)?;
        self.fetch(ask, from);
        self.refuse_early(&id, header.lamport);
        if self.room.follows_known_gaps(&id) {
            self.show_with_gap(id);
        }
        Ok(Taken::Waiting)
    }

    /// Admits a message, and then whatever waited for nothing else.
    fn admit(&mut self, id: MessageId, signed: &SignedHeader, was_shown: bool) -> Result<(), Reject> {
        self.admit_one(id, signed.header(), was_shown)?;
        let mut ready = VecDeque::from(self.room.complete(&id));
        while let Some(id) = ready.pop_front() {
            let Some(waiting) = self.room.remove(&id) else { continue };
            match self.admit_one(id, waiting.signed.header(), waiting.is_shown) {
                Ok(()) => ready.extend(self.room.complete(&id)),
                Err(reason) => {
                    self.count(reason);
                    self.push(Output::Refuse { id, from: waiting.from, reason });
                    self.refuse(id, reason);
                }
            }
        }
        Ok(())
    }

    fn admit_one(&mut self, id: MessageId, header: &Header, was_shown: bool) -> Result<(), Reject> {
        for shown in self.graph.admit(id, header)? {
            let output =
                if shown == id && was_shown { Output::Fill(id) } else { Output::Show { id: shown, has_gap: false } };
            self.push(output);
        }
        Ok(())
    }

    /// The lamport of a message that was taken; of one that waits, its author's claim.
    fn lamport(&self, id: &MessageId) -> Option<u64> {
        let waiting = || self.room.get(id).map(|waiting| waiting.signed.header().lamport);
        self.graph.get(id).map(|node| node.lamport).or_else(waiting)
    }

    /// Takes back what waits for a message and claims a place before it: whichever of the two is false, it is not shown there.
    fn refuse_early(&mut self, id: &MessageId, lamport: u64) {
        for child in self.room.children(id) {
            let is_early = self.room.get(&child).is_some_and(|waiting| waiting.signed.header().lamport <= lamport);
            if is_early && let Some(waiting) = self.room.remove(&child) {
                self.count(Reject::FalseClock);
                self.push(Output::Refuse { id: child, from: waiting.from, reason: Reject::FalseClock });
                self.refuse(child, Reject::FalseClock);
            }
        }
    }

    /// Takes back everything that builds on a message, and remembers that it is false, unless there was no room for it.
    fn refuse(&mut self, id: MessageId, reason: Reject) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            self.room.arrives(&id);
            if reason != Reject::Full && self.refused.insert(id) {
                self.refused_order.push_back(id);
            }
            while self.refused_order.len() > MAX_REFUSED {
                let Some(oldest) = self.refused_order.pop_front() else { break };
                self.refused.remove(&oldest);
            }
            for child in self.room.children(&id) {
                let Some(waiting) = self.room.remove(&child) else { continue };
                // The child's sender may have been told the same lie.
                let reason = if reason == Reject::Full { reason } else { Reject::RefusedAncestor };
                self.count(reason);
                self.push(Output::Refuse { id: child, from: waiting.from, reason });
                open.push(child);
            }
        }
    }

    fn detect_fork(&mut self, signed: &SignedHeader) {
        let Header { author, seq, .. } = *signed.header();
        let known = self.graph.at(&author, seq).or_else(|| self.room.at(&author, seq).map(|w| w.signed.id()));
        let Some(known) = known.filter(|known| *known != signed.id()) else { return };
        if self.dispute(author, seq) || !self.proofs.contains_key(&author) {
            self.push(Output::Conflict { known, other: Box::new(signed.clone()) });
        }
    }

    fn take_proof(&mut self, bytes: &[u8], keys: &mut KeyCache) -> Result<Fork, Reject> {
        let fork = fork::verify(bytes, &self.network, keys)?;
        if fork.conversation != self.conversation {
            return Err(Reject::WrongConversation);
        }
        if self.proofs.get(&fork.author).is_some_and(|(seq, _)| *seq <= fork.seq) {
            return Err(Reject::Known);
        }
        if self.proofs.len() >= MAX_FORKS && !self.proofs.contains_key(&fork.author) {
            return Err(Reject::Full);
        }
        self.proofs.insert(fork.author, (fork.seq, bytes.to_vec()));
        self.dispute(fork.author, fork.seq);
        Ok(fork)
    }

    fn dispute(&mut self, author: DeviceId, seq: u32) -> bool {
        if self.graph.disputes().len() >= MAX_FORKS && !self.graph.disputes().contains_key(&author) {
            return false;
        }
        let is_news = self.graph.dispute(author, seq);
        if is_news {
            let graph = &self.graph;
            self.room.hide(|author, seq| graph.is_disputed(author, seq));
            self.push(Output::Forked { author, seq });
        }
        is_news
    }

    /// Shows a waiting message, and those that wait for nothing else than it, or than what it lacks.
    fn show_with_gap(&mut self, id: MessageId) {
        let mut open = VecDeque::from([id]);
        while let Some(id) = open.pop_front() {
            let Some(waiting) = self.room.get(&id) else { continue };
            let Header { author, seq, .. } = *waiting.signed.header();
            if self.graph.is_disputed(&author, seq) {
                continue;
            }
            let Some(gaps) = self.room.show(&id) else { continue };
            self.push(Output::Show { id, has_gap: self.gap_before(&id) });
            // Each gap is looked at when it becomes known, and never again: it may have thousands of children.
            let next = gaps.iter().chain([&id]).flat_map(|parent| self.room.children(parent));
            open.extend(next.filter(|next| !self.room.is_shown(next) && self.room.follows_known_gaps(next)));
        }
    }

    fn fetch(&mut self, ids: Vec<MessageId>, from: Option<NodeId>) {
        if !ids.is_empty() {
            self.push(Output::Fetch { ids, from });
        }
    }

    fn push(&mut self, output: Output) {
        self.must_reread |= self.outputs.push(output).is_err();
    }

    fn count(&mut self, reject: Reject) {
        *self.rejects.entry(reject).or_default() += 1;
    }
}

#[cfg(test)]
#[path = "dag_tests.rs"]
mod tests;

#[cfg(test)]
mod fork_tests;
