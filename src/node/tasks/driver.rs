//! The thread that drives the cores of fog-tasks: what comes (frames, what users want, what runs gave, the host) goes into them, and what they
//! want is done, in its order. What must be kept is on the disk before anything that follows from it leaves.

mod deeds;
mod trouble;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fog_base::{DropCounters, MessageId, NodeId, Now};
use fog_mix::core::endpoint::ReplyBlock;
use fog_tasks::{
    Arrived, Content, Streams,
    core::{
        coordinator::{self, Coordinator, TaskEvent},
        harvest::Action,
        ids::{ExecutionId, TaskId},
        pay::Verdict,
        row::Row,
        standing::Prior,
        work::Work,
        worker::{self, RunEvent, Worker},
    },
    sandbox::{Pool, PoolEvent},
    wire::{Message, StageError, StreamKind},
};
use futures::{StreamExt, channel::mpsc as frames};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::deeds::Deed;
pub(super) use self::trouble::Ground;
use self::trouble::Trouble;
use super::{
    contents::{self, Bytes, Contents, Needed},
    desk::Counts,
    lies::Lies,
    logs::Logs,
    mixed::{Mixed, News},
    offering::Capacity,
    runs::Runs,
};
use crate::{
    node::clock,
    store::{Batch, Committed, StoreError, Table, Writer},
};

/// What waits for the driver.
pub(super) const INPUTS: usize = 1_024;
/// Files of tasks that ended are kept up to this size, as long as the task is remembered: the same work may be asked for again, by
/// whoever is checked with it.
const KEPT: u64 = 1024 * 1024;
/// What is taken before outputs are looked at.
const TAKEN: usize = 256;

/// Something to do in the driver, between two things that happen; what it yields is done when all that followed is on the disk.
pub(super) type Job = Box<dyn FnOnce(&mut Driver, Now) -> Box<dyn FnOnce() + Send> + Send>;

/// Something happened.
pub(super) enum Input {
    /// Somebody wants something.
    Job(Job),
    /// A run has come further.
    Pool(PoolEvent),
    /// The host changed.
    Harvest(Action),
    /// Gossip brought a valid offer, and this is what others say of its worker's results.
    Offer { bytes: Vec<u8>, worker: NodeId, heard: Prior },
    /// The file of a manifest is here, or not.
    Fetched(Vec<u8>, Option<Vec<u8>>),
    /// The mixnet brought something.
    Mixed(News),
    /// A file is shared under this manifest, or not.
    Shared(ExecutionId, Option<Vec<u8>>),
}

/// What a file is fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fetch {
    /// What executions wait for.
    Content(Content),
    /// A task's output.
    Output(TaskId, NodeId),
}

/// What the event loop does for tasks.
#[derive(Debug)]
pub(in crate::node) enum Want {
    /// Tell everybody of an offer.
    Publish(Vec<u8>),
    /// Share a file.
    Share {
        path: std::path::PathBuf,
        /// Whether only who knows the key can read it.
        is_sealed: bool,
        reply: oneshot::Sender<Option<Vec<u8>>>,
    },
    /// Fetch a file from a node.
    Fetch { manifest: Vec<u8>, path: std::path::PathBuf, from: NodeId, reply: oneshot::Sender<bool> },
    /// Do not share what this manifest names any more.
    Unshare(Vec<u8>),
    /// Send this to a worker's node through the mixnet, with reply blocks.
    Mix { message: MessageId, to: NodeId, blocks: usize, body: Vec<u8> },
    /// Answer by a reply block.
    Answer { block: Box<ReplyBlock>, piece: Vec<u8> },
    /// What a worker proved to be.
    Verdict { worker: NodeId, verdict: Verdict, value: u64 },
}

