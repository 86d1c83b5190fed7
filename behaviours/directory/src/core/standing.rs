//! How well each relay carries packets, as the seated relays saw it: the part of a relay's weight that it earns
//! (`weight.rs`).
//!
//! Every node sends loops; seated relays sign how many of theirs, through each relay, came back. Up to a third of the
//! reporters, by weight, may lie about anybody in any way. A weighted median bounds what they can do, but only if
//! honest reports differ little from each other: with five loops in a report, a third of liars makes a relay that drops
//! a fifth of its packets look exactly like an honest one, in however many epochs. So a reporter counts over its last
//! loops, across epochs ([`LoopCount`]), and sends enough of them: at least sixteen through each mix in an epoch.
//!
//! A loop that is lost says only that one of its hops or links lost it, so a relay is measured against the others: its
//! rate is divided by the median rate of all. What all share – link loss, the hops of a loop, bad relays on the way –
//! cancels out.

use std::collections::{BTreeMap, HashMap};

use fog_base::NodeId;

/// One, in the fixed point of rates and standings.
pub const UNIT: u32 = 1 << 16;
/// A relay whose standing falls below this has no weight: 0.92.
pub const THRESHOLD: u32 = 60_293;
/// Whose standing is unknown, and who has climbed back after a fall: 0.95.
pub const START: u32 = 62_259;
/// From here on a relay has its full weight: 0.98.
pub const FULL: u32 = 64_225;
/// After a fall a standing starts at 0 and climbs by this in each epoch: 48 epochs to the threshold.
const CLIMB: u32 = THRESHOLD.div_ceil(48);
/// How much of the standing a new measurement replaces: one part in this many.
const SMOOTHING: u32 = 2;
/// A report on fewer loops says too little to be counted.
pub const MIN_LOOPS: u32 = 16;
/// Loops that a reporter remembers for each relay, at most.
pub const MEMORY: u32 = 64;
/// The length of an encoded entry.
const ENTRY: usize = 36;

/// What a seated relay reports of another: its loops through that relay which came back in time, and which did not. A
/// loop that is later than the relay's delays allow is lost. Only relays through which it sent a loop in the epoch are
/// reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoopReport {
    /// Whom it is about.
    pub relay: NodeId,
    /// Who signed it.
    pub reporter: NodeId,
    /// Loops that came back.
    pub delivered: u32,
    /// Loops that did not.
    pub lost: u32,
}

impl LoopReport {
    fn rate(&self) -> Option<u32> {
        let loops = u64::from(self.delivered) + u64::from(self.lost);
        (loops >= u64::from(MIN_LOOPS)).then(|| (u64::from(self.delivered) * u64::from(UNIT) / loops) as u32)
    }
}

/// A reporter's count of its last loops through one relay: both numbers are halved when they reach 64 together, so that
/// it speaks of 32 to 63 loops, however many epochs those took. It starts anew when the relay falls below the
/// threshold: what a relay did before its fall must not make it fall again when it is back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoopCount {
    delivered: u32,
    lost: u32,
    rounds_up: bool,
}

impl LoopCount {
    /// Counts one loop.
    pub fn record(&mut self, is_delivered: bool) {
        if is_delivered {
            self.delivered += 1;
        } else {
            self.lost += 1;
        }
        if self.delivered + self.lost >= MEMORY {
            // Half of an odd number is rounded down and up in turn: no bias to either side.
            let odd = self.lost % 2;
            self.lost = self.lost / 2 + if self.rounds_up { odd } else { 0 };
            self.rounds_up ^= odd == 1;
            self.delivered = MEMORY / 2 - self.lost;
        }
    }

    /// What is reported.
    pub fn report(&self, reporter: NodeId, relay: NodeId) -> LoopReport {
        LoopReport { relay, reporter, delivered: self.delivered, lost: self.lost }
    }
}

/// A seat of the epoch that the reports are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Who.
    pub relay: NodeId,
    /// The weight of its seat, by which its reports weigh.
    pub weight: u64,
    /// Relays of its family do not report on it.
    pub family: Option<[u8; 16]>,
}

/// The standing of every relay whose standing is not [`START`], in parts of [`UNIT`]. Every snapshot has one, which
/// follows from the one before and from the reports in the snapshot; its hash belongs under what is certified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standings(BTreeMap<NodeId, u32>);

/// The bytes are not an encoding of standings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a list of standings")]
pub struct BadStandings;

impl Standings {
    /// The standing of `relay`.
    pub fn of(&self, relay: &NodeId) -> u32 {
        self.0.get(relay).copied().unwrap_or(START)
    }

