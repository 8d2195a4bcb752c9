//! GGUF, versions 2 and 3: metadata and a table of tensors in front of their data, everything little-endian
//! (the format's specification lives in the ggml repository, docs/gguf.md).
//!
//! The file is mapped, the table is read once and checked, and values are then looked up by name. Nothing here trusts a
//! count or a length before it has been compared with what is left of the file.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use causerie_kernels::mmap::Mapped;
use causerie_kernels::ops::linear::StoredType;

use super::LmError;

/// Metadata entries of a file. The largest seen has some hundred.
const MAX_ENTRIES: u64 = 1 << 16;
/// Tensors of a file. The largest published models have some thousand.
const MAX_TENSORS: u64 = 1 << 16;
/// Dimensions of a tensor, as in the specification.
const MAX_DIMENSIONS: u32 = 4;

/// An open file.
pub struct Gguf {
    path: PathBuf,
    map: Mapped,
    header: Header,
}

/// What stands in front of the data.
#[derive(Debug, Default)]
pub(super) struct Header {
    entries: HashMap<String, Value>,
    tensors: HashMap<String, Tensor>,
}

/// A metadata value; strings and arrays stay in the file.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(Range<usize>),
    Array { kind: Kind, count: u64, at: Range<usize> },
}

/// Where a tensor lies and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions, the fastest first: a matrix of `n` rows of `k` weights is `[k, n]`.
    pub shape: Vec<usize>,
    /// Type of the weights.
    pub kind: StoredType,
    /// Bytes of the file.
    pub range: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn from_code(code: u32) -> Option<Self> {
        use Kind::{Array, Bool, F32, F64, I8, I16, I32, I64, Text, U8, U16, U32, U64};
        [U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64].get(code as usize).copied()
    }
}

/// What is wrong with a header: the field and the problem, to which the file is added.
type Problem = (String, String);

