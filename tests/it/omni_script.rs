//! A tiny checkpoint that says what it is told to, for what random networks never do: it calls a function and tells of the
//! result. The thinker's layers add nothing, so that a word decides the next one alone; everything else is as it was.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// The call that it makes.
pub(crate) const CALL: &str = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 2}}\n</tool_call>";
/// What it says of the result.
pub(crate) const ANSWER: &str = "It is three.";

/// Tokens of the tiny vocabulary: a newline, the end of an answer, and some that are not used.
const NEWLINE: usize = 10;
const END: usize = 301;
const CALLS: usize = 256;
const TOLD: usize = 257;
const SAYS: usize = 258;
/// The width of the thinker.
const HIDDEN: usize = 64;

/// A copy of the tiny checkpoint in a folder `dir` in which a question is answered with [`CALL`], and a result with
/// [`ANSWER`].
pub(crate) fn scripted(dir: &Path) -> PathBuf {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/qwen3-omni-tiny");
    for file in ["config.json", "generation_config.json"] {
        std::fs::copy(tiny.join(file), dir.join(file)).expect("a copy");
    }
    let json = |file: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(tiny.join(file)).expect("a file")).expect("JSON")
    };
    let mut tokenizer = json("tokenizer.json");
    for (token, text) in [(CALLS, CALL), (SAYS, ANSWER)] {
        tokenizer["added_tokens"][token - 256]["content"] = text.into();
        tokenizer["added_tokens"][token - 256]["special"] = false.into();
    }
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).expect("it is written");
    // Behind a result the answer is opened with another word.
    let template = json("chat_template.json")["chat_template"].as_str().expect("a template").to_owned();
    let opening = "<|im_start|><|assistant|>\\n";
    assert!(template.contains(opening));
    let told =
        format!("<|im_start|><|assistant|>' + ('<|unused_{TOLD}|>' if messages[-1].role == 'tool' else '\\n') + '");
    let template = json!({ "chat_template": template.replace(opening, &told) });
    std::fs::write(dir.join("chat_template.json"), template.to_string()).expect("it is written");
    write_weights(&tiny, dir);
    dir.to_owned()
}

fn write_weights(tiny: &Path, dir: &Path) {
    let bytes = std::fs::read(tiny.join("model.safetensors")).expect("the checkpoint");
    let file = SafeTensors::deserialize(&bytes).expect("tensors");
    let floats = |name: &str| -> Vec<f32> {
        let data = file.tensor(name).expect("a tensor").data();
        data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let embeddings = floats("thinker.model.embed_tokens.weight");
    let mut head = floats("thinker.lm_head.weight");
    for (word, next) in [(NEWLINE, CALLS), (CALLS, END), (TOLD, SAYS), (SAYS, END)] {
        let row = &embeddings[word * HIDDEN..][..HIDDEN];
        head[next * HIDDEN..][..HIDDEN].iter_mut().zip(row).for_each(|(to, from)| *to += 10.0 * from);
    }
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let silent = name.starts_with("thinker.model.layers")
                && (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight"));
            let data = if silent { vec![0; view.data().len()] } else { view.data().to_vec() };
            (name, view.shape().to_vec(), data)
        })
        .collect();
    let place = tensors.iter_mut().find(|(name, ..)| name == "thinker.lm_head.weight").expect("a head");
    place.2 = head.iter().flat_map(|v| v.to_le_bytes()).collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        (name.as_str(), TensorView::new(safetensors::Dtype::F32, shape.clone(), data).expect("a tensor"))
    });
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).expect("it is written");
}
