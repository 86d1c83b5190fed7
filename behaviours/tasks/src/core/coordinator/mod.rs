//! The coordinator's side of tasks: it takes submissions, chooses workers, leases, compares what they commit to, pays, and ends each task
//! exactly once, also over its own restarts. It does no IO: the node does what the outputs say, in their order, and tells what came of it.
//!
//! The README has the states and the timers. What stops here: workers that vanish (heartbeats, leases), lie (votes), copy (commit before
//! reveal), overcharge (the rate of the agreement, the fuel of the accepted result), answer late or twice (one state per execution), and
//! say nothing that counts (each thing that is waited for has its time).

mod candidates;
#[cfg(test)]
mod copier_tests;
mod decide;
mod execution;
#[cfg(test)]
mod locality_tests;
mod mixed;
mod place;
mod reconcile;
mod replies;
mod saved;
mod settle;
mod submit;
mod task;
#[cfg(test)]
mod tests;
mod topology;
mod view;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{DropReason, NetworkId, NodeId, Now};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use self::{task::Task, workers::Workers};
pub use self::{
    topology::{Snapshot, WorkerView},
    view::{End, Failed, ReplicaView, TaskState, TaskView, TrustedBy},
};
use super::{
    ids::{ExecutionId, TaskId},
    memo::{self, Memo},
    offers::{Accept, MAX_OFFERS, OfferReject, Offers},
    outcome::Outcome,
    pay::{Interval, Paid, Payer, Verdict},
    reject::Reject,
    row::Row,
    signer::Signer,
    standing::{Prior, Standings},
    terms::{Class, Terms},
    timers::Timers,
    work::{Content, Work},
};
use crate::wire::{OfferMessage, Source, StreamKind, ToCoordinator, ToWorker};

/// The most outputs that wait to be taken; beyond it no submission is taken.
pub const MAX_OUTPUTS: usize = 4_096;

/// How a coordinator behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The most tasks that have not ended.
    pub max_open: usize,
    /// How many ended ones are remembered.
    pub max_ended: usize,
    /// How long a lease lasts; it is renewed at half of it.
    pub lease: Duration,
    /// How often workers say that they live.
    pub heartbeat: Duration,
    /// So many heartbeats missing, and an execution is given up.
    pub missed_heartbeats: u32,
    /// How long a worker may be unconnected.
    pub gone: Duration,
    /// How often a bid, a lease or a reveal is said before a worker that does not answer is given up.
    pub tries: u32,
    /// The most executions of one task, for each result that is needed.
    pub attempts: u32,
    /// How many snapshots of the topology are kept.
    pub max_snapshots: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_open: 16_384,
            max_ended: 4_096,
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(1),
            missed_heartbeats: 3,
            gone: Duration::from_secs(5),
            tries: 3,
            attempts: 5,
            max_snapshots: 100,
        }
    }
}

/// A task to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// What to compute.
    pub work: Work,
    /// What is wanted beside.
    pub terms: Terms,
    /// Where each content of the work is: each once. At most 64 KiB of one and 256 KiB together inline; the rest in blobs.
    pub sources: Vec<(Content, Source)>,
}

/// What happened to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskEvent {
    /// It has come further, or back.
    State(TaskState),
    /// A piece of text of one of its runs, not verified.
    Log {
        /// Whose run.
        worker: NodeId,
        /// Which text.
        stream: StreamKind,
        /// The text.
        bytes: Vec<u8>,
    },
    /// It ended. This comes once.
    Ended(End),
}

