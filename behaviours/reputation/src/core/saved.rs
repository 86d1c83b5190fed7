//! What is kept across restarts, as keys and values of a store.

use fog_base::{
    NodeId,
    codec::{self, CodecError},
};
use serde::{Serialize, de::DeserializeOwned};

/// The longest value of a peer or of a pair.
const MAX_VALUE: usize = 1_024;

/// Names what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A peer's evidence and penalty.
    Peer(NodeId),
    /// What a reporter says of a peer: subject, reporter.
    Heard(NodeId, NodeId),
    /// The last proof against a peer.
    Proof(NodeId),
}

impl Key {
    /// A tag and one or two ids.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Peer(node) => [b"p", &node.0[..]].concat(),
            Self::Heard(subject, reporter) => [b"h", &subject.0[..], &reporter.0].concat(),
            Self::Proof(node) => [b"x", &node.0[..]].concat(),
        }
    }

    /// From bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, ids) = bytes.split_first()?;
        match (tag, ids.as_chunks::<32>()) {
            (b'p', ([node], [])) => Some(Self::Peer(NodeId(*node))),
            (b'h', ([subject, reporter], [])) => Some(Self::Heard(NodeId(*subject), NodeId(*reporter))),
            (b'x', ([node], [])) => Some(Self::Proof(NodeId(*node))),
            _ => None,
        }
    }
}

/// A value as bytes: a version and CBOR.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![VERSION];
    bytes.extend(codec::encode(value, MAX_VALUE)?);
    Ok(bytes)
}

/// A value from bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => codec::decode(rest, MAX_VALUE),
        _ => Err(CodecError::Invalid),
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_others_are_none() {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        for key in [Key::Peer(a), Key::Heard(a, b), Key::Proof(b)] {
            let bytes = key.to_bytes();
            assert_eq!(Key::from_bytes(&bytes), Some(key));
            assert_eq!(Key::from_bytes(&bytes[1..]), None);
            assert_eq!(Key::from_bytes(&[&bytes[..], &[0]].concat()), None);
        }
        assert_eq!(Key::from_bytes(&[]), None);
    }

    #[test]
    fn a_value_of_another_version_is_refused() {
        let mut bytes = encode(&7u64).unwrap();
        assert_eq!(decode::<u64>(&bytes), Ok(7));
        bytes[0] = 2;
        assert_eq!(decode::<u64>(&bytes), Err(CodecError::Invalid));
    }
}
