//! Why a task finds the workers that it does, and what its user could give up to find more: the cheapest relaxations.
//!
//! What one worker lacks is a set of changes. For each kind of change three values are tried (the least that gains a worker, the median,
//! and the one that gains all that this kind can), and the cheapest sets of several kinds. Each is applied and matched again, so the number
//! that is promised is the number that comes.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use fog_base::NodeId;

use super::{
    matcher::{Bytes, Known, Match, Needs, Reason, judge},
    pay,
    terms::{Class, Privacy},
    work::PAGE,
};

/// The most relaxations that are shown.
pub const MAX_RELAXATIONS: usize = 8;
/// The most sets of several changes that are tried.
const MAX_SETS: usize = 16;

/// Something that the user could change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Less memory: from, to, in bytes.
    Memory(u64, u64),
    /// A higher price for one run: from, to, in micro-credits.
    MaxPrice(u64, u64),
    /// A longer run: from, to, in milliseconds.
    Running(u64, u64),
    /// A lesser class: from, to.
    Class(Class, Class),
    /// A weaker privacy label: from, to.
    Privacy(Privacy, Privacy),
    /// Without this feature.
    Feature(String),
}

impl Change {
    /// What the task needs after it.
    pub fn apply(&self, needs: &mut Needs) {
        match self {
            Self::Memory(_, to) => needs.memory_bytes = *to,
            Self::MaxPrice(_, to) => needs.max_price = Some(*to),
            Self::Running(_, to) => needs.running_ms = Some(*to),
            Self::Class(_, to) => needs.class = *to,
            Self::Privacy(_, to) => needs.privacy = *to,
            Self::Feature(name) => needs.features.retain(|feature| feature != name),
        }
    }

    /// How much it asks of the user: the logarithm (base 2) of how much a number changes (each plus one), 1 for each class, 2 for each
    /// privacy label or feature.
    pub fn cost(&self) -> f64 {
        let ratio = |more: u64, less: u64| libm::log2((more as f64 + 1.0) / (less as f64 + 1.0));
        match self {
            Self::Memory(from, to) => ratio(*from, *to),
            Self::MaxPrice(from, to) | Self::Running(from, to) => ratio(*to, *from),
            Self::Class(from, to) => f64::from(*from as u8) - f64::from(*to as u8),
            Self::Privacy(from, to) => 2.0 * (f64::from(*from as u8) - f64::from(*to as u8)),
            Self::Feature(_) => 2.0,
        }
    }

    /// Changes of one kind replace each other.
    fn kind(&self) -> (u8, &str) {
        match self {
            Self::Memory(..) => (0, ""),
            Self::MaxPrice(..) => (1, ""),
            Self::Running(..) => (2, ""),
            Self::Class(..) => (3, ""),
            Self::Privacy(..) => (4, ""),
            Self::Feature(name) => (5, name),
        }
    }
}

/// Changes that together give more matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relaxation {
    /// All of them are needed.
    pub changes: Vec<Change>,
    /// How many workers more then match.
    pub more: usize,
}

impl Relaxation {
    /// The sum of what its changes ask.
    pub fn cost(&self) -> f64 {
        cost(&self.changes)
    }
}

fn cost(changes: &[Change]) -> f64 {
    changes.iter().map(Change::cost).sum()
}

/// What `fog task explain` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// Who matches.
    pub matches: Vec<NodeId>,
    /// Who may match, and what is not known.
    pub unknown: Vec<(NodeId, Vec<Reason>)>,
    /// Who does not, and why.
    pub rejected: Vec<(NodeId, Vec<Reason>)>,
    /// What would give more matches, cheapest first; none that another of at most its cost equals.
    pub relaxations: Vec<Relaxation>,
}

