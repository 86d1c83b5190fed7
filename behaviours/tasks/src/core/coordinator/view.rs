//! What is told of tasks.

use std::sync::Arc;

use fog_base::{NodeId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{Coordinator, execution::Execution, task::Task};
use crate::{
    core::{
        ids::{ExecutionId, TaskId},
        outcome::{Ending, Outcome, ResultHash},
        terms::Terms,
        work::{Content, WorkId},
    },
    wire::Source,
};

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// No worker has it.
    Offered,
    /// A worker agreed to do it.
    Placed,
    /// Its contents are fetched.
    Staging,
    /// It runs, or waits for a slot.
    Running,
    /// A result is there, and not believed yet.
    Verifying,
    /// A result was accepted.
    Done,
    /// There will be none.
    Failed,
    /// The user did not want it any more.
    Cancelled,
}

impl TaskState {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Placed => "placed",
            Self::Staging => "staging",
            Self::Running => "running",
            Self::Verifying => "verifying",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a result was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrustedBy {
    /// Replicas agreed.
    Agreement,
    /// Its worker's record.
    Record,
    /// This node's own worker ran it.
    Own,
    /// The same work was verified before.
    Memory,
    /// It is the best there was; the trust that was asked for was not reached.
    Best,
}

impl TrustedBy {
    /// The name in JSON, as `verdict`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agreement => "agreed",
            Self::Record => "trusted",
            Self::Own => "own",
            Self::Memory => "remembered",
            Self::Best => "best",
        }
    }
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failed {
    /// The user's deadline for the whole.
    #[error("the deadline passed")]
    Deadline,
    /// The user's time for the run.
    #[error("the run took longer than it may")]
    RunningTime,
    /// Nobody took it in time.
    #[error("no worker took it: {0}")]
    NoWorker(String),
    /// Results differ, whoever is asked.
    #[error("no agreement among the workers")]
    NoAgreement,
    /// Three hosts could not run it.
    #[error("three workers could not run it, at last: {0}")]
    Hosts(String),
    /// As many executions as there may be, and no result.
    #[error("given up after {0} executions, at last: {1}")]
    Attempts(u32, String),
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// With this outcome.
    Done {
        /// What it gave. `None` only after a restart: it is in the row of [`Coordinator::outcome_key`].
        outcome: Option<Arc<Outcome>>,
        /// Its hash.
        result: ResultHash,
        /// How it ended.
        ending: Ending,
        /// The fuel of one run.
        fuel: u64,
        /// The probability that it is right.
        credibility: f64,
        /// Why it was accepted.
        by: TrustedBy,
    },
    /// Without.
    Failed(Failed),
    /// By its user.
    Cancelled,
}

/// One execution of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaView {
    /// Its id.
    pub execution: ExecutionId,
    /// Who runs it.
    pub worker: NodeId,
    /// How far it is: `bidding`, `leased`, `staging`, `queued`, `running`, `frozen`, `committed`, `revealed`, a verdict, or why it ended.
    pub state: &'static str,
    /// The fuel that it says it used, once revealed.
    pub fuel: Option<u64>,
    /// Its result, once revealed.
    pub result: Option<ResultHash>,
    /// What was agreed, in micro-credits per 10⁹ fuel.
    pub rate: Option<u64>,
    /// What it is paid, once decided.
    pub paid: Option<u64>,
}

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// Its work.
    pub work: WorkId,
    /// What its user wants.
    pub terms: Terms,
    /// How far it is.
    pub state: TaskState,
    /// How it ended.
    pub end: Option<End>,
    /// All its executions, first first.
    pub replicas: Vec<ReplicaView>,
    /// When it was submitted.
    pub submitted: UnixMillis,
    /// From submission until a worker agreed.
    pub placed_ms: Option<u64>,
    /// From submission until it ended.
    pub total_ms: Option<u64>,
    /// What it costs, in micro-credits: all that its workers are paid.
    pub price: u64,
    /// Why it waits or failed, in one sentence.
    pub reason: Option<String>,
}

impl Coordinator {
    /// One task, if it is remembered.
    pub fn task(&self, id: TaskId) -> Option<TaskView> {
        self.tasks.get(&id).filter(|task| task.check.is_none()).map(Task::view)
    }

    /// All that are remembered, by id.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView> {
        self.tasks.values().filter(|task| task.check.is_none()).map(Task::view)
    }

    /// What tasks that have not ended need of blobs: the content and its encoded manifest.
    pub fn blobs(&self) -> impl Iterator<Item = (TaskId, Content, &[u8])> {
        let sources = self.tasks.values().filter_map(|task| Some((task.id, &task.content.as_ref()?.sources)));
        sources.flat_map(|(id, sources)| {
            sources.iter().filter_map(move |(content, source)| match source {
                Source::Blob(manifest) => Some((id, *content, manifest.as_slice())),
                Source::Inline(_) => None,
            })
        })
    }

    /// Micro-credits that this node promised.
    pub fn spent(&self) -> u64 {
        self.payer.total()
    }

    /// How many works whose results are known it gave to workers, since it was started.
    pub fn spot_checks(&self) -> u64 {
        self.spot_checks
    }

    /// How many have not ended.
    pub fn open_tasks(&self) -> usize {
        self.open
    }
}

impl Task {
    fn view(&self) -> TaskView {
        let since = |at: UnixMillis| at.since(self.submitted).as_millis().try_into().unwrap_or(u64::MAX);
        let reason = match &self.end {
            Some(End::Failed(failed)) => Some(failed.to_string()),
            Some(_) => None,
            None => self.waits_for.clone(),
        };
        TaskView {
            id: self.id,
            work: self.work_id,
            terms: self.terms.clone(),
            state: self.state(),
            end: self.end.clone(),
            replicas: self.executions.iter().map(Execution::view).collect(),
            submitted: self.submitted,
            placed_ms: self.placed.map(since),
            total_ms: self.ended.map(since),
            price: self.executions.iter().filter_map(Execution::paid).fold(0, u64::saturating_add),
            reason,
        }
    }
}
