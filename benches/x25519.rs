//! X25519 in batches against x25519-dalek's ladder, and whether the time that a batch takes depends on the scalars.

#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod harness;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fog_x25519::{BASE_POINT, Backend};
use harness::{Harness, Side, Target};
use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

type Bytes = [u8; 32];

/// Lanes of the widest backend.
const BATCH: usize = 8;

fn main() -> ExitCode {
    let mut harness = Harness::from_env();
    println!("{:30} {:>20} {:>10} {:>7}  {:12} rival", "name", "ours", "rival", "ratio", "target");
    let mut constant_time = true;
    for backend in Backend::available() {
        let name = backend.name();
        let target = if name == "ifma" { 0.14 } else { 0.62 };
        batches::<BATCH>(&mut harness, &format!("x25519_batch_of_8_{name}"), backend, Some(target));
        batches::<64>(&mut harness, &format!("x25519_batch_of_64_{name}"), backend, None);
        constant_time &= timing(&mut harness, &format!("x25519_timing_{name}"), Target::AtMost(THRESHOLD), |batch| {
            backend.x25519(&batch.scalars, &mut batch.points);
        });
    }
    // The method must be able to see a leak: the time of this one depends on how many bits of the scalars are set.
    let fastest = Backend::available().next().unwrap();
    constant_time &= timing(&mut harness, "x25519_timing_control", Target::AtLeast(THRESHOLD), |batch| {
        fastest.x25519(&batch.scalars, &mut batch.points);
        let bits: u32 = batch.scalars.iter().flatten().map(|byte| byte.count_ones()).sum();
        (0..bits).for_each(|bit| _ = black_box(bit));
    });
    harness.finish();
    if constant_time { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn points<const N: usize>(rng: &mut ChaCha20Rng) -> [Bytes; N] {
    [(); N].map(|()| x25519_dalek::x25519(rng.random(), BASE_POINT))
}

fn batches<const N: usize>(harness: &mut Harness, name: &str, backend: Backend, target: Option<f64>) {
    if !harness.wants(name) {
        return;
    }
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (scalars, mut points): ([Bytes; N], _) = (rng.random(), points::<N>(&mut rng));
    let (scalar, mut point) = (scalars[0], points[0]);
    // Each turn multiplies what the turn before it returned: points of the curve, as in packets.
    let ours = Side::new(N as u32, || backend.x25519(black_box(&scalars), black_box(&mut points)));
    let rival = Side::new(1, || point = x25519_dalek::x25519(black_box(scalar), black_box(point)));
    harness.compare_us(name, ours, Some(("x25519-dalek's ladder", rival)), target);
}

// ---------------------------------------------------------------- timing

/// Above this |t| the time depends on the scalars: for one test a chance of 7 in a million if it does not.
const THRESHOLD: f64 = 4.5;
/// The parts of the measurements, the fastest first, that are tested each on its own: interruptions hide a small
/// difference in the slow ones.
const CROPS: [f64; 6] = [0.25, 0.5, 0.75, 0.9, 0.99, 1.0];
const DURATION: Duration = Duration::from_secs(5);
/// Inputs that are made in advance, so that making them is not near what is measured.
const ROUND: usize = 500;

struct Batch {
    scalars: [Bytes; BATCH],
    points: [Bytes; BATCH],
}

/// Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", 2016. Batches whose scalars are all the same, and few
/// of whose bits are set, against batches of random scalars, in random order; Welch's t of the two classes of times, for
/// each part of the measurements in [`CROPS`]. The largest |t| counts. Prints it, and tells whether it meets the target.
fn timing(harness: &mut Harness, name: &str, target: Target, run: impl Fn(&mut Batch)) -> bool {
    if !harness.wants(name) {
        return true;
    }
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let points = points(&mut rng);
    let mut times = Vec::new();
    let begin = Instant::now();
    let mut warm = false;
    while begin.elapsed() < DURATION {
        let classes: Vec<bool> = (0..ROUND).map(|_| rng.random()).collect();
        let mut batches: Vec<Batch> = classes
            .iter()
            .map(|fixed| {
                let random = rng.random();
                Batch { scalars: if *fixed { [[0; 32]; BATCH] } else { random }, points }
            })
            .collect();
        for (fixed, batch) in classes.into_iter().zip(&mut batches) {
            let start = Instant::now();
            run(black_box(batch));
            let elapsed = start.elapsed();
            black_box(batch);
            if warm {
                times.push((elapsed.as_nanos() as f64, fixed));
            }
        }
        warm = true;
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let parts = CROPS.map(|crop| &times[..(times.len() as f64 * crop) as usize]);
    let largest = parts.map(welch).into_iter().fold(0.0, f64::max);
    harness.medians(name, &mut [largest], None, "|t|", Some(target));
    match target {
        Target::AtMost(bound) => largest <= bound,
        Target::AtLeast(bound) => largest >= bound,
    }
}

/// Welch's |t| for the means of two classes.
fn welch(times: &[(f64, bool)]) -> f64 {
    let class = |fixed| {
        let of_class = || times.iter().filter(|time| time.1 == fixed).map(|time| time.0);
        let count = of_class().count() as f64;
        let mean = of_class().sum::<f64>() / count;
        let variance = of_class().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean, error), (mean_other, error_other)) = (class(true), class(false));
    (mean - mean_other).abs() / (error + error_other).sqrt()
}
