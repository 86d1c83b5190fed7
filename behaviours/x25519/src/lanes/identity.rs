//! Lanes that hold an unknown number: what a text computes is an identity of polynomials modulo p, and is proven as one.
//!
//! A vector is the interval of a number and the number's value modulo p, of which nothing is assumed: inputs are random
//! elements of the whole field, and so is whatever an instruction cuts out of a number, the upper half of a product or a
//! carry. So a text is right here only if each part that is cut off comes back with its weight, and if what remains is the
//! polynomial in the inputs that it should be. Two different polynomials of degree d agree at a random point with
//! probability d/p at most (Schwartz 1980, Zippel 1979), and here d is 2. Together with [`interval`], which says that no
//! instruction wraps, this proves the operations for all inputs.

use num_bigint::BigUint;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::{field26::field26, field51::field51, interval};
use crate::big::{self, modulus};

const LANES: usize = 1;

type Mask = bool;

/// An element of the field as a [`BigUint`] that can be copied.
type Element = [u8; 32];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vector {
    bounds: interval::Vector,
    element: Element,
}

impl Vector {
    fn number(self) -> BigUint {
        BigUint::from_bytes_le(&self.element)
    }

    fn minus(self, other: BigUint) -> BigUint {
        self.number() + modulus() - other % modulus()
    }
}

/// A random element that is a function of `of` and of what is cut out of it.
fn unknown(of: &BigUint, cut: u64) -> BigUint {
    let mut random = ChaCha20Rng::from_seed(big::bytes(of.clone()));
    random.set_stream(cut);
    BigUint::from_bytes_le(&random.random::<Element>())
}

/// ⌊a / 2^n⌋: known if it is always zero.
fn quotient(a: Vector, n: u64) -> BigUint {
    if a.bounds.max >> n == 0 { BigUint::ZERO } else { unknown(&a.number(), n) }
}

/// ⌊ab / 2^52⌋: known if it is always zero.
fn upper_half(a: Vector, b: Vector) -> BigUint {
    let (_, max) = interval::product52(a.bounds, b.bounds);
    if max >> 52 == 0 { BigUint::ZERO } else { unknown(&(a.number() * b.number()), 0) }
}

fn splat(n: u64) -> Vector {
    Vector { bounds: interval::splat(n), element: big::bytes(n.into()) }
}

fn add64(a: Vector, b: Vector) -> Vector {
    Vector { bounds: interval::add64(a.bounds, b.bounds), element: big::bytes(a.number() + b.number()) }
}

fn sub64(a: Vector, b: Vector) -> Vector {
    Vector { bounds: interval::sub64(a.bounds, b.bounds), element: big::bytes(a.minus(b.number())) }
}

/// Only with a mask of the form 2^n - 1.
fn and(a: Vector, mask: Vector) -> Vector {
    let interval::Vector { min, max } = mask.bounds;
    assert!(min == max && (max + 1).is_power_of_two(), "not a mask: {max:x}");
    let n = max.count_ones().into();
    Vector { bounds: interval::and(a.bounds, mask.bounds), element: big::bytes(a.minus(quotient(a, n) << n)) }
}

fn shift_right<const N: u32>(a: Vector) -> Vector {
    Vector { bounds: interval::shift_right::<N>(a.bounds), element: big::bytes(quotient(a, N.into())) }
}

fn mul_low(a: Vector, b: Vector) -> Vector {
    Vector { bounds: interval::mul_low(a.bounds, b.bounds), element: big::bytes(a.number() * b.number()) }
}

fn madd_low(sum: Vector, a: Vector, b: Vector) -> Vector {
    let cut = big::bytes(upper_half(a, b) << 52);
    let low = a.number() * b.number() + modulus() - BigUint::from_bytes_le(&cut);
    Vector { bounds: interval::madd_low(sum.bounds, a.bounds, b.bounds), element: big::bytes(sum.number() + low) }
}

fn madd_high(sum: Vector, a: Vector, b: Vector) -> Vector {
    let bounds = interval::madd_high(sum.bounds, a.bounds, b.bounds);
    Vector { bounds, element: big::bytes(sum.number() + upper_half(a, b)) }
}

fn shift_left<const N: u32>(a: Vector) -> Vector {
    Vector { bounds: interval::shift_left::<N>(a.bounds), element: big::bytes(a.number() << N) }
}

fn mul32(a: Vector, b: Vector) -> Vector {
    Vector { bounds: interval::mul32(a.bounds, b.bounds), element: big::bytes(a.number() * b.number()) }
}

fn mul_low32(a: Vector, b: Vector) -> Vector {
    Vector { bounds: interval::mul_low32(a.bounds, b.bounds), element: big::bytes(a.number() * b.number()) }
}

fn select64(mask: Mask, a: Vector, b: Vector) -> Vector {
    if mask { b } else { a }
}

fn load([n]: [u64; LANES]) -> Vector {
    splat(n)
}

/// Only a number that is known.
fn store(vector: Vector) -> [u64; LANES] {
    assert_eq!(vector, splat(vector.bounds.max), "a number that is not known");
    [vector.bounds.max]
}

mod radix51 {
    use super::*;

    field51!();
}

mod radix26 {
    use super::*;

    field26!();
}

mod tests {
    use super::{
        super::{LIMB26_MAX, LIMB51_MAX, LOOSE26_MAX},
        radix51::Field,
        *,
    };

