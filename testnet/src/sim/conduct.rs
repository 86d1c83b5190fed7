//! What peers find out by themselves: each has a reputation core of its own, which sees the loops that it sent and nothing
//! else. Loops are packets that travel from relay to relay in virtual time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{EpochSchedule, NodeId, Now};
use fog_reputation::{Config, Kind, Observation, Outcome, Reputation};
use rand::{RngExt, seq::index};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{
    Run, chance, parallel,
    queue::Queue,
    relays::{EPOCH_LENGTH, NETWORK, beginning},
    stats::{Part, digits, spread},
    swarm::{Links, Presence},
};
use crate::Check;

const PEERS: usize = 60;
/// The first peers are the free-riders.
const RIDERS: usize = 12;
const EPOCHS: u32 = 10;
/// Mean seconds between a peer's loops.
const LOOP_EVERY: f64 = 5.0;
const MIXES: usize = 3;
/// The mean delay at a mix, in seconds.
const MEAN_DELAY: f64 = 0.05;
/// A loop that is not back by then is lost.
const DEADLINE: Duration = Duration::from_secs(5);
/// What a line loses: a mix is on the ends of two lines, so it seems to lose about 2 %.
const LOSS: f64 = 0.015;

struct Peer {
    id: NodeId,
    reputation: Reputation,
    presence: Presence,
    /// The chance that it drops a packet of others.
    drops: f64,
}

impl Peer {
    fn new(number: usize, presence: Presence, drops: f64, now: Now) -> Self {
        let seed = blake3::derive_key("fog testnet sim peer v1", &number.to_be_bytes());
        let identity = Arc::new(SigningKey::from_bytes(&seed));
        let id = NodeId(identity.verifying_key().to_bytes());
        let config = Config::new(NETWORK, EpochSchedule::new(EPOCH_LENGTH));
        Self { id, reputation: Reputation::new(config, identity, seed, now), presence, drops }
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A peer sends its next loop.
    Send(usize),
    /// A loop's packet arrives at its hop of this number; behind the mixes is the sender.
    Arrive(u64, usize),
    /// A mix has held the packet for its delay.
    Leave(u64, usize),
    /// A loop should be back.
    Overdue(u64),
}

struct World {
    peers: Vec<Peer>,
    links: Links,
    queue: Queue<Event>,
    /// Loops that are on their way: the sender, then the mixes.
    loops: BTreeMap<u64, [usize; 1 + MIXES]>,
    sent: u64,
    begin: Now,
    rng: ChaCha8Rng,
}

impl World {
    fn new(peers: Vec<Peer>, links: Links, begin: Now, rng: ChaCha8Rng) -> Self {
        let mut queue = Queue::new();
        (0..peers.len()).for_each(|peer| queue.schedule(Duration::ZERO, Event::Send(peer)));
        Self { peers, links, queue, loops: BTreeMap::new(), sent: 0, begin, rng }
    }

    /// Lets time pass.
    fn run_until(&mut self, end: Duration) {
        while let Some((at, event)) = self.queue.pop() {
            if at >= end {
                self.queue.schedule(at, event);
                return;
            }
            self.handle(event, at);
        }
    }

    fn handle(&mut self, event: Event, at: Duration) {
        match event {
            Event::Send(peer) => {
                let wait = Duration::from_secs_f64(chance::exponential(LOOP_EVERY, &mut self.rng));
                self.queue.schedule(at + wait, Event::Send(peer));
                if self.peers[peer].presence.is_there(at) {
                    self.send(peer, at);
                }
            }
            Event::Arrive(number, hop) => self.arrive(number, hop, at),
            Event::Leave(number, hop) => self.forward(number, hop, at),
            Event::Overdue(number) => {
                if let Some(path) = self.loops.remove(&number) {
                    self.learn(path, Outcome::Bad, at);
                }
            }
        }
    }

    fn send(&mut self, peer: usize, at: Duration) {
        let mut path = [peer; 1 + MIXES];
        let others = index::sample(&mut self.rng, self.peers.len() - 1, MIXES);
        path.iter_mut().skip(1).zip(others).for_each(|(hop, other)| *hop = other + usize::from(other >= peer));
        self.sent += 1;
        self.loops.insert(self.sent, path);
        self.queue.schedule(at + DEADLINE, Event::Overdue(self.sent));
        self.forward(self.sent, 0, at);
    }

    /// From the hop of this number to the next one.
    fn forward(&mut self, number: u64, hop: usize, at: Duration) {
        let Some(path) = self.loops.get(&number) else { return };
        let (from, to) = (path[hop], path[(hop + 1) % path.len()]);
        if let Some(took) = self.links.carry(from, to, at, &mut self.rng) {
            self.queue.schedule(at + took, Event::Arrive(number, hop + 1));
        }
    }

