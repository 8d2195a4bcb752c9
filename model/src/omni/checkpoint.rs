//! A checkpoint as it is published: `model.safetensors`, or shards named by `model.safetensors.index.json`, mapped into
//! memory and never copied whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use causerie_kernels::mmap::Mapped;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::OmniError;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Shards that an index may name.
const MAX_SHARDS: usize = 4096;

/// The tensors of a folder.
pub struct Checkpoint {
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Entry>,
}

struct Shard {
    path: PathBuf,
    file: Mapped,
}

struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where it lies in the shard.
    start: usize,
    end: usize,
}

/// One tensor.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    /// How it is stored.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its values, little-endian and row-major.
    pub bytes: &'a [u8],
}

/// What the tensors whose names begin alike add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Tensors.
    pub tensors: usize,
    /// Parameters.
    pub parameters: usize,
    /// Bytes in the files.
    pub bytes: usize,
}

impl Checkpoint {
    /// Maps the shards of the folder `dir`.
    ///
    /// # Errors
    /// [`OmniError::Open`] or [`OmniError::Malformed`], naming the file: one that is missing, truncated or damaged, or that
    /// lacks a tensor which the index promises.
    pub fn open(dir: &Path) -> Result<Self, OmniError> {
        let mut all = Self { shards: Vec::new(), tensors: BTreeMap::new() };
        let index = dir.join(INDEX);
        if !index.exists() {
            all.map(dir.join(SINGLE))?;
            return Ok(all);
        }
        let promised = read_index(&index)?;
        let mut names: Vec<&String> = promised.values().collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > MAX_SHARDS {
            return Err(OmniError::malformed(
                &index,
                format!("names {} shards, the most is {MAX_SHARDS}", names.len()),
            ));
        }
        for name in names {
            // An index names its neighbours, nothing above or below them.
            if Path::new(name).file_name().is_none_or(|last| last != name.as_str()) {
                return Err(OmniError::malformed(&index, format!("{name:?} is not the name of a file beside it")));
            }
            all.map(dir.join(name))?;
        }
        for (tensor, shard) in &promised {
            let found = all.tensors.get(tensor).map(|entry| &all.shards[entry.shard].path);
            if found != Some(&dir.join(shard)) {
                return Err(OmniError::malformed(dir.join(shard), format!("lacks {tensor}, which the index promises")));
            }
        }
        Ok(all)
    }

    fn map(&mut self, path: PathBuf) -> Result<(), OmniError> {
        let file = Mapped::open(&path)?;
        // The reader checks that the tensors cover the file exactly: a truncated one is refused here.
        let (header, metadata) =
            SafeTensors::read_metadata(file.bytes()).map_err(|e| OmniError::malformed(&path, e.to_string()))?;
        let data = header + size_of::<u64>();
        let shard = self.shards.len();
        for (name, info) in metadata.tensors() {
            let (start, end) = (data + info.data_offsets.0, data + info.data_offsets.1);
            if end > file.bytes().len() {
                let problem = format!("ends inside {name}: {} bytes of {end}", file.bytes().len());
                return Err(OmniError::malformed(&path, problem));
            }
            let entry = Entry { shard, dtype: info.dtype, shape: info.shape.clone(), start, end };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(OmniError::malformed(&path, format!("{name} is in another shard too")));
            }
        }
        self.shards.push(Shard { path, file });
        Ok(())
    }

    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let Entry { shard, dtype, shape, start, end } = self.tensors.get(name)?;
        Some(Tensor { dtype: *dtype, shape, bytes: &self.shards[*shard].file.bytes()[*start..*end] })
    }

    /// Lets the system take back the memory of a tensor that has been read.
    pub fn release(&self, name: &str) {
        if let Some(entry) = self.tensors.get(name) {
            self.shards[entry.shard].file.release(entry.start..entry.end);
        }
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Sizes by the first `depth` parts of the names: what a load will read, known before it begins.
    pub fn sizes(&self, depth: usize) -> BTreeMap<String, Size> {
        let mut sizes: BTreeMap<String, Size> = BTreeMap::new();
        for (name, entry) in &self.tensors {
            let prefix: Vec<&str> = name.split('.').take(depth).collect();
            let size = sizes.entry(prefix.join(".")).or_default();
            size.tensors += 1;
            size.parameters += entry.shape.iter().product::<usize>();
            size.bytes += entry.end - entry.start;
        }
        sizes
    }
}

impl Tensor<'_> {
    /// The values as floats.
    ///
    /// # Errors
    /// [`OmniError::Dtype`] for types that are not floats of 16 or 32 bits.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, OmniError> {
        let halves = |widen: fn([u8; 2]) -> f32| self.bytes.as_chunks::<2>().0.iter().map(|b| widen(*b)).collect();
        Ok(match self.dtype {
            Dtype::F32 => self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::BF16 => halves(|b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F16 => halves(|b| f16::from_le_bytes(b).to_f32()),
            other => return Err(OmniError::Dtype { name: name.to_owned(), dtype: format!("{other:?}") }),
        })
    }
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, OmniError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(path).map_err(|e| OmniError::malformed(path, e.to_string()))?;
    let index: Index = serde_json::from_str(&text).map_err(|e| OmniError::malformed(path, e.to_string()))?;
    Ok(index.weight_map)
}
