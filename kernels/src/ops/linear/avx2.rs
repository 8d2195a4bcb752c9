//! [`Lanes`] in AVX2, FMA and F16C: eight rows.
//!
//! `vpmaddubsw` multiplies unsigned weights by signed activations and adds pairs in 16 bits. Sums stay in 16 bits for a
//! whole block, and the one `vpmaddwd` that widens them multiplies by the block's scale as well: on processors with one
//! 128-bit multiplier (Zen 1) multiplications are what a quantised product costs.

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// Eight rows in a `ymm` register.
pub(in crate::ops) struct Avx2;

// SAFETY of every block: the trait's contract, as its documentation states it, is passed on to the intrinsics.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one contract for all methods, stated on the trait")]
impl Lanes for Avx2 {
    const ROWS: usize = 8;
    type Bytes = __m256i;
    type Sums = __m256i;
    type Ints = __m256i;
    type Scales = __m256i;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(at.cast()) }
    }
    #[inline(always)]
    fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn low(bytes: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(bytes, _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn high(bytes: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn lower_six(bytes: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(bytes, _mm256_set1_epi8(63)) }
    }
    #[inline(always)]
    unsafe fn upper_two([a, b, c]: [__m256i; 3]) -> __m256i {
        unsafe {
            let a = _mm256_and_si256(_mm256_srli_epi16::<6>(a), _mm256_set1_epi8(3));
            let b = _mm256_and_si256(_mm256_srli_epi16::<4>(b), _mm256_set1_epi8(12));
            let c = _mm256_and_si256(_mm256_srli_epi16::<2>(c), _mm256_set1_epi8(48));
            _mm256_or_si256(_mm256_or_si256(a, b), c)
        }
    }

    #[inline(always)]
    unsafe fn zero_sums() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn start_sums(at: *const [i16; 2]) -> __m256i {
        unsafe { _mm256_set1_epi32(at.cast::<i32>().read_unaligned()) }
    }
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dot(sums: __m256i, weights: __m256i, at: *const i8) -> __m256i {
        unsafe {
            let x = _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
            let mut sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, x));
            // Keeps the compiler from turning the chain of sums into trees, which need more registers than there are.
            std::arch::asm!("/* {0} */", inout(ymm_reg) sums, options(pure, nomem, nostack, preserves_flags));
            sums
        }
    }
    #[inline(always)]
    unsafe fn scales_u8(at: *const u8) -> __m256i {
        // Byte `row` twice, as 16-bit numbers: a row has two halves of sums.
        unsafe {
            let low = _mm_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1);
            let high = _mm_setr_epi8(4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
            let bytes = _mm256_set1_epi64x(at.cast::<i64>().read_unaligned());
            _mm256_shuffle_epi8(bytes, _mm256_set_m128i(high, low))
        }
    }
    #[inline(always)]
    unsafe fn scales_i8(at: *const u8) -> __m256i {
        unsafe {
            let low = _mm_setr_epi8(-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3);
            let high = _mm_setr_epi8(-1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7);
            let bytes = _mm256_set1_epi64x(at.cast::<i64>().read_unaligned());
            _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(bytes, _mm256_set_m128i(high, low)))
        }
    }
    #[inline(always)]
    unsafe fn scale(sums: __m256i, scales: __m256i) -> __m256i {
        unsafe { _mm256_madd_epi16(sums, scales) }
    }
    #[inline(always)]
    unsafe fn ints(sums: __m256i) -> __m256i {
        unsafe { _mm256_madd_epi16(sums, _mm256_set1_epi16(1)) }
    }
    #[inline(always)]
    unsafe fn zero_ints() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn add_ints(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn start_signed(_: *const [i16; 2]) -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn dot_signed(sums: __m256i, weights: __m256i, at: *const i8) -> __m256i {
        // |w| · (x with the sign of w): a weight of −128 is 128 as an unsigned byte, and 2 · 128 · 127 fits 16 bits.
        unsafe {
            let x = _mm256_sign_epi8(_mm256_set1_epi32(at.cast::<i32>().read_unaligned()), weights);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), x);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn floats(ints: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(ints) }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }
    #[inline(always)]
    unsafe fn floats_u8(at: *const u8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast()))) }
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, value: __m256) {
        unsafe { _mm256_storeu_ps(at, value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn mul_sub(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sums_of_four([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        unsafe {
            let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let lanes = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xEE>(ab, cd));
            let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), four);
            sums
        }
    }
}
