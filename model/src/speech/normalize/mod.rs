//! What is written, as it is said: words and punctuation only.
//!
//! Numbers, times, dates, money, units, short forms and simple formulas become words; markup, code and pictures go.
//! Each piece of the result remembers where it came from, so that what was heard can be told from what was not.
//!
//! The text is read once from left to right. At each place the rules are asked in order, the most particular first;
//! what no rule claims is dropped. Everything is bounded by a constant times the length of the text.

mod calendar;
mod cursor;
mod markdown;
mod numbers;
mod quantity;
mod tables;
mod words;

use cursor::{Cursor, Found, count};

/// A text as it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Normalized {
    /// Words and punctuation.
    pub text: String,
    /// For pieces in order: the byte after it in `text`, and the byte after what it stands for in the source.
    marks: Vec<(usize, usize)>,
}

impl Normalized {
    /// The byte of the source that has been said when `end` bytes of the text have.
    pub fn source_end(&self, end: usize) -> usize {
        let at = self.marks.partition_point(|mark| mark.0 < end);
        self.marks.get(at).or(self.marks.last()).map_or(0, |mark| mark.1)
    }

    /// Adds words, set off by a space.
    fn say(&mut self, words: &str, source: usize) {
        if words.is_empty() {
            return;
        }
        if self.text.ends_with(|c: char| c.is_alphanumeric() || ".,;:!?…—'”)".contains(c)) {
            self.text.push(' ');
        }
        self.glue(words, source);
    }

    /// Adds text right behind what is there.
    fn glue(&mut self, text: &str, source: usize) {
        self.text.push_str(text);
        self.marks.push((self.text.len(), source));
    }

    fn space(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with([' ', '(', '“']) {
            self.text.push(' ');
        }
    }

    /// Adds a punctuation mark behind the last word, in place of a weaker one.
    fn mark(&mut self, c: char, source: usize) {
        let words = self.text.trim_end().len();
        self.text.truncate(words);
        let last = self.text.chars().last();
        match last {
            None | Some('(') => return,
            // "etc.." and "really?!" have one mark.
            Some('.' | '!' | '?' | '…') => {
                if c == '?' {
                    self.text.pop();
                    self.text.push('?');
                }
                return;
            }
            Some(',' | ';' | ':' | '—') => {
                if matches!(c, ',' | ';' | ':' | '—') {
                    return;
                }
                let weaker = last.map_or(0, char::len_utf8);
                self.text.truncate(words - weaker);
                if let Some(mark) = self.marks.last_mut() {
                    mark.0 = mark.0.min(self.text.len());
                }
            }
            _ => {}
        }
        if c == '—' {
            self.text.push(' ');
        }
        self.text.push(c);
        self.marks.push((self.text.len(), source));
    }
}

/// Says what is written.
pub fn normalize(source: &str) -> Normalized {
    let plain = markdown::plain(source);
    let chars = &plain.chars;
    let mut out = Normalized::default();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let here = Cursor::new(chars, at);
        let end = |len: usize| plain.ends[at + len - 1];
        let found = read(here);
        let len = match found {
            Some(Found { len, said }) => {
                // "18-year": what is read stays joined to a hyphen before it.
                if out.text.ends_with('-') {
                    out.glue(&said, end(len))
                } else {
                    out.say(&said, end(len))
                }
                len
            }
            None if c.is_whitespace() => {
                out.space();
                1
            }
            None => {
                let len = sign(here, &mut out, end(1));
                debug_assert!(len > 0, "every sign is passed");
                len
            }
        };
        at += len;
    }
    out.text.truncate(out.text.trim_end_matches([' ', '-', '(', '“']).len());
    if !out.text.contains(|c: char| c.is_alphanumeric()) {
        return Normalized::default();
    }
    out
}

/// What the rules for words and numbers make of this place.
fn read(at: Cursor<'_>) -> Option<Found> {
    let c = *at.rest.first()?;
    if c.is_alphabetic() {
        return words::address(at)
            .or_else(|| if at.glued() { None } else { calendar::month_first(at) })
            .or_else(|| if at.glued() { None } else { quantity::quantity(at) })
            .or_else(|| words::short_form(at))
            .or_else(|| words::word(at));
    }
    if c.is_ascii_digit() && !at.glued() {
        return words::address(at)
            .or_else(|| calendar::numeric_date(at))
            .or_else(|| calendar::clock(at))
            .or_else(|| calendar::hour(at))
            .or_else(|| calendar::day_first(at))
            .or_else(|| quantity::quantity(at));
    }
    quantity::quantity(at)
}

