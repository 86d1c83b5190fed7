//! Four lanes in the registers of AVX2.

use core::arch::x86_64::{
    __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_blendv_epi8, _mm256_cmpeq_epi64, _mm256_loadu_si256,
    _mm256_mul_epu32, _mm256_mullo_epi32, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_slli_epi64,
    _mm256_srli_epi64, _mm256_storeu_si256, _mm256_sub_epi64, _mm256_xor_si256,
};

use super::{field26::field26, ladder::ladder};

pub(super) const LANES: usize = 4;

type Vector = __m256i;
/// All ones or all zeros in each lane.
type Mask = __m256i;

/// One function per instruction, each for processors that have it.
macro_rules! instructions {
    ($(fn $name:ident $(<const $n:ident: i32>)? ($($arg:ident: $type:ty),*) -> $out:ty { $body:expr })*) => {$(
        #[target_feature(enable = "avx2")]
        #[inline]
        fn $name $(<const $n: i32>)? ($($arg: $type),*) -> $out { $body }
    )*};
}

instructions! {
    fn splat(n: u64) -> Vector { _mm256_set1_epi64x(n.cast_signed()) }
    fn add64(a: Vector, b: Vector) -> Vector { _mm256_add_epi64(a, b) }
    fn sub64(a: Vector, b: Vector) -> Vector { _mm256_sub_epi64(a, b) }
    fn and(a: Vector, b: Vector) -> Vector { _mm256_and_si256(a, b) }
    fn shift_right<const N: i32>(a: Vector) -> Vector { _mm256_srli_epi64::<N>(a) }
    fn shift_left<const N: i32>(a: Vector) -> Vector { _mm256_slli_epi64::<N>(a) }
    fn mul32(a: Vector, b: Vector) -> Vector { _mm256_mul_epu32(a, b) }
    fn mul_low32(a: Vector, b: Vector) -> Vector { _mm256_mullo_epi32(a, b) }
    fn select64(mask: Mask, a: Vector, b: Vector) -> Vector { _mm256_blendv_epi8(a, b, mask) }
    fn no_lane() -> Mask { _mm256_setzero_si256() }
    fn xor_mask(a: Mask, b: Mask) -> Mask { _mm256_xor_si256(a, b) }
    fn bit_of(word: Vector, bit: u32) -> Mask { _mm256_cmpeq_epi64(and(word, splat(1 << bit)), splat(1 << bit)) }
    fn load(words: [u64; LANES]) -> Vector { load_unaligned(&words) }
    fn store(vector: Vector) -> [u64; LANES] { store_unaligned(vector) }
}

#[target_feature(enable = "avx2")]
#[inline]
#[expect(unsafe_code)]
fn load_unaligned(words: &[u64; LANES]) -> Vector {
    // SAFETY: the pointer is valid for 32 bytes, as it comes from a reference to as many; no alignment is needed.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
#[expect(unsafe_code)]
fn store_unaligned(vector: Vector) -> [u64; LANES] {
    let mut words = [0; LANES];
    // SAFETY: the pointer is valid for 32 bytes, as it comes from a reference to as many; no alignment is needed.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) };
    words
}

field26!(#[target_feature(enable = "avx2")]);
ladder!(#[target_feature(enable = "avx2")]);
