//! Read-only memory-mapped files.
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::KernelError;

/// A file mapped read-only.
#[derive(Debug)]
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

    /// Tells the system that these bytes are not needed soon, so that they do not count as resident. They stay readable:
    /// the next access brings them back from the file. Only whole pages inside the range are given up, so ranges that
    /// meet inside a page should be released as one.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        {
            // Advice must start at a page. Elsewhere pages may be larger, and any multiple will do.
            const PAGE: usize = if cfg!(target_arch = "x86_64") { 1 << 12 } else { 1 << 16 };
            let end = range.end.min(self.map.len());
            // A mapping starts at a page. Past the end of the file its last page holds nothing else.
            let first = range.start.next_multiple_of(PAGE);
            let last = if end == self.map.len() { end } else { end / PAGE * PAGE };
            if first < last {
                // SAFETY: the mapping is shared with an unmodified file, so dropped pages come back with the same bytes,
                // and references into them stay valid.
                let advice =
                    unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, first, last - first) };
                // Advice that the kernel refuses changes nothing but the memory use.
                let _ = advice;
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }
}

/// Memory of its own that begins at a page, filled with zeros: for what is read from end to end again and again. Where
/// the system has huge pages it is asked for them, which spares most of the address translation.
#[derive(Debug)]
pub struct Pages {
    map: memmap2::MmapMut,
}

impl Pages {
    /// `len` zeros.
    ///
    /// # Errors
    /// [`KernelError::Io`] if there is no more memory.
    pub fn zeroed(len: usize) -> Result<Self, KernelError> {
        let io = |source| KernelError::Io { path: format!("{len} bytes of memory"), source };
        let map = memmap2::MmapMut::map_anon(len).map_err(io)?;
        #[cfg(target_os = "linux")]
        {
            // Without huge pages it works all the same.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { map })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

#[cfg(test)]
mod tests {
    use super::Mapped;

    #[test]
    fn released_bytes_read_the_same_and_leave_memory() {
        let path = std::env::temp_dir().join(format!("causerie-mapped-{}", std::process::id()));
        let bytes: Vec<u8> = (0..1 << 20).map(|index: u32| (index ^ (index >> 8)) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let mapped = Mapped::open(&path).unwrap();
        assert!(mapped.bytes() == bytes);
        #[cfg(target_os = "linux")]
        let resident = {
            let before = resident_kib(mapped.bytes());
            mapped.release(1000..(1 << 20) - 1000);
            (before, resident_kib(mapped.bytes()))
        };
        for range in [0..1, 5000..5001, 4096..8192, 0..1 << 20, 17..usize::MAX, 1 << 20..2 << 20] {
            mapped.release(range);
        }
        assert!(mapped.bytes() == bytes);
        drop(mapped);
        std::fs::remove_file(&path).unwrap();
        #[cfg(target_os = "linux")]
        assert!(resident.0 >= 1 << 10 && resident.1 <= 256, "resident KiB before and after: {resident:?}");
    }

    /// What the system counts as resident of the mapping that holds `bytes`.
    #[cfg(target_os = "linux")]
    fn resident_kib(bytes: &[u8]) -> u64 {
        let start = format!("{:x}-", bytes.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
        let rss = lines.find_map(|line| line.strip_prefix("Rss:")).expect("a mapping of its own");
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Mapped::open(std::path::Path::new("/no/such/weights.gguf")).unwrap_err();
        assert!(error.to_string().starts_with("/no/such/weights.gguf: "), "{error}");
    }
}
