//! What begins with a number: amounts of money, measures, ranges, fractions, telephone numbers.

use super::cursor::{Cursor, Found, count, digits, is_word, starts_with, text, value};
use super::numbers::{cardinal, decimal, ordinal, plural, small, spelled, year};
use super::tables::{CURRENCIES, Currency, PER, SCALES, UNITS};

/// A number as it is written.
struct Number {
    len: usize,
    whole: String,
    fraction: String,
    grouped: bool,
}

impl Number {
    fn read(rest: &[char]) -> Option<Self> {
        let first = digits(rest);
        if first == 0 && !(rest.first() == Some(&'.') && digits(&rest[1..]) > 0) {
            return None;
        }
        let mut len = first;
        let mut whole = text(&rest[..first]);
        let group = |at: usize| rest.get(at) == Some(&',') && digits(&rest[at + 1..]) == 3;
        while first <= 3 && group(len) {
            whole += &text(&rest[len + 1..len + 4]);
            len += 4;
        }
        let mut fraction = String::new();
        if rest.get(len) == Some(&'.') {
            let places = digits(&rest[len + 1..]);
            fraction = text(&rest[len + 1..len + 1 + places]);
            len += if places > 0 { 1 + places } else { 0 };
        }
        Some(Self { len, whole, fraction, grouped: len > first && first > 0 && rest[first] == ',' })
    }

    fn is_one(&self) -> bool {
        self.whole == "1" && self.fraction.is_empty()
    }

    /// As a quantity.
    fn amount(&self) -> String {
        if self.fraction.is_empty() { cardinal(&self.whole) } else { decimal(&self.whole, &self.fraction) }
    }

    /// With nothing that says what it counts: perhaps a year or a code.
    fn bare(&self) -> String {
        let n = self.whole.parse::<u64>().unwrap_or(u64::MAX);
        let code = self.whole.len() > 9 && !self.whole.ends_with("000000");
        match () {
            () if !self.fraction.is_empty() || self.grouped => self.amount(),
            () if (1100..2100).contains(&n) && self.whole.len() == 4 => year(&self.whole),
            () if code || (self.whole.len() > 1 && self.whole.starts_with('0')) => spelled(&self.whole),
            () => self.amount(),
        }
    }
}

/// What begins with a digit, a sign before one, or a currency before one. A number inside a word ("MP3") is read
/// alone.
pub(super) fn quantity(at: Cursor<'_>) -> Option<Found> {
    if at.glued() {
        let len = digits(at.rest);
        return if len == 0 { None } else { Found::new(len, digits_in_word(&text(&at.rest[..len]))) };
    }
    let c = *at.rest.first()?;
    let then = |word: &str| {
        let found = quantity(Cursor { before: &[], rest: at.skip(1) })?;
        Found::new(1 + found.len, format!("{word} {}", found.said))
    };
    match c {
        '-' | '−' | '–' if at.before.last().is_none_or(|c| " (=[\"*×÷+".contains(*c)) => then("minus"),
        '+' if at.last_said().is_none_or(|c| !c.is_alphanumeric() && c != ')') => {
            telephone(at).or_else(|| then("plus"))
        }
        '~' | '≈' if !at.last_said().is_some_and(|c| c.is_ascii_digit()) => then("about"),
        '#' | '№' if at.skip(1).first().is_some_and(char::is_ascii_digit) => then("number"),
        '(' => telephone(at),
        '\'' | '’' if digits(at.skip(1)) == 2 && is_word(at.skip(3), "s") => decade(at),
        _ => telephone(at)
            .or_else(|| dotted(at))
            .or_else(|| fraction(at))
            .or_else(|| place(at))
            .or_else(|| decade(at))
            .or_else(|| amount(at)),
    }
}

/// "4" of "GPT4", "007".
fn digits_in_word(digits: &str) -> String {
    if digits.len() > 2 && digits.len() != 4 || digits.starts_with('0') { spelled(digits) } else { pairs(digits) }
}

