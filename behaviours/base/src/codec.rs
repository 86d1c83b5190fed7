//! CBOR in and out. The only file that imports `serde_cbor`, so that replacing that crate (it is unmaintained,
//! RUSTSEC-2021-0127) changes this file alone.
//!
//! Every decoder states the largest input that it takes; longer input is refused before it is parsed. serde_cbor itself stops at a
//! nesting of 128, refuses trailing bytes in `from_slice`, and grows collections step by step whatever length a peer claims.
//! Types that cross the wire carry `#[serde(deny_unknown_fields)]`.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes could not become a value, or a value bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Longer than the caller accepts.
    #[error("{got} bytes where at most {max} are accepted")]
    TooLong {
        /// The length that came.
        got: usize,
        /// The longest that is accepted.
        max: usize,
    },
    /// Not CBOR of the expected shape.
    #[error("not a valid encoding")]
    Invalid,
}

/// Encodes `value`; an encoding of more than `max` bytes is an error, as its receiver would refuse it.
pub fn encode<T: Serialize>(value: &T, max: usize) -> Result<Vec<u8>, CodecError> {
    let bytes = serde_cbor::ser::to_vec_packed(value).map_err(|_| CodecError::Invalid)?;
    check(bytes.len(), max)?;
    Ok(bytes)
}

/// Decodes exactly `bytes`, of which there may be at most `max`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    check(bytes.len(), max)?;
    serde_cbor::from_slice(bytes).map_err(|_| CodecError::Invalid)
}

fn check(got: usize, max: usize) -> Result<(), CodecError> {
    if got > max { Err(CodecError::TooLong { got, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        numbers: Vec<u32>,
    }

    fn sample() -> Sample {
        Sample { name: "fog".into(), numbers: vec![1, 2, 300] }
    }

    #[test]
    fn a_value_survives_the_round_trip() {
        let bytes = encode(&sample(), 100).unwrap();
        assert_eq!(decode::<Sample>(&bytes, 100), Ok(sample()));
    }

    #[test]
    fn trailing_bytes_unknown_fields_and_long_input_are_refused() {
        let bytes = encode(&sample(), 100).unwrap();
        assert_eq!(decode::<Sample>(&[bytes.clone(), vec![0]].concat(), 100), Err(CodecError::Invalid));
        assert!(matches!(decode::<Sample>(&bytes, 3), Err(CodecError::TooLong { max: 3, .. })));
        let with_unknown =
            serde_cbor::to_vec(&std::collections::BTreeMap::from([("name", "x"), ("other", "y")])).unwrap();
        assert_eq!(decode::<Sample>(&with_unknown, 100), Err(CodecError::Invalid));
    }

    #[test]
    fn a_claimed_length_does_not_allocate_and_deep_nesting_does_not_overflow() {
        // An array that claims 2^62 elements, and 100,000 nested arrays.
        assert!(decode::<Vec<u64>>(&[0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0, 1], 100).is_err());
        assert!(decode::<serde_cbor::Value>(&vec![0x81; 100_000], 200_000).is_err());
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _outcome = decode::<Sample>(&bytes, 200);
        }
    }
}
