//! How often an adversary holds all three mixes of a path, which are the hops that hide who writes to whom.
//!
//! The layered bound. Let n of N relays of equal stake be the adversary's. The mixes of a path are three different relays,
//! none of them the last hop; lots and layers treat all relays alike, so over the epochs every three of the N − 1 others
//! are equally likely, and the expected rate is exactly n (n − 1) (n − 2) / ((N − 1) (N − 2) (N − 3)), which is at most
//! f³ for the share f = n / N where the last hop is honest and N is large. This holds for all paths of all epochs
//! together. In one epoch the rate is what that epoch's seats make it: Π over the layers of the adversary's share.

use std::collections::{HashMap, HashSet};

use fog_base::NodeId;
use fog_directory::core::lottery::{LAYERS, SEATS, Seated};
use rand::{Rng, RngExt};
use serde_json::json;

use super::{
    Run, chance, parallel,
    relays::{Network, Relay, mixes, snapshot},
    stats::{Mean, digits, normal_quantile},
};
use crate::Check;

/// Paths that are drawn in each epoch.
const DRAWS: u32 = 500;
/// How many times the cube of its share an adversary captures at most where stakes and networks are unequal.
const FACTOR: f64 = 2.0;

pub(super) fn run(run: &Run<'_>) -> Vec<Check> {
    let shares = &run.options.shares;
    // Two comparisons for each share: together they miss in 1 % of the seeds.
    let z = normal_quantile(0.005 / (2 * shares.len()) as f64);
    let equal = shares.iter().enumerate().map(|(part, share)| equal_stakes(run, (part as u64, *share), z));
    let mut checks: Vec<_> = equal.collect();
    checks.extend(shares.iter().enumerate().map(|(part, share)| unequal(run, (100 + part as u64, *share), z)));
    checks
}

/// What an epoch showed.
#[derive(Debug, Clone, Copy)]
struct EpochRates {
    /// The product of the adversary's shares of the layers.
    by_seats: f64,
    /// That, if paths through one network twice are thrown away.
    by_rules: f64,
    /// Of paths that were drawn.
    drawn: f64,
}

/// The product of the adversary's shares of the layers, without what shares a network with the last hop, and the chance
/// that a path drawn by weight alone goes through three networks.
fn by_seats(network: &Network, seats: &[Seated], last: NodeId) -> (f64, f64) {
    let relays: HashMap<_, _> = network.relays.iter().map(|relay| (relay.id, relay)).collect();
    let mut layers = vec![(0.0, 0.0, HashMap::<[u8; 2], f64>::new()); usize::from(LAYERS)];
    let beside_last = relays.get(&last).map(|relay| relay.net);
    for seat in seats {
        let layer = seat.layer.and_then(|layer| layers.get_mut(usize::from(layer)));
        let relay = relays.get(&seat.relay).filter(|relay| Some(relay.net) != beside_last);
        if let (Some((all, hostile, nets)), Some(relay)) = (layer, relay) {
            let weight = seat.weight as f64;
            *all += weight;
            *hostile += if relay.is_hostile { weight } else { 0.0 };
            *nets.entry(relay.net).or_default() += weight;
        }
    }
    let captured = layers.iter().map(|(all, hostile, _)| hostile / all).product();
    let share = |layer: usize, net: &[u8; 2]| {
        layers.get(layer).map_or(0.0, |(all, _, nets)| nets.get(net).copied().unwrap_or(0.0) / all)
    };
    let nets: HashSet<_> = layers.iter().flat_map(|(_, _, nets)| nets.keys()).collect();
    let mut nets: Vec<_> = nets.into_iter().collect();
    nets.sort();
    // Pairs in one network, less those that were counted twice too often.
    let crowded = nets.iter().map(|net| {
        let [a, b, c] = [0, 1, 2].map(|layer| share(layer, net));
        a * b + a * c + b * c - 2.0 * a * b * c
    });
    (captured, 1.0 - crowded.sum::<f64>())
}

/// The rates of many epochs; `part` tells their generators apart.
fn rates(run: &Run<'_>, network: &Network, part: u64, epochs: u32) -> Vec<EpochRates> {
    let descriptors = network.descriptors();
    let hostile: HashSet<_> = network.relays.iter().filter(|relay| relay.is_hostile).map(|relay| relay.id).collect();
    let honest: Vec<_> = network.relays.iter().filter(|relay| !relay.is_hostile).map(|relay| relay.id).collect();
    parallel(epochs as usize, |epoch| {
        let mut rng = run.rng(part << 32 | epoch as u64);
        let seats = network.seats(&mut rng);
        let last = honest[rng.random_range(0..honest.len())];
        let (by_seats, allowed) = by_seats(network, &seats, last);
        let snapshot = snapshot(&descriptors, &seats);
        let is_captured = |_: &u32| mixes(&snapshot, last, &mut rng).iter().all(|mix| hostile.contains(mix));
        let captured = (0..DRAWS).filter(is_captured).count();
        EpochRates { by_seats, by_rules: by_seats / allowed, drawn: captured as f64 / f64::from(DRAWS) }
    })
}

fn mean(rates: &[EpochRates], value: impl Fn(&EpochRates) -> f64) -> Mean {
    Mean::of(&rates.iter().map(value).collect::<Vec<_>>())
}

