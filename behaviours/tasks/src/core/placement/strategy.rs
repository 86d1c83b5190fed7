//! Strategies for one task at a time. Each sees the candidates that fit, in any order, and what it chooses does not depend on that
//! order.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasherDefault, Hash, Hasher},
};

use fog_base::NodeId;

use super::{Candidate, Demand, StrategyName};
use crate::core::nsga::random::{Random, below};

/// Chooses one of the candidates that fit.
pub trait Strategy: std::fmt::Debug + Send {
    /// The position in `fitting` of who gets `demand`; `None` only if there is nobody.
    fn choose(&mut self, demand: &Demand, fitting: &[&Candidate], random: &mut Random) -> Option<usize>;
}

impl StrategyName {
    /// A strategy of this kind. `secret` is this node's own and stays the same: workers who knew it could choose ids that a module's
    /// tasks fall to.
    pub fn build(self, secret: u64) -> Box<dyn Strategy> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::LeastLoaded => Box::new(LeastLoaded),
            Self::Affinity => Box::new(Affinity::new(secret)),
            Self::Proximity => Box::new(Proximity),
            Self::Privacy => Box::new(PrivacyAware::default()),
            Self::PowerOfTwo => Box::new(PowerOfTwo),
        }
    }
}

/// Tasks of ours in each slot that the offer may not know yet.
fn ahead(candidate: &Candidate) -> f64 {
    f64::from(candidate.in_flight) / f64::from(candidate.slots.max(1))
}

/// Milliseconds until a slot is free, if the tasks of ours that it has are like `demand`.
fn waiting_ms(demand: &Demand, candidate: &Candidate) -> f64 {
    candidate.queue_ms + ahead(candidate) * demand.fuel as f64 / candidate.speed * 1e3
}

/// The position of the least by `cost`, and of these the least id.
fn least(fitting: &[&Candidate], cost: impl Fn(&Candidate) -> f64) -> Option<usize> {
    let costs = fitting.iter().map(|candidate| (cost(candidate), candidate.node)).enumerate();
    costs.min_by(|(_, (a, one)), (_, (b, other))| a.total_cmp(b).then(one.cmp(other))).map(|(at, _)| at)
}

/// Mixes 64 bits; a bijection (the finaliser of SplitMix64).
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// 64 bits of a hash of `bytes` under `key`. Quick, and no cryptographic hash: it protects nothing once the key is known.
fn keyed(key: u64, bytes: &[u8; 32]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words
        .iter()
        .fold(mix(key), |state, word| mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ u64::from_le_bytes(*word)))
}

/// Optimises the evenness of counts: each worker in turn, by id, whatever it is like.
#[derive(Debug, Default)]
pub struct RoundRobin {
    last: Option<NodeId>,
}

impl Strategy for RoundRobin {
    fn choose(&mut self, _: &Demand, fitting: &[&Candidate], _: &mut Random) -> Option<usize> {
        let comes_later = |node: NodeId| self.last.is_none_or(|last| node > last);
        let order = |(_, candidate): &(usize, &&Candidate)| (!comes_later(candidate.node), candidate.node);
        let (at, chosen) = fitting.iter().enumerate().min_by_key(order)?;
        self.last = Some(chosen.node);
        Some(at)
    }
}

/// Optimises the wait before a task starts. Many submitters who see the same offers choose the same worker: for few submitters.
#[derive(Debug)]
pub struct LeastLoaded;

impl Strategy for LeastLoaded {
    fn choose(&mut self, demand: &Demand, fitting: &[&Candidate], _: &mut Random) -> Option<usize> {
        least(fitting, |candidate| waiting_ms(demand, candidate))
    }
}

/// Optimises warm caches: tasks of one module go to the same few workers, by rendezvous hashing (Thaler and Ravishankar 1998), so that a
/// worker who comes or goes moves only its own share. Of the [`Affinity::WARM`] highest hashes it takes the one that would end the task
/// first, so that no worker drowns in a popular module.
#[derive(Debug)]
pub struct Affinity {
    secret: u64,
}

impl Affinity {
    /// Workers that share a module's tasks.
    pub const WARM: usize = 4;

    /// `secret` is the submitter's own.
    pub fn new(secret: u64) -> Self {
        Self { secret }
    }
}

impl Strategy for Affinity {
    fn choose(&mut self, demand: &Demand, fitting: &[&Candidate], _: &mut Random) -> Option<usize> {
        let module = demand.contents.first().map_or([0; 32], |content| content.hash);
        let key = keyed(self.secret, &module);
        let hashed =
            fitting.iter().enumerate().map(|(at, candidate)| (keyed(key, &candidate.node.0), candidate.node, at));
        let mut warm: Vec<_> = hashed.collect();
        if warm.len() > Self::WARM {
            warm.select_nth_unstable_by(Self::WARM - 1, |one, other| other.cmp(one));
            warm.truncate(Self::WARM);
        }
        warm.sort_unstable_by(|one, other| other.cmp(one));
        first_to_end(demand, fitting, warm.iter().map(|(.., at)| *at))
    }
}

/// Optimises distance: the shortest round trip, then the shortest wait. Neighbours see most of a user's tasks.
#[derive(Debug)]
pub struct Proximity;

