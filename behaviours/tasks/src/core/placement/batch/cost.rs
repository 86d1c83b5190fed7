//! What each task costs at each worker, in integers.

use std::collections::{BTreeMap, BTreeSet};

use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::super::{Candidate, Class, Demand, GFUEL};

/// Makespan, price, energy, failures, data.
pub const BATCH_OBJECTIVES: usize = 5;
/// The most pairs of a task and a worker in a batch.
pub const MAX_CELLS: usize = 16 << 20;
/// Workers of a task that are best in one respect, for each of five.
const BEST: usize = 6;
/// No cost of one task exceeds it, so that sums of all fit.
const CAP: f64 = (1u64 << 40) as f64;

/// A batch has more pairs of a task and a worker than [`MAX_CELLS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{tasks} tasks on {workers} workers are too many for one batch")]
pub struct TooLarge {
    /// How many tasks.
    pub tasks: usize,
    /// How many workers.
    pub workers: usize,
}

/// What one task costs at one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Staging and running, in microseconds.
    pub(super) busy_us: u64,
    /// Price; energy in millijoules; expected failures in units of 10⁻⁹; bytes to stage.
    pub(super) sums: [u64; 4],
}

#[derive(Debug)]
struct Task {
    demand: usize,
    class: usize,
    due_us: u64,
    fuel: f64,
    /// Number and size of each of its contents that some worker has.
    contents: Vec<(usize, u64)>,
    /// Bytes that every worker lacks.
    everywhere: u64,
    fitting: Vec<u32>,
    champions: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) slots: u64,
    pub(super) room: u32,
    pub(super) queue_us: u64,
    rtt_us: f64,
    us_per_fuel: f64,
    us_per_byte: f64,
    price_per_fuel: f64,
    millijoules_per_fuel: f64,
    failures: u64,
    /// Bit n: it has content n.
    has: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct Costs {
    tasks: Vec<Task>,
    workers: Vec<Worker>,
    unplaceable: Vec<usize>,
    /// Urgent tasks first, then the longest.
    order: Vec<usize>,
    /// One over the mean, over tasks, of how far the costs at their workers are apart.
    scales: [f64; 4],
}

/// Urgent, standard, best effort: the order in which a worker runs them.
pub(super) const CLASSES: usize = 3;

fn class_number(class: Class) -> usize {
    match class {
        Class::Urgent => 0,
        Class::Standard => 1,
        Class::BestEffort => 2,
    }
}

fn capped(value: f64) -> u64 {
    value.min(CAP) as u64
}

impl Costs {
    pub(super) fn new(demands: &[Demand], candidates: &[Candidate]) -> Result<Self, TooLarge> {
        let (tasks, workers) = (demands.len(), candidates.len());
        if tasks.checked_mul(workers).is_none_or(|cells| cells > MAX_CELLS) {
            return Err(TooLarge { tasks, workers });
        }
        // What nobody has is missing everywhere: only what somebody has needs to be asked for.
        let kept: BTreeSet<&[u8; 32]> = candidates.iter().flat_map(|candidate| candidate.cached.iter()).collect();
        let mut numbers: BTreeMap<[u8; 32], usize> = BTreeMap::new();
        for content in demands.iter().flat_map(|demand| &demand.contents).filter(|it| kept.contains(&it.hash)) {
            let next = numbers.len();
            numbers.entry(content.hash).or_insert(next);
        }
        let workers = candidates.iter().map(|candidate| worker(candidate, &numbers)).collect();
        let mut costs =
            Self { tasks: Vec::new(), workers, unplaceable: Vec::new(), order: Vec::new(), scales: [0.0; 4] };
        let made: Vec<_> = (0..demands.len())
            .into_par_iter()
            .filter_map(|number| Some(costs.task(number, demands.get(number)?, candidates, &numbers)))
            .collect();
        let (mut ranges, mut placed) = ([0.0; 4], 0.0);
        for (number, (task, range)) in made.into_iter().enumerate() {
            if task.fitting.is_empty() {
                costs.unplaceable.push(number);
                continue;
            }
            ranges.iter_mut().zip(range).for_each(|(sum, range)| *sum += range);
            placed += 1.0;
            costs.tasks.push(task);
        }
        costs.scales = ranges.map(|sum: f64| if sum > 0.0 { placed / sum } else { 0.0 });
        let mut order: Vec<(usize, f64, usize)> =
            costs.tasks.iter().enumerate().map(|(at, task)| (task.class, task.fuel, at)).collect();
        order.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
        costs.order = order.into_iter().map(|(.., at)| at).collect();
        Ok(costs)
    }

