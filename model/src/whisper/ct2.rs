//! CTranslate2's `model.bin`, version 6: named tensors.
//!
//! All numbers are little-endian. A string is its length as u16, then its bytes, the last of which is zero. The file:
//! version u32, name of the specification (string), its revision u32, number of variables u32; then for each variable
//! its name (string), rank u8, dimensions u32 each, type u8, bytes u32, data; then the number of aliases u32, and for
//! each its name and what it stands for (strings). Layout after CTranslate2's public model specification
//! (`python/ctranslate2/specs/model_spec.py`).

use std::collections::HashMap;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The file's version that is read here.
const VERSION: u32 = 6;
/// More variables than any Whisper has (large: 32 + 32 layers, about 1300).
const MAX_VARIABLES: u32 = 1 << 14;
const MAX_RANK: u8 = 8;

/// The tensors of a file.
#[derive(Debug)]
pub(super) struct Tensors<'a> {
    pub(super) specification: &'a str,
    named: HashMap<&'a str, Tensor<'a>>,
}

/// One tensor, row-major.
#[derive(Clone, Debug)]
pub(super) struct Tensor<'a> {
    pub(super) shape: Vec<usize>,
    pub(super) element: Element,
    bytes: &'a [u8],
}

/// What tensors are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    I8,
    I16,
    I32,
    F16,
    Bf16,
}

impl Element {
    fn size(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
        }
    }
}

impl<'a> Tensors<'a> {
    /// Reads the index of a file; the data stays where it is.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, String> {
        let mut at = Reader { rest: file };
        let version = at.u32("its version")?;
        if version != VERSION {
            return Err(format!("version {version} is not supported, only {VERSION}"));
        }
        let specification = at.string("the name of its specification")?;
        let _revision = at.u32("its revision")?;
        let count = at.u32("the number of variables")?;
        if count > MAX_VARIABLES {
            return Err(format!("{count} variables are more than {MAX_VARIABLES}"));
        }
        let mut named = HashMap::new();
        for _ in 0..count {
            let name = at.string("a variable's name")?;
            if named.insert(name, at.tensor(name)?).is_some() {
                return Err(format!("variable {name} occurs twice"));
            }
        }
        let aliases = at.u32("the number of aliases")?;
        if aliases > MAX_VARIABLES {
            return Err(format!("{aliases} aliases are more than {MAX_VARIABLES}"));
        }
        for _ in 0..aliases {
            let (alias, name) = (at.string("an alias")?, at.string("what an alias stands for")?);
            let tensor = named.get(name).cloned().ok_or_else(|| format!("alias {alias} stands for nothing"))?;
            named.entry(alias).or_insert(tensor);
        }
        if !at.rest.is_empty() {
            return Err(format!("{} bytes follow its end", at.rest.len()));
        }
        Ok(Self { specification, named })
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn get(&self, name: &str) -> Result<&Tensor<'a>, String> {
        self.named.get(name).ok_or_else(|| format!("it has no variable {name}"))
    }

    /// The floats of a tensor that has this shape.
    ///
    /// # Errors
    /// If there is no such tensor, or it is of another shape or type.
    pub(super) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let tensor = self.get(name)?;
        if tensor.shape != shape {
            return Err(format!("variable {name} is {:?}, not {shape:?}", tensor.shape));
        }
        tensor.floats().ok_or_else(|| format!("variable {name} is made of {:?}, not of floats", tensor.element))
    }

    /// A single integer.
    ///
    /// # Errors
    /// If there is no such tensor, or it is something else.
    pub(super) fn integer(&self, name: &str) -> Result<i64, String> {
        let tensor = self.get(name)?;
        match (tensor.element, tensor.bytes) {
            (Element::I8, &[a]) => Ok(i64::from(a as i8)),
            (Element::I16, &[a, b]) => Ok(i64::from(i16::from_le_bytes([a, b]))),
            (Element::I32, &[a, b, c, d]) => Ok(i64::from(i32::from_le_bytes([a, b, c, d]))),
            _ => Err(format!("variable {name} is not an integer")),
        }
    }
}

