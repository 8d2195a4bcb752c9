//! One folder an op: contract and shape checks in `mod.rs`, meaning in `reference.rs`, speed in `cpu.rs`.

pub mod attention;
pub mod causal_conv1d;
pub mod conv1d;
pub mod conv2d;
pub mod depthwise_conv1d;
pub mod embedding;
pub mod experts;
pub mod gelu;
pub mod gelu_tanh;
pub mod gemm;
pub mod layer_norm;
pub mod linear;
pub mod log_mel;
pub mod noise;
pub mod norm_rope;
pub mod paged_attention;
pub mod quantised;
pub mod rms_norm;
pub mod rope;
pub mod router;
pub mod sample;
pub mod scatter;
pub mod snake_beta;
pub mod softmax;
mod split;
pub mod swiglu;
#[cfg(test)]
mod testing;
pub mod transposed_conv1d;
