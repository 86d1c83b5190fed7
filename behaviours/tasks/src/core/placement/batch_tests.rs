use std::sync::Arc;

use proptest::prelude::*;

use super::{
    Candidate, Class, Demand, Misfit,
    batch::{Batch, Choice, MAX_CELLS, Planner, TooLarge, Weights},
    testing::{any_demand, candidate, candidates, content, demand, node},
};
use crate::core::nsga::{Problem as _, random::stream};

fn planned(demands: &[Demand], candidates: &[Candidate], generations: usize, weights: &Weights) -> Choice {
    let mut planner = Planner::new(Batch::new(demands, candidates).unwrap(), 32, [5; 32], Vec::new());
    (0..generations).for_each(|_| planner.step());
    planner.choose(weights)
}

fn only(column: usize) -> Weights {
    let mut all = [0.0; 5];
    all[column] = 1.0;
    let [makespan, price, energy, reliability, data] = all;
    Weights { makespan, price, energy, reliability, data }
}

/// What a choice must keep, computed from the demands alone: fit, room, and the end of each class at each worker.
fn broken(demands: &[Demand], candidates: &[Candidate], choice: &Choice) -> Option<String> {
    let mut loads = vec![[0.0f64; 3]; candidates.len()];
    let mut counts = vec![0; candidates.len()];
    for (demand, worker) in demands.iter().zip(&choice.workers) {
        let Some(worker) = *worker else { continue };
        if let Err(misfit) = demand.fits(&candidates[worker])
            && misfit != Misfit::TooSlow
        {
            return Some(format!("{misfit:?}"));
        }
        counts[worker] += 1;
        loads[worker][2 - demand.class as usize] += demand.busy_ms(&candidates[worker]);
    }
    for (demand, worker) in demands.iter().zip(&choice.workers) {
        let Some(worker) = *worker else { continue };
        let host = &candidates[worker];
        let ahead: f64 = loads[worker][..=2 - demand.class as usize].iter().sum();
        let end = host.queue_ms + (ahead / f64::from(host.slots)).max(demand.busy_ms(host));
        // A microsecond is cut off each part.
        if demand.due_ms().is_some_and(|due| end > due + 0.001 * (2.0 + demands.len() as f64)) {
            return Some(format!("{end} ms of {:?}", demand.due_ms()));
        }
    }
    counts.iter().zip(candidates).any(|(count, host)| *count > host.room).then(|| "room".into())
}

#[test]
fn weights_choose_what_they_weigh() {
    let workers: Vec<_> = (0..6)
        .map(|number| {
            let mut worker = Candidate { room: 12, price: 500, joules: 50.0, reliability: 0.6, ..candidate(number) };
            match number {
                0 => worker.price = 1,
                1 => worker.joules = 1.0,
                2 => worker.reliability = 0.99,
                3 => worker.cached = Arc::new([[1; 32]]),
                _ => worker.speed = 4e9,
            }
            worker
        })
        .collect();
    let demands = vec![demand(); 12];
    for (column, worker) in [(1, 0), (2, 1), (3, 2), (4, 3)] {
        let choice = planned(&demands, &workers, 30, &only(column));
        assert_eq!(choice.workers, vec![Some(worker); 12], "{column}");
        assert_eq!((choice.regret[column], choice.weighted_regret), (0.0, 0.0));
    }
    let quick = planned(&demands, &workers, 30, &only(0));
    assert!(quick.objectives[0] < 4000.0, "{quick:?}");
    assert!(quick.front > 10);
}

#[test]
fn urgent_tasks_go_first_and_best_effort_waits() {
    let worker = Candidate { slots: 1, room: 9, ..candidate(1) };
    let with = |class| Demand { class, deadline_ms: Some(13_000), ..demand() };
    // Each takes 2.12 s; three urgent ones end after 6.36 s of 6.5, six in all after 12.72 s of 13.
    let classes = [vec![Class::Standard; 3], vec![Class::BestEffort; 3], vec![Class::Urgent; 3]].concat();
    let demands: Vec<_> = classes.into_iter().map(with).collect();
    let choice = planned(&demands, std::slice::from_ref(&worker), 3, &only(0));
    assert_eq!(choice.workers, vec![Some(0); 9]);
    let more: Vec<_> = [demands, vec![with(Class::Urgent)]].concat();
    let choice = planned(&more, std::slice::from_ref(&Candidate { room: 20, ..worker }), 3, &only(0));
    // A fourth would end after half of its deadline; the others keep their places.
    let left_out: Vec<_> = (0..10).filter(|task| choice.workers[*task].is_none()).collect();
    assert!(matches!(left_out[..], [6..=9]), "{choice:?}");
}

