//! Deals, receipts, reports and proofs as bytes; layouts are in the README. Nothing here is believed yet: `core`
//! verifies.

use std::time::Duration;

use fog_base::{
    Epoch, NodeId,
    codec::{self, CodecError},
    id::byte_array,
    record::{Kind, RecordError, SignedRecord},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

/// Three epochs of at most seven days, and the rounding to seconds.
const LIFETIME: Duration = Duration::from_secs(3 * 7 * 86_400 + 60);
/// Deals among the signed records; the server signs.
pub const DEAL: Kind = Kind { number: 5, version: 1, max_body: 96, max_lifetime: LIFETIME };
/// Receipts among the signed records; the client signs.
pub const RECEIPT: Kind = Kind { number: 6, version: 1, max_body: 256, max_lifetime: LIFETIME };
/// Reports among the signed records; the reporter signs.
pub const REPORT: Kind = Kind { number: 7, version: 1, max_body: 3_300, max_lifetime: LIFETIME };

/// Header and signature of a signed record (fog-base's README).
const HEADER: usize = 64;
const SIGNATURE: usize = 64;
/// The longest deal.
pub const MAX_DEAL: usize = HEADER + DEAL.max_body + SIGNATURE;
/// The longest receipt.
pub const MAX_RECEIPT: usize = HEADER + RECEIPT.max_body + SIGNATURE;
/// The longest report.
pub const MAX_REPORT: usize = HEADER + REPORT.max_body + SIGNATURE;
/// The most receipts in one report.
pub const MAX_RECEIPTS: usize = 8;
/// The longest record in a proof.
pub const MAX_PROVED: usize = 2_048;
/// The longest proof: two records and their framing.
pub const MAX_PROOF: usize = 2 * MAX_PROVED + 16;

/// Body of a deal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DealBody {
    /// The number of the service.
    pub service: u8,
    /// Whom the signer serves.
    pub client: NodeId,
    /// What it is worth.
    pub value: u64,
    /// Tells deals of one millisecond apart.
    #[serde(with = "byte_array")]
    pub nonce: [u8; 16],
}

/// Body of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptBody {
    /// The signed deal.
    pub deal: ByteBuf,
    /// The number of the verdict.
    pub verdict: u8,
}

/// Body of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportBody {
    /// The epoch of the deals.
    pub epoch: Epoch,
    /// Their server.
    pub subject: NodeId,
    /// The signed receipts, 1 to [`MAX_RECEIPTS`].
    pub receipts: Vec<ByteBuf>,
}

/// Two signed records that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contradiction {
    /// One of them.
    pub first: ByteBuf,
    /// The other.
    pub second: ByteBuf,
}

impl Contradiction {
    /// As bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(self, MAX_PROOF)
    }

    /// From bytes, with every length checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let pair: Self = codec::decode(bytes, MAX_PROOF)?;
        let fits = [&pair.first, &pair.second].iter().all(|record| record.len() <= MAX_PROVED);
        if fits { Ok(pair) } else { Err(CodecError::Invalid) }
    }
}

/// What a record's signature covers of its own bytes: all but the signature.
pub fn signed_part(record: &SignedRecord) -> &[u8] {
    let bytes = record.as_bytes();
    bytes.get(..bytes.len().saturating_sub(SIGNATURE)).unwrap_or_default()
}

/// Kind and version of a record.
pub fn kind_of(record: &SignedRecord) -> (u16, u16) {
    let [a, b, c, d] = record.as_bytes().first_chunk().copied().unwrap_or_default();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// The body of a record whose signature is not checked yet, so that what is cheap to refuse costs no signature check.
pub fn peek<T: DeserializeOwned>(record: &SignedRecord, kind: &Kind) -> Result<T, RecordError> {
    let (number, version) = kind_of(record);
    if (number, version) != (kind.number, kind.version) {
        return Err(RecordError::WrongKind(number, version));
    }
    let body = signed_part(record).get(HEADER..).ok_or(RecordError::Malformed)?;
    codec::decode(body, kind.max_body).map_err(|_| RecordError::BadBody)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([0xff; 32]);

    #[test]
    fn the_largest_bodies_fit_their_caps_and_read_back() {
        let deal = DealBody { service: u8::MAX, client: NODE, value: u64::MAX, nonce: [0xff; 16] };
        let bytes = codec::encode(&deal, DEAL.max_body).unwrap();
        assert_eq!(codec::decode(&bytes, DEAL.max_body), Ok(deal));
        let receipt = ReceiptBody { deal: ByteBuf::from(vec![0xff; MAX_DEAL]), verdict: u8::MAX };
        let bytes = codec::encode(&receipt, RECEIPT.max_body).unwrap();
        assert_eq!(codec::decode(&bytes, RECEIPT.max_body), Ok(receipt));
        let receipts = vec![ByteBuf::from(vec![0xff; MAX_RECEIPT]); MAX_RECEIPTS];
        let report = ReportBody { epoch: Epoch(u32::MAX), subject: NODE, receipts };
        let bytes = codec::encode(&report, REPORT.max_body).unwrap();
        assert_eq!(codec::decode(&bytes, REPORT.max_body), Ok(report));
        let record = || ByteBuf::from(vec![0xff; MAX_PROVED]);
        let pair = Contradiction { first: record(), second: record() };
        assert_eq!(Contradiction::decode(&pair.encode().unwrap()), Ok(pair));
    }

    #[test]
    fn a_record_longer_than_the_cap_makes_no_proof() {
        let pair = Contradiction { first: ByteBuf::from(vec![1; MAX_PROVED + 1]), second: ByteBuf::new() };
        assert_eq!(Contradiction::decode(&pair.encode().unwrap()), Err(CodecError::Invalid));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _outcome = Contradiction::decode(&bytes);
            let peeked = SignedRecord::parse(&bytes).map(|record| peek::<ReportBody>(&record, &REPORT));
            proptest::prop_assert!(peeked.is_err() || peeked.is_ok_and(|body| body.is_err()));
        }
    }
}
