//! Proofs of misbehaviour: two records of one signer that cannot both be honest, which anybody can check.
//!
//! * Two records of one kind with one sequence number and different content (equivocation), for kinds that the node
//!   names.
//! * Two receipts of one client for one deal with different verdicts: the client judged one service twice.

use std::time::Duration;

use fog_base::{
    NetworkId, NodeId, UnixMillis,
    record::{Kind as RecordKind, SignedRecord},
    time::CLOCK_TOLERANCE,
};
use serde::de::IgnoredAny;

use super::{evidence::Kind, reject::Reject};
use crate::wire::{Contradiction, RECEIPT, ReceiptBody, kind_of, peek, signed_part};

/// Older misbehaviour is no longer news.
pub const MAX_AGE: Duration = Duration::from_secs(90 * 86_400);

/// A contradiction as it came: parsed, and no signature is checked.
#[derive(Debug, Clone)]
pub struct Claim {
    first: SignedRecord,
    second: SignedRecord,
    kind: Kind,
    record: RecordKind,
}

impl Claim {
    /// Splits bytes into records, and refuses what does not contradict itself or is out of time.
    pub fn parse(bytes: &[u8], provable: &[RecordKind], now: UnixMillis) -> Result<Self, Reject> {
        let pair = Contradiction::decode(bytes).map_err(|_| Reject::Malformed)?;
        let (first, second) = (SignedRecord::parse(&pair.first)?, SignedRecord::parse(&pair.second)?);
        let (number, version) = kind_of(&first);
        if first.signer() != second.signer() || kind_of(&second) != (number, version) {
            return Err(Reject::NoProof);
        }
        let (kind, record) = if number == RECEIPT.number {
            let (one, other): (ReceiptBody, ReceiptBody) = (peek(&first, &RECEIPT)?, peek(&second, &RECEIPT)?);
            if one.deal != other.deal || one.verdict == other.verdict {
                return Err(Reject::NoProof);
            }
            (Kind::Rating, RECEIPT)
        } else {
            let known = provable.iter().find(|kind| kind.number == number);
            let record = known.ok_or(Reject::NoProof)?;
            if record.version != version {
                return Err(Reject::UnknownVersion);
            }
            // Signing the same content again gives another signature, and is no lie.
            if first.seq() != second.seq() || signed_part(&first) == signed_part(&second) {
                return Err(Reject::NoProof);
            }
            (Kind::Correctness, *record)
        };
        let claim = Self { first, second, kind, record };
        let newest = UnixMillis(claim.seq());
        if newest > now.plus(CLOCK_TOLERANCE) {
            return Err(Reject::TooEarly);
        }
        if now.since(newest) > MAX_AGE { Err(Reject::Expired) } else { Ok(claim) }
    }

    /// Who is accused.
    pub fn offender(&self) -> NodeId {
        self.first.signer()
    }

    /// When it happened: the higher sequence number, Unix milliseconds.
    pub fn seq(&self) -> u64 {
        self.first.seq().max(self.second.seq())
    }

    /// Checks both signatures; it does not matter that the records are over.
    pub fn verify(self, network: &NetworkId) -> Result<Proof, Reject> {
        let proof = Proof { offender: self.offender(), kind: self.kind, seq: self.seq() };
        for record in [self.first, self.second] {
            let while_valid = record.expires().minus(Duration::from_secs(1));
            record.verify::<IgnoredAny>(&self.record, network, while_valid)?;
        }
        Ok(proof)
    }
}

/// Misbehaviour that two signatures prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Whose.
    pub offender: NodeId,
    /// What it is evidence against.
    pub kind: Kind,
    /// When, Unix milliseconds.
    pub seq: u64,
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
