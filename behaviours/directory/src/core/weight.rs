//! A relay's weight in the lottery and on paths: its stake, times what its standing is worth, cut to what one operator
//! and one network may hold. Integers from public data alone, so that every node computes the same.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use fog_base::NodeId;

use super::{
    address::Net,
    standing::{FULL, Standings, THRESHOLD, UNIT},
};

/// No operator and no network holds more than one part in this many of the total weight.
pub const CAP_PARTS: u64 = 10;
/// Rounds in which the two caps are applied in turn, at most: each undoes the other by less than the one before. Two or
/// three are the rule. Where a few operators share a few networks, both caps may hold of nothing but weights of zero: such
/// a network keeps what is left after so many rounds, above its caps, instead of standing still.
const ROUNDS: usize = 16;

/// Who has staked what. All nodes must be given the same.
pub trait StakeTable: fmt::Debug + Send + Sync {
    /// The stake of `relay`; 0 if it has none.
    fn stake(&self, relay: &NodeId) -> u64;
}

/// The table of a network file.
impl StakeTable for BTreeMap<NodeId, u64> {
    fn stake(&self, relay: &NodeId) -> u64 {
        self.get(relay).copied().unwrap_or(0)
    }
}

/// No table: every relay has the same stake, and identities are free. A network that uses it does not resist Sybils.
#[derive(Debug, Clone, Copy, Default)]
pub struct EqualStakes;

impl StakeTable for EqualStakes {
    fn stake(&self, _relay: &NodeId) -> u64 {
        1
    }
}

/// A relay that is to be weighed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub relay: NodeId,
    /// Relays of one operator name one family.
    pub family: Option<[u8; 16]>,
    /// The global networks that it stands in.
    pub nets: Vec<Net>,
}

/// What a standing is worth, in parts of [`UNIT`]: nothing below the threshold, all from [`FULL`] on, and in between a
/// straight line.
pub fn worth(standing: u32) -> u32 {
    let above = standing.clamp(THRESHOLD, FULL) - THRESHOLD;
    (u64::from(above) * u64::from(UNIT) / u64::from(FULL - THRESHOLD)) as u32
}

/// The weights of `candidates`, in their order. Each relay comes once. The sum of all is below 2^63: where stake times
/// worth is more, all are first halved, rounding down, until it is not.
pub fn weigh(candidates: &[Candidate], stakes: &dyn StakeTable, standings: &Standings) -> Vec<u64> {
    let raw = candidates.iter().map(|candidate| {
        u128::from(stakes.stake(&candidate.relay)) * u128::from(worth(standings.of(&candidate.relay)))
    });
    let sum: u128 = raw.clone().sum();
    let halvings = (u128::BITS - sum.leading_zeros()).saturating_sub(63);
    let mut weights: Vec<u64> = raw.map(|weight| u64::try_from(weight >> halvings).unwrap_or(u64::MAX)).collect();
    let operators = operators(candidates);
    let networks = networks(candidates, &weights);
    for _ in 0..ROUNDS {
        // Both are applied, whatever the first one did.
        if !(cut(&mut weights, &operators) | cut(&mut weights, &networks)) {
            break;
        }
    }
    weights
}

/// Relays that one limit holds together, by their places.
type Groups = Vec<Vec<usize>>;

/// A family is one operator, and so is a relay without a family.
fn operators(candidates: &[Candidate]) -> Groups {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let alone = candidate.family.is_none().then_some(candidate.relay);
        groups.entry((candidate.family, alone)).or_default().push(at);
    }
    groups.into_values().collect()
}

/// A relay that stands in several networks counts in the heaviest of them: an address elsewhere does not take it out of
/// a crowd, and does not tie two networks to each other. A relay off the internet stands alone.
fn networks(candidates: &[Candidate], weights: &[u64]) -> Groups {
    let mut heavy: HashMap<Net, u128> = HashMap::new();
    for (candidate, weight) in candidates.iter().zip(weights) {
        for net in &candidate.nets {
            *heavy.entry(*net).or_default() += u128::from(*weight);
        }
    }
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let net = candidate.nets.iter().max_by_key(|net| (heavy.get(*net), std::cmp::Reverse(**net))).copied();
        let alone = net.is_none().then_some(candidate.relay);
        groups.entry((net, alone)).or_default().push(at);
    }
    groups.into_values().collect()
}

/// Cuts every group to its limit, each member in proportion, rounding down. Says whether anything was cut.
fn cut(weights: &mut [u64], groups: &Groups) -> bool {
    let sum = |group: &Vec<usize>| group.iter().filter_map(|at| weights.get(*at)).map(|w| u128::from(*w)).sum::<u128>();
    let sums: Vec<_> = groups.iter().map(sum).collect();
    let limit = limit(&sums);
    let mut any = false;
    for (group, sum) in groups.iter().zip(sums).filter(|(_, sum)| *sum > limit) {
        any = true;
        for at in group {
            if let Some(weight) = weights.get_mut(*at) {
                // The limit is below the sum, so this is below the weight.
                *weight = (u128::from(*weight) * limit / sum) as u64;
            }
        }
    }
    any
}

/// What a group may weigh: a tenth of what is left of all after the cut; with fewer than twenty groups, two fair shares
/// of it (four groups cannot each hold a tenth).
///
/// With the m heaviest of d groups cut to the limit c and the others, which weigh r, left as they are, c = 2 (m c + r)
/// / d; so c = 2 r / (d − 2 m), for the least m for which the next group is not above it. At the latest that is so
/// where d − 2 m is 1 or 2, hence nothing is divided by 0.
fn limit(sums: &[u128]) -> u128 {
    let mut heaviest_first: Vec<_> = sums.iter().copied().filter(|sum| *sum > 0).collect();
    heaviest_first.sort_unstable_by(|a, b| b.cmp(a));
    let mut parts = (heaviest_first.len() as u128).min(2 * u128::from(CAP_PARTS));
    let mut rest: u128 = heaviest_first.iter().sum();
    for sum in heaviest_first {
        let limit = 2 * rest / parts;
        if sum <= limit {
            return limit;
        }
        rest -= sum;
        parts -= 2;
    }
    0
}

#[cfg(test)]
#[path = "weight_tests.rs"]
mod tests;