impl Tensor<'_> {
    fn floats(&self) -> Option<Vec<f32>> {
        let halves = || self.bytes.as_chunks::<2>().0.iter();
        Some(match self.element {
            Element::F32 => self.bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            // One at a time would ask the processor each time whether it can convert them.
            Element::F16 => halves().map(|&b| f16::from_le_bytes(b)).collect::<Vec<_>>().to_f32_vec(),
            Element::Bf16 => halves().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            Element::I8 | Element::I16 | Element::I32 => return None,
        })
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| format!("it ends inside {what}: {len} bytes are needed, {} are there", self.rest.len()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u8(&mut self, what: &str) -> Result<u8, String> {
        self.array(what).map(u8::from_le_bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn string(&mut self, what: &str) -> Result<&'a str, String> {
        let len = u16::from_le_bytes(self.array(what)?);
        let bytes = self.take(usize::from(len), what)?;
        let bytes = bytes.strip_suffix(&[0]).ok_or_else(|| format!("{what} does not end with zero"))?;
        std::str::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
    }

    fn tensor(&mut self, name: &str) -> Result<Tensor<'a>, String> {
        let rank = self.u8(name)?;
        if rank > MAX_RANK {
            return Err(format!("variable {name} has {rank} dimensions"));
        }
        let shape = (0..rank).map(|_| self.u32(name).map(|d| d as usize)).collect::<Result<Vec<_>, _>>()?;
        let element = match self.u8(name)? {
            0 => Element::F32,
            1 => Element::I8,
            2 => Element::I16,
            3 => Element::I32,
            4 => Element::F16,
            5 => Element::Bf16,
            other => return Err(format!("variable {name} is of the unknown type {other}")),
        };
        let len = self.u32(name)? as usize;
        let expected = shape.iter().try_fold(element.size(), |product, &d| product.checked_mul(d));
        if expected != Some(len) {
            return Err(format!("variable {name} of shape {shape:?} cannot have {len} bytes"));
        }
        Ok(Tensor { shape, element, bytes: self.take(len, name)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(&(text.len() as u16 + 1).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }

    /// A file with a matrix of halves, a scalar and an alias.
    fn file() -> Vec<u8> {
        let mut out = 6u32.to_le_bytes().to_vec();
        string(&mut out, "WhisperSpec");
        out.extend_from_slice(&3u32.to_le_bytes());
        out.extend_from_slice(&2u32.to_le_bytes());
        string(&mut out, "a/weight");
        out.push(2);
        out.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 4, 4, 0, 0, 0]);
        out.extend_from_slice(&f16::from_f32(0.5).to_le_bytes());
        out.extend_from_slice(&f16::from_f32(-2.0).to_le_bytes());
        string(&mut out, "a/heads");
        out.extend_from_slice(&[0, 2, 2, 0, 0, 0, 8, 0]);
        out.extend_from_slice(&1u32.to_le_bytes());
        string(&mut out, "b/weight");
        string(&mut out, "a/weight");
        out
    }

    #[test]
    fn reads_what_was_written() {
        let file = file();
        let tensors = Tensors::parse(&file).unwrap();
        assert_eq!(tensors.specification, "WhisperSpec");
        assert_eq!(tensors.floats("b/weight", &[1, 2]).unwrap(), [0.5, -2.0]);
        assert_eq!(tensors.integer("a/heads").unwrap(), 8);
        assert!(tensors.floats("a/weight", &[2, 1]).is_err());
        assert!(tensors.floats("a/heads", &[]).is_err());
        assert!(tensors.integer("a/weight").is_err());
        assert!(tensors.get("c").is_err());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let file = file();
        for len in 0..file.len() {
            assert!(Tensors::parse(&file[..len]).is_err(), "{len} bytes");
        }
        let longer = [&file[..], &[0]].concat();
        assert!(Tensors::parse(&longer).unwrap_err().contains("follow"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Tensors::parse(&bytes);
        }

        #[test]
        fn changed_bytes_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut file = file();
            for (at, value) in changes {
                let at = at.index(file.len());
                file[at] = value;
            }
            if let Ok(tensors) = Tensors::parse(&file) {
                let _ = (tensors.floats("a/weight", &[1, 2]), tensors.integer("a/heads"));
            }
        }
    }
}
