//! The certified set: by which every node has one set of relays for an epoch, although nobody is in charge. README,
//! "Certified snapshot".
//!
//! A set is named by its Merkle root (`merkle.rs`) in a [`Statement`]; the seats of the last certified set
//! (`electorate.rs`) vote for one and commit to it (`ballot.rs`); commits of more than two thirds of their weight are
//! its certificate (`quorum.rs`), and certificates are a chain from the network file (`chain.rs`). `certifier.rs` is a
//! node's part in it, at the times of `timetable.rs`; `judgement.rs` is what a set is checked for before it is voted
//! for.

pub mod ballot;
pub mod certifier;
pub mod chain;
pub mod electorate;
pub mod judgement;
pub mod merkle;
pub mod message;
pub mod named_set;
pub mod quorum;
pub mod record;
pub mod state;
pub mod statement;
pub mod succession;
pub mod timetable;

use fog_base::DropReason;

pub use statement::Statement;

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// Why a message, a certificate or a chain is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not the layout.
    #[error("not a valid message")]
    Malformed,
    /// It continues another certificate than our last one: the sender, or this node, is behind.
    #[error("it does not continue the last certificate that is known here")]
    OtherHeight,
    /// Of a round that is over for long, or has not begun.
    #[error("not a ballot of this time")]
    WrongRound,
    /// The signer has no seat in the electorate that is known here.
    #[error("the signer has no seat")]
    NotSeated,
    /// Another relay proposes in that round.
    #[error("it is not this relay's turn to propose")]
    NotProposer,
    /// A signature does not verify on this network.
    #[error("a signature does not verify")]
    BadSignature,
    /// Two thirds of the weight or less.
    #[error("the signatures have two thirds of the weight or less")]
    TooLittleWeight,
    /// The seats are not those that the certificate names.
    #[error("the electorate is not the one that the certificate names")]
    WrongElectorate,
    /// The epoch does not lie after the one before it in the chain.
    #[error("the epochs of a chain must grow")]
    WrongEpoch,
    /// The signer signed something else in that round: that is the proof, and it counts once.
    #[error("the signer signed twice in one round")]
    SignedTwice,
    /// More proposals at once than there is room for.
    #[error("no room for another proposal")]
    Full,
}

impl Reject {
    /// Under which reason it is counted.
    pub fn drop_reason(self) -> DropReason {
        match self {
            Self::Malformed => DropReason::Malformed,
            Self::OtherHeight | Self::WrongRound | Self::WrongEpoch => DropReason::WrongEpoch,
            Self::BadSignature => DropReason::BadMac,
            Self::NotSeated | Self::NotProposer | Self::TooLittleWeight | Self::WrongElectorate => {
                DropReason::BadPayload
            }
            Self::SignedTwice => DropReason::Replayed,
            Self::Full => DropReason::QueueFull,
        }
    }

    /// Whether no honest peer would have passed it on. A peer that is ahead or behind is honest: what depends on our
    /// own height is not among these.
    pub fn is_misbehaviour(self) -> bool {
        matches!(self, Self::Malformed | Self::NotProposer | Self::BadSignature | Self::TooLittleWeight)
    }
}

/// The first `N` bytes, which are taken off.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Reject> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(Reject::Malformed)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod certificate_tests;
