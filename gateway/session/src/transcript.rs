//! Transcripts that only grow, and what the words of an interruption mean.

/// What has been sent of one utterance's transcript. Clients append what they get, so what was sent cannot be taken
/// back, and a later text that differs goes on behind as many words as were sent.
#[derive(Default)]
pub(crate) struct InputTranscript {
    sent: String,
}

impl InputTranscript {
    /// What to append when the stable transcript is now `stable`; empty when nothing.
    pub(crate) fn grow(&mut self, stable: &str) -> String {
        let stable = stable.trim_end();
        let rest = stable.strip_prefix(self.sent.as_str()).unwrap_or_default().to_owned();
        self.sent.push_str(&rest);
        rest
    }

    /// What to append when `text` is the whole transcript; `None` if there was and is nothing.
    pub(crate) fn finish(&mut self, text: &str) -> Option<String> {
        let text = text.trim_end();
        let rest = match text.strip_prefix(self.sent.as_str()) {
            Some(rest) => rest.to_owned(),
            None => {
                let said = self.sent.split_whitespace().count();
                let rest: Vec<&str> = text.split_whitespace().skip(said).collect();
                if rest.is_empty() { String::new() } else { format!(" {}", rest.join(" ")) }
            }
        };
        self.sent.push_str(&rest);
        (!self.sent.is_empty()).then_some(rest)
    }
}

/// The part of `text` before byte `until` that ends with a whole word, as an end position. Never inside a character.
pub(crate) fn whole_words(text: &str, until: usize) -> usize {
    if until >= text.len() {
        return text.len();
    }
    let until = text.floor_char_boundary(until);
    // A script without spaces has no whole words to wait for.
    match text[..until].rfind(char::is_whitespace) {
        _ if text[until..].starts_with(char::is_whitespace) => until,
        Some(space) => space,
        None if text.contains(char::is_whitespace) => 0,
        None => until,
    }
}

/// What words said into a reply mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// No words, or too few to tell.
    Open,
    /// Only signs of listening.
    Acknowledgement,
    /// An interruption.
    Meant,
}

/// Signs of listening. A list that is too long swallows interruptions, one that is too short lets nods interrupt; these
/// are the usual ones of the language the default engine speaks best, and of its neighbours.
const ACKNOWLEDGEMENTS: [&str; 44] = [
    "ah",
    "aha",
    "alright",
    "cool",
    "exactly",
    "fine",
    "go",
    "good",
    "got",
    "great",
    "hm",
    "hmm",
    "huh",
    "i",
    "interesting",
    "it",
    "mhm",
    "mm",
    "mmhmm",
    "nice",
    "oh",
    "ok",
    "okay",
    "on",
    "really",
    "right",
    "see",
    "sure",
    "true",
    "uh",
    "uhhuh",
    "um",
    "well",
    "wow",
    "yeah",
    "yep",
    "yes",
    "yup",
    "ja",
    "genau",
    "oui",
    "si",
    "sí",
    "doch",
];

/// Words that stop a reply alone.
const STOPS: [&str; 21] = [
    "stop", "wait", "no", "nope", "hold", "pause", "cancel", "quiet", "enough", "but", "actually", "sorry", "excuse",
    "nein", "halt", "warte", "stopp", "arrête", "attends", "non", "espera",
];

/// Reads what was said into a reply so far: a stop word, or two words beyond a nod, are an interruption.
pub(crate) fn meaning(text: &str) -> Meaning {
    let text = text.to_lowercase();
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.chars().filter(|c| c.is_alphanumeric()).collect::<String>())
        .filter(|word| !word.is_empty())
        .collect();
    let others = words.iter().filter(|word| !ACKNOWLEDGEMENTS.contains(&word.as_str())).count();
    if words.iter().any(|word| STOPS.contains(&word.as_str())) || others >= 2 {
        Meaning::Meant
    } else if others == 0 && !words.is_empty() {
        Meaning::Acknowledgement
    } else {
        Meaning::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_only_grows() {
        let mut transcript = InputTranscript::default();
        assert_eq!(transcript.grow("What is"), "What is");
        assert_eq!(transcript.grow("What is the "), " the");
        assert_eq!(transcript.grow("What was the"), "", "a change of mind is not sent");
        assert_eq!(transcript.finish("What was the capital?").as_deref(), Some(" capital?"));
        assert_eq!(transcript.finish("What was the capital?").as_deref(), Some(""));
        assert_eq!(InputTranscript::default().finish(" "), None);
    }

    #[test]
    fn a_cut_keeps_whole_words_and_characters() {
        for (text, until, want) in [
            ("hello big world", 0, 0),
            ("hello big world", 4, 0),
            ("hello big world", 5, 5),
            ("hello big world", 8, 5),
            ("hello big world", 99, 15),
            ("grüße aus", 3, 0),
            ("日本語", 4, 3),
        ] {
            assert_eq!(whole_words(text, until), want, "{text} {until}");
        }
    }

    #[test]
    fn words_tell_an_interruption_from_a_nod() {
        for (text, want) in [
            ("", Meaning::Open),
            ("...", Meaning::Open),
            ("Uh-huh.", Meaning::Acknowledgement),
            ("Yeah, right, okay.", Meaning::Acknowledgement),
            ("I see.", Meaning::Acknowledgement),
            ("Stop.", Meaning::Meant),
            ("yeah wait", Meaning::Meant),
            ("What about", Meaning::Meant),
            ("Tomorrow", Meaning::Open),
        ] {
            assert_eq!(meaning(text), want, "{text}");
        }
    }
}
