//! Cutting text into the pieces that merges do not cross.
//!
//! The patterns are those that the models were trained with, as their publishers' tokenizer files have them; the names
//! are those that GGUF files carry in `tokenizer.ggml.pre`.

use fancy_regex::Regex;

/// One or more patterns, each applied to the pieces that the one before has left.
pub(super) struct Pattern {
    stages: Vec<Regex>,
    flavour: Flavour,
}

#[derive(Clone, Copy, PartialEq)]
enum Flavour {
    Plain,
    /// A piece that is a token as a whole is not merged from its bytes, and prompts begin with a token of their own.
    Llama3,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Names, patterns, flavour.
const KNOWN: &[(&str, &[&str], Flavour)] = &[
    ("qwen2", &[QWEN2], Flavour::Plain),
    ("smollm", &[r"\p{N}", GPT2], Flavour::Plain),
    ("llama-bpe", &[LLAMA3], Flavour::Llama3),
    ("gpt-2", &[GPT2], Flavour::Plain),
    ("default", &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"], Flavour::Plain),
];

impl Pattern {
    /// The pattern with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (_, stages, flavour) = KNOWN.iter().find(|(known, ..)| *known == name)?;
        let stages = stages.iter().map(|p| Regex::new(p).expect("the patterns above are valid")).collect();
        Some(Self { stages, flavour: *flavour })
    }

    /// The names, for an error.
    pub(super) fn supported() -> String {
        let names: Vec<&str> = KNOWN.iter().map(|(name, ..)| *name).collect();
        format!("supported are {}", names.join(", "))
    }

    pub(super) fn adds_bos(&self) -> bool {
        self.flavour == Flavour::Llama3
    }

    pub(super) fn whole_pieces_first(&self) -> bool {
        self.flavour == Flavour::Llama3
    }

    /// Calls `take` with every piece, in order. Together they are the text.
    pub(super) fn split(&self, text: &str, take: &mut dyn FnMut(&str)) {
        split(&self.stages, text, take);
    }
}

fn split(stages: &[Regex], text: &str, take: &mut dyn FnMut(&str)) {
    if text.is_empty() {
        return;
    }
    let Some((stage, stages)) = stages.split_first() else { return take(text) };
    let mut at = 0;
    while at < text.len() {
        // The search gives up after a million steps back, which takes a run of as many spaces: that is one piece then.
        let Ok(Some(found)) = stage.find_from_pos(text, at) else { break };
        split(stages, &text[at..found.start()], take);
        split(stages, found.as_str(), take);
        at = found.end();
    }
    split(stages, &text[at..], take);
}
