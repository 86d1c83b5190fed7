//! Relays without stake, ten times as many as there are others: they have no weight, so nothing that is drawn changes.

use std::collections::HashSet;

use fog_base::NodeId;
use fog_directory::core::{standing::Standings, weight::EqualStakes};
use serde_json::json;

use super::{
    Run, parallel,
    relays::{Network, Relay, mixes, snapshot, weights},
    stats::{Mean, digits, spread},
};
use crate::Check;

/// Honest nodes whose paths are compared.
const CLIENTS: u64 = 100;
/// Paths of each, per epoch.
const DRAWS: u32 = 200;
const SYBILS: usize = 10;

/// A fifth of the stake is the adversary's. The same lots and the same draws are made without the flood and with it.
pub(super) fn run(run: &Run<'_>) -> Vec<Check> {
    let count = run.options.peers;
    let network = Network::equal(count, count / 5);
    // Sybils take the families and networks of honest relays, as if to share the caps with them.
    let sybil = |n: usize| {
        let copied = &network.relays[n % (count - count / 5)];
        let mut sybil = Relay::new(1_000_000 + n, 0, true);
        (sybil.net, sybil.family) = (copied.net, copied.family);
        sybil
    };
    let relays: Vec<_> = network.relays.iter().cloned().chain((0..SYBILS * count).map(sybil)).collect();
    let flooded = Network::new(relays);
    let hostile: HashSet<_> = flooded.relays.iter().filter(|relay| relay.is_hostile).map(|relay| relay.id).collect();
    let epochs = run.epochs(20);
    let (before, after) = (captured(run, &network, epochs, &hostile), captured(run, &flooded, epochs, &hostile));
    let changes = before.iter().zip(&after).map(|(before, after)| (after - before).abs()).fold(0.0, f64::max);
    let mut wrong = Vec::new();
    if before != after {
        wrong.push(format!("an honest node's rate changed by {}", digits(changes)));
    }
    if flooded.weights.iter().take(count).ne(&network.weights) || flooded.weights.iter().skip(count).any(|w| *w > 0) {
        wrong.push("weights changed".into());
    }
    let open = open_network(&flooded);
    let detail = format!(
        "{} Sybils beside {count} relays change the rate of none of {} honest nodes (without a stake table they would \
         capture {})",
        SYBILS * count,
        before.len(),
        digits(open)
    );
    vec![
        Check::judged(&run.name("no stake"), &wrong, detail)
            .with("epochs", epochs)
            .with("paths_per_node", epochs * DRAWS)
            .with("captured_before", Mean::of(&before).json())
            .with("captured_after", Mean::of(&after).json())
            .with("captured_by_node", spread(after.iter().copied()))
            .with("largest_change", digits(changes))
            .with("without_a_stake_table", json!({ "captured": digits(open), "sybil_resistance": "none" })),
    ]
}

/// The rate of captured paths to each of the honest nodes.
fn captured(run: &Run<'_>, network: &Network, epochs: u32, hostile: &HashSet<NodeId>) -> Vec<f64> {
    let descriptors = network.descriptors();
    let clients: Vec<_> = network
        .relays
        .iter()
        .filter(|relay| !relay.is_hostile)
        .take(run.some(CLIENTS) as usize)
        .map(|relay| relay.id)
        .collect();
    let by_epoch = parallel(epochs as usize, |epoch| {
        let seats = network.seats(&mut run.rng(epoch as u64));
        let snapshot = snapshot(&descriptors, &seats);
        let mut rng = run.rng(1 << 32 | epoch as u64);
        let of = |client: &NodeId| {
            (0..DRAWS).filter(|_| mixes(&snapshot, *client, &mut rng).iter().all(|mix| hostile.contains(mix))).count()
        };
        clients.iter().map(of).collect::<Vec<_>>()
    });
    let total = |client: usize| by_epoch.iter().filter_map(|counts| counts.get(client)).sum::<usize>();
    (0..clients.len()).map(|client| total(client) as f64 / f64::from(epochs * DRAWS)).collect()
}

/// What the Sybils would capture if every relay weighed the same.
fn open_network(flooded: &Network) -> f64 {
    let mut relays = flooded.relays.clone();
    let mut nets = 0..;
    // Where identities are free, so are families; networks cost little.
    relays.iter_mut().for_each(|relay| relay.net = Relay::new(nets.next().unwrap_or(0), 0, false).net);
    let network = Network { weights: weights(&relays, &EqualStakes, &Standings::default()), relays };
    libm::pow(network.hostile_share(), 3.0)
}
