//! Word error rate, with the spelling of numbers and abbreviations evened out.

/// Words of `heard` that differ from `said` (substituted, inserted or left out), and the words that were said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// The least number of edits.
    pub edits: usize,
    /// Words of the truth.
    pub words: usize,
}

impl Errors {
    /// Edits per word.
    pub fn rate(self) -> f64 {
        self.edits as f64 / self.words.max(1) as f64
    }
}

impl std::ops::AddAssign for Errors {
    fn add_assign(&mut self, other: Self) {
        self.edits += other.edits;
        self.words += other.words;
    }
}

/// Compares a transcript with the truth.
pub fn word_errors(said: &str, heard: &str) -> Errors {
    let (said, heard) = (normalise(said), normalise(heard));
    // distance[j]: edits between the words of `said` so far and the first j of `heard`.
    let mut distance: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in said.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut distance[0], i + 1);
        for (j, other) in heard.iter().enumerate() {
            let replaced = diagonal + usize::from(word != other);
            diagonal = distance[j + 1];
            distance[j + 1] = replaced.min(diagonal + 1).min(distance[j] + 1);
        }
    }
    Errors { edits: distance[heard.len()], words: said.len() }
}

/// Words in small letters without punctuation; numbers spelled out, some abbreviations too.
pub fn normalise(text: &str) -> Vec<String> {
    // "don't" is one word however its apostrophe is written, "1,000" one number.
    let mut plain = String::new();
    let letters: Vec<char> = text.to_lowercase().chars().collect();
    for (i, &letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| letters.get(i)).is_some_and(|c| c.is_ascii_digit());
        let in_number = before && letters.get(i + 1).is_some_and(|c| c.is_ascii_digit());
        match letter {
            '\'' | '’' => {}
            ',' if in_number => {}
            '.' if in_number => plain.push_str(" point "),
            '%' => plain.push_str(" percent "),
            '&' => plain.push_str(" and "),
            _ if letter.is_alphanumeric() => plain.push(letter),
            _ => plain.push(' '),
        }
    }
    let mut words = Vec::new();
    for word in plain.split_whitespace() {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        match (word[..digits].parse::<u64>(), &word[digits..]) {
            (Ok(number), "") => spell(number, &mut words),
            (Ok(number), "st" | "nd" | "rd" | "th") => {
                spell(number, &mut words);
                if let Some(last) = words.last_mut() {
                    *last = ordinal(last);
                }
            }
            _ => words.push(
                match word {
                    "mr" => "mister",
                    "mrs" => "missus",
                    "dr" => "doctor",
                    "ok" => "okay",
                    other => other,
                }
                .to_owned(),
            ),
        }
    }
    words
}

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
const GROUPS: [(u64, &str); 5] = [
    (1_000_000_000_000, "trillion"),
    (1_000_000_000, "billion"),
    (1_000_000, "million"),
    (1000, "thousand"),
    (100, "hundred"),
];

fn spell(number: u64, words: &mut Vec<String>) {
    for (size, name) in GROUPS {
        if number >= size {
            spell(number / size, words);
            words.push(name.to_owned());
            if !number.is_multiple_of(size) {
                spell(number % size, words);
            }
            return;
        }
    }
    let number = number as usize;
    if number < 20 {
        words.push(ONES[number].to_owned());
    } else {
        words.push(TENS[number / 10].to_owned());
        if !number.is_multiple_of(10) {
            words.push(ONES[number % 10].to_owned());
        }
    }
}

fn ordinal(cardinal: &str) -> String {
    match cardinal {
        "one" => "first".to_owned(),
        "two" => "second".to_owned(),
        "three" => "third".to_owned(),
        "five" => "fifth".to_owned(),
        "eight" => "eighth".to_owned(),
        "nine" => "ninth".to_owned(),
        "twelve" => "twelfth".to_owned(),
        other => other.strip_suffix('y').map_or_else(|| format!("{other}th"), |stem| format!("{stem}ieth")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_is_evened_out() {
        for (text, words) in [
            ("Go forward 10 meters.", "go forward ten meters"),
            (
                "Mr. O'Neil's 1,234 ill-disposed cats",
                "mister oneils one thousand two hundred thirty four ill disposed cats",
            ),
            ("3.5% & the 21st, OK?", "three point five percent and the twenty first okay"),
            ("the 40th of 100 in 2026", "the fortieth of one hundred in two thousand twenty six"),
            ("0 a1 1a", "zero a1 1a"),
            ("…", ""),
        ] {
            assert_eq!(normalise(text).join(" "), words, "{text}");
        }
    }

    #[test]
    fn errors_are_the_least_edits() {
        let errors = |said, heard| word_errors(said, heard).edits;
        assert_eq!(errors("a b c", "A, b! c?"), 0);
        assert_eq!(errors("a b c", "a x c"), 1);
        assert_eq!(errors("a b c", "a c"), 1);
        assert_eq!(errors("a b c", "a b b c"), 1);
        assert_eq!(errors("a b c", ""), 3);
        assert_eq!(errors("", "a b"), 2);
        assert_eq!(word_errors("one two", "1 3").rate(), 0.5);
    }
}
