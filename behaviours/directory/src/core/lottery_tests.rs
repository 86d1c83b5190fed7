use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use schnorrkel::{ExpansionMode, MiniSecretKey};

use super::*;

const NETWORK: NetworkId = NetworkId([4; 32]);

fn key(seed: u16) -> Keypair {
    let mut bytes = [6; 32];
    bytes[..2].copy_from_slice(&seed.to_be_bytes());
    MiniSecretKey::from_bytes(&bytes).unwrap().expand_to_keypair(ExpansionMode::Uniform)
}

fn relay(n: u32) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    NodeId(id)
}

/// What a VRF output is to everybody but the key's owner, and to the owner before the beacon is known.
fn random_lot(rng: &mut impl Rng) -> Lot {
    Lot(rng.random())
}

fn with_leading(leading: u64) -> Lot {
    let mut lot = [0; 32];
    lot[..8].copy_from_slice(&leading.to_be_bytes());
    Lot(lot)
}

fn mixes(weights: &[u64], rng: &mut impl Rng) -> Vec<Entrant> {
    let entrant =
        |(n, weight): (u32, &u64)| Entrant { relay: relay(n), lot: random_lot(rng), weight: *weight, is_mix: true };
    (0..).zip(weights).map(entrant).collect()
}

/// A stand-in for the lot of a key: a VRF of a million keys would take a minute.
fn hash_lot(key: u64, beacon: u32) -> Lot {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&key.to_be_bytes());
    bytes[8..].copy_from_slice(&beacon.to_be_bytes());
    Lot(*blake3::hash(&bytes).as_bytes())
}

/// How often a relay with a chance of 3/10 is seated by these lots.
fn seated(lots: impl Iterator<Item = Lot>) -> u32 {
    lots.filter(|lot| is_seated(&Entrant { relay: relay(0), lot: *lot, weight: 3, is_mix: true }, 1, 10)).count() as u32
}

const LOTTERY: Lottery<'static> = Lottery { network: &NETWORK, epoch: Epoch(5), beacon: &[7; 32] };

#[test]
fn others_compute_the_lot_that_the_relay_knows() {
    let (key, id) = (key(1), relay(1));
    let (one, other) = (prove(&key, &id, &LOTTERY, &[1; 32]), prove(&key, &id, &LOTTERY, &[2; 32]));
    let lot = verify(&key.public.to_bytes(), &id, &LOTTERY, &one);
    assert_eq!(lot, Ok(own_lot(&key, &id, &LOTTERY)));
    assert_eq!(verify(&key.public.to_bytes(), &id, &LOTTERY, &other), lot);
    assert!(one.output == other.output && one.proof != other.proof);
}

#[test]
fn the_lot_of_a_key_is_fixed() {
    // A known answer: a second implementation must reach it.
    assert_eq!(own_lot(&key(1), &relay(1), &LOTTERY).leading(), 0xfeca_0786_99fd_d57a);
}

#[test]
fn relays_that_share_a_key_have_lots_of_their_own() {
    let tickets = [1, 2].map(|n| prove(&key(1), &relay(n), &LOTTERY, &[1; 32]));
    assert_ne!(tickets[0].output, tickets[1].output);
    assert_ne!(own_lot(&key(1), &relay(1), &LOTTERY), own_lot(&key(1), &relay(2), &LOTTERY));
}

#[test]
fn a_ticket_holds_for_one_key_relay_network_epoch_and_beacon() {
    let (key_1, other_key) = (key(1), key(2).public.to_bytes());
    let public = key_1.public.to_bytes();
    let ticket = prove(&key_1, &relay(1), &LOTTERY, &[1; 32]);
    assert!(verify(&public, &relay(1), &LOTTERY, &ticket).is_ok());
    let refused =
        |key, id, lottery: Lottery<'_>, ticket: &Ticket| verify(key, &relay(id), &lottery, ticket) == Err(BadTicket);
    assert!(refused(&other_key, 1, LOTTERY, &ticket));
    assert!(refused(&[0xff; 32], 1, LOTTERY, &ticket));
    assert!(refused(&public, 2, LOTTERY, &ticket));
    assert!(refused(&public, 1, Lottery { network: &NetworkId([5; 32]), ..LOTTERY }, &ticket));
    assert!(refused(&public, 1, Lottery { epoch: Epoch(6), ..LOTTERY }, &ticket));
    assert!(refused(&public, 1, Lottery { beacon: &[8; 32], ..LOTTERY }, &ticket));
    let other = prove(&key(2), &relay(1), &LOTTERY, &[1; 32]);
    for output in [other.output, [0; 32], [0xff; 32]] {
        assert!(refused(&public, 1, LOTTERY, &Ticket { output, ..ticket.clone() }));
    }
    for byte in 0..64 {
        let mut changed = ticket.clone();
        changed.proof[byte] ^= 1;
        assert!(refused(&public, 1, LOTTERY, &changed), "byte {byte}");
    }
}

