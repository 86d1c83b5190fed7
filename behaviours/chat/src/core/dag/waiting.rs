//! Messages that wait for predecessors: how many, for what, and when they are shown with a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fog_base::NodeId;

use crate::core::{
    id::{DeviceId, MessageId},
    message::SignedHeader,
    reject::Reject,
};

/// The most messages that wait.
pub const MAX_WAITING: usize = 4_096;
/// The most bytes that wait, bodies included.
pub const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// The most that wait of one author, of many.
pub const MAX_WAITING_OF_AUTHOR: usize = 256;
/// After this time a waiting message is shown with a gap.
pub const SHOWN_AFTER: Duration = Duration::from_secs(30);
/// The first repetition of a question for a missing message; then doubled, up to [`ASK_LAST`].
const ASK_FIRST: Duration = Duration::from_millis(500);
const ASK_LAST: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) signed: SignedHeader,
    len_bytes: usize,
    arrived: Instant,
    pub(super) from: Option<NodeId>,
    /// Predecessors that are not complete.
    missing: BTreeSet<MessageId>,
    pub(super) is_shown: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Ask(MessageId),
    Show(MessageId),
}

#[derive(Debug, Default)]
pub(super) struct Room {
    /// The most that wait of one author.
    most_of_author: usize,
    messages: BTreeMap<MessageId, Waiting>,
    by_seq: BTreeMap<(DeviceId, u32), MessageId>,
    of_author: BTreeMap<DeviceId, usize>,
    bytes: usize,
    /// Who waits for an id that is not complete.
    children: BTreeMap<MessageId, BTreeSet<MessageId>>,
    /// How many of them are shown.
    shown_children: BTreeMap<MessageId, usize>,
    /// Ids that are not here at all, and how often they were asked for.
    wanted: BTreeMap<MessageId, u32>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Shown with a gap, in the order of history.
    pub(super) shown: BTreeSet<(u64, MessageId)>,
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) ask: Vec<MessageId>,
    pub(super) show: Vec<MessageId>,
}

