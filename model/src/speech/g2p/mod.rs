//! From written English to phonemes, in the alphabet of misaki (which the voice was trained on).
//!
//! The text has been normalised before: words and punctuation only. The sentence is cut into tokens and tagged; then
//! words are said from the last to the first, because how "the" is said depends on what follows.
//!
//! Lexicons, tagger and the network for unknown words come with the voice; the rules follow the same conventions, and
//! the golden sentences in `tests/golden/speech` hold them to it.

mod dictionary;
mod lexicon;
mod oov;
mod stress;
mod subtokens;
mod table;
mod tagger;
mod tokenizer;

use std::path::Path;

use lexicon::{Following, Lexicon};
use oov::Oov;
use stress::Stress;
use tagger::Tagger;
use tokenizer::Tokenizer;

use crate::onnx::{OnnxError, Worker};

/// Everything that is needed to read English aloud.
pub(crate) struct G2p {
    tokenizer: Tokenizer,
    tagger: Tagger,
    lexicon: Lexicon,
    oov: Oov,
}

/// The phonemes of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Phonemes {
    pub(crate) chars: Vec<char>,
    /// For each word in order: the byte after it in the text, and the number of phonemes up to its end.
    pub(crate) word_ends: Vec<(usize, usize)>,
}

/// A token, or a part of one.
#[derive(Clone, Debug, Default)]
struct Token {
    text: String,
    tag: String,
    /// Byte after it.
    end: usize,
    /// Whether a space follows.
    space: bool,
    phonemes: Option<String>,
    /// Whether its phonemes are set off from those before it in the same word.
    spaced: bool,
}

const PUNCTUATION: &str = ";:,.!?—…\"“”";
const PAUSES: &str = ";:,.!?—…";
/// What joins the parts of a word and is not said.
const JOINTS: &str = "',-._‘’/";

impl G2p {
    pub(crate) fn load(dir: &Path, worker: &Worker) -> Result<Self, OnnxError> {
        Ok(Self {
            tokenizer: Tokenizer::load(&dir.join("tokenizer_exceptions.json"))?,
            tagger: Tagger::load(&dir.join("tagger.json.gz"))?,
            lexicon: Lexicon::load(dir)?,
            oov: Oov::load(dir, worker)?,
        })
    }

    /// Reads one clause.
    pub(crate) fn phonemes(&self, text: &str) -> Result<Phonemes, OnnxError> {
        let mut words = group(self.tokens(text));
        let mut following = Following::default();
        for word in words.iter_mut().rev() {
            following = self.say_word(word, following)?;
        }
        let mut said = Phonemes::default();
        for word in &words {
            let start = said.chars.len();
            for token in word {
                let phonemes = token.phonemes.as_deref().unwrap_or_default();
                let glued = said.chars.len() > start && said.chars.last().is_some_and(|c| !c.is_whitespace());
                if token.spaced && glued && !phonemes.is_empty() {
                    said.chars.push(' ');
                }
                // The voice writes the tap as T and has no glottal stop.
                said.chars.extend(phonemes.chars().map(|c| match c {
                    'ɾ' => 'T',
                    'ʔ' => 't',
                    c => c,
                }));
            }
            let Some(last) = word.last() else { continue };
            if said.chars[start..].iter().any(|&c| stress::is_vowel(c) || stress::is_consonant(c)) {
                said.word_ends.push((last.end, said.chars.len()));
            }
            if last.space {
                said.chars.push(' ');
            }
        }
        while said.chars.last().is_some_and(|c| c.is_whitespace()) {
            said.chars.pop();
        }
        Ok(said)
    }

    fn tokens(&self, text: &str) -> Vec<Token> {
        let pieces = self.tokenizer.pieces(text);
        let words: Vec<&str> = pieces.iter().map(|p| p.text.as_str()).collect();
        let tags: Vec<String> = self.tagger.tag(&words).into_iter().map(String::from).collect();
        let token = |(piece, tag): (tokenizer::Piece, String)| Token {
            text: piece.text,
            tag,
            end: piece.end,
            space: piece.space,
            ..Token::default()
        };
        pieces.into_iter().zip(tags).map(token).collect()
    }

    /// Fills in the phonemes of a word and says what it means for the word before it.
    fn say_word(&self, word: &mut [Token], following: Following) -> Result<Following, OnnxError> {
        if let [token] = word {
            if token.phonemes.is_none() {
                token.phonemes = Some(match self.lexicon.say(&token.text, &token.tag, following) {
                    Some(said) => said,
                    None => self.unknown(&token.text)?,
                });
            }
            return Ok(following_after(following, token.phonemes.as_deref(), &token.text, &token.tag));
        }
        // The longest known run of parts from the end, then the rest.
        let mut following = following;
        let (mut left, mut right) = (0, word.len());
        while left < right {
            let run = &word[left..right];
            let (text, tag) = (text_of(run), tag_of(run));
            let said =
                if run.iter().any(|t| t.phonemes.is_some()) { None } else { self.lexicon.say(&text, &tag, following) };
            if let Some(said) = said {
                following = following_after(following, Some(&said), &text, &tag);
                for token in &mut word[left + 1..right] {
                    token.phonemes = Some(String::new());
                }
                word[left].phonemes = Some(said);
                (left, right) = (0, left);
            } else if left + 1 < right {
                left += 1;
            } else {
                right -= 1;
                let token = &mut word[right];
                if token.phonemes.is_none() {
                    if !token.text.chars().all(|c| JOINTS.contains(c)) {
                        // A part that nobody knows: the whole word is read by its letters.
                        let said = self.unknown(&text_of(word))?;
                        for token in word.iter_mut() {
                            token.phonemes = Some(String::new());
                        }
                        word[0].phonemes = Some(said);
                        return Ok(following);
                    }
                    token.phonemes = Some(String::new());
                }
                left = 0;
            }
        }
        balance(word);
        Ok(following)
    }

