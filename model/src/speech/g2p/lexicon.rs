//! How a known word is said: dictionaries, endings, function words, spelled letters.
//!
//! The conventions are those of misaki, with which the voice was trained: the gold dictionary before the silver one,
//! endings built from the stem's sounds, "the" and "to" by what follows, unknown capitals spelled.

use std::path::Path;

use super::dictionary::Dictionary;
use super::stress::{self, PRIMARY, SECONDARY, Stress};
use crate::onnx::OnnxError;

/// What is known of the words that follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Following {
    /// Whether the next sound is a vowel; `None` at a pause and at the end.
    pub(crate) vowel: Option<bool>,
    /// Whether the next word is "to".
    pub(crate) to: bool,
}

/// The dictionaries.
pub(crate) struct Lexicon {
    gold: Dictionary,
    silver: Dictionary,
}

/// Sounds between which American English turns a t into a tap.
const TAP_BEFORE: &str = "AIOWYiuæɑəɛɪɹʊʌ";

impl Lexicon {
    pub(crate) fn load(dir: &Path) -> Result<Self, OnnxError> {
        let dictionary = |kind| Dictionary::load(&dir.join(format!("lexicon_us_{kind}.json.gz")));
        Ok(Self { gold: dictionary("gold")?, silver: dictionary("silver")? })
    }

    /// The phonemes of `word`, or `None` if no rule knows it.
    pub(crate) fn say(&self, word: &str, tag: &str, following: Following) -> Option<String> {
        let word = &word.replace(['‘', '’'], "'");
        let stress = if is_lower(word) {
            None
        } else if is_upper(word) {
            Some(Stress::Strong)
        } else {
            Some(Stress::AtLeastSecondary)
        };
        if let Some(said) = self.function_word(word, tag, stress, following) {
            return Some(said);
        }
        let lower = self.lower_form(word, tag, stress, following);
        let word = lower.as_deref().unwrap_or(word);
        if self.knows(word) {
            return self.look_up(word, tag, stress, following);
        }
        if let Some(plural) = word.strip_suffix("s'") {
            let possessive = format!("{plural}'s");
            if self.knows(&possessive) {
                return self.look_up(&possessive, tag, stress, following);
            }
        }
        if let Some(cut) = word.strip_suffix('\'')
            && self.knows(cut)
        {
            return self.look_up(cut, tag, stress, following);
        }
        self.ending_s(word, tag, stress, following)
            .or_else(|| self.ending_ed(word, tag, stress, following))
            .or_else(|| self.ending_ing(word, tag, stress.or(Some(Stress::AtLeastSecondary)), following))
    }

    /// Each letter by its name, the last one stressed.
    fn spell(&self, word: &str) -> Option<String> {
        let mut said = String::new();
        for c in word.chars().filter(|c| c.is_alphabetic()) {
            let upper: String = c.to_uppercase().collect();
            said.push_str(self.gold.get(&upper, &[])??);
        }
        let said = stress::apply(&said, Stress::Weak);
        Some(match said.rfind(SECONDARY) {
            Some(at) => format!("{}{PRIMARY}{}", &said[..at], &said[at + SECONDARY.len_utf8()..]),
            None => said,
        })
    }

