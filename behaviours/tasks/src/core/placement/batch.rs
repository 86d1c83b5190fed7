//! Many tasks on many workers at once, as a problem for [`Nsga`]: which worker has which task. Five things are minimised together, and
//! the user's weights choose one of the answers that are best in some way. All sums are integers, so that changing one by a task gives
//! what counting anew would give.

mod choice;
mod cost;
mod plan;

pub use self::{
    choice::{Choice, Weights},
    cost::{BATCH_OBJECTIVES, MAX_CELLS, TooLarge},
    plan::Plan,
};

use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use self::cost::Costs;
use super::{Candidate, Demand};
use crate::core::nsga::{Config, Evaluation, Nsga, Problem, random::Random, random::below, random::unit};

/// The population of a batch, if nothing else is asked for.
pub const POPULATION: usize = 210;

/// Tasks and workers.
#[derive(Debug)]
pub struct Batch {
    costs: Costs,
    /// The makespans between which answers are sought, in microseconds: that of the earliest finishes, and that of the cheapest.
    spans: (u64, u64),
}

/// What a new plan is made for.
#[derive(Debug, Clone, Copy)]
struct Aim {
    /// How much price, energy, failures and data matter.
    weights: [f64; 4],
    /// A worker that would be busy for longer gets no more, in microseconds.
    limit: u64,
}

impl Aim {
    /// Each task where it ends first.
    const EARLIEST: Self = Self { weights: [0.0; 4], limit: 0 };

    /// One thing that is summed, and nothing else.
    fn alone(column: usize) -> Self {
        let mut weights = [0.0; 4];
        weights.get_mut(column).into_iter().for_each(|weight| *weight = 1.0);
        Self { weights, limit: u64::MAX }
    }
}

impl Batch {
    /// Prepares to place each of `demands` at one of `candidates`.
    pub fn new(demands: &[Demand], candidates: &[Candidate]) -> Result<Self, TooLarge> {
        let costs = Costs::new(demands, candidates)?;
        let mut batch = Self { costs, spans: (0, 0) };
        let span = |aim: &Aim| batch.greedy(aim).makespan(&batch.costs);
        let (earliest, cheapest) = rayon::join(|| span(&Aim::EARLIEST), || span(&Aim::alone(0)));
        batch.spans = (earliest.max(1), cheapest.max(earliest).max(1));
        Ok(batch)
    }

    /// Tasks that no candidate can have, even alone.
    pub fn unplaceable(&self) -> &[usize] {
        self.costs.unplaceable()
    }

    /// The answers that simple strategies give: earliest finish, cheapest, least energy, most reliable, nearest data, least loaded, and
    /// an even mixture.
    pub fn heuristics(&self) -> Vec<Plan> {
        let (low, high) = self.spans;
        let aims = [
            Aim::EARLIEST,
            Aim::alone(0),
            Aim::alone(1),
            Aim::alone(2),
            Aim::alone(3),
            Aim { weights: [0.25; 4], limit: low },
            Aim { weights: [0.25; 4], limit: low.midpoint(high) },
        ];
        aims.par_iter().map(|aim| self.greedy(aim)).collect()
    }

    /// The plan of an earlier batch: for each task a position in the candidates of this one. Where that does not fit, or is `None`, the
    /// task goes where it ends first.
    pub fn warm(&self, workers: &[Option<usize>]) -> Plan {
        let mut plan = Plan::empty(&self.costs);
        for task in self.costs.order() {
            let wanted = workers.get(self.costs.demand(task)).copied().flatten().map(|worker| worker as u32);
            let worker = wanted.filter(|worker| self.costs.fits(task, *worker));
            let worker = worker.or_else(|| self.best(&plan, task, &Aim::EARLIEST, [].into_iter()));
            worker.into_iter().for_each(|worker| plan.put(&self.costs, task, worker));
        }
        plan
    }

    /// For each demand the position of its worker in the candidates.
    pub fn workers_of(&self, plan: &Plan) -> Vec<Option<usize>> {
        let mut workers = vec![None; self.costs.demands()];
        for task in 0..self.costs.tasks() {
            let place = workers.get_mut(self.costs.demand(task));
            place.into_iter().for_each(|place| *place = plan.worker(task).map(|worker| worker as usize));
        }
        workers
    }

    /// Each task in turn, urgent and long ones first, at the best of all its workers.
    fn greedy(&self, aim: &Aim) -> Plan {
        let mut plan = Plan::empty(&self.costs);
        for task in self.costs.order() {
            let all = self.costs.fitting(task).iter().copied();
            self.best(&plan, task, aim, all).into_iter().for_each(|worker| plan.put(&self.costs, task, worker));
        }
        plan
    }

