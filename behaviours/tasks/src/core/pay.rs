//! What a run costs, and who owes whom. Amounts are micro-credits, integers throughout: both sides compute the same price.
//!
//! A coordinator pays by vouchers. Each has a number and a sum that only grows, per worker and interval of one hour, so that a voucher
//! that is lost, late, or comes twice changes nothing: the highest sum is what is owed (the cumulative vouchers of payment channels).
//! The worker checks that each sum grew by exactly what its voucher is for; one that did not is a double charge.
//!
//! What the sums mean is behind [`Balances`]: [`LocalAccounts`] keeps a bilateral account for each peer with a credit limit and
//! forgiveness by time, as the pseudo-settlement of Swarm's bandwidth incentives does.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use fog_base::{NodeId, UnixMillis, id::byte_array, record::Kind};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

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

    /// When it begins.
    pub fn begin(self) -> UnixMillis {
        UnixMillis(u64::from(self.0) * INTERVAL_MS)
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

impl Price {
    /// Whether no field is beyond what can be meant: a scarcity up to 10, an uptime multiplier from a half to two.
    pub fn is_sound(&self) -> bool {
        self.scarcity_ppm <= 10 * PPM && (PPM / 2..=2 * PPM).contains(&self.uptime_ppm)
    }
}

/// Who has how much credit. A node has one for both sides: what it owes as a coordinator is told by [`Balances::owe`], the rest is the
/// worker's. Amounts are micro-credits.
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
    /// What is to be kept of the account with `peer`, if anything: the node writes it with the voucher that changed it.
    fn kept(&self, peer: NodeId) -> Option<Balance>;
    /// Takes back what was kept.
    fn restore(&mut self, peer: NodeId, kept: Balance, now: UnixMillis);
}

/// One account of a coordinator: a row that is persisted before the voucher that changed it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paid {
    /// The number of the last voucher.
    pub number: u64,
    /// Its sum.
    pub cumulative: u64,
    /// The highest sum that the worker acknowledged.
    pub acknowledged: u64,
    /// The [`Acknowledged`] record that says so.
    pub receipt: ByteBuf,
}

/// A voucher that was made; its execution keeps it and sends it again until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// For whom.
    pub worker: NodeId,
    /// Its number: the record's `seq`.
    pub number: u64,
    /// What it pays.
    pub amount: u64,
    /// The body.
    pub voucher: Voucher,
    /// When it was made: the record's `not_before`, so that it is signed to the same bytes again.
    pub at: UnixMillis,
}

/// What the row of an account with a peer is called.
pub(crate) fn account_name(peer: NodeId, interval: Interval) -> Vec<u8> {
    [peer.0.as_slice(), &interval.0.to_be_bytes()].concat()
}

fn trim<T>(accounts: &mut BTreeMap<(Interval, NodeId), T>) -> Vec<(NodeId, Interval)> {
    let over = accounts.len().saturating_sub(MAX_ACCOUNTS);
    let oldest = std::iter::from_fn(|| accounts.pop_first());
    oldest.take(over).map(|((interval, node), _)| (node, interval)).collect()
}

/// The coordinator's accounts.
#[derive(Debug, Clone, Default)]
pub struct Payer {
    accounts: BTreeMap<(Interval, NodeId), Paid>,
    issued: BTreeMap<ExecutionId, Issued>,
    order: VecDeque<ExecutionId>,
}

impl Payer {
    /// No accounts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes back a persisted account.
    pub fn restore(&mut self, worker: NodeId, interval: Interval, paid: Paid) {
        self.accounts.insert((interval, worker), paid);
    }

    /// Takes back a voucher that an execution kept.
    pub fn restore_issued(&mut self, issued: Issued) {
        self.remember(issued);
    }

    /// The voucher for an execution: `fuel` at `rate` if the verdict is good, else nothing. The same execution always gets the same.
    pub fn issue(
        &mut self,
        worker: NodeId,
        execution: ExecutionId,
        verdict: Verdict,
        (fuel, rate): (u64, u64),
        now: UnixMillis,
    ) -> Issued {
        if let Some(issued) = self.issued.get(&execution) {
            return *issued;
        }
        let fuel = if verdict == Verdict::Good { fuel } else { 0 };
        let amount = price(fuel, rate);
        let interval = Interval::at(now);
        let account = self.accounts.entry((interval, worker)).or_default();
        account.number = account.number.saturating_add(1);
        account.cumulative = account.cumulative.saturating_add(amount);
        let voucher = Voucher { execution, verdict, fuel, interval, cumulative: account.cumulative };
        let issued = Issued { worker, number: account.number, amount, voucher, at: now };
        self.remember(issued);
        issued
    }

