//! Lanes that are plain integers: the texts of the fields and of the ladder, on any machine and under Miri. Where a
//! processor would wrap, or would multiply only the low bits of a number, the model panics.

use super::{field51::field51, ladder::ladder};

pub(super) const LANES: usize = 4;

type Vector = [u64; LANES];
type Mask = [bool; LANES];

const LOW_52: u64 = (1 << 52) - 1;

fn each<A: Copy, B: Copy, C>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> C) -> [C; LANES] {
    core::array::from_fn(|lane| f(a[lane], b[lane]))
}

/// A product of two operands of at most 52 bits.
fn product52(a: u64, b: u64) -> u128 {
    assert!(a <= LOW_52 && b <= LOW_52, "an operand has more than 52 bits: {a:x}, {b:x}");
    u128::from(a) * u128::from(b)
}

fn splat(n: u64) -> Vector {
    [n; LANES]
}

fn add64(a: Vector, b: Vector) -> Vector {
    each(a, b, |a, b| a.checked_add(b).expect("a sum of at most 64 bits"))
}

fn sub64(a: Vector, b: Vector) -> Vector {
    each(a, b, |a, b| a.checked_sub(b).expect("a difference that is not negative"))
}

fn and(a: Vector, b: Vector) -> Vector {
    each(a, b, |a, b| a & b)
}

fn shift_right<const N: u32>(a: Vector) -> Vector {
    a.map(|a| a >> N)
}

fn mul_low(a: Vector, b: Vector) -> Vector {
    each(a, b, |a, b| a.checked_mul(b).expect("a product of at most 64 bits"))
}

fn madd_low(sum: Vector, a: Vector, b: Vector) -> Vector {
    add64(sum, each(a, b, |a, b| product52(a, b) as u64 & LOW_52))
}

fn madd_high(sum: Vector, a: Vector, b: Vector) -> Vector {
    add64(sum, each(a, b, |a, b| (product52(a, b) >> 52) as u64))
}

fn select64(mask: Mask, a: Vector, b: Vector) -> Vector {
    each(mask, each(a, b, |a, b| (a, b)), |second, (a, b)| if second { b } else { a })
}

fn no_lane() -> Mask {
    [false; LANES]
}

fn xor_mask(a: Mask, b: Mask) -> Mask {
    each(a, b, |a, b| a ^ b)
}

fn bit_of(word: Vector, bit: u32) -> Mask {
    word.map(|word| word >> bit & 1 == 1)
}

fn load(words: [u64; LANES]) -> Vector {
    words
}

fn store(vector: Vector) -> [u64; LANES] {
    vector
}

mod radix51 {
    use super::*;

    field51!();
    ladder!();
}

mod tests {
    use curve25519_dalek::{MontgomeryPoint, Scalar, scalar::clamp_integer};
    use num_bigint::BigUint;
    use rand::{RngExt, SeedableRng, seq::IndexedRandom};
    use rand_chacha::ChaCha20Rng;

    use super::{super::LIMB51_MAX, *};
    use crate::big::{self, modulus};

    type Lanes = [[u8; 32]; LANES];

    fn agrees_with_dalek(multiply: fn(&Lanes, &mut Lanes)) {
        let mut rng = ChaCha20Rng::seed_from_u64(51);
        for _ in 0..if cfg!(miri) { 1 } else { 500 } {
            let points: Lanes = rng.random();
            let clamped = rng.random::<Lanes>().map(clamp_integer);
            let mut products = points;
            multiply(&clamped, &mut products);
            assert_eq!(products, each(clamped, points, x25519_dalek::x25519));

            let reduced = rng.random::<Lanes>().map(Scalar::from_bytes_mod_order);
            let mut products = points;
            multiply(&reduced.map(|scalar| scalar.to_bytes()), &mut products);
            assert_eq!(products, each(reduced, points, |scalar, u| (MontgomeryPoint(u) * scalar).to_bytes()));
        }
    }

    #[test]
    fn the_ladder_over_radix_51_agrees_with_dalek() {
        agrees_with_dalek(radix51::multiply);
    }

    /// The numbers in the lanes, modulo p.
    fn values51(field: radix51::Field) -> [BigUint; LANES] {
        core::array::from_fn(|lane| big::value51(field.0.map(|limb| limb[lane])))
    }

    #[test]
    fn the_operations_over_radix_51_are_right_at_their_bounds() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let extremes = [0, 1, (1 << 51) - 20, (1 << 51) - 19, (1 << 51) - 1, 1 << 51, LIMB51_MAX - 1, LIMB51_MAX];
        let mut any = || radix51::Field([(); 5].map(|()| [(); LANES].map(|()| *extremes.choose(&mut rng).unwrap())));
        let all = |limb| radix51::Field([splat(limb); 5]);
        let bounds = [(0, 0), (0, LIMB51_MAX), (LIMB51_MAX, 0), (LIMB51_MAX, LIMB51_MAX)];
        let mut pairs: Vec<_> = bounds.into_iter().map(|(a, b)| (all(a), all(b))).collect();
        pairs.extend((0..if cfg!(miri) { 5 } else { 5_000 }).map(|_| (any(), any())));
        for (a, b) in pairs {
            let check = |result: radix51::Field, expected: &dyn Fn(&BigUint, &BigUint) -> BigUint| {
                let (x, y) = (values51(a), values51(b));
                let expected: [_; LANES] = core::array::from_fn(|lane| expected(&x[lane], &y[lane]) % modulus());
                assert_eq!(values51(result), expected, "{:x?} {:x?}", a.0, b.0);
                assert_eq!(radix51::encode(result), expected.map(big::bytes), "{:x?} {:x?}", a.0, b.0);
            };
            check(a, &|x, _| x.clone());
            check(radix51::add(a, b), &|x, y| x + y);
            check(radix51::sub(a, b), &|x, y| x + modulus() - y);
            check(radix51::mul(a, b), &|x, y| x * y);
            check(radix51::square(a), &|x, _| x * x);
            check(radix51::mul_121666_add(a, b), &|x, y| x * 121_666u32 + y);
        }
    }
}
