//! What an adversary gains by withholding tickets: each choice of which of its tickets count gives another beacon.
//!
//! It knows all other tickets first, tries every beacon that it can bring about, and takes the best for it in the next
//! epoch. A relay whose ticket was withheld has no seat in that epoch and takes no part in the next two. With the share
//! f of the weight there are on average (1 − f)^−12 beacons to choose from, as long as few relays are out.

use std::collections::{HashMap, HashSet};

use fog_base::{Epoch, NodeId};
use fog_directory::core::{
    beacon::{Beacon, Before, CONTRIBUTORS, SetBeacon},
    lottery::{Entrant, LAYERS, SEATS, Seated, seat},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    Run, parallel,
    relays::{NETWORK, Network, Relay, random_lot},
    stats::{Mean, digits},
};
use crate::Check;

/// Beacons that are tried in one epoch at most.
const MOST: usize = 4_096;
/// Independent chains of beacons.
const CHAINS: u32 = 20;
/// Captured paths stay below this many times the cube of the share.
const FACTOR: f64 = 2.5;

/// What the adversary wants most.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Aim {
    Seats,
    Paths,
}

pub(super) fn run(run: &Run<'_>) -> Vec<Check> {
    let parts = run.options.shares.iter().enumerate().flat_map(|(part, share)| {
        [(Aim::Seats, "most seats"), (Aim::Paths, "most paths")].map(|(aim, name)| (part as u64, *share, aim, name))
    });
    parts.map(|(part, share, aim, name)| check(run, part, share, (aim, name))).collect()
}

fn check(run: &Run<'_>, part: u64, share: f64, (aim, name): (Aim, &str)) -> Check {
    let count = run.options.peers;
    let network = Network::equal(count, (share * count as f64).round() as usize);
    let epochs = run.epochs(200).div_ceil(CHAINS);
    let shown = parallel(CHAINS as usize, |chain| {
        let mut rng = run.rng(part << 32 | chain as u64);
        let mut chain = Chain::new(&network, aim, random_lot(&mut rng).0);
        // The first epochs have nobody out yet.
        (0..epochs + 3).map(|_| chain.epoch()).skip(3).collect::<Vec<_>>()
    });
    let shown: Vec<_> = shown.into_iter().flatten().collect();
    let mean = |value: fn(&Shown) -> f64| Mean::of(&shown.iter().map(value).collect::<Vec<_>>());
    let (choices, seats, paths) = (mean(|s| s.choices), mean(|s| s.seats), mean(|s| s.paths));
    let actual = network.hostile_share();
    let cube = actual * actual * actual;
    // Few seats to win make large differences of chance: the mean itself is held to the bound.
    let wrong = if paths.mean > FACTOR * cube {
        vec![format!("{} of the paths are captured, above {FACTOR} times {}", digits(paths.mean), digits(cube))]
    } else {
        Vec::new()
    };
    let detail = format!(
        "{share} of the weight chooses among {} beacons, holds {} of the seats and captures {} of the paths ({} times \
         the cube)",
        digits(choices.mean),
        digits(seats.mean),
        digits(paths.mean),
        digits(paths.mean / cube)
    );
    Check::judged(&run.name(format!("{share}, {name}")), &wrong, detail)
        .with("epochs", shown.len())
        .with("beacons", choices.json())
        .with("beacons_expected", digits(libm::pow(1.0 - actual, -(CONTRIBUTORS as f64))))
        .with("share_of_seats", seats.json())
        .with("captured", paths.json())
        .with("cube", digits(cube))
}

/// What one epoch showed.
#[derive(Debug, Clone, Copy)]
struct Shown {
    choices: f64,
    seats: f64,
    paths: f64,
}

/// A chain of beacons.
struct Chain<'a> {
    network: &'a Network,
    hostile: HashSet<NodeId>,
    aim: Aim,
    beacon: [u8; 32],
    /// Whose tickets were withheld in the last two epochs.
    out: [HashSet<NodeId>; 2],
}

