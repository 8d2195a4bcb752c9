//! Joining characters to tokens by score: the byte-pair models of SentencePiece (arXiv 1808.06226), which GGUF files call
//! `llama`. There is no pattern that cuts text into pieces and no list of merges: of all neighbours that are a token when
//! put together, those whose token has the highest score are joined first, the leftmost first among equals. Characters
//! that are no token are written as their bytes.
//!
//! Vocabularies write a blank as U+2581; here tokens have the blank itself.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// What vocabularies write for a blank.
const BLANK: char = '\u{2581}';

/// Longest run that is joined as one, in characters: the queue holds each pair, so memory is bounded by it.
const LONGEST: usize = 1 << 16;

/// The tokens by their text.
pub(super) struct Spm {
    ids: HashMap<Vec<u8>, u32>,
    scores: Vec<f32>,
    byte_tokens: Vec<Option<u32>>,
    /// Whether text begins with a blank that nobody wrote, at the start and behind a special token.
    blank_first: bool,
}

/// A run of characters that is, or may become, a token.
#[derive(Clone, Copy)]
struct Run {
    start: usize,
    end: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Neighbours that are a token together. The greatest comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    score: Score,
    left: Reverse<usize>,
    right: usize,
    /// Bytes of both together when this was found.
    len: usize,
}

#[derive(PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Spm {
    pub(super) fn new(blank_first: bool) -> Self {
        Self { ids: HashMap::new(), scores: Vec::new(), byte_tokens: vec![None; 256], blank_first }
    }

    /// Takes the next token; returns the bytes that it stands for. `is_byte`: it is one of `<0x00>` to `<0xFF>`.
    pub(super) fn add(&mut self, text: &[u8], score: f32, is_byte: bool) -> Vec<u8> {
        let id = self.scores.len() as u32;
        self.scores.push(score);
        if is_byte && let Some(byte) = byte(text) {
            self.byte_tokens[usize::from(byte)] = Some(id);
            return vec![byte];
        }
        let text = match std::str::from_utf8(text) {
            Ok(text) => text.replace(BLANK, " ").into_bytes(),
            Err(_) => text.to_vec(),
        };
        self.ids.entry(text.clone()).or_insert(id);
        text
    }

    /// How many bytes have a token of their own.
    pub(super) fn known_bytes(&self) -> usize {
        self.byte_tokens.iter().flatten().count()
    }

    /// Appends the tokens of a text between special tokens.
    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let blank = if self.blank_first { " " } else { "" };
        let text = format!("{blank}{}", text.replace(BLANK, " "));
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let cut = rest.char_indices().nth(LONGEST).map_or(rest.len(), |(at, _)| at);
            self.join(&rest[..cut], tokens);
            rest = &rest[cut..];
        }
    }

    fn join(&self, text: &str, tokens: &mut Vec<u32>) {
        let bytes = text.as_bytes();
        let mut runs: Vec<Run> = text
            .char_indices()
            .enumerate()
            .map(|(i, (start, c))| Run {
                start,
                end: start + c.len_utf8(),
                previous: i.checked_sub(1),
                next: Some(i + 1),
            })
            .collect();
        if let Some(last) = runs.last_mut() {
            last.next = None;
        }
        let mut queue = BinaryHeap::new();
        let propose = |runs: &[Run], left: usize, queue: &mut BinaryHeap<Pair>| {
            let Some(right) = runs[left].next else { return };
            let (start, end) = (runs[left].start, runs[right].end);
            if let Some(&id) = self.ids.get(&bytes[start..end]) {
                let score = Score(self.scores[id as usize]);
                queue.push(Pair { score, left: Reverse(left), right, len: end - start });
            }
        };
        for left in 0..runs.len() {
            propose(&runs, left, &mut queue);
        }
        while let Some(Pair { left: Reverse(left), right, len, .. }) = queue.pop() {
            // One of the two may have been joined to something else meanwhile, and then it is longer, or gone.
            if runs[left].next != Some(right) || runs[right].end - runs[left].start != len {
                continue;
            }
            let Run { end, next, .. } = runs[right];
            // Gone: no pair found before begins with it now.
            runs[right].next = None;
            runs[left] = Run { end, next, ..runs[left] };
            if let Some(next) = next {
                runs[next].previous = Some(left);
            }
            propose(&runs, left, &mut queue);
            if let Some(previous) = runs[left].previous {
                propose(&runs, previous, &mut queue);
            }
        }
        let mut at = Some(0).filter(|_| !runs.is_empty());
        while let Some(run) = at.map(|at| runs[at]) {
            let written = &bytes[run.start..run.end];
            match self.ids.get(written) {
                Some(&id) => tokens.push(id),
                // A byte without a token of its own is left out, as in the vocabularies of `bpe`.
                None => tokens.extend(written.iter().filter_map(|&byte| self.byte_tokens[usize::from(byte)])),
            }
            at = run.next;
        }
    }
}

/// The byte that `<0x41>` stands for.
fn byte(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
