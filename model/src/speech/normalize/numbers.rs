//! Numbers as English words, the American way (no "and" after hundreds).

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const SCALES: [&str; 8] =
    ["", "thousand", "million", "billion", "trillion", "quadrillion", "quintillion", "sextillion"];

/// Longest whole number that is read as one; a longer one is read digit by digit.
const MAX_DIGITS: usize = 3 * SCALES.len();

/// A whole number: "one thousand two hundred thirty four".
pub(super) fn cardinal(digits: &str) -> String {
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return ONES[0].into();
    }
    if significant.len() > MAX_DIGITS {
        return spelled(digits);
    }
    let mut words: Vec<&str> = Vec::new();
    let groups = significant.len().div_ceil(3);
    for group in (0..groups).rev() {
        let end = significant.len() - 3 * group;
        let n: usize = significant[end.saturating_sub(3)..end].parse().unwrap_or(0);
        if n == 0 {
            continue;
        }
        hundreds(n, &mut words);
        if group > 0 {
            words.push(SCALES[group]);
        }
    }
    words.join(" ")
}

/// A small whole number.
pub(super) fn small(n: u32) -> String {
    cardinal(&n.to_string())
}

fn hundreds(n: usize, words: &mut Vec<&'static str>) {
    if n >= 100 {
        words.extend([ONES[n / 100], "hundred"]);
    }
    match n % 100 {
        0 => {}
        n if n < 20 => words.push(ONES[n]),
        n => {
            words.push(TENS[n / 10]);
            if !n.is_multiple_of(10) {
                words.push(ONES[n % 10]);
            }
        }
    }
}

/// A place in an order: "twenty third".
pub(super) fn ordinal(digits: &str) -> String {
    let cardinal = cardinal(digits);
    let (head, last) = cardinal.rsplit_once(' ').map_or(("", cardinal.as_str()), |(h, l)| (h, l));
    let last = match last {
        "one" => "first".into(),
        "two" => "second".into(),
        "three" => "third".into(),
        "five" => "fifth".into(),
        "eight" => "eighth".into(),
        "nine" => "ninth".into(),
        "twelve" => "twelfth".into(),
        _ => match last.strip_suffix('y') {
            Some(stem) => format!("{stem}ieth"),
            None => format!("{last}th"),
        },
    };
    if head.is_empty() { last } else { format!("{head} {last}") }
}

/// A year of four digits: "nineteen oh five", "two thousand five", "twenty twenty four".
pub(super) fn year(digits: &str) -> String {
    let n: u32 = digits.parse().unwrap_or(0);
    let (high, low) = (n / 100, n % 100);
    match low {
        _ if digits.len() != 4 || high < 10 || (high % 10 == 0 && low < 10) => cardinal(digits),
        0 => format!("{} hundred", small(high)),
        1..10 => format!("{} oh {}", small(high), small(low)),
        _ => format!("{} {}", small(high), small(low)),
    }
}

/// Several of a number: "nineties", "twenties", "hundreds".
pub(super) fn plural(words: &str) -> String {
    match words.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if words.ends_with('x') => format!("{words}es"),
        None => format!("{words}s"),
    }
}

/// Digit by digit.
pub(super) fn spelled(digits: &str) -> String {
    let word = |c: char| c.to_digit(10).map(|d| ONES[d as usize]);
    digits.chars().filter_map(word).collect::<Vec<_>>().join(" ")
}

/// A number with a fraction: "three point one four".
pub(super) fn decimal(whole: &str, fraction: &str) -> String {
    let whole = if whole.is_empty() { "zero".into() } else { cardinal(whole) };
    if fraction.is_empty() { whole } else { format!("{whole} point {}", spelled(fraction)) }
}