fn pairs(digits: &str) -> String {
    if digits.len() == 4 { year(digits) } else { cardinal(digits) }
}

/// "555-1234", "(555) 123-4567", "+1 555 123 4567".
fn telephone(at: Cursor<'_>) -> Option<Found> {
    let mut groups: Vec<String> = Vec::new();
    let mut len = usize::from(at.rest.first() == Some(&'+'));
    let international = len == 1;
    loop {
        let open = usize::from(at.rest.get(len) == Some(&'('));
        let group = digits(at.skip(len + open));
        if !(1..=4).contains(&group) {
            break;
        }
        let end = len + open + group;
        if open == 1 && at.rest.get(end) != Some(&')') {
            return None;
        }
        groups.push(text(&at.rest[len + open..end]));
        len = end + open;
        let next = at.skip(len);
        let gap = count(next, |c| matches!(c, ' ' | '-')).min(1);
        let more = next.get(gap).is_some_and(|c| c.is_ascii_digit() || *c == '(');
        if gap + open == 0 || !more {
            break;
        }
        len += gap;
    }
    let lens: Vec<usize> = groups.iter().map(String::len).collect();
    let local = matches!(lens[..], [3, 4] | [3, 3, 4] | [1, 3, 3, 4]) && at.rest[..len].contains(&'-');
    let abroad = international && lens.iter().sum::<usize>() >= 7 && lens.len() > 1;
    if !(local || abroad) || at.skip(len).first().is_some_and(|c| c.is_alphanumeric()) {
        return None;
    }
    let said: Vec<String> = groups.iter().map(|g| spelled(g)).collect();
    Found::new(len, format!("{}{}", if international { "plus " } else { "" }, said.join(", ")))
}

/// Versions and addresses: "1.2.3".
fn dotted(at: Cursor<'_>) -> Option<Found> {
    let mut len = digits(at.rest);
    let mut said = cardinal(&text(&at.rest[..len]));
    let mut dots = 0;
    while len > 0 && at.rest.get(len) == Some(&'.') {
        let part = digits(at.skip(len + 1));
        if part == 0 {
            break;
        }
        said += &format!(" point {}", cardinal(&text(&at.rest[len + 1..len + 1 + part])));
        len += 1 + part;
        dots += 1;
    }
    if dots > 1 { Found::new(len, said) } else { None }
}

/// "1/2", "2 1/2", "24/7", "9/11".
fn fraction(at: Cursor<'_>) -> Option<Found> {
    let a = digits(at.rest);
    let whole = count(at.skip(a), |c| c == ' ') == 1 && digits(at.skip(a + 1)) > 0;
    if whole && (1..=3).contains(&a) {
        let rest = Cursor { before: &[], rest: at.skip(a + 1) };
        let part = simple_fraction(rest).filter(|f| !f.said.contains("over"))?;
        let part_said = part.said.replacen("one ", "a ", 1);
        return Found::new(a + 1 + part.len, format!("{} and {part_said}", cardinal(&text(&at.rest[..a]))));
    }
    simple_fraction(at)
}

fn simple_fraction(at: Cursor<'_>) -> Option<Found> {
    let a = digits(at.rest);
    if a == 0 || at.rest.get(a) != Some(&'/') {
        return None;
    }
    let b = digits(at.skip(a + 1));
    let len = a + 1 + b;
    if b == 0 || at.skip(len).first().is_some_and(|c| c.is_alphanumeric() || *c == '/') {
        return None;
    }
    let (n, d) = (text(&at.rest[..a]), text(&at.rest[a + 1..len]));
    let (top, bottom) = (value(&at.rest[..a]), value(&at.rest[a + 1..len]));
    let many = if top == 1 { "" } else { "s" };
    let said = match (top, bottom) {
        (24, 7) => "twenty four seven".into(),
        (9, 11) => "nine eleven".into(),
        (1, 2) => "one half".into(),
        (_, 2) if top < 2 => format!("{} halves", cardinal(&n)),
        (_, 4) if top < 4 => format!("{} quarter{many}", cardinal(&n)),
        (_, 3..=20 | 100 | 1000) if top < bottom && top > 0 => format!("{} {}{many}", cardinal(&n), ordinal(&d)),
        _ if is_result(at.skip(len)) => format!("{} divided by {}", cardinal(&n), cardinal(&d)),
        _ => format!("{} over {}", cardinal(&n), cardinal(&d)),
    };
    Found::new(len, said)
}

