//! [`Lanes`] in AVX-512 F, BW and VNNI: sixteen rows. `vpdpbusd` multiplies four unsigned weights by four signed
//! activations and adds them in 32 bits, so nothing can overflow and scales are applied in 32 bits.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::lanes::Lanes;

/// Sixteen rows in a `zmm` register.
pub(in crate::ops) struct Avx512;

// SAFETY of every block: the trait's contract, as its documentation states it, is passed on to the intrinsics.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one contract for all methods, stated on the trait")]
impl Lanes for Avx512 {
    const ROWS: usize = 16;
    type Bytes = __m512i;
    type Sums = __m512i;
    type Ints = __m512i;
    type Scales = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(at.cast()) }
    }
    #[inline(always)]
    fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn low(bytes: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn high(bytes: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn lower_six(bytes: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(63)) }
    }
    #[inline(always)]
    unsafe fn upper_two([a, b, c]: [__m512i; 3]) -> __m512i {
        unsafe {
            let a = _mm512_and_si512(_mm512_srli_epi16::<6>(a), _mm512_set1_epi8(3));
            let b = _mm512_and_si512(_mm512_srli_epi16::<4>(b), _mm512_set1_epi8(12));
            let c = _mm512_and_si512(_mm512_srli_epi16::<2>(c), _mm512_set1_epi8(48));
            _mm512_or_si512(_mm512_or_si512(a, b), c)
        }
    }

    #[inline(always)]
    unsafe fn zero_sums() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn start_sums(at: *const [i16; 2]) -> __m512i {
        unsafe {
            let [a, b] = *at;
            _mm512_set1_epi32(i32::from(a) + i32::from(b))
        }
    }
    #[inline(always)]
    unsafe fn dot(sums: __m512i, weights: __m512i, at: *const i8) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(at.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn scales_u8(at: *const u8) -> __m512i {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())) }
    }
    #[inline(always)]
    unsafe fn scales_i8(at: *const u8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())) }
    }
    #[inline(always)]
    unsafe fn scale(sums: __m512i, scales: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(sums, scales) }
    }
    #[inline(always)]
    unsafe fn ints(sums: __m512i) -> __m512i {
        sums
    }
    #[inline(always)]
    unsafe fn zero_ints() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn add_ints(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn start_signed(at: *const [i16; 2]) -> __m512i {
        // Weights are taken as w + 128, so −128 times the sum of the activations is owed: four times what is stored.
        unsafe {
            let [[a, b], [c, d]] = at.cast::<[[i16; 2]; 2]>().read_unaligned();
            _mm512_set1_epi32(4 * (i32::from(a) + i32::from(b) + i32::from(c) + i32::from(d)))
        }
    }
    #[inline(always)]
    unsafe fn dot_signed(sums: __m512i, weights: __m512i, at: *const i8) -> __m512i {
        unsafe {
            let weights = _mm512_xor_si512(weights, _mm512_set1_epi8(-128));
            _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(at.cast::<i32>().read_unaligned()))
        }
    }

    #[inline(always)]
    unsafe fn floats(ints: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(ints) }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }
    #[inline(always)]
    unsafe fn floats_u8(at: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast()))) }
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(at, value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn mul_sub(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sums_of_four(vectors: [__m512; 4]) -> [f32; 4] {
        // The halves of each, then as in AVX2.
        unsafe {
            let mut halves = [_mm256_setzero_ps(); 4];
            for (half, vector) in halves.iter_mut().zip(vectors) {
                let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(vector)));
                *half = _mm256_add_ps(_mm512_castps512_ps256(vector), high);
            }
            Avx2::sums_of_four(halves)
        }
    }
}