    /// A task with its workers, and how far its costs at them are apart.
    fn task(
        &self,
        number: usize,
        demand: &Demand,
        candidates: &[Candidate],
        numbers: &BTreeMap<[u8; 32], usize>,
    ) -> (Task, [f64; 4]) {
        let contents = demand.contents.iter().filter_map(|content| Some((*numbers.get(&content.hash)?, content.size)));
        let unknown = demand.contents.iter().filter(|content| !numbers.contains_key(&content.hash));
        let mut task = Task {
            demand: number,
            class: class_number(demand.class),
            due_us: demand.due_ms().map_or(u64::MAX, |due| capped(due * 1e3)),
            fuel: demand.fuel as f64,
            contents: contents.collect(),
            everywhere: unknown.map(|content| content.size).fold(0, u64::saturating_add),
            fitting: Vec::new(),
            champions: Vec::new(),
        };
        // Whatever does not need the cache is asked of the demand; lateness is computed here, where caches are bits.
        let timeless = Demand { deadline_ms: None, contents: Vec::new(), ..demand.clone() };
        let mut best: [Vec<(u64, u32)>; BATCH_OBJECTIVES] = Default::default();
        let (mut least, mut most) = ([u64::MAX; 4], [0u64; 4]);
        for (at, (candidate, worker)) in candidates.iter().zip(&self.workers).enumerate() {
            let cost = cost(&task, worker);
            let is_late = worker.queue_us.saturating_add(cost.busy_us) > task.due_us;
            if is_late || timeless.fits(candidate).is_err() {
                continue;
            }
            let at = at as u32;
            task.fitting.push(at);
            least.iter_mut().zip(cost.sums).for_each(|(least, sum)| *least = sum.min(*least));
            most.iter_mut().zip(cost.sums).for_each(|(most, sum)| *most = sum.max(*most));
            let respects = [worker.queue_us.saturating_add(cost.busy_us)].into_iter().chain(cost.sums);
            best.iter_mut().zip(respects).for_each(|(best, value)| keep_best(best, (value, at)));
        }
        let mut champions: Vec<u32> = best.iter().flatten().map(|(_, at)| *at).collect();
        champions.sort_unstable();
        champions.dedup();
        task.champions = champions;
        let mut range = [0.0; 4];
        for (range, (least, most)) in range.iter_mut().zip(least.iter().zip(most)) {
            *range = most.saturating_sub(*least) as f64;
        }
        (task, range)
    }

    pub(super) fn cost(&self, task: usize, worker: u32) -> Cost {
        match (self.tasks.get(task), self.workers.get(worker as usize)) {
            (Some(task), Some(worker)) => cost(task, worker),
            _ => Cost::default(),
        }
    }

    /// The weighted sum of what a worker costs beside time.
    pub(super) fn weighted(&self, cost: &Cost, weights: &[f64; 4]) -> f64 {
        let parts = cost.sums.iter().zip(weights.iter().zip(&self.scales));
        parts.map(|(sum, (weight, scale))| *sum as f64 * weight * scale).sum()
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn workers(&self) -> &[Worker] {
        &self.workers
    }

    pub(super) fn unplaceable(&self) -> &[usize] {
        &self.unplaceable
    }

    pub(super) fn order(&self) -> impl Iterator<Item = usize> {
        self.order.iter().copied()
    }

    /// Workers that can have the task alone.
    pub(super) fn fitting(&self, task: usize) -> &[u32] {
        self.tasks.get(task).map_or(&[], |task| &task.fitting)
    }

    pub(super) fn fits(&self, task: usize, worker: u32) -> bool {
        self.fitting(task).binary_search(&worker).is_ok()
    }

    /// Those that are best in some respect.
    pub(super) fn champions(&self, task: usize) -> &[u32] {
        self.tasks.get(task).map_or(&[], |task| &task.champions)
    }

    pub(super) fn class(&self, task: usize) -> usize {
        self.tasks.get(task).map_or(0, |task| task.class)
    }

    pub(super) fn due_us(&self, task: usize) -> u64 {
        self.tasks.get(task).map_or(u64::MAX, |task| task.due_us)
    }

    /// Class and due time of each task.
    pub(super) fn dues(&self) -> impl Iterator<Item = (usize, u64)> {
        self.tasks.iter().map(|task| (task.class, task.due_us))
    }

    /// Which of the demands the task is.
    pub(super) fn demand(&self, task: usize) -> usize {
        self.tasks.get(task).map_or(0, |task| task.demand)
    }

    /// How many demands there were.
    pub(super) fn demands(&self) -> usize {
        self.tasks.len() + self.unplaceable.len()
    }
}

fn worker(candidate: &Candidate, numbers: &BTreeMap<[u8; 32], usize>) -> Worker {
    let mut has = vec![0u64; numbers.len().div_ceil(64)];
    for number in candidate.cached.iter().filter_map(|hash| numbers.get(hash)) {
        has.get_mut(number / 64).into_iter().for_each(|bits| *bits |= 1 << (number % 64));
    }
    Worker {
        slots: u64::from(candidate.slots.max(1)),
        room: candidate.room,
        queue_us: capped(candidate.queue_ms * 1e3),
        rtt_us: candidate.rtt_ms * 1e3,
        us_per_fuel: 1e6 / candidate.speed,
        us_per_byte: 1e6 / candidate.bandwidth,
        price_per_fuel: candidate.price as f64 / GFUEL,
        millijoules_per_fuel: candidate.joules * 1e3 / GFUEL,
        failures: capped((1.0 - candidate.reliability) * 1e9),
        has,
    }
}

fn cost(task: &Task, worker: &Worker) -> Cost {
    let mut missing = task.everywhere;
    for (number, size) in &task.contents {
        let bits = worker.has.get(number / 64).copied().unwrap_or(0);
        if bits >> (number % 64) & 1 == 0 {
            missing = missing.saturating_add(*size);
        }
    }
    let busy = worker.rtt_us + missing as f64 * worker.us_per_byte + task.fuel * worker.us_per_fuel;
    let price = task.fuel * worker.price_per_fuel;
    let energy = task.fuel * worker.millijoules_per_fuel;
    Cost { busy_us: capped(busy), sums: [capped(price), capped(energy), worker.failures, missing.min(CAP as u64)] }
}

/// Keeps the [`BEST`] least.
fn keep_best(best: &mut Vec<(u64, u32)>, new: (u64, u32)) {
    if best.len() == BEST && best.last().is_some_and(|last| *last <= new) {
        return;
    }
    best.insert(best.partition_point(|old| *old <= new), new);
    best.truncate(BEST);
}
