use proptest::prelude::*;

use super::*;
use crate::core::{
    blinding::{Fog, Identity},
    period::Calendar,
    random::Random,
};

const NETWORK: NetworkId = NetworkId([9; 32]);
const PERIOD: Period = Period(412);

fn blinded(n: u64) -> BlindedKey {
    let mut seed = [5; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    let calendar =
        Calendar { network: NETWORK, schedule: fog_base::EpochSchedule::new(std::time::Duration::from_secs(1800)) };
    BlindedKey::derive::<Fog>(Identity::from_seed(seed).unwrap().key(), &calendar.context(PERIOD))
}

fn ids(random: &mut Random, n: usize) -> Vec<NodeId> {
    (0..n).map(|_| NodeId(random.bytes())).collect()
}

#[test]
fn the_ring_is_frozen() {
    let relays = (0..20).map(|n| NodeId([n; 32]));
    let ring = Ring::new(NETWORK, PERIOD, &[7; 32], relays);
    let chosen: Vec<_> = ring.directories(&blinded(1)).into_iter().map(|relay| relay.0[0]).collect();
    assert_eq!(chosen, [8, 6, 16, 11, 12, 7, 15, 18]);
}

#[test]
fn a_small_network_gives_all_that_it_has() {
    for n in 0..12 {
        let relays: Vec<_> = (0..n).map(|n| NodeId([n; 32])).collect();
        let ring = Ring::new(NETWORK, PERIOD, &[7; 32], relays.clone());
        assert_eq!(ring.directories(&blinded(2)).len(), relays.len().min(8));
    }
}

/// The position of a descriptor's replica, as an attacker computes it.
fn target(key: &BlindedKey, replica: u8) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(DESCRIPTOR);
    hasher.update(&NETWORK.0).update(key.as_bytes()).update(&[replica]).update(&PERIOD.0.to_be_bytes());
    *hasher.finalize().as_bytes()
}

/// `n` ids ground so that they stand right behind each replica of `key` under `beacon`: the nearest of many tries.
fn ground(key: &BlindedKey, beacon: &[u8; 32], n: usize, random: &mut Random) -> Vec<NodeId> {
    let tries = Ring::new(NETWORK, PERIOD, beacon, ids(random, 20_000));
    let nearest = (1..=REPLICAS).flat_map(|replica| {
        let start = tries.relays.partition_point(|(position, _)| *position < target(key, replica));
        tries.relays.iter().cycle().skip(start).take(n / usize::from(REPLICAS)).map(|(_, relay)| *relay)
    });
    nearest.collect()
}

/// How many of `rounds` lookups reach an honest directory within the client's budget, with 100 honest relays and 20 ground ones that never
/// answer. `foreseen`: whether the attacker knew the beacon when the ids were made.
fn reached(rounds: u64, foreseen: bool) -> u64 {
    let mut random = Random::new([1; 32]);
    let honest = ids(&mut random, 100);
    (0..rounds)
        .filter(|round| {
            let (key, beacon) = (blinded(*round), random.bytes());
            let known = if foreseen { beacon } else { [0; 32] };
            let hostile = ground(&key, &known, 20, &mut random);
            let ring = Ring::new(NETWORK, PERIOD, &beacon, honest.iter().chain(&hostile).copied());
            let mut asked = ring.directories(&key);
            random.shuffle(&mut asked);
            asked.iter().take(6).any(|relay| honest.contains(relay))
        })
        .count() as u64
}

#[test]
fn twenty_ids_ground_next_to_a_key_hide_it_in_less_than_one_of_a_hundred_periods() {
    let reached = reached(300, false);
    assert!(reached > 297, "{reached} of 300");
}

#[test]
fn they_would_hide_it_if_the_beacon_were_known_before() {
    // The simulation can fail: the same ids against a ring whose order they knew.
    assert!(reached(20, true) <= 2);
}

proptest! {
    #[test]
    fn everybody_chooses_the_same_eight(seed: [u8; 32], n in 8usize..200) {
        let mut random = Random::new(seed);
        let mut relays = ids(&mut random, n);
        let beacon = random.bytes();
        let ring = Ring::new(NETWORK, PERIOD, &beacon, relays.clone());
        random.shuffle(&mut relays);
        let again = Ring::new(NETWORK, PERIOD, &beacon, relays.iter().chain(&relays).copied());
        let chosen = ring.directories(&blinded(1));
        prop_assert_eq!(&chosen, &again.directories(&blinded(1)));
        let distinct: std::collections::BTreeSet<_> = chosen.iter().collect();
        prop_assert_eq!(distinct.len(), 8);
        prop_assert_eq!(Ring::new(NETWORK, PERIOD, &beacon, []).directories(&blinded(1)), vec![]);
    }

    #[test]
    fn a_relay_that_leaves_moves_one_place_only(seed: [u8; 32], n in 20usize..100) {
        let mut random = Random::new(seed);
        let relays = ids(&mut random, n);
        let (beacon, key) = (random.bytes(), blinded(3));
        let before = Ring::new(NETWORK, PERIOD, &beacon, relays.clone()).directories(&key);
        let gone = before[2];
        let rest = relays.into_iter().filter(|relay| *relay != gone);
        let after = Ring::new(NETWORK, PERIOD, &beacon, rest).directories(&key);
        prop_assert!(after.iter().filter(|relay| before.contains(relay)).count() >= 6);
    }
}
