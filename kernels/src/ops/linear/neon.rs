//! [`Lanes`] in NEON: eight rows in two 128-bit registers.
//!
//! With the dot product instruction (`sdot`), four products a row are added in 32 bits at once. Without it they are made
//! in 16 bits (`smull`), added in pairs there (`addp`), and the pairs are added to the sums in 32 bits (`sadalp`): four
//! instructions for four rows, half of which can go beside the other half on a processor with one multiplier.

use std::arch::aarch64::*;
use std::arch::asm;

use super::lanes::Lanes;

/// Eight rows in two registers. `DOT`: with `sdot`.
pub(in crate::ops) struct Neon<const DOT: bool>;

/// `sums + ` the products of four bytes a row.
///
/// # Safety
/// The processor has the instruction.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot(mut sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // The intrinsic, `vdotq_s32`, is not stable.
    // SAFETY: the caller's promise; the instruction touches nothing but the three registers.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// [`sdot`] where there is no such instruction. A pair of products fits 16 bits: 2 · 128 · 127.
#[inline(always)]
unsafe fn widening_dot(sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: every processor that a caller may run on has NEON.
    unsafe {
        let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
        let high = vmull_high_s8(weights, x);
        vpadalq_s16(sums, vpaddq_s16(low, high))
    }
}

/// Eight bytes as integers of 32 bits.
#[inline(always)]
unsafe fn widen_u8(at: *const u8) -> [uint32x4_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let wide = vmovl_u8(vld1_u8(at));
        [vmovl_u16(vget_low_u16(wide)), vmovl_high_u16(wide)]
    }
}

// SAFETY of every block: the trait's contract, as its documentation states it, is passed on to the intrinsics.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one contract for all methods, stated on the trait")]
impl<const DOT: bool> Lanes for Neon<DOT> {
    const ROWS: usize = 8;
    type Bytes = [uint8x16_t; 2];
    type Sums = [int32x4_t; 2];
    type Ints = [int32x4_t; 2];
    type Scales = [int32x4_t; 2];
    type Floats = [float32x4_t; 2];

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> Self::Bytes {
        unsafe { [vld1q_u8(at), vld1q_u8(at.add(16))] }
    }
    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a hint, which reads nothing whatever the address.
        unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags)) }
    }
    #[inline(always)]
    unsafe fn low([a, b]: Self::Bytes) -> Self::Bytes {
        unsafe { [vandq_u8(a, vdupq_n_u8(15)), vandq_u8(b, vdupq_n_u8(15))] }
    }
    #[inline(always)]
    unsafe fn high([a, b]: Self::Bytes) -> Self::Bytes {
        unsafe { [vshrq_n_u8::<4>(a), vshrq_n_u8::<4>(b)] }
    }
    #[inline(always)]
    unsafe fn lower_six([a, b]: Self::Bytes) -> Self::Bytes {
        unsafe { [vandq_u8(a, vdupq_n_u8(63)), vandq_u8(b, vdupq_n_u8(63))] }
    }
    #[inline(always)]
    unsafe fn upper_two([a, b, c]: [Self::Bytes; 3]) -> Self::Bytes {
        // Shifts that insert: the upper bits of c, then those of b, then those of a, and what is left of a's others.
        unsafe {
            let first = vsriq_n_u8::<4>(vsriq_n_u8::<2>(c[0], b[0]), a[0]);
            let second = vsriq_n_u8::<4>(vsriq_n_u8::<2>(c[1], b[1]), a[1]);
            [vshrq_n_u8::<2>(first), vshrq_n_u8::<2>(second)]
        }
    }

    #[inline(always)]
    unsafe fn zero_sums() -> Self::Sums {
        unsafe { [vdupq_n_s32(0); 2] }
    }
    #[inline(always)]
    unsafe fn start_sums(at: *const [i16; 2]) -> Self::Sums {
        unsafe {
            let [a, b] = *at;
            [vdupq_n_s32(i32::from(a) + i32::from(b)); 2]
        }
    }
    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, weights: Self::Bytes, at: *const i8) -> Self::Sums {
        // Up to six bits mean the same with a sign.
        unsafe { Self::dot_signed(sums, weights, at) }
    }
    #[inline(always)]
    unsafe fn scales_u8(at: *const u8) -> Self::Scales {
        unsafe {
            let [a, b] = widen_u8(at);
            [vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b)]
        }
    }
    #[inline(always)]
    unsafe fn scales_i8(at: *const u8) -> Self::Scales {
        unsafe {
            let wide = vmovl_s8(vld1_s8(at.cast()));
            [vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide)]
        }
    }
    #[inline(always)]
    unsafe fn scale(sums: Self::Sums, scales: Self::Scales) -> Self::Ints {
        unsafe { [vmulq_s32(sums[0], scales[0]), vmulq_s32(sums[1], scales[1])] }
    }
    #[inline(always)]
    unsafe fn ints(sums: Self::Sums) -> Self::Ints {
        sums
    }
    #[inline(always)]
    unsafe fn zero_ints() -> Self::Ints {
        unsafe { Self::zero_sums() }
    }
    #[inline(always)]
    unsafe fn add_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { [vaddq_s32(a[0], b[0]), vaddq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn start_signed(_: *const [i16; 2]) -> Self::Ints {
        unsafe { Self::zero_sums() }
    }
    #[inline(always)]
    unsafe fn dot_signed(sums: Self::Ints, weights: Self::Bytes, at: *const i8) -> Self::Ints {
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(at.cast::<i32>().read_unaligned()));
            let [a, b] = [vreinterpretq_s8_u8(weights[0]), vreinterpretq_s8_u8(weights[1])];
            if DOT {
                [sdot(sums[0], a, x), sdot(sums[1], b, x)]
            } else {
                [widening_dot(sums[0], a, x), widening_dot(sums[1], b, x)]
            }
        }
    }

    #[inline(always)]
    unsafe fn floats(ints: Self::Ints) -> Self::Floats {
        unsafe { [vcvtq_f32_s32(ints[0]), vcvtq_f32_s32(ints[1])] }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> Self::Floats {
        unsafe {
            let halves = vreinterpretq_f16_u16(vld1q_u16(at.cast()));
            [vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)]
        }
    }
    #[inline(always)]
    unsafe fn floats_u8(at: *const u8) -> Self::Floats {
        unsafe {
            let [a, b] = widen_u8(at);
            [vcvtq_f32_u32(a), vcvtq_f32_u32(b)]
        }
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self::Floats {
        unsafe { [vld1q_f32(at), vld1q_f32(at.add(4))] }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, value: Self::Floats) {
        unsafe {
            vst1q_f32(at, value[0]);
            vst1q_f32(at.add(4), value[1]);
        }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        unsafe { [vdupq_n_f32(value); 2] }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul_sub(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        unsafe { [vfmsq_f32(c[0], a[0], b[0]), vfmsq_f32(c[1], a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn sums_of_four(vectors: [Self::Floats; 4]) -> [f32; 4] {
        unsafe {
            let [a, b, c, d] = vectors.map(|[low, high]| vaddq_f32(low, high));
            let mut sums = [0.0; 4];
            vst1q_f32(sums.as_mut_ptr(), vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
            sums
        }
    }
}
