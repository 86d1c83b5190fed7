//! The field by integers of any size: what the tests compare with.

use num_bigint::BigUint;

/// p = 2^255 - 19
pub(crate) fn modulus() -> BigUint {
    (BigUint::from(1u8) << 255) - BigUint::from(19u8)
}

/// The canonical encoding of a number modulo p.
pub(crate) fn bytes(number: BigUint) -> [u8; 32] {
    let mut bytes = (number % modulus()).to_bytes_le();
    bytes.resize(32, 0);
    bytes.try_into().unwrap()
}

/// The number that limbs in radix 2^51 stand for, modulo p.
pub(crate) fn value51(limbs: impl IntoIterator<Item = u64>) -> BigUint {
    limbs.into_iter().enumerate().map(|(i, limb)| BigUint::from(limb) << (51 * i)).sum::<BigUint>() % modulus()
}
