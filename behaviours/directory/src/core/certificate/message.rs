//! What nodes tell each other while a set is certified. All of it is gossip: one message, every node.

use super::{
    Reject, Statement,
    ballot::{Ballot, DoubleSign},
    quorum::{self, Quorum},
};

/// The longest message.
pub const MAX_LEN: usize = 1 + quorum::MAX_LEN;

/// A message as it came: nothing believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A statement and its proposer's vote for it.
    Proposal(Statement, Ballot),
    /// Another seat's vote, or a commit.
    Ballot(Ballot),
    /// Votes or commits of more than two thirds: what was prepared, or the certificate.
    Quorum(Quorum),
    /// A seat signed twice.
    DoubleSign(DoubleSign),
}

impl Message {
    /// As bytes: a byte for the kind, and the content.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Proposal(statement, vote) => [&[1][..], &statement.to_bytes(), &vote.to_bytes()].concat(),
            Self::Ballot(ballot) => [&[2][..], &ballot.to_bytes()].concat(),
            Self::Quorum(quorum) => [&[3][..], &quorum.to_bytes()].concat(),
            Self::DoubleSign(proof) => [&[4][..], &proof.to_bytes()].concat(),
        }
    }

    /// From bytes, all of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > MAX_LEN {
            return Err(Reject::Malformed);
        }
        let (kind, mut rest) = bytes.split_first().ok_or(Reject::Malformed)?;
        let message = match kind {
            1 => Self::Proposal(Statement::take(&mut rest)?, Ballot::take(&mut rest)?),
            2 => Self::Ballot(Ballot::take(&mut rest)?),
            3 => Self::Quorum(Quorum::take(&mut rest)?),
            4 => return DoubleSign::from_bytes(rest).map(Self::DoubleSign),
            _ => return Err(Reject::Malformed),
        };
        if rest.is_empty() { Ok(message) } else { Err(Reject::Malformed) }
    }
}
