//! Why something is not taken. Each is counted; some are blamed on whoever sent it.

use fog_base::DropReason;

/// Why a peer's input is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Reject {
    /// Not the layout, a length that does not add up, or a field out of its range.
    #[error("not the layout")]
    Malformed,
    /// A version that this node does not speak.
    #[error("an unknown version")]
    UnknownVersion,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    BadSignature,
    /// The body is not the one that was signed.
    #[error("the body is not the one that was signed")]
    BadBody,
    /// A message of another conversation than the one it came in.
    #[error("a message of another conversation")]
    WrongConversation,
    /// Clock, lamport or seq are not what the predecessors say.
    #[error("the clock is not what the predecessors say")]
    FalseClock,
    /// The previous message is not its author's previous one.
    #[error("the previous message is another one's")]
    FalsePrevious,
    /// It builds on a message that was refused.
    #[error("it builds on a refused message")]
    RefusedAncestor,
    /// It has been taken before.
    #[error("known")]
    Known,
    /// Its author forked, and too many such messages are kept already.
    #[error("its author forked")]
    Frozen,
    /// A bound is reached.
    #[error("no room")]
    Full,
    /// More than its rate allows.
    #[error("over its rate")]
    RateLimited,
    /// Over, or with an expiry too far ahead.
    #[error("expired, or valid for too long")]
    Expired,
    /// No key opens it, or it opens to something else.
    #[error("it cannot be opened")]
    Sealed,
    /// No conversation of ours.
    #[error("not a conversation of this node")]
    Unknown,
    /// It may travel no further.
    #[error("no hops left")]
    NoHops,
    /// Two headers that are no fork.
    #[error("not a fork")]
    NoFork,
    /// Nobody asked for it.
    #[error("not asked for")]
    Unasked,
}

impl From<super::secrets::Reject> for Reject {
    fn from(reject: super::secrets::Reject) -> Self {
        use super::secrets::Reject as Secret;
        match reject {
            Secret::Malformed | Secret::TooLong => Self::Malformed,
            Secret::BadSignature | Secret::BadKey => Self::BadSignature,
            Secret::Expired => Self::Expired,
            Secret::Replayed | Secret::Duplicate => Self::Known,
            Secret::Full | Secret::StoreFailed => Self::Full,
            Secret::UnknownDevice | Secret::Blocked | Secret::NotMember => Self::Unknown,
            _ => Self::Sealed,
        }
    }
}

impl Reject {
    /// Under which reason it is counted for the node as a whole.
    pub fn drop_reason(self) -> DropReason {
        match self {
            Self::Malformed | Self::Unasked => DropReason::Malformed,
            Self::UnknownVersion => DropReason::UnknownVersion,
            Self::BadSignature => DropReason::BadMac,
            Self::Known => DropReason::Replayed,
            Self::Full | Self::Frozen => DropReason::QueueFull,
            Self::RateLimited => DropReason::RateLimited,
            Self::Expired => DropReason::Expired,
            Self::Unknown | Self::NoHops => DropReason::NoRoute,
            Self::BadBody
            | Self::WrongConversation
            | Self::FalseClock
            | Self::FalsePrevious
            | Self::RefusedAncestor
            | Self::Sealed
            | Self::NoFork => DropReason::BadPayload,
        }
    }

    /// Whether only whoever has the predecessors can know it.
    pub fn is_of_order(self) -> bool {
        matches!(self, Self::FalseClock | Self::FalsePrevious)
    }

    /// Whether nobody honest sends or forwards it, a member of the conversation or not.
    pub fn is_misbehaviour(self) -> bool {
        matches!(
            self,
            Self::Malformed
                | Self::BadSignature
                | Self::BadBody
                | Self::WrongConversation
                | Self::FalseClock
                | Self::FalsePrevious
                | Self::NoFork
                | Self::Unasked
        )
    }
}