/// Whether "=" comes next.
fn is_result(rest: &[char]) -> bool {
    rest.iter().find(|c| !c.is_whitespace()) == Some(&'=')
}

/// "1st", "22nd".
fn place(at: Cursor<'_>) -> Option<Found> {
    let number = Number::read(at.rest)?;
    let suffix = ["st", "nd", "rd", "th", "ST", "ND", "RD", "TH"].iter().any(|s| is_word(at.skip(number.len), s));
    if suffix && number.fraction.is_empty() { Found::new(number.len + 2, ordinal(&number.whole)) } else { None }
}

/// "1990s", "the '90s", "20s".
fn decade(at: Cursor<'_>) -> Option<Found> {
    let short = usize::from(matches!(at.rest.first(), Some('\'' | '’')));
    let len = digits(at.skip(short));
    let tail = at.skip(short + len);
    let end = match tail {
        ['s', ..] => 1,
        ['\'' | '’', 's', ..] => 2,
        _ => return None,
    };
    let written = text(&at.rest[short..short + len]);
    if !written.ends_with('0') || tail.get(end).is_some_and(|c| c.is_alphanumeric()) || !(2..=4).contains(&len) {
        return None;
    }
    let said = match written.as_str() {
        "00" => "two thousands".into(),
        _ if len == 4 => plural(&year(&written)),
        _ => plural(&cardinal(&written)),
    };
    Found::new(short + len + end, said)
}

/// A number with what it counts, or a range of them.
fn amount(at: Cursor<'_>) -> Option<Found> {
    let (prefix, start) = currency_before(at.rest);
    let number = Number::read(at.skip(start))?;
    let mut end = start + number.len;
    let upper = range_end(at.skip(end), prefix);
    if let Some((len, _)) = &upper {
        end += len;
    }
    let last = upper.as_ref().map_or(&number, |(_, n)| n);
    let (scale, len) = scale(at.skip(end), prefix.is_some());
    end += len;
    let (suffix, len) = if prefix.is_some() { (None, 0) } else { currency_after(at.skip(end)) };
    end += len;
    let money = prefix.or(suffix);
    let said = match (money, scale) {
        (Some(currency), None) if upper.is_none() => coins(&number, currency),
        (money, scale) => {
            let unit = if money.is_none() { unit(at.skip(end), last.is_one() && scale.is_none()) } else { None };
            let counted = money.is_some() || scale.is_some() || unit.is_some() || is_arithmetic(at, end);
            let say = |n: &Number| if counted { n.amount() } else { n.bare() };
            let mut said = say(&number);
            if let Some((_, upper)) = &upper {
                said += &format!(" to {}", say(upper));
            }
            for word in [scale, money.map(|m| m.2)].into_iter().flatten() {
                said += &format!(" {word}");
            }
            if let Some((name, len)) = unit {
                said += &format!(" {name}");
                end += len;
            }
            said
        }
    };
    let said = match per(at.skip(end)) {
        Some((name, len)) => {
            end += len;
            format!("{said} per {name}")
        }
        None => said,
    };
    match times(at.skip(end)) {
        Some((word, len)) => Found::new(end + len, format!("{said} {word}")),
        None => Found::new(end, said),
    }
}

/// Whether an operator stands at either side, so that 1800 is a result and no year.
fn is_arithmetic(at: Cursor<'_>, end: usize) -> bool {
    let operator = |c: char| "+=×*÷/^√<>≤≥≈".contains(c);
    at.last_said().is_some_and(operator)
        || at.skip(end).iter().find(|c| !c.is_whitespace()).is_some_and(|c| operator(*c))
}

