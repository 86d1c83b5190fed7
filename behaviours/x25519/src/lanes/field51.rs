//! Arithmetic modulo p = 2^255 - 19, one field element per lane: five limbs in radix 2^51, for a processor that multiplies
//! 52-bit integers and adds (AVX-512 IFMA: Gueron and Krasnov, "Software implementation of modular exponentiation, using
//! advanced vector instructions architectures", 2012).
//!
//! A text that is compiled once per [`Vector`](super): for AVX-512, for a model that checks every step, and for intervals,
//! which prove the bounds. Every element that an operation takes or returns is *reduced*: each limb is at most
//! 2^51 + 2^10 (`LIMB51_MAX`).

macro_rules! field51 {
    ($(#[$feature:meta])?) => {
        /// A field element in each lane.
        #[derive(Clone, Copy)]
        pub(super) struct Field(pub(super) [Vector; 5]);

        /// Brings limbs below 2^51 plus what the limb before them carries. Limbs may be of any size.
        $(#[$feature])?
        #[inline]
        fn carry(r: [Vector; 5]) -> Field {
            let mask = splat((1 << 51) - 1);
            let [r0, r1, r2, r3, r4] = r;
            Field([
                // 2^255 = 19 (mod p). The carry is a number of at most 13 bits.
                madd_low(and(r0, mask), shift_right::<51>(r4), splat(19)),
                add64(and(r1, mask), shift_right::<51>(r0)),
                add64(and(r2, mask), shift_right::<51>(r1)),
                add64(and(r3, mask), shift_right::<51>(r2)),
                add64(and(r4, mask), shift_right::<51>(r3)),
            ])
        }

        $(#[$feature])?
        #[inline]
        pub(super) fn add(a: Field, b: Field) -> Field {
            let mut r = a.0;
            for i in 0..5 {
                r[i] = add64(a.0[i], b.0[i]);
            }
            carry(r)
        }

        $(#[$feature])?
        #[inline]
        pub(super) fn sub(a: Field, b: Field) -> Field {
            // 2p keeps every limb positive.
            let lowest = splat(2 * ((1 << 51) - 19));
            let others = splat(2 * ((1 << 51) - 1));
            let mut r = a.0;
            for i in 0..5 {
                r[i] = sub64(add64(a.0[i], if i == 0 { lowest } else { others }), b.0[i]);
            }
            carry(r)
        }

        /// A product of limbs i and j has 104 bits: its low 52 belong to column i+j and the rest, doubled because a column is
        /// 51 bits wide, to column i+j+1. Columns from 5 on are worth 19 times the column five below.
        $(#[$feature])?
        #[inline]
        pub(super) fn mul(a: Field, b: Field) -> Field {
            let zero = splat(0);
            let (mut high, mut low) = ([zero; 10], [zero; 10]);
            for i in 0..5 {
                for j in 0..5 {
                    high[i + j + 1] = madd_high(high[i + j + 1], a.0[i], b.0[j]);
                }
            }
            for k in 5..10 {
                low[k] = add64(high[k], high[k]);
            }
            for i in 1..5 {
                for j in 5 - i..5 {
                    low[i + j] = madd_low(low[i + j], a.0[i], b.0[j]);
                }
            }
            for k in 0..5 {
                low[k] = add64(mul_low(low[k + 5], splat(19)), add64(high[k], high[k]));
            }
            for i in 0..5 {
                for j in 0..5 - i {
                    low[i + j] = madd_low(low[i + j], a.0[i], b.0[j]);
                }
            }
            carry([low[0], low[1], low[2], low[3], low[4]])
        }

        /// As [`mul`], each product of two different limbs made once: `once`, `twice` and `four` are what counts so often.
        $(#[$feature])?
        #[inline]
        pub(super) fn square(a: Field) -> Field {
            let zero = splat(0);
            let (mut once, mut twice, mut four) = ([zero; 10], [zero; 10], [zero; 10]);
            for i in 0..5 {
                for j in i + 1..5 {
                    four[i + j + 1] = madd_high(four[i + j + 1], a.0[i], a.0[j]);
                }
            }
            for k in 0..10 {
                twice[k] = add64(four[k], four[k]);
            }
            for i in 0..5 {
                twice[2 * i + 1] = madd_high(twice[2 * i + 1], a.0[i], a.0[i]);
                for j in i + 1..5 {
                    twice[i + j] = madd_low(twice[i + j], a.0[i], a.0[j]);
                }
            }
            for k in 5..10 {
                once[k] = add64(twice[k], twice[k]);
            }
            for i in 3..5 {
                once[2 * i] = madd_low(once[2 * i], a.0[i], a.0[i]);
            }
            for k in 0..5 {
                once[k] = add64(mul_low(once[k + 5], splat(19)), add64(twice[k], twice[k]));
            }
            for i in 0..3 {
                once[2 * i] = madd_low(once[2 * i], a.0[i], a.0[i]);
            }
            carry([once[0], once[1], once[2], once[3], once[4]])
        }

        /// `121666 * a + b`.
        $(#[$feature])?
        #[inline]
        pub(super) fn mul_121666_add(a: Field, b: Field) -> Field {
            let (zero, factor) = (splat(0), splat(121_666));
            let (mut low, mut high) = (b.0, [zero; 5]);
            for i in 0..5 {
                low[i] = madd_low(low[i], a.0[i], factor);
                high[i] = madd_high(zero, a.0[i], factor);
                high[i] = add64(high[i], high[i]);
            }
            carry([
                madd_low(low[0], high[4], splat(19)),
                add64(low[1], high[0]),
                add64(low[2], high[1]),
                add64(low[3], high[2]),
                add64(low[4], high[3]),
            ])
        }

        /// `b` in the lanes of the mask, `a` in the others.
        $(#[$feature])?
        #[inline]
        pub(super) fn select(mask: Mask, a: Field, b: Field) -> Field {
            let mut r = a.0;
            for i in 0..5 {
                r[i] = select64(mask, a.0[i], b.0[i]);
            }
            Field(r)
        }

        $(#[$feature])?
        #[inline]
        pub(super) fn small(n: u64) -> Field {
            Field([splat(n), splat(0), splat(0), splat(0), splat(0)])
        }

        /// Any 32 bytes per lane, little-endian; bit 255 is ignored.
        $(#[$feature])?
        pub(super) fn decode(u: &[[u8; 32]; LANES]) -> Field {
            let mut limbs = [[0; LANES]; 5];
            for (lane, bytes) in u.iter().enumerate() {
                for (limb, of_lane) in limbs.iter_mut().zip(crate::bytes::decode51(bytes)) {
                    limb[lane] = of_lane;
                }
            }
            Field([load(limbs[0]), load(limbs[1]), load(limbs[2]), load(limbs[3]), load(limbs[4])])
        }

        /// The canonical encoding of each lane.
        $(#[$feature])?
        pub(super) fn encode(a: Field) -> [[u8; 32]; LANES] {
            let mut limbs = [store(a.0[0]), store(a.0[1]), store(a.0[2]), store(a.0[3]), store(a.0[4])];
            let out = core::array::from_fn(|lane| crate::bytes::encode51(limbs.map(|limb| limb[lane])));
            zeroize::Zeroize::zeroize(&mut limbs);
            out
        }
    };
}
pub(super) use field51;
