//! The few vector operations the kernels are made of. [`super::tile`], [`super::panel`] and the kernel of
//! [`crate::ops::attention`] are written once over this trait; a backend is an implementation of it.
//!
//! A vector has one lane for each of [`Lanes::ROWS`] outputs; in a vector of bytes a lane is four consecutive weights of
//! its row, so that one broadcast of four activations serves all rows. Weights are unsigned, activations are signed and
//! in −127…127.
//!
//! Implementations are `#[inline(always)]` so that they take the instruction set of the kernel they end up in.

/// Vector operations of one backend.
///
/// # Safety
/// Everybody who calls a method must run on a processor that has the backend's instructions, and pass pointers that are
/// valid for the bytes named.
pub(in crate::ops) trait Lanes {
    /// Outputs computed at once.
    const ROWS: usize;
    /// `ROWS × 4` unsigned bytes.
    type Bytes: Copy;
    /// Running sums of products of bytes. They may hold no more than [`Lanes::dot`] says.
    type Sums: Copy;
    /// One 32-bit integer a row.
    type Ints: Copy;
    /// Integer scales, one a row.
    type Scales: Copy;
    /// One float a row.
    type Floats: Copy;

    /// `4 · ROWS` bytes at `at`.
    unsafe fn bytes(at: *const u8) -> Self::Bytes;
    /// Asks for the cache line at `at` to be brought near; `at` need not be valid.
    fn prefetch(at: *const u8);
    /// The low nibbles.
    unsafe fn low(bytes: Self::Bytes) -> Self::Bytes;
    /// The high nibbles.
    unsafe fn high(bytes: Self::Bytes) -> Self::Bytes;
    /// The lower six bits.
    unsafe fn lower_six(bytes: Self::Bytes) -> Self::Bytes;
    /// The upper two bits of each, those of the first lowest: six bits.
    unsafe fn upper_two(bytes: [Self::Bytes; 3]) -> Self::Bytes;

    /// Nothing summed yet.
    unsafe fn zero_sums() -> Self::Sums;
    /// Sums that start at `at[0] + at[1]` in every row.
    unsafe fn start_sums(at: *const [i16; 2]) -> Self::Sums;
    /// Adds the products of four weights a row and the four activations at `at`. A sum may take eight times four
    /// products with weights up to 15. It wraps: with larger weights the true sum, the start included, must fit 16 bits
    /// in each of two halves (activations 0 and 1, 2 and 3 of the four), and a pair of products must.
    unsafe fn dot(sums: Self::Sums, weights: Self::Bytes, at: *const i8) -> Self::Sums;
    /// `ROWS` unsigned scales (up to 127).
    unsafe fn scales_u8(at: *const u8) -> Self::Scales;
    /// `ROWS` signed scales.
    unsafe fn scales_i8(at: *const u8) -> Self::Scales;
    /// Sums times scales.
    unsafe fn scale(sums: Self::Sums, scales: Self::Scales) -> Self::Ints;
    /// Sums as they are.
    unsafe fn ints(sums: Self::Sums) -> Self::Ints;
    /// Nothing added yet.
    unsafe fn zero_ints() -> Self::Ints;
    /// Sum of integers.
    unsafe fn add_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints;

    /// Where [`Lanes::dot_signed`] starts, given −32 times the sums of the block's activations (two entries of
    /// [`super::activations::Activations::offsets`]).
    unsafe fn start_signed(at: *const [i16; 2]) -> Self::Ints;
    /// Adds the products of four *signed* weights a row and the four activations at `at`.
    unsafe fn dot_signed(sums: Self::Ints, weights: Self::Bytes, at: *const i8) -> Self::Ints;

    /// Integers as floats.
    unsafe fn floats(ints: Self::Ints) -> Self::Floats;
    /// `ROWS` half floats.
    unsafe fn halves(at: *const u8) -> Self::Floats;
    /// `ROWS` unsigned bytes as floats.
    unsafe fn floats_u8(at: *const u8) -> Self::Floats;
    /// `ROWS` floats.
    unsafe fn load(at: *const f32) -> Self::Floats;
    /// Writes `ROWS` floats.
    unsafe fn store(at: *mut f32, value: Self::Floats);
    /// The same float in every row.
    unsafe fn splat(value: f32) -> Self::Floats;
    /// Product.
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`, rounded once where the backend can.
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c − a · b`, rounded once where the backend can.
    unsafe fn mul_sub(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The sum of each vector's rows.
    unsafe fn sums_of_four(vectors: [Self::Floats; 4]) -> [f32; 4];
}
