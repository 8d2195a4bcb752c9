use std::path::{Path, PathBuf};

use crate::omni::parity::Comparison;

/// The golden checkpoint and its cases.
pub(in crate::omni) fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/qwen3-omni-tiny")
}

#[test]
fn every_recorded_tensor_agrees_with_the_reference() {
    let lines = Comparison::open(&tiny(), 2).unwrap().run(None).unwrap();
    let missed: Vec<_> = lines.iter().filter(|line| !line.holds()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}
