//! What a run costs, and who owes whom. Amounts are micro-credits, integers throughout: both sides compute the same price.
//!
//! A coordinator pays by vouchers. Each has a number and a sum that only grows, per worker and interval of one hour, so that a voucher
//! that is lost, late, or comes twice changes nothing: the highest sum is what is owed (the cumulative vouchers of payment channels).
//! The worker checks that each sum grew by exactly what its voucher is for; one that did not is a double charge.
//!
//! What the sums mean is behind [`Balances`]: [`LocalAccounts`] keeps a bilateral account for each peer with a credit limit and
//! forgiveness by time, as the pseudo-settlement of Swarm's bandwidth incentives does.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use fog_base::{NodeId, UnixMillis, id::byte_array, record::Kind};
use serde::{Deserialize, Serialize};

use super::{ids::ExecutionId, offer::Price, terms::PPM};

/// The unit of fuel that a rate is for.
pub const GIGA: u64 = 1_000_000_000;
/// The highest load that counts, in ppm: as many tasks waiting as there are slots.
pub const MAX_LOAD_PPM: u32 = 2 * PPM;
/// Kind 14 of the signed records: a [`Voucher`]; the record's `seq` is its number in its account, from 1.
pub const VOUCHER: Kind = Kind { number: 14, version: 1, max_body: 128, max_lifetime: RECEIPT_LIFETIME };
/// Kind 15 of the signed records: an [`Acknowledged`].
pub const ACKNOWLEDGED: Kind = Kind { number: 15, version: 1, max_body: 128, max_lifetime: RECEIPT_LIFETIME };
/// How long a voucher and its acknowledgement are valid.
pub const RECEIPT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// The length of an [`Interval`], in milliseconds.
pub const INTERVAL_MS: u64 = 3_600_000;
/// The most accounts of one side; the oldest interval goes first.
pub const MAX_ACCOUNTS: usize = 8_192;
/// The most vouchers that one account holds beyond a gap.
pub const MAX_AHEAD: usize = 4_096;
/// How many executions a payer remembers as paid beyond their executions' own memory.
pub const MAX_RECENT: usize = 32_768;
/// Intervals before the present one for which vouchers are taken; one after it, for clocks.
const INTERVALS_BACK: u32 = 2;

/// An hour of UTC, counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval(pub u32);

impl Interval {
    /// The one that `time` lies in.
    pub fn at(time: UnixMillis) -> Self {
        Self(u32::try_from(time.0 / INTERVAL_MS).unwrap_or(u32::MAX))
    }

    /// Whether vouchers of this interval are taken at `now`.
    pub fn is_open(self, now: UnixMillis) -> bool {
        let Self(present) = Self::at(now);
        (present.saturating_sub(INTERVALS_BACK)..=present.saturating_add(1)).contains(&self.0)
    }
}

/// What a coordinator says of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// Its result is the accepted one: paid.
    Good,
    /// A verified result contradicts it.
    Wrong,
    /// No result, or none in time, or none that could be judged.
    Failed,
}

impl Verdict {
    /// The name in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Wrong => "wrong",
            Self::Failed => "failed",
        }
    }
}

/// The body of record 14: a coordinator's receipt, and its promise to pay the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voucher {
    /// For which execution.
    pub execution: ExecutionId,
    /// How it ended.
    pub verdict: Verdict,
    /// The fuel that is paid: that of the result if it is good, else 0.
    pub fuel: u64,
    /// The account's interval.
    pub interval: Interval,
    /// What the coordinator owes this worker for the interval, this execution included.
    pub cumulative: u64,
}

/// The body of record 15: a worker's word that it has a voucher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledged {
    /// The hash of the voucher's record.
    #[serde(with = "byte_array")]
    pub voucher: [u8; 32],
    /// Its sum.
    pub cumulative: u64,
}

/// What `fuel` costs at `rate` micro-credits for 10⁹: rounded up, so that nothing is free that is not meant to be.
pub fn price(fuel: u64, rate: u64) -> u64 {
    let exact = (u128::from(fuel) * u128::from(rate)).div_ceil(u128::from(GIGA));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// The highest rate at which a run of at most `fuel` costs at most `max_price`.
pub fn highest_rate(max_price: u64, fuel: u64) -> u64 {
    let exact = u128::from(max_price) * u128::from(GIGA) / u128::from(fuel.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// Tasks running and waiting for each slot, in ppm, at most [`MAX_LOAD_PPM`]. No slots are a full load.
pub fn load_ppm(slots: u16, free: u16, queued: u32) -> u32 {
    let tasks = u64::from(slots.saturating_sub(free)) + u64::from(queued);
    let load = (tasks * u64::from(PPM)).checked_div(u64::from(slots)).unwrap_or(u64::from(MAX_LOAD_PPM));
    u32::try_from(load).unwrap_or(u32::MAX).min(MAX_LOAD_PPM)
}

/// `rate × (1 + scarcity × load²) × uptime`, rounded up.
pub fn rate(price: &Price, load_ppm: u32) -> u64 {
    let one = u128::from(PPM);
    let load = u128::from(load_ppm.min(MAX_LOAD_PPM));
    let scarcity = one + u128::from(price.scarcity_ppm) * load * load / (one * one);
    let exact = u128::from(price.rate) * scarcity * u128::from(price.uptime_ppm);
    u64::try_from(exact.div_ceil(one * one)).unwrap_or(u64::MAX)
}

/// The multiplier that a worker offers for having been up for `share_ppm` of its last month: none up to 90 %, and a quarter more at 100 %.
pub fn uptime_multiplier(share_ppm: u32) -> u32 {
    let above = share_ppm.min(PPM).saturating_sub(PPM / 10 * 9);
    PPM + above * 5 / 2
}

impl Price {
    /// Whether no field is beyond what can be meant: a scarcity up to 10, an uptime multiplier from a half to two.
    pub fn is_sound(&self) -> bool {
        self.scarcity_ppm <= 10 * PPM && (PPM / 2..=2 * PPM).contains(&self.uptime_ppm)
    }
}

/// Who has how much credit. The coordinator's side calls [`Balances::owe`], the worker's side the rest. Amounts are micro-credits.
pub trait Balances {
    /// Whether `peer` may come to owe this node `amount` more than it does and has reserved.
    fn may_spend(&self, peer: NodeId, amount: u64, now: UnixMillis) -> bool;
    /// Sets `amount` of `peer`'s credit aside for an agreement.
    fn reserve(&mut self, peer: NodeId, amount: u64, now: UnixMillis);
    /// Gives back what was reserved: the agreement ended, paid or not.
    fn release(&mut self, peer: NodeId, amount: u64, now: UnixMillis);
    /// `peer` gave a voucher for `amount`.
    fn earn(&mut self, peer: NodeId, amount: u64, now: UnixMillis);
    /// This node gave `peer` a voucher for `amount`.
    fn owe(&mut self, peer: NodeId, amount: u64, now: UnixMillis);
}
