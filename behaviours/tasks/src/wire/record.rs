//! What is signed, as bodies of [`SignedRecord`](fog_base::record::SignedRecord)s; offers, vouchers and acknowledgements are with what they mean.

use std::time::Duration;

use fog_base::{NodeId, id::byte_array, record::Kind};
use serde::{Deserialize, Serialize};

use crate::core::{
    ids::ExecutionId,
    terms::{Class, Privacy},
    work::WorkId,
};

/// Nothing signed here is of use for longer: what outlives it are accounts.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// What the coordinator asks a worker to run, and on which terms.
pub const BID: Kind = Kind { number: 10, version: 1, max_body: 2_048, max_lifetime: LIFETIME };
/// The worker's yes.
pub const AGREEMENT: Kind = Kind { number: 11, version: 1, max_body: 256, max_lifetime: LIFETIME };
/// The coordinator's "do it", for some time.
pub const LEASE: Kind = Kind { number: 12, version: 1, max_body: 256, max_lifetime: LIFETIME };
/// The worker's result, hidden.
pub const COMMIT: Kind = Kind { number: 13, version: 1, max_body: 128, max_lifetime: LIFETIME };
/// The longest of these records.
pub const MAX_RECORD: usize = 64 + BID.max_body + 64;

/// Body of a bid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BidBody {
    /// The execution.
    pub execution: ExecutionId,
    /// Whom it is for.
    pub worker: NodeId,
    /// The work, whose encoding comes beside the record.
    pub work: WorkId,
    /// The `seq` of the offer that it answers.
    pub offer_seq: u64,
    /// The most that is paid, in micro-credits per 10⁹ fuel.
    pub highest_rate: u64,
    /// How long staging may take.
    pub staging_ms: u64,
    /// How long it may wait for a slot once it is staged.
    pub queueing_ms: u64,
    /// How long it may run.
    pub running_ms: u64,
    /// How much it matters.
    pub class: Class,
    /// Who may see it.
    pub privacy: Privacy,
    /// What the worker must have.
    pub features: Vec<String>,
}

/// Body of an agreement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreementBody {
    /// The execution.
    pub execution: ExecutionId,
    /// BLAKE3 of the bid's record.
    #[serde(with = "byte_array")]
    pub bid: [u8; 32],
    /// What it costs, in micro-credits per 10⁹ fuel: not above the bid's highest.
    pub rate: u64,
}

/// Body of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseBody {
    /// The execution.
    pub execution: ExecutionId,
    /// BLAKE3 of the agreement's record.
    #[serde(with = "byte_array")]
    pub agreement: [u8; 32],
    /// A higher one renews: 1 for the first.
    pub seq: u64,
    /// How long the worker may go on, counted from when it has this.
    pub duration_ms: u64,
    /// How often it says that it does.
    pub heartbeat_ms: u64,
}

/// Body of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitBody {
    /// The execution.
    pub execution: ExecutionId,
    /// [`commitment`] to the result.
    #[serde(with = "byte_array")]
    pub hash: [u8; 32],
}

/// What a worker commits to: BLAKE3 derive_key("fog commit v1", execution ‖ result hash ‖ nonce).
pub fn commitment(execution: ExecutionId, result: &[u8; 32], nonce: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("fog commit v1");
    hasher.update(&execution.0).update(result).update(nonce);
    *hasher.finalize().as_bytes()
}
