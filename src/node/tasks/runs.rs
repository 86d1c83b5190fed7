//! Between executions, which the worker's core names, and runs of the pool: what the pool has no place for waits here, and how fast this host
//! is shows from what ran.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use fog_tasks::{
    Content,
    core::{ids::ExecutionId, work::Work, worker::RunEvent},
    sandbox::{Busy, Job, Pool, PoolEvent, RunId},
    wire::StreamKind,
};

use super::contents::Bytes;

/// A run that is shorter says little of how fast a host is.
const MEASURED: Duration = Duration::from_millis(50);
/// What one run counts beside those before it.
const WEIGHT: f64 = 0.2;

/// Runs of the pool.
pub(super) struct Runs {
    pool: Arc<Pool>,
    next: u64,
    running: BTreeMap<RunId, (ExecutionId, Option<Instant>)>,
    /// What the pool had no place for, oldest first. The core hands out few more than there are slots.
    waiting: VecDeque<(ExecutionId, Job)>,
    speed: Option<f64>,
}

impl Runs {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, next: 0, running: BTreeMap::new(), waiting: VecDeque::new(), speed: None }
    }

    /// Runs it as soon as there is a place.
    pub(super) fn start(&mut self, execution: ExecutionId, job: Job) {
        self.waiting.push_back((execution, job));
        self.fill();
    }

    /// Nothing of it is wanted any more.
    pub(super) fn stop(&mut self, execution: ExecutionId) {
        self.waiting.retain(|(waiting, _)| *waiting != execution);
        self.running.retain(|run, (of, _)| {
            if *of == execution {
                self.pool.cancel(*run);
            }
            *of != execution
        });
    }

    /// Nothing is wanted any more.
    pub(super) fn stop_all(&mut self) {
        self.waiting.clear();
        for run in std::mem::take(&mut self.running).into_keys() {
            self.pool.cancel(run);
        }
    }

    /// What an event of the pool says, and of which execution; nothing, if that was stopped.
    pub(super) fn of(&mut self, event: PoolEvent, now: Instant) -> Option<(ExecutionId, RunEvent)> {
        match event {
            PoolEvent::Started(run) => {
                let (execution, since) = self.running.get_mut(&run)?;
                *since = Some(now);
                Some((*execution, RunEvent::Started))
            }
            PoolEvent::Log { run, stderr, bytes } => {
                let stream = if stderr { StreamKind::Stderr } else { StreamKind::Stdout };
                self.running.get(&run).map(|(execution, _)| (*execution, RunEvent::Log(stream, bytes)))
            }
            PoolEvent::Done { run, outcome } => {
                let ended = self.running.remove(&run);
                self.fill();
                let (execution, since) = ended?;
                let took = since.map(|since| now.saturating_duration_since(since)).filter(|took| *took >= MEASURED);
                if let Some(took) = took {
                    let speed = outcome.fuel as f64 / took.as_secs_f64();
                    self.speed = Some(self.speed.map_or(speed, |before| before + WEIGHT * (speed - before)));
                }
                Some((execution, RunEvent::Done(outcome)))
            }
        }
    }

    /// Units of fuel per second of a slot, if something ran that shows it.
    pub(super) fn speed(&self) -> Option<u64> {
        self.speed.map(|speed| speed as u64)
    }

    /// Tries again what had no place.
    pub(super) fn fill(&mut self) {
        while let Some((execution, job)) = self.waiting.pop_front() {
            let run = RunId(self.next);
            match self.pool.start(run, job.clone()) {
                Ok(()) => {
                    self.next += 1;
                    self.running.insert(run, (execution, None));
                }
                Err(Busy::Full | Busy::Frozen | Busy::Known) => {
                    return self.waiting.push_front((execution, job));
                }
                // The core read this work before.
                Err(Busy::Work(error)) => tracing::warn!(%error, "a work that was agreed to cannot be run"),
            }
        }
    }
}

/// A run with everything that its work names, if all of that is staged.
pub(super) fn job(work: &Work, staged: &[(Content, Bytes)], wall: Duration) -> Option<Job> {
    let bytes =
        |content: &Content| staged.iter().find(|(staged, _)| staged == content).map(|(_, bytes)| Arc::clone(bytes));
    let inputs = work.inputs.iter().map(|input| Some((input.name.clone(), bytes(&input.content)?)));
    Some(Job {
        work: work.clone(),
        module: bytes(&work.module)?,
        stdin: work.stdin.as_ref().map_or_else(|| Some(Bytes::default()), bytes)?,
        inputs: inputs.collect::<Option<_>>()?,
        wall,
    })
}
