//! Why something was refused. A reason is for the local counters only: no variant carries data, and none is ever told
//! to a peer.

use thiserror::Error;

/// Why a packet, a reply block or a reply was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Reject {
    /// Wrong length, a low-order group element, or an unknown command in a header whose MAC is right.
    #[error("malformed")]
    Malformed,
    /// The version byte is not [`VERSION`](crate::VERSION).
    #[error("unknown packet version")]
    UnknownVersion,
    /// The header was not made for this key, or was changed on its way.
    #[error("wrong header MAC")]
    BadMac,
    /// The zero tag of the payload is not zero: the payload was changed on its way.
    #[error("wrong payload tag")]
    BadPayload,
}

/// Why a packet or a reply block could not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum BuildError {
    /// The number of hops is not 1 to [`MAX_HOPS`](crate::MAX_HOPS).
    #[error("a path has 1 to {max} hops, got {0}", max = crate::MAX_HOPS)]
    PathLength(usize),
}
