//! The worker's side of tasks: it answers bids, holds leases, stages and runs, commits, reveals, and takes vouchers. It runs nothing
//! itself: the node does what the outputs say, and tells what came of it.
//!
//! The README has the states and the timers. What stops here: a coordinator that does not pay (its credit), that vanishes (its lease),
//! that says one thing twice (each answer is kept as long as its question may come again), and one that wants more than this host gives.

mod bid;
mod execution;
mod lease;
mod offering;
mod result;
mod saved;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{DropReason, NetworkId, NodeId, Now, record::SignedRecord};

use self::{
    execution::{Execution, State},
    offering::Offering,
};
use super::{
    ids::ExecutionId,
    mixed,
    offer::Offer,
    outcome::Outcome,
    pay::{Balances, Earned, Interval, LocalAccounts, Payee},
    reject::Reject,
    row::Row,
    signer::Signer,
    terms::{Class, Privacy},
    timers::Timers,
    uptime::Uptime,
    work::{Content, Work},
};
use crate::wire::{Failure, Phase, Refusal, Source, StageError, StreamKind, ToCoordinator, ToWorker};

/// The most outputs that wait to be taken; beyond it no bid is answered.
pub const MAX_OUTPUTS: usize = 4_096;

/// How a worker behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The most executions that it knows at once, in any state.
    pub max_executions: usize,
    /// The most that wait for a slot, staged or not.
    pub max_queued: usize,
    /// How many runs are handed out beyond the slots, so that a slot need not wait for this core.
    pub run_ahead: usize,
    /// How long an agreement waits for its lease.
    pub agreement_wait: Duration,
    /// How long a result is kept for its coordinator to ask for it.
    pub result_hold: Duration,
    /// How long the last answer of a closed execution is kept, for the question to come again.
    pub closed_hold: Duration,
    /// All kept results together, in bytes: beyond it no bid is taken.
    pub max_held_bytes: usize,
    /// The most bytes of log that are sent for one execution.
    pub max_log_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_executions: 4_096,
            max_queued: 256,
            run_ahead: 2,
            agreement_wait: Duration::from_secs(10),
            result_hold: Duration::from_secs(600),
            closed_hold: Duration::from_secs(120),
            max_held_bytes: 256 * 1024 * 1024,
            max_log_bytes: 256 * 1024,
        }
    }
}

/// What a worker wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Tell a coordinator.
    Send {
        /// Whom; may be this node itself.
        to: NodeId,
        /// What.
        message: ToCoordinator,
    },
    /// Get these contents and keep them until [`Output::Release`]; then [`Worker::handle_staged`].
    Stage {
        /// For this execution.
        execution: ExecutionId,
        /// Each content once. Inline ones were checked against their names.
        items: Vec<(Content, Source)>,
    },
    /// Run it; then [`Worker::handle_run`].
    Run {
        /// The execution.
        execution: ExecutionId,
        /// What to run; all its contents are staged.
        work: Arc<Work>,
        /// How long it may run, standstill not counted.
        wall: Duration,
    },
    /// Stop running or staging it. Nothing more of it is listened to.
    Stop(ExecutionId),
    /// Its contents are not needed any more.
    Release(ExecutionId),
    /// Send this offer to everybody.
    Publish(SignedRecord),
    /// Make a blob of the encoded outcome for its coordinator; then [`Worker::handle_shared`].
    ShareOutput {
        /// The execution.
        execution: ExecutionId,
        /// For whom.
        to: NodeId,
        /// What it gave.
        outcome: Arc<Outcome>,
    },
    /// Keep these before any later output is acted upon.
    Persist(Vec<Row>),
    /// Something was dropped.
    Drop(DropReason),
}

/// What the node says of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// It has a slot.
    Started,
    /// A piece of its text.
    Log(StreamKind, Vec<u8>),
    /// It ended.
    Done(Outcome),
}

/// How busy a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Handed to the node to run.
    pub running: usize,
    /// Agreed, and not running yet.
    pub waiting: usize,
    /// Known in any state.
    pub executions: usize,
    /// Bytes of results that are kept for their coordinators.
    pub held_bytes: usize,
}

/// The worker's side of all its executions.
#[derive(Debug, Clone)]
pub struct Worker<B = LocalAccounts> {
    config: Config,
    signer: Signer,
    /// What a commit's nonce is derived from; known to nobody else.
    secret: [u8; 32],
    executions: BTreeMap<ExecutionId, Execution>,
    /// Staged ones in the order in which they run: the class that matters most, then the oldest.
    queue: BTreeSet<(std::cmp::Reverse<Class>, u64, ExecutionId)>,
    next_place: u64,
    running: usize,
    waiting: usize,
    held_bytes: usize,
    /// Since when everything stands still.
    frozen: Option<Instant>,
    timers: Timers<ExecutionId>,
    heartbeats: BTreeMap<NodeId, Instant>,
    offering: Offering,
    uptime: Uptime,
    balances: B,
    payee: Payee,
    outputs: VecDeque<Output>,
    /// What is being heard came through the mixnet.
    nameless: bool,
}

