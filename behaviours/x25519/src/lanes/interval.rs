//! Lanes that are intervals: what a vector may hold, whatever the inputs are. An instruction computes the interval of its
//! result from those of its operands, and panics if the processor might wrap there, or might multiply only the low bits of
//! a number. So one run of a text over intervals proves its bounds for all inputs.
//!
//! It proves nothing about values: for those see [`identity`](super::identity).

use super::{field26::field26, field51::field51, ladder::ladder};

/// Lane 0 holds the least and lane 1 the greatest of what a lane may hold.
pub(super) const LANES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vector {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// Any lane may be set: of two choices both are possible.
#[derive(Clone, Copy)]
pub(super) struct Mask;

pub(super) const LOW_52: u64 = (1 << 52) - 1;

impl Vector {
    pub(super) fn up_to(max: u64) -> Self {
        Self { min: 0, max }
    }

    fn within(self, other: Self) -> bool {
        other.min <= self.min && self.max <= other.max
    }
}

/// The least and the greatest product of two operands of at most 52 bits.
pub(super) fn product52(a: Vector, b: Vector) -> (u128, u128) {
    assert!(a.max <= LOW_52 && b.max <= LOW_52, "an operand may have more than 52 bits: {a:x?}, {b:x?}");
    (u128::from(a.min) * u128::from(b.min), u128::from(a.max) * u128::from(b.max))
}

pub(super) fn splat(n: u64) -> Vector {
    Vector { min: n, max: n }
}

pub(super) fn add64(a: Vector, b: Vector) -> Vector {
    let max = a.max.checked_add(b.max).expect("sums of at most 64 bits");
    Vector { min: a.min + b.min, max }
}

pub(super) fn sub64(a: Vector, b: Vector) -> Vector {
    let min = a.min.checked_sub(b.max).expect("no difference below zero");
    Vector { min, max: a.max - b.min }
}

pub(super) fn and(a: Vector, b: Vector) -> Vector {
    Vector::up_to(a.max.min(b.max))
}

pub(super) fn shift_right<const N: u32>(a: Vector) -> Vector {
    Vector { min: a.min >> N, max: a.max >> N }
}

pub(super) fn mul_low(a: Vector, b: Vector) -> Vector {
    let max = a.max.checked_mul(b.max).expect("products of at most 64 bits");
    Vector { min: a.min * b.min, max }
}

pub(super) fn madd_low(sum: Vector, a: Vector, b: Vector) -> Vector {
    let (min, max) = product52(a, b);
    let low = if max >> 52 == 0 { Vector { min: min as u64, max: max as u64 } } else { Vector { min: 0, max: LOW_52 } };
    add64(sum, low)
}

pub(super) fn madd_high(sum: Vector, a: Vector, b: Vector) -> Vector {
    let (min, max) = product52(a, b);
    add64(sum, Vector { min: (min >> 52) as u64, max: (max >> 52) as u64 })
}

pub(super) fn shift_left<const N: u32>(a: Vector) -> Vector {
    assert!(a.max.leading_zeros() >= N, "bits may be lost: {a:x?}");
    Vector { min: a.min << N, max: a.max << N }
}

/// All of the product of two operands of at most 32 bits.
pub(super) fn mul32(a: Vector, b: Vector) -> Vector {
    assert!(a.max >> 32 == 0 && b.max >> 32 == 0, "an operand may have more than 32 bits: {a:x?}, {b:x?}");
    Vector { min: a.min * b.min, max: a.max * b.max }
}

pub(super) fn mul_low32(a: Vector, b: Vector) -> Vector {
    let product = mul32(a, b);
    assert!(product.max >> 32 == 0, "products of at most 32 bits: {product:x?}");
    product
}

pub(super) fn select64(_: Mask, a: Vector, b: Vector) -> Vector {
    Vector { min: a.min.min(b.min), max: a.max.max(b.max) }
}

pub(super) fn no_lane() -> Mask {
    Mask
}

pub(super) fn xor_mask(_: Mask, _: Mask) -> Mask {
    Mask
}

pub(super) fn bit_of(_: Vector, _: u32) -> Mask {
    Mask
}

pub(super) fn load([min, max]: [u64; LANES]) -> Vector {
    assert!(min <= max, "the lanes of an interval are in order");
    Vector { min, max }
}

pub(super) fn store(vector: Vector) -> [u64; LANES] {
    [vector.min, vector.max]
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
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    use super::{
        super::{LIMB26_MAX, LIMB51_MAX, LOOSE26_MAX},
        radix51::Field,
        *,
    };

    /// What the operations make of any elements whose limbs are at most `limb`.
    fn results(limb: u64) -> [Field; 5] {
        let any = || Field([Vector::up_to(limb); 5]);
        [
            radix51::add(any(), any()),
            radix51::sub(any(), any()),
            radix51::mul(any(), any()),
            radix51::square(any()),
            radix51::mul_121666_add(any(), any()),
        ]
    }

    fn is_reduced(field: Field, limb: u64) -> bool {
        field.0.iter().all(|vector| vector.within(Vector::up_to(limb)))
    }

    #[test]
    fn reduced_elements_make_reduced_elements() {
        for (number, result) in results(LIMB51_MAX).into_iter().enumerate() {
            assert!(is_reduced(result, LIMB51_MAX), "operation {number}: {:x?}", result.0);
        }
        let anything = [[0; 32], [0xff; 32]];
        assert!(is_reduced(radix51::decode(&anything), LIMB51_MAX));
        assert!(is_reduced(radix51::small(1), LIMB51_MAX));
        // All that the canonical encoding asks of a limb.
        const { assert!(LIMB51_MAX < 1 << 63) };
    }

    /// The bound is not looser than it must be, and the test above can fail.
    #[test]
    fn the_next_smaller_bound_does_not_hold() {
        let excess = LIMB51_MAX - (1 << 51);
        let smaller = (1 << 51) + excess / 2;
        assert!(excess.is_power_of_two());
        assert!(results(smaller).into_iter().any(|result| !is_reduced(result, smaller)));
    }

    /// Any element over radix 2^25.5 with such even and odd limbs.
    fn any26(limbs: [u64; 2]) -> radix26::Field {
        radix26::Field(core::array::from_fn(|i| Vector::up_to(limbs[i % 2])))
    }

    fn is_within(field: radix26::Field, limbs: [u64; 2]) -> bool {
        field.0.into_iter().zip(any26(limbs).0).all(|(vector, limit)| vector.within(limit))
    }

    /// What the operations that carry make of any elements within a bound; one operand is always reduced.
    fn products26(loose: [u64; 2]) -> [radix26::Field; 3] {
        [
            radix26::mul(any26(loose), any26(loose)),
            radix26::square(any26(loose)),
            radix26::mul_121666_add(any26(loose), any26(LIMB26_MAX)),
        ]
    }

    #[test]
    fn loose_elements_make_reduced_elements_over_radix_26() {
        for (number, result) in products26(LOOSE26_MAX).into_iter().enumerate() {
            assert!(is_within(result, LIMB26_MAX), "operation {number}: {:x?}", result.0);
        }
        let reduced = || any26(LIMB26_MAX);
        assert!(is_within(radix26::add(reduced(), reduced()), LOOSE26_MAX));
        assert!(is_within(radix26::sub(reduced(), reduced()), LOOSE26_MAX));
        assert!(is_within(radix26::decode(&[[0; 32], [0xff; 32]]), LIMB26_MAX));
        assert!(is_within(radix26::small(1), LIMB26_MAX));
    }

    /// The bounds are not looser than they must be, and the test above can fail.
    #[test]
    fn the_next_smaller_bounds_do_not_hold_over_radix_26() {
        for (parity, bits) in [26, 25].into_iter().enumerate() {
            let excess = LIMB26_MAX[parity] - (1 << bits);
            let mut smaller = LIMB26_MAX;
            smaller[parity] -= excess / 2;
            assert!(excess.is_power_of_two());
            assert!(products26(LOOSE26_MAX).into_iter().any(|result| !is_within(result, smaller)), "parity {parity}");
        }
        // A sum of loose elements is one too many.
        let twice = LOOSE26_MAX.map(|limb| 2 * limb);
        assert!(std::panic::catch_unwind(|| products26(twice)).is_err());
    }

    #[test]
    fn no_step_of_the_ladder_wraps() {
        let anything = [[0; 32], [0xff; 32]];
        radix51::multiply(&anything, &mut anything.clone());
        radix26::multiply(&anything, &mut anything.clone());
    }

    #[test]
    fn what_may_wrap_is_noticed() {
        let panics = |f: fn() -> Vector| std::panic::catch_unwind(f).is_err();
        let (least, most) = (Vector::up_to(0), Vector::up_to(u64::MAX));
        assert!(panics(|| add64(Vector::up_to(u64::MAX), splat(1))));
        assert!(panics(|| sub64(Vector { min: 4, max: 9 }, Vector::up_to(5))));
        assert!(panics(|| mul_low(Vector::up_to(1 << 32), Vector::up_to(1 << 32))));
        assert!(panics(|| madd_low(splat(0), Vector::up_to(1 << 52), splat(0))));
        assert!(panics(|| madd_high(splat(0), splat(0), Vector::up_to(1 << 52))));
        assert!(panics(|| madd_low(Vector::up_to(u64::MAX - LOW_52 + 1), Vector::up_to(LOW_52), splat(3))));
        assert!(panics(|| shift_left::<3>(Vector::up_to(1 << 61))));
        assert!(panics(|| mul32(Vector::up_to(1 << 32), splat(0))));
        assert!(panics(|| mul32(splat(0), Vector::up_to(1 << 32))));
        assert!(panics(|| mul_low32(Vector::up_to(1 << 16), Vector::up_to(1 << 16))));
        assert_eq!(add64(most, least), most);
        assert_eq!(sub64(Vector { min: 5, max: 9 }, Vector::up_to(5)), Vector::up_to(9));
    }

    /// An instruction's interval holds whatever the instruction makes of numbers in the intervals of its operands.
    #[test]
    fn intervals_contain_what_they_claim() {
        let mut rng = ChaCha20Rng::seed_from_u64(52);
        let mut any = |bits: u32| {
            let shift = 64 - bits + rng.random_range(0..bits);
            let ends: [u64; 2] = rng.random::<[u64; 2]>().map(|end| end >> shift);
            let vector = Vector { min: ends[0].min(ends[1]), max: ends[0].max(ends[1]) };
            let n = match rng.random_range(0..4) {
                0 => vector.min,
                1 => vector.max,
                _ => rng.random_range(vector.min..=vector.max),
            };
            (vector, n)
        };
        for _ in 0..if cfg!(miri) { 100 } else { 100_000 } {
            let ((a, x), (b, y), (sum, s)) = (any(52), any(52), any(62));
            let product = u128::from(x) * u128::from(y);
            let contains = |vector: Vector, n: u64| assert!(splat(n).within(vector), "{vector:x?} has not {n:x}");
            contains(add64(sum, a), s + x);
            contains(and(a, b), x & y);
            contains(shift_right::<13>(sum), s >> 13);
            contains(madd_low(sum, a, b), s + (product as u64 & LOW_52));
            contains(madd_high(sum, a, b), s + (product >> 52) as u64);
            contains(shift_left::<2>(sum), s << 2);
            if a.max >> 32 == 0 && b.max >> 32 == 0 {
                contains(mul32(a, b), x * y);
            }
            contains(select64(Mask, a, b), x);
            contains(select64(Mask, a, b), y);
            if a.min >= b.max {
                contains(sub64(a, b), x - y);
            }
            if u128::from(a.max) * u128::from(b.max) < 1 << 64 {
                contains(mul_low(a, b), x * y);
            }
        }
    }
}