fn equal_stakes(run: &Run<'_>, (part, share): (u64, f64), z: f64) -> Check {
    let count = run.options.peers;
    let hostile = (share * count as f64).round() as usize;
    let network = Network::equal(count, hostile);
    let epochs = run.epochs(2_000);
    let rates = rates(run, &network, part, epochs);
    let (seats, drawn) = (mean(&rates, |rate| rate.by_seats), mean(&rates, |rate| rate.drawn));
    let triples = |n: usize| n as f64 * (n as f64 - 1.0) * (n as f64 - 2.0);
    let bound = triples(hostile) / triples(count - 1);
    // Few epochs have most of the captured paths where the share is small, so a sample's own deviation is often too small.
    let [by_seats, by_draws] = deviations(share, bound).map(|deviation| deviation / libm::sqrt(f64::from(epochs)));
    let mut wrong = Vec::new();
    for (what, mean, error) in [("by the seats", seats, by_seats), ("of the paths drawn", drawn, by_draws)] {
        if (mean.mean - bound).abs() > z * error {
            wrong.push(format!("{} {what}, not {}", digits(mean.mean), digits(bound)));
        }
    }
    let detail = format!(
        "{} of the weight captures {} of {} paths; the layered bound is {}",
        share,
        digits(drawn.mean),
        u64::from(epochs) * u64::from(DRAWS),
        digits(bound)
    );
    Check::judged(&run.name(format!("{share}, equal stakes")), &wrong, detail)
        .with("relays", count)
        .with("hostile", hostile)
        .with("epochs", epochs)
        .with("layered_bound", digits(bound))
        .with("by_seats", seats.json())
        .with("drawn", drawn.json())
        .with("judged_within_deviations", digits(z))
}

/// How much the rate of one epoch deviates from its mean, by its seats and by the paths drawn: the adversary's seats in each of
/// three layers of m are nearly binomial, so the mean square of its share of a layer is f² + f (1 − f) / m.
fn deviations(share: f64, mean: f64) -> [f64; 2] {
    let layer = SEATS as f64 / f64::from(LAYERS);
    let square = share * share + share * (1.0 - share) / layer;
    let variance = square * square * square - libm::pow(share, 6.0);
    [variance, variance + mean / f64::from(DRAWS)].map(libm::sqrt)
}

/// Honest stakes as in proof-of-stake networks (Pareto, shape 1.2), in 40 networks of which the largest hold most; the
/// adversary's are small, as many as possible, each in a network of its own. By the rules its paths are never thrown
/// away and honest ones sometimes are, and a heavy honest relay makes its layer heavier than the others: both let it
/// capture more than f³.
fn unequal(run: &Run<'_>, (part, share): (u64, f64), z: f64) -> Check {
    let network = unequal_network(run, part, share);
    let epochs = run.epochs(2_000);
    let rates = rates(run, &network, part, epochs);
    let (seats, rules) = (mean(&rates, |rate| rate.by_seats), mean(&rates, |rate| rate.by_rules));
    let drawn = mean(&rates, |rate| rate.drawn);
    let differs = mean(&rates, |rate| rate.drawn - rate.by_rules);
    let actual = network.hostile_share();
    let cube = actual * actual * actual;
    let mut wrong = Vec::new();
    // As above, a sample without many captured paths deviates too little.
    let least = libm::sqrt(rules.mean / f64::from(DRAWS) / f64::from(epochs));
    if differs.mean.abs() > z * differs.error.max(least) {
        wrong.push(format!("{} of the paths drawn, {} by seats and rules", digits(drawn.mean), digits(rules.mean)));
    }
    if drawn.mean > FACTOR * cube + z * drawn.error {
        wrong.push(format!("{} of the paths drawn, above {FACTOR} times {}", digits(drawn.mean), digits(cube)));
    }
    let factor = rules.mean / cube;
    let detail = format!(
        "{} of the weight captures {}, {} times its cube: heavy honest relays and crowded networks help it",
        digits(actual),
        digits(drawn.mean),
        digits(factor)
    );
    Check::judged(&run.name(format!("{share}, unequal stakes and networks")), &wrong, detail)
        .with("epochs", epochs)
        .with("cube", digits(cube))
        .with("by_seats", seats.json())
        .with("by_seats_and_rules", rules.json())
        .with("drawn", drawn.json())
        .with("factors", json!({ "layers": digits(seats.mean / cube), "layers_and_networks": digits(factor) }))
}

fn unequal_network(run: &Run<'_>, part: u64, share: f64) -> Network {
    let count = run.options.peers;
    let hostile = ((share * count as f64).round() as usize).max(3);
    let mut rng = run.rng(part << 32 | u64::from(u32::MAX));
    let honest = |n| {
        let mut relay = Relay::new(n, chance::pareto(1_000.0, 1.2, &mut rng) as u64, false);
        relay.net = [101, zipf(40, &mut rng)];
        relay
    };
    let honest: Vec<_> = (0..count - hostile).map(honest).collect();
    let held: u64 = Network::new(honest.clone()).weights.iter().sum();
    // Newcomers' stakes are worth half in weight, the adversary's and the others' alike.
    let stake = 2.0 * held as f64 * share / (1.0 - share) / hostile as f64 / 65_536.0;
    let theirs = (count - hostile..count).map(|n| Relay::new(n, stake.round() as u64, true));
    Network::new(honest.into_iter().chain(theirs).collect())
}

/// A number below `count`, n with a chance proportional to 1 / (n + 1).
fn zipf(count: u8, rng: &mut impl Rng) -> u8 {
    let total: f64 = (1..=count).map(|n| 1.0 / f64::from(n)).sum();
    let mut left = rng.random::<f64>() * total;
    (0..count)
        .find(|n| {
            left -= 1.0 / f64::from(n + 1);
            left <= 0.0
        })
        .unwrap_or(count - 1)
}
