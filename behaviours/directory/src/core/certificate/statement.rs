//! What is certified: that the set of an epoch is this one, after that one.

use fog_base::{Epoch, NetworkId};

use super::{Hash, Reject, take};

const LABEL: &str = "fog snapshot statement v1";

/// One link's content: the set of an epoch, and the one that it follows. The certificate's signatures are not part of
/// it, because two nodes may hold different signatures for one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statement {
    /// Whose set it is.
    pub epoch: Epoch,
    /// The hash of the statement before it, whose electorate certifies this one.
    pub previous: Hash,
    /// The Merkle root of the set.
    pub root: Hash,
    /// How many descriptors the set has.
    pub relays: u32,
    /// The commitment to the seats of the set: they certify the next one.
    pub electorate: Hash,
    /// The hash of what the next set follows from besides: beacon, newcomers, standings.
    pub state: Hash,
}

impl Statement {
    /// The length of its bytes.
    pub const LEN: usize = 136;

    /// What a chain begins with: no set, and the network file's relays as electorate.
    pub fn genesis(electorate: Hash) -> Self {
        Self { epoch: Epoch(0), previous: [0; 32], root: [0; 32], relays: 0, electorate, state: [0; 32] }
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (epoch, relays) = (self.epoch.0.to_be_bytes(), self.relays.to_be_bytes());
        [&epoch[..], &self.previous, &self.root, &relays, &self.electorate, &self.state].concat()
    }

    /// Takes it off the front of `rest`.
    pub(super) fn take(rest: &mut &[u8]) -> Result<Self, Reject> {
        Ok(Self {
            epoch: Epoch(u32::from_be_bytes(take(rest)?)),
            previous: take(rest)?,
            root: take(rest)?,
            relays: u32::from_be_bytes(take(rest)?),
            electorate: take(rest)?,
            state: take(rest)?,
        })
    }

    /// Names it, on this network only.
    pub fn hash(&self, network: &NetworkId) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(LABEL);
        *hasher.update(&network.0).update(&self.to_bytes()).finalize().as_bytes()
    }
}
