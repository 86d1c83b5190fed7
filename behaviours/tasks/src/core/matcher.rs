//! Which offers fit a task: yes, no, or unknown, each with its reasons; and what the user could give up to get more.

use std::{fmt, time::Duration};

use fog_base::NodeId;

use super::{
    offer::Offer,
    terms::{Class, Privacy, Terms},
    work::Work,
};

/// An offer whose record is older than this was not refreshed: what it says may not hold any more.
pub const STALE: Duration = Duration::from_secs(5 * 60);

/// What a task needs of a worker: the part of work and terms that offers are matched against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Units of fuel, at most.
    pub fuel: u64,
    /// Bytes of linear memory, at most.
    pub memory_bytes: u64,
    /// Bytes of module, inputs and outputs.
    pub staging_bytes: u64,
    /// How much it matters.
    pub class: Class,
    /// Who may see it.
    pub privacy: Privacy,
    /// What the worker must have.
    pub features: Vec<String>,
    /// The most micro-credits of one run.
    pub max_price: Option<u64>,
    /// The longest that the run may take, in milliseconds, where the user said so.
    pub running_ms: Option<u64>,
}

/// One worker, as the coordinator knows it.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Who.
    pub worker: NodeId,
    /// Its latest offer.
    pub offer: &'a Offer,
    /// How old the offer's record is.
    pub age: Duration,
    /// Its credibility.
    pub credibility: f64,
    /// Whether it is this node's own.
    pub own: bool,
}

/// Why an offer does not fit, or may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its host does not let it work now.
    NotEligible,
    /// Its results were wrong.
    Distrusted,
    /// It has no slot at all.
    NoSlots,
    /// Less memory for a task than is asked.
    Memory {
        /// Bytes.
        asked: u64,
        /// Bytes.
        offered: u64,
    },
    /// Less room for module, inputs and outputs.
    Staging {
        /// Bytes.
        asked: u64,
        /// Bytes.
        offered: u64,
    },
    /// It has not this.
    Feature(String),
    /// It does not say whether it has this: it names the kind and not the model.
    FeatureUnsaid(String),
    /// Dearer than the most that is paid.
    Price {
        /// Micro-credits for one run.
        most: u64,
        /// Micro-credits for one run.
        asked: u64,
    },
    /// Dearer at its present load; not when it is idle.
    PriceNow {
        /// Micro-credits for one run.
        most: u64,
        /// Micro-credits for one run.
        asked: u64,
    },
    /// It does not take this class.
    Class(Class),
    /// It does not take this privacy label.
    Privacy(Privacy),
    /// All the fuel would take longer than the run may.
    Time {
        /// Milliseconds.
        most: u64,
        /// Milliseconds.
        needed: u64,
    },
    /// Its speed was not measured, and the run's time is limited.
    SpeedUnsaid,
    /// Urgent, and no slot is free.
    Busy,
    /// Its offer was not refreshed for [`STALE`].
    Stale,
}

/// Whether an offer fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It does.
    Yes,
    /// It may: nothing speaks against it, and this is not known.
    Unknown(Vec<Reason>),
    /// It does not.
    No(Vec<Reason>),
}

/// Something that the user could change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Less memory: from, to, in bytes.
    Memory(u64, u64),
    /// Another highest price of one run: from, to, in micro-credits.
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

/// Changes that together give more matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relaxation {
    /// All of them are needed.
    pub changes: Vec<Change>,
    /// How many workers more then match.
    pub more: usize,
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
    /// What would give more matches, cheapest first.
    pub relaxations: Vec<Relaxation>,
}

impl Needs {
    /// What a task needs.
    pub fn of(work: &Work, terms: &Terms) -> Self {
        Self {
            fuel: work.limits.fuel,
            memory_bytes: work.limits.memory_bytes,
            staging_bytes: work.staged_bytes().saturating_add(work.limits.output_bytes),
            class: terms.class,
            privacy: terms.privacy,
            features: terms.features.clone(),
            max_price: terms.max_price,
            running_ms: terms.clocks.running_ms,
        }
    }
}

/// Whether an offer fits.
pub fn matches(needs: &Needs, known: &Known<'_>) -> Match {
    let offer = known.offer;
    let fits = offer.eligible
        && offer.slots > 0
        && needs.memory_bytes <= offer.memory_bytes
        && needs.staging_bytes <= offer.staging_bytes
        && offer.accepts.classes.contains(&needs.class)
        && offer.accepts.privacy.contains(&needs.privacy)
        && needs.features.iter().all(|feature| offer.features.contains(feature))
        && known.credibility >= super::standing::USED_FROM;
    if fits { Match::Yes } else { Match::No(Vec::new()) }
}
