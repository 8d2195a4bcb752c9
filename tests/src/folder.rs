//! Folders that tests write to.

use std::path::PathBuf;

/// A folder of a test's own, removed with it.
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder; `name` tells the folders of a process apart.
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("causerie-it-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder is made");
        Self(folder)
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
