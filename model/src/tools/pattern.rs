//! What a string must be like: a regular expression as an automaton over its bytes.

use std::collections::VecDeque;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
pub(super) use regex_automata::util::primitives::StateID;
use regex_automata::{Anchored, Input};

/// Longest pattern that is kept, in bytes.
const MAX_TEXT: usize = 1_024;

/// Largest automaton of a pattern, and most memory while it is made, in bytes. A date takes 2 KiB, an e-mail address
/// 1 KiB, a UUID 5 KiB; the worst that fits takes 5 ms to make (measured on 2026-11-25, AVX-512 machine).
const MAX_AUTOMATON: usize = 64 << 10;

/// An automaton in which no state is left from which nothing matches.
pub(super) struct Pattern {
    automaton: dense::DFA<Vec<u32>>,
    start: StateID,
    /// For each state how many characters a match still needs at the least.
    needs: Vec<u32>,
}

impl Pattern {
    /// `None` for what is not a regular expression that an automaton can follow, for a too large one, and for one that
    /// nothing matches. Like those of ECMA it matches anywhere.
    pub(super) fn new(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let config = dense::Config::new()
            .minimize(true)
            .start_kind(StartKind::Anchored)
            .dfa_size_limit(Some(MAX_AUTOMATON))
            .determinize_size_limit(Some(MAX_AUTOMATON));
        let automaton = dense::Builder::new()
            .configure(config)
            .thompson(thompson::Config::new().nfa_size_limit(Some(2 * MAX_AUTOMATON)))
            .build(&format!("(?s:.*)(?:{})(?s:.*)", ascii_classes(text)))
            .ok()?;
        let start = automaton.start_state_forward(&Input::new("").anchored(Anchored::Yes)).ok()?;
        let mut pattern = Self { automaton, start, needs: Vec::new() };
        pattern.count();
        (pattern.needs(start) < u32::MAX).then_some(pattern)
    }

    pub(super) fn start(&self) -> StateID {
        self.start
    }

    /// Where a byte leads; `None` if nothing that begins so matches.
    pub(super) fn step(&self, at: StateID, byte: u8) -> Option<StateID> {
        let next = self.automaton.next_state(at, byte);
        let lost = self.automaton.is_dead_state(next) || self.automaton.is_quit_state(next);
        (!lost && self.needs(next) < u32::MAX).then_some(next)
    }

    /// Whether the string may end here.
    pub(super) fn ends(&self, at: StateID) -> bool {
        self.automaton.is_match_state(self.automaton.next_eoi_state(at))
    }

    /// How many characters a match still needs at the least; inside a character, how many after it.
    pub(super) fn needs(&self, at: StateID) -> u32 {
        self.needs.get(self.index(at)).copied().unwrap_or(u32::MAX)
    }

    fn index(&self, at: StateID) -> usize {
        at.as_usize() >> self.automaton.stride2()
    }
}

impl Pattern {
    /// Fills `needs` backwards from the states in which a string may end.
    fn count(&mut self) {
        let (mut states, mut open) = (vec![self.start], vec![self.start]);
        let mut before: Vec<Vec<(StateID, u32)>> = Vec::new();
        let mut seen = Vec::new();
        let mut mark = |index: usize| {
            if seen.len() <= index {
                seen.resize(index + 1, false);
            }
            !std::mem::replace(&mut seen[index], true)
        };
        mark(self.index(self.start));
        while let Some(state) = open.pop() {
            for byte in (0..=u8::MAX).filter(|byte| writable(*byte)) {
                let next = self.automaton.next_state(state, byte);
                let (index, characters) = (self.index(next), u32::from(!(0x80..=0xBF).contains(&byte)));
                if before.len() <= index {
                    before.resize(index + 1, Vec::new());
                }
                // Most bytes do what the one before them does.
                if before[index].last() != Some(&(state, characters)) {
                    before[index].push((state, characters));
                }
                if mark(index) {
                    states.push(next);
                    open.push(next);
                }
            }
        }
        self.needs = vec![u32::MAX; seen.len()];
        let mut open: VecDeque<(StateID, u32)> = states.into_iter().filter(|s| self.ends(*s)).map(|s| (s, 0)).collect();
        while let Some((state, needs)) = open.pop_front() {
            let index = self.index(state);
            if needs >= self.needs[index] {
                continue;
            }
            self.needs[index] = needs;
            for (state, characters) in before.get(index).into_iter().flatten() {
                match characters {
                    0 => open.push_front((*state, needs)),
                    _ => open.push_back((*state, needs + 1)),
                }
            }
        }
    }
}

/// Whether a byte of a string can be written without giving its character's number.
fn writable(byte: u8) -> bool {
    byte >= 0x20 || matches!(byte, 0x08 | 0x0C | b'\n' | b'\r' | b'\t')
}

/// The pattern with digits and letters of ASCII, which `\d` and `\w` mean in ECMA.
fn ascii_classes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let class = match c {
            '\\' => chars.next(),
            _ => {
                out.push(c);
                continue;
            }
        };
        match class {
            Some('d') => out.push_str("[0-9]"),
            Some('D') => out.push_str("[^0-9]"),
            Some('w') => out.push_str("[0-9A-Za-z_]"),
            Some('W') => out.push_str("[^0-9A-Za-z_]"),
            class => {
                out.push('\\');
                out.extend(class);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &Pattern, text: &str) -> bool {
        let end = text.bytes().try_fold(pattern.start(), |at, byte| pattern.step(at, byte));
        end.is_some_and(|at| pattern.ends(at))
    }

    #[test]
    fn patterns_mean_what_they_mean_in_a_schema() {
        // The pattern, how many characters it needs, what matches and what does not.
        type Case = (&'static str, u32, &'static [&'static str], &'static [&'static str]);
        let cases: &[Case] = &[
            (r"^\d{4}-(0[1-9]|1[0-2])$", 7, &["2026-11"], &["2026-13", "26-11", "2026-11 ", "", "2026-1١"]),
            ("b", 1, &["b", "abc", "éb\n"], &["", "a"]),
            (r"^[\w-]+@\w+$", 3, &["a-b@c"], &["é@c", "a@"]),
            (r"^\\d$", 2, &["\\d"], &["[0-9]", "7"]),
            ("^(é|日本)$", 1, &["é", "日本"], &["日"]),
            ("", 0, &["", "x"], &[]),
        ];
        for (text, needs, good, bad) in cases {
            let pattern = Pattern::new(text).expect(text);
            assert_eq!(pattern.needs(pattern.start()), *needs, "{text}");
            good.iter().for_each(|word| assert!(matches(&pattern, word), "{text}: {word:?}"));
            bad.iter().for_each(|word| assert!(!matches(&pattern, word), "{text}: {word:?}"));
        }
    }

    #[test]
    fn what_cannot_be_followed_is_no_pattern() {
        let long = "a".repeat(2 * MAX_TEXT);
        let nested = "(".repeat(400) + &")".repeat(400);
        let cases = [
            "([",
            "(a|b)*a(a|b){30}",
            "((a{1000}){1000}){1000}",
            r"\p{L}{1,200}",
            r"(?=a)b",
            r"^\u{1}$",
            "^a$b",
            "[^\\x00-\\x{10FFFF}]",
            &long,
            &nested,
        ];
        cases.iter().for_each(|text| assert!(Pattern::new(text).is_none(), "{text}"));
    }
}