    /// A word that no rule knows: its runs of letters go to the network, the rest is silent.
    fn unknown(&self, text: &str) -> Result<String, OnnxError> {
        let mut said = String::new();
        for run in subtokens::letter_runs(text) {
            let part = self.oov.say(run)?;
            if !said.is_empty() && !part.is_empty() {
                said.push(' ');
            }
            said.push_str(&part);
        }
        Ok(said)
    }
}

/// Tokens as words: parts that no space separates belong together, punctuation stands alone.
fn group(tokens: Vec<Token>) -> Vec<Vec<Token>> {
    let mut words: Vec<Vec<Token>> = Vec::new();
    // Whether the next part belongs to the last word.
    let mut open = false;
    for token in tokens {
        let parts = subtokens::split(&token.text);
        let count = parts.len();
        for (i, (text, end)) in parts.into_iter().enumerate() {
            let mut part = Token {
                text,
                tag: token.tag.clone(),
                end: token.end - token.text.len() + end,
                space: token.space && i + 1 == count,
                ..Token::default()
            };
            part.phonemes = punctuation(&part);
            match words.last_mut() {
                Some(word) if open && part.phonemes.is_none() => {
                    open = !part.space;
                    word.push(part);
                }
                _ => {
                    open = part.phonemes.is_none() && !part.space;
                    words.push(vec![part]);
                }
            }
        }
    }
    words
}

/// What the voice is given for a punctuation mark.
fn punctuation(token: &Token) -> Option<String> {
    let marks: String = token.text.chars().filter(|&c| PUNCTUATION.contains(c)).collect();
    match token.tag.as_str() {
        ":" if token.text == "-" || token.text == "–" => Some("—".into()),
        "." | "," | "-LRB-" | "-RRB-" | "``" | "\"\"" | "''" | ":" | "$" | "#" | "NFP"
            if !token.text.chars().all(|c| c.is_ascii_alphabetic()) =>
        {
            Some(match token.tag.as_str() {
                "-LRB-" => "(".into(),
                "-RRB-" => ")".into(),
                "``" => "“".into(),
                "\"\"" | "''" => "”".into(),
                _ => marks,
            })
        }
        _ => None,
    }
}

fn following_after(following: Following, phonemes: Option<&str>, text: &str, tag: &str) -> Following {
    let first = phonemes.unwrap_or_default().chars().find_map(|c| match c {
        c if PAUSES.contains(c) => Some(None),
        c if stress::is_vowel(c) => Some(Some(true)),
        c if stress::is_consonant(c) => Some(Some(false)),
        _ => None,
    });
    let to = text == "to" || text == "To" || (text == "TO" && matches!(tag, "TO" | "IN"));
    Following { vowel: first.unwrap_or(following.vowel), to }
}

fn text_of(parts: &[Token]) -> String {
    parts.iter().map(|t| t.text.as_str()).collect()
}

/// The tag of the heaviest part; capitals weigh double.
fn tag_of(parts: &[Token]) -> String {
    let weight = |t: &Token| t.text.chars().map(|c| if c.is_uppercase() { 2 } else { 1 }).sum::<usize>();
    // The first of equals, which `max_by_key` would not give.
    let best = parts.iter().rev().max_by_key(|t| weight(t));
    best.map(|t| t.tag.clone()).unwrap_or_default()
}

/// Spaces between the parts of a mixed word, or one main stress for a compound.
fn balance(word: &mut [Token]) {
    let text = text_of(word);
    let kinds = |kind: fn(char) -> bool| text.chars().any(|c| !JOINTS.contains(c) && kind(c));
    let letters = kinds(char::is_alphabetic);
    let digits = kinds(|c| c.is_ascii_digit());
    let others = kinds(|c| !c.is_alphabetic() && !c.is_ascii_digit());
    let spaced = text.contains('/') || usize::from(letters) + usize::from(digits) + usize::from(others) > 1;
    let last = word.len() - 1;
    for (i, token) in word.iter_mut().enumerate() {
        match &token.phonemes {
            None if i == last && token.text.chars().count() == 1 && PAUSES.contains(&token.text) => {
                token.phonemes = Some(token.text.clone());
            }
            None if token.text.chars().all(|c| JOINTS.contains(c)) => token.phonemes = Some(String::new()),
            Some(_) if i > 0 => token.spaced = spaced,
            _ => {}
        }
    }
    if spaced {
        return;
    }
    let mut said: Vec<(bool, usize, usize)> = word
        .iter()
        .enumerate()
        .filter_map(|(i, t)| t.phonemes.as_deref().filter(|p| !p.is_empty()).map(|p| (i, p)))
        .map(|(i, p)| (stress::has_primary(p), stress::weight(p), i))
        .collect();
    let starts_with_letter = said.first().is_some_and(|&(_, _, i)| word[i].text.chars().count() == 1);
    let mut demote = |i: usize| {
        word[i].phonemes = word[i].phonemes.as_deref().map(|p| stress::apply(p, Stress::Demote));
    };
    if let [_, (_, _, second)] = said[..]
        && starts_with_letter
    {
        demote(second);
        return;
    }
    let stressed = said.iter().filter(|(primary, ..)| *primary).count();
    if said.len() < 2 || stressed <= said.len().div_ceil(2) {
        return;
    }
    said.sort_unstable();
    for &(_, _, i) in &said[..said.len() / 2] {
        demote(i);
    }
}

#[cfg(test)]
mod tests;