impl Strategy for Proximity {
    fn choose(&mut self, demand: &Demand, fitting: &[&Candidate], _: &mut Random) -> Option<usize> {
        let order = |candidate: &Candidate| (candidate.rtt_ms, waiting_ms(demand, candidate), candidate.node);
        let costs = fitting.iter().map(|candidate| order(candidate)).enumerate();
        let by = |(_, one): &(usize, (f64, f64, NodeId)), (_, other): &(usize, (f64, f64, NodeId))| {
            one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)).then(one.2.cmp(&other.2))
        };
        costs.min_by(by).map(|(at, _)| at)
    }
}

/// Optimises what any one operator or network learns: whoever saw the fewest of this user's last [`PrivacyAware::MEMORY`] tasks, of
/// these one at random. Price, speed and distance count for nothing, because with them a worker could draw all tasks to itself; private
/// workers go first, also for tasks that do not ask for them.
#[derive(Debug, Default)]
pub struct PrivacyAware {
    recent: VecDeque<[Option<Seen>; 3]>,
    counts: HashMap<Seen, u32, BuildHasherDefault<Mixed>>,
}

/// Who learns of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Node(NodeId),
    Family(u64),
    Network(u64),
}

impl Hash for Seen {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (kind, number) = match self {
            // Ids are keys: their first bytes tell them apart.
            Self::Node(node) => (0, node.0.first_chunk().copied().map_or(0, u64::from_le_bytes)),
            Self::Family(family) => (1, *family),
            Self::Network(network) => (2, *network),
        };
        state.write_u64(number.wrapping_add(kind << 62));
    }
}

/// A quick hash, for a map that has few entries and is asked about each candidate. Whoever makes names that meet in it makes it slower for
/// users who chose them, and no more.
#[derive(Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ word);
    }
}

impl PrivacyAware {
    /// Tasks that are remembered.
    pub const MEMORY: usize = 1024;

    fn seers(candidate: &Candidate) -> [Option<Seen>; 3] {
        [Some(Seen::Node(candidate.node)), candidate.family.map(Seen::Family), candidate.network.map(Seen::Network)]
    }

    fn exposure(&self, candidate: &Candidate) -> u32 {
        let count = |seen: Seen| self.counts.get(&seen).copied().unwrap_or(0);
        Self::seers(candidate).into_iter().flatten().map(count).max().unwrap_or(0)
    }

    fn remember(&mut self, candidate: &Candidate) {
        let seers = Self::seers(candidate);
        seers.into_iter().flatten().for_each(|seen| *self.counts.entry(seen).or_default() += 1);
        self.recent.push_back(seers);
        if self.recent.len() > Self::MEMORY {
            self.recent.pop_front().into_iter().flatten().flatten().for_each(|seen| self.forget(seen));
        }
    }

    fn forget(&mut self, seen: Seen) {
        if let Entry::Occupied(mut count) = self.counts.entry(seen) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Strategy for PrivacyAware {
    fn choose(&mut self, _: &Demand, fitting: &[&Candidate], random: &mut Random) -> Option<usize> {
        let draw = random_key(random);
        let any_private = fitting.iter().any(|candidate| candidate.is_private);
        let mut best: Option<(u32, u64, NodeId, usize)> = None;
        for (at, candidate) in fitting.iter().enumerate().filter(|(_, it)| it.is_private == any_private) {
            let exposure = self.exposure(candidate);
            if best.is_some_and(|(least, ..)| exposure > least) {
                continue;
            }
            let order = (exposure, keyed(draw, &candidate.node.0), candidate.node, at);
            best = Some(best.map_or(order, |best| best.min(order)));
        }
        let (.., at) = best?;
        self.remember(fitting.get(at)?);
        Some(at)
    }
}

/// The default. Optimises the expected end of a task without a herd: of two workers at random the one that would end it first, counting
/// tasks of ours that its offer does not know yet and the repetitions that its failures cost (Mitzenmacher 2001; the cost is like that
/// of Finagle's peak EWMA). Some worse workers get some tasks, which keeps what is known of them fresh.
#[derive(Debug)]
pub struct PowerOfTwo;

impl Strategy for PowerOfTwo {
    fn choose(&mut self, demand: &Demand, fitting: &[&Candidate], random: &mut Random) -> Option<usize> {
        // The two least of random keys: a random pair that does not depend on the order.
        let draw = random_key(random);
        let mut pair: [Option<(u64, NodeId, usize)>; 2] = [None; 2];
        for (at, candidate) in fitting.iter().enumerate() {
            let key = (keyed(draw, &candidate.node.0), candidate.node, at);
            let [one, other] = pair;
            if one.is_none_or(|one| key < one) {
                pair = [Some(key), one];
            } else if other.is_none_or(|other| key < other) {
                pair = [one, Some(key)];
            }
        }
        first_to_end(demand, fitting, pair.iter().flatten().map(|(.., at)| *at))
    }
}

/// Of the positions `tried` the one where the task would end first, and of equals the one that comes first.
fn first_to_end(demand: &Demand, fitting: &[&Candidate], tried: impl Iterator<Item = usize>) -> Option<usize> {
    let ends = tried.filter_map(|at| Some((at, expected_ms(demand, fitting.get(at)?))));
    ends.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at)
}

/// When a task would end at `candidate`, in milliseconds, with what its failures cost: 1/p tries, where p is at least 1 %.
fn expected_ms(demand: &Demand, candidate: &Candidate) -> f64 {
    let busy = demand.busy_ms(candidate);
    (candidate.queue_ms + busy * (1.0 + ahead(candidate))) / candidate.reliability.max(0.01)
}

fn random_key(random: &mut Random) -> u64 {
    below(random, usize::MAX) as u64
}
