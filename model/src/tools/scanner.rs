//! Parts a reply, as it is written, into words for the listener and function calls.

use std::sync::Arc;

use serde_json::Value;

use super::acceptor::{Acceptor, Grammar};

/// What a call may be announced with, besides a `{` at the beginning of a line, and whether a call is sure to follow:
/// small models repeat the list of functions in the tag that it was given to them in.
const TAGS: [(&str, bool); 4] =
    [("<tool_call>", true), ("<function_call>", true), ("<|tool_call|>", true), ("<tools>", false)];
/// Ends and separators between calls.
const BETWEEN: [&str; 7] = ["</tool_call>", "</tools>", "</function_call>", ",", "]", "[", "}"];
const FENCE: &str = "```";
/// Longest word after a fence (`json`, `tool_call`, …).
const MAX_FENCE_WORD: usize = 16;
/// JSON that is no call after all is held back up to this size, to see whether it is one written in another way.
const MAX_HELD: usize = 8 * 1024;

/// A part of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// For the listener.
    Text(String),
    /// A call of a declared function.
    Call {
        /// The function.
        name: String,
        /// A JSON object as text.
        arguments: String,
    },
    /// A call of a function that was not declared, or with other arguments than it has.
    Wrong {
        /// The function; empty if it cannot be found.
        name: String,
        /// JSON text.
        arguments: String,
    },
}

/// Reads one reply.
pub struct Scanner {
    grammar: Option<Arc<Grammar>>,
    state: State,
    /// Not decided yet.
    held: String,
    /// Nothing but white space since the beginning of the line.
    fresh: bool,
}

impl Default for Scanner {
    /// Without functions everything is text.
    fn default() -> Self {
        Self::new(None)
    }
}

enum State {
    Text,
    /// What was held says that a call follows: `certain` after a tag, not after a fence or a brace.
    Call {
        certain: bool,
        tagged: bool,
        /// Bytes of `held` that belong to the announcement.
        announced: usize,
        /// `None` once the bytes are no call as it should be written.
        acceptor: Option<Acceptor>,
        /// The same bytes as JSON, by its brackets.
        balance: Balance,
    },
    /// After a call.
    Between,
}

impl Scanner {
    /// A scanner for replies that may call the functions of `grammar`.
    pub fn new(grammar: Option<Arc<Grammar>>) -> Self {
        Self { grammar, state: State::Text, held: String::new(), fresh: true }
    }

    /// What may be written next: `None` leaves it to the model.
    pub fn constraint(&self) -> Option<&Acceptor> {
        match &self.state {
            State::Call { certain, acceptor: Some(acceptor), .. } if *certain || acceptor.named() => Some(acceptor),
            _ => None,
        }
    }

    /// Takes a piece of the reply and appends what it settles.
    pub fn push(&mut self, delta: &str, out: &mut Vec<Piece>) {
        if self.grammar.is_none() {
            return text(delta.to_owned(), out);
        }
        for c in delta.chars() {
            self.held.push(c);
            self.advance(c, out);
        }
    }

    /// The reply is over: what is undecided is text, or nothing if it was a call that does not end.
    pub fn finish(&mut self, out: &mut Vec<Piece>) {
        let held = std::mem::take(&mut self.held);
        match &self.state {
            State::Text | State::Call { acceptor: None, tagged: false, .. } => text(held, out),
            State::Call { .. } | State::Between => {}
        }
        self.state = State::Text;
    }

    /// The last character of `held` is new.
    fn advance(&mut self, c: char, out: &mut Vec<Piece>) {
        match &mut self.state {
            State::Text => self.advance_text(c, out),
            // One well-known template shows its braces doubled, and is believed.
            State::Call { certain: false, announced, .. } if c == '{' && self.held[*announced..].trim() == "{{" => {
                self.begin_call(false, false);
            }
            State::Call { acceptor, balance, .. } => {
                balance.push(c);
                if let Some(strict) = acceptor {
                    let mut buffer = [0; 4];
                    if !c.encode_utf8(&mut buffer).bytes().all(|byte| strict.push(byte)) {
                        *acceptor = None;
                    }
                }
                let complete = match acceptor {
                    Some(strict) => strict.complete(),
                    None => balance.closed || self.held.len() > MAX_HELD || !balance.opened,
                };
                if complete {
                    self.end_call(out);
                }
            }
            State::Between => self.advance_between(out),
        }
    }

