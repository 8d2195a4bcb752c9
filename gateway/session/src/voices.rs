//! Names of voices: the engine's own, and the prebuilt names of the two services whose clients call us.

use causerie_model_api::{Capabilities, Voice};

use crate::{Problem, ProblemCode};

/// Prebuilt names that clients send, with the gender their vendors describe. We have other voices, so the name chooses
/// the nearest one and the answer to the setup says which.
const PREBUILT: [(&str, &str); 40] = [
    // Gemini.
    ("Zephyr", "female"),
    ("Puck", "male"),
    ("Charon", "male"),
    ("Kore", "female"),
    ("Fenrir", "male"),
    ("Leda", "female"),
    ("Orus", "male"),
    ("Aoede", "female"),
    ("Callirrhoe", "female"),
    ("Autonoe", "female"),
    ("Enceladus", "male"),
    ("Iapetus", "male"),
    ("Umbriel", "male"),
    ("Algieba", "male"),
    ("Despina", "female"),
    ("Erinome", "female"),
    ("Algenib", "male"),
    ("Rasalgethi", "male"),
    ("Laomedeia", "female"),
    ("Achernar", "female"),
    ("Alnilam", "male"),
    ("Schedar", "male"),
    ("Gacrux", "female"),
    ("Pulcherrima", "female"),
    ("Achird", "male"),
    ("Zubenelgenubi", "male"),
    ("Vindemiatrix", "female"),
    ("Sadachbia", "male"),
    ("Sadaltager", "male"),
    ("Sulafat", "female"),
    // OpenAI.
    ("alloy", "neutral"),
    ("ash", "male"),
    ("ballad", "male"),
    ("coral", "female"),
    ("echo", "male"),
    ("sage", "female"),
    ("shimmer", "female"),
    ("verse", "male"),
    ("marin", "female"),
    ("cedar", "male"),
];

/// The voice for what a client asked for: of its language, by name or else by gender, else the first.
///
/// # Errors
/// [`ProblemCode::InvalidArgument`] for a language that no voice speaks and for a name that nobody knows, with what
/// there is.
pub(crate) fn choose<'a>(
    capabilities: &'a Capabilities,
    name: Option<&str>,
    language: Option<&str>,
) -> Result<&'a Voice, Problem> {
    let voices = &capabilities.voices;
    let spoken: Vec<&Voice> = match language {
        Some(language) => voices.iter().filter(|voice| speaks(&voice.language, language)).collect(),
        None => voices.iter().collect(),
    };
    // The same region before the same language.
    let exact = |voice: &&&Voice| language.is_some_and(|language| voice.language.eq_ignore_ascii_case(language));
    let default = spoken.iter().find(exact).or(spoken.first()).copied().ok_or_else(|| {
        let mut languages: Vec<&str> = voices.iter().map(|voice| voice.language.as_str()).collect();
        languages.dedup();
        let message = format!("no voice speaks {:?}; there is: {}", language.unwrap_or_default(), languages.join(", "));
        Problem::new(ProblemCode::InvalidArgument, "setup.generation_config.speech_config.language_code", message)
    })?;
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(default) };
    if let Some(voice) = voices.iter().find(|voice| voice.name.eq_ignore_ascii_case(name)) {
        return match language {
            Some(language) if !speaks(&voice.language, language) => Err(Problem::new(
                ProblemCode::InvalidArgument,
                "setup.generation_config.speech_config.language_code",
                format!("the voice {:?} speaks {}, not {language}", voice.name, voice.language),
            )),
            _ => Ok(voice),
        };
    }
    let Some((_, gender)) = PREBUILT.iter().find(|(prebuilt, _)| prebuilt.eq_ignore_ascii_case(name)) else {
        let names: Vec<&str> = voices.iter().map(|voice| voice.name.as_str()).collect();
        let message = format!(
            "no voice is called {name:?}; there is: {} (and the prebuilt names of Gemini and OpenAI, which choose the \
             nearest of them)",
            names.join(", ")
        );
        return Err(Problem::new(
            ProblemCode::InvalidArgument,
            "setup.generation_config.speech_config.voice_config.prebuilt_voice_config.voice_name",
            message,
        ));
    };
    let suits = |voice: &&&Voice| voice.gender.eq_ignore_ascii_case(gender);
    let nearest = spoken.iter().find(|voice| exact(voice) && suits(voice)).or_else(|| spoken.iter().find(suits));
    Ok(nearest.copied().unwrap_or(default))
}

/// Whether a tag's language is another's: `en` and `en-GB` are served by `en-US`.
pub(crate) fn speaks(have: &str, want: &str) -> bool {
    let primary = |tag: &str| tag.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    primary(have) == primary(want)
}

/// Whether a tag has the form of BCP-47: letters, then parts of letters and digits.
pub(crate) fn well_formed(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let primary = parts.next().unwrap_or_default();
    (2..=3).contains(&primary.len())
        && primary.bytes().all(|b| b.is_ascii_alphabetic())
        && parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice(name: &str, language: &str, gender: &str) -> Voice {
        Voice { name: name.into(), language: language.into(), gender: gender.into() }
    }

    #[test]
    fn names_find_the_nearest_voice() {
        let voices = vec![
            voice("heart", "en-US", "female"),
            voice("joe", "en-US", "male"),
            voice("emma", "en-GB", "female"),
            voice("anna", "de-DE", "female"),
        ];
        let capabilities = Capabilities { voices, ..Capabilities::default() };
        type Case = (Option<&'static str>, Option<&'static str>, Result<&'static str, &'static str>);
        let cases: &[Case] = &[
            (None, None, Ok("heart")),
            (Some(""), None, Ok("heart")),
            (Some("HEART"), None, Ok("heart")),
            (Some("Puck"), None, Ok("joe")),
            (Some("kore"), None, Ok("heart")),
            (Some("kore"), Some("en-GB"), Ok("emma")),
            (Some("Puck"), Some("en-GB"), Ok("joe")),
            (Some("Puck"), Some("de"), Ok("anna")),
            (Some("alloy"), None, Ok("heart")),
            (Some("cedar"), Some("en-AU"), Ok("joe")),
            (None, Some("en-GB"), Ok("emma")),
            (None, Some("fr-FR"), Err("no voice speaks \"fr-FR\"; there is: en-US, en-GB, de-DE")),
            (Some("heart"), Some("de"), Err("the voice \"heart\" speaks en-US, not de")),
            (Some("Hal"), None, Err("no voice is called \"Hal\"; there is: heart, joe, emma, anna")),
        ];
        for (name, language, want) in cases {
            match (choose(&capabilities, *name, *language), want) {
                (Ok(got), Ok(want)) => assert_eq!(got.name, *want, "{name:?} {language:?}"),
                (Err(got), Err(want)) => {
                    assert!(got.message.starts_with(want), "{name:?} {language:?}: {}", got.message);
                    assert_eq!(got.code, ProblemCode::InvalidArgument);
                }
                (got, want) => panic!("{name:?} {language:?}: {got:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn prebuilt_names_are_distinct() {
        let mut names: Vec<String> = PREBUILT.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), PREBUILT.len());
    }

    #[test]
    fn tags_are_checked_for_form() {
        for tag in ["en", "en-US", "deu", "zh-Hans-CN"] {
            assert!(well_formed(tag), "{tag}");
        }
        for tag in ["", "e", "english", "en-", "en_US", "12", "en-verylongpart"] {
            assert!(!well_formed(tag), "{tag}");
        }
    }
}
