//! Circuits that start at an adversary's guard: with guards that are kept, and with a new first hop for each circuit.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now};
use fog_directory::core::guards::{Config, Guards, Verdict};
use rand::RngExt;
use serde_json::json;

use super::{
    Run, parallel,
    relays::{Network, beginning},
    stats::{Part, digits},
};
use crate::Check;

const CLIENTS: u64 = 600;
/// Circuits of a client per day.
const CIRCUITS: u32 = 24;
/// Relays in the snapshots, at most: every client reads each.
const RELAYS: usize = 400;
/// The days after which it is counted.
const DAYS: [u32; 3] = [30, 90, 180];

/// What happens to relays that are not the adversary's; its own are always there.
#[derive(Debug, Clone, Copy)]
struct Weather {
    name: &'static str,
    /// The chance that an honest relay cannot be reached, drawn for every relay and day.
    down: f64,
    /// The chance that an honest relay leaves for good, drawn for every relay and day; another one takes its place.
    leaves: f64,
}

const QUIET: Weather = Weather { name: "steady relays", down: 0.0, leaves: 0.0 };
const CHURN: Weather = Weather { name: "relays that fail and leave", down: 0.01, leaves: 0.002 };

pub(super) fn run(run: &Run<'_>) -> Vec<Check> {
    let shares = run.options.shares.iter().enumerate();
    shares.flat_map(|(part, share)| [QUIET, CHURN].map(|weather| check(run, part as u64, *share, weather))).collect()
}

fn check(run: &Run<'_>, part: u64, share: f64, weather: Weather) -> Check {
    let count = run.options.peers.min(RELAYS);
    let network = Network::equal(count, (share * count as f64).round() as usize);
    let days = days(run, &network, part, weather);
    let clients = run.some(CLIENTS);
    let met = parallel(clients as usize, |client| met(run, (part << 32) + client as u64, &days));
    let by = |day: u32| {
        Part::new(met.iter().filter(|met| met.first.is_some_and(|first| first < day)).count() as u64, clients)
    };
    let used = met.iter().map(|met| met.guards).sum::<usize>() as f64 / clients as f64;
    let circuits = Part::new(met.iter().map(|met| met.circuits).sum(), clients * u64::from(DAYS[2] * CIRCUITS));
    let actual = network.hostile_share();
    let first = by(DAYS[0]);
    // A steady client has one guard in a month. Where guards fail and leave, it has met at most six.
    let guards = if weather.down > 0.0 { 6.0 } else { 1.0 };
    let bound = 1.0 - libm::pow(1.0 - actual, guards);
    let wrong = if first.interval(0.01)[0] > bound {
        vec![format!(
            "{} of the clients met a hostile guard in {} days, above {}",
            digits(first.rate()),
            DAYS[0],
            digits(bound)
        )]
    } else {
        Vec::new()
    };
    let fresh = 1.0 - libm::pow(1.0 - actual, f64::from(DAYS[0] * CIRCUITS));
    let detail = format!(
        "{share} of the weight is met by {} of the clients in 30 days, {} in 90, {} in 180 (with a new first hop for each \
         circuit by {} in 30)",
        digits(first.rate()),
        digits(by(DAYS[1]).rate()),
        digits(by(DAYS[2]).rate()),
        digits(fresh)
    );
    Check::judged(&run.name(format!("{share}, {}", weather.name)), &wrong, detail)
        .with("clients", clients)
        .with("bound_30_days", digits(bound))
        .with("met_in_30_days", first.json())
        .with("met_in_90_days", by(DAYS[1]).json())
        .with("met_in_180_days", by(DAYS[2]).json())
        .with("guards_used_in_180_days", digits(used))
        .with("circuits_at_hostile_guards", digits(circuits.rate()))
        .with("without_guards", json!({ "met_in_30_days": digits(fresh) }))
}

/// A day of the network: the relays that are listed, and those of them that cannot be reached.
struct Day {
    listed: Vec<(NodeId, u64)>,
    down: HashSet<NodeId>,
    hostile: HashSet<NodeId>,
}

fn days(run: &Run<'_>, network: &Network, part: u64, weather: Weather) -> Vec<Day> {
    let mut rng = run.rng(part << 32 | 0xffff_ffff);
    let hostile: HashSet<_> = network.relays.iter().filter(|relay| relay.is_hostile).map(|relay| relay.id).collect();
    let mut listed: Vec<_> = network.relays.iter().map(|relay| relay.id).zip(network.weights.iter().copied()).collect();
    let day = |_| {
        let mut down = HashSet::new();
        for (relay, _) in listed.iter_mut().filter(|(relay, _)| !hostile.contains(relay)) {
            if rng.random_bool(weather.leaves) {
                *relay = NodeId(rng.random());
            }
            if rng.random_bool(weather.down) {
                down.insert(*relay);
            }
        }
        Day { listed: listed.clone(), down, hostile: hostile.clone() }
    };
    (0..DAYS[2]).map(day).collect()
}

/// What became of a client.
struct Met {
    /// The day of its first circuit at a hostile guard.
    first: Option<u32>,
    /// How many circuits started at one.
    circuits: u64,
    /// How many guards it used.
    guards: usize,
}

fn met(run: &Run<'_>, client: u64, days: &[Day]) -> Met {
    let seed = run.rng(client).random();
    let mut guards = Guards::new(Config::default(), None, seed).expect("nothing was kept");
    let begin = Now { mono: Instant::now(), unix: beginning() };
    let (mut met, mut used) = (Met { first: None, circuits: 0, guards: 0 }, HashSet::new());
    for (number, day) in (0u32..).zip(days) {
        guards.handle_snapshot(&day.listed, begin.plus(Duration::from_secs(86_400) * number));
        for circuit in 0..CIRCUITS {
            let at = Duration::from_secs(86_400) * number + Duration::from_secs(86_400) * circuit / CIRCUITS;
            if let Some(guard) = build(&mut guards, day, begin.plus(at)) {
                used.insert(guard);
                if day.hostile.contains(&guard) {
                    met.first.get_or_insert(number);
                    met.circuits += 1;
                }
            }
        }
    }
    met.guards = used.len();
    met
}

/// Builds a circuit, which may take several attempts.
fn build(guards: &mut Guards, day: &Day, now: Now) -> Option<NodeId> {
    for _ in 0..20 {
        let guard = guards.pick(|_| true, now)?;
        if day.down.contains(&guard) {
            guards.handle_failure(guard, now);
        } else if guards.handle_success(guard, now) == Verdict::Use {
            return Some(guard);
        }
    }
    None
}
