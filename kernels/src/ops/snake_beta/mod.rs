//! `y = x + sin²(x · e^alpha_c) / (e^beta_c + 1e-9)`: the periodic activation of neural vocoders (arXiv 2206.04658 §3.1).
//!
//! x, y: `[t, channels]` f32, row-major (time first). Parameters are one a channel.

pub(crate) mod cases;
mod cpu;
pub mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use super::split::for_each_rows;
use crate::{KernelError, Pool};

/// Values handed to a worker at once.
const GRAIN: usize = 1 << 12;

/// The parameters of all channels, ready for use.
pub struct SnakeBeta {
    /// (frequency, scale of the square) of a channel.
    channels: Vec<(f32, f32)>,
}

impl SnakeBeta {
    /// From the logarithms that checkpoints hold.
    ///
    /// # Errors
    /// [`KernelError::Malformed`] if there are no channels, or not as many of one as of the other.
    pub fn new(alpha: &[f32], beta: &[f32]) -> Result<Self, KernelError> {
        if alpha.is_empty() || alpha.len() != beta.len() {
            let message = format!("snake_beta: {} alphas, {} betas", alpha.len(), beta.len());
            return Err(KernelError::Malformed(message));
        }
        let scale = |beta: f32| (1.0 / (f64::from(beta).exp() + 1e-9)) as f32;
        Ok(Self { channels: alpha.iter().zip(beta).map(|(a, b)| (a.exp(), scale(*b))).collect() })
    }
}

/// Applies the activation in place.
///
/// # Panics
/// If `x` is not whole rows of the parameters' channels.
pub fn snake_beta(pool: &Pool, parameters: &SnakeBeta, x: &mut [f32]) {
    let n = parameters.channels.len();
    assert!(x.len().is_multiple_of(n), "snake_beta: {} values are not rows of {n}", x.len());
    for_each_rows(pool, x, n, GRAIN.div_ceil(n), &|_, rows| cpu::rows(&parameters.channels, rows));
}