    fn arrive(&mut self, number: u64, hop: usize, at: Duration) {
        let Some(path) = self.loops.get(&number).copied() else { return };
        if hop == path.len() {
            self.loops.remove(&number);
            return self.learn(path, Outcome::Good, at);
        }
        let peer = &self.peers[path[hop]];
        let is_dropped = self.rng.random_bool(peer.drops);
        if peer.presence.is_there(at) && !is_dropped {
            let delay = Duration::from_secs_f64(chance::exponential(MEAN_DELAY, &mut self.rng));
            self.queue.schedule(at + delay, Event::Leave(number, hop));
        }
    }

    fn learn(&mut self, path: [usize; 1 + MIXES], outcome: Outcome, at: Duration) {
        let hops: Vec<_> = path.iter().skip(1).map(|hop| self.peers[*hop].id).collect();
        self.peers[path[0]].reputation.handle_path(&hops, outcome, 1.0, self.begin.plus(at));
    }

    /// Of the peers `about`, in how many of the honest peers' eyes they are unreliable.
    fn called_unreliable(&self, about: std::ops::Range<usize>, at: Duration) -> Part {
        let now = self.begin.plus(at).unix;
        let pairs = (RIDERS..self.peers.len()).flat_map(|by| about.clone().map(move |about| (by, about)));
        let pairs: Vec<_> = pairs.filter(|(by, about)| by != about).collect();
        let unreliable =
            |(by, about): &&(usize, usize)| self.peers[*by].reputation.is_unreliable(self.peers[*about].id, now);
        Part::new(pairs.iter().filter(unreliable).count() as u64, pairs.len() as u64)
    }
}

fn now() -> Now {
    Now { mono: Instant::now(), unix: beginning() }
}

fn epochs(count: u32) -> Duration {
    EPOCH_LENGTH * count
}

/// What makes it hard to tell who is a free-rider.
#[derive(Debug, Clone, Copy)]
struct Weather {
    name: &'static str,
    churns: bool,
    is_parted: bool,
}

const WEATHERS: [Weather; 3] = [
    Weather { name: "steady peers", churns: false, is_parted: false },
    Weather { name: "peers that come and go", churns: true, is_parted: false },
    Weather { name: "a partition of two minutes", churns: false, is_parted: true },
];

/// After ten epochs at least this part of (honest peer, rider) is found, and at most this part of (honest peer, honest
/// peer) accused. No peer sees which hop lost a loop, and every second path has a rider on it: so at first honest peers
/// share their blame.
const FOUND: f64 = 0.95;
const ACCUSED: f64 = 0.02;

/// A fifth of the peers drop a fifth, half or all of what they should carry.
pub(super) fn free_riders(run: &Run<'_>) -> Vec<Check> {
    let weathers = if run.options.quick { 1 } else { WEATHERS.len() };
    parallel(weathers, |at| free_riders_in(run, at as u64, WEATHERS[at]))
}

fn free_riders_in(run: &Run<'_>, part: u64, weather: Weather) -> Check {
    let (mut rng, begin) = (run.rng(part), now());
    let peer = |number: usize| {
        let drops = if number < RIDERS { [0.2, 0.5, 1.0][number % 3] } else { 0.0 };
        let presence = if weather.churns && number >= RIDERS {
            // There for 99 % of the time.
            Presence::churning(Duration::from_secs(11_880), Duration::from_secs(120), epochs(EPOCHS), &mut rng)
        } else {
            Presence::always()
        };
        Peer::new(number, presence, drops, begin)
    };
    let peers: Vec<_> = (0..PEERS).map(peer).collect();
    let parted = epochs(4)..epochs(4) + Duration::from_secs(120);
    let partitions = if weather.is_parted { vec![parted] } else { Vec::new() };
    let mut world = World::new(peers, Links { seed: rng.random(), loss: LOSS, partitions }, begin, rng);
    let (mut found, mut wronged) = (Vec::new(), Vec::new());
    for epoch in 1..=EPOCHS {
        world.run_until(epochs(epoch));
        found.push(world.called_unreliable(0..RIDERS, epochs(epoch)));
        wronged.push(world.called_unreliable(RIDERS..PEERS, epochs(epoch)));
    }
    let last = found.last().copied().unwrap_or_default();
    let honest = wronged.last().copied().unwrap_or_default();
    let mut wrong = Vec::new();
    if last.rate() < FOUND {
        wrong.push(format!("{} of the riders are called unreliable after ten epochs", digits(last.rate())));
    }
    if honest.rate() > ACCUSED {
        wrong.push(format!("{} of the honest peers are called unreliable after ten epochs", digits(honest.rate())));
    }
    let detail = format!(
        "after ten epochs {} of the riders are found by each honest peer alone, {} of the honest ones accused ({} loops)",
        digits(last.rate()),
        digits(honest.rate()),
        world.sent
    );
    let by_epoch = |parts: &[Part]| parts.iter().map(|part| digits(part.rate())).collect::<Vec<_>>();
    Check::judged(&run.name(weather.name), &wrong, detail)
        .with("peers", PEERS)
        .with("riders", RIDERS)
        .with("loops", world.sent)
        .with("found_by_epoch", by_epoch(&found))
        .with("accused_by_epoch", by_epoch(&wronged))
        .with("accused", honest.json())
}

/// Riders that drop half and take a new identity as soon as most honest peers call them unreliable; and thieves that throw
/// their identities away.
pub(super) fn whitewashers(run: &Run<'_>) -> Vec<Check> {
    vec![new_names(run), thieves(run)]
}

fn new_names(run: &Run<'_>) -> Check {
    let (mut rng, begin) = (run.rng(0), now());
    let peer = |number| Peer::new(number, Presence::always(), if number < RIDERS { 0.5 } else { 0.0 }, begin);
    let peers: Vec<_> = (0..PEERS).map(peer).collect();
    let links = Links { seed: rng.random(), loss: LOSS, partitions: Vec::new() };
    let mut world = World::new(peers, links, begin, rng);
    let (mut names, mut better, mut ranks) = (RIDERS as u64, 0u64, Vec::new());
    let mut compared = 0u64;
    for epoch in 1..=EPOCHS {
        world.run_until(epochs(epoch));
        let at = epochs(epoch);
        if epoch > 2 {
            let ranked = ranks_of_riders(&world, at);
            better += ranked.iter().filter(|rank| **rank < 0.5).count() as u64;
            compared += ranked.len() as u64;
            ranks.extend(ranked);
        }
        for rider in 0..RIDERS {
            if world.called_unreliable(rider..rider + 1, at).rate() > 0.5 {
                world.peers[rider].id = NodeId(world.rng.random());
                names += 1;
            }
        }
    }
    let part = Part::new(better, compared);
    let wrong = if better > 0 {
        vec![format!("a whitewasher ranks in the upper half {} of the time", digits(part.rate()))]
    } else {
        Vec::new()
    };
    let detail = format!(
        "{RIDERS} riders used {names} names in {EPOCHS} epochs and ranked in the upper half {better} of {compared} times"
    );
    Check::judged(&run.name("new names"), &wrong, detail)
        .with("names", names)
        .with("in_the_upper_half", part.json())
        .with("rank_from_the_top", spread(ranks))
}

/// Which part of the honest peers each rider ranks below, in each honest peer's eyes: 1 is below all.
fn ranks_of_riders(world: &World, at: Duration) -> Vec<f64> {
    let now = world.begin.plus(at).unix;
    let mut ranks = Vec::new();
    for by in RIDERS..PEERS {
        let lower =
            |about: usize| world.peers[by].reputation.posterior(world.peers[about].id, Kind::Availability, now).lower();
        let honest: Vec<_> = (RIDERS..PEERS).filter(|about| *about != by).map(lower).collect();
        for rider in 0..RIDERS {
            let lower = lower(rider);
            ranks.push(honest.iter().filter(|honest| **honest >= lower).count() as f64 / honest.len() as f64);
        }
    }
    ranks
}

/// What a new identity costs, in units of value.
const PRICE: f64 = 3.0;
const IDENTITIES: u32 = 1_000;

/// Each identity first delivers a little, then steals all that it is trusted with.
fn thieves(run: &Run<'_>) -> Check {
    let (mut rng, begin) = (run.rng(1), now());
    let config = Config { identity_price: 3_000, ..Config::new(NETWORK, EpochSchedule::new(EPOCH_LENGTH)) };
    let identity = Arc::new(SigningKey::from_bytes(&[1; 32]));
    let mut reputation = Reputation::new(config, identity, [2; 32], begin);
    let (mut stolen, mut delivered) = (0.0, 0.0);
    for _ in 0..IDENTITIES {
        let thief = NodeId(rng.random());
        let mut observe = |outcome, weight| {
            let observation = Observation { peer: thief, kind: Kind::Correctness, outcome, weight, at: begin.unix };
            let taken = reputation.handle_observation(observation, begin);
            taken.map(|()| reputation.credit(thief, begin.unix) as f64 / 1_000.0)
        };
        let mut credit = 0.0;
        for _ in 0..rng.random_range(1..20) {
            let weight = rng.random_range(0.01..1.0);
            delivered += weight;
            credit = observe(Outcome::Good, weight).unwrap_or(0.0);
        }
        while credit > 0.001 {
            stolen += credit;
            credit = observe(Outcome::Bad, credit).unwrap_or(0.0);
        }
    }
    let paid = PRICE * f64::from(IDENTITIES);
    let bound = delivered + paid / 3.0;
    let wrong = if stolen > bound + 1e-6 {
        vec![format!("{} stolen, more than {}", digits(stolen), digits(bound))]
    } else {
        Vec::new()
    };
    let detail = format!(
        "{IDENTITIES} identities for {paid} units delivered {} and stole {}: never more than that and a third of the price",
        digits(delivered),
        digits(stolen)
    );
    Check::judged(&run.name("thrown away after a theft"), &wrong, detail)
        .with("identities", IDENTITIES)
        .with("paid", paid)
        .with("delivered", digits(delivered))
        .with("stolen", digits(stolen))
        .with("net_gain", json!(digits(stolen - delivered - paid)))
}
