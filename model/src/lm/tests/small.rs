//! GGUF files of models that fit a test: random weights, a vocabulary of bytes and a few merges.

use std::path::Path;

use causerie_kernels::Pool;

use crate::lm::{Lm, LmError};

/// Bytes, merges, special tokens.
pub(in crate::lm) const VOCABULARY: usize = 256 + MERGES.len() + SPECIAL.len();
const MERGES: [&str; 4] = ["t h", "th e", "Ġ the", "i s"];
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const TEMPLATE: &str = "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}\
    {{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const HIDDEN: usize = 32;
const INNER: usize = 48;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 8;

/// A file in the making. Fields are public so that tests can break them.
#[derive(Clone)]
pub(in crate::lm) struct Small {
    pub(in crate::lm) entries: Vec<(String, Entry)>,
    pub(in crate::lm) tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

#[derive(Clone)]
pub(in crate::lm) enum Entry {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

impl Small {
    /// A sound model of a family.
    pub(in crate::lm) fn new(family: &str) -> Self {
        let mut small = Self { entries: Vec::new(), tensors: Vec::new() };
        small.entry("general.architecture", Entry::Text(family.into()));
        for (key, value) in [
            ("block_count", 2),
            ("context_length", 512),
            ("embedding_length", HIDDEN),
            ("feed_forward_length", INNER),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", KV_HEADS),
        ] {
            small.entry(&format!("{family}.{key}"), Entry::U32(value as u32));
        }
        small.entry(&format!("{family}.attention.layer_norm_rms_epsilon"), Entry::F32(1e-5));
        let mut tokens: Vec<String> = (0..=255).map(letter).collect();
        tokens.extend(MERGES.map(|merge| merge.replace(' ', "")));
        tokens.extend(SPECIAL.map(str::to_owned));
        let kinds = (0..VOCABULARY).map(|i| if i < VOCABULARY - SPECIAL.len() { 1 } else { 3 });
        small.entry("tokenizer.ggml.model", Entry::Text("gpt2".into()));
        small.entry("tokenizer.ggml.pre", Entry::Text("qwen2".into()));
        small.entry("tokenizer.ggml.tokens", Entry::Texts(tokens));
        small.entry("tokenizer.ggml.merges", Entry::Texts(MERGES.map(str::to_owned).to_vec()));
        small.entry("tokenizer.ggml.token_type", Entry::I32s(kinds.collect()));
        small.entry("tokenizer.ggml.eos_token_id", Entry::U32(VOCABULARY as u32 - 1));
        small.entry("tokenizer.chat_template", Entry::Text(TEMPLATE.into()));

        small.tensor("token_embd.weight", &[HIDDEN, VOCABULARY]);
        small.tensor("output_norm.weight", &[HIDDEN]);
        for layer in 0..2 {
            let mut add = |name: &str, shape: &[usize]| small.tensor(&format!("blk.{layer}.{name}"), shape);
            add("attn_norm.weight", &[HIDDEN]);
            add("attn_q.weight", &[HIDDEN, HEADS * HEAD_DIM]);
            add("attn_k.weight", &[HIDDEN, KV_HEADS * HEAD_DIM]);
            add("attn_v.weight", &[HIDDEN, KV_HEADS * HEAD_DIM]);
            add("attn_output.weight", &[HEADS * HEAD_DIM, HIDDEN]);
            add("ffn_norm.weight", &[HIDDEN]);
            add("ffn_gate.weight", &[HIDDEN, INNER]);
            add("ffn_up.weight", &[HIDDEN, INNER]);
            add("ffn_down.weight", &[INNER, HIDDEN]);
            match family {
                "qwen2" => {
                    add("attn_q.bias", &[HEADS * HEAD_DIM]);
                    add("attn_k.bias", &[KV_HEADS * HEAD_DIM]);
                    add("attn_v.bias", &[KV_HEADS * HEAD_DIM]);
                }
                "qwen3" => {
                    add("attn_q_norm.weight", &[HEAD_DIM]);
                    add("attn_k_norm.weight", &[HEAD_DIM]);
                }
                _ => {}
            }
        }
        small
    }

    fn entry(&mut self, key: &str, entry: Entry) {
        self.entries.push((key.to_owned(), entry));
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) {
        let len: usize = shape.iter().product();
        let seed = self.tensors.len() as f32;
        let scale = 1.5 / (shape[0] as f32).sqrt();
        let values = (0..len).map(|i| scale * (i as f32 * 12.9898 + seed * 78.233).sin()).collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), values));
    }

    /// Replaces or removes a metadata entry.
    pub(in crate::lm) fn set(mut self, key: &str, entry: Option<Entry>) -> Self {
        self.entries.retain(|(k, _)| k != key);
        if let Some(entry) = entry {
            self.entry(key, entry);
        }
        self
    }

    /// The file.
    pub(in crate::lm) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, entry) in &self.entries {
            text(&mut out, key);
            match entry {
                Entry::U32(v) => out.extend(4_u32.to_le_bytes().into_iter().chain(v.to_le_bytes())),
                Entry::F32(v) => out.extend(6_u32.to_le_bytes().into_iter().chain(v.to_le_bytes())),
                Entry::Bool(v) => out.extend(7_u32.to_le_bytes().into_iter().chain([u8::from(*v)])),
                Entry::Text(v) => {
                    out.extend(8_u32.to_le_bytes());
                    text(&mut out, v);
                }
                Entry::Texts(values) => {
                    out.extend([9_u32, 8].into_iter().flat_map(u32::to_le_bytes));
                    out.extend((values.len() as u64).to_le_bytes());
                    values.iter().for_each(|v| text(&mut out, v));
                }
                Entry::I32s(values) => {
                    out.extend([9_u32, 5].into_iter().flat_map(u32::to_le_bytes));
                    out.extend((values.len() as u64).to_le_bytes());
                    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
                }
                Entry::F32s(values) => {
                    out.extend([9_u32, 6].into_iter().flat_map(u32::to_le_bytes));
                    out.extend((values.len() as u64).to_le_bytes());
                    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
                }
            }
        }
        let mut offset = 0_u64;
        for (name, shape, values) in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            out.extend(shape.iter().flat_map(|&d| (d as u64).to_le_bytes()));
            out.extend(0_u32.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (values.len() as u64 * 4).next_multiple_of(32);
        }
        for (.., values) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        out
    }

    /// Writes the file and loads it.
    pub(in crate::lm) fn load(&self) -> Result<Lm, LmError> {
        load(&self.bytes())
    }
}

/// Loads a model from bytes.
pub(in crate::lm) fn load(bytes: &[u8]) -> Result<Lm, LmError> {
    with_file(bytes, |path| Lm::load(&Pool::new(2), path))
}

/// Does something with a file of these bytes.
pub(in crate::lm) fn with_file<T>(bytes: &[u8], then: impl FnOnce(&Path) -> T) -> T {
    use std::sync::atomic::{AtomicU32, Ordering};
    // Only the number has to be unique; nothing is ordered by it.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("causerie-small-{}-{number}.gguf", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let done = then(&path);
    std::fs::remove_file(&path).unwrap();
    done
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The letter of a byte, as the vocabularies of the GPT-2 scheme have it.
fn letter(byte: u8) -> String {
    let printable = |b: u8| (0x21..=0x7E).contains(&b) || (0xA1..=0xFF).contains(&b) && b != 0xAD;
    let code =
        if printable(byte) { u32::from(byte) } else { 256 + (0..byte).filter(|&b| !printable(b)).count() as u32 };
    char::from_u32(code).unwrap().to_string()
}
