//! What the set after a certified one follows from, besides the set itself and its seats.

use std::collections::BTreeSet;

use fog_base::NodeId;

use super::{Hash, Reject, take};
use crate::core::standing::Standings;

const LABEL: &str = "fog snapshot state v1";
/// The longest encoding that is read: 10,000 newcomers and as many standings are less.
pub const MAX_LEN: usize = 1024 * 1024;

/// A certified set's state. The statement has its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What the tickets of the set were made over.
    pub beacon: [u8; 32],
    /// Relays with a ticket in the set that had none, or another key, in the certified set before: they may take part in the lottery
    /// after the next one.
    pub newcomers: BTreeSet<NodeId>,
    /// The standings that the weights of the set were computed from.
    pub standings: Standings,
}

impl State {
    /// As bytes: the beacon, how many newcomers (u32) and which, sorted, the standings.
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = u32::try_from(self.newcomers.len()).unwrap_or(u32::MAX).to_be_bytes();
        let newcomers = self.newcomers.iter().flat_map(|relay| relay.0);
        self.beacon.into_iter().chain(count).chain(newcomers).chain(self.standings.to_bytes()).collect()
    }

    /// From bytes, all of them; each state has one encoding.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > MAX_LEN {
            return Err(Reject::Malformed);
        }
        let rest = &mut bytes;
        let (beacon, count) = (take(rest)?, u32::from_be_bytes(take(rest)?));
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(32)).ok_or(Reject::Malformed)?;
        let (ids, standings) = rest.split_at_checked(length).ok_or(Reject::Malformed)?;
        let (ids, _) = ids.as_chunks::<32>();
        if !ids.is_sorted_by(|a, b| a < b) {
            return Err(Reject::Malformed);
        }
        let standings = Standings::from_bytes(standings).map_err(|_| Reject::Malformed)?;
        Ok(Self { beacon, newcomers: ids.iter().map(|id| NodeId(*id)).collect(), standings })
    }

    /// What the statement names.
    pub fn hash(&self) -> Hash {
        Self::hash_of(&self.to_bytes())
    }

    /// The hash of a state that came as bytes.
    pub fn hash_of(bytes: &[u8]) -> Hash {
        blake3::derive_key(LABEL, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back_and_has_one_encoding() {
        let standings = Standings::from_bytes(&[&[4; 32][..], &100u32.to_be_bytes()].concat()).unwrap();
        let newcomers = [1, 2, 3].map(|n| NodeId([n; 32])).into();
        let state = State { beacon: [9; 32], newcomers, standings };
        let bytes = state.to_bytes();
        assert_eq!(bytes.len(), 32 + 4 + 3 * 32 + 36);
        assert_eq!(State::from_bytes(&bytes), Ok(state.clone()));
        assert_eq!((state.hash(), State::hash_of(&bytes)), (state.hash(), state.hash()));
        for cut in [0, 31, 35, 36, 67, bytes.len() - 1] {
            assert!(State::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut twice = bytes.clone();
        twice.copy_within(36..68, 68);
        assert_eq!(State::from_bytes(&twice), Err(Reject::Malformed));
        let mut many = bytes;
        many[32] = 0xff;
        assert_eq!(State::from_bytes(&many), Err(Reject::Malformed));
    }
}
