//! Read-only memory-mapped files.
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::KernelError;

/// A file mapped read-only.
pub struct Mapped {
    map: memmap2::Mmap,
}

impl Mapped {
    /// Maps the whole file.
    ///
    /// # Errors
    /// [`KernelError::Io`] if it cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let io = |source| KernelError::Io { path: path.display().to_string(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: weight files are not modified while mapped; a file truncated by somebody else ends the process with
        // SIGBUS, as it would for every memory-mapping program.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self { map })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Tells the system that these bytes are not needed soon, so that they do not count as resident.
    pub fn release(&self, range: Range<usize>) {
        let _ = range;
    }
}
