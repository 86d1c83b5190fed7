//! Eight lanes in the registers of AVX-512 with the IFMA instructions.

use core::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_loadu_si512, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_blend_epi64, _mm512_mullo_epi64, _mm512_set1_epi64, _mm512_srli_epi64,
    _mm512_storeu_si512, _mm512_sub_epi64, _mm512_test_epi64_mask,
};

use super::{field51::field51, ladder::ladder};

pub(super) const LANES: usize = 8;

type Vector = __m512i;
type Mask = __mmask8;

/// One function per instruction, each for processors that have it.
macro_rules! instructions {
    ($(fn $name:ident $(<const $n:ident: u32>)? ($($arg:ident: $type:ty),*) -> $out:ty { $body:expr })*) => {$(
        #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
        #[inline]
        fn $name $(<const $n: u32>)? ($($arg: $type),*) -> $out { $body }
    )*};
}

instructions! {
    fn splat(n: u64) -> Vector { _mm512_set1_epi64(n.cast_signed()) }
    fn add64(a: Vector, b: Vector) -> Vector { _mm512_add_epi64(a, b) }
    fn sub64(a: Vector, b: Vector) -> Vector { _mm512_sub_epi64(a, b) }
    fn and(a: Vector, b: Vector) -> Vector { _mm512_and_si512(a, b) }
    fn shift_right<const N: u32>(a: Vector) -> Vector { _mm512_srli_epi64::<N>(a) }
    fn mul_low(a: Vector, b: Vector) -> Vector { _mm512_mullo_epi64(a, b) }
    fn madd_low(sum: Vector, a: Vector, b: Vector) -> Vector { _mm512_madd52lo_epu64(sum, a, b) }
    fn madd_high(sum: Vector, a: Vector, b: Vector) -> Vector { _mm512_madd52hi_epu64(sum, a, b) }
    fn select64(mask: Mask, a: Vector, b: Vector) -> Vector { _mm512_mask_blend_epi64(mask, a, b) }
    fn no_lane() -> Mask { 0 }
    fn xor_mask(a: Mask, b: Mask) -> Mask { a ^ b }
    fn bit_of(word: Vector, bit: u32) -> Mask { _mm512_test_epi64_mask(word, splat(1 << bit)) }
    fn load(words: [u64; LANES]) -> Vector { load_unaligned(&words) }
    fn store(vector: Vector) -> [u64; LANES] { store_unaligned(vector) }
}

#[target_feature(enable = "avx512f")]
#[inline]
#[expect(unsafe_code)]
fn load_unaligned(words: &[u64; LANES]) -> Vector {
    // SAFETY: the pointer is valid for 64 bytes, as it comes from a reference to as many; no alignment is needed.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
#[expect(unsafe_code)]
fn store_unaligned(vector: Vector) -> [u64; LANES] {
    let mut words = [0; LANES];
    // SAFETY: the pointer is valid for 64 bytes, as it comes from a reference to as many; no alignment is needed.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
    words
}

field51!(#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]);
ladder!(#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]);

#[cfg(test)]
mod tests {
    use super::{super::Ifma, *};

    /// Miri knows AVX-512 but not IFMA: of this file it can run what is `unsafe`, and only that.
    #[test]
    #[expect(unsafe_code)]
    fn words_are_loaded_and_stored() {
        #[target_feature(enable = "avx512f")]
        fn there_and_back(words: [u64; LANES]) -> [u64; LANES] {
            store_unaligned(load_unaligned(&words))
        }
        let words = core::array::from_fn(|i| i as u64 + 1);
        if Ifma::detect().is_some() {
            // SAFETY: the processor has AVX-512F.
            assert_eq!(unsafe { there_and_back(words) }, words);
        }
    }
}
