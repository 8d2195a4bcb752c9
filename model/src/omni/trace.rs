//! Intermediate results, for comparison with a reference implementation. Nothing is kept when nobody asks.

use std::collections::BTreeMap;

/// Tensors by name, each the concatenation of what was recorded under it.
pub(super) type Recording = BTreeMap<String, Vec<f32>>;

/// Where intermediate results go, if anywhere.
pub(super) struct Trace<'a>(Option<&'a mut Recording>);

impl<'a> Trace<'a> {
    /// Keeps nothing.
    pub(super) fn off() -> Self {
        Self(None)
    }

    pub(super) fn into(recording: &'a mut Recording) -> Self {
        Self(Some(recording))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Appends rows to the tensor `name`.
    pub(super) fn rows(&mut self, name: &str, rows: &[f32]) {
        if let Some(recording) = &mut self.0 {
            recording.entry(name.to_owned()).or_default().extend_from_slice(rows);
        }
    }
}
