//! Files that are read again when they have changed, so that keys and certificates are renewed without a restart.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;

/// How often the files are looked at.
pub const PERIOD: Duration = Duration::from_secs(1);

/// Looks at files for as long as it lives.
#[derive(Debug)]
pub struct Reloading(JoinHandle<()>);

impl Drop for Reloading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Files as they were before they were read first.
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    modified: Vec<Option<SystemTime>>,
}

impl Files {
    /// Looks at the files; they are to be read after that.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let modified = modified(&paths);
        Self { paths, modified }
    }

    /// Calls `read`, on a thread that may wait, when one of the files has changed, and again until it succeeds; hands on
    /// to `take` what was read, and each reason why not once. Must be called on tokio's runtime.
    pub(crate) fn watch<T: Send + 'static, E: Display + Send + 'static>(
        mut self,
        read: impl Fn() -> Result<T, E> + Clone + Send + 'static,
        mut take: impl FnMut(Result<T, E>) + Send + 'static,
    ) -> Reloading {
        Reloading(tokio::spawn(async move {
            let mut told = None;
            loop {
                tokio::time::sleep(PERIOD).await;
                let (paths, before, read) = (self.paths.clone(), self.modified.clone(), read.clone());
                let look = tokio::task::spawn_blocking(move || {
                    let now = modified(&paths);
                    (now != before).then(|| (now, read()))
                });
                // A job that did not run, because the runtime ends, has nothing to say.
                let Ok(Some((now, found))) = look.await else { continue };
                match &found {
                    Ok(_) => (self.modified, told) = (now, None),
                    Err(error) => {
                        let why = Some(error.to_string());
                        if told == why {
                            continue;
                        }
                        told = why;
                    }
                }
                take(found);
            }
        }))
    }
}

fn modified(paths: &[PathBuf]) -> Vec<Option<SystemTime>> {
    paths.iter().map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok()).collect()
}
