//! The complete messages: predecessors known, clocks recomputed. What of them is shown, and what their heads are.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::{Clock, Digest, EntryHasher, Slot};
use crate::{
    core::{
        id::{DeviceId, MessageId},
        reject::Reject,
    },
    wire::{Change, Header, MAX_LISTED},
};

/// The most authors of a conversation.
pub const MAX_AUTHORS: usize = 1_024;
/// The most disputed messages of one author that are kept though nobody else names them.
pub const MAX_HIDDEN: u32 = 64;
/// After so many messages that differ from one another a clock is kept whole.
const CHECKPOINT: u32 = 32;
/// Of so many latest messages too: new ones build on them.
const RECENT: usize = 64;

/// The number of a complete message, in the order of completion: no predecessor has a higher one.
pub(super) type Index = u32;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: MessageId,
    pub(super) slot: Slot,
    pub(super) seq: u32,
    pub(super) lamport: u64,
    pub(super) kind: u8,
    /// The author's previous message first, if there is one.
    pub(super) predecessors: Vec<Index>,
    digest: Digest,
    /// The predecessor with the largest lamport: its clock differs least.
    base: Option<Index>,
    /// How the clock differs from the base's.
    changes: Vec<(Slot, u32)>,
    /// How many bases are between this and a clock that is always kept whole.
    depth: u32,
    clock: Option<Clock>,
    pub(super) is_shown: bool,
}

#[derive(Debug)]
struct Author {
    id: DeviceId,
    latest: Option<Index>,
    hidden: u32,
}

/// What a clock must be after some predecessors.
struct Computed {
    previous: Option<Index>,
    base: Option<Index>,
    lamport: u64,
    clock: Clock,
    digest: Digest,
    since_base: Vec<(Slot, u32)>,
    /// Since the author's previous message.
    changed: usize,
    /// The first of them in the order of the authors' keys.
    listed: Vec<Change>,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    authors: Vec<Author>,
    slots: BTreeMap<DeviceId, Slot>,
    nodes: Vec<Node>,
    by_id: BTreeMap<MessageId, Index>,
    by_seq: BTreeMap<(Slot, u32), Index>,
    hasher: EntryHasher,
    /// Shown, in the order of history.
    pub(super) shown: BTreeSet<(u64, MessageId)>,
    pub(super) heads: BTreeSet<(u64, MessageId)>,
    /// From which seq on an author's messages are disputed.
    disputed: BTreeMap<DeviceId, u32>,
}

impl Graph {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn contains(&self, id: &MessageId) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn get(&self, id: &MessageId) -> Option<&Node> {
        self.node(*self.by_id.get(id)?)
    }

