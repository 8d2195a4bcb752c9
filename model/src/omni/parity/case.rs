//! One case: inputs, and what a reference implementation made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use super::{Computed, Line, TOLERANCE};
use crate::omni::OmniError;

/// Tensors that are decisions, not sums: they are equal or they are not.
const EXACT: [&str; 2] = ["codes", "sequences"];
/// What the vocoder's case, which has no `in.` and `out.`, records as its output.
const VOCODED: &str = "wav";

/// A file of inputs and expected outputs.
pub struct Case {
    name: String,
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

struct Stored {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Case {
    /// All cases of a folder: its `.safetensors` files but the checkpoint.
    ///
    /// # Errors
    /// [`OmniError::Malformed`] naming the file.
    pub(in crate::omni) fn all(dir: &Path) -> Result<Vec<Self>, OmniError> {
        let failed = |e: std::io::Error| OmniError::malformed(dir, e.to_string());
        let mut cases = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|e| e == "safetensors") && !name.starts_with("model") {
                cases.push(Self::read(name, path)?);
            }
        }
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(cases)
    }

    fn read(name: String, path: PathBuf) -> Result<Self, OmniError> {
        let failed = |problem: String| OmniError::malformed(&path, problem);
        let bytes = std::fs::read(&path).map_err(|e| failed(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let bytes = view.data();
            let values = match view.dtype() {
                Dtype::F32 => {
                    bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect::<Vec<_>>()
                }
                Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
                Dtype::U8 => bytes.iter().map(|b| f64::from(*b)).collect(),
                other => return Err(failed(format!("{name} is stored as {other:?}"))),
            };
            tensors.insert(name, Stored { shape: view.shape().to_vec(), values });
        }
        Ok(Self { name, path, tensors })
    }

    /// The file's name, without its ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::omni) fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    fn stored(&self, tensor: &str) -> Result<&Stored, OmniError> {
        self.tensors.get(tensor).ok_or_else(|| OmniError::malformed(&self.path, format!("{tensor} is missing")))
    }

    /// The name of an output in the file.
    pub(super) fn full_name(&self, output: &str) -> String {
        if output == VOCODED && self.has(output) { output.to_owned() } else { format!("out.{output}") }
    }

    /// The shape of an output that the reference recorded.
    pub(super) fn shape(&self, output: &str) -> Option<Vec<usize>> {
        self.tensors.get(&self.full_name(output)).map(|stored| stored.shape.clone())
    }

    /// The shape of a tensor that must be there.
    pub(in crate::omni) fn dimensions(&self, tensor: &str) -> Result<&[usize], OmniError> {
        Ok(&self.stored(tensor)?.shape)
    }

    pub(in crate::omni) fn floats(&self, tensor: &str) -> Result<Vec<f32>, OmniError> {
        Ok(self.stored(tensor)?.values.iter().map(|v| *v as f32).collect())
    }

    pub(in crate::omni) fn tokens(&self, tensor: &str) -> Result<Vec<u32>, OmniError> {
        let token = |v: &f64| {
            let problem = || OmniError::malformed(&self.path, format!("{tensor} holds {v}, which is no token"));
            if (0.0..4_294_967_296.0).contains(v) { Ok(*v as u32) } else { Err(problem()) }
        };
        self.stored(tensor)?.values.iter().map(token).collect()
    }

    /// One line for each tensor that the reference recorded.
    pub(super) fn compare(&self, computed: &Computed) -> Vec<Line> {
        let outputs = self.tensors.iter().filter_map(|(name, stored)| {
            let output = name.strip_prefix("out.").or_else(|| (name == VOCODED).then_some(VOCODED))?;
            Some((output, stored))
        });
        outputs
            .map(|(name, stored)| {
                let error = computed.get(name).map_or(f32::INFINITY, |got| distance(got, &stored.values));
                let tolerance = if EXACT.contains(&name) { 0.0 } else { TOLERANCE };
                let (case, tensor) = (self.name.clone(), name.to_owned());
                Line { case, tensor, values: stored.values.len(), error, tolerance }
            })
            .collect()
    }
}

/// The largest difference; infinite for different lengths and for what is not a number.
fn distance(got: &[f32], want: &[f64]) -> f32 {
    if got.len() != want.len() {
        return f32::INFINITY;
    }
    let differences = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs() as f32);
    differences.fold(0.0, |most, d| if d.is_nan() { f32::INFINITY } else { most.max(d) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_miss_and_so_is_what_is_not_there() {
        let stored = |values: &[f64]| Stored { shape: vec![values.len()], values: values.to_vec() };
        let tensors = [("out.a", vec![1.0, 2.0]), ("out.codes", vec![7.0]), ("in.a", vec![0.0]), ("wav", vec![0.5])];
        let tensors = tensors.into_iter().map(|(name, values)| (name.to_owned(), stored(&values))).collect();
        let case = Case { name: "case".into(), path: PathBuf::new(), tensors };
        let missed = |a: &[f32], codes: &[f32], wav: &[f32]| -> Vec<String> {
            let all =
                [("a", a), ("codes", codes), ("wav", wav)].map(|(name, values)| (name.to_owned(), values.to_vec()));
            let computed = all.into_iter().filter(|(_, values)| !values.is_empty()).collect();
            let lines = case.compare(&computed);
            assert_eq!(lines.len(), 3);
            lines.into_iter().filter(|line| !line.holds()).map(|line| line.tensor).collect()
        };
        assert!(missed(&[1.0, 2.00009], &[7.0], &[0.5]).is_empty());
        assert_eq!(missed(&[1.0, 2.0002], &[7.0], &[0.5]), ["a"]);
        assert_eq!(missed(&[f32::NAN, 2.0], &[7.00001], &[0.5]), ["a", "codes"]);
        assert_eq!(missed(&[1.0], &[7.0], &[]), ["a", "wav"]);
    }
}
