//! Reports: the receipts of one reporter about one peer in one epoch, under the reporter's signature.
//!
//! A report claims nothing that its receipts do not show: the evidence is computed from them. A deal belongs to one
//! epoch by the time that its server signed, and there is one report per reporter, subject and epoch, so no receipt
//! counts twice.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use fog_base::{
    Epoch, EpochSchedule, NetworkId, NodeId, UnixMillis,
    record::{SignedRecord, Validity},
    time::CLOCK_TOLERANCE,
};
use serde_bytes::ByteBuf;

use super::{
    receipt::{Claim as ReceiptClaim, Facts, closes},
    reject::Reject,
};
use crate::wire::{MAX_RECEIPTS, MAX_REPORT, REPORT, ReportBody, peek};

/// A report as it came: its fields fit together, and no signature is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    record: SignedRecord,
    epoch: Epoch,
    subject: NodeId,
    receipts: Vec<ReceiptClaim>,
}

impl Claim {
    /// Splits bytes into fields, and refuses what is out of range, out of time or out of place.
    pub fn parse(bytes: &[u8], schedule: &EpochSchedule, now: UnixMillis) -> Result<Self, Reject> {
        if bytes.len() > MAX_REPORT {
            return Err(Reject::Malformed);
        }
        let record = SignedRecord::parse(bytes)?;
        let ReportBody { epoch, subject, receipts } = peek(&record, &REPORT)?;
        let reporter = record.signer();
        if reporter == subject {
            return Err(Reject::SelfPraise);
        }
        if receipts.is_empty() {
            return Err(Reject::NoReceipts);
        }
        if receipts.len() > MAX_RECEIPTS {
            return Err(Reject::Malformed);
        }
        if epoch > schedule.at(now.plus(CLOCK_TOLERANCE)) {
            return Err(Reject::TooEarly);
        }
        if now >= closes(schedule, epoch) {
            return Err(Reject::Expired);
        }
        let mut deals = BTreeSet::new();
        let mut claims = Vec::with_capacity(receipts.len());
        for bytes in &receipts {
            let claim = ReceiptClaim::parse(bytes, schedule, now)?;
            let Facts { server, terms, made, deal, .. } = claim.facts();
            if *server != subject || terms.client != reporter || schedule.at(*made) != epoch {
                return Err(Reject::NoReceipts);
            }
            if !deals.insert(*deal) {
                return Err(Reject::Malformed);
            }
            claims.push(claim);
        }
        Ok(Self { record, epoch, subject, receipts: claims })
    }

    /// Who claims to report.
    pub fn reporter(&self) -> NodeId {
        self.record.signer()
    }

    /// About whom.
    pub fn subject(&self) -> NodeId {
        self.subject
    }

    /// About when.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Checks all signatures, the report's own first.
    pub fn verify(self, network: &NetworkId, now: UnixMillis) -> Result<Report, Reject> {
        let Self { record, epoch, subject, receipts } = self;
        record.clone().verify::<ReportBody>(&REPORT, network, now)?;
        let verified = receipts.into_iter().map(|claim| claim.verify(network, now).map(|receipt| *receipt.facts()));
        Ok(Report { facts: verified.collect::<Result<_, _>>()?, record, epoch, subject })
    }
}

/// A report of which every signature verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    record: SignedRecord,
    epoch: Epoch,
    subject: NodeId,
    facts: Vec<Facts>,
}

impl Report {
    /// Who reports.
    pub fn reporter(&self) -> NodeId {
        self.record.signer()
    }

    /// About whom.
    pub fn subject(&self) -> NodeId {
        self.subject
    }

    /// About when.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What its receipts say.
    pub fn facts(&self) -> &[Facts] {
        &self.facts
    }
}

/// Signs a report; the caller has at most [`MAX_RECEIPTS`] receipts of its own about `subject` in `epoch`.
pub fn sign(
    reporter: &SigningKey,
    (network, schedule): (&NetworkId, &EpochSchedule),
    (epoch, subject): (Epoch, NodeId),
    receipts: impl IntoIterator<Item = Vec<u8>>,
    (seq, now): (u64, UnixMillis),
) -> Result<Vec<u8>, Reject> {
    let body = ReportBody { epoch, subject, receipts: receipts.into_iter().map(ByteBuf::from).collect() };
    let not_before = UnixMillis(now.as_secs() * 1000);
    let validity = Validity { seq, not_before, lifetime: closes(schedule, epoch).since(not_before) };
    Ok(SignedRecord::sign(&REPORT, network, reporter, validity, &body)?.as_bytes().to_vec())
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
