//! Noise that follows from a seed and the place of a value alone: weights of a size that nobody wants to carry to a device, of
//! which any part can be made again elsewhere.
//!
//! `y[i] = (splitmix64(seed, i) / 2^23 - 1) scale`, of its upper 24 bits, rounded to bf16.

pub(crate) mod cases;
pub mod cuda;
pub mod reference;