    fn function_word(&self, word: &str, tag: &str, stress: Option<Stress>, next: Following) -> Option<String> {
        let gold = |word: &str, tag: &str| self.gold.get(word, &[tag]).flatten().map(String::from);
        let dotted = word.trim_matches('.');
        if dotted.contains('.')
            && word.chars().all(|c| c == '.' || c.is_alphabetic())
            && word.split('.').all(|part| part.chars().count() < 3)
        {
            return self.spell(word);
        }
        match word {
            "a" | "A" => Some(if tag == "DT" { "ɐ" } else { "ˈA" }.into()),
            "am" | "Am" | "AM" if tag.starts_with("NN") => self.spell(word),
            "am" if next.vowel.is_some() && stress != Some(Stress::Strong) => Some("ɐm".into()),
            "am" | "Am" | "AM" => gold("am", "DEFAULT"),
            "AN" if tag.starts_with("NN") => self.spell(word),
            "an" | "An" | "AN" => Some("ɐn".into()),
            "I" if tag == "PRP" => Some("ˌI".into()),
            "by" | "By" | "BY" if class(tag) == "ADV" => Some("bˈI".into()),
            "TO" if !matches!(tag, "TO" | "IN") => None,
            "to" | "To" | "TO" => match next.vowel {
                None => gold("to", "DEFAULT"),
                Some(false) => Some("tə".into()),
                Some(true) => Some("tʊ".into()),
            },
            "IN" if tag == "NNP" => None,
            "in" | "In" | "IN" if next.vowel.is_none() || tag != "IN" => Some("ˈɪn".into()),
            "in" | "In" | "IN" => Some("ɪn".into()),
            "THE" if tag != "DT" => None,
            "the" | "The" | "THE" => Some(if next.vowel == Some(true) { "ði" } else { "ðə" }.into()),
            "used" | "Used" | "USED" => {
                let habit = matches!(tag, "VBD" | "JJ") && next.to;
                gold("used", if habit { "VBD" } else { "DEFAULT" })
            }
            _ => None,
        }
    }

    /// The lower-case form if only that is known: at the start of a sentence, in headings and shouted words.
    fn lower_form(&self, word: &str, tag: &str, stress: Option<Stress>, next: Following) -> Option<String> {
        let rest = &word[word.chars().next()?.len_utf8()..];
        let plain = !rest.is_empty()
            && word.chars().all(|c| c == '\'' || c.is_alphabetic())
            && !is_lower(word)
            && (tag != "NNP" || word.chars().count() > 7)
            && (is_upper(word) || is_lower(rest));
        if !plain || self.gold.contains(word) || self.silver.contains(word) {
            return None;
        }
        let lower = word.to_lowercase();
        let known = self.gold.contains(&lower)
            || self.silver.contains(&lower)
            || self.ending_s(&lower, tag, stress, next).is_some()
            || self.ending_ed(&lower, tag, stress, next).is_some()
            || self.ending_ing(&lower, tag, stress, next).is_some();
        known.then_some(lower)
    }

