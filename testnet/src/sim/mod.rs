//! `fog testnet sim`: the protocols' own cores with thousands of peers in one process, without sockets, in virtual time.
//!
//! Everything that decides something comes from one seed: a run with the same options gives the same report, byte for byte. (Chat's ratchets
//! draw keys of their own, which decide nothing.) Each
//! scenario has a generator of its own, so it gives the same figures alone as among all. Each has a bound, which is in its
//! check; a bound that does not hold makes the check fail. Where chance decides, the bound is the end of a confidence
//! interval, and the check says of which confidence.
//!
//! What is not simulated: cryptography that chance can stand in for. Lots are random numbers, which is what VRF outputs
//! are to everybody but the key's owner, except where a scenario says that its keys are real.

mod captured;
mod chance;
mod chat;
mod conduct;
mod flood;
mod guards;
mod loops;
mod lottery;
mod queue;
mod ratings;
mod relays;
mod replication;
mod stats;
mod swarm;
mod withholding;

use std::num::NonZero;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Check, Error};

/// What is simulated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Relays in the network, 60 to 20,000; of `chat` alone, the people, 20 to 500.
    pub peers: usize,
    /// Where all randomness comes from.
    pub seed: u64,
    /// Epochs of each Monte Carlo run; every scenario has a default of its own.
    pub epochs: Option<u32>,
    /// The adversary's shares of the weight, each above 0 and below one half.
    pub shares: Vec<f64>,
    /// Names of [`SCENARIOS`], or `all` alone.
    pub scenarios: Vec<String>,
    /// Keys that `ground-keys` tries.
    pub keys: u32,
    /// Worlds of `chat`: the first has `seed`, each other one the seed after.
    pub seeds: u32,
    /// A tenth of the runs: the same bounds, in a tenth of the time, with wider intervals.
    pub quick: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            peers: 1_000,
            seed: 1,
            epochs: None,
            shares: vec![0.05, 0.10, 0.20, 0.33],
            scenarios: vec!["all".into()],
            keys: 20_000,
            seeds: 1,
            quick: false,
        }
    }
}

/// What came out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What was simulated.
    pub options: Options,
    /// One check for each bound, with its figures.
    #[serde(flatten)]
    pub report: crate::Report,
}

impl Report {
    /// A table for people: without the figures that are lists or have intervals, which JSON has.
    pub fn table(&self) -> String {
        let mut report = self.report.clone();
        for check in &mut report.checks {
            check.figures.retain(|_, figure| !figure.is_object() && !figure.is_array());
        }
        report.table()
    }
}

/// A scenario whose peers are people, not relays.
pub const CHAT: &str = "chat";

type Scenario = fn(&Run<'_>) -> Vec<Check>;

/// A scenario that can be run: its name, and what it shows.
const TABLE: [(&str, &str, Scenario); 20] = [
    ("captured-paths", "an adversary with a share of the weight holds all three mixes of a path", captured::run),
    ("sybil-flood", "ten times as many relays without stake", flood::run),
    ("seats", "seats won against weight", lottery::seats),
    ("ground-keys", "VRF keys ground for one beacon, under the next", lottery::ground_keys),
    ("beacon-withholding", "an adversary chooses among beacons by withholding its tickets", withholding::run),
    ("guards", "circuits that start at an adversary's guard", guards::run),
    ("loop-droppers", "relays that drop a fifth, a third of the reporters lying", loops::droppers),
    ("loop-delayers", "relays that delay packets beyond their claim", loops::delayers),
    ("on-off", "relays that misbehave in turns, or a little", loops::on_off),
    ("free-riders", "relays that carry little, seen by every peer, with churn and a partition", conduct::free_riders),
    ("whitewashers", "relays that come back under new names", conduct::whitewashers),
    ("bad-mouthing", "a ring that accuses honest peers and praises itself", ratings::bad_mouthing),
    ("sybil-praise", "strangers that praise each other", ratings::sybil_praise),
    ("whole-set", "every descriptor at every full node, certified, and what it costs", replication::whole_set),
    ("gossip-ways", "the same in other ways of gossip", replication::gossip_ways),
    ("lying-snapshots", "seats that propose forged sets", replication::lying_snapshots),
    ("partition", "two halves that do not reach each other", replication::partition),
    ("eclipse", "a joining node whose peers show it an old network", replication::eclipse),
    ("churn", "full nodes that come and go", replication::churn),
    (CHAT, "rooms, groups and direct messages: loss, churn, wrong clocks, authors that lie", chat::run),
];

/// The scenarios, in the order in which `all` runs them: name, and what it shows.
pub fn scenarios() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().map(|(name, about, _)| (*name, *about))
}

