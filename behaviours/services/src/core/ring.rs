//! Which relays keep a descriptor.
//!
//! The attack: in a plain Kademlia, twenty ids ground next to a key hide it (the IPFS censorship papers). Here a relay's position is a
//! hash over a beacon that nobody knew when the relay's id had to stand, so an id cannot be made to stand next to a
//! service; it could only be remade for the next period, with no more chance than before.

use fog_base::{NetworkId, NodeId};

use super::{blinding::BlindedKey, period::Period};

const RELAY: &str = "fog services ring relay v1";
const DESCRIPTOR: &str = "fog services ring descriptor v1";
const LAN_BEACON: &str = "fog services lan beacon v1";
/// How many times a descriptor stands in the ring.
pub const REPLICAS: u8 = 2;
/// How many relays keep each of them.
pub const SPREAD: usize = 4;

/// The beacon of a network that certifies nothing.
pub fn lan_beacon(network: &NetworkId) -> [u8; 32] {
    blake3::derive_key(LAN_BEACON, &network.0)
}

/// The directories of one period, by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    network: NetworkId,
    period: Period,
    relays: Vec<([u8; 32], NodeId)>,
}

impl Ring {
    /// From the period's beacon and the relays that may stand in it: directories of the current set that stood before the beacon.
    pub fn new(
        network: NetworkId,
        period: Period,
        beacon: &[u8; 32],
        directories: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        let position = |relay: &NodeId| {
            let mut hasher = blake3::Hasher::new_derive_key(RELAY);
            *hasher.update(&network.0).update(beacon).update(&relay.0).finalize().as_bytes()
        };
        let mut relays: Vec<_> = directories.into_iter().map(|relay| (position(&relay), relay)).collect();
        relays.sort_unstable();
        relays.dedup();
        Self { network, period, relays }
    }

    /// Its period.
    pub fn period(&self) -> Period {
        self.period
    }

    /// How many relays stand in it.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// The relays that keep the descriptor of `key`: eight different ones, or all if there are fewer.
    pub fn directories(&self, key: &BlindedKey) -> Vec<NodeId> {
        let mut chosen = Vec::with_capacity(usize::from(REPLICAS) * SPREAD);
        for replica in 1..=REPLICAS {
            let mut hasher = blake3::Hasher::new_derive_key(DESCRIPTOR);
            hasher.update(&self.network.0).update(key.as_bytes()).update(&[replica]);
            let position = *hasher.update(&self.period.0.to_be_bytes()).finalize().as_bytes();
            let start = self.relays.partition_point(|(relay, _)| *relay < position);
            let (before, after) = self.relays.split_at_checked(start).unwrap_or_default();
            let clockwise = after.iter().chain(before).map(|(_, relay)| *relay);
            let free: Vec<_> = clockwise.filter(|relay| !chosen.contains(relay)).take(SPREAD).collect();
            chosen.extend(free);
        }
        chosen
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
