//! A conversation as the interface keeps it: a bounded scrollback in the order that the node gives, and marks. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    model::{Conversation, Kind, Message, Sent, Via},
    text::{Clean, Label},
};

/// Entries of the conversation that is open.
pub(super) const MAX_ENTRIES: usize = 2_000;
/// Messages asked for at once.
pub(super) const PAGE: usize = 200;
/// Authors whose names are remembered, to tell namesakes apart.
const MAX_AUTHORS: usize = 1_024;

/// What stands in the scrollback.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    Message(Message),
    /// A message of ours that the node has not taken yet, by its number; why it did not, in the end.
    Pending {
        number: u64,
        text: Clean,
        refused: Option<String>,
    },
    /// Words of the program. Not from a peer.
    Note(Clean),
    /// What is below is new.
    New,
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) to: String,
    pub(super) kind: Kind,
    pub(super) members: u32,
    pub(super) unread: u32,
    pub(super) is_mentioned: bool,
    pub(super) is_muted: bool,
    pub(super) via: Via,
    /// After how long what is written here is given up.
    pub(super) expire: Option<Duration>,
    pub(super) topic: Option<Label>,
    pub(super) entries: VecDeque<Entry>,
    /// Whether the history was fetched since the conversation was opened.
    pub(super) is_loaded: bool,
    /// Whether the order may have changed: the history is fetched again.
    pub(super) is_stale: bool,
    /// How many messages of the history are wanted.
    pub(super) wanted: usize,
    /// Messages that were unread when it was opened: the mark for what is new goes before them.
    pub(super) unread_at_open: u32,
    /// Whether the person was told to compare safety words.
    pub(super) is_told: bool,
    /// What was being written in it when another one was opened.
    pub(super) draft: String,
    names: BTreeMap<String, BTreeSet<String>>,
}

impl Room {
    pub(super) fn new(to: &str) -> Self {
        let kind = if to.starts_with('@') { Kind::Direct } else { Kind::Unknown };
        Self {
            to: to.to_owned(),
            kind,
            members: 0,
            unread: 0,
            is_mentioned: false,
            is_muted: false,
            via: Via::Auto,
            expire: None,
            topic: None,
            entries: VecDeque::new(),
            is_loaded: false,
            is_stale: false,
            wanted: PAGE,
            unread_at_open: 0,
            draft: String::new(),
            is_told: false,
            names: BTreeMap::new(),
        }
    }

    /// Takes what the node says of it. What is unread is counted here once the conversation is open.
    pub(super) fn update(&mut self, conversation: &Conversation) {
        self.kind = conversation.kind;
        self.members = conversation.members;
        self.unread = conversation.unread;
        self.topic.clone_from(&conversation.topic);
    }