    pub(super) fn index(&self, id: &MessageId) -> Option<Index> {
        self.by_id.get(id).copied()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    pub(super) fn node(&self, index: Index) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    pub(super) fn author(&self, slot: Slot) -> Option<DeviceId> {
        self.authors.get(slot as usize).map(|author| author.id)
    }

    pub(super) fn authors(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.authors.iter().map(|author| author.id)
    }

    pub(super) fn seen_seq(&self, id: &MessageId, author: &DeviceId) -> u32 {
        let slot = self.slots.get(author).copied();
        self.index(id).zip(slot).map_or(0, |(at, slot)| self.clock(at).get(slot))
    }

    pub(super) fn latest(&self, author: &DeviceId) -> Option<&Node> {
        let slot = *self.slots.get(author)?;
        self.node(self.authors.get(slot as usize)?.latest?)
    }

    /// The first message that was taken with this author and seq.
    pub(super) fn at(&self, author: &DeviceId, seq: u32) -> Option<MessageId> {
        let slot = *self.slots.get(author)?;
        self.node(*self.by_seq.get(&(slot, seq))?).map(|node| node.id)
    }

    pub(super) fn is_disputed(&self, author: &DeviceId, seq: u32) -> bool {
        self.disputed.get(author).is_some_and(|from| seq >= *from)
    }

    pub(super) fn disputes(&self) -> &BTreeMap<DeviceId, u32> {
        &self.disputed
    }

    /// Whether one more disputed message of `author` finds room.
    pub(super) fn has_room_aside(&self, author: &DeviceId) -> bool {
        let author = self.slots.get(author).and_then(|slot| self.authors.get(*slot as usize));
        author.is_none_or(|author| author.hidden < MAX_HIDDEN)
    }

    /// The clock of a complete message, found from the next of its bases that has it whole.
    pub(super) fn clock(&self, index: Index) -> Clock {
        let (mut way, mut at) = (Vec::new(), Some(index));
        let mut clock = Clock::default();
        while let Some(node) = at.and_then(|at| self.node(at)) {
            if let Some(kept) = &node.clock {
                clock = kept.clone();
                break;
            }
            way.push(node);
            at = node.base;
        }
        for node in way.into_iter().rev() {
            for (slot, seq) in &node.changes {
                clock.set(*slot, *seq);
            }
        }
        clock
    }

    /// What `why` and the history print.
    pub(super) fn named_clock(&self, index: Index) -> BTreeMap<DeviceId, u32> {
        let clock = self.clock(index);
        clock.entries().filter_map(|(slot, seq)| Some((self.author(slot)?, seq))).collect()
    }

    /// Takes a message whose predecessors are all complete, if its clock is what they say. Returns the messages that are
    /// shown now and were not before, predecessors first.
    pub(super) fn admit(&mut self, id: MessageId, header: &Header) -> Result<Vec<MessageId>, Reject> {
        let predecessors = self.indices(header)?;
        let slot = match self.slots.get(&header.author) {
            Some(slot) => *slot,
            None if self.authors.len() >= MAX_AUTHORS => return Err(Reject::Full),
            None => Slot::try_from(self.authors.len()).map_err(|_| Reject::Full)?,
        };
        let computed = self.compute(header.author, slot, header.seq, &predecessors)?;
        self.compare(header, &computed)?;
        let index = Index::try_from(self.nodes.len()).map_err(|_| Reject::Full)?;
        if self.authors.len() <= slot as usize {
            self.authors.push(Author { id: header.author, latest: None, hidden: 0 });
            self.slots.insert(header.author, slot);
        }
        let depth = computed.base.and_then(|at| self.node(at)).map_or(0, |base| (base.depth + 1) % CHECKPOINT);
        self.nodes.push(Node {
            id,
            slot,
            seq: header.seq,
            lamport: header.lamport,
            kind: header.kind,
            predecessors,
            digest: computed.digest,
            base: computed.base,
            changes: computed.since_base,
            depth,
            clock: Some(computed.clock),
            is_shown: false,
        });
        self.by_id.insert(id, index);
        self.by_seq.entry((slot, header.seq)).or_insert(index);
        self.advance(slot, index, computed.previous);
        Ok(self.show(index))
    }

    /// The header of a new message of `author`: its predecessors, and the clock that follows from them.
    pub(super) fn draft(&self, header: &mut Header, max_parents: usize) -> Result<(), Reject> {
        let latest = self.latest(&header.author);
        header.previous = latest.map(|node| node.id);
        header.seq = latest.map_or(1, |node| node.seq.saturating_add(1));
        let heads = self.heads.iter().rev().map(|(_, id)| *id).filter(|id| Some(*id) != header.previous);
        header.parents = heads.take(max_parents).collect();
        header.parents.sort();
        let predecessors = self.indices(header)?;
        let next = Slot::try_from(self.authors.len()).map_err(|_| Reject::Full)?;
        let slot = self.slots.get(&header.author).copied().unwrap_or(next);
        let computed = self.compute(header.author, slot, header.seq, &predecessors)?;
        header.lamport = computed.lamport;
        header.digest = computed.digest.to_bytes();
        header.changed = u32::try_from(computed.changed).map_err(|_| Reject::Full)?;
        header.changes = computed.listed;
        Ok(())
    }

    /// Marks an author's messages as disputed from `seq` on; whether that is news. Recomputes what is shown.
    pub(super) fn dispute(&mut self, author: DeviceId, seq: u32) -> bool {
        if self.disputed.get(&author).is_some_and(|known| *known <= seq) {
            return false;
        }
        self.disputed.insert(author, seq);
        self.recompute();
        true
    }

    /// Whether `earlier` is in the past of `later`.
    pub(super) fn precedes(&self, earlier: &MessageId, later: &MessageId) -> Option<bool> {
        let (earlier, later) = (*self.by_id.get(earlier)?, *self.by_id.get(later)?);
        let node = self.node(earlier)?;
        if earlier == later {
            return Some(false);
        }
        let author = self.author(node.slot)?;
        if !self.disputed.contains_key(&author) {
            return Some(self.clock(later).get(node.slot) >= node.seq);
        }
        // Two messages have one number: only the edges tell which of them is meant.
        let (mut open, mut visited) = (vec![later], BTreeSet::new());
        while let Some(node) = open.pop().and_then(|at| self.node(at)) {
            for at in node.predecessors.iter().filter(|at| **at >= earlier) {
                if *at == earlier {
                    return Some(true);
                }
                if visited.insert(*at) {
                    open.push(*at);
                }
            }
        }
        Some(false)
    }

    /// The authors whose latest message has `id` in its past, its own author not counted.
    pub(super) fn seen_by(&self, id: &MessageId) -> Vec<DeviceId> {
        let Some(node) = self.get(id) else { return Vec::new() };
        let others = self.authors.iter().filter(|author| Some(author.id) != self.author(node.slot));
        let sees = |author: &&Author| {
            author.latest.and_then(|at| self.node(at)).and_then(|latest| self.precedes(id, &latest.id)) == Some(true)
        };
        others.filter(sees).map(|author| author.id).collect()
    }

    fn indices(&self, header: &Header) -> Result<Vec<Index>, Reject> {
        header.predecessors().map(|id| self.by_id.get(&id).copied().ok_or(Reject::Unknown)).collect()
    }

    fn compute(&self, author: DeviceId, slot: Slot, seq: u32, predecessors: &[Index]) -> Result<Computed, Reject> {
        let previous = predecessors.first().copied().filter(|_| seq > 1);
        if let Some(node) = previous.and_then(|at| self.node(at))
            && (node.slot != slot || node.seq.checked_add(1) != Some(seq))
        {
            return Err(Reject::FalsePrevious);
        }
        let lamport = |at: &Index| self.node(*at).map_or(0, |node| node.lamport);
        let base = predecessors.iter().copied().max_by_key(lamport);
        let base_clock = base.map(|at| self.clock(at)).unwrap_or_default();
        let before = match previous {
            Some(_) if base == previous => base_clock.clone(),
            Some(at) => self.clock(at),
            None => Clock::default(),
        };
        let mut clock = base_clock.clone();
        for at in predecessors.iter().filter(|at| Some(**at) != base) {
            if Some(*at) == previous { clock.join(&before) } else { clock.join(&self.clock(*at)) }
        }
        // Whoever builds on a later message of its own has two messages of one number.
        if clock.get(slot) != seq - 1 {
            return Err(Reject::FalseClock);
        }
        clock.set(slot, seq);
        let since_base: Vec<_> = clock.since(&base_clock).collect();
        let mut digest = base.and_then(|at| self.node(at)).map(|node| node.digest).unwrap_or_default();
        for (slot, seq) in &since_base {
            let author = self.author(*slot).unwrap_or(author);
            self.hasher.replace(&mut digest, author, base_clock.get(*slot), *seq);
        }
        let (changed, listed) = self.listed(author, clock.since(&before).collect());
        let lamport = base.as_ref().map_or(0, lamport).saturating_add(1);
        Ok(Computed { previous, base, lamport, clock, digest, since_base, changed, listed })
    }

    fn compare(&self, header: &Header, computed: &Computed) -> Result<(), Reject> {
        let is_true = header.lamport == computed.lamport
            && header.digest == computed.digest.to_bytes()
            && header.changed as usize == computed.changed
            && header.changes == computed.listed;
        if is_true { Ok(()) } else { Err(Reject::FalseClock) }
    }

    /// How many changes there are, and the first of them in the order of the authors' keys. `author` has no slot before its
    /// first message.
    fn listed(&self, author: DeviceId, mut changes: Vec<(Slot, u32)>) -> (usize, Vec<Change>) {
        let changed = changes.len();
        let key = |slot: Slot| self.author(slot).unwrap_or(author);
        if changed > MAX_LISTED {
            changes.select_nth_unstable_by_key(MAX_LISTED, |(slot, _)| key(*slot));
            changes.truncate(MAX_LISTED);
        }
        changes.sort_by_key(|(slot, _)| key(*slot));
        let change = |(slot, seq): (Slot, u32)| {
            let DeviceId([a, b, c, d, e, f, g, h, ..]) = key(slot);
            Change { author: [a, b, c, d, e, f, g, h], seq }
        };
        (changed, changes.into_iter().map(change).collect())
    }

    /// The author has a new latest message; a clock that is no longer recent is given up.
    fn advance(&mut self, slot: Slot, index: Index, previous: Option<Index>) {
        if let Some(author) = self.authors.get_mut(slot as usize)
            && author.latest.is_none_or(|latest| Some(latest) == previous)
        {
            author.latest = Some(index);
        }
        let old = self.nodes.len().checked_sub(RECENT + 1);
        if let Some(node) = old.and_then(|at| self.nodes.get_mut(at)).filter(|node| node.depth > 0) {
            node.clock = None;
        }
    }

    /// Shows a new message unless it is disputed, and with it whatever disputed ones it has in its past.
    fn show(&mut self, index: Index) -> Vec<MessageId> {
        let Some(node) = self.node(index) else { return Vec::new() };
        let (slot, entry) = (node.slot, (node.lamport, node.id));
        let is_disputed = self.author(slot).is_some_and(|author| self.is_disputed(&author, node.seq));
        if is_disputed {
            self.count_hidden(slot, 1);
            return Vec::new();
        }
        let (mut open, mut shown) = (vec![index], BTreeSet::new());
        while let Some(at) = open.pop() {
            let Some(node) = self.nodes.get_mut(at as usize).filter(|node| !node.is_shown) else { continue };
            node.is_shown = true;
            shown.insert(at);
            open.extend(&node.predecessors);
        }
        for at in &shown {
            let Some(node) = self.nodes.get(*at as usize) else { continue };
            self.shown.insert((node.lamport, node.id));
            for before in &node.predecessors {
                if let Some(before) = self.nodes.get(*before as usize) {
                    self.heads.remove(&(before.lamport, before.id));
                }
            }
            if *at != index {
                let slot = node.slot;
                self.count_hidden(slot, -1);
            }
        }
        self.heads.insert(entry);
        shown.into_iter().filter_map(|at| self.node(at)).map(|node| node.id).collect()
    }

    fn count_hidden(&mut self, slot: Slot, by: i32) {
        if let Some(author) = self.authors.get_mut(slot as usize) {
            author.hidden = author.hidden.saturating_add_signed(by);
        }
    }

    /// Shown is what is undisputed and all in its past; a message's number is above its predecessors'.
    fn recompute(&mut self) {
        let mut is_shown = vec![false; self.nodes.len()];
        let mut is_named = is_shown.clone();
        for (at, node) in self.nodes.iter().enumerate().rev() {
            let author = self.author(node.slot);
            let is_undisputed = author.is_some_and(|author| !self.is_disputed(&author, node.seq));
            let Some(shown) = is_shown.get_mut(at) else { continue };
            *shown |= is_undisputed;
            if *shown {
                for before in &node.predecessors {
                    for marks in [&mut is_shown, &mut is_named] {
                        if let Some(mark) = marks.get_mut(*before as usize) {
                            *mark = true;
                        }
                    }
                }
            }
        }
        self.shown.clear();
        self.heads.clear();
        for author in &mut self.authors {
            author.hidden = 0;
        }
        for ((node, shown), named) in self.nodes.iter_mut().zip(is_shown).zip(is_named) {
            node.is_shown = shown;
            if shown {
                self.shown.insert((node.lamport, node.id));
                if !named {
                    self.heads.insert((node.lamport, node.id));
                }
            } else if let Some(author) = self.authors.get_mut(node.slot as usize) {
                author.hidden += 1;
            }
        }
    }
}