fn currency_before(rest: &[char]) -> (Option<&'static Currency>, usize) {
    let found = CURRENCIES.iter().find_map(|currency| {
        let len = currency.0.chars().count();
        // A code may be set off by a space.
        let gap = usize::from(currency.0.is_ascii() && !currency.0.ends_with('$') && rest.get(len) == Some(&' '));
        let number = rest.get(len + gap..).is_some_and(|r| Number::read(r).is_some());
        (starts_with(rest, currency.0) && number).then_some((currency, len + gap))
    });
    found.map_or((None, 0), |(currency, len)| (Some(currency), len))
}

fn currency_after(rest: &[char]) -> (Option<&'static Currency>, usize) {
    let gap = count(rest, |c| c == ' ').min(1);
    let found = CURRENCIES.iter().find(|c| is_word(&rest[gap..], c.0) && (c.0 != "$" || gap == 0));
    found.map_or((None, 0), |currency| (Some(currency), gap + currency.0.chars().count()))
}

/// "-10" of "5-10", if the second number is a plausible end of a range.
fn range_end(rest: &[char], prefix: Option<&Currency>) -> Option<(usize, Number)> {
    let before = count(rest, |c| c == ' ').min(1);
    let dash = *rest.get(before)?;
    if !matches!(dash, '-' | '–' | '—') {
        return None;
    }
    let after = count(&rest[before + 1..], |c| c == ' ').min(1);
    // "5 - 3" with a hyphen is a subtraction; an en dash with spaces is a range.
    if before != after || (before == 1 && dash != '–') {
        return None;
    }
    let at = before + 1 + after;
    let repeated = prefix.filter(|c| starts_with(&rest[at..], c.0)).map_or(0, |c| c.0.chars().count());
    let number = Number::read(&rest[at + repeated..]).filter(|n| n.whole.len() < 10)?;
    let end = at + repeated + number.len;
    let plain = !rest.get(end).is_some_and(|c| *c == '-' && digits(&rest[end + 1..]) > 0);
    (plain && !is_result(&rest[end..])).then_some((end, number))
}

fn scale(rest: &[char], money: bool) -> (Option<&'static str>, usize) {
    let gap = count(rest, |c| c == ' ').min(1);
    for (written, said) in SCALES {
        let letter = written.len() == 1;
        let allowed = !letter || (gap == 0 && (money || matches!(*written, "k" | "M" | "B")));
        let found = is_word(&rest[gap..], written) || (letter && gap == 0 && starts_with(rest, &format!("{written}+")));
        if allowed && found {
            return (Some(said), gap + written.len());
        }
    }
    (None, 0)
}

fn coins(number: &Number, currency: &Currency) -> String {
    let (_, one, many, coin, coins) = *currency;
    let cents: u32 = number.fraction.parse().unwrap_or(0);
    let unit = if number.is_one() || (number.whole == "1" && cents == 0) { one } else { many };
    if coin.is_empty() || number.fraction.len() != 2 {
        return format!("{} {unit}", number.amount());
    }
    let small_part = format!("{} {}", small(cents), if cents == 1 { coin } else { coins });
    match (number.whole.trim_start_matches('0').is_empty(), cents) {
        (true, 1..) => small_part,
        (_, 0) => format!("{} {unit}", cardinal(&number.whole)),
        _ => format!("{} {} and {small_part}", cardinal(&number.whole), if number.whole == "1" { one } else { many }),
    }
}

/// A unit after a number, its power, and what it is divided by.
fn unit(rest: &[char], singular: bool) -> Option<(String, usize)> {
    let gap = count(rest, |c| c == ' ').min(1);
    let (name, mut len) = unit_name(&rest[gap..], singular, gap == 0)?;
    len += gap;
    let mut said = name;
    if rest.get(len) == Some(&'/')
        && let Some((below, below_len)) = unit_name(&rest[len + 1..], true, true)
    {
        said += &format!(" per {below}");
        len += 1 + below_len;
    }
    Some((said, len))
}

