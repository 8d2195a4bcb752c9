//! Why a checkpoint was not loaded, or an input not taken.

use std::path::PathBuf;

use causerie_kernels::KernelError;
use causerie_kernels::cuda::DeviceError;

/// Why a checkpoint was not loaded, or an input not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OmniError {
    /// A file cannot be read.
    #[error(transparent)]
    Open(#[from] KernelError),
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A field of the configuration is missing or contradicts another.
    #[error("config.json: {field}: {problem}")]
    Config {
        /// Its path, dot for dot.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Tensors that the configuration calls for are not in the checkpoint.
    #[error("the checkpoint lacks {count} tensors, {first} for one")]
    MissingTensors {
        /// How many were found missing.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// Tensors that the configuration does not call for.
    #[error("the checkpoint has {count} tensors that the configuration does not know, {first} for one")]
    ExtraTensors {
        /// How many.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// A tensor does not have the shape that the configuration implies.
    #[error("{name} has the shape {found:?}; expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type that is not known here.
    #[error("{name} is stored as {dtype}; known are F32, BF16 and F16")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// A tensor holds a value that is not a finite number.
    #[error("{name} holds {value} at {index}")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Where.
        index: usize,
        /// What.
        value: f32,
    },
    /// A window beyond what the model's positions reach.
    #[error("a window of {window} tokens is beyond the {reach} that the model's positions reach; scale them (yarn)")]
    Window {
        /// Tokens wanted.
        window: usize,
        /// Tokens reached.
        reach: usize,
    },
    /// The device has not enough memory.
    #[error("{needed} bytes are needed, the device has {device}:\n{report}")]
    Fit {
        /// Bytes needed.
        needed: u64,
        /// Bytes of the device.
        device: u64,
        /// What needs how much.
        report: String,
    },
    /// A device cannot do what was asked of it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A token that the model does not have.
    #[error("token {token} is outside of the vocabulary of {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// Tokens of the model.
        vocabulary: usize,
    },
    /// Input that cannot be made into tokens.
    #[error("{0}")]
    Input(String),
    /// There is no room for more tokens.
    #[error("{wanted} blocks of memory are needed, {free} are free")]
    NoRoom {
        /// Blocks needed.
        wanted: usize,
        /// Blocks free.
        free: usize,
    },
}

impl OmniError {
    pub(super) fn malformed(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), problem: problem.into() }
    }

    pub(super) fn config(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config { field: field.into(), problem: problem.into() }
    }
}