    /// The standings after an epoch, from its seats and the reports about it, both in any order. `remains` says which
    /// relays are in the new snapshot: a good standing is lost by leaving, a bad one is not.
    ///
    /// Ignored are reports by and about relays without a seat, about oneself or one's family, on fewer than
    /// [`MIN_LOOPS`] loops, and all but the least of one reporter's reports on one relay.
    #[must_use]
    pub fn after(&self, seats: &[Seat], reports: &[LoopReport], remains: impl Fn(&NodeId) -> bool) -> Self {
        let rates = rates(seats, reports);
        let judged: Vec<_> = seats.iter().filter_map(|seat| Judged::new(seat, seats, &rates)).collect();
        let typical = median(judged.iter().map(|judged| (judged.rate(0, 0), u128::from(judged.seat.weight))).collect());
        let measured: HashMap<_, _> = judged
            .iter()
            .map(|judged| (judged.seat.relay, judged.quality(self.of(&judged.seat.relay), typical)))
            .collect();
        let relays = self.0.keys().chain(measured.keys());
        let next = relays.map(|relay| (*relay, moved(self.of(relay), measured.get(relay).copied())));
        Self(next.filter(|(relay, to)| *to < START || (*to > START && remains(relay))).collect())
    }

    /// The encoding: for each relay that has one, in order of ids, the id (32 bytes) and the standing (u32,
    /// big-endian).
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(relay, standing)| relay.0.into_iter().chain(standing.to_be_bytes())).collect()
    }

    /// Reads an encoding, of which there is one for each set of standings.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadStandings> {
        let (mut standings, mut last) = (BTreeMap::new(), None);
        for entry in bytes.chunks(ENTRY) {
            let (id, standing) = entry.split_first_chunk::<32>().ok_or(BadStandings)?;
            let standing = u32::from_be_bytes(standing.try_into().map_err(|_| BadStandings)?);
            let relay = NodeId(*id);
            if last >= Some(relay) || standing > UNIT || standing == START {
                return Err(BadStandings);
            }
            last = Some(relay);
            standings.insert(relay, standing);
        }
        Ok(Self(standings))
    }
}

/// What is counted: the rates about each relay, with the reporter's weight.
type Rates = HashMap<NodeId, Vec<(u32, u128)>>;

fn rates(seats: &[Seat], reports: &[LoopReport]) -> Rates {
    let seated: HashMap<_, _> = seats.iter().map(|seat| (seat.relay, seat)).collect();
    let mut reports = reports.to_vec();
    reports.sort();
    reports.dedup_by_key(|report| (report.relay, report.reporter));
    let mut rates = Rates::new();
    for report in &reports {
        if let (Some(reporter), Some(about), Some(rate)) =
            (seated.get(&report.reporter), seated.get(&report.relay), report.rate())
            && may_report(reporter, about)
        {
            rates.entry(report.relay).or_default().push((rate, u128::from(reporter.weight)));
        }
    }
    rates
}

fn may_report(reporter: &Seat, about: &Seat) -> bool {
    reporter.relay != about.relay && (about.family.is_none() || reporter.family != about.family)
}

/// A relay on which reporters of at least half the weight have reported.
struct Judged<'a> {
    seat: &'a Seat,
    rates: &'a [(u32, u128)],
    /// The weight of those who could have reported and did not.
    silent: u128,
}

impl<'a> Judged<'a> {
    fn new(seat: &'a Seat, seats: &[Seat], rates: &'a Rates) -> Option<Self> {
        let rates = rates.get(&seat.relay)?;
        let spoken: u128 = rates.iter().map(|(_, weight)| weight).sum();
        let able = seats.iter().filter(|reporter| may_report(reporter, seat)).map(|seat| u128::from(seat.weight));
        let silent = able.sum::<u128>().saturating_sub(spoken);
        (silent <= spoken).then_some(Self { seat, rates, silent })
    }

    /// The weighted median of the rates, where `neutral` is what a reporter of weight `silent` says.
    fn rate(&self, neutral: u32, silent: u128) -> u32 {
        let neutral = (silent > 0).then_some((neutral, silent));
        median(self.rates.iter().copied().chain(neutral).collect())
    }

    /// The relay's rate over the typical one, at most one. Who is silent leaves the standing as it is: so liars gain by
    /// silence no more than by a lie, and can decide nothing alone where honest reporters have not enough loops.
    fn quality(&self, standing: u32, typical: u32) -> u32 {
        let neutral = u64::from(standing) * u64::from(typical) / u64::from(UNIT);
        let rate = u64::from(self.rate(neutral as u32, self.silent));
        (rate * u64::from(UNIT) / u64::from(typical.max(1))).min(u64::from(UNIT)) as u32
    }
}

/// The least value that values of half the weight do not exceed; 0 of nothing.
fn median(mut values: Vec<(u32, u128)>) -> u32 {
    values.sort_unstable();
    let total: u128 = values.iter().map(|(_, weight)| weight).sum();
    let mut below = 0;
    for (value, weight) in values {
        below += weight;
        if below * 2 >= total {
            return value;
        }
    }
    0
}

/// The standing after an epoch with this measurement, or with none.
fn moved(standing: u32, quality: Option<u32>) -> u32 {
    match quality {
        // It has no weight, hence no loops go through it.
        _ if standing < THRESHOLD => standing + CLIMB,
        Some(quality) => {
            let smoothed = (standing * (SMOOTHING - 1) + quality) / SMOOTHING;
            if smoothed < THRESHOLD { 0 } else { smoothed }
        }
        None if standing < START => (standing + CLIMB).min(START),
        None => standing,
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
