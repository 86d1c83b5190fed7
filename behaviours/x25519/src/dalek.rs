//! The backend for every other processor: curve25519-dalek.
//!
//! On the Edwards form of the curve it multiplies in half the time of its Montgomery ladder, conversions included. A
//! u-coordinate on the quadratic twist has no Edwards form and takes the ladder; which of the two happens depends on the
//! point alone, which is public. Either way the result is RFC 7748's, bit for bit.

use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, edwards::CompressedEdwardsY};
use zeroize::{Zeroize, Zeroizing};

use crate::field;

/// Products that share their inversions.
const GROUP: usize = 8;

pub(crate) fn x25519<'a>(scalar: impl Fn(usize) -> &'a [u8; 32], points: &mut [[u8; 32]]) {
    for (n, group) in points.chunks_mut(GROUP).enumerate() {
        let mut u = [[0; 32]; GROUP];
        group.iter().zip(&mut u).for_each(|(point, u)| *u = *point);
        let y = field::y_from_u(&u);
        let mut products = [EdwardsPoint::default(); GROUP];
        let mut on_curve = [false; GROUP];
        for (i, point) in group.iter_mut().enumerate() {
            let scalar = *scalar(n * GROUP + i);
            // Of the two points with this y either will do: the products have the same u. And -1, on the twist, to which
            // no y belongs, gets y = 0: a point of order four, as -1 is, and so with the same product, 0.
            if let Some(edwards) = CompressedEdwardsY(y[i]).decompress() {
                products[i] = edwards.mul_clamped(scalar);
                on_curve[i] = true;
            } else {
                *point = MontgomeryPoint(*point).mul_clamped(scalar).to_bytes();
            }
        }
        let u = Zeroizing::new(to_montgomery(&mut products));
        for ((point, u), _) in group.iter_mut().zip(*u).zip(on_curve).filter(|(_, on_curve)| *on_curve) {
            *point = u;
        }
    }
}

/// The u-coordinates of all, for two inversions; erases the points.
pub(crate) fn to_montgomery<const N: usize>(points: &mut [EdwardsPoint; N]) -> [[u8; 32]; N] {
    let y = Zeroizing::new(EdwardsPoint::compress_batch(points).map(|y| y.to_bytes()));
    points.zeroize();
    field::u_from_y(&y)
}
