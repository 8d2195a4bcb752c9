//! The meaning of [`super`], in 64-bit integers.

/// The values of the places `range`, before they are rounded.
pub fn noise(seed: u64, range: std::ops::Range<u64>, scale: f32) -> Vec<f32> {
    let value = |at: u64| {
        let mut z = seed.wrapping_add((at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    range.map(value).collect()
}
