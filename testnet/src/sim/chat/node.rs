//! A node: its role, its device, its disk, and what was seen of it from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use fog_chat::core::engine::{Chat, ConversationId, DeviceId, MessageId, Row, Rows, State};

use super::plan::Role;

pub(super) type Disk = BTreeMap<Vec<u8>, Vec<u8>>;

/// A disk that outlives its process.
#[derive(Clone, Default)]
pub(super) struct Store(Arc<Mutex<Disk>>);

impl Store {
    /// What is on it.
    pub(super) fn copy(&self) -> Disk {
        self.disk().clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.disk().is_empty()
    }

    pub(super) fn of(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(disk)))
    }

    pub(super) fn write(&self, rows: Vec<Row>) {
        let mut disk = self.disk();
        for row in rows {
            match row.value {
                Some(value) => drop(disk.insert(row.key, value)),
                None => drop(disk.remove(&row.key)),
            }
        }
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        // A panic while it is held ends the simulation anyway.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Rows for Store {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.disk().get(key).cloned()
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        for (key, value) in self.disk().range(prefix.to_vec()..) {
            if !key.starts_with(prefix) || !visit(key, value) {
                return;
            }
        }
    }
}

/// What a person at a device was told, and what must not have happened.
#[derive(Default)]
pub(super) struct Log {
    /// Messages: when they were told as whole.
    pub(super) told: BTreeMap<MessageId, Duration>,
    /// Messages that were told as whole, and later again.
    pub(super) twice: Vec<MessageId>,
    pub(super) states: BTreeMap<MessageId, State>,
    /// States that went back: from, to.
    pub(super) fell: Vec<(State, State)>,
    pub(super) forked: BTreeSet<(ConversationId, DeviceId)>,
    /// Nodes that it blamed, and for what.
    pub(super) blamed: Vec<(usize, String)>,
    /// What it said.
    pub(super) said: BTreeSet<MessageId>,
    /// Own messages of which it was told how far they are, so that they must be on disk: where.
    pub(super) written: BTreeMap<MessageId, ConversationId>,
    /// Messages of which it was told so, and that were not there any more.
    pub(super) lost: Vec<MessageId>,
    /// The fullest that each buffer was, and its bound.
    pub(super) loads: BTreeMap<&'static str, (usize, usize)>,
}

impl Log {
    /// A person is told a state of an own message.
    pub(super) fn hear_state(&mut self, id: MessageId, state: State) {
        let before = self.states.insert(id, state);
        self.fell.extend(before.filter(|before| *before > state).map(|before| (before, state)));
    }
}

pub(super) struct Node {
    pub(super) role: Role,
    pub(super) chat: Option<Chat>,
    pub(super) store: Store,
    /// Which identity's rows these are: a copied device has those of its original.
    pub(super) identity: usize,
    pub(super) links: BTreeSet<usize>,
    pub(super) log: Log,
    /// Topics that it hears.
    pub(super) buckets: BTreeSet<u8>,
    /// How often its process began. What was under way to an earlier one is lost.
    pub(super) opened: u32,
    /// By how many milliseconds its clock is off.
    pub(super) skew: i64,
    /// When it is looked at next.
    pub(super) armed: Option<Duration>,
    /// What its mailboxes hold.
    pub(super) mail: Vec<Vec<u8>>,
}

impl Node {
    pub(super) fn new(role: Role, identity: usize, store: Store, skew: i64) -> Self {
        Self {
            role,
            chat: None,
            store,
            identity,
            links: BTreeSet::new(),
            log: Log::default(),
            buckets: BTreeSet::new(),
            opened: 0,
            skew,
            armed: None,
            mail: Vec::new(),
        }
    }

    /// Whether its process runs. Liars without an engine always do.
    pub(super) fn is_up(&self) -> bool {
        self.chat.is_some() || self.role == Role::Noise
    }

    pub(super) fn is_honest(&self) -> bool {
        self.role == Role::Honest
    }
}
