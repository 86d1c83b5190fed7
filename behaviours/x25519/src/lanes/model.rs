//! Lanes that are plain integers: the texts of the fields and of the ladder, on any machine and under Miri. Where a
//! processor would wrap, or would multiply only the low bits of a number, the model panics.

use super::{field26::field26, field51::field51, ladder::ladder};

const LANES: usize = 4;

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

fn shift_left<const N: u32>(a: Vector) -> Vector {
    a.map(|a| a.checked_mul(1 << N).expect("bits that are not lost"))
}

fn mul32(a: Vector, b: Vector) -> Vector {
    each(a, b, |a, b| {
        assert!(a >> 32 == 0 && b >> 32 == 0, "an operand has more than 32 bits: {a:x}, {b:x}");
        a * b
    })
}

fn mul_low32(a: Vector, b: Vector) -> Vector {
    mul32(a, b).map(|product| u32::try_from(product).expect("a product of at most 32 bits").into())
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

mod radix26 {
    use super::*;

    field26!();
    ladder!();
}

mod tests {
    use curve25519_dalek::{MontgomeryPoint, Scalar, scalar::clamp_integer};
    use num_bigint::BigUint;
    use rand::{RngExt, SeedableRng, seq::IndexedRandom};
    use rand_chacha::ChaCha20Rng;

    use super::{
        super::{LIMB26_MAX, LIMB51_MAX, LOOSE26_MAX},
        *,
    };
    use crate::big::{self, modulus};

    type Lanes = [[u8; 32]; LANES];

    fn agrees_with_dalek(multiply: fn(&Lanes, &mut Lanes)) {
        let mut rng = ChaCha20Rng::seed_from_u64(51);
        for _ in 0..500 {
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
    #[cfg_attr(miri, ignore = "minutes; of the ladder Miri runs the backend `avx2`")]
    fn the_ladder_over_radix_51_agrees_with_dalek() {
        agrees_with_dalek(radix51::multiply);
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes; of the ladder Miri runs the backend `avx2`")]
    fn the_ladder_over_radix_26_agrees_with_dalek() {
        agrees_with_dalek(radix26::multiply);
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

    fn values26(field: radix26::Field) -> [BigUint; LANES] {
        core::array::from_fn(|lane| {
            let limbs = field.0.iter().enumerate();
            limbs.map(|(i, limb)| BigUint::from(limb[lane]) << (51 * i).div_ceil(2)).sum::<BigUint>() % modulus()
        })
    }

    #[test]
    fn the_operations_over_radix_26_are_right_at_their_bounds() {
        let mut rng = ChaCha20Rng::seed_from_u64(26);
        let mut any = |most: [u64; 2]| {
            let mut limb = |most: u64| *[0, 1, most / 3, most / 2, most - 1, most].choose(&mut rng).unwrap();
            radix26::Field(core::array::from_fn(|i| [(); LANES].map(|()| limb(most[i % 2]))))
        };
        let all = |limbs: [u64; 2]| radix26::Field(core::array::from_fn(|i| splat(limbs[i % 2])));
        let mut cases = vec![[all(LIMB26_MAX), all(LOOSE26_MAX), all(LOOSE26_MAX)], [all([0; 2]); 3]];
        let random = if cfg!(miri) { 5 } else { 5_000 };
        cases.extend((0..random).map(|_| [any(LIMB26_MAX), any(LOOSE26_MAX), any(LOOSE26_MAX)]));
        for [reduced, a, b] in cases {
            let check = |result: radix26::Field, expected: &dyn Fn(usize) -> BigUint| {
                let expected: [_; LANES] = core::array::from_fn(|lane| expected(lane) % modulus());
                assert_eq!(values26(result), expected, "{:x?} {:x?} {:x?}", reduced.0, a.0, b.0);
                assert_eq!(radix26::encode(result), expected.map(big::bytes), "{:x?} {:x?}", a.0, b.0);
            };
            let (r, x, y) = (values26(reduced), values26(a), values26(b));
            let product = radix26::mul(a, b);
            let p = values26(product);
            check(product, &|i| &x[i] * &y[i]);
            check(radix26::square(a), &|i| &x[i] * &x[i]);
            check(radix26::mul_121666_add(a, reduced), &|i| &x[i] * 121_666u32 + &r[i]);
            check(radix26::add(reduced, product), &|i| &r[i] + &p[i]);
            check(radix26::sub(reduced, product), &|i| &r[i] + modulus() - &p[i]);
            check(radix26::sub(product, reduced), &|i| &p[i] + modulus() - &r[i]);
        }
    }
}
