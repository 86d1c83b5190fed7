//! The randomness of an epoch, which the lottery's tickets are made over (`lottery.rs`), and whose keys may take part.
//!
//! Each beacon follows from the one before and from the lowest tickets that were seated under it. A ticket is a VRF
//! output: its maker cannot choose it once the key is fixed, only withhold it, at the price of the seat and of two
//! epochs more. Whoever can withhold k tickets that count chooses among 2^k beacons, so only a few count: enough that
//! one of them is honest (README, "What a beacon does not stop"). A ledger, which ends that, can provide the beacon
//! through [`Beacon`].

use std::{collections::BTreeMap, fmt};

use fog_base::{Epoch, NetworkId, NodeId};

/// How many tickets a beacon takes in. That all are an adversary's has the probability 2 · 10^-6 if it holds a third of
/// the weight.
pub const CONTRIBUTORS: usize = 12;

const GENESIS_LABEL: &str = "fog beacon genesis v1";
const NEXT_LABEL: &str = "fog beacon v1";

/// Where beacons come from. All nodes must be given the same.
pub trait Beacon: fmt::Debug + Send + Sync {
    /// The beacon of `epoch`, if it is known yet.
    fn beacon(&self, epoch: Epoch) -> Option<[u8; 32]>;
}

/// The beacon of a network's first epoch.
pub fn genesis(network: &NetworkId) -> [u8; 32] {
    blake3::derive_key(GENESIS_LABEL, &network.0)
}

/// The beacon after `previous`, from the VRF outputs of the relays that were seated under it, in the order of their
/// rank: the first [`CONTRIBUTORS`] count. An epoch without a certified snapshot has no outputs.
pub fn next(previous: &[u8; 32], ranked: impl IntoIterator<Item = [u8; 32]>) -> [u8; 32] {
    let mut outputs: Vec<_> = ranked.into_iter().take(CONTRIBUTORS).collect();
    outputs.sort();
    let mut hasher = blake3::Hasher::new_derive_key(NEXT_LABEL);
    hasher.update(previous);
    for output in &outputs {
        hasher.update(output);
    }
    *hasher.finalize().as_bytes()
}

/// The relays of one certified snapshot, seated or not, that had a valid ticket in it, with their VRF keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roll(BTreeMap<NodeId, [u8; 32]>);

impl FromIterator<(NodeId, [u8; 32])> for Roll {
    fn from_iter<I: IntoIterator<Item = (NodeId, [u8; 32])>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// Whether the VRF key of `relay` may take part in the lottery of an epoch: it stood, for this relay, on the rolls of
/// both snapshots before, so that it was fixed before the beacon could be foreseen. A network's first two epochs have
/// no two snapshots before them: `None` there admits every key.
pub fn is_eligible(relay: &NodeId, key: &[u8; 32], before: [Option<&Roll>; 2]) -> bool {
    before.into_iter().flatten().all(|roll| roll.0.get(relay) == Some(key))
}

/// Beacons as they follow from certified snapshots, from the genesis on. Holds the newest few.
#[derive(Debug, Clone)]
pub struct SnapshotBeacon {
    newest: (Epoch, [u8; 32]),
    previous: Option<(Epoch, [u8; 32])>,
}

impl SnapshotBeacon {
    /// Before any snapshot: `first` is the network's first epoch.
    pub fn new(network: &NetworkId, first: Epoch) -> Self {
        Self { newest: (first, genesis(network)), previous: None }
    }

    /// Goes on where a trusted `beacon` of `epoch` is known.
    pub fn resume(epoch: Epoch, beacon: [u8; 32]) -> Self {
        Self { newest: (epoch, beacon), previous: None }
    }

    /// The newest epoch whose beacon is known.
    pub fn newest(&self) -> Epoch {
        self.newest.0
    }

    /// Takes the VRF outputs that were seated in the newest known epoch, in the order of rank (none if it was not
    /// certified), which fix the beacon of the epoch after it.
    pub fn advance(&mut self, ranked: impl IntoIterator<Item = [u8; 32]>) {
        let (epoch, beacon) = self.newest;
        self.previous = Some(self.newest);
        self.newest = (epoch.next(), next(&beacon, ranked));
    }
}

impl Beacon for SnapshotBeacon {
    fn beacon(&self, epoch: Epoch) -> Option<[u8; 32]> {
        let known = [Some(self.newest), self.previous];
        known.into_iter().flatten().find(|(of, _)| *of == epoch).map(|(_, beacon)| beacon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([4; 32]);

    fn relay(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn a_beacon_depends_on_the_network_the_one_before_and_the_first_twelve_outputs() {
        let first = genesis(&NETWORK);
        assert_ne!(first, genesis(&NetworkId([5; 32])));
        let after = |outputs: &[[u8; 32]]| next(&first, outputs.iter().copied());
        let both = after(&[[1; 32], [2; 32]]);
        assert_eq!(both, after(&[[2; 32], [1; 32]]));
        let others = [after(&[]), after(&[[1; 32]]), after(&[[2; 32]]), next(&both, [[1; 32], [2; 32]]), first];
        assert!(others.iter().all(|other| *other != both));
        let ranked: Vec<_> = (0..14u8).map(|n| [n; 32]).collect();
        assert_eq!(after(&ranked), after(&ranked[..12]));
        assert_ne!(after(&ranked), after(&ranked[1..]), "whoever withholds a ticket that counts lets in the next one");
    }

    #[test]
    fn the_chain_of_beacons_is_fixed() {
        // A known answer: a second implementation must reach it.
        let mut beacon = SnapshotBeacon::new(&NETWORK, Epoch(10));
        beacon.advance([[2; 32], [1; 32]]);
        beacon.advance([]);
        assert_eq!((beacon.newest(), beacon.beacon(Epoch(10)), beacon.beacon(Epoch(13))), (Epoch(12), None, None));
        assert_eq!(beacon.beacon(Epoch(11)), Some(next(&genesis(&NETWORK), [[1; 32], [2; 32]])));
        let newest = beacon.beacon(Epoch(12)).unwrap();
        assert_eq!(u64::from_be_bytes(newest[..8].try_into().unwrap()), 0x5fb2_edd5_08f0_9553);
        let resumed = SnapshotBeacon::resume(Epoch(12), newest);
        assert_eq!(resumed.beacon(Epoch(12)), Some(newest));
    }

    #[test]
    fn only_a_key_that_stood_in_both_snapshots_before_takes_part() {
        let (key, new_key) = ([1; 32], [2; 32]);
        let roll = |entries: &[(u8, [u8; 32])]| entries.iter().map(|(n, key)| (relay(*n), *key)).collect::<Roll>();
        let (old, recent) = (roll(&[(1, key), (2, key), (3, key)]), roll(&[(1, key), (2, new_key), (4, key)]));
        let before = [Some(&old), Some(&recent)];
        assert!(is_eligible(&relay(1), &key, before));
        // Changed its key; withheld its ticket last time; is new; another relay's key.
        for (n, key) in [(2, key), (2, new_key), (3, key), (4, key), (1, new_key), (5, key)] {
            assert!(!is_eligible(&relay(n), &key, before), "relay {n}");
        }
        assert!(is_eligible(&relay(5), &key, [None, None]));
        assert!(is_eligible(&relay(3), &key, [None, Some(&old)]));
    }
}