fn unit_name(rest: &[char], singular: bool, attached: bool) -> Option<(String, usize)> {
    UNITS.iter().find_map(|&(written, one, many)| {
        let len = written.chars().count();
        let end = rest.get(len);
        let (power, power_len) = match end {
            Some('²') => ("square ", 1),
            Some('³') => ("cubic ", 1),
            Some('^') if rest.get(len + 1) == Some(&'2') => ("square ", 2),
            Some('^') if rest.get(len + 1) == Some(&'3') => ("cubic ", 2),
            _ => ("", 0),
        };
        // "5 A. Smith" and "5 N Main Street" are no measures.
        let letter_alone = len == 1 && matches!(written, "N" | "J" | "K" | "h" | "s") && !attached;
        let whole = starts_with(rest, written)
            && (power_len > 0 || !end.is_some_and(|c| c.is_alphanumeric() || *c == '\''))
            && !letter_alone;
        whole.then(|| (format!("{power}{}", if singular { one } else { many }), len + power_len))
    })
}

fn per(rest: &[char]) -> Option<(&'static str, usize)> {
    const SHORT: &[(&str, &str)] = &[
        ("hr", "hour"),
        ("h", "hour"),
        ("mo", "month"),
        ("yr", "year"),
        ("lb", "pound"),
        ("kg", "kilogram"),
        ("min", "minute"),
        ("L", "liter"),
    ];
    if rest.first() != Some(&'/') {
        return None;
    }
    let after = &rest[1..];
    let word = PER.iter().find(|w| is_word(after, w)).map(|w| (*w, 1 + w.len()));
    word.or_else(|| SHORT.iter().find(|(s, _)| is_word(after, s)).map(|(s, name)| (*name, 1 + s.len())))
}

/// "x" between numbers, or after one as in "2x faster"; powers.
pub(super) fn times(rest: &[char]) -> Option<(String, usize)> {
    let gap = count(rest, |c| c == ' ').min(1);
    let superscript = count(rest, |c| "⁰¹²³⁴⁵⁶⁷⁸⁹⁻".contains(c));
    if superscript > 0 {
        let digits: String = rest[..superscript]
            .iter()
            .filter_map(|c| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().position(|d| d == *c))
            .map(|d| d.to_string())
            .collect();
        return Some((power(&digits, rest[0] == '⁻'), superscript));
    }
    match rest {
        ['^', tail @ ..] => {
            let (open, tail) =
                if tail.first().is_some_and(|c| matches!(c, '{' | '(' | ' ')) { (1, &tail[1..]) } else { (0, tail) };
            let minus = usize::from(matches!(tail.first(), Some('-' | '−')));
            let len = digits(&tail[minus..]);
            let closed = usize::from(open == 1 && tail.get(minus + len).is_some_and(|c| matches!(c, '}' | ')')));
            (len > 0).then(|| (power(&text(&tail[minus..minus + len]), minus == 1), 1 + open + minus + len + closed))
        }
        ['x' | '×', ' ', next, ..] if next.is_alphabetic() => Some(("times".into(), 1)),
        _ if gap == 0 && rest.len() > 1 && matches!(rest[0], 'x' | '×') && rest[1].is_ascii_digit() => {
            Some(("by".into(), 1))
        }
        _ if gap == 1 && starts_with(rest, " x ") && rest.get(3).is_some_and(char::is_ascii_digit) => {
            Some(("times".into(), 2))
        }
        _ => None,
    }
}

fn power(digits: &str, minus: bool) -> String {
    match digits {
        "2" if !minus => "squared".into(),
        "3" if !minus => "cubed".into(),
        _ => format!("to the power of {}{}", if minus { "minus " } else { "" }, cardinal(digits)),
    }
}
