//! What a seat must remember across restarts, so that it never signs twice and stays bound by what it committed to.

use fog_base::{Epoch, NetworkId};

use super::{
    Reject,
    ballot::{Phase, Round},
    chain::Tip,
    quorum::{Quorum, VerifiedQuorum},
    take,
};

const VERSION: u8 = 1;

/// A seat's memory. It is on disk before the signature that it speaks of leaves the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The epoch of the certified set after which it last signed; it signs nothing before this one is its tip again.
    pub height: Epoch,
    /// The last round in which it voted.
    pub voted: Round,
    /// The last round in which it committed.
    pub committed: Round,
    /// The votes on which it last committed.
    pub lock: Option<Quorum>,
}

impl Record {
    /// Of an identity that never signed.
    pub const NEW: Self = Self { height: Epoch(0), voted: Round::NEVER, committed: Round::NEVER, lock: None };

    /// For an identity that may have signed and whose record is gone: it signs again after a certified set of an epoch
    /// that was still to come. Whatever it signed before belongs to an earlier place in the chain.
    pub fn lost(now: Epoch) -> Self {
        Self { height: now.next(), voted: Round { epoch: now.next(), attempt: u8::MAX }, ..Self::NEW }
    }

    /// The lock, if it binds what follows `tip`. The store is our own, but a quorum becomes a verified one in one way
    /// only.
    pub(super) fn verified_lock(&self, network: &NetworkId, tip: &Tip) -> Option<VerifiedQuorum> {
        self.lock.clone().filter(|lock| lock.phase == Phase::Vote)?.verify(network, tip).ok()
    }

    /// As bytes: version, height, both rounds, the lock if there is one.
    pub fn to_bytes(&self) -> Vec<u8> {
        let lock = self.lock.as_ref().map(Quorum::to_bytes).unwrap_or_default();
        let height = self.height.0.to_be_bytes();
        [&[VERSION][..], &height, &self.voted.to_bytes(), &self.committed.to_bytes(), &lock].concat()
    }

    /// From bytes. A record that cannot be read is a lost one.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, Reject> {
        let rest = &mut bytes;
        if take(rest)? != [VERSION] {
            return Err(Reject::Malformed);
        }
        let height = Epoch(u32::from_be_bytes(take(rest)?));
        let round = |rest: &mut &[u8]| -> Result<Round, Reject> {
            let (epoch, [attempt]) = (Epoch(u32::from_be_bytes(take(rest)?)), take(rest)?);
            Ok(Round { epoch, attempt })
        };
        let (voted, committed) = (round(rest)?, round(rest)?);
        let lock = if rest.is_empty() { None } else { Some(Quorum::from_bytes(rest)?) };
        Ok(Self { height, voted, committed, lock })
    }
}
