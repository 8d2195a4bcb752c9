//! From a checkpoint's tensors to weights in memory: every name and shape is checked, every value is a finite number, and
//! at the end every tensor of the checkpoint has been used.

use std::cell::RefCell;
use std::collections::BTreeSet;

use causerie_kernels::Pool;
use causerie_kernels::ops::linear::{WeightType, Weights};

use super::OmniError;
use super::checkpoint::{Checkpoint, Tensor};

/// How weights are kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// Takes tensors out of a checkpoint by name. Absent ones are noted and stand as zeros, so that one load names all that is
/// missing: [`Loader::finish`] tells.
pub(super) struct Loader<'a> {
    pool: &'a Pool,
    checkpoint: &'a Checkpoint,
    used: RefCell<BTreeSet<String>>,
    missing: RefCell<Vec<String>>,
}

impl<'a> Loader<'a> {
    /// # Errors
    /// [`OmniError::Placement`] for placements that are not there yet.
    pub(super) fn new(pool: &'a Pool, checkpoint: &'a Checkpoint, placement: Placement) -> Result<Self, OmniError> {
        match placement {
            Placement::F32 => {}
            Placement::Bf16 => return Err(OmniError::Placement("bf16")),
            Placement::Fp8 => return Err(OmniError::Placement("fp8")),
            Placement::Int4 => return Err(OmniError::Placement("int4")),
        }
        Ok(Self { pool, checkpoint, used: RefCell::default(), missing: RefCell::default() })
    }

    pub(super) fn pool(&self) -> &Pool {
        self.pool
    }

    /// The values of a tensor of that shape.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, OmniError> {
        let Some(tensor) = self.find(name, shape)? else { return Ok(vec![0.0; shape.iter().product()]) };
        let values = tensor.floats(name)?;
        self.checkpoint.release(name);
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(OmniError::NotFinite { name: name.to_owned(), index, value: values[index] }),
            None => Ok(values),
        }
    }

    /// A vector of `n` values.
    pub(super) fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, OmniError> {
        self.values(name, &[n])
    }

    /// A matrix `[n, k]`, packed.
    pub(super) fn matrix(&self, name: &str, n: usize, k: usize) -> Result<Weights, OmniError> {
        let values = self.values(name, &[n, k])?;
        pack(self.pool, n, k, &values)
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

    /// Whether all that was asked for was there, and all that is there was asked for.
    pub(super) fn finish(self) -> Result<(), OmniError> {
        let missing = self.missing.into_inner();
        if let Some(first) = missing.first() {
            return Err(OmniError::MissingTensors { count: missing.len(), first: first.clone() });
        }
        let used = self.used.into_inner();
        let extra: Vec<&str> = self.checkpoint.names().filter(|name| !used.contains(*name)).collect();
        match extra.first() {
            Some(first) => Err(OmniError::ExtraTensors { count: extra.len(), first: (*first).to_owned() }),
            None => Ok(()),
        }
    }
}

/// Packs `values`, a matrix `[n, k]`.
pub(super) fn pack(pool: &Pool, n: usize, k: usize, values: &[f32]) -> Result<Weights, OmniError> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(Weights::pack(pool, WeightType::F32, n, k, &bytes)?)
}
