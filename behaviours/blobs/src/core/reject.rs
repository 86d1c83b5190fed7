//! Why a peer's message is not taken.

use fog_base::DropReason;

/// Why a message of a peer is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Reject {
    /// The bytes are not the blob's: the peer lies, or its disk does.
    #[error("the bytes do not verify")]
    Lie,
    /// The peer lied before.
    #[error("the peer is banned")]
    Banned,
    /// Nothing is known of that peer here.
    #[error("not a source of this blob")]
    UnknownPeer,
    /// The peer's blob has another size than the manifest names: one of the two is wrong, and nobody can say which.
    #[error("the peer has a blob of another size")]
    OtherSize,
    /// An answer to what was asked once and is not wanted any more.
    #[error("not wanted any more")]
    Late,
    /// An answer to what was never asked, or more of it than was asked for.
    #[error("nobody asked for that")]
    Unrequested,
    /// A field out of its range.
    #[error("not a valid message")]
    Malformed,
    /// More than is taken of one peer, or in all.
    #[error("there is no room for more")]
    Full,
}

impl Reject {
    /// Under which reason it is counted.
    pub fn drop_reason(self) -> DropReason {
        match self {
            Self::Lie => DropReason::BadPayload,
            Self::Banned | Self::Full => DropReason::RateLimited,
            Self::UnknownPeer => DropReason::NoRoute,
            Self::Late => DropReason::Expired,
            Self::OtherSize | Self::Unrequested | Self::Malformed => DropReason::Malformed,
        }
    }

    /// How much an honest peer's score suffers: 0 what an honest peer does, 1 what no honest peer does.
    pub fn weight(self) -> f64 {
        match self {
            Self::Lie | Self::Unrequested | Self::Malformed => 1.0,
            Self::Banned | Self::UnknownPeer | Self::OtherSize | Self::Late | Self::Full => 0.0,
        }
    }
}
