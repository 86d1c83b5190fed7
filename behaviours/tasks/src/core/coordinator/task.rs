//! One task, as its coordinator sees it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use fog_base::{NodeId, UnixMillis};

use super::{
    execution::{Execution, State},
    view::{End, TaskState},
};
use crate::{
    core::{
        ids::{ExecutionId, TaskId},
        matcher::Needs,
        outcome::Outcome,
        terms::Terms,
        verify::{Believed, Poll},
        work::{Content, Work, WorkId},
    },
    wire::{Failure, Phase, Source},
};

#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) work_id: WorkId,
    /// What bids and leases carry; `None` once it has ended.
    pub(super) content: Option<Arc<Known>>,
    pub(super) terms: Terms,
    /// Its place among tasks that wait.
    pub(super) number: u64,
    pub(super) submitted: UnixMillis,
    pub(super) deadline: Option<Instant>,
    /// A spot check of this worker: nobody waits for it, and its result is known.
    pub(super) check: Option<(NodeId, Believed)>,
    /// Workers that a placement chose, first choice first.
    pub(super) preferred: VecDeque<NodeId>,
    pub(super) poll: Poll,
    pub(super) attempt: u32,
    pub(super) executions: Vec<Execution>,
    /// Workers that are not asked before then.
    pub(super) avoided: BTreeMap<NodeId, Instant>,
    /// Hosts that could not run it.
    pub(super) hosts: BTreeMap<NodeId, Failure>,
    /// Why the last execution was given up.
    pub(super) last_failure: &'static str,
    pub(super) accepted: Option<Believed>,
    /// Whose blob is fetched, and until when.
    pub(super) fetching: Option<(NodeId, Instant)>,
    /// No worker can be had now: when to look again, and since when it is so.
    pub(super) parked: Option<Parked>,
    pub(super) waits_for: Option<String>,
    pub(super) placed: Option<UnixMillis>,
    pub(super) ended: Option<UnixMillis>,
    pub(super) end: Option<End>,
    pub(super) told: TaskState,
}

/// What it takes to run a work again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub(super) work: Work,
    pub(super) encoded: Vec<u8>,
    pub(super) sources: Vec<(Content, Source)>,
    pub(super) needs: Needs,
    /// What it gave, where it is remembered.
    pub(super) outcome: Option<Arc<Outcome>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Parked {
    /// When to look again; `None`: now.
    pub(super) until: Option<Instant>,
    pub(super) since: Instant,
}

impl Task {
    pub(super) fn is_open(&self) -> bool {
        self.end.is_none()
    }

    pub(super) fn find(&self, id: ExecutionId) -> Option<usize> {
        self.executions.iter().position(|execution| execution.id == id)
    }

    pub(super) fn of_worker(&self, worker: NodeId) -> Option<usize> {
        self.executions.iter().rposition(|it| it.worker == worker && it.is_live())
    }

    /// How far it is: as far as its furthest replica.
    pub(super) fn state(&self) -> TaskState {
        match &self.end {
            Some(End::Done { .. }) => return TaskState::Done,
            Some(End::Failed(_)) => return TaskState::Failed,
            Some(End::Cancelled) => return TaskState::Cancelled,
            None => {}
        }
        let states = self.executions.iter().map(|execution| match execution.state {
            State::Bidding(_) | State::Closed { .. } => TaskState::Offered,
            State::Leasing(_) => TaskState::Placed,
            State::Active if execution.phase == Phase::Staging => TaskState::Staging,
            State::Active => TaskState::Running,
            State::Committed(_) | State::Revealing { .. } | State::Revealed | State::Paying { .. } => {
                TaskState::Verifying
            }
        });
        states.max().unwrap_or(TaskState::Offered)
    }
}
