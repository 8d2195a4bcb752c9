//! The list of models, parsed and checked once; past [`Manifest::parse`] every name resolves and every size adds up.

use std::collections::HashSet;
use std::path::{Component, Path};
use std::sync::LazyLock;

use serde::Deserialize;

use super::Error;

/// The manifest shipped in the binary.
const EMBEDDED: &str = include_str!("../../models.toml");

/// All models and the wheels they come in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The models, the default ones first.
    #[serde(rename = "model")]
    pub models: Vec<Model>,
    /// The wheels.
    #[serde(rename = "wheel", default)]
    pub wheels: Vec<Wheel>,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Language model.
    Lm,
    /// Speech recognition.
    Asr,
    /// Speech synthesis.
    Tts,
    /// Voice activity detection.
    Vad,
    /// End-of-turn detection.
    Turn,
}

impl Role {
    /// The short name used in tables and in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lm => "lm",
            Self::Asr => "asr",
            Self::Tts => "tts",
            Self::Vad => "vad",
            Self::Turn => "turn",
        }
    }
}

/// One model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name it is asked for by.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Whether the default engine needs it.
    pub default: bool,
    /// SPDX licence of the weights.
    pub licence: String,
    /// Its public hub repository.
    pub hub: String,
    /// One line about it.
    pub about: String,
    /// Its files.
    #[serde(rename = "file")]
    pub files: Vec<ModelFile>,
}

impl Model {
    /// Bytes of all its files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// One file of a model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Its path below the models folder.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// Where its bytes come from, in order.
    pub parts: Vec<Part>,
}

/// A run of bytes of a model file: one member of one wheel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The wheel's name.
    pub wheel: String,
    /// The member's path inside the wheel.
    pub member: String,
    /// Its length in bytes.
    pub size: u64,
}

/// A wheel of a package index, pinned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Length of the wheel in bytes.
    pub size: u64,
    /// SHA-256 of the wheel.
    pub sha256: String,
}

impl Manifest {
    /// The manifest shipped in the binary.
    pub fn embedded() -> &'static Self {
        static MANIFEST: LazyLock<Manifest> =
            LazyLock::new(|| Manifest::parse(EMBEDDED).expect("a test parses the embedded manifest"));
        &MANIFEST
    }

    /// Parses a manifest and checks what later code relies on.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let manifest: Self = toml::from_str(text).map_err(|error| Error::Manifest(error.to_string()))?;
        manifest.check().map_err(Error::Manifest)?;
        Ok(manifest)
    }

    /// The model called `name`.
    pub fn model(&self, name: &str) -> Result<&Model, Error> {
        self.models.iter().find(|model| model.name == name).ok_or_else(|| Error::Unknown {
            name: name.to_owned(),
            known: self.models.iter().map(|model| model.name.clone()).collect(),
        })
    }

    /// The models the default engine needs.
    pub fn defaults(&self) -> impl Iterator<Item = &Model> {
        self.models.iter().filter(|model| model.default)
    }

    /// The wheel called `name`, which a part of this manifest refers to.
    pub(super) fn wheel(&self, name: &str) -> &Wheel {
        self.wheels.iter().find(|wheel| wheel.name == name).expect("`check` resolved the wheels of all parts")
    }

    fn check(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        let mut paths = HashSet::new();
        for wheel in &self.wheels {
            if !names.insert(("wheel", &wheel.name)) {
                return Err(format!("wheel {} is listed twice", wheel.name));
            }
            check_sha256(&wheel.name, &wheel.sha256)?;
        }
        for model in &self.models {
            if !names.insert(("model", &model.name)) {
                return Err(format!("model {} is listed twice", model.name));
            }
            for file in &model.files {
                if !paths.insert(&file.path) {
                    return Err(format!("{} is listed twice", file.path));
                }
                file.check().map_err(|error| format!("model {}: {}: {error}", model.name, file.path))?;
                for part in &file.parts {
                    if !names.contains(&("wheel", &part.wheel)) {
                        return Err(format!("model {}: wheel {} is not listed", model.name, part.wheel));
                    }
                }
            }
        }
        Ok(())
    }
}

impl ModelFile {
    fn check(&self) -> Result<(), String> {
        let path = Path::new(&self.path);
        // The path is joined to the models folder: it must stay inside.
        if self.path.is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err("the path is not a plain relative path".to_owned());
        }
        let parts: u64 = self.parts.iter().map(|part| part.size).sum();
        if parts != self.size {
            return Err(format!("the parts have {parts} bytes, the file {}", self.size));
        }
        check_sha256(&self.path, &self.sha256)
    }
}

fn check_sha256(of: &str, hash: &str) -> Result<(), String> {
    let hexadecimal = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hexadecimal { Ok(()) } else { Err(format!("{of}: {hash:?} is not a sha256")) }
}
