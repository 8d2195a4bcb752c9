//! A read-only map from strings, kept in one allocation and searched by halves.
//!
//! The lexicons and the tagger hold a quarter of a million short keys; a hash map of owned strings would spend more
//! on allocations than the data weighs.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::path::Path;

use flate2::read::GzDecoder;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};

use crate::onnx::{OnnxError, read};

/// Most bytes that a packed table may unpack to; the largest released one has 6 MB.
const MAX_UNPACKED: u64 = 64 << 20;

/// A map from strings to `V`.
pub(crate) struct Table<V> {
    keys: String,
    /// (start of the key, its length, value), sorted by key.
    entries: Vec<(u32, u32, V)>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { keys: String::new(), entries: Vec::new() }
    }
}

impl<V> Table<V> {
    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        self.entries.binary_search_by(|e| self.key(e).cmp(key)).ok().map(|at| &self.entries[at].2)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn key(&self, entry: &(u32, u32, V)) -> &str {
        &self.keys[entry.0 as usize..(entry.0 + entry.1) as usize]
    }

    fn push(&mut self, key: &str, value: V) {
        self.entries.push((self.keys.len() as u32, key.len() as u32, value));
        self.keys.push_str(key);
    }

    fn sort(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        let key = |e: &(u32, u32, V)| &keys[e.0 as usize..(e.0 + e.1) as usize];
        self.entries.sort_by(|a, b| key(a).cmp(key(b)));
        self.keys = keys;
        self.keys.shrink_to_fit();
        self.entries.shrink_to_fit();
    }
}

impl<V> FromIterator<(String, V)> for Table<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(rows: I) -> Self {
        let mut table = Self::default();
        for (key, value) in rows {
            table.push(&key, value);
        }
        table.sort();
        table
    }
}

/// Reads a JSON object into a table without keeping the JSON; `convert` makes a value of what stands for it.
pub(crate) struct Rows<F, T>(F, PhantomData<T>);

/// Makes [`Rows`].
pub(crate) fn rows<T, V, F: FnMut(T) -> V>(convert: F) -> Rows<F, T> {
    Rows(convert, PhantomData)
}

impl<'de, T, V, F> DeserializeSeed<'de> for Rows<F, T>
where
    T: serde::Deserialize<'de>,
    F: FnMut(T) -> V,
{
    type Value = Table<V>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T, V, F> Visitor<'de> for Rows<F, T>
where
    T: serde::Deserialize<'de>,
    F: FnMut(T) -> V,
{
    type Value = Table<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut table = Table::default();
        while let Some(key) = map.next_key::<String>()? {
            let value = (self.0)(map.next_value()?);
            table.push(&key, value);
        }
        table.sort();
        Ok(table)
    }
}

/// The text of a JSON file, unpacked if its name ends in `.gz`.
pub(crate) fn json_text(path: &Path) -> Result<String, OnnxError> {
    let malformed = |reason: String| OnnxError::Malformed { path: path.into(), reason };
    let bytes = read(path)?;
    let bytes = if path.extension().is_some_and(|e| e == "gz") {
        let mut unpacked = Vec::new();
        let mut packed = GzDecoder::new(&bytes[..]).take(MAX_UNPACKED + 1);
        packed.read_to_end(&mut unpacked).map_err(|e| malformed(e.to_string()))?;
        if unpacked.len() as u64 > MAX_UNPACKED {
            return Err(malformed(format!("it unpacks to more than {MAX_UNPACKED} bytes")));
        }
        unpacked
    } else {
        bytes
    };
    String::from_utf8(bytes).map_err(|e| malformed(e.to_string()))
}

/// A JSON file as `T`.
pub(crate) fn json<T: DeserializeOwned>(path: &Path) -> Result<T, OnnxError> {
    let text = json_text(path)?;
    serde_json::from_str(&text).map_err(|e| OnnxError::Malformed { path: path.into(), reason: e.to_string() })
}

/// A JSON object as a table.
pub(crate) fn table<T, V>(path: &Path, convert: impl FnMut(T) -> V) -> Result<Table<V>, OnnxError>
where
    T: DeserializeOwned,
{
    let text = json_text(path)?;
    let mut json = serde_json::Deserializer::from_str(&text);
    rows(convert).deserialize(&mut json).map_err(|e| OnnxError::Malformed { path: path.into(), reason: e.to_string() })
}
