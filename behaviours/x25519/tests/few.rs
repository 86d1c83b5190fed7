//! A few results of every backend: what Miri computes in minutes.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{check, compare_agree, compare_one_scalar, hex32};
use fog_x25519::{BASE_POINT, GroupPoint, PointError};

/// RFC 7748, section 5.2.
#[test]
fn the_vectors_of_rfc_7748_pass() {
    let scalars = [
        hex32("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
        hex32("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"),
    ];
    let points = [
        hex32("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
        hex32("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"),
    ];
    let expected = [
        hex32("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"),
        hex32("95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"),
    ];
    check(&scalars, &points, &expected);
}

/// In the order of `dalek`: a point of the curve, and one of the twist.
#[test]
fn one_scalar_multiplies_points_of_the_curve_and_of_the_twist() {
    let mut two = [0; 32];
    two[0] = 2;
    assert_eq!(GroupPoint::decode(&two).err(), Some(PointError::Twist));
    compare_one_scalar(&[0x77; 32], &[BASE_POINT, two]);
}

#[test]
fn a_secret_agrees_with_a_key() {
    compare_agree(&[[0x55; 32]], &[GroupPoint::decode(&BASE_POINT).unwrap()]);
}
