//! Signed records: the one envelope for everything that a node, a service or a person states under its key.
//!
//! Layout and what the signature covers are in the README. A [`SignedRecord`] is parsed and unverified; only
//! [`SignedRecord::verify`] yields a [`Verified`], so an unchecked record cannot be used as a checked one.

use std::time::Duration;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Serialize, de::DeserializeOwned};

use crate::{NetworkId, NodeId, UnixMillis, codec, time::CLOCK_TOLERANCE};

const LABEL: &[u8] = b"fog signed record v1\0";
const HEADER_LEN: usize = 64;
const SIGNATURE_LEN: usize = 64;
/// The largest body of any kind.
pub const MAX_BODY: usize = 64 * 1024;

/// What a kind of record may be: its number, version, size and lifetime.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The number of the kind; one list for all, in the README.
    pub number: u16,
    /// The version of the body.
    pub version: u16,
    /// The largest body, in bytes.
    pub max_body: usize,
    /// The longest lifetime from `not_before` to `expires`.
    pub max_lifetime: Duration,
}

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not the layout, or a length that does not add up.
    #[error("not a signed record")]
    Malformed,
    /// Another kind or version than expected.
    #[error("a record of kind {0} version {1} where another was expected")]
    WrongKind(u16, u16),
    /// The body or the lifetime exceeds the kind's cap.
    #[error("the record exceeds the limits of its kind")]
    TooLarge,
    /// The signature does not verify under the record's key on this network.
    #[error("the signature does not verify")]
    BadSignature,
    /// Before `not_before`.
    #[error("the record is not valid yet")]
    TooEarly,
    /// At or after `expires`.
    #[error("the record has expired")]
    Expired,
    /// The body is not what the kind says.
    #[error("the body cannot be decoded")]
    BadBody,
}

/// A record as it came: parsed, and nothing believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRecord {
    bytes: Vec<u8>,
    fields: Fields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields {
    kind: u16,
    version: u16,
    key: [u8; 32],
    seq: u64,
    not_before: u64,
    expires: u64,
}

/// When a record is valid and which one it replaces.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// A higher one replaces a lower one.
    pub seq: u64,
    /// First moment.
    pub not_before: UnixMillis,
    /// How long from then.
    pub lifetime: Duration,
}

impl SignedRecord {
    /// Signs `body`.
    pub fn sign<T: Serialize>(
        kind: &Kind,
        network: &NetworkId,
        key: &SigningKey,
        validity: Validity,
        body: &T,
    ) -> Result<Self, RecordError> {
        let body = codec::encode(body, kind.max_body.min(MAX_BODY)).map_err(|_| RecordError::TooLarge)?;
        let fields = Fields {
            kind: kind.number,
            version: kind.version,
            key: key.verifying_key().to_bytes(),
            seq: validity.seq,
            not_before: validity.not_before.as_secs(),
            expires: validity.not_before.plus(validity.lifetime.min(kind.max_lifetime)).as_secs(),
        };
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len() + SIGNATURE_LEN);
        bytes.extend_from_slice(&fields.kind.to_be_bytes());
        bytes.extend_from_slice(&fields.version.to_be_bytes());
        bytes.extend_from_slice(&fields.key);
        bytes.extend_from_slice(&fields.seq.to_be_bytes());
        bytes.extend_from_slice(&fields.not_before.to_be_bytes());
        bytes.extend_from_slice(&fields.expires.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(body.len()).map_err(|_| RecordError::TooLarge)?.to_be_bytes());
        bytes.extend_from_slice(&body);
        let signature = key.sign(&signed_bytes(network, &bytes));
        bytes.extend_from_slice(&signature.to_bytes());
        Ok(Self { bytes, fields })
    }

    /// Splits bytes into fields; verifies nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut rest = bytes;
        let fields = Fields {
            kind: u16::from_be_bytes(take(&mut rest)?),
            version: u16::from_be_bytes(take(&mut rest)?),
            key: take(&mut rest)?,
            seq: u64::from_be_bytes(take(&mut rest)?),
            not_before: u64::from_be_bytes(take(&mut rest)?),
            expires: u64::from_be_bytes(take(&mut rest)?),
        };
        let length = u32::from_be_bytes(take(&mut rest)?) as usize;
        if length > MAX_BODY || rest.len() != length + SIGNATURE_LEN {
            return Err(RecordError::Malformed);
        }
        Ok(Self { bytes: bytes.to_vec(), fields })
    }

    /// The record's bytes, as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Who claims to have signed it.
    pub fn signer(&self) -> NodeId {
        NodeId(self.fields.key)
    }

    /// The claimed sequence number.
    pub fn seq(&self) -> u64 {
        self.fields.seq
    }

    /// The claimed beginning of its validity.
    pub fn not_before(&self) -> UnixMillis {
        UnixMillis(self.fields.not_before.saturating_mul(1000))
    }

    /// The claimed end of its validity.
    pub fn expires(&self) -> UnixMillis {
        UnixMillis(self.fields.expires.saturating_mul(1000))
    }

    /// BLAKE3 of the bytes: names exactly this record.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.bytes).as_bytes()
    }

    /// Checks kind, limits, time and signature, in this order (cheap first), and decodes the body.
    pub fn verify<T: DeserializeOwned>(
        self,
        kind: &Kind,
        network: &NetworkId,
        now: UnixMillis,
    ) -> Result<Verified<T>, RecordError> {
        let Fields { not_before, expires, key, .. } = self.fields;
        let (signed, signature) = self.split(kind)?;
        let body = signed.get(HEADER_LEN..).ok_or(RecordError::Malformed)?;
        let lifetime = expires.checked_sub(not_before).ok_or(RecordError::Malformed)?;
        if body.len() > kind.max_body || lifetime > kind.max_lifetime.as_secs() {
            return Err(RecordError::TooLarge);
        }
        if now.plus(CLOCK_TOLERANCE).as_secs() < not_before {
            return Err(RecordError::TooEarly);
        }
        if now.as_secs() >= expires {
            return Err(RecordError::Expired);
        }
        let verifying = VerifyingKey::from_bytes(&key).map_err(|_| RecordError::BadSignature)?;
        let signature = Signature::from_slice(signature).map_err(|_| RecordError::Malformed)?;
        verifying.verify_strict(&signed_bytes(network, signed), &signature).map_err(|_| RecordError::BadSignature)?;
        let body = codec::decode(body, kind.max_body).map_err(|_| RecordError::BadBody)?;
        Ok(Verified { record: self, body })
    }

    /// Decodes a record that this very process signed as `own` and that never left it: neither signature nor times are checked
    /// again. Never for bytes that a peer brought.
    pub fn take_own<T: DeserializeOwned>(self, kind: &Kind, own: &NodeId) -> Result<Verified<T>, RecordError> {
        if self.signer() != *own {
            return Err(RecordError::BadSignature);
        }
        let (signed, _) = self.split(kind)?;
        let body = signed.get(HEADER_LEN..).ok_or(RecordError::Malformed)?;
        let body = codec::decode(body, kind.max_body.min(MAX_BODY)).map_err(|_| RecordError::BadBody)?;
        Ok(Verified { record: self, body })
    }

    /// What is signed, and the signature, of a record of `kind`.
    fn split(&self, kind: &Kind) -> Result<(&[u8], &[u8]), RecordError> {
        if (self.fields.kind, self.fields.version) != (kind.number, kind.version) {
            return Err(RecordError::WrongKind(self.fields.kind, self.fields.version));
        }
        let at = self.bytes.len().saturating_sub(SIGNATURE_LEN);
        self.bytes.split_at_checked(at).ok_or(RecordError::Malformed)
    }
}

