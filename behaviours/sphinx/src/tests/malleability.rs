//! Many encodings of α lead to one shared secret. None of them may get a second replay tag, and none passes the MAC.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::{EdwardsPoint, MontgomeryPoint};

use super::*;
use crate::kdf::CheckKeys;

/// 2^255 - 19, little-endian.
fn prime() -> [u8; 32] {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
}

fn add(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut carry = 0;
    core::array::from_fn(|i| {
        let sum = u16::from(a[i]) + u16::from(b[i]) + carry;
        carry = sum >> 8;
        sum.to_le_bytes()[0]
    })
}

/// Other byte strings that X25519 with a clamped scalar cannot tell from `alpha`.
fn aliases(alpha: &[u8; 32]) -> Vec<[u8; 32]> {
    let mut high_bit = *alpha;
    high_bit[31] |= 0x80;
    let mut all = vec![high_bit];
    let sum = add(alpha, &prime());
    if sum[31] < 0x80 {
        all.push(sum); // not canonical: exists for u < 19 only
    }
    let point = MontgomeryPoint(*alpha).to_edwards(0).unwrap();
    all.extend(EIGHT_TORSION.iter().skip(1).map(|torsion| (point + torsion).to_montgomery().to_bytes()));
    all
}

#[test]
fn another_encoding_of_alpha_never_gets_a_fresh_replay_tag() {
    let mut net = net(20, 3);
    let (packet, _, _) = net.packet();
    let alpha: [u8; 32] = packet[5..37].try_into().unwrap();
    let tag = open(&packet, &net.keys[0]).unwrap().replay_tag();
    for alias in aliases(&alpha) {
        assert_ne!(alias, alpha);
        let shared = x25519_dalek::x25519(*net.keys[0].secret(), alias);
        assert_eq!(*CheckKeys::derive(&shared).replay_tag(), tag);
        let mut changed = packet;
        changed[5..37].copy_from_slice(&alias);
        assert_eq!(open(&changed, &net.keys[0]).err(), Some(Reject::BadMac));
    }
}

#[test]
fn a_packet_whose_alpha_has_low_order_is_malformed() {
    let mut net = net(21, 1);
    let (packet, _, _) = net.packet();
    let mut minus_one = prime();
    minus_one[0] -= 1;
    let mut low_order: Vec<_> = EIGHT_TORSION.iter().map(|point| point.to_montgomery().to_bytes()).collect();
    low_order.extend([prime(), add(&prime(), &low_order[0]), minus_one]);
    let mut refused = Vec::new();
    for alpha in low_order {
        let mut changed = packet;
        changed[5..37].copy_from_slice(&alpha);
        assert_eq!(open(&changed, &net.keys[0]).err(), Some(Reject::Malformed), "{alpha:02x?}");
        open_batch([&packet, &changed], &net.keys[0], &mut refused);
        assert!(refused[0].is_ok());
        assert_eq!(refused[1].as_ref().err(), Some(&Reject::Malformed));
    }
}

#[test]
fn a_mix_key_is_canonical_on_the_curve_and_free_of_torsion() {
    let key = net(22, 1).path[0].key;
    assert_eq!(MixPublicKey::from_bytes(&key.to_bytes()), Ok(key));
    let mut high_bit = key.to_bytes();
    high_bit[31] |= 0x80;
    assert_eq!(MixPublicKey::from_bytes(&high_bit), Err(KeyError::NonCanonical));
    assert_eq!(MixPublicKey::from_bytes(&prime()), Err(KeyError::NonCanonical));
    let mut nine = [0; 32];
    nine[0] = 9;
    assert!(MixPublicKey::from_bytes(&nine).is_ok());
    nine[0] = 2;
    assert_eq!(MixPublicKey::from_bytes(&nine), Err(KeyError::Twist));
    let point = MontgomeryPoint(key.to_bytes()).to_edwards(0).unwrap();
    for torsion in EIGHT_TORSION.iter().skip(1) {
        let with_torsion = (point + torsion).to_montgomery().to_bytes();
        assert_eq!(MixPublicKey::from_bytes(&with_torsion), Err(KeyError::Torsion));
        assert_eq!(MixPublicKey::from_bytes(&torsion.to_montgomery().to_bytes()), Err(KeyError::LowOrder));
    }
    assert_eq!(MixPublicKey::from_bytes(&EdwardsPoint::default().to_montgomery().to_bytes()), Err(KeyError::LowOrder));
}