    /// The worker has a voucher of this sum, as its record says. False if none of this sum was ever given.
    pub fn acknowledge(&mut self, worker: NodeId, interval: Interval, (cumulative, record): (u64, &[u8])) -> bool {
        let account = self.accounts.get_mut(&(interval, worker));
        account.filter(|account| cumulative <= account.cumulative).is_some_and(|account| {
            if account.receipt.is_empty() || cumulative > account.acknowledged {
                (account.acknowledged, account.receipt) = (cumulative, ByteBuf::from(record));
            }
            true
        })
    }

    /// All accounts, from the oldest.
    pub fn accounts(&self) -> impl Iterator<Item = (NodeId, Interval, &Paid)> {
        self.accounts.iter().map(|((interval, worker), account)| (*worker, *interval, account))
    }

    /// All that was promised in the intervals that are remembered.
    pub fn total(&self) -> u64 {
        self.accounts.values().fold(0, |sum, paid| sum.saturating_add(paid.cumulative))
    }

    /// The account with a worker.
    pub fn account(&self, worker: NodeId, interval: Interval) -> Paid {
        self.accounts.get(&(interval, worker)).cloned().unwrap_or_default()
    }

    fn remember(&mut self, issued: Issued) {
        let execution = issued.voucher.execution;
        if self.issued.insert(execution, issued).is_none() {
            self.order.push_back(execution);
        }
        while self.order.len() > MAX_RECENT {
            self.order.pop_front().map(|oldest| self.issued.remove(&oldest));
        }
    }

    /// Forgets the oldest accounts, where there are more than [`MAX_ACCOUNTS`], and says which.
    pub fn trim(&mut self) -> Vec<(NodeId, Interval)> {
        trim(&mut self.accounts)
    }
}

/// Why a voucher is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoucherReject {
    /// Of an interval that is over, or not yet.
    #[error("a voucher of another time")]
    WrongInterval,
    /// Its fuel is not that of the result, or something is paid for none.
    #[error("a voucher for other fuel than was used")]
    WrongFuel,
    /// Its number was there: the same voucher again, or, for an execution that has none yet, a double charge.
    #[error("a voucher whose number is known")]
    Known,
    /// Its sum did not grow by what it is for: what was promised for one execution is promised again for another.
    #[error("the sums of the vouchers contradict each other")]
    SumFalls,
    /// Too many are missing before it.
    #[error("too many vouchers are missing")]
    TooFarAhead,
}

/// One account of a worker: a row that is persisted before a voucher is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earned {
    /// All vouchers up to this number are there.
    through: u64,
    /// The sum of the last of them.
    cumulative: u64,
    /// Those beyond a gap: their amounts and sums by number.
    ahead: BTreeMap<u64, (u64, u64)>,
    /// The record of the last of all.
    voucher: ByteBuf,
}

impl Earned {
    /// What the vouchers that are there promise.
    pub fn total(&self) -> u64 {
        self.ahead.values().fold(self.cumulative, |sum, (amount, _)| sum.saturating_add(*amount))
    }

    /// The number of the last voucher.
    pub fn number(&self) -> u64 {
        self.ahead.last_key_value().map_or(self.through, |(number, _)| *number)
    }

    /// The record of the [`Voucher`] with the highest number: what it says is promised is what the coordinator signed.
    pub fn voucher(&self) -> &[u8] {
        &self.voucher
    }

