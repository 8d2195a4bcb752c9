//! A place in a text, and small questions about what stands there.

/// The characters before and from a place on.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) before: &'a [char],
    pub(super) rest: &'a [char],
}

/// What was read: how many characters, and the words for them.
pub(super) struct Found {
    pub(super) len: usize,
    pub(super) said: String,
}

impl Found {
    pub(super) fn new(len: usize, said: impl Into<String>) -> Option<Self> {
        Some(Self { len, said: said.into() })
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(chars: &'a [char], at: usize) -> Self {
        Self { before: &chars[..at], rest: &chars[at..] }
    }

    pub(super) fn skip(&self, len: usize) -> &'a [char] {
        self.rest.get(len..).unwrap_or_default()
    }

    /// Whether a letter or digit stands right before.
    pub(super) fn glued(&self) -> bool {
        self.before.last().is_some_and(|c| c.is_alphanumeric())
    }

    /// The last character before that is no space.
    pub(super) fn last_said(&self) -> Option<char> {
        self.before.iter().rev().copied().find(|c| !c.is_whitespace())
    }

    /// Whether a sentence ends right before.
    pub(super) fn before_is_stop(&self) -> bool {
        self.last_said().is_none_or(|c| ".!?".contains(c))
    }

    /// The word before, across one run of spaces.
    pub(super) fn word_before(&self) -> String {
        let end = self.before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |i| i + 1);
        let start = self.before[..end].iter().rposition(|c| !c.is_alphanumeric()).map_or(0, |i| i + 1);
        self.before[start..end].iter().collect()
    }
}

pub(super) fn starts_with(chars: &[char], text: &str) -> bool {
    let mut at = chars.iter();
    text.chars().all(|c| at.next() == Some(&c))
}

/// Whether `text` stands here as a whole: what follows is neither letter nor digit.
pub(super) fn is_word(chars: &[char], text: &str) -> bool {
    starts_with(chars, text) && !chars.get(text.chars().count()).is_some_and(|c| c.is_alphanumeric())
}

pub(super) fn count(chars: &[char], is: impl Fn(char) -> bool) -> usize {
    chars.iter().take_while(|c| is(**c)).count()
}

pub(super) fn digits(chars: &[char]) -> usize {
    count(chars, |c| c.is_ascii_digit())
}

pub(super) fn text(chars: &[char]) -> String {
    chars.iter().collect()
}

pub(super) fn value(chars: &[char]) -> u32 {
    text(chars).parse().unwrap_or(u32::MAX)
}