/// What a coordinator wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Tell a worker.
    Send {
        /// Whom; may be this node itself.
        to: NodeId,
        /// What.
        message: ToWorker,
    },
    /// Tell a worker through the mixnet, with [`Coordinator::execution_key`] and in no other way.
    Mixed {
        /// Whom.
        to: NodeId,
        /// Of which execution.
        execution: ExecutionId,
        /// What.
        message: ToWorker,
    },
    /// Tell a node of offers.
    Offers {
        /// Whom.
        to: NodeId,
        /// What.
        message: OfferMessage,
    },
    /// Keep these before any later output is acted upon.
    Persist(Vec<Row>),
    /// Tell whoever follows a task.
    Event(TaskId, TaskEvent),
    /// What a worker proved to be: for the node's reputation.
    Verdict {
        /// Who.
        worker: NodeId,
        /// By which execution.
        execution: ExecutionId,
        /// What came of it.
        verdict: Verdict,
        /// What it was worth, in micro-credits.
        value: u64,
    },
    /// This node owes a worker so many micro-credits more: kept with the rows before it, or both are lost.
    Owe {
        /// Whom.
        to: NodeId,
        /// What the voucher is for.
        amount: u64,
    },
    /// Fetch the encoded outcome from this blob; then [`Coordinator::handle_fetched`].
    FetchOutput {
        /// For which task.
        task: TaskId,
        /// The encoded manifest.
        manifest: Vec<u8>,
        /// Who has it.
        from: NodeId,
    },
    /// What the node keeps for this task beside the rows (blobs, logs) is not needed any more.
    Forget(TaskId),
    /// Something was dropped.
    Drop(DropReason),
}

/// The coordinator's side of all its tasks.
#[derive(Debug, Clone)]
pub struct Coordinator {
    config: Config,
    signer: Signer,
    rng: ChaCha20Rng,
    tasks: BTreeMap<TaskId, Task>,
    executions: BTreeMap<ExecutionId, TaskId>,
    /// Tasks that want a worker: the class that matters most first, then the oldest.
    hungry: BTreeSet<(std::cmp::Reverse<Class>, u64, TaskId)>,
    /// Ended ones, oldest first.
    ended: VecDeque<TaskId>,
    open: usize,
    next_number: u64,
    workers: Workers,
    strategies: candidates::Strategies,
    meetings: reconcile::Meetings,
    mixed: mixed::Mixed,
    offers: Offers,
    /// When the first of them expires.
    expires: Option<Instant>,
    standings: Standings,
    payer: Payer,
    spot_checks: u64,
    memo: Memo<Arc<submit::Known>>,
    timers: Timers<TaskId>,
    snapshots: VecDeque<Snapshot>,
    outputs: VecDeque<Output>,
}