#[test]
fn what_nobody_can_have_is_named_and_the_rest_is_placed() {
    let demands = [demand(), Demand { max_price: Some(1), ..demand() }, demand()];
    let batch = Batch::new(&demands, &[candidate(1)]).unwrap();
    assert_eq!(batch.unplaceable(), [1]);
    assert_eq!(planned(&demands, &[candidate(1)], 2, &only(0)).workers, [Some(0), None, Some(0)]);
    assert_eq!(planned(&demands, &[], 2, &only(0)).workers, [None; 3]);
    assert!(planned(&[], &[candidate(1)], 2, &only(0)).workers.is_empty());
    let many = vec![Demand::default(); MAX_CELLS / 2 + 1];
    let error = Batch::new(&many, &[candidate(1), candidate(2)]).unwrap_err();
    assert_eq!(error, TooLarge { tasks: many.len(), workers: 2 });
}

fn mixed(tasks: u64, workers: u64) -> (Vec<Demand>, Vec<Candidate>) {
    let task = |number: u64| Demand {
        fuel: 1_000_000_000 + number * 37_000_000,
        contents: vec![content((number % 5) as u8, 1_000_000 * (1 + number % 7))],
        class: [Class::Standard, Class::BestEffort, Class::Urgent][number as usize % 3],
        deadline_ms: Some(60_000),
        ..demand()
    };
    let worker = |number: u64| Candidate {
        node: node(number),
        speed: 5e8 + 1e8 * (number * 7 % 11) as f64,
        price: 50 + number * 13 % 90,
        joules: 5.0 + (number * 5 % 17) as f64,
        reliability: 0.9 + 0.004 * (number % 20) as f64,
        cached: Arc::new([[(number % 5) as u8; 32]]),
        ..candidate(number)
    };
    ((0..tasks).map(task).collect(), (0..workers).map(worker).collect())
}

#[test]
fn a_seed_gives_one_choice_with_any_number_of_threads() {
    let (demands, workers) = mixed(60, 40);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| planned(&demands, &workers, 8, &Weights::of(Class::Standard)))
    };
    let one = run(1);
    assert!(one.workers.iter().all(Option::is_some));
    assert_eq!(one, run(2));
    assert_eq!(one, run(4));
}

#[test]
fn an_earlier_choice_is_no_worse_after_a_warm_start() {
    let (demands, workers) = mixed(40, 30);
    let cold = planned(&demands, &workers, 20, &only(1));
    let batch = Batch::new(&demands, &workers).unwrap();
    let warm = vec![batch.warm(&cold.workers)];
    assert_eq!(batch.evaluate(&warm[0]).objectives, cold.objectives);
    let choice = Planner::new(batch, 32, [9; 32], warm).choose(&only(1));
    assert!(choice.objectives[1] <= cold.objectives[1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn choices_keep_every_constraint(
        candidates in candidates(12), demands in prop::collection::vec(any_demand(), 0..24), column in 0usize..5,
    ) {
        let choice = planned(&demands, &candidates, 3, &only(column));
        prop_assert_eq!(choice.workers.len(), demands.len());
        prop_assert_eq!(broken(&demands, &candidates, &choice), None);
        prop_assert!(choice.regret.iter().all(|regret| (0.0..=1.0).contains(regret)));
        prop_assert!(choice.weighted_regret >= 0.0);
    }

    /// Sums that were changed by each change are those of the plan that it came to.
    #[test]
    fn changed_sums_are_those_of_a_new_count(
        candidates in candidates(12), demands in prop::collection::vec(any_demand(), 1..24), seed in any::<u8>(),
    ) {
        let batch = Batch::new(&demands, &candidates).unwrap();
        let random = &mut stream([seed; 32], 0);
        let (mut one, other) = (batch.random(random), batch.random(random));
        for _ in 0..20 {
            one = batch.crossover(&one, &other, random);
            batch.mutate(&mut one, random);
        }
        let anew = batch.warm(&batch.workers_of(&one));
        prop_assert_eq!(one, anew);
    }
}
