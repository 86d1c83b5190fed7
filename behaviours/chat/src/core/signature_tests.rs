use curve25519_dalek::constants::EIGHT_TORSION;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn signed(n: u8, text: &[u8]) -> ([u8; 32], [u8; SIGNATURE]) {
    (key(n).verifying_key().to_bytes(), key(n).sign(text).to_bytes())
}

fn holds(key: &[u8; 32], text: &[u8], signature: &[u8; SIGNATURE]) -> bool {
    KeyCache::default().claim(key, text, signature).is_some_and(|claim| claim.holds())
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([3; 32])
}

/// What an author with secret `a` and point `a B + of_key` can sign with `r B + of_r` as R, if `k` is of the order that both need.
fn crafted(text: &[u8], of_key: &EdwardsPoint, of_r: &EdwardsPoint) -> ([u8; 32], [u8; SIGNATURE]) {
    let (a, r) = (Scalar::from(1_234_567_u64), Scalar::from(7_654_321_u64));
    let public = (EdwardsPoint::mul_base(&a) + of_key).compress().to_bytes();
    let first = (EdwardsPoint::mul_base(&r) + of_r).compress().to_bytes();
    let hash = Sha512::new().chain_update(first).chain_update(public).chain_update(text).finalize();
    let s = r + Scalar::from_bytes_mod_order_wide(&hash.into()) * a;
    let mut signature = [0; SIGNATURE];
    signature[..32].copy_from_slice(&first);
    signature[32..].copy_from_slice(s.as_bytes());
    (public, signature)
}

#[test]
fn what_ed25519_signs_holds_and_every_flipped_bit_does_not() {
    let (key, signature) = signed(1, b"text");
    assert!(holds(&key, b"text", &signature));
    assert!(!holds(&key, b"other", &signature));
    for bit in 0..8 * SIGNATURE {
        let mut bad = signature;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!holds(&key, b"text", &bad), "bit {bit}");
    }
}

#[test]
fn many_hold_at_once_and_one_false_one_among_them_is_noticed() {
    let mut keys = KeyCache::default();
    let mut claims: Vec<_> = (0..150_u8)
        .map(|n| {
            let (key, signature) = signed(n % 5, &[n]);
            keys.claim(&key, &[n], &signature).unwrap()
        })
        .collect();
    assert!(Claim::all_hold(&claims, &mut rng()) && Claim::all_hold(&[], &mut rng()));
    for at in [0, 77, 149] {
        let good = claims[at];
        let (key, signature) = signed(1, b"another text");
        claims[at] = keys.claim(&key, b"text", &signature).unwrap();
        assert!(!Claim::all_hold(&claims, &mut rng()), "number {at}");
        claims[at] = good;
    }
}

#[test]
fn two_false_ones_do_not_make_up_for_each_other() {
    let mut keys = KeyCache::default();
    let claims = [b"one", b"two"].map(|text| {
        let (key, mut signature) = signed(1, text);
        // s + 1 in one and s − 1 in the other: their plain sum is right.
        let s: Scalar = Option::from(Scalar::from_canonical_bytes(signature[32..].try_into().unwrap())).unwrap();
        let s = if text == b"one" { s + Scalar::ONE } else { s - Scalar::ONE };
        signature[32..].copy_from_slice(s.as_bytes());
        keys.claim(&key, text, &signature).unwrap()
    });
    assert!(!Claim::all_hold(&claims, &mut rng()));
}

/// The reason for the cofactor: without it the first check of each line says no, and the second one yes in some batches.
#[test]
fn points_of_low_order_change_nothing_alone_or_in_any_batch() {
    let (honest, signature) = signed(9, b"honest");
    for of_key in [EIGHT_TORSION[0], EIGHT_TORSION[1], EIGHT_TORSION[4]] {
        for of_r in [EIGHT_TORSION[0], EIGHT_TORSION[2], EIGHT_TORSION[4]] {
            let (public, crafted) = crafted(b"text", &of_key, &of_r);
            let mut keys = KeyCache::default();
            let claim = keys.claim(&public, b"text", &crafted).unwrap();
            assert!(claim.holds());
            for seed in 0..16 {
                let mut rng = ChaCha20Rng::from_seed([seed; 32]);
                let other = keys.claim(&honest, b"honest", &signature).unwrap();
                assert!(Claim::all_hold(&[claim, other, claim], &mut rng));
            }
        }
    }
    let (public, crafted) = crafted(b"text", &EIGHT_TORSION[0], &EIGHT_TORSION[4]);
    let strict = VerifyingKey::from_bytes(&public).unwrap().verify_strict(b"text", &Signature::from_bytes(&crafted));
    assert!(strict.is_err(), "what a check without the cofactor says of the same signature");
}

#[test]
fn weak_keys_second_encodings_and_large_numbers_are_refused() {
    let (key, signature) = signed(1, b"text");
    for weak in EIGHT_TORSION {
        let weak = weak.compress().to_bytes();
        assert!(KeyCache::default().claim(&weak, b"text", &signature).is_none());
        let mut of_weak = signature;
        of_weak[..32].copy_from_slice(&weak);
        assert!(KeyCache::default().claim(&key, b"text", &of_weak).is_none());
    }
    // y = p + 3 and y = 3: the latter is a point.
    let mut second = [0xff; 32];
    (second[0], second[31]) = (0xed + 3, 0x7f);
    assert!(CompressedEdwardsY(second).decompress().is_some() && point(&second).is_none());
    let mut first = [0; 32];
    first[0] = 3;
    assert!(point(&first).is_some());
    // s + ℓ.
    let mut large = signature;
    let order = (-Scalar::ONE).to_bytes();
    let mut carry = 1;
    for (byte, of_order) in large[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(of_order) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert!(KeyCache::default().claim(&key, b"text", &large).is_none());
}