/// Drives.
pub(super) struct Driver {
    pub(super) me: NodeId,
    pub(super) coordinator: Coordinator,
    pub(super) worker: Worker,
    pub(super) contents: Contents,
    pub(super) runs: Runs,
    pub(super) capacity: Capacity,
    pub(super) logs: Logs,
    /// Which contents' files tasks need.
    pub(super) needed: Needed<TaskId>,
    /// Manifests of what is shared, by what it is shared for.
    pub(super) shared: BTreeMap<Content, Vec<u8>>,
    pub(super) outputs: BTreeMap<ExecutionId, Vec<u8>>,
    /// Who waits for the end of a task.
    pub(super) waiters: BTreeMap<TaskId, Vec<oneshot::Sender<()>>>,
    /// How many contents executions lack.
    pub(super) lacking: BTreeMap<ExecutionId, usize>,
    /// Who waits for what is being fetched.
    pub(super) wanted: BTreeMap<Content, Vec<ExecutionId>>,
    pub(super) staged: BTreeMap<ExecutionId, Vec<(Content, Bytes)>>,
    pub(super) lies: Lies,
    pub(super) streams: Streams,
    pub(super) wants: mpsc::Sender<Want>,
    pub(super) inputs: mpsc::Sender<Input>,
    writer: Writer,
    ground: Ground,
    held: VecDeque<(Option<Committed>, Vec<Deed>)>,
    trouble: Option<Trouble>,
    /// What is being fetched, by its manifest, and what for.
    pub(super) fetches: BTreeMap<Vec<u8>, BTreeSet<Fetch>>,
    pub(super) drops: Arc<DropCounters>,
    pub(super) counts: Arc<Counts>,
    pub(super) mixed: Mixed,
}

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) me: NodeId,
    pub(super) coordinator: Coordinator,
    pub(super) worker: Worker,
    pub(super) contents: Contents,
    pub(super) capacity: Capacity,
    pub(super) pool: Arc<Pool>,
    pub(super) lies: Lies,
    pub(super) streams: Streams,
    pub(super) wants: mpsc::Sender<Want>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) writer: Writer,
    pub(super) ground: Ground,
    pub(super) drops: Arc<DropCounters>,
    pub(super) counts: Arc<Counts>,
    pub(super) mixed: Mixed,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            me,
            coordinator,
            worker,
            contents,
            capacity,
            pool,
            lies,
            streams,
            wants,
            inputs,
            writer,
            ground,
            drops,
            counts,
            mixed,
        } = parts;
        let (mut needed, mut shared) = (Needed::default(), BTreeMap::new());
        for (task, content, manifest) in coordinator.blobs() {
            needed.add(content, task);
            shared.insert(content, manifest.to_vec());
        }
        if let Err(error) = contents.sweep(&needed.contents()) {
            tracing::debug!(%error, "old files of tasks are not removed");
        }
        Self {
            me,
            coordinator,
            worker,
            contents,
            capacity,
            runs: Runs::new(pool),
            logs: Logs::default(),
            needed,
            shared,
            outputs: BTreeMap::new(),
            waiters: BTreeMap::new(),
            lacking: BTreeMap::new(),
            wanted: BTreeMap::new(),
            staged: BTreeMap::new(),
            lies,
            streams,
            wants,
            inputs,
            writer,
            ground,
            held: VecDeque::new(),
            trouble: None,
            fetches: BTreeMap::new(),
            drops,
            counts,
            mixed,
        }
    }

    /// Runs until `shutdown`, or until nobody is left who could want something.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut arrived: frames::Receiver<Arrived>,
        shutdown: CancellationToken,
    ) {
        self.settle(clock::now());
        loop {
            let due = self.due();
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                outcome = committed(&mut self.held) => self.on_committed(outcome),
                Some(input) = inputs.recv() => {
                    self.take(input);
                    for _ in 0..TAKEN {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.take(input);
                    }
                }
                Some(news) = arrived.next() => {
                    self.arrive(news);
                    for _ in 0..TAKEN {
                        let Ok(news) = arrived.try_recv() else { break };
                        self.arrive(news);
                    }
                }
                () = sleep => {}
            }
            let now = clock::now();
            if self.stands_still(now) {
                continue;
            }
            self.follow_relays(now);
            self.coordinator.handle_timeout(now);
            self.worker.handle_timeout(now);
            self.settle(now);
            self.counts.checks.store(self.coordinator.spot_checks(), Ordering::Relaxed);
        }
    }

    fn take(&mut self, input: Input) {
        let now = clock::now();
        match input {
            // Who waits for it hears that tasks stand still.
            Input::Job(_) if self.trouble.is_some() => {}
            Input::Job(job) => {
                let reply = job(self, now);
                self.settle(now);
                self.then(vec![Deed::Reply(reply)]);
            }
            Input::Pool(event) => self.on_pool(event, now),
            Input::Harvest(action) => self.on_harvest(action, now),
            Input::Offer { bytes, worker, heard } => {
                self.coordinator.set_prior(worker, heard);
                if let Err(reject) = self.coordinator.handle_offer(&bytes, now) {
                    tracing::debug!(?reject, "an offer is not taken");
                }
            }
            Input::Fetched(manifest, bytes) => self.on_fetched(&manifest, bytes, now),
            Input::Mixed(_) if self.trouble.is_some() => self.drops.count(fog_base::DropReason::QueueFull),
            Input::Mixed(news) => self.on_mixed(news, now),
            Input::Shared(execution, manifest) => match manifest {
                Some(manifest) => {
                    self.worker.handle_shared(execution, &manifest, now);
                    self.outputs.insert(execution, manifest);
                    // Nobody wants it any more: nobody would take it away either.
                    if self.trouble.is_some() || !self.worker.holds(execution) {
                        self.release(execution);
                    }
                }
                None => tracing::warn!("the output of a task cannot be shared: is the disk full?"),
            },
        }
    }

    fn arrive(&mut self, news: Arrived) {
        let now = clock::now();
        match news {
            Arrived::Connected(node) => self.coordinator.handle_connected(node, None, now),
            Arrived::Gone(node) => self.coordinator.handle_gone(node, now),
            Arrived::Frame(..) if self.trouble.is_some() => self.drops.count(fog_base::DropReason::QueueFull),
            Arrived::Frame(from, bytes) => match Message::decode(&bytes) {
                Ok(message) => {
                    if !matches!(message, Message::Offers(_)) {
                        self.counts.ways.stream_received.fetch_add(1, Ordering::Relaxed);
                    }
                    self.hear(from, message, now);
                }
                Err(error) => {
                    tracing::debug!(%from, %error, "a peer sent what is no message of tasks");
                    self.drops.count(fog_base::DropReason::Malformed);
                }
            },
        }
    }

    fn hear(&mut self, from: NodeId, message: Message, now: Now) {
        let heard = match message {
            Message::ToWorker(message) => self.worker.handle_message(from, message, now),
            Message::ToCoordinator(message) => self.coordinator.handle_message(from, message, now),
            Message::Offers(message) => self.coordinator.handle_offers(from, message, now),
        };
        if let Err(reject) = heard {
            tracing::debug!(%from, ?reject, "a message of tasks is not taken");
        }
    }

    /// Takes all outputs, until there are none, and does them or holds them back until the disk has what they need. What stays inside does
    /// not wait: it is lost together with the rows that it would be ahead of.
    fn settle(&mut self, now: Now) {
        loop {
            let (mut batch, mut deeds) = (Batch::new(), Vec::new());
            while let Some(output) = self.coordinator.poll_output() {
                self.of_coordinator(output, &mut batch, &mut deeds, now);
            }
            while let Some(output) = self.worker.poll_output() {
                self.of_worker(output, &mut batch, &mut deeds, now);
            }
            if batch.is_empty() && deeds.is_empty() {
                return;
            }
            let (inside, outside) = deeds.into_iter().partition(|deed| deed.stays_inside(self.me));
            if !batch.is_empty() {
                let committed = self.submit(batch);
                self.held.push_back((Some(committed), outside));
            } else {
                self.then(outside);
            }
            self.perform(inside);
        }
    }

    fn of_coordinator(&mut self, output: coordinator::Output, batch: &mut Batch, deeds: &mut Vec<Deed>, now: Now) {
        use coordinator::Output;
        deeds.push(match output {
            Output::Send { to, message } => Deed::Send(to, Message::ToWorker(message)),
            Output::Mixed { to, execution, message } => Deed::Mixed(to, execution, message),
            Output::Offers { to, message } => Deed::Send(to, Message::Offers(message)),
            Output::Persist(rows) => return add(batch, rows),
            // Its row is among the worker's outputs, and so in this batch.
            Output::Owe { to, amount } => return self.worker.owe(to, amount, now),
            Output::Event(task, event) => Deed::Event(task, event),
            Output::Verdict { worker, verdict, value, .. } => {
                if worker == self.me {
                    return;
                }
                Deed::Want(Want::Verdict { worker, verdict, value })
            }
            Output::FetchOutput { task, manifest, from } => Deed::FetchOutput(task, manifest, from),
            Output::Forget(task) => Deed::Forget(task),
            Output::Drop(reason) => return self.drops.count(reason),
        });
    }

    fn of_worker(&mut self, output: worker::Output, batch: &mut Batch, deeds: &mut Vec<Deed>, now: Now) {
        use worker::Output;
        deeds.push(match output {
            Output::Send { to, message } => Deed::Send(to, Message::ToCoordinator(message)),
            Output::Stage { execution, items } => Deed::Stage(execution, items),
            Output::Run { execution, work, wall } => Deed::Run(execution, work, wall),
            Output::Stop(execution) => Deed::Stop(execution),
            Output::Release(execution) => Deed::Release(execution),
            Output::Publish(record) => {
                let bytes = record.as_bytes().to_vec();
                if let Err(reject) = self.coordinator.handle_offer(&bytes, now) {
                    tracing::debug!(?reject, "this node does not take its own offer");
                }
                Deed::Want(Want::Publish(bytes))
            }
            Output::ShareOutput { execution, outcome, .. } => Deed::Share(execution, outcome),
            Output::Persist(rows) => return add(batch, rows),
            Output::Drop(reason) => return self.drops.count(reason),
        });
    }

    pub(super) fn want(&self, want: Want) {
        if self.wants.try_send(want).is_err() {
            self.drops.count(fog_base::DropReason::QueueFull);
        }
    }

    fn on_event(&mut self, task: TaskId, event: TaskEvent) {
        match event {
            TaskEvent::State(_) => {}
            TaskEvent::Log { worker, stream, bytes } => {
                self.logs.add(task, worker, stream == StreamKind::Stderr, &bytes);
            }
            TaskEvent::Ended(_) => {
                self.counts.ended.fetch_add(1, Ordering::Relaxed);
                self.logs.end(task);
                let free = self.needed.forget_larger(task, KEPT);
                self.unshare(free);
                for waiter in self.waiters.remove(&task).unwrap_or_default() {
                    let _gone = waiter.send(());
                }
            }
        }
    }

    /// The files of a task are not needed any more.
    fn forget(&mut self, task: TaskId) {
        self.logs.end(task);
        let free = self.needed.forget_larger(task, 0);
        self.unshare(free);
    }

    /// These files are not needed any more.
    fn unshare(&mut self, free: Vec<Content>) {
        for content in free {
            if let Some(manifest) = self.shared.remove(&content) {
                self.want(Want::Unshare(manifest));
            }
            contents::remove(&self.contents.path(&content));
        }
    }

    fn on_harvest(&mut self, action: Action, now: Now) {
        match action {
            Action::Freeze => self.worker.set_frozen(true, now),
            Action::Thaw => self.worker.set_frozen(false, now),
            Action::Vacate => {
                self.worker.set_frozen(false, now);
                self.worker.vacate(now);
            }
            Action::Kill => {}
            Action::Slots(slots) => self.capacity.slots = slots,
        }
        self.offer(now);
    }

    /// Says what this host offers as it is now.
    fn offer(&mut self, now: Now) {
        self.worker.set_capacity(self.capacity.offer(), now);
    }

    fn start(&mut self, execution: ExecutionId, work: Arc<Work>, wall: Duration, now: Now) {
        let staged = self.staged.get(&execution).map(Vec::as_slice).unwrap_or_default();
        match super::runs::job(&work, staged, wall) {
            Some(job) => self.runs.start(execution, job),
            // The core stages before it runs.
            None => self.worker.handle_staged(execution, Err(StageError::Missing), now),
        }
    }

    fn on_pool(&mut self, event: PoolEvent, now: Now) {
        let Some((execution, event)) = self.runs.of(event, now.mono) else { return };
        let event = match event {
            RunEvent::Done(outcome) => RunEvent::Done(self.lies.committed(execution, outcome, self.me)),
            event => event,
        };
        if let RunEvent::Done(_) = &event {
            self.counts.runs.fetch_add(1, Ordering::Relaxed);
        }
        if let RunEvent::Done(_) = &event
            && self.capacity.measure(self.runs.speed())
        {
            self.offer(now);
        }
        self.worker.handle_run(execution, event, now);
    }
}

fn add(batch: &mut Batch, rows: Vec<Row>) {
    for Row { key, value } in rows {
        match value {
            Some(value) => batch.put(Table::Tasks, key, value),
            None => batch.delete(Table::Tasks, key),
        };
    }
}

/// The answer to what is held back longest; never, if nothing is.
async fn committed(held: &mut VecDeque<(Option<Committed>, Vec<Deed>)>) -> Result<(), StoreError> {
    match held.front_mut().and_then(|(committed, _)| committed.as_mut()) {
        Some(committed) => committed.await.unwrap_or(Err(StoreError::Closed)),
        None => std::future::pending().await,
    }
}
