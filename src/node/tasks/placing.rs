//! Many tasks at once: which worker each of them is asked of first. The search runs on a thread of its own and stops at its time; a task whose
//! worker does not take it is placed alone, as any other.

use std::time::{Duration, Instant};

use fog_base::{NodeId, Now};
use fog_tasks::{
    Work,
    core::{
        coordinator::Coordinator,
        placement::{
            Candidate, Demand,
            batch::{Batch, POPULATION, Planner, Weights},
        },
        terms::Terms,
    },
};

use super::report::Objectives;
use crate::node::clock;

/// How long a search may take.
const TIME: Duration = Duration::from_millis(800);
/// Generations after which a search ends, whatever time is left: what is small is found soon.
const GENERATIONS: usize = 400;
/// Pairs of a task and a worker for which the whole population is searched in time; the first plans of more take as much longer.
const CELLS: usize = 1 << 20;
/// Points of the front that are told.
const TOLD: usize = 64;

/// Tasks and the workers that may have them.
#[derive(Debug)]
pub(super) struct Problem {
    demands: Vec<Demand>,
    candidates: Vec<Candidate>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// For each task, whom to ask first.
    pub(super) placements: Vec<Vec<NodeId>>,
    pub(super) pareto: Vec<Objectives>,
    pub(super) chosen: Option<Objectives>,
    pub(super) took: Duration,
}

/// What is to be placed, as the coordinator knows its workers now.
pub(super) fn problem(coordinator: &Coordinator, wanted: Vec<(Work, Terms)>, now: Now) -> Problem {
    let demand = |(work, terms): (Work, Terms)| coordinator.demand(&work, &terms);
    Problem { demands: wanted.into_iter().map(demand).collect(), candidates: coordinator.candidates(now) }
}

/// Searches until `began` + [`TIME`].
pub(super) fn solve(problem: Problem, began: Instant) -> Placed {
    let Problem { demands, candidates } = problem;
    let nowhere = Placed { placements: vec![Vec::new(); demands.len()], ..Placed::default() };
    let class = demands.iter().map(|demand| demand.class).max().unwrap_or_default();
    let cells = demands.len().saturating_mul(candidates.len()).max(1);
    let Ok(batch) = Batch::new(&demands, &candidates) else { return nowhere };
    let population = POPULATION.min(POPULATION * CELLS / cells);
    let mut planner = Planner::new(batch, population, super::super::chat::random(), Vec::new());
    let mut last = Duration::ZERO;
    for _ in 0..GENERATIONS {
        // The next generation takes about as long as the last one.
        let begin = clock::now().mono;
        if begin + last >= began + TIME {
            break;
        }
        planner.step();
        last = clock::now().mono.saturating_duration_since(begin);
    }
    let choice = planner.choose(&Weights::of(class));
    let node = |at: Option<usize>| at.and_then(|at| candidates.get(at)).map(|candidate| candidate.node);
    let placements = choice.workers.iter().map(|at| node(*at).into_iter().collect()).collect();
    let mut pareto: Vec<_> = planner.search().front().map(|(_, objectives)| told(objectives)).collect();
    pareto.sort_by(|one, other| one.makespan_s.total_cmp(&other.makespan_s));
    pareto.dedup();
    pareto.truncate(TOLD);
    let took = clock::now().mono.saturating_duration_since(began);
    Placed { placements, pareto, chosen: Some(told(&choice.objectives)), took }
}

fn told(objectives: &[f64; 5]) -> Objectives {
    let [makespan_ms, price, energy_j, unreliability, moved_bytes] = *objectives;
    Objectives { makespan_s: makespan_ms / 1000.0, price, energy_j, unreliability, moved_bytes }
}