/// Matches all of `workers` and looks for what would give more.
pub fn explain(needs: &Needs, workers: &[Known<'_>]) -> Explanation {
    let mut explanation = Explanation::default();
    let mut sets: Vec<Vec<Change>> = Vec::new();
    for known in workers {
        let judged = judge(needs, known);
        sets.extend(lacking(needs, known, judged.reasons()));
        match judged {
            Match::Yes => explanation.matches.push(known.worker),
            Match::Unknown(reasons) => explanation.unknown.push((known.worker, reasons)),
            Match::No(reasons) => explanation.rejected.push((known.worker, reasons)),
        }
    }
    let before = explanation.matches.len();
    let relaxations = candidates(sets).into_iter().filter_map(|changes| {
        let mut relaxed = needs.clone();
        changes.iter().for_each(|change| change.apply(&mut relaxed));
        let more = workers.iter().filter(|known| judge(&relaxed, known).is_yes()).count().saturating_sub(before);
        (more > 0).then_some(Relaxation { changes, more })
    });
    explanation.relaxations = best(relaxations.collect());
    explanation
}

/// The changes that make this worker match; `None` if it does, or none do.
fn lacking(needs: &Needs, known: &Known<'_>, reasons: &[Reason]) -> Option<Vec<Change>> {
    let mut relaxed = needs.clone();
    let mut changes: Vec<Change> = Vec::new();
    let mut judged = (!reasons.is_empty()).then(|| reasons.to_vec())?;
    // A definite reason hides those that are not, so that a second look may find more.
    for _ in 0..2 {
        for reason in &judged {
            let change = change_for(needs, known, reason)?;
            change.apply(&mut relaxed);
            if !changes.contains(&change) {
                changes.push(change);
            }
        }
        match judge(&relaxed, known) {
            Match::Yes => return Some(changes),
            Match::Unknown(reasons) | Match::No(reasons) => judged = reasons,
        }
    }
    None
}

/// The least change of `needs` against one reason.
fn change_for(needs: &Needs, known: &Known<'_>, reason: &Reason) -> Option<Change> {
    let offer = known.offer;
    match reason {
        Reason::Memory { offered, .. } => {
            let to = offered / PAGE * PAGE;
            (to > 0).then_some(Change::Memory(needs.memory_bytes, to))
        }
        Reason::Price { most, .. } | Reason::PriceNow { most, .. } => {
            Some(Change::MaxPrice(*most, pay::price(needs.fuel, offer.rate())))
        }
        Reason::Time { most, needed } => Some(Change::Running(*most, *needed)),
        Reason::Class(_) | Reason::Busy => {
            let lesser = offer.accepts.classes.iter().rev().find(|class| **class < needs.class)?;
            Some(Change::Class(needs.class, *lesser))
        }
        Reason::Privacy(_) | Reason::Unmixed => {
            let weaker = offer.accepts.privacy.iter().rev().find(|other| **other < needs.privacy)?;
            Some(Change::Privacy(needs.privacy, *weaker))
        }
        Reason::Feature(name) | Reason::FeatureUnsaid(name) => Some(Change::Feature(name.clone())),
        Reason::NotEligible
        | Reason::Distrusted
        | Reason::NoSlots
        | Reason::Staging { .. }
        | Reason::SpeedUnsaid
        | Reason::Stale => None,
    }
}

/// What is tried: of each kind the nearest, the median and the farthest, and the cheapest sets of several.
fn candidates(sets: Vec<Vec<Change>>) -> Vec<Vec<Change>> {
    let (single, mut several): (Vec<_>, Vec<_>) = sets.into_iter().partition(|set| set.len() == 1);
    let mut kinds: BTreeMap<(u8, String), Vec<Change>> = BTreeMap::new();
    for change in single.into_iter().flatten() {
        let (kind, name) = change.kind();
        kinds.entry((kind, name.to_owned())).or_default().push(change);
    }
    let mut tried = Vec::new();
    for changes in kinds.values_mut() {
        changes.sort_by(|one, other| one.cost().total_cmp(&other.cost()));
        changes.dedup();
        let last = changes.len().saturating_sub(1);
        let mut steps = vec![0, last / 2, last];
        steps.dedup();
        tried.extend(steps.into_iter().filter_map(|at| changes.get(at)).map(|change| vec![change.clone()]));
    }
    several.sort_by(|one, other| cost(one).total_cmp(&cost(other)).then_with(|| one.cmp(other)));
    several.dedup();
    several.truncate(MAX_SETS);
    tried.extend(several);
    tried
}

/// Cheapest first, without those that gain no more than a cheaper one.
fn best(mut relaxations: Vec<Relaxation>) -> Vec<Relaxation> {
    let order = |one: &Relaxation, other: &Relaxation| -> Ordering {
        one.cost()
            .total_cmp(&other.cost())
            .then(other.more.cmp(&one.more))
            .then_with(|| one.changes.cmp(&other.changes))
    };
    relaxations.sort_by(order);
    let mut most = 0;
    relaxations.retain(|relaxation| {
        let gains = relaxation.more > most;
        most = most.max(relaxation.more);
        gains
    });
    relaxations.truncate(MAX_RELAXATIONS);
    relaxations
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(from, to) => write!(f, "memory {} → {}", Bytes(*from), Bytes(*to)),
            Self::MaxPrice(from, to) => write!(f, "highest price {from} → {to} micro-credits"),
            Self::Running(from, to) => write!(f, "run time {from} → {to} ms"),
            Self::Class(from, to) => write!(f, "class {from} → {to}"),
            Self::Privacy(from, to) => write!(f, "privacy {from} → {to}"),
            Self::Feature(name) => write!(f, "without {name}"),
        }
    }
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, change) in self.changes.iter().enumerate() {
            write!(f, "{}{change}", if at == 0 { "" } else { ", " })?;
        }
        write!(f, " ⇒ {} more {}", self.more, if self.more == 1 { "worker" } else { "workers" })
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