proptest! {
    #[test]
    fn a_relay_is_seated_exactly_below_its_chance(
        leading in any::<u64>(), seats in 1u64..1000, weight in 1u64..1 << 40, others in 0u64..1 << 59,
    ) {
        let total = u128::from(weight) + u128::from(others);
        let entrant = |leading| Entrant { relay: relay(0), lot: with_leading(leading), weight, is_mix: true };
        let expected = |leading| u128::from(leading) * total < (u128::from(seats) * u128::from(weight)) << 64;
        prop_assert_eq!(is_seated(&entrant(leading), seats, total), expected(leading));
        // At the edge, where rounding would show.
        let edge = ((u128::from(seats) * u128::from(weight)) << 64).div_ceil(total);
        if let Ok(edge) = u64::try_from(edge) {
            prop_assert!(!is_seated(&entrant(edge), seats, total));
            prop_assert!(is_seated(&entrant(edge - 1), seats, total));
        }
    }

    #[test]
    fn a_total_above_64_bits_is_compared_exactly(leading in any::<u64>(), seats in 1u64..1000, fold in 1u32..60) {
        // The same fraction, written with numbers 2^fold times as large.
        let (weight, total) = (1u64 << 4, 12_345u128);
        let entrant = |weight| Entrant { relay: relay(0), lot: with_leading(leading), weight, is_mix: true };
        let expected = is_seated(&entrant(weight), seats, total);
        prop_assert_eq!(is_seated(&entrant(weight << (fold - 1)), seats, total << (fold - 1)), expected);
    }

    #[test]
    fn neither_order_nor_relays_without_weight_change_a_seat(
        weights in proptest::collection::vec(0u64..1000, 1..60), seats in 1u64..50, seed in any::<u64>(),
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut entrants = mixes(&weights, &mut rng);
        let expected = seat(&entrants, seats);
        // Ten times as many Sybils, who have no stake.
        let sybils = (0..10 * weights.len() as u32).map(|n| Entrant {
            relay: relay(1_000_000 + n), lot: random_lot(&mut rng), weight: 0, is_mix: true,
        });
        entrants.extend(sybils);
        entrants.reverse();
        prop_assert_eq!(seat(&entrants, seats), expected);
    }
}

#[test]
fn a_small_network_seats_everyone_and_deals_the_layers_evenly() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut entrants = mixes(&[5; 20], &mut rng);
    for entrant in &mut entrants[..4] {
        entrant.is_mix = false;
    }
    entrants[19].weight = 0;
    let seats = seat(&entrants, 20);
    let in_layer = |layer| seats.iter().filter(|seat| seat.layer == layer).count();
    assert_eq!([None, Some(0), Some(1), Some(2)].map(in_layer), [4, 5, 5, 5]);
    assert!(seats.iter().all(|seat| seat.weight == 5 && seat.relay != relay(19)));
    let lot = |seat: &Seated| entrants.iter().find(|entrant| entrant.relay == seat.relay).unwrap().lot;
    assert!(seats.is_sorted_by_key(lot));
    assert_eq!(seat(&[], 20), []);
}

