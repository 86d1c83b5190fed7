//! Placement: how good the plans of a batch are that our NSGA-II finds in a second, beside what `moors` finds of the same problem in ten,
//! and what the placement of one task takes.
//!
//! Both start from the same heuristic plans and evaluate with the same function. On a busy machine only time on a core counts: ours has one
//! second of all its threads together, which one core could give within a second by the clock; `moors` has ten on its one thread. The
//! hypervolume is of both fronts in one normalisation: 0 is the best and 1 the worst of either front, the reference is 1.1.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "../../harness/mod.rs"]
mod harness;

use std::{
    cell::{Cell, RefCell},
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::NodeId;
use fog_tasks::core::{
    nsga::{Objectives, Problem, das_dennis, hypervolume, random::below, random::stream, random::unit},
    placement::{
        Candidate, Class, Demand, StrategyName,
        batch::{Batch, POPULATION, Plan, Planner},
        place,
    },
    work::Content,
};
use harness::{Harness, Target, on_core};
use moors::{
    AdaptiveController, AlgorithmContext, ControlSignal, ExactDuplicatesCleaner, MutationOperator, Nsga2Builder,
    Nsga3Builder, Population, RandomGenerator, SamplingOperator, UniformBinaryCrossover,
};
use ndarray::{Array1, Array2, ArrayViewMut1, Ix1, Ix2};

const TASKS: usize = 1000;
const WORKERS: usize = 1000;
const OFFERS: usize = 5000;
const PLACEMENTS: usize = 4000;
const OURS: Duration = Duration::from_secs(1);
const THEIRS: Duration = Duration::from_secs(10);
const SEEDS: u8 = 5;

fn main() {
    let mut harness = Harness::from_env();
    if harness.wants("placement_single_p99_us") {
        let mut all: Vec<f64> = StrategyName::ALL.iter().map(|kind| single_p99(kind.name(), *kind)).collect();
        // The slowest strategy.
        all.sort_by(f64::total_cmp);
        harness.medians("placement_single_p99_us", &mut all[5..], None, "us", Some(Target::AtMost(1000.0)));
    }
    if harness.wants("placement_batch") {
        let (mut ours, mut theirs): (Vec<f64>, Vec<f64>) = (1..=SEEDS).map(against_moors).unzip();
        theirs.sort_by(f64::total_cmp);
        let rival = ("moors, the better of its NSGA-II and III, 10 s", theirs[theirs.len() / 2]);
        harness.medians("placement_batch", &mut ours, Some(rival), "volume", Some(Target::AtLeast(0.99)));
    }
    harness.finish();
}

/// Hosts of very different speed, price and reliability, where what is fast tends to be dear.
fn workers(count: usize) -> Vec<Candidate> {
    let mut random = stream([1; 32], 0);
    let mut worker = |number: usize| {
        let random = &mut random;
        let speed = 2e8 * 20f64.powf(unit(random));
        let mut cached: Vec<[u8; 32]> = (0..8).map(|_| module(below(random, 40)).hash).collect();
        cached.sort_unstable();
        Candidate {
            node: NodeId(*blake3::hash(&number.to_be_bytes()).as_bytes()),
            slots: 1 + below(random, 4) as u32,
            room: 8,
            speed,
            queue_ms: 3000.0 * unit(random).powi(3),
            in_flight: 0,
            price: (speed / 1e6 * (0.5 + unit(random))) as u64,
            joules: 2.0 + 30.0 * unit(random),
            reliability: 1.0 - 0.3 * unit(random).powi(2),
            rtt_ms: 5.0 + 200.0 * unit(random),
            bandwidth: 1e6 * 30f64.powf(unit(random)),
            cached: cached.into(),
            is_private: below(random, 3) == 0,
            family: Some(below(random, count / 2) as u64),
            network: Some(below(random, count / 2) as u64),
        }
    };
    (0..count).map(&mut worker).collect()
}

fn module(number: usize) -> Content {
    Content { hash: *blake3::hash(&[number as u8]).as_bytes(), size: 200_000 + 100_000 * number as u64 }
}

fn demands() -> Vec<Demand> {
    let mut random = stream([2; 32], 0);
    let mut demand = |number: usize| {
        let random = &mut random;
        let input = Content {
            hash: *blake3::hash(&number.to_be_bytes()).as_bytes(),
            size: 1 + below(random, 3_000_000) as u64,
        };
        Demand {
            fuel: (1e8 * 100f64.powf(unit(random))) as u64,
            contents: vec![module(below(random, 40)), input],
            deadline_ms: Some(120_000),
            class: [Class::BestEffort, Class::Standard, Class::Standard, Class::Urgent][below(random, 4)],
            max_price: None,
            is_private: below(random, 10) == 0,
        }
    };
    (0..TASKS).map(&mut demand).collect()
}

/// What 99 of 100 placements of three replicas among [`OFFERS`] take at most on a core, in microseconds.
fn single_p99(name: &str, kind: StrategyName) -> f64 {
    let (candidates, demands) = (workers(OFFERS), demands());
    let (mut strategy, mut random) = (kind.build(1), stream([3; 32], 0));
    let mut took: Vec<f64> = (0..PLACEMENTS)
        .map(|number| {
            let begun = on_core();
            black_box(place(&mut *strategy, &demands[number % TASKS], &candidates, 3, &mut random)).unwrap();
            on_core().saturating_sub(begun).as_secs_f64() * 1e6
        })
        .collect();
    took.sort_by(f64::total_cmp);
    let [p50, p99] = [took[PLACEMENTS / 2], took[PLACEMENTS * 99 / 100]];
    println!("  {name:14} {p50:7.1} us at the median, {p99:7.1} us at p99");
    p99
}

/// Our volume and theirs.
fn against_moors(seed: u8) -> (f64, f64) {
    let (candidates, demands) = (workers(WORKERS), demands());
    let (clock, begun) = (Instant::now(), of_all_threads());
    let spent = || of_all_threads().saturating_sub(begun);
    let batch = Batch::new(&demands, &candidates).unwrap();
    let prepared = spent();
    let mut planner = Planner::new(batch, POPULATION, [seed; 32], Vec::new());
    let (first, mut last) = (spent(), Duration::ZERO);
    // The next generation takes about as long as the last one.
    while spent() + last < OURS {
        let before = spent();
        planner.step();
        last = spent().saturating_sub(before);
    }
    let (took, clocked) = (spent(), clock.elapsed());
    let ours = planner.search();
    let violates = ours.population().violations.iter().filter(|violation| **violation > 0.0).count();
    assert!(violates < POPULATION, "no feasible plan");
    let front: Vec<Objectives> = ours.front().map(|(_, scores)| *scores).collect();
    let batch = Batch::new(&demands, &candidates).unwrap();
    let rivals = [rival(&batch, seed, false), rival(&batch, seed, true)];
    let (mut best, mut worst) = ([f64::INFINITY; 5], [f64::NEG_INFINITY; 5]);
    for scores in front.iter().chain(rivals.iter().flat_map(|(front, _)| front)) {
        for k in 0..5 {
            best[k] = best[k].min(scores[k]);
            worst[k] = worst[k].max(scores[k]);
        }
    }
    let volume = |front: &[Objectives]| {
        let normal = |scores: &Objectives| std::array::from_fn(|k| (scores[k] - best[k]) / (worst[k] - best[k]));
        hypervolume(&front.iter().map(normal).collect::<Vec<_>>(), 5, &[1.1; 5])
    };
    let (mine, [two, three]) = (volume(&front), [volume(&rivals[0].0), volume(&rivals[1].0)]);
    println!(
        "  ours {mine:.4} after {} generations in {:.2} s on cores, {:.2} s by the clock, of them {:.2} s to prepare and {:.2} s for the first plans; {} plans; moors NSGA-II {two:.4} after {}, {} plans; NSGA-III {three:.4} after {}, {} plans",
        ours.generation(),
        took.as_secs_f64(),
        clocked.as_secs_f64(),
        prepared.as_secs_f64(),
        (first - prepared).as_secs_f64(),
        front.len(),
        rivals[0].1,
        rivals[0].0.len(),
        rivals[1].1,
        rivals[1].0.len(),
    );
    (mine, two.max(three))
}

/// For how long all threads of this process had a core. Linux; elsewhere the clock.
fn of_all_threads() -> Duration {
    on_core();
    let of = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    match std::fs::read_dir("/proc/self/task") {
        Ok(threads) => threads.filter_map(of).sum(),
        Err(_) => on_core(),
    }
}

/// The feasible front that `moors` has after its time, and how many generations that were.
fn rival(batch: &Batch, seed: u8, niching: bool) -> (Vec<Objectives>, usize) {
    let plan_of = |row: &[f64]| batch.warm(&row.iter().map(|worker| Some(*worker as usize)).collect::<Vec<_>>());
    let plans =
        |genes: &Array2<f64>| -> Vec<Plan> { genes.outer_iter().map(|row| plan_of(row.as_slice().unwrap())).collect() };
    // Constraints are asked for right after the fitness, of the same genes.
    let violations = RefCell::new(Vec::new());
    let fitness = |genes: &Array2<f64>| -> Array2<f64> {
        let scores: Vec<_> = plans(genes).iter().map(|plan| batch.evaluate(plan)).collect();
        violations.replace(scores.iter().map(|score| score.violation).collect());
        let all: Vec<f64> = scores.iter().flat_map(|score| score.objectives).collect();
        Array2::from_shape_vec((genes.nrows(), 5), all).unwrap()
    };
    let constraints = |_: &Array2<f64>| -> Array1<f64> { violations.borrow().iter().copied().collect() };
    let as_genes = |plan: &Plan| batch.workers_of(plan).iter().map(|worker| worker.unwrap() as f64).collect();
    let heuristics: Vec<Array1<f64>> = batch.heuristics().iter().map(as_genes).collect();
    let sampler = Sampler { heuristics, next: Cell::new(0) };
    let generations = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let controller = Clock { begun: on_core(), generations: Arc::clone(&generations) };
    macro_rules! run {
        ($builder:expr) => {{
            let mut search = $builder
                .fitness_fn(fitness)
                .constraints_fn(constraints)
                .sampler(sampler)
                .crossover(UniformBinaryCrossover)
                .mutation(Elsewhere)
                .controller(controller)
                .duplicates_cleaner(ExactDuplicatesCleaner)
                .num_vars(TASKS)
                .population_size(POPULATION)
                .num_offsprings(POPULATION)
                .num_iterations(1_000_000)
                .crossover_rate(0.9)
                .mutation_rate(1.0)
                .keep_infeasible(true)
                .seed(u64::from(seed))
                .build()
                .unwrap();
            search.run().unwrap();
            search.population.unwrap().best()
        }};
    }
    let best = if niching {
        let directions: Vec<f64> = das_dennis(5, 6).into_iter().flatten().collect();
        let points = Array2::from_shape_vec((directions.len() / 5, 5), directions).unwrap();
        run!(Nsga3Builder::default().reference_points(points).are_aspirational(false))
    } else {
        run!(Nsga2Builder::default())
    };
    let feasible = best.fitness.outer_iter().zip(plans(&best.genes));
    let feasible = feasible.filter(|(_, plan)| batch.evaluate(plan).violation <= 0.0);
    let front = feasible.map(|(row, _)| std::array::from_fn(|k| row[k])).collect();
    (front, generations.load(std::sync::atomic::Ordering::Relaxed))
}

/// The heuristic plans first, then random ones: each task at any of its workers.
struct Sampler {
    heuristics: Vec<Array1<f64>>,
    next: Cell<usize>,
}

impl SamplingOperator for Sampler {
    fn sample_individual(&self, num_vars: usize, rng: &mut impl RandomGenerator) -> Array1<f64> {
        let number = self.next.replace(self.next.get() + 1);
        let mut random = || (0..num_vars).map(|_| rng.gen_range_usize(0, WORKERS) as f64).collect::<Array1<f64>>();
        self.heuristics.get(number).cloned().unwrap_or_else(&mut random)
    }
}

/// Each task goes with probability 1/n to any worker.
struct Elsewhere;

impl MutationOperator for Elsewhere {
    fn mutate(&self, mut individual: ArrayViewMut1<'_, f64>, rng: &mut impl RandomGenerator) {
        let rate = 1.0 / individual.len() as f64;
        for gene in &mut individual {
            if rng.gen_bool(rate) {
                *gene = rng.gen_range_usize(0, WORKERS) as f64;
            }
        }
    }
}

/// Ends the search when its thread had its time.
#[derive(Debug)]
struct Clock {
    begun: Duration,
    generations: Arc<std::sync::atomic::AtomicUsize>,
}

impl AdaptiveController<Ix2, Ix1> for Clock {
    fn observe(&mut self, iteration: usize, _: &Population<Ix2, Ix1>, _: &AlgorithmContext) -> ControlSignal {
        self.generations.store(iteration + 1, std::sync::atomic::Ordering::Relaxed);
        ControlSignal { stop: on_core() - self.begun >= THEIRS, ..ControlSignal::default() }
    }
}
