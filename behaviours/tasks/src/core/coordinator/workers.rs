//! What the coordinator knows of each worker beside its offer and its standing: whether it is there, what it does for this node, how fast
//! it answers, which contents it has and how fast others came to it, and whether it is left alone for a while.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now};

use crate::core::{ids::TaskId, work::Content};

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

/// Smaller contents are not remembered: to send one takes no time.
const REMEMBERED: u64 = 64 * 1024;
/// The most contents that are remembered of one worker; the one that was used longest ago is forgotten first.
const MAX_HELD: usize = 256;
/// Less than this says nothing of how fast bytes come to a worker.
const MEASURED: u64 = 1024 * 1024;
/// What one measurement counts beside those before it.
const WEIGHT: f64 = 0.3;
/// Bytes per second to a worker, as long as nothing was measured, and what is believed of a measurement.
const BANDWIDTH: f64 = 10e6;
const BANDWIDTHS: (f64, f64) = (10e3, 10e9);

/// How long it took until contents were there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Took {
    /// So long.
    About(Duration),
    /// So long at most.
    AtMost(Duration),
    /// It is not known.
    Unknown,
}

/// Contents that a worker was staged with.
#[derive(Debug, Clone, Default)]
struct Held {
    /// Last used last.
    order: VecDeque<[u8; 32]>,
    /// The same, ascending.
    hashes: Arc<[[u8; 32]]>,
}

impl Held {
    /// These are there. Returns the bytes of those of which that was not known.
    fn add(&mut self, contents: impl Iterator<Item = Content>) -> u64 {
        let mut new = 0u64;
        for Content { hash, size } in contents.filter(|content| content.size >= REMEMBERED) {
            match self.order.iter().position(|known| *known == hash) {
                Some(at) => drop(self.order.remove(at)),
                None => new = new.saturating_add(size),
            }
            self.order.push_back(hash);
        }
        if new > 0 {
            let over = self.order.len().saturating_sub(MAX_HELD);
            self.order.drain(..over);
            let sorted: BTreeSet<_> = self.order.iter().copied().collect();
            self.hashes = sorted.into_iter().collect();
        }
        new
    }
}

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) rtt: Option<Duration>,
    /// Since when there is no connection.
    pub(super) gone: Option<Instant>,
    pub(super) connected: bool,
    /// Tasks that it is busy with for this node.
    tasks: BTreeSet<TaskId>,
    pub(super) slots: usize,
    /// How many of its tasks were this node's when its offer came.
    ours: usize,
    /// From lease to commit, divided by the executions that it had meanwhile: the time that one takes it.
    pace: Option<Duration>,
    held: Held,
    /// Bytes per second to it.
    bandwidth: Option<f64>,
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

    /// It offers so many slots now; 0 for one that is not eligible.
    pub(super) fn offers(&mut self, worker: NodeId, slots: u16) {
        self.change(worker, |it| {
            it.slots = usize::from(slots);
            it.ours = it.tasks.len();
        });
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

    /// It has these contents now.
    pub(super) fn staged(&mut self, worker: NodeId, contents: impl Iterator<Item = Content>, took: Took) {
        self.change(worker, |it| {
            let bytes = it.held.add(contents);
            if bytes < MEASURED {
                return;
            }
            let (least, most) = BANDWIDTHS;
            let rate = |took: Duration| (bytes as f64 / took.as_secs_f64().max(1e-6)).clamp(least, most);
            match took {
                Took::About(took) => {
                    let rate = rate(took);
                    it.bandwidth = Some(it.bandwidth.map_or(rate, |before| before + WEIGHT * (rate - before)));
                }
                Took::AtMost(took) if rate(took) > it.bandwidth() => it.bandwidth = Some(rate(took)),
                Took::AtMost(_) | Took::Unknown => {}
            }
        });
    }

    /// What it was staged with is gone: it was started again, or lacks what it should have.
    pub(super) fn emptied(&mut self, worker: NodeId) {
        self.change(worker, |it| it.held = Held::default());
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
            ours: 0,
            pace: None,
            held: Held::default(),
            bandwidth: None,
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
    /// The hashes of contents that it has, ascending.
    pub(super) fn held(&self) -> Arc<[[u8; 32]]> {
        Arc::clone(&self.held.hashes)
    }

    /// Bytes per second to it.
    pub(super) fn bandwidth(&self) -> f64 {
        self.bandwidth.unwrap_or(BANDWIDTH)
    }

    /// How many tasks it has, where its offer says that it had `taken`: those that were others' then, and those that are ours now.
    pub(super) fn load(&self, taken: usize) -> usize {
        taken.saturating_sub(self.ours).saturating_add(self.tasks.len())
    }

    /// Milliseconds until a slot is free, where it has `tasks`: as many of them end before as there are beyond its slots less one, each
    /// after its pace. 0 as long as no pace is known.
    pub(super) fn queue_ms(&self, tasks: usize) -> f64 {
        let before = (tasks + 1).saturating_sub(self.slots.max(1));
        before as f64 * self.pace.map_or(0.0, |pace| pace.as_secs_f64() * 1e3)
    }

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
