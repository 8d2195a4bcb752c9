//! The vocabulary: from tokens to text, and the ids of the tokens that are not text.
//!
//! Tokens of text are spelled in the alphabet of GPT-2, which writes every byte as a printable character; the others
//! look like `<|en|>`. Encoding text is not needed here.

use std::collections::HashMap;

/// All tokens.
pub(super) struct Vocabulary {
    /// Bytes of all tokens of text, one after another, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    languages: Vec<(&'static str, u32)>,
    tags: Vec<&'static str>,
    pub(super) special: Special,
    len: usize,
}

/// Ids of tokens that are not text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Special {
    /// Tokens below this one are text.
    pub(super) end_of_text: u32,
    pub(super) start_of_transcript: u32,
    pub(super) transcribe: u32,
    pub(super) no_speech: u32,
    pub(super) no_timestamps: u32,
}

/// The only language of models without a choice.
const ENGLISH: &[&str] = &["en"];

impl Vocabulary {
    /// `tokens` in the order of their ids. A `multilingual` model is told the language and the task.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn new(tokens: &[String], multilingual: bool) -> Result<Self, String> {
        let named: HashMap<&str, u32> = (0..).zip(tokens).map(|(id, token)| (token.as_str(), id)).collect();
        let find = |name: &str| named.get(name).copied().ok_or_else(|| format!("it has no token {name}"));
        let special = Special {
            end_of_text: find("<|endoftext|>")?,
            start_of_transcript: find("<|startoftranscript|>")?,
            transcribe: find("<|transcribe|>")?,
            no_speech: find("<|nospeech|>").or_else(|_| find("<|nocaptions|>"))?,
            no_timestamps: find("<|notimestamps|>")?,
        };
        let languages: Vec<_> = if multilingual {
            LANGUAGES.iter().filter_map(|&tag| Some((tag, *named.get(format!("<|{tag}|>").as_str())?))).collect()
        } else {
            Vec::new()
        };
        if multilingual && languages.is_empty() {
            return Err("it has no languages".to_owned());
        }
        let tags = if multilingual { languages.iter().map(|&(tag, _)| tag).collect() } else { ENGLISH.to_vec() };
        let alphabet = alphabet();
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for token in &tokens[..special.end_of_text as usize] {
            for letter in token.chars() {
                match alphabet.get(&letter) {
                    Some(&byte) => bytes.push(byte),
                    None => return Err(format!("token {token:?} has a letter that stands for no byte")),
                }
            }
            ends.push(u32::try_from(bytes.len()).map_err(|_| "it is too long".to_owned())?);
        }
        Ok(Self { bytes, ends, languages, tags, special, len: tokens.len() })
    }

    /// Tokens.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Tags of the languages.
    pub(super) fn languages(&self) -> &[&'static str] {
        &self.tags
    }

    /// Tags and tokens of the languages to choose from; none if there is no choice.
    pub(super) fn choices(&self) -> &[(&'static str, u32)] {
        &self.languages
    }

    /// The tag and token of a BCP-47 tag or its primary part, if the model has a choice that includes it.
    pub(super) fn language(&self, tag: &str) -> Option<(&'static str, u32)> {
        let primary = tag.split(['-', '_']).next().unwrap_or(tag).to_ascii_lowercase();
        // Whisper's tags for Norwegian, Filipino, Javanese and Hebrew are not the ones that are most in use.
        let known = match primary.as_str() {
            "nb" => "no",
            "fil" => "tl",
            "jv" => "jw",
            "iw" => "he",
            "cmn" => "zh",
            other => other,
        };
        self.languages.iter().copied().find(|(tag, _)| *tag == known)
    }

    /// The text of tokens; those that are not text are skipped, and so are bytes that are no letters.
    pub(super) fn text(&self, tokens: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &token in tokens {
            if let Some(&end) = self.ends.get(token as usize) {
                let start = (token as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
                bytes.extend_from_slice(&self.bytes[start as usize..end as usize]);
            }
        }
        String::from_utf8_lossy(&bytes).replace(char::REPLACEMENT_CHARACTER, "")
    }
}

/// GPT-2's: printable characters of Latin-1 stand for themselves, the other bytes for 256 and up in their order.
fn alphabet() -> HashMap<char, u8> {
    let mut others = 256u32..;
    (0..=u8::MAX)
        .filter_map(|byte| {
            let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
            let letter = if printable { char::from(byte) } else { char::from_u32(others.next()?)? };
            Some((letter, byte))
        })
        .collect()
}

/// The tags of Whisper's paper, in the order of the training data.
const LANGUAGES: &[&str] = &[
    "en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr", "pl", "ca", "nl", "ar", "sv", "it", "id", "hi", "fi",
    "vi", "he", "uk", "el", "ms", "cs", "ro", "da", "hu", "ta", "no", "th", "ur", "hr", "bg", "lt", "la", "mi", "ml",
    "cy", "sk", "te", "fa", "lv", "bn", "sr", "az", "sl", "kn", "et", "mk", "br", "eu", "is", "hy", "ne", "mn", "bs",
    "kk", "sq", "sw", "gl", "mr", "pa", "si", "km", "sn", "yo", "so", "af", "oc", "ka", "be", "tg", "sd", "gu", "am",
    "yi", "lo", "uz", "fo", "ht", "ps", "tk", "nn", "mt", "sa", "lb", "my", "bo", "tl", "mg", "as", "tt", "haw", "ln",
    "ha", "ba", "jw", "su", "yue",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Vec<String> {
        ["A", "Ġgo", "Ã", "©", "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>"]
            .into_iter()
            .chain(["<|nospeech|>", "<|notimestamps|>"])
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn text_is_made_of_bytes() {
        let vocabulary = Vocabulary::new(&tokens(), true).unwrap();
        // é is two bytes in two tokens; half of it is nothing; special tokens are nothing.
        assert_eq!(vocabulary.text(&[0, 1, 2, 3, 5]), "A goé");
        assert_eq!(vocabulary.text(&[0, 2]), "A");
        assert_eq!(vocabulary.text(&[u32::MAX]), "");
        assert_eq!(vocabulary.special.end_of_text, 4);
    }

    #[test]
    fn languages_are_found_by_tag() {
        let vocabulary = Vocabulary::new(&tokens(), true).unwrap();
        assert_eq!(vocabulary.languages(), ["en", "de"]);
        assert_eq!(vocabulary.language("de-AT"), Some(("de", 7)));
        assert_eq!(vocabulary.language("xx"), None);
        let english = Vocabulary::new(&tokens(), false).unwrap();
        assert_eq!((english.languages(), english.language("en")), (&["en"][..], None));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Vocabulary::new(&tokens()[..10], true).err().unwrap();
        assert!(error.contains("<|notimestamps|>"), "{error}");
        let mut foreign = tokens();
        foreign[1] = "語".to_owned();
        assert!(Vocabulary::new(&foreign, true).is_err());
    }
}
