//! Seats against weight, and keys ground for a beacon.

use std::collections::HashMap;

use fog_base::{Epoch, NodeId};
use fog_directory::core::{
    beacon::{Beacon, Before, CONTRIBUTORS, SetBeacon},
    lottery::{Entrant, Lot, Lottery, SEATS, own_lot, seat},
};
use serde_json::json;

use super::{
    Run, chance, parallel,
    relays::{NETWORK, Network, Relay, random_lot, vrf_key},
    stats::{Part, chi_square_tail, digits},
};
use crate::Check;

/// Relays are compared in so many classes of weight, each with as many relays.
const CLASSES: usize = 10;

/// Stakes of a Pareto distribution, thousands of epochs: the seats that relays win against seats · weight / total.
pub(super) fn seats(run: &Run<'_>) -> Vec<Check> {
    let mut rng = run.rng(0);
    let relay = |n| Relay::new(n, chance::pareto(1_000.0, 1.2, &mut rng) as u64, false);
    let network = Network::new((0..run.options.peers).map(relay).collect());
    let total: f64 = network.weights.iter().map(|weight| *weight as f64).sum();
    let chances: Vec<_> =
        network.weights.iter().map(|weight| (SEATS as f64 * *weight as f64 / total).min(1.0)).collect();
    let places: HashMap<_, _> = network.relays.iter().enumerate().map(|(at, relay)| (relay.id, at)).collect();
    let epochs = run.epochs(2_000);
    let won = parallel(epochs as usize, |epoch| {
        let seats = network.seats(&mut run.rng(1 + epoch as u64));
        let all: f64 = seats.iter().map(|seat| seat.weight as f64).sum();
        seats.iter().map(|seat| (places.get(&seat.relay).copied(), seat.weight as f64 / all)).collect::<Vec<_>>()
    });
    let (mut counts, mut shares) = (vec![0u64; chances.len()], vec![0.0; chances.len()]);
    for (at, share) in won.iter().flatten() {
        if let Some(at) = at {
            counts[*at] += 1;
            shares[*at] += share / f64::from(epochs);
        }
    }
    let mut order: Vec<_> = (0..chances.len()).filter(|at| chances[*at] < 1.0).collect();
    order.sort_by(|a, b| chances[*a].total_cmp(&chances[*b]).then(a.cmp(b)));
    let (mut chi_square, mut classes) = (0.0, Vec::new());
    for class in order.chunks(order.len().div_ceil(CLASSES).max(1)) {
        let sum = |of: &dyn Fn(usize) -> f64| class.iter().map(|at| of(*at)).sum::<f64>();
        let expected = f64::from(epochs) * sum(&|at| chances[at]);
        let variance = f64::from(epochs) * sum(&|at| chances[at] * (1.0 - chances[at]));
        let seats = sum(&|at| counts[at] as f64);
        chi_square += (seats - expected) * (seats - expected) / variance;
        classes.push(json!({
            "relays": class.len(),
            "seats": seats,
            "expected": digits(expected),
            "share_of_weight": digits(sum(&|at| network.weights[at] as f64) / total),
            "share_of_traffic": digits(sum(&|at| shares[at])),
        }));
    }
    let always: Vec<_> = (0..chances.len()).filter(|at| chances[*at] >= 1.0).collect();
    let tail = chi_square_tail(chi_square, classes.len());
    let mut wrong = Vec::new();
    if tail < 0.01 {
        wrong.push(format!("χ² = {} with {} degrees of freedom", digits(chi_square), classes.len()));
    }
    if always.iter().any(|at| counts[*at] != u64::from(epochs)) {
        wrong.push("a relay with the weight of a seat was left out".into());
    }
    let detail = format!("seats follow weight: χ² = {}, a chance of {}", digits(chi_square), digits(tail));
    vec![
        Check::judged(&run.name("by weight"), &wrong, detail)
            .with("epochs", epochs)
            .with("chi_square", digits(chi_square))
            .with("degrees_of_freedom", classes.len())
            .with("p_value", digits(tail))
            .with("always_seated", always.len())
            .with("classes", classes),
    ]
}

/// Relays beside the one that grinds; each weighs eight times as much.
const OTHERS: usize = 300;
const OTHERS_WEIGHT: u64 = 8;
/// The chance of the grinder's relay, whose weight is 1.
const CHANCE: f64 = SEATS as f64 / (1.0 + OTHERS as f64 * OTHERS_WEIGHT as f64);
/// Later beacons under which the best keys are tried.
const LATER: u32 = 20;
/// Keys of which a hash stands in for the VRF.
const SURROGATES: u64 = 1_000_000;

