//! One answer of the front, by what the user wants.

use std::cmp::Reverse;

use super::{
    Batch, Plan,
    cost::{BATCH_OBJECTIVES, CLASSES, Costs},
};
use crate::core::{nsga::Objectives, placement::Class};

/// How much each objective matters. Only their ratios count; what is negative or no number counts as 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// That the last task ends early.
    pub makespan: f64,
    /// That it costs little.
    pub price: f64,
    /// That it takes little energy.
    pub energy: f64,
    /// That few tasks fail.
    pub reliability: f64,
    /// That few bytes travel.
    pub data: f64,
}

impl Weights {
    /// What a class wants, if its user says nothing else.
    pub fn of(class: Class) -> Self {
        let [makespan, price, energy, reliability, data] = match class {
            Class::BestEffort => [0.1, 0.5, 0.2, 0.1, 0.1],
            Class::Standard => [0.3, 0.3, 0.1, 0.2, 0.1],
            Class::Urgent => [0.6, 0.05, 0.0, 0.3, 0.05],
        };
        Self { makespan, price, energy, reliability, data }
    }

    fn parts(&self) -> [f64; BATCH_OBJECTIVES] {
        let all = [self.makespan, self.price, self.energy, self.reliability, self.data];
        let all = all.map(|weight| if weight.is_finite() { weight.max(0.0) } else { 0.0 });
        let sum: f64 = all.iter().sum();
        all.map(|weight| if sum > 0.0 { weight / sum } else { 1.0 / BATCH_OBJECTIVES as f64 })
    }
}

/// An answer, and what it gives up.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// For each demand the position of its worker in the candidates; `None` for those that found no place.
    pub workers: Vec<Option<usize>>,
    /// Milliseconds until the last task ends, price, joules, expected failures, bytes that travel.
    pub objectives: Objectives,
    /// For each objective how far the choice is from the best of the front (0) toward the worst (1).
    pub regret: Objectives,
    /// The weighted sum of `regret`, less the least that any answer of the front has.
    pub weighted_regret: f64,
    /// Answers that there were to choose from.
    pub front: usize,
}

/// The answer whose largest weighted regret is least (a weighted Chebyshev distance, with a little of the sum against ties).
pub(super) fn choose<'a>(
    batch: &'a Batch,
    front: impl Iterator<Item = (&'a Plan, &'a Objectives)>,
    weights: &Weights,
) -> Choice {
    let costs = &batch.costs;
    let front: Vec<_> = front.collect();
    let (mut best, mut worst) = ([f64::INFINITY; BATCH_OBJECTIVES], [f64::NEG_INFINITY; BATCH_OBJECTIVES]);
    for (_, scores) in &front {
        best.iter_mut().zip(*scores).for_each(|(best, value)| *best = best.min(*value));
        worst.iter_mut().zip(*scores).for_each(|(worst, value)| *worst = worst.max(*value));
    }
    let regret = |scores: &Objectives| {
        let mut regret = [0.0; BATCH_OBJECTIVES];
        for ((regret, value), (best, worst)) in regret.iter_mut().zip(scores).zip(best.iter().zip(&worst)) {
            *regret = if worst > best { (value - best) / (worst - best) } else { 0.0 };
        }
        regret
    };
    let weights = weights.parts();
    let weighed = |regret: &Objectives| {
        let parts = || regret.iter().zip(weights).map(|(regret, weight)| regret * weight);
        (parts().fold(0.0, f64::max), parts().sum::<f64>())
    };
    let order = |scores: &Objectives| {
        let (most, sum) = weighed(&regret(scores));
        most + 1e-3 * sum
    };
    let chosen = front.iter().min_by(|(_, a), (_, b)| order(a).total_cmp(&order(b)));
    let Some((plan, scores)) = chosen else {
        let (objectives, regret) = Default::default();
        return Choice { workers: vec![None; costs.demands()], objectives, regret, weighted_regret: 0.0, front: 0 };
    };
    let least = front.iter().map(|(_, scores)| weighed(&regret(scores)).1).fold(f64::INFINITY, f64::min);
    let kept = if plan.evaluate(costs).violation > 0.0 { Some(keeping(costs, plan)) } else { None };
    let plan = kept.as_ref().unwrap_or(*plan);
    Choice {
        workers: batch.workers_of(plan),
        objectives: plan.evaluate(costs).objectives,
        regret: regret(scores),
        weighted_regret: weighed(&regret(scores)).1 - least,
        front: front.len(),
    }
}

/// `plan` without violations: tasks one by one, urgent and long ones first, each at the plan's worker or the first other that can have
/// it and still be in time with all that it has.
fn keeping(costs: &Costs, plan: &Plan) -> Plan {
    let mut kept = Plan::empty(costs);
    // The earliest due time of each class at each worker.
    let mut tight = vec![[u64::MAX; CLASSES]; costs.workers().len()];
    for task in costs.order() {
        let class = costs.class(task);
        let can = |worker: &u32| {
            let busy = costs.cost(task, *worker).busy_us;
            let (end, keeps) = kept.with(costs, task, *worker, busy);
            // Tasks come by class: what is there is no less urgent, so `end` is the end of this class.
            let due = tight.get(*worker as usize).and_then(|due| due.get(class)).copied().unwrap_or(0);
            (keeps && end <= due).then_some((Reverse(plan.worker(task) == Some(*worker)), end, *worker))
        };
        let Some((.., worker)) = costs.fitting(task).iter().filter_map(can).min() else { continue };
        kept.put(costs, task, worker);
        let due = tight.get_mut(worker as usize).and_then(|due| due.get_mut(class));
        due.into_iter().for_each(|due| *due = (*due).min(costs.due_us(task)));
    }
    kept
}
