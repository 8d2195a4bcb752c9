//! Compiles kernels with g++, once for each content: objects are kept under their hash in the target folder.
//!
//! This happens when a test asks for it and not in a build script, so that nobody else waits for a C++ compiler, and
//! sanitized or broken variants are a flag away.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::DeviceError;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// Kernels pun types and are as strict about it as nvcc, which is not at all. Unknown pragmas are nvcc's `unroll`.
const FLAGS: [&str; 8] =
    ["-std=c++17", "-O2", "-g1", "-fPIC", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Wno-unknown-pragmas"];

/// What a library is instrumented with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sanitizer {
    /// Nothing.
    None,
    /// Addresses and undefined behaviour. The process has to run with the address sanitizer's library preloaded.
    AddressAndUndefined,
}

impl Sanitizer {
    /// The variable that asks for a sanitized library; `cargo xtask kernels check` sets it for a process of its own.
    pub const VARIABLE: &str = "CAUSERIE_EMULATOR_SANITIZED";

    /// What this process asks for.
    pub fn from_environment() -> Self {
        if std::env::var_os(Self::VARIABLE).is_some() { Self::AddressAndUndefined } else { Self::None }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            // Stacks of fibers are not where the sanitizer expects one.
            Self::AddressAndUndefined => {
                &["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "--param", "asan-stack=0"]
            }
        }
    }
}

fn emulator(message: impl std::fmt::Display) -> DeviceError {
    DeviceError::Emulator(message.to_string())
}

/// The kernels of all ops.
///
/// # Errors
/// If the sources of this crate are not there.
pub fn sources() -> Result<Vec<PathBuf>, DeviceError> {
    let mut found = Vec::new();
    find(&Path::new(CRATE).join("src/ops"), "cu", &mut found)?;
    Ok(found)
}

/// Files under `folder` with an extension, sorted.
fn find(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) -> Result<(), DeviceError> {
    let entries = fs::read_dir(folder).map_err(|error| emulator(format!("{}: {error}", folder.display())))?;
    let mut paths =
        entries.map(|entry| Ok(entry.map_err(emulator)?.path())).collect::<Result<Vec<_>, DeviceError>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            find(&path, extension, found)?;
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// Compiles `sources` and the emulator into one library, unless that has been done. Returns its path.
///
/// # Errors
/// If g++ is not there or refuses a source; with its messages.
pub fn build(sources: &[PathBuf], sanitizer: Sanitizer) -> Result<PathBuf, DeviceError> {
    let target = Path::new(CRATE).join("../target/emulator");
    fs::create_dir_all(&target).map_err(emulator)?;
    // Processes that test at the same time build one after another; the second finds the first one's objects.
    let lock = fs::File::create(target.join("lock")).map_err(emulator)?;
    lock.lock().map_err(emulator)?;

    let mut headers = Vec::new();
    for (folder, extension) in [("emu/cuemu", "h"), ("src", "cuh")] {
        find(&Path::new(CRATE).join(folder), extension, &mut headers)?;
    }
    let mut common = DefaultHasher::new();
    (FLAGS, sanitizer.flags()).hash(&mut common);
    for header in &headers {
        read(header)?.hash(&mut common);
    }
    let mut missing = Vec::new();
    let mut objects = Vec::new();
    let mut all = common.clone();
    for source in sources.iter().cloned().chain([Path::new(CRATE).join("emu/abi.cpp")]) {
        let mut hash = common.clone();
        (source.to_string_lossy(), read(&source)?).hash(&mut hash);
        hash.finish().hash(&mut all);
        let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let object = target.join(format!("{stem}-{:016x}.o", hash.finish()));
        if !object.exists() {
            missing.push((source, object.clone()));
        }
        objects.push(object);
    }
    let library = target.join(format!("emulator-{:016x}.so", all.finish()));
    if !library.exists() {
        compile_all(missing, sanitizer)?;
        let mut link = Command::new("g++");
        link.arg("-shared").args(sanitizer.flags()).args(&objects);
        into(link, &library)?;
    }
    Ok(library)
}

fn read(path: &Path) -> Result<Vec<u8>, DeviceError> {
    fs::read(path).map_err(|error| emulator(format!("{}: {error}", path.display())))
}

/// Compiles on as many cores as there are.
fn compile_all(jobs: Vec<(PathBuf, PathBuf)>, sanitizer: Sanitizer) -> Result<(), DeviceError> {
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().expect("no job panics").pop();
    let work = || {
        while let Some((source, object)) = next() {
            let mut compile = Command::new("g++");
            compile.args(FLAGS).args(sanitizer.flags()).args(["-x", "c++", "-c"]).arg(source);
            compile.arg("-I").arg(Path::new(CRATE).join("emu")).arg("-I").arg(Path::new(CRATE).join("src/cuda"));
            into(compile, &object)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("workers do not panic"))
    })
}

/// Runs a compiler whose output appears at `path` whole or not at all.
fn into(mut command: Command, path: &Path) -> Result<(), DeviceError> {
    let partial = path.with_extension("partial");
    let output = command.arg("-o").arg(&partial).output().map_err(|error| emulator(format!("g++: {error}")))?;
    if !output.status.success() {
        return Err(emulator(String::from_utf8_lossy(&output.stderr)));
    }
    fs::rename(&partial, path).map_err(emulator)
}
