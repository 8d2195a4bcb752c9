//! What begins with a letter: addresses, abbreviations, titles, Roman numerals, names of letters.

use super::cursor::{Cursor, Found, count, is_word, starts_with, text};
use super::numbers::{ordinal, small};
use super::tables::{ABBREVIATIONS, ROMAN_CARDINAL, ROMAN_ORDINAL, SHORT_FORMS, TITLES, cyrillic, greek};

/// Longest host name that is spoken; past it an address is "a link".
const MAX_HOST: usize = 40;

/// "https://example.com/path" and "someone@example.com".
pub(super) fn address(at: Cursor<'_>) -> Option<Found> {
    if at.glued() {
        return None;
    }
    let len = count(at.rest, |c| !c.is_whitespace() && !"<>\"“”|".contains(c));
    let len = len - at.rest[..len].iter().rev().take_while(|c| ".,;:!?)'’*_`]".contains(**c)).count();
    let written = text(&at.rest[..len]);
    if let Some((_, after)) =
        written.split_once("://").filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphabetic()))
    {
        return Found::new(len, host(after));
    }
    if let Some(after) = written.strip_prefix("www.") {
        return Found::new(len, host(after));
    }
    let (name, domain) = written.split_once('@')?;
    let plain = |s: &str| !s.is_empty() && s.chars().all(|c| is_name_char(c) || "._+-".contains(c));
    if !plain(name) || !plain(domain) || !domain.contains('.') {
        return None;
    }
    Found::new(len, format!("{} at {}", dotted(name), dotted(domain)))
}

fn host(after: &str) -> String {
    let host = after.split(['/', '?', '#', ':']).next().unwrap_or_default();
    let host = host.strip_prefix("www.").unwrap_or(host);
    let name = host.chars().all(|c| is_name_char(c) || ".-".contains(c)) && host.contains(|c: char| c.is_alphabetic());
    if name && host.len() <= MAX_HOST { dotted(host) } else { "a link".into() }
}

/// Letters and digits that can be said one after another.
fn is_name_char(c: char) -> bool {
    c.is_ascii_digit() || is_latin(c)
}

