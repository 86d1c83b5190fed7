//! Why something is not taken.

use fog_base::{DropReason, record::RecordError};

use crate::wire::{DEAL, RECEIPT, REPORT};

/// Why evidence is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not the layout, or a field out of its range.
    #[error("not valid evidence")]
    Malformed,
    /// A version that this node does not speak.
    #[error("evidence of an unknown version")]
    UnknownVersion,
    /// A signature does not verify on this network.
    #[error("a signature does not verify")]
    BadSignature,
    /// From the future: a clock is off by more than a minute.
    #[error("the evidence comes from the future")]
    TooEarly,
    /// Too old to count.
    #[error("the evidence is too old")]
    Expired,
    /// Counted before.
    #[error("the evidence was counted before")]
    Replayed,
    /// Somebody's word about itself.
    #[error("a peer cannot speak for itself")]
    SelfPraise,
    /// A report that nothing backs, or that other peers' receipts back.
    #[error("a report without receipts of its own")]
    NoReceipts,
    /// A receipt that another node must count.
    #[error("the receipt is not this node's")]
    NotOurs,
    /// The two records prove nothing.
    #[error("the records do not contradict each other")]
    NoProof,
    /// The source brings more than is read of one.
    #[error("the source exceeds its rate")]
    RateLimited,
    /// The source brings more than any honest one.
    #[error("the source floods")]
    Flood,
    /// A proof against a peer that is no relay and that this node has nothing to do with.
    #[error("the proof is about a stranger")]
    Stranger,
    /// No room.
    #[error("there is no room for more")]
    Full,
    /// From a peer that is banned.
    #[error("the source is banned")]
    Banned,
}

impl Reject {
    /// Under which reason it is counted.
    pub fn drop_reason(self) -> DropReason {
        match self {
            Self::Malformed => DropReason::Malformed,
            Self::UnknownVersion => DropReason::UnknownVersion,
            Self::BadSignature => DropReason::BadMac,
            Self::TooEarly => DropReason::WrongEpoch,
            Self::Expired => DropReason::Expired,
            Self::Replayed => DropReason::Replayed,
            Self::SelfPraise | Self::NoReceipts | Self::NotOurs | Self::NoProof | Self::Stranger => {
                DropReason::BadPayload
            }
            Self::RateLimited | Self::Flood | Self::Banned => DropReason::RateLimited,
            Self::Full => DropReason::QueueFull,
        }
    }

    /// What it weighs as evidence against the peer that sent it: what no honest peer sends or passes on weighs 1, a
    /// flood little for each message, and what may be bad luck (clocks, another version, arriving twice) nothing.
    pub fn weight(self) -> f64 {
        match self {
            Self::Malformed | Self::BadSignature | Self::SelfPraise | Self::NoReceipts | Self::NoProof => 1.0,
            Self::Flood => 1.0 / 16.0,
            Self::RateLimited
            | Self::UnknownVersion
            | Self::TooEarly
            | Self::Expired
            | Self::Replayed
            | Self::NotOurs
            | Self::Stranger
            | Self::Full
            | Self::Banned => 0.0,
        }
    }
}

impl From<RecordError> for Reject {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::WrongKind(kind, version)
                if [DEAL, RECEIPT, REPORT].iter().any(|known| known.number == kind && known.version != version) =>
            {
                Self::UnknownVersion
            }
            RecordError::BadSignature => Self::BadSignature,
            RecordError::TooEarly => Self::TooEarly,
            RecordError::Expired => Self::Expired,
            RecordError::Malformed | RecordError::WrongKind(..) | RecordError::TooLarge | RecordError::BadBody => {
                Self::Malformed
            }
        }
    }
}
