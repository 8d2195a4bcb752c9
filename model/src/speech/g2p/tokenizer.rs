//! Cuts a sentence into the tokens that the tagger was trained on.
//!
//! The rules are those of spaCy's English tokenizer for text that has been normalised (no digits, units or addresses):
//! known contractions and abbreviations whole, quotes and punctuation peeled off both ends of what stands between
//! spaces, hyphens and slashes cut inside, and pieces that spell a known form joined again.

use std::path::Path;

use super::table::{self, Table};
use crate::onnx::OnnxError;

/// A piece of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    /// Byte after it in the sentence.
    pub(crate) end: usize,
    /// Whether a space follows.
    pub(crate) space: bool,
}

/// The tokenizer's known forms.
pub(crate) struct Tokenizer {
    special: Table<Vec<String>>,
}

impl Tokenizer {
    pub(crate) fn load(path: &Path) -> Result<Self, OnnxError> {
        Ok(Self { special: table::table(path, |parts: Vec<String>| parts)? })
    }

    /// The pieces of `text`; together they are its text without the spaces.
    pub(crate) fn pieces(&self, text: &str) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut at = 0;
        for chunk in text.split_whitespace() {
            at += text[at..].find(chunk).unwrap_or(0);
            for part in self.split(chunk) {
                at += part.len();
                pieces.push(Piece { text: part, end: at, space: false });
            }
            if let Some(last) = pieces.last_mut() {
                last.space = at < text.len();
            }
        }
        pieces
    }

    fn split(&self, chunk: &str) -> Vec<String> {
        let special = |s: &str| self.special.get(s);
        let mut before: Vec<String> = Vec::new();
        let mut after: Vec<String> = Vec::new();
        let mut rest = chunk;
        while !rest.is_empty() && special(rest).is_none() {
            let prefix = prefix_len(rest);
            let without_prefix = &rest[prefix..];
            if prefix > 0 && special(without_prefix).is_some() {
                before.push(rest[..prefix].into());
                rest = without_prefix;
                break;
            }
            let suffix = suffix_len(without_prefix);
            let without_suffix = &rest[..rest.len() - suffix];
            if suffix > 0 && special(without_suffix).is_some() {
                after.push(rest[rest.len() - suffix..].into());
                rest = without_suffix;
                break;
            }
            if prefix + suffix == 0 {
                break;
            }
            if prefix > 0 {
                before.push(rest[..prefix].into());
            }
            if suffix > 0 {
                after.push(rest[rest.len() - suffix..].into());
            }
            rest = &rest[prefix..rest.len() - suffix];
        }
        let mut parts = before;
        match special(rest) {
            Some(known) => parts.extend(known.iter().cloned()),
            None => cut_inside(rest, &mut parts),
        }
        parts.extend(after.into_iter().rev());
        self.join_known(parts)
    }

    fn join_known(&self, parts: Vec<String>) -> Vec<String> {
        let mut joined = Vec::with_capacity(parts.len());
        let mut i = 0;
        while i < parts.len() {
            let known = [3, 2].into_iter().filter(|n| i + n <= parts.len()).find_map(|n| {
                let form = parts[i..i + n].concat();
                Some((n, self.special.get(&form)?))
            });
            match known {
                Some((n, form)) => {
                    joined.extend(form.iter().cloned());
                    i += n;
                }
                None => {
                    joined.push(parts[i].clone());
                    i += 1;
                }
            }
        }
        joined
    }
}

fn prefix_len(s: &str) -> usize {
    let dots = s.bytes().take_while(|&b| b == b'.').count();
    match s.chars().next() {
        _ if dots > 1 => dots,
        Some(c) if is_mark(c) || "§%=—–".contains(c) => c.len_utf8(),
        _ => 0,
    }
}

fn suffix_len(s: &str) -> usize {
    let dots = s.bytes().rev().take_while(|&b| b == b'.').count();
    if dots > 1 {
        return dots;
    }
    if let Some(genitive) = ["'s", "'S", "’s", "’S"].into_iter().find(|g| s.ends_with(g)) {
        return genitive.len();
    }
    let mut back = s.chars().rev();
    let Some(last) = back.next() else { return 0 };
    if is_mark(last) || "—–".contains(last) {
        return last.len_utf8();
    }
    let (one, two) = (back.next(), back.next());
    let ends_word = |c: char| c.is_ascii_digit() || is_lower(c) || "%²-+".contains(c) || is_mark(c);
    let full_stop =
        last == '.' && (one.is_some_and(ends_word) || (one.is_some_and(is_upper) && two.is_some_and(is_upper)));
    usize::from(full_stop)
}

/// Cuts a word at what stands inside it.
fn cut_inside(word: &str, parts: &mut Vec<String>) {
    let mut start = 0;
    let mut skip_to = 0;
    for (at, c) in word.char_indices() {
        if at == 0 || at < skip_to {
            continue;
        }
        let before = word[..at].chars().next_back();
        let len = separator_len(before, c, &word[at..]);
        if len > 0 {
            if at > start {
                parts.push(word[start..at].into());
            }
            parts.push(word[at..at + len].into());
            start = at + len;
            skip_to = start;
        }
    }
    if start < word.len() {
        parts.push(word[start..].into());
    }
}

fn separator_len(before: Option<char>, c: char, from_here: &str) -> usize {
    let letter_after = |len: usize| from_here[len..].chars().next().is_some_and(char::is_alphabetic);
    let run = from_here.chars().take_while(|&x| x == c).count() * c.len_utf8();
    let after_word = before.is_some_and(char::is_alphanumeric);
    match c {
        '.' if run > 1 => run,
        '…' => c.len_utf8(),
        '.' => {
            let next = from_here[1..].chars().next();
            let cut =
                before.is_some_and(|b| is_lower(b) || is_quote(b)) && next.is_some_and(|n| is_upper(n) || is_quote(n));
            usize::from(cut)
        }
        ',' => usize::from(before.is_some_and(char::is_alphabetic) && letter_after(1)),
        '-' if after_word && run <= 3 && letter_after(run) => run,
        '–' | '~' if after_word && letter_after(c.len_utf8()) => c.len_utf8(),
        '—' if after_word && run <= 2 * c.len_utf8() && letter_after(run) => run,
        ':' | '<' | '>' | '=' | '/' if after_word && letter_after(1) => 1,
        _ => 0,
    }
}

fn is_quote(c: char) -> bool {
    "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉".contains(c)
}

fn is_mark(c: char) -> bool {
    is_quote(c) || "…,:;!?¿¡()[]{}<>_#*&。？！，、；：～·™®©°¶†‡•$£€¥₹₩".contains(c)
}

fn is_lower(c: char) -> bool {
    matches!(c, 'a'..='z' | 'ß'..='ö' | 'ø'..='ÿ')
}

fn is_upper(c: char) -> bool {
    matches!(c, 'A'..='Z' | 'À'..='Ö' | 'Ø'..='Þ')
}