    fn advance_text(&mut self, c: char, out: &mut Vec<Piece>) {
        let held = self.held.trim_start_matches([' ', '\n']);
        let indent = self.held.len() - held.len();
        let fresh = self.fresh;
        if let Some((tag, certain)) = TAGS.iter().find(|(tag, _)| held.ends_with(*tag)) {
            let before = self.held.len() - tag.len();
            text(self.held[..before].to_owned(), out);
            self.held.drain(..before);
            return self.begin_call(*certain, true);
        }
        let fence = fresh && held.starts_with(FENCE);
        if fence {
            let word = &held[FENCE.len()..];
            let name = word.trim_end_matches(['\n', ' ', '{', '[']);
            let plain = name.len() <= MAX_FENCE_WORD && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if plain && word.ends_with('{') {
                return self.begin_call(false, false);
            }
            if plain && !name.contains('{') {
                return;
            }
        } else if fresh && matches!(held, "{" | "[{" | "[ {" | "[\n{") {
            return self.begin_call(false, false);
        } else if fresh && (held.is_empty() || matches!(held, "[" | "[ " | "[\n") || FENCE.starts_with(held)) {
            return;
        }
        // The longest end of what is held that may become a tag stays.
        let keep = (indent..self.held.len())
            .filter(|at| self.held.is_char_boundary(*at))
            .find(|at| TAGS.iter().any(|(tag, _)| tag.starts_with(&self.held[*at..])))
            .unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        let said = std::mem::replace(&mut self.held, rest);
        // White space at the end of a line may be the indent of a call; the line's words are not held up by it.
        self.fresh = if c == '\n' { true } else { self.fresh && said.trim().is_empty() };
        text(said, out);
    }

    /// What is held announces a call; without a tag its last character is the first of the call.
    fn begin_call(&mut self, certain: bool, tagged: bool) {
        let Some(grammar) = &self.grammar else { return };
        let mut acceptor = Acceptor::new(grammar);
        let mut balance = Balance::default();
        let mut announced = self.held.len();
        if !tagged {
            announced -= 1;
            balance.push('{');
            acceptor.push(b'{');
        } else {
            balance.opened = true;
        }
        self.state = State::Call { certain, tagged, announced, acceptor: Some(acceptor), balance };
    }

    fn end_call(&mut self, out: &mut Vec<Piece>) {
        let State::Call { tagged, announced, .. } = std::mem::replace(&mut self.state, State::Text) else { return };
        let held = std::mem::take(&mut self.held);
        match self.read(held[announced..].trim()) {
            Some(call) => {
                out.push(call);
                self.state = State::Between;
            }
            None if tagged => {
                out.push(Piece::Wrong { name: String::new(), arguments: "{}".into() });
                self.state = State::Between;
            }
            None => {
                self.fresh = false;
                text(held, out);
            }
        }
    }

    /// A call in any order of its keys; `None` if it does not look like one.
    fn read(&self, json: &str) -> Option<Piece> {
        let value: Value = serde_json::from_str(json).ok()?;
        let object = value.as_object()?;
        let find = |keys: &[&str]| keys.iter().find_map(|key| object.get(*key));
        let name = find(&["name", "function"])?.as_str()?.to_owned();
        let arguments = match find(&["arguments", "parameters"])? {
            // Some models write the arguments as text, as one well-known interface has them.
            Value::String(text) => text.clone(),
            arguments => arguments.to_string(),
        };
        let mut acceptor = Acceptor::new(self.grammar.as_ref()?);
        let call = format!("{{\"name\":{},\"arguments\":{arguments}}}", Value::String(name.clone()));
        let sound = call.bytes().all(|byte| acceptor.push(byte)) && acceptor.complete();
        Some(if sound { Piece::Call { name, arguments } } else { Piece::Wrong { name, arguments } })
    }

    fn advance_between(&mut self, out: &mut Vec<Piece>) {
        let held = self.held.trim_start();
        let begins = |word: &&str| word.starts_with(held) && *word != held;
        let tags = TAGS.iter().map(|(tag, _)| tag);
        if held.is_empty() || BETWEEN.iter().chain(tags).chain(&[FENCE]).any(begins) {
            return;
        }
        if let Some((_, certain)) = TAGS.iter().find(|(tag, _)| *tag == held) {
            return self.begin_call(*certain, true);
        }
        if let Some(word) = held.strip_prefix(FENCE) {
            // The end of a fence, or the beginning of the next.
            if word.ends_with('\n') {
                self.held.clear();
            } else if word.ends_with('{') {
                self.begin_call(false, false);
            } else if word.len() > MAX_FENCE_WORD {
                self.resume_text(out);
            }
        } else if BETWEEN.contains(&held) {
            self.held.clear();
        } else if held == "{" {
            self.begin_call(false, false);
        } else {
            self.resume_text(out);
        }
    }

    fn resume_text(&mut self, out: &mut Vec<Piece>) {
        self.state = State::Text;
        self.fresh = false;
        text(std::mem::take(&mut self.held), out);
    }
}

fn text(text: String, out: &mut Vec<Piece>) {
    if text.is_empty() {
        return;
    }
    match out.last_mut() {
        Some(Piece::Text(last)) => last.push_str(&text),
        _ => out.push(Piece::Text(text)),
    }
}

/// Counts brackets outside of strings.
#[derive(Default)]
struct Balance {
    open: u32,
    quoted: bool,
    escaped: bool,
    opened: bool,
    closed: bool,
}

impl Balance {
    fn push(&mut self, c: char) {
        match (self.quoted, self.escaped, c) {
            (true, true, _) => self.escaped = false,
            (true, false, '\\') => self.escaped = true,
            (_, _, '"') => self.quoted = !self.quoted,
            (false, _, '{' | '[') => {
                self.open += 1;
                self.opened = true;
            }
            (false, _, '}' | ']') => {
                self.open = self.open.saturating_sub(1);
                self.closed = self.open == 0;
            }
            _ => {}
        }
    }
}