impl Coordinator {
    /// Knows no worker and no task. `seed` is random and secret.
    pub fn new(config: Config, key: Arc<SigningKey>, network: NetworkId, seed: [u8; 32], now: Now) -> Self {
        let mixed = mixed::Mixed::new(&key);
        let signer = Signer::new(key, network);
        Self {
            config,
            strategies: candidates::Strategies::default(),
            meetings: reconcile::Meetings::default(),
            mixed,
            workers: Workers::new(signer.me(), now),
            offers: Offers::new(network, blake3::derive_key("fog offers v1", &seed), MAX_OFFERS),
            expires: None,
            standings: Standings::new(signer.me()),
            signer,
            rng: ChaCha20Rng::from_seed(seed),
            tasks: BTreeMap::new(),
            executions: BTreeMap::new(),
            hungry: BTreeSet::new(),
            ended: VecDeque::new(),
            open: 0,
            next_number: 0,
            payer: Payer::new(),
            spot_checks: 0,
            memo: Memo::new(memo::MAX_COUNT, memo::MAX_BYTES),
            timers: Timers::new(),
            snapshots: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes a task. It is persisted before anything is done for it: once the outputs are acted upon, it ends exactly once.
    pub fn submit(&mut self, submission: Submission, now: Now) -> Result<TaskId, Reject> {
        let taken = self.take(submission, VecDeque::new(), now);
        self.after(now);
        taken
    }

    /// Takes many tasks, each with the workers that a placement of all of them together chose, first choice first. Each is taken or
    /// refused by itself.
    pub fn submit_batch(
        &mut self,
        submissions: Vec<Submission>,
        placements: Vec<Vec<NodeId>>,
        now: Now,
    ) -> Vec<Result<TaskId, Reject>> {
        let placements = placements.into_iter().map(VecDeque::from).chain(std::iter::repeat(VecDeque::new()));
        let taken = submissions.into_iter().zip(placements).map(|(task, place)| self.take(task, place, now)).collect();
        self.after(now);
        taken
    }

    /// Ends a task. What its workers did is not paid, except if a result was accepted.
    pub fn cancel(&mut self, task: TaskId, now: Now) -> Result<(), Reject> {
        self.tasks.get(&task).filter(|task| task.is_open()).ok_or(Reject::UnknownTask)?;
        self.end(task, End::Cancelled, now);
        self.after(now);
        Ok(())
    }

    /// Takes an offer, from whoever brings it.
    pub fn handle_offer(&mut self, bytes: &[u8], now: Now) -> Result<Accept, OfferReject> {
        let taken = self.on_offer(bytes, now);
        if let Err(reject) = &taken {
            self.push(Output::Drop(reject.drop_reason()));
        }
        self.after(now);
        taken
    }

    /// What this node promised to workers, from the oldest.
    pub fn accounts(&self) -> impl Iterator<Item = (NodeId, Interval, &Paid)> {
        self.payer.accounts()
    }

    /// The offers that are known: for exchange with other nodes.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// What others say of a worker's results, as the node weighed it; it replaces what it said before.
    pub fn set_prior(&mut self, worker: NodeId, prior: Prior) {
        self.standings.set_prior(worker, prior);
    }

    /// What [`Coordinator::set_prior`] said of all.
    pub fn priors(&self) -> impl Iterator<Item = (NodeId, Prior)> {
        self.standings.priors()
    }

    /// Takes what a worker says. What is repeated changes nothing.
    pub fn handle_message(&mut self, from: NodeId, message: ToCoordinator, now: Now) -> Result<(), Reject> {
        let taken = self.on_message(from, message, now);
        if let Err(reject) = &taken {
            self.push(Output::Drop(reject.drop_reason()));
        }
        self.after(now);
        taken
    }

    /// There is a connection, and how long it takes to the peer and back.
    pub fn handle_connected(&mut self, peer: NodeId, rtt: Option<Duration>, now: Now) {
        self.workers.connected(peer, rtt);
        self.meet(peer);
        self.after(now);
    }

    /// The peers to which there is a connection.
    pub fn connected(&self) -> impl Iterator<Item = NodeId> {
        self.workers.iter().filter(|(_, worker)| worker.connected).map(|(id, _)| *id)
    }

    /// There is none any more. What the peer runs is given up if it does not come back within [`Config::gone`].
    pub fn handle_gone(&mut self, peer: NodeId, now: Now) {
        self.workers.gone(peer, now);
        self.meetings.part(peer);
        let busy: Vec<_> = self.workers.tasks_of(peer).collect();
        busy.into_iter().for_each(|task| self.advance(task, now));
        self.snapshot("worker_gone", Some(peer), now);
        self.after(now);
    }

    /// The bytes of an output that was to be fetched, or that they cannot be had.
    pub fn handle_fetched(&mut self, task: TaskId, from: NodeId, bytes: Option<&[u8]>, now: Now) {
        let outcome = bytes.and_then(|bytes| Outcome::from_bytes(bytes, bytes.len()).ok());
        self.on_output(task, from, outcome, now);
        self.after(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(task) = self.timers.pop(now.mono) {
            self.advance(task, now);
        }
        for worker in self.offers.expire(now.unix) {
            self.workers.offers(worker, 0);
        }
        self.after(now);
    }

    /// When [`Coordinator::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.expires].into_iter().flatten().min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn after(&mut self, now: Now) {
        self.place_all(now);
        self.forget_oldest();
        self.expires = self.offers.next_expiry().map(|at| now.mono + at.since(now.unix));
    }

    fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn send(&mut self, to: NodeId, message: ToWorker) {
        self.push(Output::Send { to, message });
    }

    /// All that it knows, in one text; not its generator's state.
    #[cfg(test)]
    pub(crate) fn fingerprint(&self) -> String {
        let known = (&self.tasks, &self.executions, &self.hungry, &self.workers, &self.timers, &self.outputs);
        format!("{known:?}{:?}{:?}", self.payer, self.standings)
    }
}
