//! Arithmetic modulo p = 2^255 - 19 for one number at a time: only what converts many coordinates for one inversion
//! (Montgomery's trick). Five limbs in radix 2^51.

use zeroize::{Zeroize, Zeroizing};

use crate::bytes::{decode51, encode51};

const MASK: u64 = (1 << 51) - 1;

/// A number whose limbs have at most 52 bits.
#[derive(Clone, Copy, Zeroize)]
struct Field([u64; 5]);

impl Field {
    const ONE: Self = Self([1, 0, 0, 0, 0]);

    fn decode(bytes: &[u8; 32]) -> Self {
        Self(decode51(bytes))
    }

    fn add(self, other: Self) -> Self {
        Self::carry(core::array::from_fn(|i| u128::from(self.0[i]) + u128::from(other.0[i])))
    }

    fn sub(self, other: Self) -> Self {
        // 4p keeps every limb positive.
        let four_p = [4 * (MASK - 18), 4 * MASK, 4 * MASK, 4 * MASK, 4 * MASK];
        Self::carry(core::array::from_fn(|i| u128::from(self.0[i] + four_p[i] - other.0[i])))
    }

    fn mul(self, other: Self) -> Self {
        let mut columns = [0u128; 5];
        for (i, a) in self.0.iter().enumerate() {
            for (j, b) in other.0.iter().enumerate() {
                // 2^255 = 19 (mod p)
                let worth = if i + j < 5 { 1 } else { 19 };
                columns[(i + j) % 5] += u128::from(*a) * u128::from(*b * worth);
            }
        }
        Self::carry(columns)
    }

    fn carry(columns: [u128; 5]) -> Self {
        let mut limbs = [0; 5];
        let mut carry = 0;
        for (limb, column) in limbs.iter_mut().zip(columns) {
            let sum = column + carry;
            *limb = sum as u64 & MASK;
            carry = sum >> 51;
        }
        let lowest = u128::from(limbs[0]) + 19 * carry;
        limbs[0] = lowest as u64 & MASK;
        limbs[1] += (lowest >> 51) as u64;
        Self(limbs)
    }

    fn square_times(mut self, n: usize) -> Self {
        for _ in 0..n {
            self = self.mul(self);
        }
        self
    }

    /// self^(p-2), by the addition chain of the curve's first implementation (Bernstein 2006).
    fn invert(self) -> Self {
        let a2 = self.square_times(1);
        let a9 = a2.square_times(2).mul(self);
        let a11 = a9.mul(a2);
        // ones(n) = self^(2^n - 1)
        let ones5 = a11.square_times(1).mul(a9);
        let ones10 = ones5.square_times(5).mul(ones5);
        let ones20 = ones10.square_times(10).mul(ones10);
        let ones40 = ones20.square_times(20).mul(ones20);
        let ones50 = ones40.square_times(10).mul(ones10);
        let ones100 = ones50.square_times(50).mul(ones50);
        let ones200 = ones100.square_times(100).mul(ones100);
        let ones250 = ones200.square_times(50).mul(ones50);
        ones250.square_times(5).mul(a11)
    }

    /// 1 for zero and 0 for any other number, without a branch.
    fn is_zero(self) -> u64 {
        let any = encode51(self.0).iter().fold(0, |any, byte| any | byte);
        u64::from(any).wrapping_sub(1) >> 63
    }
}

/// Replaces each number by its inverse, and 0 by 0.
fn invert_all<const N: usize>(numbers: &mut [Field; N]) {
    let mut zeros = [0; N];
    let mut before = Zeroizing::new([Field::ONE; N]);
    let mut product = Field::ONE;
    for ((number, zero), before) in numbers.iter_mut().zip(&mut zeros).zip(before.iter_mut()) {
        // A zero would make all of them zero: a one takes its place.
        *zero = number.is_zero();
        number.0[0] += *zero;
        *before = product;
        product = product.mul(*number);
    }
    let mut inverse = product.invert();
    for ((number, zero), before) in numbers.iter_mut().zip(zeros).zip(before.iter()).rev() {
        (*number, inverse) = (inverse.mul(*before), inverse.mul(*number));
        number.0.iter_mut().for_each(|limb| *limb &= zero.wrapping_sub(1));
    }
    product.zeroize();
    inverse.zeroize();
}

/// Edwards y-coordinates to Montgomery u-coordinates: u = (1 + y) / (1 - y), and 0 for y = 1 (the neutral element).
pub(crate) fn u_from_y<const N: usize>(y: &[[u8; 32]; N]) -> [[u8; 32]; N] {
    convert(y, |y| (Field::ONE.add(y), Field::ONE.sub(y)))
}

