//! The relays of a simulated network: who has staked what and stands where, and the snapshot of an epoch after the lottery.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc, time::Duration};

use ed25519_dalek::SigningKey;
use fog_base::{
    Epoch, EpochSchedule, NetworkId, NodeId, UnixMillis,
    relay::{PathRequest, PathSelector, Role, Roles},
};
use fog_directory::{
    Address, Descriptor, Facts, Snapshot, Transport,
    core::{
        address::Net,
        certificate::succession::Seats,
        descriptor::Candidacy,
        lottery::{Entrant, LAYERS, Lot, SEATS, Seated, seat},
        standing::Standings,
        weight::{Candidate, StakeTable, weigh},
    },
};
use rand::{Rng, RngExt};
use schnorrkel::{ExpansionMode, MiniSecretKey};

use super::parallel;

/// The simulated network's id.
pub(super) const NETWORK: NetworkId = NetworkId([0x51; 32]);
/// The epoch that descriptors are signed for; epochs of a Monte Carlo run differ by their lots alone.
const EPOCH: Epoch = Epoch(1_000_000);
/// The default length of an epoch.
pub(super) const EPOCH_LENGTH: Duration = Duration::from_secs(1800);
/// The first bytes of the addresses of networks that are handed out one by one: all global.
const FIRST_NETS: std::ops::Range<u8> = 11..100;

/// A relay, as far as lottery and paths are concerned.
#[derive(Debug, Clone)]
pub(super) struct Relay {
    identity: SigningKey,
    pub(super) id: NodeId,
    pub(super) stake: u64,
    pub(super) net: [u8; 2],
    pub(super) family: Option<[u8; 16]>,
    pub(super) is_hostile: bool,
}

impl Relay {
    /// The relay of this number, in a network of its own.
    pub(super) fn new(number: usize, stake: u64, is_hostile: bool) -> Self {
        let identity =
            SigningKey::from_bytes(&blake3::derive_key("fog testnet sim identity v1", &number.to_be_bytes()));
        let id = NodeId(identity.verifying_key().to_bytes());
        let nets = usize::from(FIRST_NETS.end - FIRST_NETS.start);
        let first = FIRST_NETS.start + (number / 256 % nets) as u8;
        Self { identity, id, stake, net: [first, (number % 256) as u8], family: None, is_hostile }
    }

    fn candidate(&self) -> Candidate {
        Candidate { relay: self.id, family: self.family, nets: vec![Net::V4(self.net)] }
    }

    /// Its identity.
    pub(super) fn identity(&self) -> SigningKey {
        self.identity.clone()
    }

    /// Its VRF key.
    pub(super) fn vrf(&self) -> schnorrkel::Keypair {
        vrf_key(&blake3::derive_key("fog testnet sim vrf v1", &self.identity.to_bytes()))
    }

    /// A descriptor with valid keys and signatures.
    fn descriptor(&self) -> Arc<Descriptor> {
        let schedule = EpochSchedule::new(EPOCH_LENGTH);
        let now = schedule.start(EPOCH).plus(Duration::from_secs(60));
        Arc::new(self.sign(&self.facts(), &Candidacy::default(), &schedule, now))
    }

    /// Signs what it says at `now`.
    pub(super) fn sign(
        &self,
        facts: &Facts,
        candidacy: &Candidacy,
        schedule: &EpochSchedule,
        now: UnixMillis,
    ) -> Descriptor {
        let keys = (&self.identity, &self.vrf());
        let when = (schedule.at(now), now.0);
        let signed = Descriptor::sign(keys, (&NETWORK, schedule), (facts, candidacy), when, now, &[1; 32]);
        signed.expect("the facts are valid")
    }

    /// What it says of itself.
    pub(super) fn facts(&self) -> Facts {
        let secret = self.identity.to_bytes();
        let key =
            |label| curve25519_dalek::MontgomeryPoint::mul_base_clamped(blake3::derive_key(label, &secret)).to_bytes();
        let [a, b] = self.net;
        let ip = Ipv4Addr::new(a, b, self.id.0[0], self.id.0[1]);
        Facts {
            addresses: vec![Address { ip: ip.into(), transport: Transport::Tcp, port: 4001 }],
            roles: Roles::NONE.with(Role::Mix).with(Role::Mailbox),
            mix_keys: [key("fog testnet sim mix v1"), key("fog testnet sim next mix v1")],
            seal_key: key("fog testnet sim seal v1"),
            circuit_key: None,
            capacity: 1_000,
            mix_versions: vec![1],
            family: self.family,
            exit_policy: None,
        }
    }
}

