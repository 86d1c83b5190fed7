//! Which offers fit a task: yes, no, or unknown, each with its reasons; and what the user could give up to get more.

use std::{fmt, time::Duration};

use fog_base::NodeId;

use super::{
    offer::Offer,
    pay,
    standing::USED_FROM,
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
    /// Bytes of module and inputs.
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

impl Needs {
    /// Those of a task.
    pub fn new(work: &Work, terms: &Terms) -> Self {
        let clocks = [terms.clocks.running_ms, terms.deadline_ms];
        Self {
            fuel: work.limits.fuel,
            memory_bytes: work.limits.memory_bytes,
            staging_bytes: work.staged_bytes(),
            class: terms.class,
            privacy: terms.privacy,
            features: terms.features.clone(),
            max_price: terms.max_price,
            running_ms: clocks.into_iter().flatten().min(),
        }
    }
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
    /// Whether the mixnet leads to it.
    pub mixed: bool,
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
    /// Less room for module and inputs.
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
    /// The task is to go through the mixnet, which does not lead to it.
    Unmixed,
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

impl Match {
    /// Whether it fits.
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }

    /// Why not, or what is not known.
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Yes => &[],
            Self::Unknown(reasons) | Self::No(reasons) => reasons,
        }
    }
}

impl Reason {
    /// Whether the worker cannot; else it is not known whether it can.
    pub fn is_definite(&self) -> bool {
        let said = !matches!(self, Self::FeatureUnsaid(_) | Self::SpeedUnsaid | Self::Stale);
        said && !matches!(self, Self::PriceNow { .. } | Self::Time { .. } | Self::Busy)
    }
}

/// Matches one offer. Fuel and speed are bounds and estimates: that a run might take too long is never more than unknown.
pub fn judge(needs: &Needs, known: &Known<'_>) -> Match {
    let mut reasons = Vec::new();
    host(needs, known, &mut reasons);
    resources(needs, known.offer, &mut reasons);
    conditions(needs, known.offer, &mut reasons);
    if reasons.is_empty() {
        Match::Yes
    } else if reasons.iter().any(Reason::is_definite) {
        reasons.retain(Reason::is_definite);
        Match::No(reasons)
    } else {
        Match::Unknown(reasons)
    }
}

fn host(needs: &Needs, known: &Known<'_>, reasons: &mut Vec<Reason>) {
    let Known { offer, .. } = known;
    if !offer.eligible {
        reasons.push(Reason::NotEligible);
    }
    if offer.slots == 0 {
        reasons.push(Reason::NoSlots);
    }
    if !known.own && known.credibility < USED_FROM {
        reasons.push(Reason::Distrusted);
    }
    if needs.privacy == Privacy::Mixed && !known.mixed {
        reasons.push(Reason::Unmixed);
    }
    if needs.class == Class::Urgent && offer.free == 0 {
        reasons.push(Reason::Busy);
    }
    if known.age > STALE {
        reasons.push(Reason::Stale);
    }
}

fn resources(needs: &Needs, offer: &Offer, reasons: &mut Vec<Reason>) {
    if needs.memory_bytes > offer.memory_bytes {
        reasons.push(Reason::Memory { asked: needs.memory_bytes, offered: offer.memory_bytes });
    }
    if needs.staging_bytes > offer.staging_bytes {
        reasons.push(Reason::Staging { asked: needs.staging_bytes, offered: offer.staging_bytes });
    }
    for feature in &needs.features {
        // What is behind a colon says more exactly what is before it: `gpu:cuda` is a `gpu`.
        let finer = |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with(':'));
        if offer.features.iter().any(|has| has == feature || finer(has, feature)) {
            continue;
        }
        let unsaid = offer.features.iter().any(|has| finer(feature, has));
        let reason = if unsaid { Reason::FeatureUnsaid } else { Reason::Feature };
        reasons.push(reason(feature.clone()));
    }
}

fn conditions(needs: &Needs, offer: &Offer, reasons: &mut Vec<Reason>) {
    if !offer.accepts.classes.contains(&needs.class) {
        reasons.push(Reason::Class(needs.class));
    }
    if !offer.accepts.privacy.contains(&needs.privacy) {
        reasons.push(Reason::Privacy(needs.privacy));
    }
    if let Some(most) = needs.max_price {
        let (idle, now) = (pay::price(needs.fuel, pay::rate(&offer.price, 0)), pay::price(needs.fuel, offer.rate()));
        if idle > most {
            reasons.push(Reason::Price { most, asked: idle });
        } else if now > most {
            reasons.push(Reason::PriceNow { most, asked: now });
        }
    }
    match needs.running_ms {
        Some(_) if offer.speed == 0 => reasons.push(Reason::SpeedUnsaid),
        Some(most) if run_ms(needs.fuel, offer.speed) > most => {
            reasons.push(Reason::Time { most, needed: run_ms(needs.fuel, offer.speed) });
        }
        _ => (),
    }
}

/// Milliseconds that `fuel` takes at `speed` per second, rounded up.
fn run_ms(fuel: u64, speed: u64) -> u64 {
    u64::try_from((u128::from(fuel) * 1000).div_ceil(u128::from(speed.max(1)))).unwrap_or(u64::MAX)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEligible => f.write_str("its host does not let it work now"),
            Self::Distrusted => f.write_str("its results were wrong"),
            Self::NoSlots => f.write_str("it has no slots"),
            Self::Memory { asked, offered } => write!(f, "memory: {} of {}", Bytes(*offered), Bytes(*asked)),
            Self::Staging { asked, offered } => write!(f, "room for inputs: {} of {}", Bytes(*offered), Bytes(*asked)),
            Self::Feature(name) => write!(f, "it has no {name}"),
            Self::FeatureUnsaid(name) => write!(f, "it does not say whether it has {name}"),
            Self::Price { most, asked } => write!(f, "price: {asked} where at most {most} micro-credits are paid"),
            Self::PriceNow { most, asked } => {
                write!(f, "price: {asked} at its present load, where at most {most} micro-credits are paid")
            }
            Self::Class(class) => write!(f, "it does not take class {class}"),
            Self::Privacy(label) => write!(f, "it does not take tasks labelled {label}"),
            Self::Unmixed => f.write_str("it is no relay of this epoch: the mixnet does not lead to it"),
            Self::Time { most, needed } => write!(f, "all the fuel would take {needed} ms where {most} ms are allowed"),
            Self::SpeedUnsaid => f.write_str("its speed is not known"),
            Self::Busy => f.write_str("no slot is free now"),
            Self::Stale => f.write_str("its offer is old"),
        }
    }
}

/// Bytes as people write them.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        match self.0 {
            bytes if bytes >= MIB && bytes % MIB == 0 => write!(f, "{} MiB", bytes / MIB),
            bytes if bytes >= KIB && bytes % KIB == 0 => write!(f, "{} KiB", bytes / KIB),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
pub(crate) mod tests;
