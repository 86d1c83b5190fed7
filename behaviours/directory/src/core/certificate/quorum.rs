//! Ballots of more than two thirds of the weight for one statement in one round. Of votes it shows that the statement
//! may be committed to (a *prepared* statement); of commits it is the *certificate*.

use std::cmp::Reverse;

use fog_base::NetworkId;

use super::{
    Hash, Reject, Statement,
    ballot::{Phase, Round, VerifiedBallot, verify_signature},
    chain::Tip,
    electorate::{Electorate, MAX_SEATS},
    take,
};

const HEADER_LEN: usize = 1 + Round::LEN + Statement::LEN + 2;
/// The longest: of the largest electorate, as many seats as more than two thirds of the weight can need.
pub const MAX_LEN: usize = HEADER_LEN + MAX_SEATS / 8 + 64 * (MAX_SEATS * 2 / 3 + 1);

/// Signatures as they came: nothing believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// Votes or commits.
    pub phase: Phase,
    /// In which round they were signed.
    pub round: Round,
    /// For what.
    pub statement: Statement,
    /// By rank: the signature of each seat, or none.
    pub signatures: Vec<Option<[u8; 64]>>,
}

impl Quorum {
    /// From ballots for `statement` in one phase and round, by rank. Takes the heaviest seats, so that no certificate
    /// is longer than it must be; `None` if all do not suffice.
    pub fn assemble<'a>(
        (phase, round, statement): (Phase, Round, Statement),
        electorate: &Electorate,
        ballots: impl Iterator<Item = (u16, &'a VerifiedBallot)>,
    ) -> Option<VerifiedQuorum> {
        let mut ballots: Vec<_> = ballots.collect();
        ballots.sort_by_key(|(rank, _)| (Reverse(electorate.weight(*rank)), *rank));
        let mut signatures = vec![None; electorate.seats().len()];
        let mut weight = 0;
        for (rank, ballot) in ballots {
            *signatures.get_mut(usize::from(rank))? = Some(ballot.ballot().signature);
            weight += u128::from(electorate.weight(rank));
            if electorate.is_quorum(weight) {
                return Some(VerifiedQuorum(Self { phase, round, statement, signatures }));
            }
        }
        None
    }

    /// Checks it against the last certified set, whose electorate must have signed it: cheap checks first.
    pub fn verify(self, network: &NetworkId, tip: &Tip) -> Result<VerifiedQuorum, Reject> {
        let Self { phase, round, statement, signatures } = &self;
        let electorate = tip.electorate();
        if statement.previous != tip.hash() {
            return Err(Reject::OtherHeight);
        }
        if statement.epoch <= tip.statement().epoch || round.epoch < statement.epoch {
            return Err(Reject::WrongEpoch);
        }
        if signatures.len() != electorate.seats().len() {
            return Err(Reject::Malformed);
        }
        let signed = || electorate.seats().iter().zip(signatures).filter_map(|(seat, s)| Some((seat, s.as_ref()?)));
        if !electorate.is_quorum(signed().map(|(seat, _)| u128::from(seat.weight)).sum()) {
            return Err(Reject::TooLittleWeight);
        }
        let hash = statement.hash(network);
        for (seat, signature) in signed() {
            verify_signature((*phase, *round, &hash), network, seat.node, signature)?;
        }
        Ok(VerifiedQuorum(self))
    }

    /// As bytes: phase, round, statement, number of seats, a bit for each seat, the signatures.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.phase.to_byte()];
        bytes.extend_from_slice(&self.round.to_bytes());
        bytes.extend_from_slice(&self.statement.to_bytes());
        // An electorate has at most 360 seats; a longer row would be refused by every reader.
        bytes.extend_from_slice(&u16::try_from(self.signatures.len()).unwrap_or(u16::MAX).to_be_bytes());
        let bits =
            |chunk: &[Option<_>]| chunk.iter().rev().fold(0u8, |byte, seat| byte << 1 | u8::from(seat.is_some()));
        bytes.extend(self.signatures.chunks(8).map(bits));
        bytes.extend(self.signatures.iter().flatten().flatten());
        bytes
    }

    /// From bytes, all of them.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > MAX_LEN {
            return Err(Reject::Malformed);
        }
        let quorum = Self::take(&mut bytes)?;
        if bytes.is_empty() { Ok(quorum) } else { Err(Reject::Malformed) }
    }

    /// Takes it off the front of `rest`.
    pub(super) fn take(rest: &mut &[u8]) -> Result<Self, Reject> {
        let (phase, round, statement) = (Phase::take(rest)?, Round::take(rest)?, Statement::take(rest)?);
        let seats = usize::from(u16::from_be_bytes(take(rest)?));
        if seats == 0 || seats > MAX_SEATS {
            return Err(Reject::Malformed);
        }
        let (bitmap, tail) = rest.split_at_checked(seats.div_ceil(8)).ok_or(Reject::Malformed)?;
        *rest = tail;
        // Bits beyond the last seat would give one certificate many encodings.
        let is_set = |seat: usize| bitmap.get(seat / 8).is_some_and(|byte| byte >> (seat % 8) & 1 == 1);
        if (seats..bitmap.len() * 8).any(is_set) {
            return Err(Reject::Malformed);
        }
        let signature = |seat| if is_set(seat) { take(rest).map(Some) } else { Ok(None) };
        let signatures = (0..seats).map(signature).collect::<Result<_, _>>()?;
        Ok(Self { phase, round, statement, signatures })
    }
}

/// A quorum whose signatures and weight were right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedQuorum(Quorum);

impl VerifiedQuorum {
    /// The signatures and what they are for.
    pub fn quorum(&self) -> &Quorum {
        &self.0
    }

    /// In which round it was signed.
    pub fn round(&self) -> Round {
        self.0.round
    }

    /// What it is for.
    pub fn statement(&self) -> &Statement {
        &self.0.statement
    }

    /// Names what it is for.
    pub fn hash(&self, network: &NetworkId) -> Hash {
        self.0.statement.hash(network)
    }
}
