//! Peers, receipts and reports for tests.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{
    Epoch, EpochSchedule, NetworkId, NodeId, Now, UnixMillis,
    record::{Kind as RecordKind, SignedRecord, Validity},
};
use serde_bytes::ByteBuf;

use super::{
    config::Config,
    receipt::{Deal, Receipt, Service, Terms, Verdict},
    report,
    reputation::{Output, Reputation},
};
use crate::wire::Contradiction;

pub(crate) const NETWORK: NetworkId = NetworkId([3; 32]);
pub(crate) const EPOCH_LENGTH: Duration = Duration::from_secs(1800);
/// A kind of which two records with one sequence number are misbehaviour.
pub(crate) const PROVABLE: RecordKind =
    RecordKind { number: 1, version: 1, max_body: 1100, max_lifetime: Duration::from_secs(7200) };

pub(crate) fn schedule() -> EpochSchedule {
    EpochSchedule::new(EPOCH_LENGTH)
}

/// The beginning of an epoch.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
pub(crate) fn start() -> Now {
    Now { mono: Instant::now(), unix: schedule().start(Epoch(1_000_000)) }
}

/// So many epochs after `now`.
pub(crate) fn after(now: Now, epochs: f64) -> Now {
    now.plus(EPOCH_LENGTH.mul_f64(epochs))
}

pub(crate) fn identity(n: u32) -> SigningKey {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    SigningKey::from_bytes(&bytes)
}

pub(crate) fn node(n: u32) -> NodeId {
    NodeId(identity(n).verifying_key().to_bytes())
}

/// Node 0.
pub(crate) fn me() -> NodeId {
    node(0)
}

pub(crate) fn config() -> Config {
    Config { provable: vec![PROVABLE], identity_price: 3_000, ..Config::new(NETWORK, schedule()) }
}

pub(crate) fn reputation(now: Now) -> Reputation {
    with(config(), now)
}

pub(crate) fn with(config: Config, now: Now) -> Reputation {
    Reputation::new(config, Arc::new(identity(0)), [7; 32], now)
}

/// A receipt for what `server` did for `client`; `nonce` tells it from others of the same moment.
pub(crate) fn receipt(
    (client, server): (u32, u32),
    value: u64,
    verdict: Verdict,
    at: UnixMillis,
    nonce: u64,
) -> Receipt {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&nonce.to_be_bytes());
    let terms = Terms { service: Service::Task, client: node(client), value, nonce: bytes };
    let deal = Deal::sign(&identity(server), (&NETWORK, &schedule()), terms, at).unwrap();
    Receipt::sign(&identity(client), (&NETWORK, &schedule()), &deal, verdict, at).unwrap()
}

/// The report of `reporter` on what `subject` did at `at`: one receipt of value 1,000 for each verdict.
pub(crate) fn report(
    (reporter, subject): (u32, u32),
    verdicts: &[Verdict],
    at: UnixMillis,
    now: UnixMillis,
) -> Vec<u8> {
    let receipts: Vec<_> = verdicts
        .iter()
        .enumerate()
        .map(|(i, verdict)| receipt((reporter, subject), 1_000, *verdict, at, i as u64))
        .collect();
    sign_report(reporter, subject, &receipts, at, now)
}

pub(crate) fn sign_report(
    reporter: u32,
    subject: u32,
    receipts: &[Receipt],
    at: UnixMillis,
    now: UnixMillis,
) -> Vec<u8> {
    let bytes = receipts.iter().map(|receipt| receipt.as_bytes().to_vec());
    let about = (schedule().at(at), node(subject));
    report::sign(&identity(reporter), (&NETWORK, &schedule()), about, bytes, (now.0, now)).unwrap()
}

pub(crate) fn outputs(reputation: &mut Reputation) -> Vec<Output> {
    std::iter::from_fn(|| reputation.poll_output()).collect()
}

/// A record of a provable kind.
pub(crate) fn record(signer: u32, seq: u64, body: &str, at: UnixMillis) -> SignedRecord {
    let validity = Validity { seq, not_before: at, lifetime: Duration::from_secs(600) };
    SignedRecord::sign(&PROVABLE, &NETWORK, &identity(signer), validity, &body).unwrap()
}

/// Two records as a proof.
pub(crate) fn pair(first: &[u8], second: &[u8]) -> Vec<u8> {
    Contradiction { first: ByteBuf::from(first), second: ByteBuf::from(second) }.encode().unwrap()
}
