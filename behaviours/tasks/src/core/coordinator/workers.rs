//! What the coordinator knows of each worker beside its offer and its standing: whether it is there, what it does for this node, how fast
//! it answers, and whether it is left alone for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now};

use crate::core::ids::TaskId;

/// The most workers of which something is known.
const MAX_WORKERS: usize = 8_192;
/// So many failures in a row, and a worker is left alone.
const FAILURES: u32 = 3;
/// How long at first; it doubles with each further failure.
const FIRST_BREAK: Duration = Duration::from_secs(2);
/// How long at most.
const LONGEST_BREAK: Duration = Duration::from_secs(600);
/// Work that is sent ahead of a worker's slots is worth about this time.
const AHEAD: Duration = Duration::from_millis(250);
/// At least and at most so many executions for each slot.
const PER_SLOT: (usize, usize) = (2, 64);
/// And never more with one worker.
const MOST: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) rtt: Option<Duration>,
    /// Since when there is no connection.
    pub(super) gone: Option<Instant>,
    pub(super) connected: bool,
    /// Tasks that it is busy with for this node.
    tasks: BTreeSet<TaskId>,
    pub(super) slots: usize,
    /// From lease to commit, divided by the executions that it had meanwhile: the time that one takes it.
    pace: Option<Duration>,
    failures: u32,
    /// Left alone until then; then one execution tries it.
    pub(super) open_until: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(super) struct Workers {
    me: NodeId,
    all: BTreeMap<NodeId, Worker>,
    /// Those with an offer and room for more.
    free: BTreeSet<NodeId>,
    /// When the first worker that was left alone may be tried.
    pub(super) wakes: Option<Instant>,
}

impl Workers {
    pub(super) fn new(me: NodeId, _now: Now) -> Self {
        Self { me, all: BTreeMap::new(), free: BTreeSet::new(), wakes: None }
    }

    pub(super) fn get(&self, worker: NodeId) -> Option<&Worker> {
        self.all.get(&worker)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Worker)> {
        self.all.iter()
    }

    pub(super) fn free(&self) -> &BTreeSet<NodeId> {
        &self.free
    }

    pub(super) fn tasks_of(&self, worker: NodeId) -> impl Iterator<Item = TaskId> {
        self.all.get(&worker).into_iter().flat_map(|worker| worker.tasks.iter().copied())
    }

    /// How many executions it has of this node.
    pub(super) fn busy(&self, worker: NodeId) -> usize {
        self.all.get(&worker).map_or(0, |worker| worker.tasks.len())
    }

    /// Its slots changed; 0 for one that is not eligible.
    pub(super) fn offers(&mut self, worker: NodeId, slots: u16) {
        self.change(worker, |it| it.slots = usize::from(slots));
    }

    pub(super) fn connected(&mut self, worker: NodeId, rtt: Option<Duration>) {
        self.change(worker, |it| {
            it.connected = true;
            it.gone = None;
            it.rtt = rtt.or(it.rtt);
        });
    }

    pub(super) fn gone(&mut self, worker: NodeId, now: Now) {
        if worker != self.me {
            self.change(worker, |it| {
                it.connected = false;
                it.gone = Some(now.mono);
            });
        }
    }

    /// When a worker that is gone is given up.
    pub(super) fn given_up_at(&self, worker: NodeId, patience: Duration) -> Option<Instant> {
        self.all.get(&worker)?.gone.map(|since| since + patience)
    }

    pub(super) fn begin(&mut self, worker: NodeId, task: TaskId) {
        self.change(worker, |it| {
            it.tasks.insert(task);
        });
    }

    pub(super) fn release(&mut self, worker: NodeId, task: TaskId) {
        self.change(worker, |it| {
            it.tasks.remove(&task);
        });
    }

    /// It did what it should, `took` after its lease.
    pub(super) fn succeeded(&mut self, worker: NodeId, took: Duration) {
        self.change(worker, |it| {
            let each = took / u32::try_from(it.tasks.len().max(1)).unwrap_or(u32::MAX);
            it.pace = Some(it.pace.map_or(each, |pace| (pace * 7 + each) / 8));
            it.failures = 0;
            it.open_until = None;
        });
    }

    /// It did not. True if it is left alone from now on.
    pub(super) fn failed(&mut self, worker: NodeId, now: Now) -> bool {
        let mut broke = false;
        self.change(worker, |it| {
            it.failures = it.failures.saturating_add(1);
            if it.failures >= FAILURES {
                let pause = FIRST_BREAK * 2u32.saturating_pow((it.failures - FAILURES).min(16));
                it.open_until = Some(now.mono + pause.min(LONGEST_BREAK));
                broke = true;
            }
        });
        self.wakes = self.all.values().filter_map(|it| it.open_until).min();
        broke
    }

    /// Whether it is left alone now.
    pub(super) fn is_broken(&self, worker: NodeId, now: Now) -> bool {
        self.all.get(&worker).and_then(|it| it.open_until).is_some_and(|until| until > now.mono)
    }

    fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Worker)) {
        if !self.all.contains_key(&id) && !self.make_room() {
            return;
        }
        let worker = self.all.entry(id).or_insert_with(|| Worker {
            rtt: None,
            gone: None,
            connected: false,
            tasks: BTreeSet::new(),
            slots: 0,
            pace: None,
            failures: 0,
            open_until: None,
        });
        change(worker);
        if worker.tasks.len() < worker.most() {
            self.free.insert(id);
        } else {
            self.free.remove(&id);
        }
    }

    /// Forgets a worker that is not there and has nothing to do.
    fn make_room(&mut self) -> bool {
        if self.all.len() < MAX_WORKERS {
            return true;
        }
        let idle = self.all.iter().find(|(_, it)| !it.connected && it.tasks.is_empty()).map(|(id, _)| *id);
        idle.is_some_and(|id| {
            self.free.remove(&id);
            self.all.remove(&id).is_some()
        })
    }
}

impl Worker {
    /// The most executions that it is given at once.
    fn most(&self) -> usize {
        if self.slots == 0 {
            return 0;
        }
        if self.failures >= FAILURES {
            return 1;
        }
        let (least, most) = PER_SLOT;
        let pace = self.pace.unwrap_or(AHEAD).max(Duration::from_micros(10));
        let ahead = usize::try_from(AHEAD.as_micros() / pace.as_micros().max(1)).unwrap_or(most);
        (self.slots + ahead).clamp(self.slots * least, self.slots.saturating_mul(most)).min(MOST.max(self.slots))
    }
}
