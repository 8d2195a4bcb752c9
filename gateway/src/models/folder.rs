//! The models folder: where the files lie, and which are there.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Error, Manifest, Model, ModelFile};

/// The folder that holds the models, laid out as the manifest's paths say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

/// How much of a model is in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Every file is there, with the right size.
    Present,
    /// Some are.
    Partial,
    /// None is.
    Absent,
}

impl Folder {
    /// A folder at this path; it need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder to use: `chosen` (from `--models` or `CAUSERIE_MODELS`), else `causerie` in the user's cache folder.
    pub fn resolve(chosen: Option<&Path>) -> Self {
        if let Some(path) = chosen {
            return Self(path.to_owned());
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG base directory specification has relative paths ignored.
        let cache = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let cache = cache.or_else(|| set("HOME").map(|home| home.join(".cache")));
        Self(cache.unwrap_or_else(std::env::temp_dir).join("causerie"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where `file` lies.
    pub fn file(&self, file: &ModelFile) -> PathBuf {
        self.0.join(&file.path)
    }

    /// Whether `file` is there with the right size. Files are renamed into place only after their hash was checked,
    /// so the size tells a finished file from an unfinished one; [`Self::verify`] tells a damaged one.
    pub fn holds(&self, file: &ModelFile) -> bool {
        std::fs::metadata(self.file(file)).is_ok_and(|found| found.is_file() && found.len() == file.size)
    }

    /// How much of `model` is there.
    pub fn presence(&self, model: &Model) -> Presence {
        match model.files.iter().filter(|file| self.holds(file)).count() {
            0 => Presence::Absent,
            count if count == model.files.len() => Presence::Present,
            _ => Presence::Partial,
        }
    }

    /// Fails with the command that fetches `name` unless all its files are there. This is what a server asks before
    /// it loads a model.
    pub fn require(&self, manifest: &Manifest, name: &str) -> Result<(), Error> {
        let model = manifest.model(name)?;
        match model.files.iter().find(|file| !self.holds(file)) {
            None => Ok(()),
            Some(file) => Err(Error::Absent { model: name.to_owned(), path: self.file(file) }),
        }
    }

    /// Reads `file` whole and compares its hash with the manifest's.
    pub fn verify(&self, model: &Model, file: &ModelFile) -> Result<(), Error> {
        if !self.holds(file) {
            return Err(Error::Absent { model: model.name.clone(), path: self.file(file) });
        }
        let path = self.file(file);
        let remedy = format!("fetch it again with `causerie models pull --force {}`", model.name);
        check_sha256(&path, &file.sha256, remedy)
    }
}

/// Compares the hash of the file at `path` with `expected`.
pub(super) fn check_sha256(path: &Path, expected: &str, remedy: String) -> Result<(), Error> {
    let got = sha256(path).map_err(|source| Error::io("read", path, source))?;
    if got == expected {
        return Ok(());
    }
    Err(Error::Mismatch { path: path.to_owned(), expected: expected.to_owned(), got, remedy })
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