fn signed_bytes(network: &NetworkId, bytes: &[u8]) -> Vec<u8> {
    [LABEL, &network.0, bytes].concat()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(RecordError::Malformed)?;
    *rest = tail;
    Ok(*head)
}

/// A record whose signature, kind, limits and time were right when it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    record: SignedRecord,
    body: T,
}

impl<T> Verified<T> {
    /// Who signed it.
    pub fn signer(&self) -> NodeId {
        self.record.signer()
    }

    /// What was signed.
    pub fn body(&self) -> &T {
        &self.body
    }

    /// The record itself: its bytes, sequence number and times.
    pub fn record(&self) -> &SignedRecord {
        &self.record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { number: 900, version: 1, max_body: 100, max_lifetime: Duration::from_secs(1000) };
    const NETWORK: NetworkId = NetworkId([1; 32]);
    const START: UnixMillis = UnixMillis(1_800_000_000_000);

    fn record() -> SignedRecord {
        let validity = Validity { seq: 4, not_before: START, lifetime: Duration::from_secs(500) };
        SignedRecord::sign(&KIND, &NETWORK, &SigningKey::from_bytes(&[9; 32]), validity, &"hello").unwrap()
    }

    fn verify(record: SignedRecord, now: UnixMillis) -> Result<String, RecordError> {
        record.verify::<String>(&KIND, &NETWORK, now).map(|v| v.body().clone())
    }

    #[test]
    fn a_record_survives_the_wire_and_verifies() {
        let parsed = SignedRecord::parse(record().as_bytes()).unwrap();
        assert_eq!(parsed, record());
        assert_eq!(verify(parsed, START), Ok("hello".into()));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = record();
        for bit in 0..good.as_bytes().len() * 8 {
            let mut bytes = good.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let outcome = SignedRecord::parse(&bytes).and_then(|r| verify(r, START));
            assert!(outcome.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn time_kind_network_and_limits_are_checked() {
        let end = START.plus(Duration::from_secs(500));
        assert_eq!(verify(record(), end), Err(RecordError::Expired));
        assert_eq!(verify(record(), START.minus(Duration::from_secs(61))), Err(RecordError::TooEarly));
        assert_eq!(verify(record(), START.minus(Duration::from_secs(59))), Ok("hello".into()));
        let other = record().verify::<String>(&KIND, &NetworkId([2; 32]), START);
        assert_eq!(other, Err(RecordError::BadSignature));
        let small = Kind { max_body: 3, ..KIND };
        assert_eq!(record().verify::<String>(&small, &NETWORK, START), Err(RecordError::TooLarge));
        let short = Kind { max_lifetime: Duration::from_secs(499), ..KIND };
        assert_eq!(record().verify::<String>(&short, &NETWORK, START), Err(RecordError::TooLarge));
        let another = Kind { number: 901, ..KIND };
        assert_eq!(record().verify::<String>(&another, &NETWORK, START), Err(RecordError::WrongKind(900, 1)));
        assert_eq!(record().verify::<u64>(&KIND, &NETWORK, START), Err(RecordError::BadBody));
    }

    #[test]
    fn a_record_of_ones_own_is_taken_without_its_signature_and_nobody_elses_is() {
        let own = record().signer();
        let taken = record().take_own::<String>(&KIND, &own).map(|verified| verified.body().clone());
        assert_eq!(taken, Ok("hello".into()));
        assert_eq!(record().take_own::<String>(&KIND, &NodeId([1; 32])), Err(RecordError::BadSignature));
        let another = Kind { number: 901, ..KIND };
        assert_eq!(record().take_own::<String>(&another, &own), Err(RecordError::WrongKind(900, 1)));
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            proptest::prop_assert!(SignedRecord::parse(&bytes).and_then(|r| verify(r, START)).is_err());
        }
    }
}
