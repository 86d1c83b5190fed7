//! Points and scalars of the subgroup of prime order.

#![allow(clippy::unwrap_used, missing_docs)]
// Miri takes most of a minute for one result: it runs `few.rs`.
#![cfg(not(miri))]

mod common;

use common::{Bytes, compare_agree};
use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, constants::EIGHT_TORSION};
use fog_x25519::{BASE_POINT, Backend, GroupPoint, GroupScalar, PointError, agree};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use x25519_dalek::x25519;

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn refused(u: &Bytes) -> Option<PointError> {
    GroupPoint::decode(u).err()
}

#[test]
fn a_public_key_is_what_x25519_makes_of_the_base_point() {
    let mut rng = rng(1);
    for _ in 0..100 {
        let secret = rng.random();
        let key = GroupPoint::public_key(&secret);
        assert_eq!(key.to_bytes(), x25519(secret, BASE_POINT));
        assert_eq!(GroupPoint::decode(&key.to_bytes()).unwrap().to_bytes(), key.to_bytes());
    }
    assert_eq!(GroupPoint::decode(&BASE_POINT).unwrap().to_bytes(), BASE_POINT);
}

#[test]
fn points_of_the_twist_are_refused() {
    let mut rng = rng(2);
    let mut twists = 0;
    for _ in 0..1000 {
        let u: Bytes = rng.random();
        if MontgomeryPoint(u).to_edwards(0).is_none() {
            twists += 1;
            assert_eq!(refused(&u), Some(PointError::Twist), "{u:02x?}");
        }
    }
    assert!((400..600).contains(&twists), "half of all numbers: {twists}");
    // -1, which has low order there.
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    assert_eq!(refused(&minus_one), Some(PointError::Twist));
}

#[test]
fn encodings_that_are_not_canonical_are_refused() {
    let mut bit_255 = BASE_POINT;
    bit_255[31] |= 0x80;
    assert_eq!(refused(&bit_255), Some(PointError::NonCanonical));
    // p + 9
    let mut above_p = [0xff; 32];
    (above_p[0], above_p[31]) = (0xf6, 0x7f);
    assert_eq!(x25519([1; 32], above_p), x25519([1; 32], BASE_POINT));
    assert_eq!(refused(&above_p), Some(PointError::NonCanonical));
}

#[test]
fn points_of_low_order_are_refused() {
    for torsion in &EIGHT_TORSION {
        let u = torsion.to_montgomery().to_bytes();
        assert_eq!(refused(&u), Some(PointError::LowOrder), "{u:02x?}");
    }
}

#[test]
fn points_with_a_component_of_low_order_are_refused() {
    let point = EdwardsPoint::mul_base_clamped(rng(3).random());
    let [neutral, torsions @ ..] = &EIGHT_TORSION;
    assert_eq!(refused(&(point + neutral).to_montgomery().to_bytes()), None);
    for torsion in torsions {
        let u = (point + torsion).to_montgomery().to_bytes();
        assert_eq!(refused(&u), Some(PointError::Torsion), "{u:02x?}");
    }
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(format!("{:?}", GroupScalar::clamped(&[7; 32])), "GroupScalar(..)");
    let shown = format!("GroupPoint(09{})", "00".repeat(31));
    assert_eq!(format!("{:?}", GroupPoint::decode(&BASE_POINT).unwrap()), shown);
}

fn keys(rng: &mut ChaCha20Rng, count: usize) -> Vec<GroupPoint> {
    (0..count).map(|_| GroupPoint::public_key(&rng.random())).collect()
}

#[test]
fn agree_is_x25519_for_every_length() {
    let mut rng = rng(4);
    for length in 0..=17 {
        let secrets: Vec<Bytes> = (0..length).map(|_| rng.random()).collect();
        compare_agree(&secrets, &keys(&mut rng, length));
    }
    compare_agree(&[[0; 32], [0xff; 32]], &[GroupPoint::decode(&BASE_POINT).unwrap(); 2]);
}

/// What a Sphinx sender does for a whole path: α_{i+1} = X25519(b_i, α_i), and s_i is X25519 of hop i's key with all that
/// came before it.
#[test]
fn agree_is_x25519_step_by_step() {
    const HOPS: usize = 5;
    let mut rng = rng(5);
    for _ in 0..50 {
        let first: Bytes = rng.random();
        let factors: [Bytes; HOPS] = rng.random();
        let keys: [GroupPoint; HOPS] = keys(&mut rng, HOPS).try_into().unwrap();

        let mut scalars = vec![GroupScalar::clamped(&first)];
        for factor in &factors[..HOPS - 1] {
            let mut scalar = scalars.last().unwrap().clone();
            scalar.multiply_clamped(factor);
            scalars.push(scalar);
        }
        let step_by_step = |start: Bytes, hop: usize| {
            factors[..hop].iter().fold(x25519(first, start), |point, factor| x25519(*factor, point))
        };
        let alphas: Vec<_> = (0..HOPS).map(|hop| step_by_step(BASE_POINT, hop)).collect();
        let secrets: Vec<_> = (0..HOPS).map(|hop| step_by_step(keys[hop].to_bytes(), hop)).collect();

        for backend in Backend::available() {
            let (mut public, mut shared) = ([[0; 32]; HOPS], [[0; 32]; HOPS]);
            backend.agree(&scalars, &keys.each_ref(), &mut public, &mut shared);
            assert_eq!(public[..], alphas, "{}", backend.name());
            assert_eq!(shared[..], secrets, "{}", backend.name());
        }
        let (mut public, mut shared) = ([[0; 32]; HOPS], [[0; 32]; HOPS]);
        agree(&scalars, &keys.each_ref(), &mut public, &mut shared);
        assert_eq!((&public[..], &shared[..]), (&alphas[..], &secrets[..]));
    }
}

#[test]
fn agree_wants_slices_of_one_length() {
    let scalars = [GroupScalar::clamped(&[1; 32]), GroupScalar::clamped(&[2; 32])];
    let keys = keys(&mut rng(6), 2);
    let keys: Vec<_> = keys.iter().collect();
    for (of_keys, of_public, of_shared) in [(1, 2, 2), (2, 1, 2), (2, 2, 1), (2, 2, 3)] {
        let attempt =
            || agree(&scalars, &keys[..of_keys], &mut [[0; 32]; 3][..of_public], &mut [[0; 32]; 3][..of_shared]);
        assert!(std::panic::catch_unwind(attempt).is_err(), "{of_keys} {of_public} {of_shared}");
    }
}