impl Room {
    pub(super) fn of_author(most_of_author: usize) -> Self {
        Self { most_of_author, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, id: &MessageId) -> Option<&Waiting> {
        self.messages.get(id)
    }

    pub(super) fn at(&self, author: &DeviceId, seq: u32) -> Option<&Waiting> {
        self.messages.get(self.by_seq.get(&(*author, seq))?)
    }

    /// The lowest number of an author.
    pub(super) fn first_of(&self, author: &DeviceId) -> Option<u32> {
        self.by_seq.range((*author, 0)..=(*author, u32::MAX)).next().map(|((_, seq), _)| *seq)
    }

    pub(super) fn is_wanted(&self, id: &MessageId) -> bool {
        self.wanted.contains_key(id)
    }

    pub(super) fn wanted(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.wanted.keys().copied()
    }

    /// Takes a message that misses `missing`, of which `absent` are not here at all. Returns what must be asked for now.
    pub(super) fn add(
        &mut self,
        signed: SignedHeader,
        len_bytes: usize,
        from: Option<NodeId>,
        missing: BTreeSet<MessageId>,
        now: Instant,
    ) -> Result<Vec<MessageId>, Reject> {
        let author = signed.header().author;
        let of_author = self.of_author.get(&author).copied().unwrap_or(0);
        let is_full = self.messages.len() >= MAX_WAITING
            || self.bytes + len_bytes > MAX_WAITING_BYTES
            || of_author >= self.most_of_author;
        if is_full {
            return Err(Reject::Full);
        }
        let id = signed.id();
        self.arrives(&id);
        let mut ask = Vec::new();
        for parent in &missing {
            self.children.entry(*parent).or_default().insert(id);
            if !self.messages.contains_key(parent) && !self.wanted.contains_key(parent) {
                self.wanted.insert(*parent, 0);
                self.timers.insert((now + ASK_FIRST, Timer::Ask(*parent)));
                ask.push(*parent);
            }
        }
        self.timers.insert((now + SHOWN_AFTER, Timer::Show(id)));
        self.by_seq.entry((author, signed.header().seq)).or_insert(id);
        self.of_author.insert(author, of_author + 1);
        self.bytes += len_bytes;
        self.messages.insert(id, Waiting { signed, len_bytes, arrived: now, from, missing, is_shown: false });
        Ok(ask)
    }

    /// `id` is here: nobody has to be asked for it.
    pub(super) fn arrives(&mut self, id: &MessageId) {
        self.wanted.remove(id);
    }

    /// `id` is complete: returns those that waited for nothing else.
    pub(super) fn complete(&mut self, id: &MessageId) -> Vec<MessageId> {
        self.arrives(id);
        self.shown_children.remove(id);
        let mut ready = Vec::new();
        for child in self.children.remove(id).unwrap_or_default() {
            if let Some(waiting) = self.messages.get_mut(&child) {
                waiting.missing.remove(id);
                if waiting.missing.is_empty() {
                    ready.push(child);
                }
            }
        }
        ready
    }

    /// Takes a message out, complete or refused.
    pub(super) fn remove(&mut self, id: &MessageId) -> Option<Waiting> {
        let waiting = self.messages.remove(id)?;
        let header = waiting.signed.header();
        self.bytes -= waiting.len_bytes;
        if let Some(n) = self.of_author.get_mut(&header.author) {
            *n -= 1;
            if *n == 0 {
                self.of_author.remove(&header.author);
            }
        }
        let dot = (header.author, header.seq);
        if self.by_seq.get(&dot) == Some(id) {
            self.by_seq.remove(&dot);
        }
        for parent in &waiting.missing {
            if waiting.is_shown {
                forget_shown(&mut self.shown_children, parent);
            }
            self.release(parent, id);
        }
        self.timers.remove(&(waiting.arrived + SHOWN_AFTER, Timer::Show(*id)));
        self.shown.remove(&(header.lamport, *id));
        Some(waiting)
    }

    /// Those that wait for `id`.
    pub(super) fn children(&self, id: &MessageId) -> Vec<MessageId> {
        self.children.get(id).into_iter().flatten().copied().collect()
    }

    /// Marks a message as shown with a gap: which of its missing predecessors had no child that was shown. `None` if it was shown before.
    pub(super) fn show(&mut self, id: &MessageId) -> Option<Vec<MessageId>> {
        let waiting = self.messages.get_mut(id).filter(|waiting| !waiting.is_shown)?;
        waiting.is_shown = true;
        self.shown.insert((waiting.signed.header().lamport, *id));
        let mut first = Vec::new();
        for parent in &waiting.missing {
            let shown = self.shown_children.entry(*parent).or_default();
            *shown += 1;
            if *shown == 1 {
                first.push(*parent);
            }
        }
        Some(first)
    }

    /// Whether a message waits and is shown.
    pub(super) fn is_shown(&self, id: &MessageId) -> bool {
        self.messages.get(id).is_some_and(|waiting| waiting.is_shown)
    }

    /// Hides what `is_disputed` says.
    pub(super) fn hide(&mut self, is_disputed: impl Fn(&DeviceId, u32) -> bool) {
        for (id, waiting) in &mut self.messages {
            let header = waiting.signed.header();
            if waiting.is_shown && is_disputed(&header.author, header.seq) {
                waiting.is_shown = false;
                self.shown.remove(&(header.lamport, *id));
                waiting.missing.iter().for_each(|parent| forget_shown(&mut self.shown_children, parent));
            }
        }
    }

    /// Whether the predecessors that are not complete are all shown with a gap themselves.
    pub(super) fn follows_only_shown(&self, id: &MessageId) -> bool {
        self.messages.get(id).is_some_and(|waiting| waiting.missing.iter().all(|parent| self.is_shown(parent)))
    }

    /// Whether nothing is missing but what others that are shown miss as well.
    pub(super) fn follows_known_gaps(&self, id: &MessageId) -> bool {
        let is_known = |parent: &MessageId| match self.messages.get(parent) {
            Some(waiting) => waiting.is_shown,
            None => self.shown_children.contains_key(parent),
        };
        self.messages.get(id).is_some_and(|waiting| waiting.missing.iter().all(is_known))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((at, timer)) = self.timers.pop_first() else { break };
            match timer {
                Timer::Show(id) => due.show.push(id),
                Timer::Ask(id) => {
                    let Some(tries) = self.wanted.get_mut(&id) else { continue };
                    *tries += 1;
                    let wait = ASK_FIRST.saturating_mul(1 << (*tries).min(7)).min(ASK_LAST);
                    self.timers.insert((at.max(now) + wait, Timer::Ask(id)));
                    due.ask.push(id);
                }
            }
        }
        due
    }

    /// A child is gone: what nobody else waits for is no longer wanted.
    fn release(&mut self, parent: &MessageId, child: &MessageId) {
        if let Some(children) = self.children.get_mut(parent) {
            children.remove(child);
            if children.is_empty() {
                self.children.remove(parent);
                self.wanted.remove(parent);
            }
        }
    }
}

/// One shown child fewer.
fn forget_shown(shown_children: &mut BTreeMap<MessageId, usize>, parent: &MessageId) {
    if let Some(count) = shown_children.get_mut(parent) {
        *count -= 1;
        if *count == 0 {
            shown_children.remove(parent);
        }
    }
}