impl Gguf {
    /// Opens and checks a file.
    ///
    /// # Errors
    /// [`LmError::Open`] if it cannot be read, [`LmError::Malformed`] if it is not a sound GGUF file.
    pub fn open(path: &Path) -> Result<Self, LmError> {
        let map = Mapped::open(path).map_err(|source| LmError::open(path, source))?;
        let header = Header::parse(map.bytes()).map_err(|(field, problem)| LmError::malformed(path, field, problem))?;
        Ok(Self { path: path.to_owned(), map, header })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about a field of this file.
    pub(super) fn malformed(&self, field: impl Into<String>, problem: impl Into<String>) -> LmError {
        LmError::malformed(&self.path, field, problem)
    }

    fn mistyped(&self, key: &str, wanted: &str) -> LmError {
        self.malformed(key, format!("is not {wanted}"))
    }

    fn missing(&self, key: &str) -> LmError {
        self.malformed(key, "is missing")
    }

    /// A string, if it is there.
    pub fn text(&self, key: &str) -> Result<Option<&str>, LmError> {
        match self.header.entries.get(key) {
            None => Ok(None),
            Some(Value::Text(at)) => std::str::from_utf8(&self.map.bytes()[at.clone()])
                .map(Some)
                .map_err(|_| self.mistyped(key, "valid UTF-8")),
            Some(_) => Err(self.mistyped(key, "a string")),
        }
    }

    /// A string that must be there.
    pub fn required_text(&self, key: &str) -> Result<&str, LmError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// A count or an index, if it is there.
    pub fn size(&self, key: &str) -> Result<Option<usize>, LmError> {
        let value = match self.header.entries.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(v)) => usize::try_from(*v).ok(),
            Some(Value::Signed(v)) => usize::try_from(*v).ok(),
            Some(_) => None,
        };
        value.map(Some).ok_or_else(|| self.mistyped(key, "a whole number"))
    }

    /// A count or an index that must be there.
    pub fn required_size(&self, key: &str) -> Result<usize, LmError> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number, if it is there.
    pub fn float(&self, key: &str) -> Result<Option<f32>, LmError> {
        match self.header.entries.get(key) {
            None => Ok(None),
            Some(Value::Float(v)) if v.is_finite() => Ok(Some(*v as f32)),
            Some(_) => Err(self.mistyped(key, "a finite number")),
        }
    }

    /// A number that must be there.
    pub fn required_float(&self, key: &str) -> Result<f32, LmError> {
        self.float(key)?.ok_or_else(|| self.missing(key))
    }

    /// A truth value, if it is there.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, LmError> {
        match self.header.entries.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(_) => Err(self.mistyped(key, "a truth value")),
        }
    }

    /// An array of strings, if it is there. They need not be UTF-8.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&[u8]>>, LmError> {
        let (count, at) = match self.header.entries.get(key) {
            None => return Ok(None),
            Some(Value::Array { kind: Kind::Text, count, at }) => (*count, at.clone()),
            Some(_) => return Err(self.mistyped(key, "an array of strings")),
        };
        let bytes = &self.map.bytes()[at];
        let mut cursor = Cursor { bytes, at: 0 };
        let read = (0..count).map(|_| cursor.text().map(|range| &bytes[range])).collect::<Option<Vec<_>>>();
        read.map(Some).ok_or_else(|| self.mistyped(key, "an array of strings"))
    }

    /// An array of 32-bit integers, if it is there.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, LmError> {
        match self.header.entries.get(key) {
            None => Ok(None),
            Some(Value::Array { kind: Kind::I32 | Kind::U32, at, .. }) => {
                let words = self.map.bytes()[at.clone()].as_chunks::<4>().0;
                Ok(Some(words.iter().map(|w| i32::from_le_bytes(*w)).collect()))
            }
            Some(_) => Err(self.mistyped(key, "an array of integers")),
        }
    }

    /// An array of 32-bit floats, if it is there.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, LmError> {
        match self.header.entries.get(key) {
            None => Ok(None),
            Some(Value::Array { kind: Kind::F32, at, .. }) => {
                let words = self.map.bytes()[at.clone()].as_chunks::<4>().0;
                Ok(Some(words.iter().map(|w| f32::from_le_bytes(*w)).collect()))
            }
            Some(_) => Err(self.mistyped(key, "an array of floats")),
        }
    }

    /// A tensor, if it is there.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.header.tensors.get(name)
    }

    /// A tensor's bytes as they are in the file.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.map.bytes()[tensor.range.clone()]
    }

    /// Says that a tensor's bytes are not needed again, so that they do not count as resident.
    pub fn release(&self, tensor: &Tensor) {
        self.map.release(tensor.range.clone());
    }

    /// Says that nothing of the file is needed again.
    pub fn release_all(&self) {
        self.map.release(0..self.map.bytes().len());
    }
}

impl Header {
    /// Reads metadata and the table of tensors, and checks that every range lies inside `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let mut cursor = Cursor { bytes, at: 0 };
        let short = |field: &str| (field.to_owned(), "the file ends inside it; it is truncated".to_owned());
        let problem = |field: &str, problem: String| (field.to_owned(), problem);
        if cursor.take(4) != Some(b"GGUF") {
            return Err(problem("magic", "this is not a GGUF file".into()));
        }
        let version = cursor.u32().ok_or_else(|| short("version"))?;
        if !(2..=3).contains(&version) {
            return Err(problem("version", format!("is {version}; known are 2 and 3")));
        }
        let tensors = cursor.u64().ok_or_else(|| short("tensor count"))?;
        let entries = cursor.u64().ok_or_else(|| short("metadata count"))?;
        if tensors > MAX_TENSORS || entries > MAX_ENTRIES {
            return Err(problem("header", format!("claims {tensors} tensors and {entries} metadata entries")));
        }
        let mut header = Self::default();
        for index in 0..entries {
            let place = format!("metadata entry {index}");
            let key = cursor.name().ok_or_else(|| short(&place))?;
            let value = cursor.value().map_err(|p| problem(&key, p))?;
            header.entries.insert(key, value);
        }
        let mut table = Vec::new();
        for index in 0..tensors {
            let place = format!("tensor entry {index}");
            let name = cursor.name().ok_or_else(|| short(&place))?;
            let (shape, kind, offset) = cursor.tensor().map_err(|p| problem(&name, p))?;
            table.push((name, shape, kind, offset));
        }
        let alignment = match header.entries.get("general.alignment") {
            None => 32,
            Some(Value::Unsigned(v)) if v.is_power_of_two() && *v <= 1 << 20 => *v,
            Some(_) => return Err(problem("general.alignment", "is not a power of two".into())),
        };
        let data = (cursor.at as u64).next_multiple_of(alignment);
        for (name, shape, kind, offset) in table {
            let rows = shape[1..].iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
            let row = kind.row_bytes(shape[0]).map_err(|e| problem(&name, e.to_string()))?;
            let range = || {
                let start = usize::try_from(data.checked_add(offset)?).ok()?;
                Some(start..start.checked_add(rows?.checked_mul(row)?)?)
            };
            match range() {
                Some(range) if range.end <= bytes.len() => {
                    header.tensors.insert(name, Tensor { shape, kind, range });
                }
                _ => return Err(problem(&name, "its data lies past the end of the file; it is truncated".into())),
            }
        }
        Ok(header)
    }
}

