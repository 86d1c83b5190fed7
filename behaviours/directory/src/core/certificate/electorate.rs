//! Who certifies: the seats of one certified set with their weights, in the order of their tickets.

use std::collections::BTreeMap;

use fog_base::{Epoch, Network, NodeId};

use super::{Hash, ballot::Round};

const LABEL: &str = "fog electorate v1";
/// The most seats. The lottery seats 240 on average; with as many as this, a certificate still fits a gossip message of
/// 16 KiB.
pub const MAX_SEATS: usize = 360;
const ENTRY_LEN: usize = 40;
/// The longest encoding.
pub const MAX_LEN: usize = MAX_SEATS * ENTRY_LEN;
/// Proposers of one epoch, one after the other.
pub const ATTEMPTS: u8 = 4;

/// A seat of the electorate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elector {
    /// The relay.
    pub node: NodeId,
    /// Its weight.
    pub weight: u64,
}

/// Why seats make no electorate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElectorateError {
    /// Nobody could certify anything.
    #[error("an electorate has at least one seat")]
    Empty,
    /// More than [`MAX_SEATS`].
    #[error("an electorate has at most 360 seats")]
    TooMany,
    /// One relay with two seats would count twice.
    #[error("a relay has at most one seat")]
    Twice,
    /// A seat without weight.
    #[error("each seat has a weight above zero")]
    NoWeight,
    /// The sum does not fit: nothing is cut or wrapped, the seats are refused.
    #[error("the weights exceed 64 bits together")]
    Overflow,
    /// Not a whole number of entries.
    #[error("not the encoding of an electorate")]
    Malformed,
}

/// The seats that certify what follows one certified set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Electorate {
    /// By rank: the lowest ticket first.
    seats: Vec<Elector>,
    by_node: BTreeMap<NodeId, u16>,
    total: u64,
}

impl Electorate {
    /// From seats in the order of their tickets, the lowest first.
    pub fn new(seats: Vec<Elector>) -> Result<Self, ElectorateError> {
        if seats.is_empty() {
            return Err(ElectorateError::Empty);
        }
        if seats.len() > MAX_SEATS {
            return Err(ElectorateError::TooMany);
        }
        if seats.iter().any(|seat| seat.weight == 0) {
            return Err(ElectorateError::NoWeight);
        }
        let total = seats.iter().try_fold(0u64, |sum, seat| sum.checked_add(seat.weight));
        let by_node: BTreeMap<_, _> = seats.iter().map(|seat| seat.node).zip(0..).collect();
        if by_node.len() != seats.len() {
            return Err(ElectorateError::Twice);
        }
        Ok(Self { total: total.ok_or(ElectorateError::Overflow)?, by_node, seats })
    }

    /// The relays of the network file, sorted by id, weighing their stake. LAN mode has none, and certifies nothing.
    pub fn genesis(network: &Network) -> Result<Self, ElectorateError> {
        let mut seats: Vec<_> =
            network.genesis.iter().map(|(node, stake)| Elector { node: *node, weight: *stake }).collect();
        seats.sort_by_key(|seat| seat.node);
        Self::new(seats)
    }

    /// Names exactly these seats, weights and ranks.
    pub fn commitment(&self) -> Hash {
        blake3::derive_key(LABEL, &self.to_bytes())
    }

