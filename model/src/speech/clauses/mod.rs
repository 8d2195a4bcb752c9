//! Cuts growing text into clauses that can be spoken one by one.
//!
//! The first clause leaves early, so that the voice starts while the rest is being thought; later ones are longer,
//! because they are made while others play. A clause ends where a speaker may pause: after a sentence, at a comma or
//! dash with enough words before it, before a conjunction when it grows long. Numbers, abbreviations and initials stay
//! whole, and nothing is cut before what follows a full stop is known. Fenced code is one clause without words.
//!
//! Where text is cut depends on the text alone and not on how it was pushed.

mod marks;

use std::ops::Range;

/// A piece of text to be spoken at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// What is to be said, as it was written; empty for code.
    pub text: String,
    /// The bytes that it covers of all text pushed. Ranges of successive clauses touch.
    pub range: Range<usize>,
}

/// How long clauses are, by their place in a reply.
struct Limits {
    /// Words before a comma, semicolon, colon or dash may end the clause.
    pause: usize,
    /// Words before a conjunction may begin the next clause.
    conjunction: usize,
    /// Most words.
    words: usize,
}

/// The first clause is short, the second covers the time of the third; from there on speech is well ahead.
const LIMITS: [Limits; 3] = [
    Limits { pause: 3, conjunction: 8, words: 12 },
    Limits { pause: 5, conjunction: 12, words: 20 },
    Limits { pause: 10, conjunction: 20, words: 32 },
];

/// Most bytes of a clause, for text without spaces.
const MAX_BYTES: usize = 480;
/// Most bytes of code in one clause.
const MAX_CODE_BYTES: usize = 4096;

/// The state between pushes.
#[derive(Debug, Default)]
pub struct Splitter {
    pending: String,
    /// Byte of `pending`'s first character in all text.
    start: usize,
    spoken: usize,
    /// Inside a fence of this character.
    fence: Option<char>,
    /// Whether `pending` begins a line.
    middle_of_line: bool,
}

/// Where a clause ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// After this byte, to be spoken.
    Speech(usize),
    /// After this byte, silent; the fence that is open behind it.
    Code(usize, Option<char>),
}

impl Splitter {
    /// Takes more text and returns the clauses that are complete.
    pub fn push(&mut self, text: &str) -> Vec<Clause> {
        self.pending.push_str(text);
        self.take(false)
    }

    /// The text is over: returns what is left. The splitter begins anew.
    pub fn flush(&mut self) -> Vec<Clause> {
        let mut clauses = self.take(true);
        if !self.pending.trim().is_empty() {
            let cut = match self.fence {
                Some(_) => Cut::Code(self.pending.len(), None),
                None => Cut::Speech(self.pending.len()),
            };
            clauses.push(self.cut(cut));
        }
        *self = Self::default();
        clauses
    }

    fn take(&mut self, complete: bool) -> Vec<Clause> {
        let mut clauses = Vec::new();
        while let Some(cut) = self.next_cut(complete) {
            clauses.push(self.cut(cut));
        }
        clauses
    }

    fn cut(&mut self, cut: Cut) -> Clause {
        let (at, speech) = match cut {
            Cut::Speech(at) => (at, true),
            Cut::Code(at, fence) => {
                self.fence = fence;
                (at, false)
            }
        };
        let rest = self.pending.split_off(at);
        let text = std::mem::replace(&mut self.pending, rest);
        self.middle_of_line = !text.ends_with('\n');
        let range = self.start..self.start + text.len();
        self.start = range.end;
        if speech && text.contains(char::is_alphanumeric) {
            self.spoken += 1;
        }
        Clause { text: if speech { text } else { String::new() }, range }
    }

    fn next_cut(&self, complete: bool) -> Option<Cut> {
        if let Some(mark) = self.fence {
            return self.end_of_code(mark, 0, complete);
        }
        let limits = &LIMITS[self.spoken.min(LIMITS.len() - 1)];
        let text = self.pending.as_str();
        // Bytes of text before each place, the number of words begun there, and whether a line begins.
        let (mut words, mut in_word, mut line) = (0, false, (!self.middle_of_line).then_some(0));
        for (at, c) in text.char_indices() {
            let rest = &text[at..];
            if line.is_some() && !c.is_whitespace() {
                match marks::fence(rest, complete) {
                    None => return None,
                    Some(Some(mark)) if text[..at].trim().is_empty() => {
                        return self.end_of_code(mark, at + 3, complete);
                    }
                    Some(Some(_)) => return Some(Cut::Speech(at)),
                    Some(None) => {}
                }
            }
            if at >= MAX_BYTES {
                return Some(Cut::Speech(at));
            }
            let begins = c.is_alphanumeric() && !in_word;
            in_word = c.is_alphanumeric() || (in_word && !c.is_whitespace());
            if begins && line.is_none() {
                if words >= limits.words {
                    return Some(Cut::Speech(at));
                }
                if words >= limits.conjunction && marks::conjunction(rest, complete)? {
                    return Some(Cut::Speech(at));
                }
            }
            words += usize::from(begins);
            let pause = match marks::pause(&text[..at], c, rest, complete)? {
                marks::Pause::None => None,
                marks::Pause::Sentence(len) => (words > 0).then_some(len),
                marks::Pause::Clause(len) => (words >= limits.pause).then_some(len),
            };
            if let Some(len) = pause {
                return Some(Cut::Speech(at + len));
            }
            line = if c == '\n' { Some(at + 1) } else { line.filter(|_| c.is_whitespace() || "-*>#+".contains(c)) };
        }
        None
    }

    /// The end of fenced code whose text is searched from `from`.
    fn end_of_code(&self, mark: char, from: usize, complete: bool) -> Option<Cut> {
        let text = self.pending.as_str();
        let mut line = if from == 0 { 0 } else { from + text[from..].find('\n')? + 1 };
        loop {
            let rest = &text[line..];
            let len = rest.find('\n').map(|len| len + 1);
            if len.is_some() || complete {
                let body = rest[..len.unwrap_or(rest.len())].trim();
                if body.chars().take_while(|&c| c == mark).count() >= 3 {
                    return Some(Cut::Code(line + len.unwrap_or(rest.len()), None));
                }
            }
            match len {
                Some(len) if line + len >= MAX_CODE_BYTES => return Some(Cut::Code(line + len, Some(mark))),
                Some(len) => line += len,
                // A line without end is code all the same.
                None if rest.len() >= MAX_CODE_BYTES => {
                    let at = (line + MAX_CODE_BYTES..).find(|&at| text.is_char_boundary(at))?;
                    return Some(Cut::Code(at, Some(mark)));
                }
                None => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