    /// Limbs of which only the bounds are known.
    fn any<const N: usize>(random: &mut ChaCha20Rng, limbs: [u64; N]) -> [Vector; N] {
        limbs.map(|max| Vector { bounds: interval::Vector::up_to(max), element: random.random() })
    }

    fn value<const N: usize>(limbs: [Vector; N], weight: impl Fn(usize) -> usize) -> BigUint {
        let limbs = limbs.iter().enumerate();
        limbs.map(|(i, limb)| limb.number() << weight(i)).sum::<BigUint>() % modulus()
    }

    fn value51(field: Field) -> BigUint {
        value(field.0, |i| 51 * i)
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes, and no arithmetic but that of big integers")]
    fn the_operations_over_radix_51_are_right() {
        let mut random = ChaCha20Rng::seed_from_u64(1);
        for _ in 0..2 {
            let (a, b) = (Field(any(&mut random, [LIMB51_MAX; 5])), Field(any(&mut random, [LIMB51_MAX; 5])));
            let (x, y) = (value51(a), value51(b));
            assert_eq!(value51(radix51::add(a, b)), (&x + &y) % modulus());
            assert_eq!(value51(radix51::sub(a, b)), (&x + modulus() - &y) % modulus());
            assert_eq!(value51(radix51::mul(a, b)), (&x * &y) % modulus());
            assert_eq!(value51(radix51::square(a)), (&x * &x) % modulus());
            assert_eq!(value51(radix51::mul_121666_add(a, b)), (&x * 121_666u32 + &y) % modulus());
            assert_eq!(radix51::select(false, a, b).0, a.0);
            assert_eq!(radix51::select(true, a, b).0, b.0);
        }
    }

    fn value26(field: radix26::Field) -> BigUint {
        value(field.0, |i| (51 * i).div_ceil(2))
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes, and no arithmetic but that of big integers")]
    fn the_operations_over_radix_26_are_right() {
        let mut random = ChaCha20Rng::seed_from_u64(3);
        let mut any26 = |limbs: [u64; 2]| radix26::Field(any(&mut random, core::array::from_fn(|i| limbs[i % 2])));
        for _ in 0..2 {
            let (a, b) = (any26(LIMB26_MAX), any26(LIMB26_MAX));
            let (x, y) = (value26(a), value26(b));
            assert_eq!(value26(radix26::add(a, b)), (&x + &y) % modulus());
            assert_eq!(value26(radix26::sub(a, b)), (&x + modulus() - &y) % modulus());
            assert_eq!(radix26::select(false, a, b).0, a.0);
            assert_eq!(radix26::select(true, a, b).0, b.0);

            let (c, d) = (any26(LOOSE26_MAX), any26(LOOSE26_MAX));
            let (z, w) = (value26(c), value26(d));
            assert_eq!(value26(radix26::mul(c, d)), (&z * &w) % modulus());
            assert_eq!(value26(radix26::square(c)), (&z * &z) % modulus());
            assert_eq!(value26(radix26::mul_121666_add(c, b)), (&z * 121_666u32 + &y) % modulus());
        }
    }

    #[test]
    fn bytes_and_radix_26_have_the_same_value() {
        for n in [BigUint::ZERO, BigUint::from(9u8), modulus() - 1u8, unknown(&BigUint::ZERO, 0)] {
            let field = radix26::decode(&[big::bytes(n.clone())]);
            assert_eq!(value26(field), n % modulus());
            assert_eq!(radix26::encode(field), [big::bytes(value26(field))]);
        }
        assert_eq!(value26(radix26::small(7)), BigUint::from(7u8));
    }

    #[test]
    fn bytes_and_radix_51_have_the_same_value() {
        for n in [BigUint::ZERO, BigUint::from(9u8), modulus() - 1u8, unknown(&BigUint::ZERO, 0)] {
            let field = radix51::decode(&[big::bytes(n.clone())]);
            assert_eq!(value51(field), n % modulus());
            assert_eq!(radix51::encode(field), [big::bytes(value51(field))]);
        }
        assert_eq!(value51(radix51::small(7)), BigUint::from(7u8));
    }

    /// What the method is for: a part that does not come back, or with another weight, makes another polynomial.
    #[test]
    fn what_is_lost_is_noticed() {
        let mut random = ChaCha20Rng::seed_from_u64(2);
        let [a, b] = any(&mut random, [LIMB51_MAX; 2]);
        let (low, high) = (madd_low(splat(0), a, b), madd_high(splat(0), a, b));
        let product = a.number() * b.number() % modulus();
        assert_eq!(value([low, high], |i| 52 * i), product);
        assert_eq!(madd_high(splat(0), b, a), high);
        assert_ne!(value([low, high], |i| 51 * i), product);
        assert_ne!(low.number(), product);
        let (rest, carry) = (and(a, splat((1 << 51) - 1)), shift_right::<51>(a));
        assert_eq!(value([rest, carry], |i| 51 * i), a.number() % modulus());
        assert_ne!(rest.number(), a.number() % modulus());
        // Nothing is cut out of what is small enough.
        let [small] = any(&mut random, [(1 << 51) - 1]);
        assert_eq!(shift_right::<51>(small), splat(0));
        assert_eq!(madd_low(splat(0), splat(2), small).number(), small.number() * 2u8 % modulus());
    }
}
