//! From a checkpoint's tensors to weights in memory: every name and shape is checked, every value is a finite number, and
//! at the end every tensor of the checkpoint has been used.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use causerie_kernels::Pool;
use causerie_kernels::ops::linear::{NarrowType, WeightType, Weights};

use super::OmniError;
use super::checkpoint::{Checkpoint, Tensor};

/// How weights are kept in memory. What is narrower than bfloat16 is for the layers of the decoders, which are nearly all
/// of a model; embeddings, heads, routers, towers and vocoder are bfloat16 then. Norms and convolutions are always 32-bit
/// floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// 32-bit floats, whatever the checkpoint stores.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// Eight-bit floats with a scale an output.
    Fp8,
    /// Four-bit integers with a scale for 128 inputs.
    Int4,
}

impl Placement {
    /// What a matrix of a decoder's layers is narrowed to, or any other one.
    pub(super) fn of(self, layer: bool) -> Option<NarrowType> {
        match self {
            Self::F32 => None,
            Self::Fp8 if layer => Some(NarrowType::Fp8),
            Self::Int4 if layer => Some(NarrowType::Int4),
            Self::Bf16 | Self::Fp8 | Self::Int4 => Some(NarrowType::Bf16),
        }
    }
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Int4 => "int4",
        })
    }
}

/// Takes tensors out of a checkpoint by name. Absent ones are noted and stand as zeros, so that one load names all that is
/// missing: [`Loader::finish`] tells.
pub(super) struct Loader<'a> {
    pool: &'a Pool,
    checkpoint: &'a Checkpoint,
    placement: Placement,
    placed: Cell<u64>,
    used: RefCell<BTreeSet<String>>,
    missing: RefCell<Vec<String>>,
    /// Zeros that may still stand for missing tensors.
    zeros: Cell<usize>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(pool: &'a Pool, checkpoint: &'a Checkpoint, placement: Placement) -> Self {
        Self {
            pool,
            checkpoint,
            placement,
            placed: Cell::default(),
            used: RefCell::default(),
            missing: RefCell::default(),
            zeros: Cell::new(checkpoint.sizes(0).values().map(|size| size.parameters).sum()),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        self.pool
    }

    /// The values of a tensor of that shape, to be kept as they are.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, OmniError> {
        let values = self.read(name, shape)?;
        self.place(None, values.len(), 1);
        Ok(values)
    }

    /// The values of a tensor of that shape, to be [packed](Loader::pack).
    pub(super) fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, OmniError> {
        let Some(tensor) = self.find(name, shape)? else { return self.absent(shape) };
        let values = tensor.floats(name)?;
        self.checkpoint.release(name);
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(OmniError::NotFinite { name: name.to_owned(), index, value: values[index] }),
            None => Ok(values),
        }
    }

    /// Zeros for a missing tensor. Where more is missing than is there, the configuration is of another model: there is no
    /// use in going through all of it, and it may be of any size.
    fn absent(&self, shape: &[usize]) -> Result<Vec<f32>, OmniError> {
        let values = shape.iter().try_fold(1_usize, |values, side| values.checked_mul(*side));
        let left = values.and_then(|values| self.zeros.get().checked_sub(values));
        self.zeros.set(left.ok_or_else(|| missing(&self.missing.borrow()))?);
        Ok(vec![0.0; shape.iter().product()])
    }

    /// A vector of `n` values.
    pub(super) fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, OmniError> {
        self.values(name, &[n])
    }

    /// A matrix `[n, k]`, packed.
    pub(super) fn matrix(&self, name: &str, n: usize, k: usize) -> Result<Weights, OmniError> {
        self.pack(n, k, &self.read(name, &[n, k])?)
    }

    /// A matrix of a decoder's layer, packed: as narrow as is wanted.
    pub(super) fn layer_matrix(&self, name: &str, n: usize, k: usize) -> Result<Weights, OmniError> {
        self.pack_as(self.placement.of(true), n, k, &self.read(name, &[n, k])?)
    }

    /// Packs `values`, a matrix `[n, k]`.
    pub(super) fn pack(&self, n: usize, k: usize, values: &[f32]) -> Result<Weights, OmniError> {
        self.pack_as(self.placement.of(false), n, k, values)
    }

    fn pack_as(&self, kind: Option<NarrowType>, n: usize, k: usize, values: &[f32]) -> Result<Weights, OmniError> {
        self.place(kind, n, k);
        let Some(kind) = kind else { return pack(self.pool, n, k, values) };
        Ok(Weights::narrow(self.pool, kind, n, k, values)?)
    }

    fn place(&self, kind: Option<NarrowType>, n: usize, k: usize) {
        let (n, k) = (n as u64, k as u64);
        self.placed.set(self.placed.get() + kind.map_or(4 * n * k, |kind| kind.bytes(n, k)));
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'a>>, OmniError> {
        self.used.borrow_mut().insert(name.to_owned());
        let Some(tensor) = self.checkpoint.tensor(name) else {
            self.missing.borrow_mut().push(name.to_owned());
            return Ok(None);
        };
        if tensor.shape != shape {
            let (found, expected) = (tensor.shape.to_vec(), shape.to_vec());
            return Err(OmniError::Shape { name: name.to_owned(), found, expected });
        }
        Ok(Some(tensor))
    }

    /// Whether all that was asked for was there, and all that is there was asked for. Returns the bytes that it takes.
    pub(super) fn finish(self) -> Result<u64, OmniError> {
        let absent = self.missing.into_inner();
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        let used = self.used.into_inner();
        let extra: Vec<&str> = self.checkpoint.names().filter(|name| !used.contains(*name)).collect();
        match extra.first() {
            Some(first) => Err(OmniError::ExtraTensors { count: extra.len(), first: (*first).to_owned() }),
            None => Ok(self.placed.get()),
        }
    }
}

fn missing(names: &[String]) -> OmniError {
    OmniError::MissingTensors { count: names.len(), first: names.first().cloned().unwrap_or_default() }
}

/// Packs `values`, a matrix `[n, k]`, as they are.
fn pack(pool: &Pool, n: usize, k: usize, values: &[f32]) -> Result<Weights, OmniError> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(Weights::pack(pool, WeightType::F32, n, k, &bytes)?)
}
