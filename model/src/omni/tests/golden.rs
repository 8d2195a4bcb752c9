use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

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

/// What is dumped is what was compared: every recorded tensor by its name, in its shape, with its values.
#[test]
fn a_dump_has_every_recorded_tensor_in_its_shape() {
    let dir = std::env::temp_dir().join(format!("causerie-omni-dump-{}", std::process::id()));
    let comparison = Comparison::open(&tiny(), 2).unwrap();
    let lines = comparison.run(Some(&dir)).unwrap();
    let mut seen = 0;
    for case in comparison.cases() {
        let file = format!("{}.safetensors", case.name());
        let (recorded, dumped) = (std::fs::read(tiny().join(&file)).unwrap(), std::fs::read(dir.join(&file)).unwrap());
        let (recorded, dumped) =
            (SafeTensors::deserialize(&recorded).unwrap(), SafeTensors::deserialize(&dumped).unwrap());
        for (name, view) in recorded.tensors() {
            if !name.starts_with("out.") && name != "wav" {
                continue;
            }
            let ours = dumped.tensor(&name).unwrap_or_else(|_| panic!("{file} has no {name}"));
            assert_eq!((ours.dtype(), ours.shape()), (Dtype::F32, view.shape()), "{file} {name}");
            let float = |b: &[u8; 4]| f64::from(f32::from_le_bytes(*b));
            let values: Vec<f64> = match view.dtype() {
                Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(float).collect(),
                _ => view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            };
            let off = ours.data().as_chunks::<4>().0.iter().zip(&values).map(|(a, b)| (float(a) - b).abs());
            assert!(off.fold(0.0, f64::max) <= 1e-4, "{file} {name}");
            seen += 1;
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(seen, lines.len(), "every line of the comparison");
}
