//! What this node reports: it keeps a sample of its own receipts of each epoch, and signs one report per peer after
//! the epoch.
//!
//! Of more receipts than a report holds, a weighted random sample is kept (Efraimidis & Spirakis 2006: the largest
//! u^(1/w)), so that a report shows good and bad in proportion and a valuable deal is not lost among cheap ones. The
//! random u is a hash of the deal under a key that only this node has: a server cannot choose nonces that are left
//! out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ed25519_dalek::SigningKey;
use fog_base::{Epoch, EpochSchedule, NetworkId, NodeId, UnixMillis};

use super::{
    receipt::{Receipt, closes},
    reject::Reject,
    report,
};
use crate::wire::MAX_RECEIPTS;

/// The most peers that this node reports on in an epoch.
pub const MAX_SUBJECTS: usize = 64;
/// The most own receipts that are remembered so that each counts once.
pub const MAX_USED: usize = 16_384;

#[derive(Debug)]
struct Sampled {
    /// u^(1/w).
    key: f64,
    weight: f64,
    bytes: Vec<u8>,
}

/// The receipts that wait for their report.
pub struct Reporter {
    identity: Arc<SigningKey>,
    network: NetworkId,
    schedule: EpochSchedule,
    sampling_key: [u8; 32],
    waiting: BTreeMap<(Epoch, NodeId), Vec<Sampled>>,
    used: BTreeSet<(Epoch, [u8; 32])>,
    last_seq: u64,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("node", &self.node())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// Signs as `identity`; `seed` is random and secret.
    pub fn new(identity: Arc<SigningKey>, network: NetworkId, schedule: EpochSchedule, seed: [u8; 32]) -> Self {
        Self {
            identity,
            network,
            schedule,
            sampling_key: seed,
            waiting: BTreeMap::new(),
            used: BTreeSet::new(),
            last_seq: 0,
        }
    }

    /// Who reports.
    pub fn node(&self) -> NodeId {
        NodeId(self.identity.verifying_key().to_bytes())
    }

    /// Whether a receipt for this deal may still count: once, and while there is room to remember that it did.
    pub fn may_use(&self, epoch: Epoch, deal: [u8; 32]) -> Result<(), Reject> {
        if self.used.contains(&(epoch, deal)) {
            return Err(Reject::Replayed);
        }
        if self.used.len() >= MAX_USED { Err(Reject::Full) } else { Ok(()) }
    }

    /// Takes a receipt of ours that counts now.
    pub fn take(&mut self, receipt: &Receipt, weight: f64) {
        let facts = receipt.facts();
        let epoch = self.schedule.at(facts.made);
        self.used.insert((epoch, facts.deal));
        let hash = blake3::keyed_hash(&self.sampling_key, &facts.deal);
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        // In (0, 1], from 53 bits.
        let u = ((u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let sampled = Sampled { key: libm::pow(u, 1.0 / weight), weight, bytes: receipt.as_bytes().to_vec() };
        let receipts = self.waiting.entry((epoch, facts.server)).or_default();
        receipts.push(sampled);
        receipts.sort_by(|a, b| b.key.total_cmp(&a.key));
        receipts.truncate(MAX_RECEIPTS);
        self.trim(epoch);
    }

    /// Of too many peers in one epoch the one with the least valuable receipts is not reported on.
    fn trim(&mut self, epoch: Epoch) {
        let (first, last) = (NodeId([0; 32]), NodeId([0xff; 32]));
        let value = |receipts: &Vec<Sampled>| receipts.iter().map(|receipt| receipt.weight).sum::<f64>();
        let of_epoch = || self.waiting.range((epoch, first)..=(epoch, last));
        if of_epoch().count() > MAX_SUBJECTS {
            let least = of_epoch().min_by(|a, b| value(a.1).total_cmp(&value(b.1))).map(|(key, _)| *key);
            if let Some(key) = least {
                self.waiting.remove(&key);
            }
        }
    }

    /// When the reports on `epoch` are due: at a moment of the next epoch's first half that only this node knows.
    pub fn due(&self, epoch: Epoch) -> UnixMillis {
        let hash = blake3::keyed_hash(&self.sampling_key, &epoch.0.to_be_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        let part = f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX);
        self.schedule.end(epoch).plus(self.schedule.length().mul_f64(part / 2.0))
    }

    /// When the next reports are due.
    pub fn next_due(&self) -> Option<UnixMillis> {
        self.waiting.keys().next().map(|(epoch, _)| self.due(*epoch))
    }

    /// Signs the reports that are due.
    pub fn reports(&mut self, now: UnixMillis) -> Vec<Result<Vec<u8>, Reject>> {
        let mut signed = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            let (epoch, subject) = *entry.key();
            if now < self.due(epoch) {
                break;
            }
            let Some((_, receipts)) = self.waiting.pop_first() else { break };
            if now >= closes(&self.schedule, epoch) {
                continue;
            }
            self.last_seq = now.0.max(self.last_seq + 1);
            let receipts = receipts.into_iter().map(|receipt| receipt.bytes);
            let (seq, on) = (self.last_seq, (&self.network, &self.schedule));
            signed.push(report::sign(&self.identity, on, (epoch, subject), receipts, (seq, now)));
        }
        self.used.retain(|(epoch, _)| now < closes(&self.schedule, *epoch));
        signed
    }
}

#[cfg(test)]
#[path = "reporter_tests.rs"]
mod tests;
