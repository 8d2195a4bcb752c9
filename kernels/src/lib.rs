//! Arithmetic: every op as a readable reference and a fast CPU version, dispatched at run time, and more and
//! more of them as kernels for a GPU.
//!
//! This crate is the only home of intrinsics and memory-mapped files. Tensors are slices with shapes in the
//! documentation; wrappers check lengths before anything unsafe happens.

pub mod cuda;
pub mod dispatch;
pub mod fp8;
pub mod mmap;
pub mod ops;
mod pool;

pub use pool::Pool;

/// Why an op or a file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Data that cannot be what it claims to be.
    #[error("{0}")]
    Malformed(String),
    /// Sound, but not known here.
    #[error("{0}")]
    Unsupported(String),
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Its error.
        source: std::io::Error,
    },
}
