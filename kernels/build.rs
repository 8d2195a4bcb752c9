//! Compiles the kernels for GPUs where there is an nvcc (`NVCC`, or that of the path), and lists what came of it for
//! `cuda::driver::images`. Without one the list is empty, and the program says so when it is asked for a GPU.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Options of nvcc, the ending of the file, and what `images.rs` calls it: machine code for the oldest device that will do
/// and for the one that is tuned for, and PTX for all that are newer.
const KINDS: [(&[&str], &str, &str); 3] = [
    (&["-cubin", "-gencode=arch=compute_80,code=sm_80"], "sm_80.cubin", "Sm(8, 0)"),
    (&["-cubin", "-gencode=arch=compute_90a,code=sm_90a"], "sm_90a.cubin", "Sm(9, 0)"),
    (&["-ptx", "-gencode=arch=compute_80,code=compute_80"], "compute_80.ptx", "Ptx(8, 0)"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/ops");
    println!("cargo::rerun-if-changed=src/cuda");
    println!("cargo::rerun-if-env-changed=NVCC");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let nvcc = nvcc().filter(|_| std::env::var_os("CARGO_FEATURE_CUDA").is_some());
    let mut images = nvcc.map(|nvcc| compile(&nvcc, &out)).unwrap_or_default();
    images.sort();
    let mut list = String::from("/// All that nvcc made.\npub(super) const IMAGES: &[Image] = &[\n");
    for (source, code, path) in images {
        let _ = writeln!(
            list,
            "    Image {{ source: {source:?}, code: Compiled::{code}, bytes: include_bytes!({path:?}) }},"
        );
    }
    list.push_str("];\n");
    fs::write(out.join("images.rs"), list).expect("the output folder can be written");
}

fn nvcc() -> Option<PathBuf> {
    let of_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("nvcc")).find(|file| file.is_file())
    };
    std::env::var_os("NVCC").map(PathBuf::from).or_else(of_path)
}

/// (source, kind, file) of everything that compiled; a warning for the rest.
fn compile(nvcc: &Path, out: &Path) -> Vec<(String, &'static str, String)> {
    let (mut sources, mut headers) = (Vec::new(), Vec::new());
    find(Path::new("src/ops"), "cu", &mut sources);
    find(Path::new("src/cuda"), "cuh", &mut headers);
    let mut common = DefaultHasher::new();
    headers.iter().for_each(|header| fs::read(header).expect("it was found").hash(&mut common));
    let jobs =
        Mutex::new(sources.iter().flat_map(|source| KINDS.iter().map(move |kind| (source, kind))).collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    let next = || jobs.lock().expect("no job panics").pop();
    let work = || {
        while let Some((source, (options, ending, code))) = next() {
            let mut hash = common.clone();
            (fs::read(source).expect("it was found"), options).hash(&mut hash);
            let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let file = out.join(format!("{stem}-{:016x}.{ending}", hash.finish()));
            if file.exists() || run(nvcc, source, options, &file) {
                done.lock().expect("no job panics").push((stem, *code, file.to_string_lossy().into_owned()));
            }
        }
    };
    let threads = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    done.into_inner().expect("no job panics")
}

/// Compiles one source; the file appears whole or not at all.
fn run(nvcc: &Path, source: &Path, options: &[&str], file: &Path) -> bool {
    let partial = file.with_extension("partial");
    let mut command = Command::new(nvcc);
    command.args(["-ccbin", "g++", "-std=c++17", "-O3"]).args(options).args(["-I", "src/cuda"]).arg(source);
    let text = match command.arg("-o").arg(&partial).output() {
        Ok(output) if output.status.success() => {
            let mut bytes = fs::read(&partial).expect("nvcc wrote it");
            // The driver reads PTX up to a zero.
            bytes.push(0);
            return fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, file)).is_ok();
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    println!("cargo::warning={} is not in this program: {} {options:?}: {line}", source.display(), nvcc.display());
    false
}

/// Files under `folder` with an extension.
fn find(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the crate has it").flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}
