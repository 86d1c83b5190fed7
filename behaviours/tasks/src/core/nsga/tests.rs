use proptest::prelude::*;

use super::{
    benchmarks::{Real, dtlz2, zdt},
    random::{below, unit},
    *,
};

const SEEDS: u8 = 11;

fn config(population: usize, seed: u8, diversity: Option<Diversity>) -> Config {
    Config { population, seed: [seed; 32], diversity }
}

fn searched(problem: Real, config: &Config, generations: u32) -> Nsga<Real> {
    let mut nsga = Nsga::new(problem, config, Vec::new());
    (0..generations).for_each(|_| nsga.step());
    nsga
}

/// The median of the hypervolumes of the fronts, each objective scaled by `range` to [0, 1], the reference at (1, 1).
fn median_volume(problem: Real, range: [(f64, f64); 2]) -> f64 {
    let mut found: Vec<f64> = (1..=SEEDS)
        .map(|seed| {
            // 100 at first and 100 for each generation: 25,000 evaluations.
            let nsga = searched(problem, &config(100, seed, None), 249);
            let scale = |(_, scores): (_, &Objectives)| {
                let [a, b] = [0, 1].map(|k| (scores[k] - range[k].0) / (range[k].1 - range[k].0));
                [a, b, 0.0, 0.0, 0.0]
            };
            hypervolume(&nsga.front().map(scale).collect::<Vec<_>>(), 2, &[1.0; 5])
        })
        .collect();
    found.sort_by(f64::total_cmp);
    found[found.len() / 2]
}

#[test]
fn the_test_problems_of_two_objectives_are_solved() {
    let unit = [(0.0, 1.0); 2];
    let cases = [
        (1, unit, 0.655),
        (2, unit, 0.320),
        (3, [(0.0, 0.851_832_8), (-0.773_369, 1.0)], 0.510),
        (4, unit, 0.640),
        (6, [(0.280_775_3, 1.0), (0.0, 1.0 - 0.280_775_3 * 0.280_775_3)], 0.380),
    ];
    for (number, range, least) in cases {
        let volume = median_volume(zdt(number), range);
        eprintln!("ZDT{number}: {volume:.4}");
        assert!(volume >= least, "ZDT{number}: {volume}");
    }
}

/// A front of finitely many points misses a part of a surface's volume: 91 of the best points have 92 % of it. The median of the seeds is
/// at least what most of them reach, so that the rest need not be searched.
#[test]
fn three_objectives_are_solved_by_niching() {
    let divisions = 66;
    let population = das_dennis(3, divisions).len();
    let mut shares = Vec::new();
    for seed in 1..=SEEDS {
        let nsga = searched(dtlz2(), &config(population, seed, Some(Diversity::Niching { divisions })), 120);
        let points: Vec<_> = nsga.front().map(|(_, scores)| *scores).collect();
        shares.push(hypervolume(&points, 3, &[1.1; 5]) / 0.807_401);
        let enough = shares.iter().filter(|share| **share >= 0.98).count();
        if enough > usize::from(SEEDS / 2) {
            eprintln!("DTLZ2: {shares:.4?} of the analytic volume with {population} points");
            return;
        }
    }
    panic!("{shares:?}");
}

#[test]
fn a_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let run = |threads: usize, seed: u8| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let crowded = searched(zdt(1), &config(40, seed, None), 20);
            let niched = searched(dtlz2(), &config(40, seed, Some(Diversity::Niching { divisions: 7 })), 20);
            [crowded, niched].map(|nsga| {
                let bits = |genome: &Vec<f64>| genome.iter().map(|gene| gene.to_bits()).collect::<Vec<_>>();
                nsga.population().genomes.iter().map(bits).collect::<Vec<_>>()
            })
        })
    };
    let one = run(1, 7);
    assert_eq!(one, run(2, 7));
    assert_eq!(one, run(4, 7));
    assert_ne!(one, run(1, 8));
}

#[test]
fn a_population_that_was_is_gone_on_from() {
    let before = searched(zdt(1), &config(100, 1, None), 150);
    let volume =
        |nsga: &Nsga<Real>| hypervolume(&nsga.front().map(|(_, scores)| *scores).collect::<Vec<_>>(), 2, &[1.0; 5]);
    let warm = Nsga::new(zdt(1), &config(100, 2, None), before.population().genomes.clone());
    assert_eq!(volume(&warm), volume(&before));
    assert!(volume(&warm) > volume(&searched(zdt(1), &config(100, 2, None), 10)));
}

/// Numbers from 0 to 99. What is odd violates; some scores are not numbers.
struct Broken;

impl Problem for Broken {
    type Genome = usize;

    fn objectives(&self) -> usize {
        4
    }

    fn random(&self, random: &mut Random) -> usize {
        below(random, 100)
    }

    fn crossover(&self, one: &usize, other: &usize, random: &mut Random) -> usize {
        if unit(random) < 0.5 { *one } else { *other }
    }

    fn mutate(&self, genome: &mut usize, random: &mut Random) {
        *genome = (*genome + below(random, 7)) % 100;
    }

    fn evaluate(&self, genome: &usize) -> Evaluation {
        let value = match genome % 10 {
            2 => f64::NAN,
            4 => f64::INFINITY,
            6 => f64::NEG_INFINITY,
            _ => *genome as f64,
        };
        let violation = if genome % 14 == 8 { f64::NAN } else { (genome % 2) as f64 };
        Evaluation { objectives: [value, 100.0 - *genome as f64, 0.0, 1.0, 0.0], violation }
    }
}

#[test]
fn what_is_not_a_number_is_worst_and_stops_nothing() {
    for diversity in [Diversity::Crowding, Diversity::Niching { divisions: 3 }] {
        let mut nsga = Nsga::new(Broken, &config(20, 3, Some(diversity)), vec![12, 22, 13, 8]);
        for _ in 0..30 {
            nsga.step();
            assert_eq!(nsga.population().genomes.len(), 20);
        }
        for (genome, _) in nsga.front() {
            assert!(genome % 10 != 2 && genome % 2 == 0 && genome % 14 != 8, "{genome}");
        }
    }
}

proptest! {
    #[test]
    fn the_front_is_feasible_and_nobody_in_it_dominates_another(seed in any::<u8>(), population in 0usize..40) {
        let mut nsga = Nsga::new(Broken, &config(population, seed, None), vec![0]);
        (0..5).for_each(|_| nsga.step());
        let front: Vec<_> = nsga.front().collect();
        prop_assert!(!front.is_empty());
        for (_, one) in &front {
            prop_assert!(!front.iter().any(|(_, other)| dominates(other, one)));
        }
        prop_assert_eq!(nsga.population().genomes.len(), population.max(2));
    }
}
