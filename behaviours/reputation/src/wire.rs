//! Deals, receipts, reports, proofs and their exchange as bytes; layouts are in the README. Nothing here is believed yet: `core`
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

use crate::core::shelf::{Hash, MAX_KNOWN, Name};

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

/// The longest item: a proof and its tag.
pub const MAX_ITEM: usize = 1 + MAX_PROOF;
/// The most items in one answer.
pub const MAX_ITEMS: usize = 16;
/// The largest request: a name for everything that can be known, and the framing.
pub const MAX_REQUEST: usize = 8 * MAX_KNOWN + 64;
/// The largest answer: the most items of the largest size, and their framing.
pub const MAX_RESPONSE: usize = MAX_ITEMS * (MAX_ITEM + 8) + 64;

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

/// What travels between peers: a tag (1 report, 2 proof) and the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A signed report.
    Report(Vec<u8>),
    /// A [`Contradiction`].
    Proof(Vec<u8>),
}

impl Item {
    const REPORT: u8 = 1;
    const PROOF: u8 = 2;

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (tag, bytes) = match self {
            Self::Report(bytes) => (Self::REPORT, bytes),
            Self::Proof(bytes) => (Self::PROOF, bytes),
        };
        [&[tag], bytes.as_slice()].concat()
    }

    /// From bytes; nothing behind the tag is looked at.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&Self::REPORT, report) if report.len() <= MAX_REPORT => Some(Self::Report(report.to_vec())),
            (&Self::PROOF, proof) if proof.len() <= MAX_PROOF => Some(Self::Proof(proof.to_vec())),
            _ => None,
        }
    }

    /// BLAKE3 of its bytes.
    pub fn hash(&self) -> Hash {
        *blake3::hash(&self.encode()).as_bytes()
    }
}

/// What one peer asks another: whatever it has beyond this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Fresh; under it the names are made.
    pub salt: [u8; 32],
    /// What the one who asks has, sorted; at most [`MAX_KNOWN`].
    pub known: Vec<Name>,
    /// The most items in the answer; more than [`MAX_ITEMS`] counts as that.
    pub limit: u8,
}

/// What the other one answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// Items as bytes.
    Items {
        /// At most [`MAX_ITEMS`].
        items: Vec<Vec<u8>>,
        /// Whether there are more.
        more: bool,
    },
    /// Too many requests.
    Busy,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestForm {
    #[serde(with = "byte_array")]
    salt: [u8; 32],
    known: ByteBuf,
    limit: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum ResponseForm {
    Items { items: Vec<ByteBuf>, more: bool },
    Busy,
}

impl Request {
    /// As bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let Self { salt, known, limit } = self;
        let form = RequestForm { salt: *salt, known: ByteBuf::from(known.concat()), limit: *limit };
        codec::encode(&form, MAX_REQUEST)
    }

    /// From bytes, with every length and the order checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let RequestForm { salt, known, limit } = codec::decode(bytes, MAX_REQUEST)?;
        let (known, rest) = known.as_chunks::<8>();
        let fits = rest.is_empty() && known.len() <= MAX_KNOWN && known.is_sorted();
        if fits { Ok(Self { salt, known: known.to_vec(), limit }) } else { Err(CodecError::Invalid) }
    }
}

impl Response {
    /// As bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let form = match self {
            Self::Items { items, more } => {
                ResponseForm::Items { items: items.iter().cloned().map(ByteBuf::from).collect(), more: *more }
            }
            Self::Busy => ResponseForm::Busy,
        };
        codec::encode(&form, MAX_RESPONSE)
    }

    /// From bytes, with every length checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(match codec::decode(bytes, MAX_RESPONSE)? {
            ResponseForm::Items { items, more } => {
                if items.len() > MAX_ITEMS || items.iter().any(|item| item.len() > MAX_ITEM) {
                    return Err(CodecError::Invalid);
                }
                Self::Items { items: items.into_iter().map(ByteBuf::into_vec).collect(), more }
            }
            ResponseForm::Busy => Self::Busy,
        })
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
    fn the_largest_messages_of_the_exchange_fit_their_caps_and_read_back() {
        let request = Request { salt: [0xff; 32], known: vec![[0xff; 8]; MAX_KNOWN], limit: u8::MAX };
        assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        for response in [Response::Items { items: vec![vec![7; MAX_ITEM]; MAX_ITEMS], more: true }, Response::Busy] {
            assert_eq!(Response::decode(&response.encode().unwrap()), Ok(response));
        }
        for item in [Item::Report(vec![7; MAX_REPORT]), Item::Proof(vec![7; MAX_PROOF])] {
            assert_eq!(Item::decode(&item.encode()), Some(item));
        }
    }

    #[test]
    fn messages_of_the_exchange_have_the_layout_of_the_readme() {
        let request = Request { salt: [7; 32], known: vec![[1; 8]], limit: 5 };
        let expected = [&[0xa3, 0, 0x58, 32][..], &[7; 32], &[1, 0x48], &[1; 8], &[2, 5]].concat();
        assert_eq!(request.encode().unwrap(), expected);
        let items = Response::Items { items: vec![vec![1, 9], vec![2]], more: true };
        let expected = [0xa1, 0, 0xa2, 0, 0x82, 0x42, 1, 9, 0x41, 2, 1, 0xf5];
        assert_eq!((items.encode().unwrap(), Response::Busy.encode().unwrap()), (expected.to_vec(), vec![1]));
    }

    #[test]
    fn messages_of_the_exchange_beyond_their_caps_are_refused() {
        let unsorted = Request { salt: [0; 32], known: vec![[2; 8], [1; 8]], limit: 1 };
        assert_eq!(Request::decode(&unsorted.encode().unwrap()), Err(CodecError::Invalid));
        let odd = RequestForm { salt: [0; 32], known: ByteBuf::from(vec![0; 9]), limit: 1 };
        assert_eq!(Request::decode(&codec::encode(&odd, 100).unwrap()), Err(CodecError::Invalid));
        for items in [vec![vec![1]; MAX_ITEMS + 1], vec![vec![1; MAX_ITEM + 1]]] {
            let response = Response::Items { items, more: false };
            assert_eq!(Response::decode(&response.encode().unwrap()), Err(CodecError::Invalid));
        }
        for item in [vec![], vec![0], vec![3, 1], vec![1; MAX_REPORT + 2], vec![2; MAX_PROOF + 2]] {
            assert_eq!(Item::decode(&item), None);
        }
    }

    #[test]
    fn a_record_longer_than_the_cap_makes_no_proof() {
        let pair = Contradiction { first: ByteBuf::from(vec![1; MAX_PROVED + 1]), second: ByteBuf::new() };
        assert_eq!(Contradiction::decode(&pair.encode().unwrap()), Err(CodecError::Invalid));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _outcomes = (Contradiction::decode(&bytes), Request::decode(&bytes), Response::decode(&bytes));
            let peeked = SignedRecord::parse(&bytes).map(|record| peek::<ReportBody>(&record, &REPORT));
            proptest::prop_assert!(peeked.is_err() || peeked.is_ok_and(|body| body.is_err()));
        }
    }
}
