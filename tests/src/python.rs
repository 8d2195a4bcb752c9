//! Published clients in Python, as the tests run them.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use causerie_codec::wav;
use causerie_model_api::INPUT_RATE;
use causerie_units::SampleRate;
use serde_json::Value;

use crate::real::skip;

/// The interpreter with the clients' packages. Says so when there is none.
///
/// # Panics
/// As [`skip`].
pub fn interpreter(package: &str) -> Option<OsString> {
    let python = std::env::var_os("CAUSERIE_PYTHON");
    if python.is_none() {
        skip(&format!("CAUSERIE_PYTHON names no interpreter with {package}"));
    }
    python
}

/// Runs a script of `tests/it`, with this interpreter of its language; what it prints is one JSON object.
///
/// # Panics
/// It fails, or prints something else.
pub async fn run<A: AsRef<OsStr>>(interpreter: &OsStr, script: &str, arguments: impl IntoIterator<Item = A>) -> Value {
    let output = tokio::process::Command::new(interpreter)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("it").join(script))
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .expect("the interpreter runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    println!("{printed}");
    serde_json::from_str(printed.trim()).expect("one JSON object")
}

/// Writes a recording at [`INPUT_RATE`].
///
/// # Panics
/// There is no room.
pub fn record(path: &Path, samples: &[f32]) {
    let mut file = wav::Writer::create(path, SampleRate::new(INPUT_RATE).expect("not zero")).expect("a file");
    file.push(samples).expect("room");
    file.finish().expect("room");
}
