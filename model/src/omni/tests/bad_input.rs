//! Checkpoints and inputs that cannot be used: each has an error of its own.

use std::path::{Path, PathBuf};

use causerie_kernels::Pool;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use super::tiny;
use crate::omni::config::Config;
use crate::omni::positions::{Grid, Video, VideoWithSound, positions};
use crate::omni::vision::{Scratch, Seen};
use crate::omni::{Omni, OmniError, Placement};

/// A folder of its own with the golden configuration, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("causerie-omni-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::copy(tiny().join("config.json"), path.join("config.json")).unwrap();
        Self(path)
    }

    fn load(&self) -> Result<Omni, OmniError> {
        Omni::load(&Pool::new(1), &self.0, Placement::F32)
    }

    fn error(&self) -> OmniError {
        self.load().err().expect("it is refused")
    }

    fn write(&self, file: &str, tensors: &[Stored]) {
        let views =
            tensors.iter().map(|t| (t.name.clone(), TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &self.0.join(file)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone)]
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn golden_tensors() -> Vec<Stored> {
    let bytes = std::fs::read(tiny().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stored = |(name, view): (String, TensorView<'_>)| Stored {
        name,
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.tensors().into_iter().map(stored).collect()
}

const NAME: &str = "thinker.model.layers.1.self_attn.q_proj.weight";

fn with(change: impl Fn(&mut Vec<Stored>, usize)) -> Vec<Stored> {
    let mut tensors = golden_tensors();
    let at = tensors.iter().position(|t| t.name == NAME).unwrap();
    change(&mut tensors, at);
    tensors
}

#[test]
fn damaged_checkpoints_have_named_errors() {
    let folder = Folder::new("damaged");
    let error = |tensors: Vec<Stored>| {
        folder.write("model.safetensors", &tensors);
        folder.error()
    };
    let missing = error(with(|tensors, at| _ = tensors.remove(at)));
    assert!(matches!(&missing, OmniError::MissingTensors { count: 1, first } if first == NAME), "{missing}");
    let extra = error(with(|tensors, at| {
        let another = Stored { name: "thinker.model.extra".into(), ..tensors[at].clone() };
        tensors.push(another);
    }));
    assert!(matches!(&extra, OmniError::ExtraTensors { count: 1, first } if first == "thinker.model.extra"), "{extra}");
    let shape = error(with(|tensors, at| tensors[at].shape = vec![32, 128]));
    assert_eq!(shape.to_string(), format!("{NAME} has the shape [32, 128]; expected [64, 64]"));
    let dtype = error(with(|tensors, at| tensors[at].dtype = Dtype::I32));
    assert!(matches!(&dtype, OmniError::Dtype { name, dtype } if name == NAME && dtype == "I32"), "{dtype}");
    let nan = error(with(|tensors, at| tensors[at].bytes[40..44].copy_from_slice(&f32::NAN.to_le_bytes())));
    assert!(matches!(&nan, OmniError::NotFinite { name, index: 10, value } if name == NAME && value.is_nan()), "{nan}");
}

#[test]
fn truncated_and_absent_files_are_named() {
    let folder = Folder::new("truncated");
    assert!(folder.error().to_string().contains("model.safetensors"));
    let whole = std::fs::read(tiny().join("model.safetensors")).unwrap();
    for len in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(folder.0.join("model.safetensors"), &whole[..len]).unwrap();
        let error = folder.error();
        assert!(error.to_string().contains("model.safetensors"), "{len} bytes: {error}");
    }
}

#[test]
fn shards_are_one_checkpoint_and_must_hold_what_the_index_promises() {
    let folder = Folder::new("shards");
    let tensors = golden_tensors();
    let (first, second) = tensors.split_at(200);
    folder.write("model-00001-of-00002.safetensors", first);
    folder.write("model-00002-of-00002.safetensors", second);
    let map = |tensors: &[Stored], file: &str| -> Vec<(String, Value)> {
        tensors.iter().map(|t| (t.name.clone(), json!(file))).collect()
    };
    let mut names = map(first, "model-00001-of-00002.safetensors");
    names.extend(map(second, "model-00002-of-00002.safetensors"));
    let index = |names: Vec<(String, Value)>| {
        let index = json!({ "metadata": {}, "weight_map": Value::Object(names.into_iter().collect()) });
        std::fs::write(folder.0.join("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    index(names.clone());
    assert!(folder.load().is_ok());
    let whole = std::fs::read(folder.0.join("model-00002-of-00002.safetensors")).unwrap();
    std::fs::write(folder.0.join("model-00002-of-00002.safetensors"), &whole[..whole.len() - 9]).unwrap();
    let error = folder.error();
    assert!(matches!(&error, OmniError::Malformed { path, .. } if path.ends_with("model-00002-of-00002.safetensors")));
    std::fs::remove_file(folder.0.join("model-00002-of-00002.safetensors")).unwrap();
    assert!(folder.error().to_string().contains("model-00002-of-00002.safetensors"));
    folder.write("model-00002-of-00002.safetensors", &tensors[199..]);
    assert!(folder.error().to_string().contains("is in another shard too"));
    std::fs::write(folder.0.join("model-00002-of-00002.safetensors"), whole).unwrap();
    let mut wrong = names.clone();
    wrong[0].1 = json!("model-00002-of-00002.safetensors");
    index(wrong);
    assert!(folder.error().to_string().contains("which the index promises"));
    names[0].1 = json!("../model-00001-of-00002.safetensors");
    index(names);
    assert!(folder.error().to_string().contains("is not the name of a file beside it"));
}

#[test]
fn bf16_checkpoints_load_as_floats() {
    let folder = Folder::new("bf16");
    let mut tensors = golden_tensors();
    for tensor in &mut tensors {
        let halves = tensor
            .bytes
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|b| half::bf16::from_f32(f32::from_le_bytes(*b)).to_le_bytes());
        (tensor.dtype, tensor.bytes) = (Dtype::BF16, halves.collect());
    }
    folder.write("model.safetensors", &tensors);
    assert!(folder.load().is_ok());
}

/// Every field that the reader asks for is an error when it is missing, and names itself.
#[test]
fn a_configuration_without_a_field_is_refused() {
    let text = std::fs::read_to_string(tiny().join("config.json")).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    let mut needed = 0;
    for (path, _) in leaves(&whole, "") {
        let mut without = whole.clone();
        let (parent, name) = path.rsplit_once('/').unwrap();
        without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        if let Err(error) = Config::parse(&without.to_string()) {
            needed += 1;
            let field = path.trim_start_matches('/').replace('/', ".");
            let names = matches!(&error, OmniError::Config { field: f, .. }
                if field.ends_with(f.rsplit('.').next().unwrap()) || f.ends_with("num_experts") || f.ends_with("rope_type"));
            assert!(names, "without {field}: {error}");
        }
    }
    assert!(needed > 90, "only {needed} fields are needed");
}

fn leaves(value: &Value, path: &str) -> Vec<(String, Value)> {
    let inner = |(name, value): (&String, &Value)| leaves(value, &format!("{path}/{name}"));
    match value {
        Value::Object(members) => members.iter().flat_map(inner).collect(),
        leaf => vec![(path.to_owned(), leaf.clone())],
    }
}

#[test]
fn a_configuration_that_contradicts_itself_or_its_tensors_is_refused() {
    let text = std::fs::read_to_string(tiny().join("config.json")).unwrap();
    for (path, value, words) in [
        ("/thinker_config/text_config/num_experts_per_tok", json!(9), "num_experts_per_tok: is 9 of 8 experts"),
        ("/thinker_config/text_config/rope_parameters/mrope_section", json!([4, 2, 1]), "mrope_section"),
        (
            "/thinker_config/audio_config/output_dim",
            json!(32),
            "is 32, but thinker_config.text_config.hidden_size is 64",
        ),
        ("/thinker_config/text_config/hidden_act", json!("relu"), "hidden_act: is `relu`; known is `silu`"),
        ("/talker_config/accept_hidden_layer", json!(5), "accept_hidden_layer: is 5 of 4 layers"),
        ("/thinker_config/audio_token_id", json!(400), "outside of the vocabulary of 320"),
        (
            "/thinker_config/vision_start_token_id",
            json!(320),
            "vision_start_token_id: is 320, outside of the vocabulary",
        ),
        ("/assistant_token_id", json!(77091), "assistant_token_id: is 77091, outside of the vocabulary"),
        ("/talker_config/speaker_id/ethan", json!(5_000), "ethan: is 5000, outside of the vocabulary"),
        ("/thinker_config/text_config/use_sliding_window", json!(true), "is true; known is false"),
        ("/thinker_config/audio_config/scale_embedding", json!(true), "is true; known is false"),
        ("/thinker_config/vision_config/apply_vit_abs_pos_embed", json!(false), "is false; known is true"),
        ("/thinker_config/audio_config/n_window", json!(1_000_000), "n_window: is 1000000; the most is 1500"),
        ("/code2wav_config/upsampling_ratios", json!([1_000, 1_000]), "upsampling_ratios: is [1000, 1000] after"),
        ("/code2wav_config/codebook_size", json!(65), "codebook_size"),
        ("/thinker_config/text_config/num_hidden_layers", json!(0), "num_hidden_layers: is 0"),
        ("/thinker_config/vision_config/num_position_embeddings", json!(63), "is 63, which is no square of patches"),
    ] {
        let mut config: Value = serde_json::from_str(&text).unwrap();
        let (parent, name) = path.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
        let error = Config::parse(&config.to_string()).expect_err(path).to_string();
        assert!(error.contains(words), "{path}: {error}");
    }
    let folder = Folder::new("contradiction");
    let changed = text.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5");
    std::fs::write(folder.0.join("config.json"), changed).unwrap();
    std::fs::copy(tiny().join("model.safetensors"), folder.0.join("model.safetensors")).unwrap();
    assert!(matches!(folder.error(), OmniError::MissingTensors { .. }));
}

/// The checkpoints as they are published have no `num_position_embeddings`, and their angles in two fields.
#[test]
fn the_published_spelling_is_read_like_the_newer_one() {
    let text = std::fs::read_to_string(tiny().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let vision = config.pointer_mut("/thinker_config/vision_config").unwrap().as_object_mut().unwrap();
    assert_eq!(vision.remove("num_position_embeddings"), Some(json!(64)));
    vision.insert("image_size".into(), json!(128));
    for part in ["thinker_config/text_config", "talker_config/text_config", "talker_config/code_predictor_config"] {
        let part = config.pointer_mut(&format!("/{part}")).unwrap().as_object_mut().unwrap();
        let mut rope = part.remove("rope_parameters").unwrap();
        part.insert("rope_theta".into(), rope.as_object_mut().unwrap().remove("rope_theta").unwrap());
        part.insert("rope_scaling".into(), if rope["mrope_section"].is_null() { Value::Null } else { rope });
    }
    assert_eq!(Config::parse(&config.to_string()).unwrap(), Config::parse(&text).unwrap());
    config["thinker_config"]["vision_config"]["image_size"] = json!(130);
    let error = Config::parse(&config.to_string()).unwrap_err().to_string();
    assert!(error.contains("image_size: is 130, which is no square of patches"), "{error}");
}

/// Whatever number stands in a configuration: it is refused, or agrees with the tensors. Nothing is allocated for what is
/// not there.
#[test]
fn no_number_of_a_configuration_is_too_much() {
    let text = std::fs::read_to_string(tiny().join("config.json")).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    let folder = Folder::new("numbers");
    std::fs::copy(tiny().join("model.safetensors"), folder.0.join("model.safetensors")).unwrap();
    let (mut refused, mut loaded) = (0, 0);
    for (path, value) in leaves(&whole, "") {
        let other = |n: u64| if value.is_array() { json!([n, n, n, n]) } else { json!(n) };
        if !value.is_number() && !value.is_array() {
            continue;
        }
        for n in [0, 3, 1 << 20, (1 << 31) - 1, u64::MAX] {
            let mut changed = whole.clone();
            *changed.pointer_mut(&path).unwrap() = other(n);
            std::fs::write(folder.0.join("config.json"), changed.to_string()).unwrap();
            match folder.load() {
                Ok(_) => loaded += 1,
                Err(error) => {
                    refused += 1;
                    let known = matches!(
                        error,
                        OmniError::Config { .. }
                            | OmniError::Shape { .. }
                            | OmniError::MissingTensors { .. }
                            | OmniError::ExtraTensors { .. }
                    );
                    assert!(known, "{path} = {n}: {error}");
                }
            }
        }
    }
    assert!(refused > 300 && loaded > 10, "{refused} refused, {loaded} loaded");
}

#[test]
fn prompts_and_pictures_must_fit_each_other() {
    let omni = Omni::load(&Pool::new(1), Path::new(&tiny()), Placement::F32).unwrap();
    let config = &omni.config.thinker;
    let (image, video) = (config.media.image, config.media.video);
    let grid = |frames, height, width| Grid { frames, height, width };
    let merged = VideoWithSound::Merged;
    let clip = Video { grid: grid(1, 2, 2), seconds_per_grid: 1.0, since: None };
    let empty = Video { grid: grid(0, 2, 2), ..clip };
    for (tokens, images, videos) in [
        (vec![1, image], vec![], vec![]),
        (vec![1, 2], vec![grid(1, 2, 2)], vec![]),
        (vec![image], vec![grid(1, 4, 2)], vec![]),
        (vec![image], vec![grid(0, 2, 2)], vec![]),
        (vec![video, video], vec![], vec![clip]),
        (vec![video], vec![], vec![empty]),
        (vec![1, 2], vec![], vec![empty]),
        (vec![config.media.vision_start, config.media.audio_start, video, video], vec![], vec![clip]),
        (vec![config.media.vision_start, config.media.audio_start, config.media.audio], vec![], vec![clip]),
    ] {
        let refused = positions(config, &tokens, &images, &videos, merged);
        assert!(matches!(refused, Err(OmniError::Input(_))), "{tokens:?}: {refused:?}");
    }
    let mut seen = Seen::default();
    for (grid, patches) in [(grid(0, 2, 2), 0), (grid(1, 1, 2), 2), (grid(1, 2, 2), 3), (grid(1, 2, 2), 8)] {
        let patches = vec![0.0; patches * config.vision.patch_values()];
        let refused = omni.vision.see(&Pool::new(1), &mut Scratch::default(), &patches, grid, &mut seen);
        assert!(matches!(refused, Err(OmniError::Input(_))), "{grid:?}");
    }
    let refused = omni.thinker.embed(&[5, 320], &mut Vec::new());
    assert!(matches!(refused, Err(OmniError::Token { token: 320, vocabulary: 320 })));
}
