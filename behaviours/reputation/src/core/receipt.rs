//! Receipts: what one peer did for another, signed by both.
//!
//! The server signs the **deal** before it serves, when it does not know yet how it will be judged; the client adds
//! the verdict and signs the **receipt** around it. So a server that fails cannot avoid the receipt by not signing,
//! and a client cannot judge a service that was never agreed on. Which signature is whose, and what a dishonest client
//! can do with its own, is in the README.

use ed25519_dalek::SigningKey;
use fog_base::{
    Epoch, EpochSchedule, NetworkId, NodeId, UnixMillis,
    record::{SignedRecord, Validity},
    time::CLOCK_TOLERANCE,
};
use serde_bytes::ByteBuf;

use super::{
    evidence::{Kind, Outcome},
    reject::Reject,
};
use crate::wire::{DEAL, DealBody, MAX_RECEIPT, RECEIPT, ReceiptBody, peek};

/// What was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// A loop through a relay.
    Loop,
    /// A circuit.
    Circuit,
    /// A task of fog compute.
    Task,
}

impl Service {
    const ALL: [Self; 3] = [Self::Loop, Self::Circuit, Self::Task];

    /// The number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Loop => 1,
            Self::Circuit => 2,
            Self::Task => 3,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.number() == number)
    }
}

/// How the client judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Done, and right.
    Good,
    /// Not done.
    Failed,
    /// Done, and wrong.
    Wrong,
}

impl Verdict {
    const ALL: [Self; 3] = [Self::Good, Self::Failed, Self::Wrong];

    /// The number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Failed => 1,
            Self::Wrong => 2,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.number() == number)
    }

    /// Of what it is evidence.
    pub fn evidence(self) -> &'static [(Kind, Outcome)] {
        match self {
            Self::Good => &[(Kind::Correctness, Outcome::Good), (Kind::Availability, Outcome::Good)],
            Self::Failed => &[(Kind::Availability, Outcome::Bad)],
            Self::Wrong => &[(Kind::Correctness, Outcome::Bad)],
        }
    }
}

/// What is agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What is served.
    pub service: Service,
    /// To whom.
    pub client: NodeId,
    /// What it is worth; at least 1.
    pub value: u64,
    /// Random: tells deals of one millisecond apart.
    pub nonce: [u8; 16],
}

/// An agreement that its server signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deal {
    record: SignedRecord,
    terms: Terms,
}

impl Deal {
    /// Signs as the server.
    pub fn sign(
        server: &SigningKey,
        (network, schedule): (&NetworkId, &EpochSchedule),
        terms: Terms,
        now: UnixMillis,
    ) -> Result<Self, Reject> {
        let Terms { service, client, value, nonce } = terms;
        let body = DealBody { service: service.number(), client, value, nonce };
        let record = SignedRecord::sign(&DEAL, network, server, validity(schedule, now, now), &body)?;
        check(&record, &body)?;
        Ok(Self { record, terms })
    }

    /// Checks a deal that a server offers.
    pub fn verify(
        bytes: &[u8],
        (network, schedule): (&NetworkId, &EpochSchedule),
        now: UnixMillis,
    ) -> Result<Self, Reject> {
        let record = SignedRecord::parse(bytes)?;
        let terms = in_time(&record, schedule, now)?;
        record.clone().verify::<DealBody>(&DEAL, network, now)?;
        Ok(Self { record, terms })
    }

    /// Who serves.
    pub fn server(&self) -> NodeId {
        self.record.signer()
    }

    /// What was agreed on.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.record.as_bytes()
    }
}

/// A record that was signed at `signed` about a deal made at `made`: it ends when reports on the deal's epoch do.
fn validity(schedule: &EpochSchedule, made: UnixMillis, signed: UnixMillis) -> Validity {
    let not_before = UnixMillis(signed.as_secs() * 1000);
    Validity { seq: signed.0, not_before, lifetime: closes(schedule, schedule.at(made)).since(not_before) }
}

/// When reports on deals of `epoch` are no longer taken.
pub fn closes(schedule: &EpochSchedule, epoch: Epoch) -> UnixMillis {
    schedule.end(epoch.next().next())
}

