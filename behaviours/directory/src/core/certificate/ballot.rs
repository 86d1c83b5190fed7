//! One seat's signature in one round, and the proof that a seat signed two.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use fog_base::{Epoch, NetworkId, NodeId};

use super::{Hash, Reject, electorate::ATTEMPTS, take};

const VOTE_LABEL: &[u8] = b"fog snapshot vote v1\0";
const COMMIT_LABEL: &[u8] = b"fog snapshot commit v1\0";

/// One try to certify: each epoch has [`ATTEMPTS`] of them. Rounds are ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round {
    /// The epoch whose set is sought; the round happens in the epoch before it.
    pub epoch: Epoch,
    /// Which try, below [`ATTEMPTS`].
    pub attempt: u8,
}

impl Round {
    /// Before all rounds: nothing is signed in it.
    pub const NEVER: Self = Self { epoch: Epoch(0), attempt: 0 };
    /// The length of its bytes.
    pub const LEN: usize = 5;

    /// As bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.epoch.0.to_be_bytes();
        [a, b, c, d, self.attempt]
    }

    /// Takes it off the front of `rest`.
    pub(super) fn take(rest: &mut &[u8]) -> Result<Self, Reject> {
        let (epoch, [attempt]) = (Epoch(u32::from_be_bytes(take(rest)?)), take(rest)?);
        if attempt < ATTEMPTS { Ok(Self { epoch, attempt }) } else { Err(Reject::Malformed) }
    }
}

/// What a signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// "I hold this set and approve of it."
    Vote,
    /// "I saw votes of more than two thirds for it, and am bound by that."
    Commit,
}

impl Phase {
    /// As a byte.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Vote => 1,
            Self::Commit => 2,
        }
    }

    /// Takes it off the front of `rest`.
    pub(super) fn take(rest: &mut &[u8]) -> Result<Self, Reject> {
        match take(rest)? {
            [1] => Ok(Self::Vote),
            [2] => Ok(Self::Commit),
            _ => Err(Reject::Malformed),
        }
    }
}

/// The bytes that are signed.
fn signed_bytes(phase: Phase, network: &NetworkId, round: Round, statement: &Hash) -> Vec<u8> {
    let label = match phase {
        Phase::Vote => VOTE_LABEL,
        Phase::Commit => COMMIT_LABEL,
    };
    [label, &network.0, &round.to_bytes(), statement].concat()
}

/// Verifies strictly: RFC 8032 with canonical `s` and no small-order keys.
pub(super) fn verify_signature(
    (phase, round, statement): (Phase, Round, &Hash),
    network: &NetworkId,
    signer: NodeId,
    signature: &[u8; 64],
) -> Result<(), Reject> {
    let key = VerifyingKey::from_bytes(&signer.0).map_err(|_| Reject::BadSignature)?;
    key.verify_strict(&signed_bytes(phase, network, round, statement), &Signature::from_bytes(signature))
        .map_err(|_| Reject::BadSignature)
}

/// A ballot as it came: nothing believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ballot {
    /// Vote or commit.
    pub phase: Phase,
    /// In which round.
    pub round: Round,
    /// The hash of the statement.
    pub statement: Hash,
    /// Whose.
    pub signer: NodeId,
    /// Ed25519.
    pub signature: [u8; 64],
}

impl Ballot {
    /// The length of its bytes.
    pub const LEN: usize = 1 + Round::LEN + 32 + 32 + 64;

    /// Signs.
    pub fn sign(phase: Phase, round: Round, statement: Hash, network: &NetworkId, key: &SigningKey) -> VerifiedBallot {
        let signature = key.sign(&signed_bytes(phase, network, round, &statement)).to_bytes();
        VerifiedBallot(Self { phase, round, statement, signer: NodeId(key.verifying_key().to_bytes()), signature })
    }

    /// Checks the signature.
    pub fn verify(self, network: &NetworkId) -> Result<VerifiedBallot, Reject> {
        verify_signature((self.phase, self.round, &self.statement), network, self.signer, &self.signature)?;
        Ok(VerifiedBallot(self))
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (phase, round) = ([self.phase.to_byte()], self.round.to_bytes());
        [&phase[..], &round, &self.statement, &self.signer.0, &self.signature].concat()
    }

    /// Takes it off the front of `rest`.
    pub(super) fn take(rest: &mut &[u8]) -> Result<Self, Reject> {
        Ok(Self {
            phase: Phase::take(rest)?,
            round: Round::take(rest)?,
            statement: take(rest)?,
            signer: NodeId(take(rest)?),
            signature: take(rest)?,
        })
    }
}

/// A ballot whose signature verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedBallot(Ballot);

impl VerifiedBallot {
    /// What it says.
    pub fn ballot(&self) -> &Ballot {
        &self.0
    }

    /// Whether one seat signed both although it may sign one of them only.
    pub fn contradicts(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        (a.phase, a.round, a.signer) == (b.phase, b.round, b.signer) && a.statement != b.statement
    }
}

/// Two ballots of one signer, phase and round for two statements. Anybody can check it, without a chain or a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoubleSign([Ballot; 2]);

impl DoubleSign {
    /// The length of its bytes.
    pub const LEN: usize = 2 * Ballot::LEN;

    /// If the two contradict each other.
    pub fn new(a: &VerifiedBallot, b: &VerifiedBallot) -> Option<Self> {
        a.contradicts(b).then(|| Self([a.0.clone(), b.0.clone()]))
    }

    /// The epoch of the first ballot's round, before anything is verified.
    pub fn epoch(&self) -> Epoch {
        let [first, _] = &self.0;
        first.round.epoch
    }

    /// Whom it speaks of, before anything is verified.
    pub fn accused(&self) -> Option<NodeId> {
        let [a, b] = &self.0;
        (a.signer == b.signer).then_some(a.signer)
    }

    /// Who did it, if it is a proof.
    pub fn verify(&self, network: &NetworkId) -> Result<NodeId, Reject> {
        let [a, b] = self.0.clone().map(|ballot| ballot.verify(network));
        let (a, b) = (a?, b?);
        if a.contradicts(&b) { Ok(a.0.signer) } else { Err(Reject::Malformed) }
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(Ballot::to_bytes).collect()
    }

    /// From bytes.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, Reject> {
        let proof = Self([Ballot::take(&mut bytes)?, Ballot::take(&mut bytes)?]);
        if bytes.is_empty() { Ok(proof) } else { Err(Reject::Malformed) }
    }
}