    pub(super) fn messages(&self) -> impl DoubleEndedIterator<Item = &Message> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Message(message) => Some(message),
            _ => None,
        })
    }

    /// Whether several authors use this name.
    pub(super) fn is_ambiguous(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|authors| authors.len() > 1)
    }

    pub(super) fn note(&mut self, text: &str) {
        self.push(Entry::Note(Clean::new(text)));
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        self.trim(MAX_ENTRIES);
    }

    /// Drops the oldest entries beyond `most`.
    pub(super) fn trim(&mut self, most: usize) {
        while self.entries.len() > most {
            self.entries.pop_front();
        }
    }

    /// Forgets the scrollback; it is fetched again when the conversation is opened.
    pub(super) fn unload(&mut self) {
        self.entries.clear();
        self.names.clear();
        self.is_loaded = false;
        self.is_stale = false;
        self.wanted = PAGE;
    }

    fn remember(&mut self, message: &Message) {
        if self.names.len() < MAX_AUTHORS || self.names.contains_key(&*message.name) {
            let authors = self.names.entry(message.name.to_string()).or_default();
            if authors.len() < 2 {
                authors.insert(message.author.clone());
            }
        }
    }

    /// A message came, or came again. True if a new one was added.
    pub(super) fn message(&mut self, message: Message, is_mine: bool) -> bool {
        self.remember(&message);
        let known = self.entries.iter_mut().rev().find_map(|entry| match entry {
            Entry::Message(known) if known.id == message.id => Some(known),
            _ => None,
        });
        if let Some(known) = known {
            let state = known.state.max(message.state);
            // What had a gap before it may have moved.
            self.is_stale |= known.gap_before != message.gap_before;
            *known = Message { state, ..message };
            return false;
        }
        if is_mine {
            let waits =
                |entry: &Entry| matches!(entry, Entry::Pending { text, refused: None, .. } if *text == message.text);
            if let Some(at) = self.entries.iter().position(waits) {
                self.entries.remove(at);
            }
        }
        // It belongs last if its author had seen what is last here. Otherwise the node knows where it belongs.
        let last = self.messages().next_back();
        let has_seen = |last: &Message| message.clock.get(&last.author).is_some_and(|seq| *seq >= last.seq);
        self.is_stale |= message.gap_before || !last.is_none_or(has_seen);
        self.push(Entry::Message(message));
        true
    }

    /// The node took a pending message, or says how far a message has come. True if it is here.
    pub(super) fn state(&mut self, sent: &Sent) -> bool {
        for entry in self.entries.iter_mut().rev() {
            if let Entry::Message(message) = entry
                && message.id == sent.id
            {
                if message.state < Some(sent.state) {
                    message.state = Some(sent.state);
                    message.via.clone_from(&sent.via);
                    message.reason.clone_from(&sent.reason);
                }
                return true;
            }
        }
        false
    }

    /// The node took the pending message of this number.
    pub(super) fn taken(&mut self, number: u64, sent: &Sent, mut message: Message) {
        let at =
            self.entries.iter().position(|entry| matches!(entry, Entry::Pending { number: n, .. } if *n == number));
        let text = at.and_then(|at| self.entries.remove(at));
        if self.state(sent) {
            return;
        }
        let Some(Entry::Pending { text, .. }) = text else { return };
        message.id.clone_from(&sent.id);
        message.text = text;
        message.state = Some(sent.state);
        message.via.clone_from(&sent.via);
        message.reason.clone_from(&sent.reason);
        self.remember(&message);
        self.is_stale = true;
        let at = at.unwrap_or_default().min(self.entries.len());
        self.entries.insert(at, Entry::Message(message));
    }

    /// The node did not take it.
    pub(super) fn refused(&mut self, number: u64, reason: String) {
        for entry in &mut self.entries {
            if let Entry::Pending { number: n, refused, .. } = entry
                && *n == number
            {
                *refused = Some(reason);
                return;
            }
        }
    }

    pub(super) fn retract(&mut self, id: &str) {
        self.entries.retain(|entry| !matches!(entry, Entry::Message(message) if message.id == id));
    }

    /// Takes the history: its messages in its order. Notes and marks stay after the message that they followed, and so do messages that
    /// came while the history was on its way.
    pub(super) fn replace(&mut self, history: Vec<Message>) {
        let ids: BTreeSet<_> = history.iter().map(|message| message.id.clone()).collect();
        let mut after: BTreeMap<Option<String>, Vec<Entry>> = BTreeMap::new();
        let mut states = BTreeMap::new();
        let mut pending = Vec::new();
        let mut last = None;
        let mut late = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            match entry {
                Entry::Message(message) if !ids.contains(&message.id) => late.push(Entry::Message(message)),
                Entry::Message(message) => {
                    late.clear();
                    states.insert(message.id.clone(), message.state);
                    last = Some(message.id);
                }
                Entry::Pending { .. } => pending.push(entry),
                Entry::Note(_) | Entry::New => after.entry(last.clone()).or_default().push(entry),
            }
        }
        self.is_loaded = true;
        self.is_stale = false;
        self.entries.extend(after.remove(&None).unwrap_or_default());
        for mut message in history {
            self.remember(&message);
            message.state = message.state.max(states.remove(&message.id).flatten());
            let id = Some(message.id.clone());
            self.entries.push_back(Entry::Message(message));
            self.entries.extend(after.remove(&id).unwrap_or_default());
        }
        // What followed a message that is gone.
        self.entries.extend(after.into_values().flatten());
        self.entries.extend(late);
        self.place_new();
        self.entries.extend(pending);
        self.trim(MAX_ENTRIES);
    }

    fn place_new(&mut self) {
        let unread = std::mem::take(&mut self.unread_at_open) as usize;
        let messages = self.entries.iter().enumerate().filter(|(_, entry)| matches!(entry, Entry::Message(_)));
        let first = messages.rev().take(unread).last().map(|(at, _)| at);
        if let Some(at) = first {
            self.entries.retain(|entry| *entry != Entry::New);
            self.entries.insert(at.min(self.entries.len()), Entry::New);
        }
    }

    /// Marks what comes from now on as new.
    pub(super) fn mark_new(&mut self) {
        self.entries.retain(|entry| *entry != Entry::New);
        self.push(Entry::New);
    }
}
