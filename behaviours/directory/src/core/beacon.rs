//! The randomness that the lottery's tickets are made over (`lottery.rs`).
//!
//! Each certified set has a beacon, and the one after it follows from it and from the lowest tickets that were seated. A ticket is a
//! VRF output: its maker cannot choose it once the key is fixed, only withhold it, at the price of the seat and of two
//! sets more. Whoever can withhold k tickets that count chooses among 2^k beacons, so only a few count: enough that
//! one of them is honest (README, "What a beacon does not stop"). A ledger, which ends that, can provide the beacon
//! through [`Beacon`].

use std::fmt;

use fog_base::{Epoch, NetworkId};

/// How many tickets a beacon takes in. That all are an adversary's has the probability 2 · 10^-6 if it holds a third of
/// the weight.
pub const CONTRIBUTORS: usize = 12;

const GENESIS_LABEL: &str = "fog beacon genesis v1";
const NEXT_LABEL: &str = "fog beacon v1";

/// What a beacon may follow from: the certified set before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// Its beacon.
    pub beacon: [u8; 32],
    /// The ticket outputs of its lowest [`CONTRIBUTORS`] seats, in the order of their rank.
    pub outputs: Vec<[u8; 32]>,
}

/// Where beacons come from. All nodes must be given the same.
pub trait Beacon: fmt::Debug + Send + Sync {
    /// The beacon of the set of `epoch`, if that is the next certified one after `before`; of the first one, if there is none before.
    fn beacon(&self, network: &NetworkId, epoch: Epoch, before: Option<&Before>) -> [u8; 32];
}

/// Beacons that follow from the certified sets alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetBeacon;

impl Beacon for SetBeacon {
    fn beacon(&self, network: &NetworkId, _epoch: Epoch, before: Option<&Before>) -> [u8; 32] {
        let Some(Before { beacon, outputs }) = before else { return blake3::derive_key(GENESIS_LABEL, &network.0) };
        let mut outputs: Vec<_> = outputs.iter().take(CONTRIBUTORS).collect();
        outputs.sort();
        let mut hasher = blake3::Hasher::new_derive_key(NEXT_LABEL);
        hasher.update(beacon);
        for output in outputs {
            hasher.update(output);
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([4; 32]);

    fn next(beacon: [u8; 32], outputs: &[[u8; 32]]) -> [u8; 32] {
        SetBeacon.beacon(&NETWORK, Epoch(11), Some(&Before { beacon, outputs: outputs.to_vec() }))
    }

    #[test]
    fn a_beacon_depends_on_the_network_the_one_before_and_the_first_twelve_outputs() {
        let first = SetBeacon.beacon(&NETWORK, Epoch(10), None);
        assert_ne!(first, SetBeacon.beacon(&NetworkId([5; 32]), Epoch(10), None));
        let both = next(first, &[[1; 32], [2; 32]]);
        assert_eq!(both, next(first, &[[2; 32], [1; 32]]));
        let others = [
            next(first, &[]),
            next(first, &[[1; 32]]),
            next(first, &[[2; 32]]),
            next(both, &[[1; 32], [2; 32]]),
            first,
        ];
        assert!(others.iter().all(|other| *other != both));
        let ranked: Vec<_> = (0..14u8).map(|n| [n; 32]).collect();
        assert_eq!(next(first, &ranked), next(first, &ranked[..12]));
        assert_ne!(next(first, &ranked), next(first, &ranked[1..]), "whoever withholds a ticket lets in the next one");
    }

    #[test]
    fn the_chain_of_beacons_is_fixed() {
        // A known answer: a second implementation must reach it.
        let first = SetBeacon.beacon(&NETWORK, Epoch(10), None);
        let newest = next(next(first, &[[2; 32], [1; 32]]), &[]);
        assert_eq!(u64::from_be_bytes(newest[..8].try_into().unwrap()), 0x5fb2_edd5_08f0_9553);
    }
}