/// Grinds for the first beacon, and counts the seats of the best keys under those that follow it.
pub(super) fn ground_keys(run: &Run<'_>) -> Vec<Check> {
    let beacons = beacons(run);
    let id = NodeId([7; 32]);
    let seed = |key: u64| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&run.options.seed.to_be_bytes());
        bytes[8..].copy_from_slice(&key.to_be_bytes());
        blake3::derive_key("fog testnet sim ground key v1", &bytes)
    };
    let real = |key: u64, beacon: usize| {
        let lottery = Lottery { network: &NETWORK, epoch: Epoch(beacon as u32), beacon: &beacons[beacon] };
        own_lot(&vrf_key(&seed(key)), &id, &lottery)
    };
    let hashed = |key: u64, beacon: usize| Lot(*blake3::keyed_hash(&beacons[beacon], &seed(key)).as_bytes());
    vec![
        grind(run, "real keys", u64::from(run.options.keys), real),
        grind(run, "hashes in place of keys", run.some(SURROGATES), hashed),
    ]
}

/// The beacon that is ground for, and those that follow it when the seats of others are drawn.
fn beacons(run: &Run<'_>) -> Vec<[u8; 32]> {
    let mut rng = run.rng(0);
    let mut chain = vec![SetBeacon.beacon(&NETWORK, Epoch(0), None)];
    for at in 0..LATER as usize {
        let outputs = (0..CONTRIBUTORS).map(|_| random_lot(&mut rng).0).collect();
        let before = Before { beacon: chain[at], outputs };
        chain.push(SetBeacon.beacon(&NETWORK, Epoch(at as u32 + 1), Some(&before)));
    }
    chain
}

fn grind(run: &Run<'_>, what: &str, keys: u64, lot: impl Fn(u64, usize) -> Lot + Sync) -> Check {
    let chunk = 1_000;
    let lots = parallel(keys.div_ceil(chunk) as usize, |at| {
        let first = at as u64 * chunk;
        (first..(first + chunk).min(keys)).map(|key| (lot(key, 0), key)).collect::<Vec<_>>()
    });
    let mut lots: Vec<_> = lots.into_iter().flatten().collect();
    let before = parallel(lots.len().div_ceil(chunk as usize), |at| {
        lots.chunks(chunk as usize).nth(at).map_or(0, |lots| seated(lots.iter().map(|(lot, _)| *lot)))
    });
    lots.sort();
    // The best of each thousand, on average.
    let best: Vec<_> = lots.iter().take(keys.div_ceil(1_000) as usize).map(|(_, key)| *key).collect();
    let later = parallel(best.len(), |at| seated((1..=LATER as usize).map(|beacon| lot(best[at], beacon))));
    let all = Part::new(before.iter().sum(), keys);
    let seats = Part::new(later.iter().sum(), best.len() as u64 * u64::from(LATER));
    let mut wrong = Vec::new();
    let [low, high] = all.interval(0.01);
    if !(low..=high).contains(&CHANCE) {
        wrong.push(format!("{} of all keys are seated under the beacon that is known", digits(all.rate())));
    }
    if seats.interval(0.02)[0] > CHANCE {
        wrong.push(format!("the best keys win {} seats, more than chance", digits(seats.rate())));
    }
    let detail = format!(
        "the best {} of {keys} keys win {} of {} seats under later beacons; chance gives {}",
        best.len(),
        seats.hits,
        seats.of,
        digits(CHANCE * seats.of as f64)
    );
    let leading = |lot: &Lot| lot.0.iter().take(8).fold(0.0, |value, byte| value * 256.0 + f64::from(*byte));
    let sharpest = lots.first().map_or(1.0, |(lot, _)| leading(lot) / libm::pow(2.0, 64.0));
    Check::judged(&run.name(what), &wrong, detail)
        .with("keys", keys)
        .with("chance", digits(CHANCE))
        .with("best_lot", digits(sharpest))
        .with("seated_under_the_known_beacon", all.json())
        .with("best_keys_under_later_beacons", seats.json())
}

/// Who grinds.
const GRINDER: NodeId = NodeId([255; 32]);

/// The relay that grinds and the others; these have the last lots, as nothing depends on them.
fn entrants() -> Vec<Entrant> {
    let last = Lot([255; 32]);
    let other =
        |n: usize| Entrant { relay: NodeId([(n % 255) as u8; 32]), lot: last, weight: OTHERS_WEIGHT, is_mix: true };
    let grinder = Entrant { relay: GRINDER, lot: last, weight: 1, is_mix: true };
    std::iter::once(grinder).chain((0..OTHERS).map(other)).collect()
}

/// With how many of these lots it is seated.
fn seated(lots: impl Iterator<Item = Lot>) -> u64 {
    let mut entrants = entrants();
    let is_seated = |lot: &Lot| {
        entrants.iter_mut().take(1).for_each(|grinder| grinder.lot = *lot);
        seat(&entrants, SEATS).iter().any(|seat| seat.relay == GRINDER)
    };
    lots.filter(is_seated).count() as u64
}