/// What a deal's fields alone must satisfy.
fn check(record: &SignedRecord, body: &DealBody) -> Result<Terms, Reject> {
    let DealBody { service, client, value, nonce } = *body;
    if record.signer() == client {
        return Err(Reject::SelfPraise);
    }
    match Service::from_number(service) {
        Some(service) if value > 0 => Ok(Terms { service, client, value, nonce }),
        _ => Err(Reject::Malformed),
    }
}

fn in_time(record: &SignedRecord, schedule: &EpochSchedule, now: UnixMillis) -> Result<Terms, Reject> {
    let body: DealBody = peek(record, &DEAL)?;
    let terms = check(record, &body)?;
    let made = UnixMillis(record.seq());
    if made > now.plus(CLOCK_TOLERANCE) {
        return Err(Reject::TooEarly);
    }
    if now >= closes(schedule, schedule.at(made)) {
        return Err(Reject::Expired);
    }
    Ok(terms)
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Who served.
    pub server: NodeId,
    /// What was agreed on.
    pub terms: Terms,
    /// How the client judges it.
    pub verdict: Verdict,
    /// When the server signed the deal.
    pub made: UnixMillis,
    /// Names the deal.
    pub deal: [u8; 32],
}

impl Facts {
    /// What it weighs as evidence: its value in units, at most `cap`.
    pub fn weight(&self, value_unit: u64, cap: f64) -> f64 {
        (self.terms.value as f64 / value_unit.max(1) as f64).min(cap)
    }
}

/// A receipt as it came: its fields are in range, and no signature is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    deal: SignedRecord,
    receipt: SignedRecord,
    facts: Facts,
}

impl Claim {
    /// Splits bytes into fields, and refuses what is out of range or out of time.
    pub fn parse(bytes: &[u8], schedule: &EpochSchedule, now: UnixMillis) -> Result<Self, Reject> {
        if bytes.len() > MAX_RECEIPT {
            return Err(Reject::Malformed);
        }
        let receipt = SignedRecord::parse(bytes)?;
        let body: ReceiptBody = peek(&receipt, &RECEIPT)?;
        let deal = SignedRecord::parse(&body.deal)?;
        let terms = in_time(&deal, schedule, now)?;
        let (made, judged) = (UnixMillis(deal.seq()), UnixMillis(receipt.seq()));
        let verdict = Verdict::from_number(body.verdict).ok_or(Reject::Malformed)?;
        if receipt.signer() != terms.client || judged < made {
            return Err(Reject::Malformed);
        }
        if judged > now.plus(CLOCK_TOLERANCE) {
            return Err(Reject::TooEarly);
        }
        let facts = Facts { server: deal.signer(), terms, verdict, made, deal: deal.hash() };
        Ok(Self { deal, receipt, facts })
    }

    /// What it says, of which nothing is believed.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Checks both signatures.
    pub fn verify(self, network: &NetworkId, now: UnixMillis) -> Result<Receipt, Reject> {
        self.receipt.clone().verify::<ReceiptBody>(&RECEIPT, network, now)?;
        self.deal.verify::<DealBody>(&DEAL, network, now)?;
        Ok(Receipt { record: self.receipt, facts: self.facts })
    }
}

/// A receipt that both sides signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    record: SignedRecord,
    facts: Facts,
}

impl Receipt {
    /// Signs as the client of `deal`.
    pub fn sign(
        client: &SigningKey,
        (network, schedule): (&NetworkId, &EpochSchedule),
        deal: &Deal,
        verdict: Verdict,
        now: UnixMillis,
    ) -> Result<Self, Reject> {
        let made = UnixMillis(deal.record.seq());
        let body = ReceiptBody { deal: ByteBuf::from(deal.as_bytes()), verdict: verdict.number() };
        // The server's clock may run ahead of ours.
        let validity = validity(schedule, made, now.max(made));
        let record = SignedRecord::sign(&RECEIPT, network, client, validity, &body)?;
        if record.signer() != deal.terms.client {
            return Err(Reject::NotOurs);
        }
        let facts = Facts { server: deal.server(), terms: deal.terms, verdict, made, deal: deal.record.hash() };
        Ok(Self { record, facts })
    }

    /// What it says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.record.as_bytes()
    }
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
