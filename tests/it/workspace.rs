//! The rules of the workspace: which crate may know which, and who may import what.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Crates of ours that each crate of ours may depend on.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("causerie-units", &[]),
    ("causerie-model-api", &[]),
    ("causerie-kernels", &[]),
    ("causerie-proto", &[]),
    ("causerie-codec", &["causerie-units"]),
    ("causerie-model", &["causerie-kernels", "causerie-model-api"]),
    ("causerie-session", &["causerie-model-api", "causerie-units"]),
    (
        "causerie-gateway",
        &[
            "causerie-proto",
            "causerie-codec",
            "causerie-model",
            "causerie-model-api",
            "causerie-session",
            "causerie-units",
        ],
    ),
];

/// Foreign crates that only some of ours may import.
const RESERVED: [(&str, &[&str]); 7] = [
    ("tokio", &["causerie-gateway", "causerie-proto", "causerie-tests", "xtask"]),
    ("tonic", &["causerie-gateway", "causerie-proto", "causerie-tests", "xtask"]),
    ("prost", &["causerie-gateway", "causerie-proto", "causerie-tests"]),
    ("axum", &["causerie-gateway", "causerie-tests"]),
    ("memmap2", &["causerie-kernels"]),
    ("cudarc", &["causerie-kernels"]),
    ("symphonia", &["causerie-codec"]),
];

#[test]
fn dependencies_point_one_way() {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for package in &metadata.packages {
        let name = package.name.as_str();
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let on = dependency.name.as_str();
            if let Some(ours) = allowed.get(name) {
                seen += 1;
                if on.starts_with("causerie-") && !ours.contains(&on) {
                    wrong.push(format!("{name} may not depend on {on}"));
                }
            }
            if let Some((_, users)) = RESERVED.iter().find(|(reserved, _)| *reserved == on)
                && !users.contains(&name)
            {
                wrong.push(format!("{name} may not import {on}"));
            }
            if dependency.path.is_none() && on.starts_with("causerie-") {
                wrong.push(format!("{name} takes {on} from elsewhere"));
            }
        }
    }
    assert!(seen > 20, "the workspace was not read: {seen} dependencies");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_and_intrinsics_stay_where_they_belong() {
    let root = root();
    let mut wrong = Vec::new();
    for (dir, may_be_unsafe) in
        [("proto/src", false), ("codec/src", true), ("codec/units/src", false), ("model", false), ("gateway", false)]
    {
        let mut files = Vec::new();
        sources(&root.join(dir), &mut files);
        assert!(!files.is_empty(), "{dir} has no sources");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or("");
                let foreign = code.contains("core::arch") || code.contains("std::arch");
                let unsafe_code = !may_be_unsafe && (code.contains("unsafe {") || code.contains("unsafe fn"));
                if foreign || unsafe_code {
                    wrong.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_session_has_no_clock_thread_or_socket() {
    let mut files = Vec::new();
    sources(&root().join("gateway/session/src"), &mut files);
    let banned = ["std::thread", "std::net", "std::sync::mpsc", "Instant::now", "SystemTime", "tokio"];
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for word in banned {
            let used = text.lines().any(|l| l.split("//").next().unwrap_or("").contains(word));
            assert!(!used, "{} uses {word}", file.display());
        }
    }
}
