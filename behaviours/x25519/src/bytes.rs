//! Numbers of 255 bits as bytes, as words, and as five limbs in radix 2^51.

const MASK: u64 = (1 << 51) - 1;

/// Four words, the lowest first.
pub(crate) fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let (words, _) = bytes.as_chunks::<8>();
    core::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

/// Five limbs; bit 255 is ignored.
pub(crate) fn decode51(bytes: &[u8; 32]) -> [u64; 5] {
    let [w0, w1, w2, w3] = words(bytes);
    [
        w0 & MASK,
        (w0 >> 51 | w1 << 13) & MASK,
        (w1 >> 38 | w2 << 26) & MASK,
        (w2 >> 25 | w3 << 39) & MASK,
        (w3 >> 12) & MASK,
    ]
}

/// The canonical encoding of a number in radix 2^51 whose limbs have at most 63 bits.
pub(crate) fn encode51(mut limbs: [u64; 5]) -> [u8; 32] {
    // Brings every limb below 2^51 but the lowest, which may exceed it by less than 2^17.
    for i in 0..4 {
        limbs[i + 1] += limbs[i] >> 51;
        limbs[i] &= MASK;
    }
    limbs[0] += 19 * (limbs[4] >> 51);
    limbs[4] &= MASK;
    // The number is below 2p now. It is at least p if adding 19 carries out of bit 255; then p is subtracted.
    let mut carry = (limbs[0] + 19) >> 51;
    for limb in &limbs[1..] {
        carry = (limb + carry) >> 51;
    }
    limbs[0] += 19 * carry;
    for i in 0..4 {
        limbs[i + 1] += limbs[i] >> 51;
        limbs[i] &= MASK;
    }
    limbs[4] &= MASK;
    let words = [
        limbs[0] | limbs[1] << 51,
        limbs[1] >> 13 | limbs[2] << 38,
        limbs[2] >> 26 | limbs[3] << 25,
        limbs[3] >> 39 | limbs[4] << 12,
    ];
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;
    use crate::big;

    fn number(bytes: &[u8; 32]) -> BigUint {
        BigUint::from_bytes_le(bytes) % (BigUint::from(1u8) << 255)
    }

    #[test]
    fn limbs_of_any_63_bits_have_a_canonical_encoding() {
        // Small ones, the limbs of p and their neighbours, the bounds of `field51`, and the largest.
        let limbs = [0, 19, MASK - 18, MASK, MASK + 1, (1 << 51) + (1 << 10), (1 << 63) - 1];
        let several = if cfg!(miri) { 2 } else { limbs.len() };
        let count = several.pow(5);
        for n in 0..count {
            let limbs: [u64; 5] =
                core::array::from_fn(|i| limbs[limbs.len() - 1 - n / several.pow(i as u32) % several]);
            assert_eq!(encode51(limbs), big::bytes(big::value51(limbs)), "{limbs:x?}");
        }
    }

    #[test]
    fn encodings_around_the_modulus_are_reduced() {
        for n in 0..38u8 {
            let encoding = (big::modulus() - 19u8 + n).to_bytes_le().try_into().unwrap();
            assert_eq!(encode51(decode51(&encoding)), big::bytes(number(&encoding)), "p - 19 + {n}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 2 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn words_and_limbs_have_the_value_of_the_bytes(bytes: [u8; 32]) {
            let words = words(&bytes).into_iter().rev().fold(BigUint::ZERO, |sum, word| (sum << 64) + word);
            prop_assert_eq!(words, BigUint::from_bytes_le(&bytes));
            let limbs = decode51(&bytes);
            prop_assert!(limbs.iter().all(|limb| *limb <= MASK));
            prop_assert_eq!(big::value51(limbs), number(&bytes) % big::modulus());
        }

        #[test]
        fn encode51_is_canonical(limbs: [u64; 5]) {
            let limbs = limbs.map(|limb| limb >> 1);
            prop_assert_eq!(encode51(limbs), big::bytes(big::value51(limbs)));
        }
    }
}