/// A name with its dots said.
fn dotted(name: &str) -> String {
    let mut said = String::new();
    for c in name.chars() {
        match c {
            '.' => said.push_str(" dot "),
            '-' => said.push_str(" dash "),
            '_' => said.push_str(" underscore "),
            '+' => said.push_str(" plus "),
            c if c.is_ascii_digit() => {
                said.push(' ');
                said.push_str(&super::numbers::spelled(&c.to_string()));
                said.push(' ');
            }
            c => said.push(c),
        }
    }
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Abbreviations, titles, numerals and short forms.
pub(super) fn short_form(at: Cursor<'_>) -> Option<Found> {
    if at.glued() {
        return None;
    }
    title(at).or_else(|| abbreviation(at)).or_else(|| number_sign(at)).or_else(|| roman(at)).or_else(|| {
        let (written, said) = SHORT_FORMS.iter().find(|(written, _)| is_word(at.rest, written))?;
        let time = matches!(*written, "AM" | "PM") && !super::numbers_end_with(&at.word_before());
        let inside = at.skip(written.len()).first().is_some_and(|c| matches!(c, '\'' | '’' | '-'));
        if time || inside { None } else { Found::new(written.len(), *said) }
    })
}

fn title(at: Cursor<'_>) -> Option<Found> {
    let (written, said) = TITLES.iter().find(|(written, _)| is_word(at.rest, written))?;
    let dot = usize::from(at.rest.get(written.len()) == Some(&'.'));
    let after = at.skip(written.len() + dot);
    let spaces = count(after, |c| c == ' ');
    let name = after.get(spaces).is_some_and(|c| c.is_uppercase()) && spaces > 0;
    // Without the full stop only "Mr Smith" and "Dr Smith" are sure; "Gen Z" and "Col" are not.
    let sure = dot == 1 || matches!(*written, "Mr" | "Mrs" | "Ms" | "Dr" | "Prof");
    // "Main St. Turn left": a street, whose name stands before.
    let street = matches!(*written, "St" | "Dr")
        && at.word_before().chars().next().is_some_and(char::is_uppercase)
        && !at.before_is_stop();
    let always = dot == 1 && matches!(*written, "Mr" | "Mrs" | "Ms");
    if always || (name && sure && !street) { Found::new(written.len() + dot, *said) } else { None }
}

fn abbreviation(at: Cursor<'_>) -> Option<Found> {
    let (written, said) = ABBREVIATIONS.iter().find(|(written, _)| {
        starts_with(at.rest, written) && !at.skip(written.len()).first().is_some_and(|c| c.is_alphanumeric())
    })?;
    // Ordinary words at the end of a sentence ("He sat on the ed." is rare, "al." and "max." are not words).
    let after = at.skip(written.len());
    let next = after.iter().find(|c| !c.is_whitespace());
    let ends = match next {
        None => true,
        Some(c) => *written == "etc." && c.is_uppercase() && after[0].is_whitespace(),
    };
    let stop = if ends && written.ends_with('.') && !said.ends_with('.') { "." } else { "" };
    Found::new(written.len(), format!("{said}{stop}"))
}

/// "No. 5", "p. 12".
fn number_sign(at: Cursor<'_>) -> Option<Found> {
    let forms = [("No.", "Number"), ("no.", "number"), ("Nos.", "Numbers"), ("p.", "page"), ("Ch.", "Chapter")];
    let (written, said) = forms.into_iter().find(|(written, _)| starts_with(at.rest, written))?;
    let after = at.skip(written.len());
    let digit = after.iter().find(|c| **c != ' ').is_some_and(char::is_ascii_digit);
    if digit { Found::new(written.len(), said) } else { None }
}

/// "Chapter IV", "Henry VIII".
fn roman(at: Cursor<'_>) -> Option<Found> {
    let len = count(at.rest, |c| "IVXLC".contains(c));
    if len == 0
        || at.skip(len).first().is_some_and(|c| c.is_alphanumeric() || matches!(c, '\'' | '’' | '.') && len == 1)
    {
        return None;
    }
    let n = roman_value(&at.rest[..len])?;
    let before = at.word_before();
    if ROMAN_CARDINAL.contains(&before.as_str()) {
        return Found::new(len, small(n));
    }
    if ROMAN_ORDINAL.contains(&before.as_str()) && at.rest[..len] != ['C'] {
        return Found::new(len, format!("the {}", ordinal(&n.to_string())));
    }
    None
}

fn roman_value(letters: &[char]) -> Option<u32> {
    let one = |c: char| match c {
        'I' => 1,
        'V' => 5,
        'X' => 10,
        'L' => 50,
        _ => 100,
    };
    let mut total = 0i32;
    for (i, &c) in letters.iter().enumerate() {
        let smaller = letters.get(i + 1).is_some_and(|&next| one(next) > one(c));
        total += if smaller { -one(c) } else { one(c) };
    }
    // Only the usual spelling counts, so that "IC" or "CIC" stay letters.
    let n = u32::try_from(total).ok().filter(|n| (1..400).contains(n))?;
    let units = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"];
    let tens = ["", "X", "XX", "XXX", "XL", "L", "LX", "LXX", "LXXX", "XC"];
    let usual = format!("{}{}{}", "C".repeat(n as usize / 100), tens[n as usize / 10 % 10], units[n as usize % 10]);
    (usual == text(letters)).then_some(n)
}

/// A word as it is, in letters that can be spoken: letters, apostrophes inside, dotted initials.
pub(super) fn word(at: Cursor<'_>) -> Option<Found> {
    let mut len = 0;
    let mut said = String::new();
    while let Some(&c) = at.rest.get(len) {
        let next_is_letter = at.rest.get(len + 1).is_some_and(|c| c.is_alphabetic());
        if let Some(name) = greek(c) {
            // One letter is its name; a Greek word is said letter by letter, for want of anything better.
            if !said.is_empty() && !said.ends_with(' ') {
                said.push(' ');
            }
            said.push_str(name);
            said.push_str(if next_is_letter { " " } else { "" });
        } else if let Some(latin) = cyrillic(c) {
            said.push_str(latin);
        } else if is_latin(c) {
            said.push(c);
        } else if matches!(c, '\'' | '’' | '‘') && !said.is_empty() && next_is_letter {
            said.push('\'');
        } else if c == '.' && is_initial(at.rest, len) {
            said.push('.');
        } else if !c.is_alphabetic() {
            break;
        }
        len += 1;
    }
    if len == 0 { None } else { Found::new(len, said.trim_end()) }
}

/// Whether the full stop at `at` belongs to initials such as "U.S." or "J."
fn is_initial(rest: &[char], at: usize) -> bool {
    let letter = |i: usize| rest.get(i).is_some_and(|c| c.is_alphabetic());
    let alone = at >= 1 && rest[at - 1].is_uppercase() && (at == 1 || rest[at - 2] == '.');
    let more = letter(at + 1) && !letter(at + 2);
    let dotted_before = at >= 2 && rest[at - 2] == '.';
    // "J. Smith": an initial before a name, but "Plan B. Then" and "vitamin C." end sentences; one letter at the
    // beginning of a word is an initial only if another initial or name follows, which the dictionaries cannot
    // know. It is kept when more letters follow it directly.
    alone && (more || dotted_before)
}

/// Letters that the reading rules know.
pub(super) fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ɏ' | 'Ḁ'..='ỿ')
}
