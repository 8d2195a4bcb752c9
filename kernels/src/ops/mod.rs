//! One folder an op: contract and shape checks in `mod.rs`, meaning in `reference.rs`, speed in `cpu.rs`.

pub mod attention;
pub mod conv1d;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod log_mel;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod softmax;
mod split;
pub mod swiglu;
