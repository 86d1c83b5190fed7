//! From the network file to the present, one certificate after the other, without the sets.

use std::sync::Arc;

use fog_base::{Epoch, Network, NetworkId};

use super::{
    Hash, Reject, Statement,
    ballot::Phase,
    electorate::{self, Electorate, ElectorateError},
    quorum::{self, Quorum, VerifiedQuorum},
    take,
};

/// The longest link.
pub const MAX_LINK_LEN: usize = 4 + quorum::MAX_LEN + electorate::MAX_LEN;
/// For how many epochs after its own a certified set still serves, when nothing newer was certified.
pub const OVERTIME: u32 = 2;

/// The last certified statement that is known, and the seats that certify what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    statement: Statement,
    hash: Hash,
    electorate: Arc<Electorate>,
}

/// Whether paths may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The set of this epoch is certified.
    Certified,
    /// It is not; the last certified set serves, so many epochs beyond its own.
    Overtime(u32),
    /// The last certified set is too old: sending stops.
    Stopped {
        /// Whose set it was.
        last: Epoch,
    },
}

impl Tip {
    /// Where the chain of a network begins. An error where the network file names no relays: nothing is ever certified
    /// there.
    pub fn genesis(network: &Network) -> Result<Self, ElectorateError> {
        let electorate = Electorate::genesis(network)?;
        let statement = Statement::genesis(electorate.commitment());
        Ok(Self { hash: statement.hash(&network.id), statement, electorate: Arc::new(electorate) })
    }

    /// Out of this node's own store, where only what was verified is kept.
    pub fn from_store(network: &NetworkId, statement: Statement, electorate: Electorate) -> Result<Self, Reject> {
        Self::after(network, statement, electorate)
    }

    /// The tip that a certificate makes.
    pub(super) fn after(network: &NetworkId, statement: Statement, electorate: Electorate) -> Result<Self, Reject> {
        if electorate.commitment() != statement.electorate {
            return Err(Reject::WrongElectorate);
        }
        Ok(Self { hash: statement.hash(network), statement, electorate: Arc::new(electorate) })
    }

    /// The statement.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The hash of the statement.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Who certifies the next one.
    pub fn electorate(&self) -> &Electorate {
        &self.electorate
    }

    /// Whether its set may serve in `epoch`.
    pub fn standing(&self, epoch: Epoch) -> Standing {
        match epoch.0.saturating_sub(self.statement.epoch.0) {
            0 => Standing::Certified,
            late if late <= OVERTIME && self.statement.epoch != Epoch(0) => Standing::Overtime(late),
            _ => Standing::Stopped { last: self.statement.epoch },
        }
    }
}

/// What a joiner gets for each certified epoch: the certificate, and the seats to which it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// As it came.
    pub certificate: Quorum,
    /// The seats of the certified set.
    pub electorate: Electorate,
}

impl Link {
    /// As bytes: the length of the certificate, the certificate, the electorate.
    pub fn to_bytes(&self) -> Vec<u8> {
        let certificate = self.certificate.to_bytes();
        let length = u32::try_from(certificate.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&length[..], &certificate, &self.electorate.to_bytes()].concat()
    }

    /// From bytes, all of them.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > MAX_LINK_LEN {
            return Err(Reject::Malformed);
        }
        let length = u32::from_be_bytes(take(&mut bytes)?) as usize;
        let (certificate, electorate) = bytes.split_at_checked(length).ok_or(Reject::Malformed)?;
        Ok(Self {
            certificate: Quorum::from_bytes(certificate)?,
            electorate: Electorate::from_bytes(electorate).map_err(|_| Reject::Malformed)?,
        })
    }
}

/// Verifies that `certificate` continues `tip`.
pub fn verify_certificate(network: &NetworkId, tip: &Tip, certificate: Quorum) -> Result<VerifiedQuorum, Reject> {
    match certificate.phase {
        Phase::Commit => certificate.verify(network, tip),
        Phase::Vote => Err(Reject::Malformed),
    }
}

/// Verifies one link and steps over it.
pub fn verify_link(network: &NetworkId, tip: &Tip, link: Link) -> Result<Tip, Reject> {
    // Before the signatures, because it is cheap.
    let next = Tip::after(network, link.certificate.statement, link.electorate)?;
    verify_certificate(network, tip, link.certificate)?;
    Ok(next)
}

/// Follows links from `tip` to the last one that is good, from where others may be asked; says why it went no
/// further, if it did not.
pub fn verify_chain(
    network: &NetworkId,
    mut tip: Tip,
    links: impl IntoIterator<Item = Link>,
) -> (Tip, Result<(), Reject>) {
    for link in links {
        match verify_link(network, &tip, link) {
            Ok(next) => tip = next,
            Err(reject) => return (tip, Err(reject)),
        }
    }
    (tip, Ok(()))
}
