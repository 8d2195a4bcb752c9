//! Where tests find models and golden files, and what they say when models are absent.

use std::path::{Path, PathBuf};

/// Whether something is `there`. When it is not, says so and `how` to get it.
///
/// # Panics
/// It is not there and `CAUSERIE_REQUIRE_MODELS` is 1.
pub(crate) fn required(there: bool, what: &str, how: &str) -> bool {
    if !there {
        let is_required = std::env::var("CAUSERIE_REQUIRE_MODELS").is_ok_and(|v| v == "1");
        assert!(!is_required, "{what} is absent ({how})");
        println!("skipped: {what} is absent ({how})");
    }
    there
}

/// A file or folder of the models folder, or nothing (said so) where models need not be there.
pub(crate) fn model(path: impl AsRef<Path>) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/causerie"));
    let root = std::env::var_os("CAUSERIE_MODELS").map(PathBuf::from).or_else(home)?;
    let found = root.join(path.as_ref());
    required(found.exists(), &format!("model {}", path.as_ref().display()), "run `causerie models pull`")
        .then_some(found)
}

/// A file of the golden folder, relative to `tests/golden`.
pub(crate) fn golden(path: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