    /// 40 bytes for each seat, by rank.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.seats.iter().flat_map(|seat| seat.node.0.into_iter().chain(seat.weight.to_be_bytes())).collect()
    }

    /// From bytes, with everything checked that [`Electorate::new`] checks.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ElectorateError> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
        if !rest.is_empty() {
            return Err(ElectorateError::Malformed);
        }
        if entries.len() > MAX_SEATS {
            return Err(ElectorateError::TooMany);
        }
        let seat = |entry: &[u8; ENTRY_LEN]| {
            let (node, weight) = entry.split_first_chunk::<32>()?;
            Some(Elector { node: NodeId(*node), weight: u64::from_be_bytes(*weight.first_chunk()?) })
        };
        let seats: Option<_> = entries.iter().map(seat).collect();
        Self::new(seats.ok_or(ElectorateError::Malformed)?)
    }

    /// The seats by rank.
    pub fn seats(&self) -> &[Elector] {
        &self.seats
    }

    /// The rank of `node`'s seat.
    pub fn rank(&self, node: NodeId) -> Option<u16> {
        self.by_node.get(&node).copied()
    }

    /// The weight of the seat of this rank, or zero.
    pub fn weight(&self, rank: u16) -> u64 {
        self.seats.get(usize::from(rank)).map_or(0, |seat| seat.weight)
    }

    /// The weight of all seats.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether this weight is more than two thirds of the whole.
    pub fn is_quorum(&self, weight: u128) -> bool {
        weight * 3 > u128::from(self.total) * 2
    }

    /// Who may propose in `round` while the last certified set is that of epoch `since`: the four lowest tickets in the
    /// first epoch after it, the next four in the epoch after that, and so on, around.
    pub fn proposer(&self, since: Epoch, round: Round) -> Option<NodeId> {
        let epochs = u64::from(round.epoch.0.checked_sub(since.0)?.checked_sub(1)?);
        let turn = epochs * u64::from(ATTEMPTS) + u64::from(round.attempt);
        let at = usize::try_from(turn % self.seats.len() as u64).ok()?;
        self.seats.get(at).map(|seat| seat.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(n: u8, weight: u64) -> Elector {
        Elector { node: NodeId([n; 32]), weight }
    }

    #[test]
    fn seats_that_would_falsify_the_count_are_refused() {
        let new = |seats: &[Elector]| Electorate::new(seats.to_vec()).map(|_| ());
        assert_eq!(new(&[]), Err(ElectorateError::Empty));
        assert_eq!(new(&[seat(1, 0)]), Err(ElectorateError::NoWeight));
        assert_eq!(new(&[seat(1, 5), seat(2, 1), seat(1, 5)]), Err(ElectorateError::Twice));
        assert_eq!(new(&[seat(1, u64::MAX), seat(2, 1)]), Err(ElectorateError::Overflow));
        assert_eq!(new(&[seat(1, u64::MAX - 1), seat(2, 1)]), Ok(()));
        assert_eq!(Electorate::genesis(&Network::lan()), Err(ElectorateError::Empty));
        assert_eq!(Electorate::from_bytes(&[1; 41]), Err(ElectorateError::Malformed));
        assert_eq!(Electorate::from_bytes(&vec![1; MAX_LEN + ENTRY_LEN]), Err(ElectorateError::TooMany));
    }

    #[test]
    fn a_quorum_is_more_than_two_thirds_even_at_the_end_of_64_bits() {
        let nine = Electorate::new(vec![seat(1, 3), seat(2, 3), seat(3, 2), seat(4, 1)]).unwrap();
        assert!(!nine.is_quorum(6) && nine.is_quorum(7));
        let huge = Electorate::new(vec![seat(1, u64::MAX)]).unwrap();
        assert!(!huge.is_quorum(u128::from(u64::MAX / 3 * 2)) && huge.is_quorum(u128::from(u64::MAX)));
    }

    #[test]
    fn the_commitment_covers_members_weights_and_ranks_and_bytes_read_back() {
        let sets =
            [[seat(1, 3), seat(2, 4)], [seat(2, 4), seat(1, 3)], [seat(1, 4), seat(2, 3)], [seat(1, 3), seat(3, 4)]];
        let made = sets.map(|seats| Electorate::new(seats.to_vec()).unwrap());
        let mut commitments = made.each_ref().map(Electorate::commitment).to_vec();
        commitments.sort();
        commitments.dedup();
        assert_eq!(commitments.len(), 4);
        for electorate in made {
            assert_eq!(Electorate::from_bytes(&electorate.to_bytes()), Ok(electorate));
        }
    }

    #[test]
    fn every_seat_comes_to_propose_while_nothing_is_certified() {
        let seats: Vec<_> = (1..=6).map(|n| seat(n, 1)).collect();
        let electorate = Electorate::new(seats).unwrap();
        let proposer = |epoch, attempt| electorate.proposer(Epoch(9), Round { epoch: Epoch(epoch), attempt });
        let turns: Vec<_> =
            (10..12).flat_map(|e| (0..4).map(move |a| (e, a))).map(|(e, a)| proposer(e, a).unwrap().0[0]).collect();
        assert_eq!(turns, [1, 2, 3, 4, 5, 6, 1, 2]);
        assert_eq!(proposer(9, 0), None);
    }
}
