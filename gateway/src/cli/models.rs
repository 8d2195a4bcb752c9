//! `causerie models`: the list, the fetching and the checking of model files.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use crate::models::{Error, Folder, Manifest, Model, Pip, Presence, Progress, pull as pull_models};

/// The folder that holds the models.
#[derive(Args, Debug)]
pub struct FolderArgs {
    /// Folder of the models; by default `causerie` in the user's cache folder.
    #[arg(long, value_name = "DIR", env = "CAUSERIE_MODELS")]
    pub models: Option<PathBuf>,
}

impl FolderArgs {
    /// The folder these options choose.
    pub fn folder(&self) -> Folder {
        Folder::resolve(self.models.as_deref())
    }
}

/// Options of `causerie models list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    folder: FolderArgs,
}

/// Options of `causerie models pull`.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// Models to fetch; by default those that the default engine needs.
    names: Vec<String>,
    /// Fetch every model of the list.
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Fetch them again even if they are here.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

/// Options of `causerie models verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Models to check; by default all that are here.
    names: Vec<String>,
    #[command(flatten)]
    folder: FolderArgs,
}

/// Runs `causerie models list`.
pub fn list(args: ListArgs) -> anyhow::Result<()> {
    let (manifest, folder) = (Manifest::embedded(), args.folder.folder());
    println!("{:<28} {:<5} {:>9}  {:<8} {:<13} ABOUT", "NAME", "ROLE", "SIZE", "HERE", "LICENCE");
    for model in &manifest.models {
        let here = match folder.presence(model) {
            Presence::Present => "yes",
            Presence::Partial => "partly",
            Presence::Absent => "no",
        };
        let (role, size) = (model.role.name(), megabytes(model.size()));
        let extra = if model.default { "" } else { " (not needed by default)" };
        println!("{:<28} {role:<5} {size:>9}  {here:<8} {:<13} {}{extra}", model.name, model.licence, model.about);
    }
    println!("\nfolder: {}", folder.path().display());
    Ok(())
}

/// Runs `causerie models pull`.
pub fn pull(args: PullArgs) -> anyhow::Result<()> {
    let (manifest, folder) = (Manifest::embedded(), args.folder.folder());
    let models: Vec<&Model> = if args.all {
        manifest.models.iter().collect()
    } else if args.names.is_empty() {
        manifest.defaults().collect()
    } else {
        args.names.iter().map(|name| manifest.model(name)).collect::<Result<_, _>>()?
    };
    if args.force {
        for path in models.iter().flat_map(|model| &model.files).map(|file| folder.file(file)) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    bail!("cannot remove {}: {error}", path.display())
                }
                _ => {}
            }
        }
    }
    let names = || models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
    if models.iter().all(|model| folder.presence(model) == Presence::Present) {
        println!("all here in {}: {}", folder.path().display(), names());
        return Ok(());
    }
    let mut pip = Pip::find()?;
    let mut display = Display::new();
    println!("fetching into {}: {}", folder.path().display(), names());
    let result = pull_models(manifest, &folder, &models, &mut pip, &mut |progress| display.show(progress));
    display.clear();
    result?;
    println!("all here in {}: {}", folder.path().display(), names());
    Ok(())
}

/// Runs `causerie models verify`.
pub fn verify(args: VerifyArgs) -> anyhow::Result<()> {
    let (manifest, folder) = (Manifest::embedded(), args.folder.folder());
    let named: Vec<&Model> = args.names.iter().map(|name| manifest.model(name)).collect::<Result<_, _>>()?;
    let models: Vec<&Model> = if named.is_empty() {
        // Models that nobody asked for may be absent; those of the default engine may not.
        let here = |model: &&Model| model.default || folder.presence(model) != Presence::Absent;
        manifest.models.iter().filter(here).collect()
    } else {
        named
    };
    let mut bad = 0;
    for model in models {
        // One line says that a model is absent, however many files it has.
        let checks = model.files.iter().map(|file| folder.verify(model, file));
        match checks.collect::<Result<Vec<()>, Error>>() {
            Ok(files) => {
                println!("{}: as expected ({} in {})", model.name, megabytes(model.size()), count(files.len(), "file"))
            }
            Err(error) => {
                bad += 1;
                println!("{}: {error}", model.name);
            }
        }
    }
    match bad {
        0 => Ok(()),
        bad => bail!("not as expected: {}", count(bad, "model")),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Progress on the terminal: one line that is rewritten, and a lasting line for each wheel. Into a file, only the
/// lasting lines.
struct Display {
    live: bool,
    start: Instant,
    wheel: Instant,
    shown: usize,
}

impl Display {
    fn new() -> Self {
        let now = Instant::now();
        Self { live: std::io::stdout().is_terminal(), start: now, wheel: now, shown: 0 }
    }

    fn show(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Waiting => self.line("another `causerie models pull` is at work in this folder; waiting for it"),
            Progress::Fetching { wheel, number, of, came, before, total } => {
                if came == 0 {
                    self.wheel = Instant::now();
                }
                let share = (before + came) * 100 / total.max(1);
                let rate = (before + came) as f64 / 1e6 / self.start.elapsed().as_secs_f64().max(0.001);
                self.rewrite(&format!(
                    "[{number:>2}/{of}] {} {} of {}   in all {share} % of {}, {rate:.1} MB/s",
                    wheel.name,
                    megabytes(came),
                    megabytes(wheel.size),
                    megabytes(total),
                ));
            }
            Progress::Unpacked { wheel, number, of } => {
                let took = self.wheel.elapsed();
                self.line(&format!(
                    "[{number:>2}/{of}] {} {}  {}  {}",
                    wheel.name,
                    wheel.version,
                    megabytes(wheel.size),
                    seconds(took)
                ));
            }
            Progress::Finished { file } => self.line(&format!("        {}  verified", file.path)),
        }
    }

    fn rewrite(&mut self, text: &str) {
        if self.live {
            print!("\r{text:<width$}", width = self.shown);
            self.shown = text.chars().count();
            // A progress line that cannot be written is no reason to stop a download.
            let _ = std::io::stdout().flush();
        }
    }

    fn clear(&mut self) {
        if self.shown > 0 {
            print!("\r{:<width$}\r", "", width = self.shown);
            self.shown = 0;
        }
    }

    fn line(&mut self, text: &str) {
        self.clear();
        println!("{text}");
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
