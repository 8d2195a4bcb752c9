//! Dates and times of day.

use super::cursor::{Cursor, Found, count, digits, is_word, starts_with, text, value};
use super::numbers::{cardinal, ordinal, small, year};
use super::tables::MONTHS;

/// "2024-12-25" and "12/25/2024".
pub(super) fn numeric_date(at: Cursor<'_>) -> Option<Found> {
    let rest = at.rest;
    let first = digits(rest);
    let mark = *rest.get(first)?;
    let second = digits(at.skip(first + 1));
    let third_at = first + second + 2;
    let third = digits(at.skip(third_at));
    let whole = first > 0 && second > 0 && third > 0 && rest.get(first + second + 1) == Some(&mark);
    if !whole || at.skip(third_at + third).first().is_some_and(|c| c.is_alphanumeric() && *c != 'T') {
        return None;
    }
    let parts = [&rest[..first], &rest[first + 1..first + 1 + second], &rest[third_at..third_at + third]];
    let (y, month, day) = match (mark, first, third) {
        ('-', 4, 1..=2) => (text(parts[0]), value(parts[1]), value(parts[2])),
        ('/' | '.', 1..=2, 2 | 4) => {
            let (a, b) = (value(parts[0]), value(parts[1]));
            // Day first where it can be nothing else, and with full stops, which America does not use.
            let (month, day) = if mark == '.' || a > 12 { (b, a) } else { (a, b) };
            let century = if third == 4 {
                ""
            } else if value(parts[2]) > 40 {
                "19"
            } else {
                "20"
            };
            (format!("{century}{}", text(parts[2])), month, day)
        }
        _ => return None,
    };
    let name = MONTHS.get((month as usize).checked_sub(1)?)?.0;
    if !(1..=31).contains(&day) {
        return None;
    }
    Found::new(third_at + third, format!("{name} {}, {}", ordinal(&day.to_string()), year(&y)))
}

/// "March 5", "Jan. 5th, 2024", "Sept 3".
pub(super) fn month_first(at: Cursor<'_>) -> Option<Found> {
    let (name, mut len) = month(at.rest)?;
    if at.rest.get(len) == Some(&'.') {
        len += 1;
    }
    let spaces = count(at.skip(len), |c| c == ' ');
    let (day, day_len) = day(at.skip(len + spaces))?;
    let end = len + spaces + day_len;
    // "May 5:30" is a time and "May 50%" no day.
    if spaces == 0 || at.skip(end).first().is_some_and(|c| c.is_alphanumeric() || matches!(c, ':' | '%' | '/')) {
        return None;
    }
    let (year, year_len) = year_after(at.skip(end));
    Found::new(end + year_len, format!("{name} {day}{year}"))
}

/// "5 March 2024", "the 3rd of May".
pub(super) fn day_first(at: Cursor<'_>) -> Option<Found> {
    let (day, day_len) = day(at.rest)?;
    let mut end = day_len + count(at.skip(day_len), |c| c == ' ');
    if end == day_len {
        return None;
    }
    if starts_with(at.skip(end), "of ") {
        end += 3;
    }
    let (name, len) = month(at.skip(end))?;
    end += len;
    let (year, year_len) = year_after(at.skip(end));
    let the = if at.word_before().eq_ignore_ascii_case("the") { "" } else { "the " };
    Found::new(end + year_len, format!("{the}{day} of {name}{year}"))
}

/// "3:30", "3:30pm", "15:45:10".
pub(super) fn clock(at: Cursor<'_>) -> Option<Found> {
    let hours = digits(at.rest);
    if !(1..=2).contains(&hours) || at.rest.get(hours) != Some(&':') || digits(at.skip(hours + 1)) != 2 {
        return None;
    }
    let (hour, minute) = (value(&at.rest[..hours]), value(&at.rest[hours + 1..hours + 3]));
    let mut end = hours + 3;
    let mut seconds = None;
    if at.rest.get(end) == Some(&':') && digits(at.skip(end + 1)) == 2 {
        seconds = Some(value(&at.rest[end + 1..end + 3]));
        end += 3;
    }
    if hour > 24 || minute > 59 || seconds.is_some_and(|s| s > 59) {
        return None;
    }
    let half = half_of_day(at.skip(end));
    let mut said = small(hour);
    match minute {
        0 if half.is_some() || seconds.is_some() => {}
        0 if hour > 12 || hour == 0 => said += " hundred",
        0 => said += " o'clock",
        1..10 => said += &format!(" oh {}", small(minute)),
        _ => said += &format!(" {}", small(minute)),
    }
    if let Some(s) = seconds {
        said += &format!(" and {} second{}", small(s), if s == 1 { "" } else { "s" });
    }
    if let Some((word, len)) = half {
        said += &format!(" {word}");
        end += len;
    }
    Found::new(end, said)
}

/// "7 pm", "11a.m.".
pub(super) fn hour(at: Cursor<'_>) -> Option<Found> {
    let len = digits(at.rest);
    if !(1..=2).contains(&len) || !(1..=12).contains(&value(&at.rest[..len])) {
        return None;
    }
    let (word, half) = half_of_day(at.skip(len))?;
    Found::new(len + half, format!("{} {word}", cardinal(&text(&at.rest[..len]))))
}

fn half_of_day(rest: &[char]) -> Option<(&'static str, usize)> {
    let spaces = count(rest, |c| c == ' ').min(1);
    let rest = &rest[spaces..];
    [
        ("am", "A.M."),
        ("pm", "P.M."),
        ("AM", "A.M."),
        ("PM", "P.M."),
        ("a.m.", "A.M."),
        ("p.m.", "P.M."),
        ("A.M.", "A.M."),
        ("P.M.", "P.M."),
    ]
    .into_iter()
    .find(|(written, _)| if written.ends_with('.') { starts_with(rest, written) } else { is_word(rest, written) })
    .map(|(written, said)| (said, spaces + written.len()))
}

/// A month's name and how long it is written, without the full stop of a short form.
fn month(rest: &[char]) -> Option<(&'static str, usize)> {
    if is_word(rest, "Sept") {
        return Some(("September", 4));
    }
    MONTHS.iter().find_map(|(name, short)| {
        let written = [name, short].into_iter().find(|w| is_word(rest, w))?;
        Some((*name, written.len()))
    })
}

/// A day of a month as an ordinal, and how long it is written.
fn day(rest: &[char]) -> Option<(String, usize)> {
    let len = digits(rest);
    if !(1..=2).contains(&len) || !(1..=31).contains(&value(&rest[..len])) {
        return None;
    }
    let suffix = ["st", "nd", "rd", "th"].into_iter().any(|s| is_word(&rest[len..], s));
    Some((ordinal(&text(&rest[..len])), len + if suffix { 2 } else { 0 }))
}

/// ", 2024" or " 2024" with how long it is written.
fn year_after(rest: &[char]) -> (String, usize) {
    let lead = usize::from(rest.first() == Some(&','));
    let spaces = count(&rest[lead..], |c| c == ' ');
    let at = lead + spaces;
    let is_year = spaces > 0
        && digits(&rest[at..]) == 4
        && !rest.get(at + 4).is_some_and(|c| c.is_alphanumeric() || matches!(c, '%' | ':'))
        && !(rest.get(at + 4) == Some(&',') && digits(&rest[at + 5..]) == 3);
    if is_year { (format!(", {}", year(&text(&rest[at..at + 4]))), at + 4) } else { (String::new(), 0) }
}