    fn knows(&self, word: &str) -> bool {
        if self.gold.contains(word) || self.silver.contains(word) {
            return true;
        }
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphabetic()) {
            return false;
        }
        // One letter, or capitals, which can be spelled.
        word.len() == 1 || (is_upper(word) && self.gold.contains(&word.to_lowercase())) || is_upper(&word[1..])
    }

    fn look_up(&self, word: &str, tag: &str, stress: Option<Stress>, next: Following) -> Option<String> {
        let shouted = is_upper(word) && !self.gold.contains(word);
        let lower;
        let known = if shouted {
            lower = word.to_lowercase();
            &lower
        } else {
            word
        };
        let name = shouted && tag == "NNP";
        let pause = if next.vowel.is_none() { "None" } else { tag };
        let tags = [pause, tag, class(tag)];
        let said = match self.gold.get(known, &tags) {
            Some(reading) => reading,
            None if name => None,
            None => self.silver.get(known, &tags).flatten(),
        };
        match said {
            Some(said) if !name || stress::has_primary(said) => {
                Some(stress.map_or_else(|| said.into(), |stress| stress::apply(said, stress)))
            }
            said => self
                .spell(known)
                .or_else(|| said.map(|said| stress.map_or_else(|| said.into(), |stress| stress::apply(said, stress)))),
        }
    }

    fn ending_s(&self, word: &str, tag: &str, stress: Option<Stress>, next: Following) -> Option<String> {
        let long = |n| word.chars().count() > n;
        let cut = word.strip_suffix('s').filter(|_| long(2))?;
        let stem = [
            Some(cut).filter(|_| !word.ends_with("ss")).map(String::from),
            word.strip_suffix("'s").map(String::from),
            word.strip_suffix("es").filter(|_| long(4) && !word.ends_with("ies")).map(String::from),
            word.strip_suffix("ies").filter(|_| long(4)).map(|stem| format!("{stem}y")),
        ];
        let stem = stem.into_iter().flatten().find(|stem| self.knows(stem))?;
        let said = self.look_up(&stem, tag, stress, next)?;
        Some(match said.chars().last()? {
            'p' | 't' | 'k' | 'f' | 'θ' => said + "s",
            's' | 'z' | 'ʃ' | 'ʒ' | 'ʧ' | 'ʤ' => said + "ᵻz",
            _ => said + "z",
        })
    }

    fn ending_ed(&self, word: &str, tag: &str, stress: Option<Stress>, next: Following) -> Option<String> {
        let long = |n| word.chars().count() > n;
        let cut = word.strip_suffix('d').filter(|_| long(3))?;
        let stem = [
            Some(cut).filter(|_| !word.ends_with("dd")),
            word.strip_suffix("ed").filter(|_| long(4) && !word.ends_with("eed")),
        ];
        let stem = stem.into_iter().flatten().find(|stem| self.knows(stem))?;
        let said = self.look_up(stem, tag, stress, next)?;
        let mut back = said.chars().rev();
        let (last, before) = (back.next()?, back.next());
        Some(match last {
            'p' | 'k' | 'f' | 'θ' | 'ʃ' | 's' | 'ʧ' => said + "t",
            'd' => said + "ᵻd",
            't' => match before {
                None => said + "ɪd",
                Some(c) if TAP_BEFORE.contains(c) => format!("{}ɾᵻd", &said[..said.len() - 1]),
                Some(_) => said + "ᵻd",
            },
            _ => said + "d",
        })
    }

    fn ending_ing(&self, word: &str, tag: &str, stress: Option<Stress>, next: Following) -> Option<String> {
        let long = |n| word.chars().count() > n;
        let cut = word.strip_suffix("ing").filter(|_| long(4))?;
        let stem = [
            Some(cut).filter(|_| long(5)).map(String::from),
            Some(format!("{cut}e")),
            undoubled(cut).filter(|_| long(5)).map(String::from),
        ];
        let stem = stem.into_iter().flatten().find(|stem| self.knows(stem))?;
        let said = self.look_up(&stem, tag, stress, next)?;
        let mut back = said.chars().rev();
        match (back.next()?, back.next()) {
            ('t', Some(c)) if TAP_BEFORE.contains(c) => Some(format!("{}ɾɪŋ", &said[..said.len() - 1])),
            _ => Some(said + "ɪŋ"),
        }
    }
}

/// "runn" of "running" to "run", "panick" of "panicking" to "panic".
fn undoubled(stem: &str) -> Option<&str> {
    let b = stem.as_bytes();
    let doubled = b.len() >= 2 && b[b.len() - 1] == b[b.len() - 2] && b"bcdgklmnprstvxz".contains(&b[b.len() - 1]);
    (doubled || stem.ends_with("ck")).then(|| &stem[..stem.len() - 1])
}

/// The class that the dictionaries distinguish.
fn class(tag: &str) -> &str {
    match tag {
        _ if tag.starts_with("VB") => "VERB",
        _ if tag.starts_with("NN") => "NOUN",
        _ if tag.starts_with("ADV") || tag.starts_with("RB") => "ADV",
        _ if tag.starts_with("ADJ") || tag.starts_with("JJ") => "ADJ",
        _ => tag,
    }
}

fn is_lower(word: &str) -> bool {
    !word.chars().any(char::is_uppercase)
}

fn is_upper(word: &str) -> bool {
    !word.chars().any(char::is_lowercase)
}
