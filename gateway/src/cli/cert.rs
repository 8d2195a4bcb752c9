//! `causerie cert`: certificates for development.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;

use crate::tls::{development, local_names};

/// A clock that is a little late still takes a new certificate.
const EARLIER: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Options of `causerie cert`.
#[derive(Args, Debug)]
pub struct CertArgs {
    /// Where to write them; the folder is made if it is not there.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// A further name or address of the server, beside those by which this machine reaches itself. May be repeated.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// How long they count.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=825))]
    days: u32,
}

/// Runs `causerie cert`.
///
/// # Errors
/// A name cannot be in a certificate, or a file is there already or cannot be written.
pub fn run(args: CertArgs) -> anyhow::Result<()> {
    let names: Vec<String> = args.host.into_iter().chain(local_names()).collect();
    let now = SystemTime::now();
    let made = development(&names, now - EARLIER, now + DAY * args.days)
        .with_context(|| format!("no certificate for {}", names.join(", ")))?;
    let folder = &args.out;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, text) in [
        ("ca.pem", &made.authority),
        ("cert.pem", &made.server.cert),
        ("key.pem", &made.server.key),
        ("client-cert.pem", &made.client.cert),
        ("client-key.pem", &made.client.key),
    ] {
        write_new(&folder.join(name), text)?;
    }
    let (cert, key, ca) = (folder.join("cert.pem"), folder.join("key.pem"), folder.join("ca.pem"));
    println!("causerie serve --tls-cert {} --tls-key {}", cert.display(), key.display());
    eprintln!(
        "For {}, {} days. Clients are to trust {} (SSL_CERT_FILE, `causerie talk --ca`); not for production.",
        names.join(", "),
        args.days,
        ca.display()
    );
    Ok(())
}

/// Writes a file that only its owner may read. What is there already stays: somebody may use it.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