    /// Takes a voucher if its sum fits those below and above it.
    fn take(&mut self, number: u64, amount: u64, cumulative: u64, record: &[u8]) -> Result<(), VoucherReject> {
        if number <= self.through || self.ahead.contains_key(&number) {
            return Err(VoucherReject::Known);
        }
        let below = self.ahead.range(..number).next_back().map(|(number, (_, sum))| (*number, *sum));
        let below = below.unwrap_or((self.through, self.cumulative));
        let above = self.ahead.range(number..).next().map(|(number, entry)| (*number, *entry));
        let follows = above.is_none_or(|(next, (its_amount, sum))| fits((number, cumulative), (next, its_amount, sum)));
        if !fits(below, (number, amount, cumulative)) || !follows {
            return Err(VoucherReject::SumFalls);
        }
        if self.ahead.len() >= MAX_AHEAD && number != self.through.saturating_add(1) {
            return Err(VoucherReject::TooFarAhead);
        }
        if number > self.number() {
            self.voucher = ByteBuf::from(record);
        }
        self.ahead.insert(number, (amount, cumulative));
        while let Some(first) = self.ahead.first_entry().filter(|first| *first.key() == self.through.saturating_add(1))
        {
            let (number, (_, sum)) = first.remove_entry();
            (self.through, self.cumulative) = (number, sum);
        }
        Ok(())
    }
}

/// Whether a voucher's sum is that of an earlier one, its own amount, and (if some are missing between them) theirs.
fn fits((before, sum_before): (u64, u64), (number, amount, sum): (u64, u64, u64)) -> bool {
    match sum_before.checked_add(amount) {
        Some(least) if number == before.saturating_add(1) => sum == least,
        Some(least) => sum >= least,
        None => false,
    }
}

/// The worker's accounts.
#[derive(Debug, Clone, Default)]
pub struct Payee {
    accounts: BTreeMap<(Interval, NodeId), Earned>,
}

impl Payee {
    /// No accounts.
    pub fn new() -> Self {
        Self::default()
    }

    /// All that was promised in the intervals that are remembered.
    pub fn total(&self) -> u64 {
        self.accounts.values().fold(0, |sum, earned| sum.saturating_add(earned.total()))
    }

    /// Takes back a persisted account.
    pub fn restore(&mut self, coordinator: NodeId, interval: Interval, earned: Earned) {
        self.accounts.insert((interval, coordinator), earned);
    }

    /// Takes a voucher for an execution that has none yet: `number` is its record's `seq`, and (`fuel`, `rate`) are what the result used
    /// and the agreement says. Returns what it pays.
    pub fn take(
        &mut self,
        coordinator: NodeId,
        (number, record): (u64, &[u8]),
        voucher: &Voucher,
        (fuel, rate): (u64, u64),
        now: UnixMillis,
    ) -> Result<u64, VoucherReject> {
        let due = if voucher.verdict == Verdict::Good { fuel } else { 0 };
        if voucher.fuel != due {
            return Err(VoucherReject::WrongFuel);
        }
        if !voucher.interval.is_open(now) {
            return Err(VoucherReject::WrongInterval);
        }
        let amount = price(due, rate);
        let account = self.accounts.entry((voucher.interval, coordinator)).or_default();
        let taken = account.take(number, amount, voucher.cumulative, record);
        if *account == Earned::default() {
            self.accounts.remove(&(voucher.interval, coordinator));
        }
        taken.map(|()| amount)
    }

    /// All accounts, from the oldest.
    pub fn accounts(&self) -> impl Iterator<Item = (NodeId, Interval, &Earned)> {
        self.accounts.iter().map(|((interval, coordinator), account)| (*coordinator, *interval, account))
    }

    /// The account with a coordinator.
    pub fn account(&self, coordinator: NodeId, interval: Interval) -> Option<&Earned> {
        self.accounts.get(&(interval, coordinator))
    }

    /// Forgets the oldest accounts, where there are more than [`MAX_ACCOUNTS`], and says which.
    pub fn trim(&mut self) -> Vec<(NodeId, Interval)> {
        trim(&mut self.accounts)
    }
}

/// How far peers may come to owe, and how debts fade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// The most micro-credits that one peer may owe and have reserved.
    pub limit: u64,
    /// What is forgiven of each debt, either way, in an hour.
    pub forgiven_per_hour: u64,
}

impl Default for Credit {
    fn default() -> Self {
        Self { limit: 100_000_000, forgiven_per_hour: 10_000_000 }
    }
}

/// The most peers with an account; the one that least is owed goes first.
pub const MAX_PEERS: usize = 16_384;

/// What one peer owes, as it was at one moment: a row to persist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// Positive: the peer owes this node.
    pub amount: i64,
    /// Since when nothing was forgiven, in Unix milliseconds.
    pub at: u64,
}

