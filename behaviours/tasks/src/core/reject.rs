//! Why something is not taken.

use fog_base::{DropReason, record::RecordError};

use super::{terms::TermsError, work::WorkError};

/// Why a message, an offer or a submission is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not the layout, or a field out of its range.
    #[error("not a valid message")]
    Malformed,
    /// A signature does not verify on this network.
    #[error("a signature does not verify")]
    BadSignature,
    /// From the future: a clock is off by more than a minute.
    #[error("the record comes from the future")]
    TooEarly,
    /// Too old.
    #[error("the record has expired")]
    Expired,
    /// The sender is not the party that the message is about.
    #[error("the sender is no party to it")]
    Stranger,
    /// An execution that is not known, or not any more.
    #[error("no such execution")]
    UnknownExecution,
    /// No such task, or it has ended.
    #[error("no such task")]
    UnknownTask,
    /// Known already; it changed nothing.
    #[error("it was there before")]
    Repeated,
    /// It does not follow from what was agreed.
    #[error("it contradicts what was agreed")]
    Contradicts,
    /// The result shown is not the one that was committed to.
    #[error("the result is not the one committed to")]
    BadReveal,
    /// A voucher of another sum than the account's.
    #[error("the voucher's sum is not the account's")]
    BadVoucher,
    /// No room. Try again later.
    #[error("there is no room for more tasks now")]
    Busy,
    /// A work that no worker could run.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// Terms that cannot be met.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// A content of the work whose bytes are nowhere, or more of them inline than may be.
    #[error("the bytes of a content are missing, not its own, or too many to go inline")]
    Sources,
}

impl Reject {
    /// Under which reason it is counted.
    pub fn drop_reason(self) -> DropReason {
        match self {
            Self::Malformed | Self::Work(_) | Self::Terms(_) | Self::Sources => DropReason::Malformed,
            Self::BadSignature => DropReason::BadMac,
            Self::TooEarly => DropReason::WrongEpoch,
            Self::Expired => DropReason::Expired,
            Self::Repeated => DropReason::Replayed,
            Self::Stranger | Self::UnknownExecution | Self::UnknownTask => DropReason::NoRoute,
            Self::Contradicts | Self::BadReveal | Self::BadVoucher => DropReason::BadPayload,
            Self::Busy => DropReason::QueueFull,
        }
    }

    /// What it weighs as evidence against the peer that sent it: what no honest peer sends weighs 1; what may be bad luck (clocks, a
    /// restart, a message that arrives twice or late) nothing.
    pub fn weight(self) -> f64 {
        match self {
            Self::Malformed | Self::BadSignature | Self::BadReveal | Self::BadVoucher | Self::Contradicts => 1.0,
            _ => 0.0,
        }
    }
}

impl From<RecordError> for Reject {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::BadSignature => Self::BadSignature,
            RecordError::TooEarly => Self::TooEarly,
            RecordError::Expired => Self::Expired,
            RecordError::Malformed | RecordError::WrongKind(..) | RecordError::TooLarge | RecordError::BadBody => {
                Self::Malformed
            }
        }
    }
}
