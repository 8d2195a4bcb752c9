//! Playing speech through the system's own player, `aplay` or `paplay`, whichever is there.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::record::RATE;

/// How long the player may take for what it has in its buffers.
const LAST_SOUNDS: Duration = Duration::from_secs(3);

/// A running player, or none.
pub(super) struct Player {
    child: Option<Child>,
    /// No player could be started; it was said once.
    given_up: bool,
}

impl Player {
    pub(super) fn new() -> Self {
        Self { child: None, given_up: false }
    }

    /// Plays `audio`; what is still queued is dropped first if the reply was `interrupted`.
    pub(super) async fn play(&mut self, audio: &[f32], interrupted: bool) {
        if interrupted {
            // Dropping it kills it, and with it what it has buffered.
            self.child = None;
        }
        if audio.is_empty() || self.given_up {
            return;
        }
        if self.child.is_none() {
            self.child = start();
            if self.child.is_none() {
                self.given_up = true;
                eprintln!("neither aplay nor paplay can be started, so nothing is played; use --out FILE.wav");
                return;
            }
        }
        let bytes: Vec<u8> = audio.iter().flat_map(|sample| ((sample * 32_767.0) as i16).to_le_bytes()).collect();
        let stdin = self.child.as_mut().and_then(|child| child.stdin.as_mut());
        if let Some(stdin) = stdin
            && stdin.write_all(&bytes).await.is_err()
        {
            self.child = None;
            self.given_up = true;
            eprintln!("the player ended, so nothing more is played; use --out FILE.wav");
        }
    }

    /// Lets what is queued be heard.
    pub(super) async fn finish(mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            // A player that hangs is killed by being dropped.
            let _ = tokio::time::timeout(LAST_SOUNDS, child.wait()).await;
        }
    }
}

fn start() -> Option<Child> {
    let rate = RATE.hz();
    let aplay = ["-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r"].map(str::to_owned);
    let aplay = aplay.into_iter().chain([rate.to_string()]).collect::<Vec<_>>();
    let paplay =
        vec!["--raw".to_owned(), "--format=s16le".to_owned(), "--channels=1".to_owned(), format!("--rate={rate}")];
    [("aplay", aplay), ("paplay", paplay)].into_iter().find_map(|(program, arguments)| {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()
    })
}
