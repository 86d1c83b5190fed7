//! Which worker has which task, and the sums of that.

use super::cost::{CLASSES, Costs};
use crate::core::nsga::Evaluation;

/// No worker.
const NOBODY: u32 = u32::MAX;

/// An assignment with its sums, which are changed by what is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The worker of each task.
    workers: Vec<u32>,
    /// Microseconds of each class at each worker.
    loads: Vec<[u64; CLASSES]>,
    /// Tasks of each worker.
    counts: Vec<u32>,
    /// Price, energy, failures, data.
    sums: [u64; 4],
}

impl Plan {
    pub(super) fn empty(costs: &Costs) -> Self {
        let workers = costs.workers().len();
        Self {
            workers: vec![NOBODY; costs.tasks()],
            loads: vec![[0; CLASSES]; workers],
            counts: vec![0; workers],
            sums: [0; 4],
        }
    }

    pub(super) fn worker(&self, task: usize) -> Option<u32> {
        self.workers.get(task).copied().filter(|worker| *worker != NOBODY)
    }

    /// Gives `task` to `worker`, away from whoever has it.
    pub(super) fn put(&mut self, costs: &Costs, task: usize, worker: u32) {
        if self.worker(task) == Some(worker) {
            return;
        }
        self.take(costs, task);
        let cost = costs.cost(task, worker);
        self.workers.get_mut(task).into_iter().for_each(|place| *place = worker);
        let load = self.loads.get_mut(worker as usize).and_then(|loads| loads.get_mut(costs.class(task)));
        load.into_iter().for_each(|load| *load += cost.busy_us);
        self.counts.get_mut(worker as usize).into_iter().for_each(|count| *count += 1);
        self.sums.iter_mut().zip(cost.sums).for_each(|(sum, part)| *sum += part);
    }

    /// Takes `task` from whoever has it.
    pub(super) fn take(&mut self, costs: &Costs, task: usize) {
        let Some(worker) = self.worker(task) else { return };
        let cost = costs.cost(task, worker);
        self.workers.get_mut(task).into_iter().for_each(|place| *place = NOBODY);
        let load = self.loads.get_mut(worker as usize).and_then(|loads| loads.get_mut(costs.class(task)));
        load.into_iter().for_each(|load| *load -= cost.busy_us);
        self.counts.get_mut(worker as usize).into_iter().for_each(|count| *count -= 1);
        self.sums.iter_mut().zip(cost.sums).for_each(|(sum, part)| *sum -= part);
    }

    /// When `worker` would be done with everything if it also had `task`, in microseconds, and whether it has the room and the task
    /// would be done in time.
    pub(super) fn with(&self, costs: &Costs, task: usize, worker: u32, busy_us: u64) -> (u64, bool) {
        let at = worker as usize;
        let (Some(host), Some(loads), Some(count)) = (costs.workers().get(at), self.loads.get(at), self.counts.get(at))
        else {
            return (u64::MAX, false);
        };
        let before: u64 = loads.iter().take(costs.class(task) + 1).sum();
        let end = |load: u64| host.queue_us + (load + busy_us) / host.slots;
        (end(loads.iter().sum()), *count < host.room && end(before) <= costs.due_us(task))
    }

    /// What `worker` would be for `task`: 0 if it has the room, and ends the task in time and everything by `limit`; 1 if not by the limit;
    /// else 2. Then also when it would be done with everything. No division where none is needed: this is asked most often of all.
    pub(super) fn judge(&self, costs: &Costs, task: usize, worker: u32, busy_us: u64, limit: u64) -> (u8, u64) {
        let at = worker as usize;
        let (Some(host), Some(loads), Some(count)) = (costs.workers().get(at), self.loads.get(at), self.counts.get(at))
        else {
            return (2, u64::MAX);
        };
        let before: u64 = loads.iter().take(costs.class(task) + 1).sum::<u64>() + busy_us;
        let all: u64 = loads.iter().sum::<u64>() + busy_us;
        let ends_by = |load: u64, due: u64| {
            due >= host.queue_us && load < (due - host.queue_us).saturating_add(1).saturating_mul(host.slots)
        };
        let end = || host.queue_us + all / host.slots;
        match () {
            () if *count >= host.room || !ends_by(before, costs.due_us(task)) => (2, end()),
            () if !ends_by(all, limit) => (1, end()),
            () => (0, 0),
        }
    }

    /// When the last worker is done, in microseconds.
    pub(super) fn makespan(&self, costs: &Costs) -> u64 {
        self.ends(costs).map(|(_, end)| end).max().unwrap_or(0)
    }

    /// The worker that is done last.
    pub(super) fn busiest(&self, costs: &Costs) -> Option<u32> {
        self.ends(costs).max_by_key(|(_, end)| *end).map(|(worker, _)| worker as u32)
    }

    pub(super) fn tasks_of(&self, worker: u32) -> impl Iterator<Item = usize> {
        self.workers.iter().enumerate().filter(move |(_, other)| **other == worker).map(|(task, _)| task)
    }

    /// When each worker that has something is done.
    fn ends(&self, costs: &Costs) -> impl Iterator<Item = (usize, u64)> {
        let all = self.loads.iter().zip(&self.counts).zip(costs.workers()).enumerate();
        all.filter(|(_, ((_, count), _))| **count > 0)
            .map(|(at, ((loads, _), host))| (at, host.queue_us + loads.iter().sum::<u64>() / host.slots))
    }

    /// Milliseconds, price, joules, expected failures, bytes. Violated are rooms, by tasks, and deadlines, by the share that they are
    /// exceeded by.
    pub(super) fn evaluate(&self, costs: &Costs) -> Evaluation {
        let rooms = self.counts.iter().zip(costs.workers());
        let over: u64 = rooms.map(|(count, host)| u64::from(count.saturating_sub(host.room))).sum();
        let mut late = 0.0;
        for (worker, (class, due)) in self.workers.iter().zip(costs.dues()) {
            if due == u64::MAX {
                continue;
            }
            let at = *worker as usize;
            let (Some(loads), Some(host)) = (self.loads.get(at), costs.workers().get(at)) else { continue };
            let end = host.queue_us + loads.iter().take(class + 1).sum::<u64>() / host.slots;
            if end > due {
                late += (end - due) as f64 / due.max(1) as f64;
            }
        }
        let unplaced = self.workers.iter().filter(|worker| **worker == NOBODY).count();
        let [price, energy, failures, data] = self.sums.map(|sum| sum as f64);
        let makespan = self.makespan(costs) as f64 / 1e3;
        Evaluation {
            objectives: [makespan, price, energy / 1e3, failures / 1e9, data],
            violation: over as f64 + late + unplaced as f64,
        }
    }
}