impl<B: Balances> Worker<B> {
    /// A worker that offers nothing until [`Worker::set_capacity`].
    pub fn new(config: Config, key: Arc<SigningKey>, network: NetworkId, balances: B, now: Now) -> Self {
        let secret = blake3::derive_key("fog commit nonce v1", key.as_bytes());
        Self {
            config,
            signer: Signer::new(key, network),
            secret,
            executions: BTreeMap::new(),
            queue: BTreeSet::new(),
            next_place: 0,
            running: 0,
            waiting: 0,
            held_bytes: 0,
            frozen: None,
            timers: Timers::new(),
            heartbeats: BTreeMap::new(),
            offering: Offering::new(now),
            uptime: Uptime::default(),
            balances,
            payee: Payee::new(),
            outputs: VecDeque::new(),
            nameless: false,
        }
    }

    /// Takes what a coordinator says. What is repeated is answered as before.
    pub fn handle_message(&mut self, from: NodeId, message: ToWorker, now: Now) -> Result<(), Reject> {
        let taken = match message {
            ToWorker::Bid { record, work } => self.on_bid(from, record, &work, now),
            ToWorker::Lease(record) => self.on_lease(from, record, now),
            ToWorker::Stage { execution, items } => self.on_stage(from, execution, items, now),
            ToWorker::Cancel(execution) => self.on_cancel(from, execution, now),
            ToWorker::Reveal { execution, want_output } => self.on_reveal(from, execution, want_output, now),
            ToWorker::Voucher(record) => self.on_voucher(from, record, now),
        };
        if let Err(reject) = &taken {
            self.push(Output::Drop(reject.drop_reason()));
        }
        self.after(now);
        taken
    }

    /// Takes what a coordinator without a name says: `from` is the key that signed it. The answers go by its reply blocks.
    pub fn handle_nameless(&mut self, from: NodeId, message: ToWorker, now: Now) -> Result<(), Reject> {
        self.nameless = true;
        let taken = self.handle_message(from, message, now);
        self.nameless = false;
        taken
    }

    /// The contents of an execution are there, or cannot be had.
    pub fn handle_staged(&mut self, execution: ExecutionId, staged: Result<(), StageError>, now: Now) {
        self.on_staged(execution, staged, now);
        self.after(now);
    }

    /// What became of a run.
    pub fn handle_run(&mut self, execution: ExecutionId, event: RunEvent, now: Now) {
        self.on_run(execution, event, now);
        self.after(now);
    }

    /// The blob of an output that was to be shared: its encoded manifest.
    pub fn handle_shared(&mut self, execution: ExecutionId, manifest: &[u8], now: Now) {
        self.on_shared(execution, manifest);
        self.after(now);
    }

    /// What this host offers from now on; free slots, queue, eligibility while frozen and the multiplier for uptime are filled in.
    pub fn set_capacity(&mut self, capacity: Offer, now: Now) {
        self.offering.set(capacity);
        self.after(now);
    }

    /// Whether everything stands still for the host's user. The node stops the processes itself, first.
    pub fn set_frozen(&mut self, frozen: bool, now: Now) {
        if self.is_frozen() != frozen {
            let since = std::mem::replace(&mut self.frozen, frozen.then_some(now.mono));
            for execution in self.executions.values_mut() {
                match since {
                    None => execution.freeze(now.mono),
                    Some(since) => execution.thaw(now.mono, now.mono.saturating_duration_since(since)),
                }
            }
            // Coordinators are told at once.
            self.heartbeats.values_mut().for_each(|at| *at = now.mono);
            self.reschedule_all();
        }
        self.after(now);
    }

    /// Gives up whatever has no result yet: the host needs its resources. Its coordinators are told.
    pub fn vacate(&mut self, now: Now) {
        let open: Vec<_> = self.executions.iter().filter(|(_, e)| e.is_open()).map(|(id, _)| *id).collect();
        for id in open {
            self.fail(id, Failure::Vacated, now);
        }
        self.after(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(id) = self.timers.pop(now.mono) {
            self.on_due(id, now);
        }
        self.after(now);
    }

    /// When [`Worker::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let heartbeat = self.heartbeats.values().min().copied();
        [self.timers.next(), heartbeat, self.offering.next(), self.uptime.next()].into_iter().flatten().min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        let (running, waiting, held_bytes) = (self.running, self.waiting, self.held_bytes);
        Load { running, waiting, executions: self.executions.len(), held_bytes }
    }

    /// Micro-credits that vouchers promised.
    pub fn earned(&self) -> u64 {
        self.payee.total()
    }

    /// What is between this node and its peers.
    pub fn balances(&self) -> &B {
        &self.balances
    }

    /// This node's coordinator gave `to` a voucher for `amount`. It is kept with what the coordinator keeps of that voucher, if the node
    /// writes both sides' rows together.
    pub fn owe(&mut self, to: NodeId, amount: u64, now: Now) {
        if amount > 0 && to != self.signer.me() {
            self.balances.owe(to, amount, now.unix);
            let row = self.balance_row(to);
            self.push(Output::Persist(vec![row]));
        }
    }