/// The account of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// What it owes.
    pub balance: Balance,
    /// Set aside for agreements; not persisted, as agreements are not.
    pub reserved: u64,
}

/// Bilateral accounts: each peer has the same credit, both ways of a balance cancel out, and what is left is forgiven as time passes, so
/// that two nodes that are not equally busy can go on.
#[derive(Debug, Clone)]
pub struct LocalAccounts {
    me: NodeId,
    credit: Credit,
    accounts: BTreeMap<NodeId, Account>,
}

impl LocalAccounts {
    /// No accounts; `me` never owes itself anything.
    pub fn new(me: NodeId, credit: Credit) -> Self {
        Self { me, credit, accounts: BTreeMap::new() }
    }

    /// What is between this node and `peer` at `now`.
    pub fn account(&self, peer: NodeId, now: UnixMillis) -> Account {
        let fresh = Account { balance: Balance { amount: 0, at: now.0 }, reserved: 0 };
        let faded = |account: &Account| Account { balance: self.forgiven(account.balance, now), ..*account };
        self.accounts.get(&peer).map_or(fresh, faded)
    }

    /// Moves a balance towards zero by what is forgiven since. Time that forgave nothing is not lost.
    fn forgiven(&self, balance: Balance, now: UnixMillis) -> Balance {
        let per_hour = u128::from(self.credit.forgiven_per_hour);
        let passed = now.0.saturating_sub(balance.at);
        let forgiven = u64::try_from(u128::from(passed) * per_hour / u128::from(INTERVAL_MS)).unwrap_or(u64::MAX);
        if forgiven == 0 {
            return balance;
        }
        let left = balance.amount.unsigned_abs().saturating_sub(forgiven);
        let left = i64::try_from(left).unwrap_or(i64::MAX);
        Balance { amount: left.saturating_mul(balance.amount.signum()), at: now.0 }
    }

    fn change(&mut self, peer: NodeId, now: UnixMillis, change: impl FnOnce(&mut Account)) {
        if peer == self.me {
            return;
        }
        let mut account = self.account(peer, now);
        change(&mut account);
        self.accounts.insert(peer, account);
        if self.accounts.len() > MAX_PEERS {
            let worth = |account: &Account| (account.reserved, account.balance.amount.unsigned_abs());
            let least = self.accounts.iter().filter(|(other, _)| **other != peer);
            let least = least.min_by_key(|(_, account)| worth(account)).map(|(peer, _)| *peer);
            least.map(|peer| self.accounts.remove(&peer));
        }
    }

    fn add(&mut self, peer: NodeId, amount: i64, now: UnixMillis) {
        self.change(peer, now, |account| account.balance.amount = account.balance.amount.saturating_add(amount));
    }
}

impl Balances for LocalAccounts {
    fn may_spend(&self, peer: NodeId, amount: u64, now: UnixMillis) -> bool {
        let account = self.account(peer, now);
        let exposed = i128::from(account.balance.amount) + i128::from(account.reserved) + i128::from(amount);
        peer == self.me || exposed <= i128::from(self.credit.limit)
    }

    fn reserve(&mut self, peer: NodeId, amount: u64, now: UnixMillis) {
        self.change(peer, now, |account| account.reserved = account.reserved.saturating_add(amount));
    }

    fn release(&mut self, peer: NodeId, amount: u64, now: UnixMillis) {
        self.change(peer, now, |account| account.reserved = account.reserved.saturating_sub(amount));
    }

    fn earn(&mut self, peer: NodeId, amount: u64, now: UnixMillis) {
        self.add(peer, i64::try_from(amount).unwrap_or(i64::MAX), now);
    }

    fn owe(&mut self, peer: NodeId, amount: u64, now: UnixMillis) {
        self.add(peer, -i64::try_from(amount).unwrap_or(i64::MAX), now);
    }

    fn kept(&self, peer: NodeId) -> Option<Balance> {
        self.accounts.get(&peer).map(|account| account.balance).filter(|balance| balance.amount != 0)
    }

    fn restore(&mut self, peer: NodeId, kept: Balance, now: UnixMillis) {
        self.change(peer, now, |account| account.balance = kept);
        if self.account(peer, now).balance.amount == 0 {
            self.accounts.remove(&peer);
        }
    }
}

#[cfg(test)]
#[path = "pay_tests.rs"]
mod tests;
