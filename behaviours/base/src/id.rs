//! Ids: which node, which network, which message.
//!
//! A node's id is its Ed25519 public key. libp2p prints such a key as base58 of the identity multihash of its protobuf form
//! (libp2p specs, peer-ids: `00 24 08 01 12 20 ‖ key`), so both directions are possible without libp2p.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
const PEER_ID_LEN: usize = PEER_ID_PREFIX.len() + 32;

/// Why a text or a byte string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not base58, or not the multihash of an Ed25519 key.
    #[error("not the peer id of an Ed25519 key")]
    PeerId,
    /// Not the expected number of lower-case hexadecimal digits.
    #[error("expected {0} hexadecimal digits")]
    Hex(usize),
}

/// A node: its Ed25519 public key, 32 bytes. Prints as a libp2p peer id (`12D3Koo…`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(#[serde(with = "byte_array")] pub [u8; 32]);

impl NodeId {
    /// The 38 bytes of the libp2p peer id.
    pub fn to_peer_id_bytes(self) -> [u8; PEER_ID_LEN] {
        let mut bytes = [0; PEER_ID_LEN];
        for (to, from) in bytes.iter_mut().zip(PEER_ID_PREFIX.iter().chain(&self.0)) {
            *to = *from;
        }
        bytes
    }

    /// From the bytes of a libp2p peer id; only ids that embed an Ed25519 key name a Fog node.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX).ok_or(IdError::PeerId)?;
        key.try_into().map(Self).map_err(|_| IdError::PeerId)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = bs58::decode(text).into_vec().map_err(|_| IdError::PeerId)?;
        Self::from_peer_id_bytes(&bytes)
    }
}

/// A network: 32 random bytes, made when its file is made. Part of every protocol name and signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkId(#[serde(with = "byte_array")] pub [u8; 32]);

impl NetworkId {
    /// The first eight bytes in hex: what protocol names carry.
    pub fn short(&self) -> String {
        self.to_string().chars().take(16).collect()
    }

    /// The name of a protocol on this network: `/fog/<short id>/<name>/<version>`.
    pub fn protocol(&self, name: &str, version: u32) -> String {
        format!("/fog/{}/{name}/{version}", self.short())
    }
}

/// A message between two nodes: 16 random bytes chosen by the sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(#[serde(with = "byte_array")] pub [u8; 16]);

macro_rules! hex_id {
    ($name:ident, $len:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| IdError::Hex($len * 2))?;
                bytes.try_into().map(Self).map_err(|_| IdError::Hex($len * 2))
            }
        }
    };
}
hex_id!(NetworkId, 32);
hex_id!(MessageId, 16);

/// Serde for `[u8; N]` as one byte string (serde itself would write a list of N numbers).
pub mod byte_array {
    use serde::{Deserializer, Serializer, de::Error};

    /// Writes the bytes as one byte string.
    pub fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(bytes.as_slice(), serializer)
    }

    /// Reads exactly `N` bytes.
    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
        let bytes: Vec<u8> = serde_bytes::deserialize(deserializer)?;
        let length = bytes.len();
        bytes.try_into().map_err(|_| D::Error::invalid_length(length, &"a fixed number of bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_prints_as_a_libp2p_peer_id_and_reads_back() {
        let id = NodeId([7; 32]);
        let text = id.to_string();
        assert!(text.starts_with("12D3Koo"), "{text}");
        assert_eq!(text.parse(), Ok(id));
    }

    #[test]
    fn other_texts_are_not_ids() {
        for text in ["", "0OIl", "12D3Koo", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"] {
            assert_eq!(text.parse::<NodeId>(), Err(IdError::PeerId), "{text}");
        }
        assert_eq!("AB".parse::<MessageId>(), Err(IdError::Hex(32)));
    }
}