/// A place in the file.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<Range<usize>> {
        let len = usize::try_from(self.u64()?).ok()?;
        let start = self.at;
        self.take(len)?;
        Some(start..self.at)
    }

    fn name(&mut self) -> Option<String> {
        let at = self.text()?;
        Some(String::from_utf8_lossy(&self.bytes[at]).into_owned())
    }

    fn value(&mut self) -> Result<Value, String> {
        let truncated = || "the file ends inside it; it is truncated".to_owned();
        let code = self.u32().ok_or_else(truncated)?;
        let kind = Kind::from_code(code).ok_or_else(|| format!("has the unknown type {code}"))?;
        if kind != Kind::Array {
            return self.scalar(kind).ok_or_else(truncated);
        }
        let code = self.u32().ok_or_else(truncated)?;
        let kind = Kind::from_code(code).ok_or_else(|| format!("is an array of the unknown type {code}"))?;
        if kind == Kind::Array {
            return Err("is an array of arrays, which no known model needs".into());
        }
        let count = self.u64().ok_or_else(truncated)?;
        let start = self.at;
        // Each element takes at least a byte, so this ends no later than the file does.
        for _ in 0..count {
            self.scalar(kind).ok_or_else(truncated)?;
        }
        Ok(Value::Array { kind, count, at: start..self.at })
    }

    fn scalar(&mut self, kind: Kind) -> Option<Value> {
        Some(match kind {
            Kind::U8 => Value::Unsigned(u64::from(u8::from_le_bytes(self.array()?))),
            Kind::I8 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
            Kind::U16 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            Kind::I16 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            Kind::U32 => Value::Unsigned(u64::from(self.u32()?)),
            Kind::I32 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            Kind::F32 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            Kind::Bool => Value::Bool(self.array::<1>()? != [0]),
            Kind::Text => Value::Text(self.text()?),
            Kind::U64 => Value::Unsigned(self.u64()?),
            Kind::I64 => Value::Signed(i64::from_le_bytes(self.array()?)),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.array()?)),
            Kind::Array => return None,
        })
    }

    fn tensor(&mut self) -> Result<(Vec<usize>, StoredType, u64), String> {
        let truncated = || "the file ends inside its entry; it is truncated".to_owned();
        let dimensions = self.u32().ok_or_else(truncated)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(format!("has {dimensions} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let d = self.u64().ok_or_else(truncated)?;
            shape.push(usize::try_from(d).map_err(|_| format!("has a dimension of {d}"))?);
        }
        let code = self.u32().ok_or_else(truncated)?;
        let kind = StoredType::from_ggml(code).ok_or_else(|| {
            format!("has the tensor type {code}; supported are F32, F16, BF16, Q4_0 to Q8_0, and Q2_K to Q6_K")
        })?;
        Ok((shape, kind, self.u64().ok_or_else(truncated)?))
    }
}