/// Runs the scenarios of `options`; `done` hears of each check.
pub fn run(options: &Options, done: &mut dyn FnMut(&Check)) -> Result<Report, Error> {
    let chosen = check(options)?;
    let mut report = crate::Report::default();
    for (name, _, scenario) in chosen {
        for check in scenario(&Run { name, options }) {
            done(&check);
            report.checks.push(check);
        }
    }
    Ok(Report { options: options.clone(), report })
}

fn check(options: &Options) -> Result<Vec<(&'static str, &'static str, Scenario)>, Error> {
    let refused = |text: String| Err(Error::Plan(text));
    let (least, most) = if options.scenarios.as_slice() == [CHAT] { (20, chat::MOST_PEERS) } else { (60, 20_000) };
    if !(least..=most).contains(&options.peers) {
        return refused(format!("this simulation has {least} to {most} peers, not {}", options.peers));
    }
    if !(1..=100_000).contains(&options.seeds) {
        return refused("there are 1 to 100,000 worlds of chat".into());
    }
    if options.epochs == Some(0) || options.epochs > Some(1_000_000) {
        return refused("a simulation has 1 to 1,000,000 epochs".into());
    }
    if options.shares.is_empty() || options.shares.iter().any(|share| !(*share > 0.0 && *share < 0.5)) {
        return refused("an adversary's share is above 0 and below 0.5".into());
    }
    if !(1_000..=10_000_000).contains(&options.keys) {
        return refused(format!("1,000 to 10,000,000 keys are tried, not {}", options.keys));
    }
    if options.scenarios.as_slice() == ["all"] {
        return Ok(TABLE.to_vec());
    }
    let mut chosen = Vec::new();
    for wanted in &options.scenarios {
        match TABLE.iter().find(|(name, ..)| name == wanted) {
            Some(scenario) => chosen.push(*scenario),
            None => {
                let names: Vec<_> = scenarios().map(|(name, _)| name).collect();
                return refused(format!("no scenario `{wanted}`: the scenarios are {}, or all", names.join(", ")));
            }
        }
    }
    if chosen.is_empty() { refused("no scenario was named".into()) } else { Ok(chosen) }
}

/// One scenario's run.
struct Run<'a> {
    name: &'static str,
    options: &'a Options,
}

impl Run<'_> {
    /// The generator of a part of the scenario.
    fn rng(&self, part: u64) -> ChaCha8Rng {
        generator(self.name, self.options.seed, part)
    }

    fn epochs(&self, default: u32) -> u32 {
        self.options.epochs.unwrap_or(self.some(u64::from(default)) as u32)
    }

    /// So many, or a tenth.
    fn some(&self, count: u64) -> u64 {
        if self.options.quick { count.div_ceil(10) } else { count }
    }

    fn name(&self, part: impl std::fmt::Display) -> String {
        format!("{}: {part}", self.name)
    }
}

/// The generator of a part of a scenario under a seed.
fn generator(scenario: &str, seed: u64, part: u64) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new_derive_key("fog testnet sim v1");
    hasher.update(&seed.to_be_bytes());
    hasher.update(&part.to_be_bytes());
    hasher.update(scenario.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// Does `work` for 0 … `count` − 1 on all cores. The results are in that order, so that they do not depend on the cores.
fn parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(count.max(1));
    let done: Vec<Vec<(usize, T)>> = std::thread::scope(|scope| {
        let work = &work;
        let thread = |first| move || (first..count).step_by(threads).map(|at| (at, work(at))).collect();
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(thread(first))).collect();
        // A panic of a thread is a defect of the simulator: it goes on here.
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|why| std::panic::resume_unwind(why))).collect()
    });
    let mut all: Vec<_> = done.into_iter().flatten().collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests;
