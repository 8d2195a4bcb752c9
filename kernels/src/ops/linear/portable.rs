//! [`Lanes`] in plain Rust: the meaning of the operations, and the backend of machines without a faster one.

use half::f16;

use super::lanes::Lanes;

/// Eight rows in arrays.
pub(super) struct Portable;

type Eight<T> = [T; 8];

#[inline(always)]
fn each<T>(lane: impl FnMut(usize) -> T) -> Eight<T> {
    std::array::from_fn(lane)
}

/// The value at `at`, whatever its alignment.
#[inline(always)]
unsafe fn read<T: Copy>(at: *const u8) -> T {
    // SAFETY: the caller passes a pointer to at least `size_of::<T>()` bytes, all bit patterns of which are a T.
    unsafe { at.cast::<T>().read_unaligned() }
}

impl Lanes for Portable {
    const ROWS: usize = 8;
    type Bytes = [u8; 32];
    type Sums = Eight<i32>;
    type Ints = Eight<i32>;
    type Scales = Eight<i32>;
    type Floats = Eight<f32>;

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> Self::Bytes {
        // SAFETY: as the trait demands.
        unsafe { read(at) }
    }
    #[inline(always)]
    fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn low(bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|byte| byte & 15)
    }
    #[inline(always)]
    unsafe fn high(bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|byte| byte >> 4)
    }
    #[inline(always)]
    unsafe fn lower_six(bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|byte| byte & 63)
    }
    #[inline(always)]
    unsafe fn upper_two([a, b, c]: [Self::Bytes; 3]) -> Self::Bytes {
        std::array::from_fn(|i| a[i] >> 6 | b[i] >> 6 << 2 | c[i] >> 6 << 4)
    }

    #[inline(always)]
    unsafe fn zero_sums() -> Self::Sums {
        [0; 8]
    }
    #[inline(always)]
    unsafe fn start_sums(at: *const [i16; 2]) -> Self::Sums {
        // SAFETY: as the trait demands.
        let [a, b] = unsafe { *at };
        [i32::from(a) + i32::from(b); 8]
    }
    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, weights: Self::Bytes, at: *const i8) -> Self::Sums {
        // SAFETY: as the trait demands.
        let x: [i8; 4] = unsafe { read(at.cast()) };
        each(|row| (0..4).fold(sums[row], |sum, i| sum + i32::from(weights[4 * row + i]) * i32::from(x[i])))
    }
    #[inline(always)]
    unsafe fn scales_u8(at: *const u8) -> Self::Scales {
        // SAFETY: as the trait demands.
        unsafe { read::<Eight<u8>>(at) }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn scales_i8(at: *const u8) -> Self::Scales {
        // SAFETY: as the trait demands.
        unsafe { read::<Eight<i8>>(at) }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn scale(sums: Self::Sums, scales: Self::Scales) -> Self::Ints {
        each(|row| sums[row] * scales[row])
    }
    #[inline(always)]
    unsafe fn ints(sums: Self::Sums) -> Self::Ints {
        sums
    }
    #[inline(always)]
    unsafe fn zero_ints() -> Self::Ints {
        [0; 8]
    }
    #[inline(always)]
    unsafe fn add_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        each(|row| a[row] + b[row])
    }

    #[inline(always)]
    unsafe fn start_signed(_: *const [i16; 2]) -> Self::Ints {
        [0; 8]
    }
    #[inline(always)]
    unsafe fn dot_signed(sums: Self::Ints, weights: Self::Bytes, at: *const i8) -> Self::Ints {
        // SAFETY: as the trait demands.
        let x: [i8; 4] = unsafe { read(at.cast()) };
        each(|row| (0..4).fold(sums[row], |sum, i| sum + i32::from(weights[4 * row + i] as i8) * i32::from(x[i])))
    }

    #[inline(always)]
    unsafe fn floats(ints: Self::Ints) -> Self::Floats {
        ints.map(|value| value as f32)
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> Self::Floats {
        // SAFETY: as the trait demands.
        unsafe { read::<Eight<u16>>(at) }.map(|bits| f16::from_bits(u16::from_le(bits)).to_f32())
    }
    #[inline(always)]
    unsafe fn floats_u8(at: *const u8) -> Self::Floats {
        // SAFETY: as the trait demands.
        unsafe { read::<Eight<u8>>(at) }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self::Floats {
        // SAFETY: as the trait demands.
        unsafe { read(at.cast()) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, value: Self::Floats) {
        // SAFETY: as the trait demands.
        unsafe { at.cast::<Eight<f32>>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        [value; 8]
    }
    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each(|row| a[row] * b[row])
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each(|row| a[row] * b[row] + c[row])
    }
    #[inline(always)]
    unsafe fn mul_sub(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each(|row| c[row] - a[row] * b[row])
    }
    #[inline(always)]
    unsafe fn sums_of_four(vectors: [Self::Floats; 4]) -> [f32; 4] {
        vectors.map(|rows| rows.iter().sum())
    }
}
