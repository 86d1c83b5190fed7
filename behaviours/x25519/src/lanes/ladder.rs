//! The Montgomery ladder of RFC 7748, one scalar and one point per lane.
//!
//! As [`field51`](super::field51), a text that is compiled once per vector. No step depends on a secret but through
//! [`select`]: every lane does the same work in the same order.

macro_rules! ladder {
    ($(#[$feature:meta])?) => {
        /// `points[i] = scalars[i] · points[i]`, scalars as they are; their bit 255 is ignored.
        $(#[$feature])?
        pub(in crate::lanes) fn multiply(scalars: &[[u8; 32]; LANES], points: &mut [[u8; 32]; LANES]) {
            let mut words = [[0; LANES]; 4];
            for (lane, scalar) in scalars.iter().enumerate() {
                for (word, of_scalar) in words.iter_mut().zip(crate::bytes::words(scalar)) {
                    word[lane] = of_scalar;
                }
            }
            let scalars = [load(words[0]), load(words[1]), load(words[2]), load(words[3])];
            let (x, z) = climb(scalars, decode(points));
            *points = encode(mul(x, invert(z)));
            zeroize::Zeroize::zeroize(&mut words);
        }

        /// The product as a fraction.
        ///
        /// Two points are kept, [k]P and [k+1]P, where k is what of the scalar was read. A step doubles one and replaces the
        /// other by their sum, which has one formula for either order. So only the operands of the doubling are selected
        /// (Costello and Smith, "Montgomery curves and their arithmetic", 2017, §4.2), and `swapped` says which is which.
        $(#[$feature])?
        fn climb(scalars: [Vector; 4], x1: Field) -> (Field, Field) {
            let (mut px, mut pz) = (small(1), small(0));
            let (mut qx, mut qz) = (x1, small(1));
            let mut swapped = no_lane();
            for n in (0..255).rev() {
                let bit = bit_of(scalars[n / 64], n as u32 % 64);
                let double_q = xor_mask(bit, swapped);
                swapped = bit;

                let (a, b) = (add(px, pz), sub(px, pz));
                let (c, d) = (add(qx, qz), sub(qx, qz));
                let (da, cb) = (mul(d, a), mul(c, b));
                let aa = square(select(double_q, a, c));
                let bb = square(select(double_q, b, d));
                let e = sub(aa, bb);
                (px, pz) = (mul(aa, bb), mul(e, mul_121666_add(e, bb)));
                (qx, qz) = (square(add(da, cb)), mul(x1, square(sub(da, cb))));
            }
            (select(swapped, px, qx), select(swapped, pz, qz))
        }

        $(#[$feature])?
        fn square_times(mut a: Field, n: usize) -> Field {
            for _ in 0..n {
                a = square(a);
            }
            a
        }

        /// a^(p-2): the inverse, and 0 for 0. The addition chain is that of the curve's first implementation (Bernstein 2006).
        $(#[$feature])?
        fn invert(a: Field) -> Field {
            let a2 = square(a);
            let a9 = mul(square_times(a2, 2), a);
            let a11 = mul(a9, a2);
            // ones(n) = a^(2^n - 1)
            let ones5 = mul(square(a11), a9);
            let ones10 = mul(square_times(ones5, 5), ones5);
            let ones20 = mul(square_times(ones10, 10), ones10);
            let ones40 = mul(square_times(ones20, 20), ones20);
            let ones50 = mul(square_times(ones40, 10), ones10);
            let ones100 = mul(square_times(ones50, 50), ones50);
            let ones200 = mul(square_times(ones100, 100), ones100);
            let ones250 = mul(square_times(ones200, 50), ones50);
            mul(square_times(ones250, 5), a11)
        }
    };
}
pub(super) use ladder;