/// A VRF key from its seed.
pub(super) fn vrf_key(seed: &[u8; 32]) -> schnorrkel::Keypair {
    let secret = MiniSecretKey::from_bytes(seed).expect("any 32 bytes are a seed");
    secret.expand_to_keypair(ExpansionMode::Uniform)
}

/// The beginning of simulated time.
pub(super) fn beginning() -> UnixMillis {
    EpochSchedule::new(EPOCH_LENGTH).start(EPOCH)
}

/// Everybody's stake.
#[derive(Debug)]
struct Stakes(HashMap<NodeId, u64>);

impl StakeTable for Stakes {
    fn stake(&self, relay: &NodeId) -> u64 {
        self.0.get(relay).copied().unwrap_or(0)
    }
}

/// All relays of a network, with their weights.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) relays: Vec<Relay>,
    pub(super) weights: Vec<u64>,
}

impl Network {
    pub(super) fn new(relays: Vec<Relay>) -> Self {
        Self::with(relays, &Standings::default())
    }

    /// Weighed by the standings that the relays have.
    pub(super) fn with(relays: Vec<Relay>, standings: &Standings) -> Self {
        let stakes = Stakes(relays.iter().map(|relay| (relay.id, relay.stake)).collect());
        Self { weights: weights(&relays, &stakes, standings), relays }
    }

    /// `count` relays of equal stake, of which the last `hostile` are the adversary's.
    pub(super) fn equal(count: usize, hostile: usize) -> Self {
        Self::new((0..count).map(|n| Relay::new(n, 1_000, n >= count - hostile)).collect())
    }

    /// The adversary's share of the weight.
    pub(super) fn hostile_share(&self) -> f64 {
        let sum = |hostile: bool| -> f64 {
            let chosen = self.relays.iter().zip(&self.weights).filter(|(relay, _)| relay.is_hostile || !hostile);
            chosen.map(|(_, weight)| *weight as f64).sum()
        };
        sum(true) / sum(false)
    }

    /// The seats of an epoch, with lots from `rng`.
    pub(super) fn seats(&self, rng: &mut impl Rng) -> Vec<Seated> {
        let entrant = |(relay, weight): (&Relay, &u64)| Entrant {
            relay: relay.id,
            lot: random_lot(rng),
            weight: *weight,
            is_mix: true,
        };
        seat(&self.relays.iter().zip(&self.weights).map(entrant).collect::<Vec<_>>(), SEATS)
    }

    /// Every relay's descriptor.
    pub(super) fn descriptors(&self) -> Vec<Arc<Descriptor>> {
        parallel(self.relays.len(), |at| self.relays.get(at).map(Relay::descriptor)).into_iter().flatten().collect()
    }
}

/// Weights under any table of stakes.
pub(super) fn weights(relays: &[Relay], stakes: &dyn StakeTable, standings: &Standings) -> Vec<u64> {
    let candidates: Vec<_> = relays.iter().map(Relay::candidate).collect();
    weigh(&candidates, stakes, standings)
}

/// What a VRF output is to everybody but the key's owner, and to the owner before the beacon is known. Half of its bytes
/// are enough to tell all lots apart.
pub(super) fn random_lot(rng: &mut impl Rng) -> Lot {
    let mut lot = [0; 32];
    for (to, from) in lot.iter_mut().zip(rng.random::<u128>().to_be_bytes()) {
        *to = from;
    }
    Lot(lot)
}

/// The snapshot that paths of an epoch are drawn from.
pub(super) fn snapshot(descriptors: &[Arc<Descriptor>], seats: &[Seated]) -> Snapshot {
    let dealt = Seats::new(seats.iter().map(|seated| (seated.relay, (seated.weight, seated.layer))));
    Snapshot::new(EPOCH, descriptors.to_vec(), &dealt)
}

/// The mixes of a path of four hops to `last`.
pub(super) fn mixes(snapshot: &Snapshot, last: NodeId, rng: &mut impl Rng) -> [NodeId; LAYERS as usize] {
    let request =
        PathRequest { epoch: EPOCH, hops: usize::from(LAYERS) + 1, last, version: 1, exclude: &[], avoid: &[] };
    let path = snapshot.path(&request, rng).expect("a large network has paths");
    std::array::from_fn(|hop| path[hop].id)
}
