//! Comparison with a reference implementation: a folder holds a checkpoint, and for each case the inputs and what the
//! reference computed from them (`tests/golden/qwen3-omni-tiny/make_tiny.py` writes such folders).
//!
//! A case is a file `NAME.safetensors`. One with `in.input_ids` goes through towers and thinker; `speech_NAME` goes on from
//! there through talker and vocoder, choosing the likeliest word and code; one with `codes` goes through the vocoder.
//! Everything else in it that begins with `out.` is compared, and `wav`.

mod case;
mod speech;
mod thinker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use causerie_kernels::Pool;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

pub use case::Case;

use super::{Omni, OmniError, Placement};

/// The largest difference that counts as equal.
pub const TOLERANCE: f32 = 1e-4;

/// How one tensor compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The case.
    pub case: String,
    /// The tensor, without `out.`.
    pub tensor: String,
    /// Values.
    pub values: usize,
    /// The largest difference, infinite if the shapes differ or a value is not a number.
    pub error: f32,
    /// The largest one that is accepted: 0 for codes and tokens.
    pub tolerance: f32,
}

impl Line {
    /// Whether it is as close as it must be.
    pub fn holds(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// A folder with a checkpoint and cases.
pub struct Comparison {
    pool: Pool,
    omni: Omni,
    cases: Vec<Case>,
}

/// What was computed for one case: tensors by name, as in the case's file.
pub type Computed = BTreeMap<String, Vec<f32>>;

impl Comparison {
    /// Loads the checkpoint and the cases of `dir`.
    ///
    /// # Errors
    /// [`OmniError`] of whatever cannot be loaded.
    pub fn open(dir: &Path, threads: usize) -> Result<Self, OmniError> {
        let pool = Pool::new(threads);
        let omni = Omni::load(&pool, dir, Placement::F32)?;
        Ok(Self { pool, omni, cases: Case::all(dir)? })
    }

    /// The cases, in the order of their names.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Computes a case from its inputs.
    ///
    /// # Errors
    /// [`OmniError`] if the inputs cannot be taken.
    pub fn compute(&self, case: &Case) -> Result<Computed, OmniError> {
        let (pool, omni) = (&self.pool, &self.omni);
        if case.has("in.input_ids") {
            return Ok(thinker::compute(pool, omni, case)?.computed);
        }
        if case.has("codes") {
            return speech::vocode(pool, omni, case);
        }
        let source = case.name().strip_prefix("speech_").and_then(|name| self.cases.iter().find(|c| c.name() == name));
        let unknown = || OmniError::Input(format!("the case {} has no inputs that are known here", case.name()));
        speech::speak(pool, omni, source.ok_or_else(unknown)?, case)
    }

    /// Computes all cases and compares every tensor that the reference recorded; writes all that was computed into the
    /// folder `dump`, if there is one.
    ///
    /// # Errors
    /// As [`Comparison::compute`], or a file cannot be written.
    pub fn run(&self, dump: Option<&Path>) -> Result<Vec<Line>, OmniError> {
        let mut lines = Vec::new();
        for case in &self.cases {
            let computed = self.compute(case)?;
            lines.extend(case.compare(&computed));
            if let Some(dir) = dump {
                write(&dir.join(format!("{}.safetensors", case.name())), case, &computed)?;
            }
        }
        Ok(lines)
    }
}

/// Writes tensors as f32, in the shapes that the reference has for them.
fn write(path: &PathBuf, case: &Case, computed: &Computed) -> Result<(), OmniError> {
    let failed = |problem: String| OmniError::malformed(path, problem);
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = computed
        .iter()
        .map(|(name, values)| {
            let shape = case.shape(name).filter(|shape| shape.iter().product::<usize>() == values.len());
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (case.full_name(name), shape.unwrap_or_else(|| vec![values.len()]), bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|e| failed(e.to_string()))?;
        Ok((name.clone(), view))
    });
    let views: Vec<(String, TensorView<'_>)> = views.collect::<Result<_, OmniError>>()?;
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(|e| failed(e.to_string()))?;
    safetensors::serialize_to_file(views, None, path).map_err(|e| failed(e.to_string()))
}