impl<'a> Chain<'a> {
    fn new(network: &'a Network, aim: Aim, beacon: [u8; 32]) -> Self {
        let hostile = network.relays.iter().filter(|relay| relay.is_hostile).map(|relay| relay.id).collect();
        Self { network, hostile, aim, beacon, out: Default::default() }
    }

    /// The tickets of an epoch: a VRF under a beacon is a random function.
    fn entrants(&self, beacon: &[u8; 32], out: &[&HashSet<NodeId>]) -> Vec<Entrant> {
        let mut rng = ChaCha8Rng::from_seed(*beacon);
        let entrant = |(relay, weight): (&Relay, &u64)| {
            let weight = if out.iter().any(|out| out.contains(&relay.id)) { 0 } else { *weight };
            Entrant { relay: relay.id, lot: random_lot(&mut rng), weight, is_mix: true }
        };
        self.network.relays.iter().zip(&self.network.weights).map(entrant).collect()
    }

    /// Chooses what to withhold, and goes on to the next beacon.
    fn epoch(&mut self) -> Shown {
        let [older, newer] = &self.out;
        let entrants = self.entrants(&self.beacon, &[older, newer]);
        let lots: HashMap<_, _> = entrants.iter().map(|entrant| (entrant.relay, entrant.lot.0)).collect();
        let ranked: Vec<_> = seat(&entrants, SEATS).iter().map(|seat| seat.relay).collect();
        let mut choices = Vec::new();
        self.choices(&ranked, CONTRIBUTORS, &mut Vec::new(), &mut Vec::new(), &mut choices);
        let tried = choices.len() as f64;
        let best = choices.into_iter().map(|(counted, withheld)| {
            let outputs = counted.iter().filter_map(|relay| lots.get(relay).copied()).collect();
            let before = Before { beacon: self.beacon, outputs };
            let beacon = SetBeacon.beacon(&NETWORK, Epoch(0), Some(&before));
            let withheld: HashSet<_> = withheld.into_iter().collect();
            let next = seat(&self.entrants(&beacon, &[newer, &withheld]), SEATS);
            (self.worth(&next), beacon, withheld)
        });
        let best = best.reduce(|best, other| if other.0 > best.0 { other } else { best });
        let Some((_, beacon, withheld)) = best else { return Shown { choices: 0.0, seats: 0.0, paths: 0.0 } };
        let now = seat(&self.entrants(&self.beacon, &[older, newer, &withheld]), SEATS);
        let shown = Shown { choices: tried, seats: self.share_of_seats(&now), paths: self.captured(&now) };
        self.beacon = beacon;
        let newer = std::mem::take(&mut self.out[1]);
        self.out = [newer, withheld];
        shown
    }

    /// All ways to fill the places that count, from the ranked seats: which tickets count, and which are withheld.
    fn choices(
        &self,
        ranked: &[NodeId],
        places: usize,
        counted: &mut Vec<NodeId>,
        withheld: &mut Vec<NodeId>,
        into: &mut Vec<(Vec<NodeId>, Vec<NodeId>)>,
    ) {
        let Some((first, rest)) = ranked.split_first().filter(|_| places > 0) else {
            into.push((counted.clone(), withheld.clone()));
            return;
        };
        counted.push(*first);
        self.choices(rest, places - 1, counted, withheld, into);
        counted.pop();
        if self.hostile.contains(first) && into.len() < MOST {
            withheld.push(*first);
            self.choices(rest, places, counted, withheld, into);
            withheld.pop();
        }
    }

    fn worth(&self, seats: &[Seated]) -> f64 {
        match self.aim {
            Aim::Seats => self.share_of_seats(seats),
            Aim::Paths => self.captured(seats),
        }
    }

    fn share_of_seats(&self, seats: &[Seated]) -> f64 {
        seats.iter().filter(|seat| self.hostile.contains(&seat.relay)).count() as f64 / seats.len().max(1) as f64
    }

    fn captured(&self, seats: &[Seated]) -> f64 {
        let share = |layer| {
            let all = seats.iter().filter(|seat| seat.layer == Some(layer));
            let count = all.clone().count().max(1) as f64;
            all.filter(|seat| self.hostile.contains(&seat.relay)).count() as f64 / count
        };
        (0..LAYERS).map(share).product()
    }
}
