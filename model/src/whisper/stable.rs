//! The part of a growing transcript that will not change any more.

/// Words on which two successive transcripts of unfinished speech agree; append-only (LocalAgreement-2, Macháček et al.,
/// arXiv 2307.14743).
///
/// Words are compared without case and punctuation. What is stable keeps the spelling that it had when it became so,
/// and ends with a word: punctuation behind the last word belongs to the unstable part, because a transcript of half a
/// sentence likes to end with a full stop.
#[derive(Clone, Debug, Default)]
pub struct StablePrefix {
    stable: String,
    /// What was unstable after the last transcript.
    previous: String,
}

/// Words at the end of the stable part that are looked for in a transcript that words them differently.
const ALIGNED: usize = 48;

impl StablePrefix {
    /// Takes the next transcript of the same, by now longer, speech. Returns the stable text, which starts with what it
    /// was before, and what follows it and may change; together they read as the transcript.
    pub fn push(&mut self, transcript: &str) -> (String, String) {
        let rest = self.behind_stable(transcript);
        let agreed = words(rest).zip(words(&self.previous)).take_while(|(a, b)| same(a.text, b.text)).last();
        let (settled, unstable) = rest.split_at(agreed.map_or(0, |(word, _)| word.end));
        // At the very start, the space before the first word says nothing.
        self.stable.push_str(if self.stable.is_empty() { settled.trim_start() } else { settled });
        let unstable = if self.stable.is_empty() { unstable.trim_start() } else { unstable };
        self.previous = unstable.to_owned();
        (self.stable.clone(), unstable.to_owned())
    }

    /// The stable text so far.
    pub fn stable(&self) -> &str {
        &self.stable
    }

    /// Forgets everything, for the next utterance.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// What of `transcript` follows the words that are stable, wherever it words those differently.
    fn behind_stable<'a>(&self, transcript: &'a str) -> &'a str {
        let stable: Vec<_> = words(&self.stable).map(|word| word.text).collect();
        if stable.is_empty() {
            return transcript;
        }
        let heard: Vec<_> = words(transcript).collect();
        let is_prefix =
            heard.len() >= stable.len() && stable.iter().zip(&heard).all(|(stable, heard)| same(stable, heard.text));
        let covered = if is_prefix { stable.len() } else { align(&stable, &heard) };
        match covered.checked_sub(1) {
            Some(last) => &transcript[heard[last].end..],
            // Nothing of it matches, so nothing is known to follow.
            None => "",
        }
    }
}

/// How many words of `heard` say what `stable` says: the prefix of least edit distance, the one nearest in length among
/// equals. Only the last [`ALIGNED`] stable words, and as many around them, are looked at.
fn align(stable: &[&str], heard: &[Word<'_>]) -> usize {
    let skipped = stable.len().saturating_sub(ALIGNED).min(heard.len());
    let stable = &stable[stable.len().saturating_sub(ALIGNED)..];
    let heard = &heard[skipped..heard.len().min(skipped + stable.len() + ALIGNED)];
    // distance[j]: edits between the stable words so far and the first j heard.
    let mut distance: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in stable.iter().enumerate() {
        let mut diagonal = distance[0];
        distance[0] = i + 1;
        for (j, heard) in heard.iter().enumerate() {
            let replaced = diagonal + usize::from(!same(word, heard.text));
            diagonal = distance[j + 1];
            distance[j + 1] = replaced.min(diagonal + 1).min(distance[j] + 1);
        }
    }
    let best = (0..=heard.len()).min_by_key(|&j| (distance[j], j.abs_diff(stable.len()))).unwrap_or(0);
    skipped + best
}

struct Word<'a> {
    text: &'a str,
    /// Bytes up to its end.
    end: usize,
}

/// Runs of letters and digits. In scripts that do not separate words, every letter is one.
fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(char::is_alphanumeric)?;
        let mut end = start;
        for letter in text[start..].chars() {
            if !letter.is_alphanumeric() || (end > start && is_unspaced(letter)) {
                break;
            }
            end += letter.len_utf8();
            if is_unspaced(letter) {
                break;
            }
        }
        at = end;
        Some(Word { text: &text[start..end], end })
    })
}

/// Thai, Lao, Burmese, Khmer, Chinese and Japanese are written without spaces.
fn is_unspaced(letter: char) -> bool {
    matches!(u32::from(letter), 0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x9fff
        | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

fn same(a: &str, b: &str) -> bool {
    a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grows_by_agreement() {
        let mut prefix = StablePrefix::default();
        let mut check = |transcript: &str, stable: &str, unstable: &str| {
            let (got, rest) = prefix.push(transcript);
            assert_eq!((got.as_str(), rest.as_str()), (stable, unstable), "after {transcript:?}");
        };
        check("Go for.", "", "Go for.");
        check("Go forward.", "Go", " forward.");
        check("go forward, then", "Go forward", ", then");
        check("Go forward. Ten meters", "Go forward", ". Ten meters");
        check("Go forward ten meters!", "Go forward ten meters", "!");
        // A stable word is heard otherwise: what follows it is still found.
        check("Go forwards ten meters. And stop", "Go forward ten meters", ". And stop");
        check("Gopher words ten meters and stop.", "Go forward ten meters and stop", ".");
        // Less than before.
        check("Go forward", "Go forward ten meters and stop", "");
        check("", "Go forward ten meters and stop", "");
    }

    #[test]
    fn letters_are_words_where_nothing_separates_them() {
        let mut prefix = StablePrefix::default();
        prefix.push("今日はいい");
        let (stable, unstable) = prefix.push("今日は良い天気");
        assert_eq!((stable.as_str(), unstable.as_str()), ("今日は", "良い天気"));
    }

    #[test]
    fn a_long_transcript_is_aligned_near_its_end() {
        let long: Vec<String> = (0..200).map(|i| format!("w{i}")).collect();
        let mut prefix = StablePrefix::default();
        prefix.push(&long[..180].join(" "));
        assert_eq!(prefix.push(&long[..180].join(" ")).1, "");
        let mut changed = long.clone();
        changed[3] = "other".to_owned();
        assert_eq!(prefix.push(&changed.join(" ")).1, format!(" {}", long[180..].join(" ")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is pushed, the stable part only grows, by words that the transcript has.
        #[test]
        fn only_appends(transcripts in prop::collection::vec("[a-cA-C ,.!é天気]{0,24}", 1..8)) {
            let mut prefix = StablePrefix::default();
            let mut before = String::new();
            for transcript in &transcripts {
                let (stable, unstable) = prefix.push(transcript);
                prop_assert!(stable.starts_with(&before));
                prop_assert!(transcript.ends_with(&unstable));
                prop_assert!(transcript.contains(stable[before.len()..].trim_start()));
                before = stable;
            }
        }

        /// Case and punctuation may flip from pass to pass without holding words back.
        #[test]
        fn flips_do_not_matter(words in prop::collection::vec("[a-z]{1,5}", 1..12), flips in any::<u64>()) {
            let mut prefix = StablePrefix::default();
            let marks = [" ", ", ", ". ", "... "];
            let mut bits = flips;
            for until in 1..=words.len() {
                let mut transcript = String::new();
                for word in &words[..until] {
                    bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let upper = bits >> 63 == 1;
                    transcript.push_str(&if upper { word.to_uppercase() } else { word.clone() });
                    transcript.push_str(marks[(bits >> 61) as usize & 3]);
                }
                let (stable, unstable) = prefix.push(&transcript);
                prop_assert_eq!(super::words(&stable).count(), until - 1);
                prop_assert_eq!(super::words(&unstable).count(), 1);
            }
        }
    }
}