    /// Whose execution it is.
    pub fn coordinator(&self, execution: ExecutionId) -> Option<NodeId> {
        self.executions.get(&execution).map(|execution| execution.coordinator)
    }

    /// What coordinators promised to this node, from the oldest.
    pub fn accounts(&self) -> impl Iterator<Item = (NodeId, Interval, &Earned)> {
        self.payee.accounts()
    }

    /// Whether somebody without a name may have anything to say to it.
    pub fn takes_nameless(&self) -> bool {
        self.offer().accepts.privacy.contains(&Privacy::Mixed)
            || self.executions.values().any(|execution| execution.nameless)
    }

    /// Whether the result of an execution is held for its coordinator.
    pub fn holds(&self, execution: ExecutionId) -> bool {
        self.executions.get(&execution).is_some_and(|it| matches!(it.state, State::Committed(_)))
    }

    /// What an execution that has no result yet does.
    pub fn phase(&self, execution: ExecutionId) -> Option<Phase> {
        self.executions.get(&execution)?.phase(self.is_frozen())
    }

    /// What follows from whatever happened: runs that can start, heartbeats and an offer that are due.
    fn after(&mut self, now: Now) {
        self.start_runs(now);
        self.beat(now);
        self.look_at_uptime(now);
        self.publish(now);
    }

    /// What [`Worker::set_frozen`] said.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    fn beat(&mut self, now: Now) {
        let frozen = self.is_frozen();
        let due: Vec<_> = self.heartbeats.iter().filter(|(_, at)| **at <= now.mono).map(|(to, _)| *to).collect();
        for to in due {
            let mut phases = Vec::new();
            let mut every = None;
            for (id, execution) in self.executions.iter().filter(|(_, execution)| execution.coordinator == to) {
                if let Some(phase) = execution.phase(frozen) {
                    phases.push((*id, phase));
                    every = every.into_iter().chain(execution.heartbeat()).min();
                }
            }
            match every {
                Some(every) => self.heartbeats.insert(to, now.mono + every),
                None => self.heartbeats.remove(&to),
            };
            for part in phases.chunks(crate::wire::message::MAX_HEARTBEAT) {
                self.send(to, ToCoordinator::Heartbeat(part.to_vec()));
            }
        }
    }

    fn send(&mut self, to: NodeId, message: ToCoordinator) {
        self.push(Output::Send { to, message });
    }

    fn refuse(&mut self, to: NodeId, execution: ExecutionId, reason: Refusal) {
        self.send(to, ToCoordinator::Refused { execution, reason });
    }

    fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn reschedule(&mut self, id: ExecutionId) {
        let due = self.executions.get(&id).and_then(|execution| execution.due(self.is_frozen()));
        self.timers.set(id, due);
    }

    fn reschedule_all(&mut self) {
        let ids: Vec<_> = self.executions.keys().copied().collect();
        ids.into_iter().for_each(|id| self.reschedule(id));
    }

    /// Puts an execution into a state and keeps the counts.
    fn enter(&mut self, id: ExecutionId, state: State) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        if let State::Queued { .. } = execution.state {
            self.queue.remove(&(std::cmp::Reverse(execution.bid.class), execution.place, id));
        }
        let (waited, ran, held) = execution.counts();
        execution.state = state;
        let (waits, runs, holds) = execution.counts();
        self.waiting = (self.waiting + usize::from(waits)).saturating_sub(usize::from(waited));
        self.running = (self.running + usize::from(runs)).saturating_sub(usize::from(ran));
        self.held_bytes = (self.held_bytes + holds).saturating_sub(held);
        self.reschedule(id);
    }

    /// Forgets an execution, and what its coordinator reserved by it.
    fn forget(&mut self, id: ExecutionId, now: Now) {
        let unpaid = self.executions.get(&id).map_or(0, Execution::given_away);
        self.enter(id, State::Gone);
        if let Some(execution) = self.executions.remove(&id) {
            self.release_credit(&execution, now);
        }
        self.give_away(unpaid, now);
        self.timers.set(id, None);
    }

    /// Books what those without a name got and nobody paid for.
    fn give_away(&mut self, unpaid: u64, now: Now) {
        if unpaid > 0 {
            self.balances.earn(mixed::NOBODY, unpaid, now.unix);
            let row = self.balance_row(mixed::NOBODY);
            self.push(Output::Persist(vec![row]));
        }
    }

    fn release_credit(&mut self, execution: &Execution, now: Now) {
        if execution.reserved > 0 {
            self.balances.release(execution.debtor(), execution.reserved, now.unix);
        }
    }

    /// All that it knows, in one text.
    #[cfg(test)]
    pub(crate) fn fingerprint(&self) -> String
    where
        B: std::fmt::Debug,
    {
        let known = (&self.executions, &self.queue, &self.timers, &self.heartbeats, &self.offering, &self.frozen);
        format!("{known:?}{:?}{:?}{:?}", self.balances, self.payee, self.outputs)
    }
}