/// Whether a full stop behind `word` belongs to it: "Dr", "e.g".
pub(super) fn is_abbreviation(word: &str) -> bool {
    let titles = tables::TITLES.iter().any(|(title, _)| *title == word);
    let numbered = matches!(word, "No" | "Nos" | "p");
    titles
        || numbered
        || (word != "etc" && tables::ABBREVIATIONS.iter().any(|(a, _)| a.strip_suffix('.') == Some(word)))
}

/// Whether a number ends the text before: "7 PM".
fn numbers_end_with(word: &str) -> bool {
    word.ends_with(|c: char| c.is_ascii_digit())
}

/// A sign that is neither word nor number: punctuation, an operator, or nothing. Returns its length.
fn sign(at: Cursor<'_>, out: &mut Normalized, end: usize) -> usize {
    let c = at.rest[0];
    let next = at.rest.get(1).copied();
    let next_said = at.skip(1).iter().copied().find(|c| !c.is_whitespace());
    let run = count(at.rest, |x| x == c);
    let counts = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "()√π∞.".contains(c));
    let between_numbers = at.last_said().is_some_and(|c| c.is_ascii_digit() || c == ')')
        && next_said.is_some_and(|c| c.is_ascii_digit() || c == '(');
    let spaced = at.before.last().is_none_or(|c| c.is_whitespace()) && next.is_none_or(char::is_whitespace);
    if let Some(len) = emoticon(at) {
        return len;
    }
    match c {
        '.' | '…' if run > 1 || c == '…' => {
            out.mark('…', end);
            return run;
        }
        // "main.rs", "Node.js": a full stop inside a word is said; after a sentence without a space it is none.
        '.' if at.glued() && next.is_some_and(char::is_alphabetic) && !sentence_without_space(at) => {
            out.say("dot", end)
        }
        '.' if at.before.last().is_none_or(|c| c.is_whitespace()) && next.is_some_and(char::is_alphabetic) => {
            out.say("dot", end)
        }
        '.' | '。' => out.mark('.', end),
        ',' | '，' | '、' => out.mark(',', end),
        ';' | '；' => out.mark(';', end),
        ':' | '：' => out.mark(if next.is_none_or(|c| !c.is_alphanumeric()) { ':' } else { ',' }, end),
        '!' | '?' | '！' | '？' => {
            let run = count(at.rest, |c| "!?！？".contains(c));
            let question = at.rest[..run].iter().any(|c| matches!(c, '?' | '？'));
            out.mark(if question { '?' } else { '!' }, end);
            return run;
        }
        '-' | '‐' | '‑' if run == 1 && at.glued() && next.is_some_and(char::is_alphanumeric) => {
            // "GPT-4" is two words, "well-known" one.
            if next.is_some_and(|c| c.is_ascii_digit()) || !out.text.ends_with(char::is_alphabetic) {
                out.space()
            } else {
                out.glue("-", end)
            }
        }
        '-' | '−' | '–' if run == 1 && between_numbers && (spaced || c == '−') => out.say("minus", end),
        '-' | '−' | '–' | '—' | '―' => {
            if next == Some('>') {
                out.mark(',', end);
                return 2;
            }
            let dash = run > 1 || spaced || matches!(c, '—' | '―');
            if dash {
                out.mark('—', end)
            } else {
                out.space()
            }
            return run;
        }
        '"' | '“' | '”' | '«' | '»' | '„' => quote(at, out, end),
        '(' if counts(next) || next.is_some_and(|c| c.is_alphabetic() || "\"'“".contains(c)) => {
            out.space();
            out.glue("(", end);
        }
        ')' => close_bracket(out, end),
        '\'' | '’' | '‘' => apostrophe(at, out, end),
        '*' if between_numbers => out.say("times", end),
        '/' if between_numbers => out.say("divided by", end),
        // "C++".
        '+' if run == 2 && at.glued() => {
            out.say("plus plus", end);
            return run;
        }
        '+' if counts(next_said) && at.last_said().is_some() => out.say("plus", end),
        '=' if next == Some('>') => {
            out.mark(',', end);
            return 2;
        }
        '=' if run > 1 => {
            out.say(if run == 2 { "equals" } else { "" }, end);
            return run;
        }
        '<' | '>' if counts(at.last_said()) && next == Some('=') => {
            out.say(if c == '<' { "is at most" } else { "is at least" }, end);
            return 2;
        }
        '<' | '>' if counts(at.last_said()) && counts(next_said) => {
            out.say(if c == '<' { "is less than" } else { "is greater than" }, end);
        }
        '^' | '⁰' | '¹' | '²' | '³' | '⁴'..='⁹' | '⁻' => match quantity::times(at.rest) {
            Some((words, len)) => {
                out.say(&words, end);
                return len;
            }
            None if c == '^' && at.glued() && next.is_some_and(char::is_alphanumeric) => {
                out.say("to the power of", end)
            }
            None => {}
        },
        '#' if matches!(at.before.last(), Some('A'..='G')) && !next.is_some_and(char::is_alphanumeric) => {
            out.say("sharp", end)
        }
        '#' if next.is_some_and(char::is_alphabetic) => out.say("hashtag", end),
        '@' if next.is_some_and(char::is_alphanumeric) => out.say("at", end),
        '√' if next_said == Some('(') || counts(next_said) => out.say("the square root of", end),
        '·' | '•' | '|' | '→' | '←' | '⇒' | '↔' if !(c == '·' && between_numbers) => out.mark(',', end),
        '=' | '&' if !counts(next_said) => {}
        _ => match tables::symbol(c) {
            Some(word) => out.say(word, end),
            None => out.space(),
        },
    }
    1
}