/// Montgomery u-coordinates to Edwards y-coordinates: y = (u - 1) / (u + 1), and 0 for u = -1, which has no such y.
pub(crate) fn y_from_u<const N: usize>(u: &[[u8; 32]; N]) -> [[u8; 32]; N] {
    convert(u, |u| (u.sub(Field::ONE), u.add(Field::ONE)))
}

fn convert<const N: usize>(from: &[[u8; 32]; N], fraction: impl Fn(Field) -> (Field, Field)) -> [[u8; 32]; N] {
    let mut numerators = [Field::ONE; N];
    let mut denominators = [Field::ONE; N];
    for (i, bytes) in from.iter().enumerate() {
        (numerators[i], denominators[i]) = fraction(Field::decode(bytes));
    }
    invert_all(&mut denominators);
    let to = core::array::from_fn(|i| encode51(numerators[i].mul(denominators[i]).0));
    numerators.zeroize();
    denominators.zeroize();
    to
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use rand::{RngExt, SeedableRng, seq::IndexedRandom};
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::big::{self, modulus};

    const LIMB_MAX: u64 = (1 << 52) - 1;

    fn check(result: Field, expected: BigUint, from: [Field; 2]) {
        assert_eq!(encode51(result.0), big::bytes(expected), "{:x?}", from.map(|field| field.0));
        assert!(result.0.iter().all(|limb| *limb <= LIMB_MAX), "{:x?}", result.0);
    }

    #[test]
    fn operations_are_right_and_stay_within_52_bits() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let extremes = [0, 1, MASK - 18, MASK, MASK + 1, LIMB_MAX];
        let mut any = || Field([(); 5].map(|()| *extremes.choose(&mut rng).unwrap()));
        let mut pairs = vec![(Field([LIMB_MAX; 5]), Field([LIMB_MAX; 5])), (Field([0; 5]), Field([LIMB_MAX; 5]))];
        pairs.extend((0..if cfg!(miri) { 20 } else { 20_000 }).map(|_| (any(), any())));
        for (a, b) in pairs {
            let (x, y) = (big::value51(a.0), big::value51(b.0));
            check(a.add(b), &x + &y, [a, b]);
            check(a.sub(b), &x + modulus() - &y, [a, b]);
            check(a.mul(b), &x * &y, [a, b]);
            assert_eq!(a.is_zero() == 1, x == BigUint::ZERO, "{:x?}", a.0);
        }
    }

    #[test]
    fn zero_has_more_than_one_form() {
        let p = Field([MASK - 18, MASK, MASK, MASK, MASK]);
        assert_eq!([Field([0; 5]).is_zero(), p.is_zero(), Field::ONE.is_zero()], [1, 1, 0]);
        let mut numbers = [p, Field::ONE, Field([0; 5])];
        invert_all(&mut numbers);
        assert_eq!(numbers.map(|number| encode51(number.0)), [0u8, 1, 0].map(|n| big::bytes(n.into())));
    }

    fn is_fraction(result: [u8; 32], n: BigUint, d: BigUint) -> bool {
        let quotient = BigUint::from_bytes_le(&result);
        let zero = &d % modulus() == BigUint::ZERO;
        quotient < modulus()
            && if zero {
                quotient == BigUint::ZERO
            } else {
                (quotient * d + modulus() - n % modulus()) % modulus() == BigUint::ZERO
            }
    }

    #[test]
    fn coordinates_are_converted_whatever_stands_beside_them() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let special = [0u8, 1, 2].map(BigUint::from).into_iter().chain([modulus() - 1u8, modulus() - 2u8]);
        let special: Vec<_> = special.map(big::bytes).collect();
        for _ in 0..if cfg!(miri) { 1 } else { 500 } {
            let from: [[u8; 32]; 8] = [(); 8].map(|()| match rng.random() {
                true => *special.choose(&mut rng).unwrap(),
                false => rng.random(),
            });
            // Bit 255 is ignored; 2p keeps differences positive.
            let number = |bytes: [u8; 32]| BigUint::from_bytes_le(&bytes) % (BigUint::from(1u8) << 255);
            for (result, y) in u_from_y(&from).into_iter().zip(from.map(number)) {
                assert!(is_fraction(result, 1u8 + &y, 1u8 + 2u8 * modulus() - &y), "{y}");
            }
            for (result, u) in y_from_u(&from).into_iter().zip(from.map(number)) {
                assert!(is_fraction(result, &u + modulus() - 1u8, &u + 1u8), "{u}");
            }
        }
    }
}