    /// The worker for `task` among `tried` and its champions: within its room, its deadline and the limit the one with the least
    /// weighted cost, else the one that is free first.
    fn best(&self, plan: &Plan, task: usize, aim: &Aim, tried: impl Iterator<Item = u32>) -> Option<u32> {
        let mut best: Option<(u8, f64, u32)> = None;
        for worker in tried.chain(self.costs.champions(task).iter().copied()) {
            let cost = self.costs.cost(task, worker);
            let key = match plan.judge(&self.costs, task, worker, cost.busy_us, aim.limit) {
                (0, _) => (0, self.costs.weighted(&cost, &aim.weights), worker),
                (class, end) => (class, end as f64, worker),
            };
            if best
                .is_none_or(|best| key.0.cmp(&best.0).then(key.1.total_cmp(&best.1)).then(key.2.cmp(&best.2)).is_lt())
            {
                best = Some(key);
            }
        }
        best.map(|(.., worker)| worker)
    }

    /// Some of the workers that fit.
    fn some(&self, task: usize, count: usize, random: &mut Random) -> impl Iterator<Item = u32> {
        let fitting = self.costs.fitting(task);
        (0..count).filter_map(|_| fitting.get(below(random, fitting.len())).copied())
    }

    fn draw_weights(random: &mut Random) -> [f64; 4] {
        // Squares of exponentials: corners as well as the middle.
        let mut weights = [0.0; 4];
        weights.iter_mut().for_each(|weight| *weight = libm::log(1.0 - unit(random)).powi(2));
        weights
    }
}

impl Problem for Batch {
    type Genome = Plan;

    fn objectives(&self) -> usize {
        BATCH_OBJECTIVES
    }

    fn random(&self, random: &mut Random) -> Plan {
        let (low, high) = (self.spans.0 as f64, self.spans.1 as f64);
        let limit = low * libm::pow(high / low, unit(random));
        let aim = Aim { weights: Self::draw_weights(random), limit: limit as u64 };
        let mut plan = Plan::empty(&self.costs);
        for task in self.costs.order() {
            let some = self.some(task, 12, random);
            self.best(&plan, task, &aim, some).into_iter().for_each(|w| plan.put(&self.costs, task, w));
        }
        plan
    }

    /// The mother with a run of the father's genes.
    fn crossover(&self, one: &Plan, other: &Plan, random: &mut Random) -> Plan {
        let mut child = one.clone();
        let count = self.costs.tasks();
        if unit(random) < 0.1 {
            return child;
        }
        let (first, length) = (below(random, count), 1 + below(random, count / 2 + 1));
        for task in (first..first + length).map(|task| if task < count { task } else { task - count }) {
            other.worker(task).into_iter().for_each(|worker| child.put(&self.costs, task, worker));
        }
        child
    }

    /// Moves up to 32 tasks to where they are better for weights that are drawn: some at random, some away from the worker that is done last.
    fn mutate(&self, plan: &mut Plan, random: &mut Random) {
        let makespan = plan.makespan(&self.costs) as f64;
        let aim = Aim { weights: Self::draw_weights(random), limit: (makespan * (0.7 + 0.4 * unit(random))) as u64 };
        let moves = 1usize << below(random, 6);
        let busiest = if unit(random) < 0.5 { plan.busiest(&self.costs) } else { None };
        let crowd: Vec<usize> = busiest.map(|worker| plan.tasks_of(worker).take(moves).collect()).unwrap_or_default();
        let others = (crowd.len()..moves).map(|_| below(random, self.costs.tasks())).collect::<Vec<_>>();
        for task in crowd.into_iter().chain(others) {
            plan.take(&self.costs, task);
            let some = self.some(task, 12, random);
            self.best(plan, task, &aim, some).into_iter().for_each(|w| plan.put(&self.costs, task, w));
        }
    }

    fn evaluate(&self, plan: &Plan) -> Evaluation {
        plan.evaluate(&self.costs)
    }
}

/// A search for the plans of a batch. Between steps the caller looks at its clock.
#[derive(Debug)]
pub struct Planner(Nsga<Batch>);

impl Planner {
    /// Starts from `warm` plans and the heuristics; the population is at least 16.
    pub fn new(batch: Batch, population: usize, seed: [u8; 32], mut warm: Vec<Plan>) -> Self {
        warm.extend(batch.heuristics());
        Self(Nsga::new(batch, &Config { population: population.max(16), seed, diversity: None }, warm))
    }

    /// One generation.
    pub fn step(&mut self) {
        self.0.step();
    }

    /// The search itself.
    pub fn search(&self) -> &Nsga<Batch> {
        &self.0
    }

    /// The answer that `weights` choose from the front. What it places keeps every constraint; a task that finds no place so is left out.
    pub fn choose(&self, weights: &Weights) -> Choice {
        choice::choose(self.0.problem(), self.0.front(), weights)
    }
}