/// "over.Then": the end of a sentence whose space was forgotten.
fn sentence_without_space(at: Cursor<'_>) -> bool {
    let lower_before = count_back(at.before, char::is_lowercase) > 1;
    lower_before && at.rest.get(1).is_some_and(|c| c.is_uppercase()) && at.rest.get(2).is_some_and(|c| c.is_lowercase())
}

fn count_back(chars: &[char], is: fn(char) -> bool) -> usize {
    chars.iter().rev().take_while(|c| is(**c)).count()
}

/// Faces made of punctuation.
fn emoticon(at: Cursor<'_>) -> Option<usize> {
    if at.before.last().is_some_and(|c| !c.is_whitespace()) || !matches!(at.rest[0], ':' | ';' | '=') {
        return None;
    }
    let nose = usize::from(at.rest.get(1) == Some(&'-'));
    let mouth = at.rest.get(1 + nose).is_some_and(|c| ")(DPp/|O".contains(*c));
    let alone = at.rest.get(2 + nose).is_none_or(|c| c.is_whitespace() || ".,!?".contains(*c));
    (mouth && alone).then_some(2 + nose)
}

fn quote(at: Cursor<'_>, out: &mut Normalized, end: usize) {
    let opens = at.before.last().is_none_or(|c| !c.is_alphanumeric() && !".,!?…".contains(*c));
    if opens && at.rest.get(1).is_some_and(|c| c.is_alphanumeric()) {
        out.space();
        out.glue("“", end);
    } else if out.text.rfind('“') > out.text.rfind('”') {
        out.glue("”", end);
    }
}

fn close_bracket(out: &mut Normalized, end: usize) {
    if out.text.rfind('(') > out.text.rfind(')') && !out.text.ends_with('(') {
        let words = out.text.trim_end().len();
        out.text.truncate(words);
        out.glue(")", end);
    }
}

/// Apostrophes outside words: "students'", "'tis", and quotes, which are silent.
fn apostrophe(at: Cursor<'_>, out: &mut Normalized, end: usize) {
    let genitive = at.before.last().is_some_and(|c| matches!(c, 's' | 'S' | 'n'))
        && !at.rest.get(1).is_some_and(|c| c.is_alphanumeric());
    const CLIPPED: [&str; 8] = ["tis", "twas", "em", "cause", "til", "bout", "n", "round"];
    let clipped = CLIPPED.iter().any(|w| cursor::is_word(at.skip(1), w)) && !at.glued();
    if genitive && out.text.ends_with(char::is_alphabetic) {
        out.glue("'", end);
    } else if clipped {
        out.space();
        out.glue("'", end);
    }
}

#[cfg(test)]
mod tests;
