//! Parts of a token that may be words of their own: "camelCase", "well-known", "o'clock".

/// The parts of `token`, each with the byte after it.
pub(crate) fn split(token: &str) -> Vec<(String, usize)> {
    let chars: Vec<(usize, char)> = token.char_indices().collect();
    let end_of = |i: usize| chars.get(i).map_or(token.len(), |c| c.0);
    let mut parts = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let len = part_len(&chars[i..], i == 0).max(1);
        parts.push((token[end_of(i)..end_of(i + len)].into(), end_of(i + len)));
        i += len;
    }
    parts
}

/// Runs of letters with the apostrophes inside them.
pub(crate) fn letter_runs(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphabetic() && !is_apostrophe(c))
        .map(|run| run.trim_matches(is_apostrophe))
        .filter(|run| !run.is_empty())
}

fn part_len(chars: &[(usize, char)], at_start: bool) -> usize {
    let char_at = |i: usize| chars.get(i).map(|c| c.1);
    let run = |is: fn(char) -> bool| chars.iter().take_while(|c| is(c.1)).count();
    let apostrophes = run(is_apostrophe);
    if at_start && apostrophes > 0 {
        return apostrophes;
    }
    // A capital before a capitalised word: "iOSApp" to "S", "App".
    let upper = |i: usize| char_at(i).is_some_and(char::is_uppercase);
    let lower = |i: usize| char_at(i).is_some_and(char::is_lowercase);
    if upper(0) && upper(1) && lower(2) {
        return 1;
    }
    let joints = run(|c| c == '-' || c == '_');
    if joints > 0 {
        return joints;
    }
    if apostrophes > 1 {
        return apostrophes;
    }
    word_len(chars)
}

/// A word up to a change from small letters to capitals, with single letters behind apostrophes.
fn word_len(chars: &[(usize, char)]) -> usize {
    let char_at = |i: usize| chars.get(i).map(|c| c.1);
    let letter = |i: usize| char_at(i).is_some_and(char::is_alphabetic);
    let letters = (0..).take_while(|&i| letter(i)).count();
    let hump =
        |i: &usize| char_at(*i).is_some_and(char::is_lowercase) && char_at(i + 1).is_some_and(char::is_uppercase);
    if let Some(hump) = (0..letters).find(hump) {
        return hump + 1;
    }
    let mut len = letters;
    while len > 0 && char_at(len).is_some_and(is_apostrophe) && letter(len + 1) {
        len += 2;
    }
    len
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '‘' | '’')
}
