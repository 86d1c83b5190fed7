//! Arithmetic modulo p = 2^255 - 19, one field element per lane: ten limbs in radix 2^25.5, for a processor that multiplies
//! 32-bit integers (Bernstein, "Curve25519: new Diffie-Hellman speed records", 2006, §3). Limb i is worth 2^⌈25.5·i⌉: it
//! has 26 bits if i is even and 25 if i is odd.
//!
//! As [`field51`](super::field51), a text that is compiled once per vector. There is room in 32 bits for a sum that is not
//! carried. So there are two bounds: an element is *reduced* if no limb exceeds [`LIMB26_MAX`](super::LIMB26_MAX), and
//! *loose* if none exceeds [`LOOSE26_MAX`](super::LOOSE26_MAX). Sums and differences of reduced elements are loose; products
//! and squares of loose elements are reduced.
//!
//! Four operations must not be inlined. Elsewhere the compiler may know how small the operands are, forget that it need only
//! multiply their low 32 bits, and multiply 64 bits in many instructions; and sums that stay in memory, for the
//! multiplications to take from there, are not copied.

macro_rules! field26 {
    ($(#[$feature:meta])?) => {
        /// A field element in each lane.
        #[derive(Clone, Copy)]
        pub(super) struct Field(pub(super) [Vector; 10]);

        /// Brings limbs below 2^26 and 2^25, but the second and the seventh, which may exceed that by a carry.
        $(#[$feature])?
        #[inline]
        fn carry(r: [Vector; 10]) -> Field {
            let (mask26, mask25) = (splat((1 << 26) - 1), splat((1 << 25) - 1));
            let [mut r0, mut r1, mut r2, mut r3, mut r4, mut r5, mut r6, mut r7, mut r8, mut r9] = r;
            // Two chains at once, each over six limbs: from limb 0 and from limb 5.
            (r1, r0) = (add64(r1, shift_right::<26>(r0)), and(r0, mask26));
            (r6, r5) = (add64(r6, shift_right::<25>(r5)), and(r5, mask25));
            (r2, r1) = (add64(r2, shift_right::<25>(r1)), and(r1, mask25));
            (r7, r6) = (add64(r7, shift_right::<26>(r6)), and(r6, mask26));
            (r3, r2) = (add64(r3, shift_right::<26>(r2)), and(r2, mask26));
            (r8, r7) = (add64(r8, shift_right::<25>(r7)), and(r7, mask25));
            (r4, r3) = (add64(r4, shift_right::<25>(r3)), and(r3, mask25));
            (r9, r8) = (add64(r9, shift_right::<26>(r8)), and(r8, mask26));
            (r5, r4) = (add64(r5, shift_right::<26>(r4)), and(r4, mask26));
            // 2^255 = 19 (mod p). The carry may have more than 32 bits.
            let c = shift_right::<25>(r9);
            let c19 = add64(add64(c, add64(c, c)), shift_left::<4>(c));
            (r0, r9) = (add64(r0, c19), and(r9, mask25));
            (r6, r5) = (add64(r6, shift_right::<25>(r5)), and(r5, mask25));
            (r1, r0) = (add64(r1, shift_right::<26>(r0)), and(r0, mask26));
            Field([r0, r1, r2, r3, r4, r5, r6, r7, r8, r9])
        }

        /// Of two reduced elements; the result is loose.
        $(#[$feature])?
        #[inline(never)]
        pub(super) fn add(a: Field, b: Field) -> Field {
            let mut r = a.0;
            for i in 0..10 {
                r[i] = add64(a.0[i], b.0[i]);
            }
            Field(r)
        }

        /// Of two reduced elements; the result is loose.
        $(#[$feature])?
        #[inline(never)]
        pub(super) fn sub(a: Field, b: Field) -> Field {
            // 2p keeps every limb positive.
            let lowest = splat(2 * ((1 << 26) - 19));
            let others = [splat(2 * ((1 << 26) - 1)), splat(2 * ((1 << 25) - 1))];
            let mut r = a.0;
            for i in 0..10 {
                r[i] = sub64(add64(a.0[i], if i == 0 { lowest } else { others[i % 2] }), b.0[i]);
            }
            Field(r)
        }

        /// Of two loose elements; the result is reduced.
        ///
        /// The product of limbs i and j belongs to column i+j, twice if i and j are odd: two limbs of 25 bits make a column
        /// of 51. Columns from 10 on are worth 19 times the column ten below.
        $(#[$feature])?
        #[inline(never)]
        pub(super) fn mul(a: Field, b: Field) -> Field {
            let nineteen = splat(19);
            let mut b19 = b.0;
            for j in 1..10 {
                b19[j] = mul_low32(b.0[j], nineteen);
            }
            // Left in memory, from where the multiplications take it: the registers are for the columns.
            let b19 = *core::hint::black_box(&b19);
            let mut r = [splat(0); 10];
            mul_row::<0>(&mut r, &a, &b, &b19);
            mul_row::<1>(&mut r, &a, &b, &b19);
            mul_row::<2>(&mut r, &a, &b, &b19);
            mul_row::<3>(&mut r, &a, &b, &b19);
            mul_row::<4>(&mut r, &a, &b, &b19);
            mul_row::<5>(&mut r, &a, &b, &b19);
            mul_row::<6>(&mut r, &a, &b, &b19);
            mul_row::<7>(&mut r, &a, &b, &b19);
            mul_row::<8>(&mut r, &a, &b, &b19);
            mul_row::<9>(&mut r, &a, &b, &b19);
            carry(r)
        }

        /// Adds the products of limb I of `a`. A function of I, so that nothing is indexed when it runs.
        $(#[$feature])?
        #[inline]
        fn mul_row<const I: usize>(r: &mut [Vector; 10], a: &Field, b: &Field, b19: &[Vector; 10]) {
            let once = a.0[I];
            let twice = if I % 2 == 1 { add64(once, once) } else { once };
            for j in 0..10 {
                let x = if j % 2 == 1 { twice } else { once };
                let y = if I + j < 10 { b.0[j] } else { b19[j] };
                r[(I + j) % 10] = add64(r[(I + j) % 10], mul32(x, y));
            }
        }

        /// As [`mul`], each product of two different limbs made once.
        $(#[$feature])?
        #[inline(never)]
        pub(super) fn square(a: Field) -> Field {
            let nineteen = splat(19);
            let mut twice = a.0;
            // 19 times an even limb, 38 times an odd one.
            let mut folded = a.0;
            for i in 0..10 {
                twice[i] = add64(a.0[i], a.0[i]);
                folded[i] = mul_low32(if i % 2 == 1 { twice[i] } else { a.0[i] }, nineteen);
            }
            let mut r = [splat(0); 10];
            square_row::<0>(&mut r, &a, &twice, &folded);
            square_row::<1>(&mut r, &a, &twice, &folded);
            square_row::<2>(&mut r, &a, &twice, &folded);
            square_row::<3>(&mut r, &a, &twice, &folded);
            square_row::<4>(&mut r, &a, &twice, &folded);
            square_row::<5>(&mut r, &a, &twice, &folded);
            square_row::<6>(&mut r, &a, &twice, &folded);
            square_row::<7>(&mut r, &a, &twice, &folded);
            square_row::<8>(&mut r, &a, &twice, &folded);
            square_row::<9>(&mut r, &a, &twice, &folded);
            carry(r)
        }

        /// Adds the products of limb I and the limbs from I on.
        $(#[$feature])?
        #[inline]
        fn square_row<const I: usize>(r: &mut [Vector; 10], a: &Field, twice: &[Vector; 10], folded: &[Vector; 10]) {
            for j in I..10 {
                let both_odd = I % 2 == 1 && j % 2 == 1;
                // The two in `folded` is that of two odd limbs, or else that of two different limbs.
                let counted = I + j >= 10 && I % 2 == 0 && j % 2 == 1;
                let x = if I == j || counted { a.0[I] } else { twice[I] };
                let y = match (I + j >= 10, both_odd) {
                    (true, _) => folded[j],
                    (false, true) => twice[j],
                    (false, false) => a.0[j],
                };
                r[(I + j) % 10] = add64(r[(I + j) % 10], mul32(x, y));
            }
        }

        /// `121666 * a + b` of a loose and a reduced element; the result is reduced.
        $(#[$feature])?
        #[inline]
        pub(super) fn mul_121666_add(a: Field, b: Field) -> Field {
            let factor = splat(121_666);
            let mut r = b.0;
            for i in 0..10 {
                r[i] = add64(r[i], mul32(a.0[i], factor));
            }
            carry(r)
        }

        /// `b` in the lanes of the mask, `a` in the others.
        $(#[$feature])?
        #[inline]
        pub(super) fn select(mask: Mask, a: Field, b: Field) -> Field {
            let mut r = a.0;
            for i in 0..10 {
                r[i] = select64(mask, a.0[i], b.0[i]);
            }
            Field(r)
        }

        $(#[$feature])?
        #[inline]
        pub(super) fn small(n: u64) -> Field {
            let mut r = [splat(0); 10];
            r[0] = splat(n);
            Field(r)
        }

        /// Any 32 bytes per lane, little-endian; bit 255 is ignored.
        $(#[$feature])?
        pub(super) fn decode(u: &[[u8; 32]; LANES]) -> Field {
            let mut limbs = [[0; LANES]; 10];
            for (lane, bytes) in u.iter().enumerate() {
                for (pair, of_lane) in limbs.as_chunks_mut::<2>().0.iter_mut().zip(crate::bytes::decode51(bytes)) {
                    pair[0][lane] = of_lane & ((1 << 26) - 1);
                    pair[1][lane] = of_lane >> 26;
                }
            }
            let mut r = [splat(0); 10];
            for i in 0..10 {
                r[i] = load(limbs[i]);
            }
            Field(r)
        }

        /// The canonical encoding of each lane.
        $(#[$feature])?
        pub(super) fn encode(a: Field) -> [[u8; 32]; LANES] {
            let mut limbs = [[0; LANES]; 5];
            for i in 0..5 {
                limbs[i] = store(add64(a.0[2 * i], shift_left::<26>(a.0[2 * i + 1])));
            }
            let out = core::array::from_fn(|lane| crate::bytes::encode51(limbs.map(|limb| limb[lane])));
            zeroize::Zeroize::zeroize(&mut limbs);
            out
        }
    };
}
pub(super) use field26;
