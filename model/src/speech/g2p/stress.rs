//! Stress marks in phoneme strings, and what counts as a vowel.

/// Before the main stressed vowel of a word.
pub(crate) const PRIMARY: char = 'ˈ';
/// Before a weaker one.
pub(crate) const SECONDARY: char = 'ˌ';

/// A change of a word's stress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stress {
    /// Primary stress becomes secondary; secondary goes.
    Demote,
    /// As `Demote`, and a word without any stress gets a secondary one.
    Weak,
    /// A word without any stress gets a secondary one.
    AtLeastSecondary,
    /// Secondary stress becomes primary if there is no primary; a word without any gets a primary one.
    Strong,
}

/// Whether a phoneme is a vowel.
pub(crate) fn is_vowel(c: char) -> bool {
    "AIOQWYaiuæɑɒɔəɛɜɪʊʌᵻ".contains(c)
}

/// Whether a phoneme is a consonant.
pub(crate) fn is_consonant(c: char) -> bool {
    "bdfhjklmnpstvwzðŋɡɹɾʃʒʤʧθ".contains(c)
}

/// Whether the word has a primary stress.
pub(crate) fn has_primary(ps: &str) -> bool {
    ps.contains(PRIMARY)
}

/// How much of it there is to say; diphthongs and affricates count twice.
pub(crate) fn weight(ps: &str) -> usize {
    ps.chars().map(|c| if "AIOQWYʤʧ".contains(c) { 2 } else { 1 }).sum()
}

/// Applies a change of stress.
pub(crate) fn apply(ps: &str, stress: Stress) -> String {
    let (primary, secondary) = (has_primary(ps), ps.contains(SECONDARY));
    match stress {
        Stress::Demote | Stress::Weak if primary => {
            ps.chars().filter(|&c| c != SECONDARY).map(|c| if c == PRIMARY { SECONDARY } else { c }).collect()
        }
        Stress::Weak | Stress::AtLeastSecondary if !primary && !secondary => mark_first_vowel(ps, SECONDARY),
        Stress::Strong if !primary && secondary => ps.replace(SECONDARY, "ˈ"),
        Stress::Strong if !primary => mark_first_vowel(ps, PRIMARY),
        _ => ps.into(),
    }
}

fn mark_first_vowel(ps: &str, mark: char) -> String {
    let mut marked = String::from(ps);
    if let Some((at, _)) = ps.char_indices().find(|(_, c)| is_vowel(*c)) {
        marked.insert(at, mark);
    }
    marked
}