#[test]
fn seats_and_the_weight_of_seats_are_proportional_to_weight() {
    // 1,000 relays of the weights 1 to 10, and one of 1,000, which is more than a seat's worth of 6,500 / 60.
    let weights: Vec<_> = (0..1000).map(|n| n % 10 + 1).chain([1000]).collect();
    let (total, seats, epochs) = (6500.0, 60, 2000);
    let (mut counts, mut shares) = ([0u32; 10], [0f64; 11]);
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    for _ in 0..epochs {
        let drawn = seat(&mixes(&weights, &mut rng), seats);
        let all: u64 = drawn.iter().map(|seat| seat.weight).sum();
        for seat in &drawn {
            let n = u32::from_be_bytes(seat.relay.0[..4].try_into().unwrap()) as usize;
            let class = if n == 1000 { 10 } else { n % 10 };
            if class < 10 {
                counts[class] += 1;
            }
            shares[class] += seat.weight as f64 / all as f64 / f64::from(epochs);
        }
        assert!(drawn.iter().any(|seat| seat.relay == relay(1000)), "its chance is 1");
    }
    for (class, count) in counts.into_iter().enumerate() {
        let chance = seats as f64 * (class as f64 + 1.0) / total;
        let trials = 100.0 * f64::from(epochs);
        let z = (f64::from(count) - trials * chance) / (trials * chance * (1.0 - chance)).sqrt();
        // One of ten classes is beyond four standard deviations once in 1,600 seeds.
        assert!(z.abs() < 4.0, "weight {}: {count} seats, z = {z}", class + 1);
    }
    for (class, share) in shares.into_iter().enumerate() {
        let expected = if class == 10 { 1000.0 } else { 100.0 * (class as f64 + 1.0) } / total;
        assert!(
            (share / expected - 1.0).abs() < 0.05,
            "class {class}: {share} of the traffic, {expected} of the weight"
        );
    }
}

#[test]
fn with_fewer_than_twelve_mixes_there_are_no_layers() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let layered = |n: u64, rng: &mut ChaCha20Rng| {
        let weights: Vec<u64> = (1..=n).collect();
        seat(&mixes(&weights, rng), n).iter().filter(|seat| seat.layer.is_some()).count() as u64
    };
    assert_eq!([1, 11, 12, 13].map(|n| layered(n, &mut rng)), [0, 0, 12, 13]);
}

#[test]
fn a_relay_is_in_each_layer_equally_often() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let mut counts = [0u32; 3];
    for _ in 0..6000 {
        let drawn = seat(&mixes(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], &mut rng), 14);
        let layer = drawn.iter().find(|seat| seat.relay == relay(7)).unwrap().layer.unwrap();
        counts[usize::from(layer)] += 1;
    }
    // Fourteen relays: five, five and four in the layers.
    let chi2: f64 = [6000.0 * 5.0 / 14.0, 6000.0 * 5.0 / 14.0, 6000.0 * 4.0 / 14.0]
        .iter()
        .zip(counts)
        .map(|(expected, n)| (f64::from(n) - expected).powi(2) / expected)
        .sum();
    assert!(chi2 < 13.8, "χ² = {chi2}: 2 degrees of freedom, once in a thousand");
}

#[test]
fn a_key_ground_for_one_beacon_wins_no_more_than_chance_under_the_next() {
    // The best of a million keys, and of 2,000 by the real VRF, under beacon 0.
    let best = (0..1_000_000).min_by_key(|key| hash_lot(*key, 0)).unwrap();
    assert!(hash_lot(best, 0).leading() < 1 << 48, "the grinding found a key that beacon 0 would seat at any weight");
    let later = seated((1..=20_000).map(|beacon| hash_lot(best, beacon)));
    // 6,000 ± 2.58 standard deviations of 65: the 99 % confidence interval.
    assert!((5833..=6167).contains(&later), "{later} seats of 20,000");

    let real_lot = |key: &Keypair, n: u32| {
        let beacon = *blake3::hash(&n.to_be_bytes()).as_bytes();
        own_lot(key, &relay(0), &Lottery { network: &NETWORK, epoch: Epoch(n), beacon: &beacon })
    };
    let best = (0..2000).map(key).min_by_key(|key| real_lot(key, 0)).unwrap();
    assert!(real_lot(&best, 0).leading() < u64::MAX / 200);
    let later = seated((1..=2000).map(|n| real_lot(&best, n)));
    // 600 ± 2.58 · 20.5.
    assert!((548..=652).contains(&later), "{later} seats of 2,000");
}

#[test]
fn the_lots_of_the_real_vrf_are_uniform() {
    let mut counts = [0u32; 16];
    for n in 0..2000 {
        counts[usize::from(own_lot(&key(n), &relay(0), &LOTTERY).0[0] >> 4)] += 1;
    }
    let chi2: f64 = counts.iter().map(|n| (f64::from(*n) - 125.0).powi(2) / 125.0).sum();
    assert!(chi2 < 37.7, "χ² = {chi2}: 15 degrees of freedom, once in a thousand");
}
