//! Whether a character ends a clause, by what stands around it.

use crate::speech::normalize::is_abbreviation;

/// What a character means for the flow of speech. The length is that of the bytes from it on that belong to the
/// clause before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    None,
    /// The end of a sentence or a line.
    Sentence(usize),
    /// A comma, semicolon, colon or dash.
    Clause(usize),
}

/// Words that may begin a clause.
const CONJUNCTIONS: &[&str] = &[
    "and", "but", "or", "so", "because", "although", "though", "while", "when", "where", "which", "who", "that", "if",
    "since", "until", "unless", "then", "however", "before", "after", "with", "for", "as", "than",
];

/// Longest run of marks ("?!…”)") that is looked through before a decision.
const MAX_MARKS: usize = 16;
/// Longest run of spaces that is looked through.
const MAX_GAP: usize = 64;

/// What `c` means, with the text `before` it and `rest` from it on. `None` if more text is needed to know.
pub(super) fn pause(before: &str, c: char, rest: &str, complete: bool) -> Option<Pause> {
    match c {
        '.' | '!' | '?' | '…' | '。' | '！' | '？' => sentence(before, c, rest, complete),
        '\n' => line(rest, complete),
        ',' | ';' | ':' | '—' => {
            let after = &rest[c.len_utf8()..];
            match after.chars().next() {
                None if complete => Some(Pause::None),
                None => None,
                // "1,000", "12:30" and "well—known" go on.
                Some(next) if next.is_whitespace() || c == '—' => Some(Pause::Clause(c.len_utf8())),
                Some(_) => Some(Pause::None),
            }
        }
        '-' | '–' if before.ends_with(' ') && before.trim_end().ends_with(|c: char| c.is_alphabetic() || c == ',') => {
            let mut after = rest[c.len_utf8()..].chars();
            match (after.next(), after.next()) {
                (Some(' '), Some(next)) if next.is_alphabetic() => Some(Pause::Clause(c.len_utf8())),
                (None, _) | (Some(' '), None) if !complete => None,
                _ => Some(Pause::None),
            }
        }
        _ => Some(Pause::None),
    }
}

/// Whether `rest` begins with a conjunction. `None` if the word may go on.
pub(super) fn conjunction(rest: &str, complete: bool) -> Option<bool> {
    let len = rest.find(|c: char| !c.is_alphabetic());
    match len {
        None if !complete && CONJUNCTIONS.iter().any(|word| word.starts_with(rest)) => None,
        len => Some(CONJUNCTIONS.contains(&&rest[..len.unwrap_or(rest.len())])),
    }
}

/// Whether a line that begins with `rest` opens fenced code, and with what. The outer `None`: more text is needed.
pub(super) fn fence(rest: &str, complete: bool) -> Option<Option<char>> {
    for mark in ['`', '~'] {
        let run = rest.chars().take_while(|&c| c == mark).count();
        if run >= 3 {
            return Some(Some(mark));
        }
        if run > 0 && run == rest.len() && !complete {
            return None;
        }
    }
    Some(None)
}

fn sentence(before: &str, c: char, rest: &str, complete: bool) -> Option<Pause> {
    if before.ends_with(['.', '!', '?', '…']) {
        // The first mark of the run has decided.
        return Some(Pause::None);
    }
    let marks: usize =
        rest.chars().take(MAX_MARKS).take_while(|c| ".!?…。！？\"”’')]*_`".contains(*c)).map(char::len_utf8).sum();
    let after = &rest[marks..];
    let Some(next) = after.chars().next() else {
        return if complete { Some(Pause::Sentence(marks)) } else { None };
    };
    if "。！？".contains(c) {
        return Some(Pause::Sentence(marks));
    }
    if !next.is_whitespace() {
        return Some(Pause::None);
    }
    if c == '.' && marks == 1 && is_list_number(before) {
        return Some(Pause::None);
    }
    let Some(said) = first_said(after, complete)? else { return Some(Pause::Sentence(marks)) };
    // "e.g. this" and "… and so on" go on; a new line or "!" does not.
    let goes_on = said.is_lowercase() && !after[..after.find(said).unwrap_or(0)].contains('\n');
    if goes_on && (c == '.' || c == '…') {
        return Some(Pause::None);
    }
    if c == '.' && marks == 1 && belongs_to_word(before, said) {
        return Some(Pause::None);
    }
    Some(Pause::Sentence(marks))
}

/// "1" of "1. Preheat the oven".
fn is_list_number(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default().trim_start_matches([' ', '*', '>', '-', '#']);
    !line.is_empty() && line.len() <= 3 && line.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a full stop after `before` is part of an abbreviation or initial.
fn belongs_to_word(before: &str, next: char) -> bool {
    let word = before.rsplit(|c: char| c.is_whitespace() || "(\"“‘[*_".contains(c)).next().unwrap_or_default();
    let initial =
        word.chars().count() == 1 && word.chars().all(char::is_uppercase) && word != "I" && next.is_uppercase();
    let dotted = word.contains('.') && word.split('.').all(|part| part.len() == 1 && part.is_ascii());
    initial || (dotted && !matches!(word, "a.m" | "p.m" | "A.M" | "P.M")) || is_abbreviation(word)
}

/// What follows the spaces at the beginning of `rest`; the inner `None` is a long gap or the end of the text.
fn first_said(rest: &str, complete: bool) -> Option<Option<char>> {
    match rest.chars().take(MAX_GAP).find(|c| !c.is_whitespace()) {
        None if !complete && rest.chars().take(MAX_GAP).count() < MAX_GAP => None,
        said => Some(said),
    }
}

fn line(rest: &str, complete: bool) -> Option<Pause> {
    Some(match first_said(rest, complete)? {
        Some(c) if c.is_lowercase() && !rest.trim_start_matches(' ').starts_with("\n\n") => Pause::None,
        _ => Pause::Sentence(1),
    })
}
