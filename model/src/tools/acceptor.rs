//! A pushdown acceptor of one function call, byte by byte.
//!
//! It holds every way in which the bytes so far can be read (several only inside `anyOf` and number enumerations), each a
//! stack of what must still come. Trying a token costs its bytes, so a mask over the vocabulary is never made: the
//! likeliest token is tried first, and nearly always fits.

use std::sync::Arc;

use serde_json::Value;

use super::number::{Number, Range};
use super::pattern::StateID;
use super::schema::{ANY, Id, Shape, Shapes};

/// White space in a row. A model that writes more is lost.
const MAX_BLANKS: u8 = 20;
/// Open objects and arrays in a value of free shape; inside them nothing more is opened.
const MAX_STACK: usize = 64;
/// Readings at once; the latest are dropped, which only forbids what they alone allowed.
const MAX_READINGS: usize = 64;

/// Keys under which models put the function's name and its arguments.
const NAME_KEYS: &[&str] = &["\"name\"", "\"function\""];
const ARGUMENT_KEYS: &[&str] = &["\"arguments\"", "\"parameters\""];

const CONSTANTS: &[&str] = &["true", "false", "null"];

/// The calls that a conversation allows.
pub struct Grammar {
    shapes: Shapes,
    /// Names as JSON strings, and the shapes of their arguments.
    tools: Vec<(String, Id)>,
}

impl Grammar {
    /// Calls of functions with these names and JSON Schemas of their arguments.
    pub fn new<'a>(tools: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Arc<Self> {
        let mut shapes = Shapes::new();
        let tools = tools
            .into_iter()
            .map(|(name, schema)| (Value::String(name.to_owned()).to_string(), shapes.arguments(schema)))
            .collect();
        Arc::new(Self { shapes, tools })
    }

    fn shape(&self, id: Id) -> &Shape {
        self.shapes.get(id)
    }
}

/// One call being written.
#[derive(Clone)]
pub struct Acceptor {
    grammar: Arc<Grammar>,
    readings: Vec<Reading>,
}

/// One way to read the bytes so far.
#[derive(Clone)]
struct Reading {
    /// What must still come, the next last.
    stack: Vec<Frame>,
    blanks: u8,
    tool: Option<usize>,
}

#[derive(Clone)]
enum Frame {
    /// This byte, perhaps after white space.
    Byte(u8),
    /// A word of a list, perhaps after white space.
    Word(List),
    /// Inside a word of a list.
    InWord {
        list: List,
        typed: Vec<u8>,
    },
    /// The arguments of the function that was named.
    Arguments,
    /// A value.
    Value(Id),
    /// After `{`: a key or the end.
    FirstKey {
        shape: Id,
    },
    /// After a comma: a key.
    NextKey {
        shape: Id,
        used: u128,
    },
    /// After a property.
    InObject {
        shape: Id,
        used: u128,
    },
    /// After `[`.
    FirstItem {
        shape: Id,
    },
    /// After an item.
    InArray {
        shape: Id,
        count: u64,
    },
    /// Inside a string. `then` is the shape of the value that it is the key of.
    InText {
        chars: u64,
        min: u64,
        max: u64,
        at: InText,
        then: Option<Id>,
        /// The pattern and where in it.
        pattern: Option<(usize, StateID)>,
    },
    InNumber(Number),
}

#[derive(Clone, Copy)]
enum List {
    NameKey,
    Name,
    ArgumentKey,
    /// The constants of a free value.
    Constants,
    Keys {
        shape: Id,
        used: u128,
    },
    Words(Id),
}

/// Where in a string.
#[derive(Clone, Copy, PartialEq)]
enum InText {
    /// Between characters.
    Ground,
    /// Inside a character of several bytes: how many are missing, and the range of the next one (RFC 3629 §4).
    Utf8 {
        missing: u8,
        low: u8,
        high: u8,
    },
    Escape,
    /// Inside `\uXXXX`: digits seen, and whether the first was D, after which 8 to F would make half a surrogate pair.
    Hex {
        seen: u8,
        d: bool,
    },
}

impl Acceptor {
    /// Nothing is written yet.
    pub fn new(grammar: &Arc<Grammar>) -> Self {
        let stack = vec![
            Frame::Byte(b'}'),
            Frame::Arguments,
            Frame::Byte(b':'),
            Frame::Word(List::ArgumentKey),
            Frame::Byte(b','),
            Frame::Word(List::Name),
            Frame::Byte(b':'),
            Frame::Word(List::NameKey),
            Frame::Byte(b'{'),
        ];
        Self { grammar: Arc::clone(grammar), readings: vec![Reading { stack, blanks: 0, tool: None }] }
    }

    /// Takes a byte; `false` if no call goes on like this, and then none does whatever follows.
    pub fn push(&mut self, byte: u8) -> bool {
        let mut next = Vec::new();
        for reading in self.readings.drain(..) {
            self.grammar.step(reading, byte, &mut next);
        }
        next.truncate(MAX_READINGS);
        self.readings = next;
        !self.readings.is_empty()
    }

    /// Whether the call can go on with these bytes. White space after its end is part of it.
    pub fn accepts(&self, bytes: &[u8]) -> bool {
        let Some(first) = bytes.first() else { return false };
        // Most tokens of a vocabulary fail here, before anything is copied.
        if !self.readings.iter().any(|reading| self.grammar.may_step(reading, *first)) {
            return false;
        }
        let mut trial = self.clone();
        bytes.iter().all(|byte| trial.push(*byte))
    }

    /// Whether the call is complete.
    pub fn complete(&self) -> bool {
        self.readings.iter().any(|reading| reading.stack.is_empty())
    }

    /// Whether the function is known.
    pub fn named(&self) -> bool {
        !self.readings.is_empty() && self.readings.iter().all(|reading| reading.tool.is_some())
    }
}

fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

impl Grammar {
    /// A cheap look ahead: `false` only if [`Grammar::step`] would find no way.
    fn may_step(&self, reading: &Reading, byte: u8) -> bool {
        match reading.stack.last() {
            None => blank(byte),
            Some(Frame::Byte(expected)) => *expected == byte || blank(byte),
            Some(Frame::Word(_) | Frame::NextKey { .. }) => byte == b'"' || blank(byte),
            Some(Frame::FirstKey { .. }) => byte == b'"' || byte == b'}' || blank(byte),
            Some(Frame::InObject { .. }) => byte == b',' || byte == b'}' || blank(byte),
            Some(Frame::InArray { .. }) => byte == b',' || byte == b']' || blank(byte),
            Some(_) => true,
        }
    }

    /// All ways in which `reading` goes on with `byte`.
    fn step(&self, mut reading: Reading, byte: u8, next: &mut Vec<Reading>) {
        let inside =
            matches!(reading.stack.last(), Some(Frame::InWord { .. } | Frame::InText { .. } | Frame::InNumber(_)));
        if !inside && blank(byte) {
            reading.blanks += 1;
            if reading.blanks <= MAX_BLANKS {
                next.push(reading);
            }
            return;
        }
        if !inside {
            reading.blanks = 0;
        }
        let Some(frame) = reading.stack.pop() else { return };
        match frame {
            Frame::Byte(expected) if expected == byte => next.push(reading),
            Frame::Byte(_) => {}
            Frame::Word(list) => self.word(reading, list, Vec::new(), byte, next),
            Frame::InWord { list, typed } => self.word(reading, list, typed, byte, next),
            Frame::Arguments => {
                let shape = reading.tool.map_or(ANY, |tool| self.tools[tool].1);
                self.value(reading, shape, byte, next);
            }
            Frame::Value(shape) => self.value(reading, shape, byte, next),
            Frame::FirstKey { shape } => match byte {
                b'}' if self.satisfied(shape, 0) => next.push(reading),
                _ => self.key(reading, shape, 0, byte, next),
            },
            Frame::NextKey { shape, used } => self.key(reading, shape, used, byte, next),
            Frame::InObject { shape, used } => match byte {
                b'}' if self.satisfied(shape, used) => next.push(reading),
                b',' if self.has_more(shape, used) => {
                    reading.stack.push(Frame::NextKey { shape, used });
                    next.push(reading);
                }
                _ => {}
            },
            Frame::FirstItem { shape } => {
                let Shape::Array { items, min, max } = *self.array(shape) else { return };
                if byte == b']' {
                    if min == 0 {
                        next.push(reading);
                    }
                } else if max > 0 {
                    reading.stack.push(Frame::InArray { shape, count: 1 });
                    self.value(reading, items, byte, next);
                }
            }
            Frame::InArray { shape, count } => {
                let Shape::Array { items, min, max } = *self.array(shape) else { return };
                match byte {
                    b']' if count >= min => next.push(reading),
                    b',' if count < max => {
                        reading.stack.push(Frame::InArray { shape, count: count + 1 });
                        reading.stack.push(Frame::Value(items));
                        next.push(reading);
                    }
                    _ => {}
                }
            }
            Frame::InText { chars, min, max, at, then, pattern } => {
                self.text(reading, Text { chars, min, max, at, then, pattern }, byte, next);
            }
            Frame::InNumber(number) => self.number(reading, number, byte, next),
        }
    }

    /// A free array is one of free items.
    fn array(&self, shape: Id) -> &Shape {
        const FREE: Shape = Shape::Array { items: ANY, min: 0, max: u64::MAX };
        match self.shape(shape) {
            shape @ Shape::Array { .. } => shape,
            _ => &FREE,
        }
    }

    /// Whether an object has all that it must have.
    fn satisfied(&self, shape: Id, used: u128) -> bool {
        let Shape::Object { properties, .. } = self.shape(shape) else { return true };
        properties.iter().enumerate().all(|(i, property)| !property.required || used & (1 << i) != 0)
    }

    /// Whether an object can have another property.
    fn has_more(&self, shape: Id, used: u128) -> bool {
        let Shape::Object { properties, rest } = self.shape(shape) else { return true };
        rest.is_some() || (0..properties.len()).any(|i| used & (1 << i) == 0)
    }

    fn key(&self, mut reading: Reading, shape: Id, used: u128, byte: u8, next: &mut Vec<Reading>) {
        if byte != b'"' {
            return;
        }
        match self.shape(shape) {
            Shape::Object { properties, rest } if !properties.is_empty() || rest.is_none() => {
                self.word(reading, List::Keys { shape, used }, Vec::new(), byte, next);
            }
            free => {
                let then = match free {
                    Shape::Object { rest: Some(rest), .. } => *rest,
                    _ => ANY,
                };
                reading.stack.push(Frame::InObject { shape, used });
                reading.stack.push(Frame::InText {
                    chars: 0,
                    min: 0,
                    max: u64::MAX,
                    at: InText::Ground,
                    then: Some(then),
                    pattern: None,
                });
                next.push(reading);
            }
        }
    }

    /// The words of a list with their numbers.
    fn words(&self, list: List) -> Box<dyn Iterator<Item = (usize, &str)> + '_> {
        match list {
            List::NameKey => Box::new(NAME_KEYS.iter().copied().enumerate()),
            List::ArgumentKey => Box::new(ARGUMENT_KEYS.iter().copied().enumerate()),
            List::Constants => Box::new(CONSTANTS.iter().copied().enumerate()),
            List::Name => Box::new(self.tools.iter().map(|(name, _)| name.as_str()).enumerate()),
            List::Keys { shape, used } => {
                let Shape::Object { properties, .. } = self.shape(shape) else { return Box::new(std::iter::empty()) };
                let unused = move |(i, _): &(usize, &str)| used & (1 << *i) == 0;
                Box::new(properties.iter().map(|property| property.key.as_str()).enumerate().filter(unused))
            }
            List::Words(shape) => {
                let Shape::Words(words) = self.shape(shape) else { return Box::new(std::iter::empty()) };
                Box::new(words.iter().map(String::as_str).enumerate())
            }
        }
    }

    fn word(&self, reading: Reading, list: List, mut typed: Vec<u8>, byte: u8, next: &mut Vec<Reading>) {
        typed.push(byte);
        let mut longer = false;
        for (i, word) in self.words(list) {
            let word = word.as_bytes();
            if word == typed {
                let mut done = reading.clone();
                match list {
                    List::Name => done.tool = Some(i),
                    List::Keys { shape, used } => {
                        let Shape::Object { properties, .. } = self.shape(shape) else { continue };
                        done.stack.push(Frame::InObject { shape, used: used | 1 << i });
                        done.stack.push(Frame::Value(properties[i].shape));
                        done.stack.push(Frame::Byte(b':'));
                    }
                    List::NameKey | List::ArgumentKey | List::Constants | List::Words(_) => {}
                }
                next.push(done);
            } else {
                longer |= word.starts_with(&typed);
            }
        }
        if longer {
            let mut reading = reading;
            reading.stack.push(Frame::InWord { list, typed });
            next.push(reading);
        }
    }

    /// The first byte of a value.
    fn value(&self, mut reading: Reading, shape: Id, byte: u8, next: &mut Vec<Reading>) {
        let free = matches!(self.shape(shape), Shape::Any);
        let room = !free || reading.stack.len() < MAX_STACK;
        let text = |min, max, pattern: Option<usize>| {
            let pattern = pattern.map(|index| (index, self.shapes.pattern(index).start()));
            Frame::InText { chars: 0, min, max, at: InText::Ground, then: None, pattern }
        };
        let frame = match (self.shape(shape), byte) {
            (Shape::Union(shapes), _) => {
                for shape in shapes {
                    self.value(reading.clone(), *shape, byte, next);
                }
                return;
            }
            (Shape::Words(_), _) => return self.word(reading, List::Words(shape), Vec::new(), byte, next),
            (Shape::Any | Shape::Object { .. }, b'{') if room => Frame::FirstKey { shape },
            (Shape::Any | Shape::Array { .. }, b'[') if room => Frame::FirstItem { shape },
            (Shape::Any, b'"') => text(0, u64::MAX, None),
            (Shape::Text { min, max, pattern }, b'"') => text(*min, *max, *pattern),
            (Shape::Any, b't' | b'f' | b'n') => return self.word(reading, List::Constants, Vec::new(), byte, next),
            (Shape::Any | Shape::Number(_), b'-' | b'0'..=b'9') => {
                let range = match self.shape(shape) {
                    Shape::Number(range) => *range,
                    _ => Range::ALL,
                };
                match Number::begin(range, byte) {
                    Some(number) => Frame::InNumber(number),
                    None => return,
                }
            }
            _ => return,
        };
        reading.stack.push(frame);
        next.push(reading);
    }

    fn text(&self, mut reading: Reading, text: Text, byte: u8, next: &mut Vec<Reading>) {
        let Text { mut chars, min, max, at, then, mut pattern } = text;
        if let Some((index, state)) = &mut pattern {
            let pattern = self.shapes.pattern(*index);
            let there = match (at, byte) {
                (InText::Ground, b'"') => pattern.ends(*state).then_some(*state),
                (InText::Ground, b'\\') => escapes().any(|b| pattern.step(*state, b).is_some()).then_some(*state),
                (InText::Escape, _) => escaped(byte).and_then(|byte| pattern.step(*state, byte)),
                _ => pattern.step(*state, byte),
            };
            let Some(there) = there else { return };
            *state = there;
        }
        let at = match (at, byte) {
            (InText::Ground, b'"') => {
                if chars < min {
                    return;
                }
                if let Some(shape) = then {
                    reading.stack.push(Frame::Value(shape));
                    reading.stack.push(Frame::Byte(b':'));
                }
                return next.push(reading);
            }
            (InText::Ground, _) if chars >= max => return,
            (InText::Ground, b'\\') => InText::Escape,
            (InText::Ground, 0x20..=0x7F) => InText::Ground,
            (InText::Ground, 0xC2..=0xDF) => InText::Utf8 { missing: 1, low: 0x80, high: 0xBF },
            (InText::Ground, 0xE0) => InText::Utf8 { missing: 2, low: 0xA0, high: 0xBF },
            (InText::Ground, 0xED) => InText::Utf8 { missing: 2, low: 0x80, high: 0x9F },
            (InText::Ground, 0xE1..=0xEF) => InText::Utf8 { missing: 2, low: 0x80, high: 0xBF },
            (InText::Ground, 0xF0) => InText::Utf8 { missing: 3, low: 0x90, high: 0xBF },
            (InText::Ground, 0xF4) => InText::Utf8 { missing: 3, low: 0x80, high: 0x8F },
            (InText::Ground, 0xF1..=0xF3) => InText::Utf8 { missing: 3, low: 0x80, high: 0xBF },
            (InText::Ground, _) => return,
            (InText::Utf8 { missing: 1, low, high }, _) if (low..=high).contains(&byte) => InText::Ground,
            (InText::Utf8 { missing, low, high }, _) if (low..=high).contains(&byte) => {
                InText::Utf8 { missing: missing - 1, low: 0x80, high: 0xBF }
            }
            (InText::Utf8 { .. }, _) => return,
            (InText::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => InText::Ground,
            (InText::Escape, b'u') => InText::Hex { seen: 0, d: false },
            (InText::Escape, _) => return,
            (InText::Hex { seen: 1, d: true }, b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F') => return,
            (InText::Hex { seen: 3, .. }, _) if byte.is_ascii_hexdigit() => InText::Ground,
            (InText::Hex { seen, .. }, _) if byte.is_ascii_hexdigit() => {
                InText::Hex { seen: seen + 1, d: seen == 0 && byte.eq_ignore_ascii_case(&b'd') }
            }
            (InText::Hex { .. }, _) => return,
        };
        chars += u64::from(at == InText::Ground);
        // A match must still fit into the room that is left.
        let needs = pattern.map_or(0, |(index, state)| u64::from(self.shapes.pattern(index).needs(state)));
        if at != InText::Escape && needs > max.saturating_sub(chars + u64::from(at != InText::Ground)) {
            return;
        }
        reading.stack.push(Frame::InText { chars, min, max, at, then, pattern });
        next.push(reading);
    }

    fn number(&self, mut reading: Reading, number: Number, byte: u8, next: &mut Vec<Reading>) {
        match number.push(byte) {
            Some(number) => {
                reading.stack.push(Frame::InNumber(number));
                next.push(reading);
            }
            // What does not belong to a finished number belongs to what comes after it.
            None if number.finished() => self.step(reading, byte, next),
            None => {}
        }
    }
}

/// The bytes that a backslash and a letter stand for.
fn escapes() -> impl Iterator<Item = u8> {
    b"\"\\/bfnrt".iter().filter_map(|letter| escaped(*letter))
}

/// The byte that a backslash and this one stand for. A character's number is not among them: those of patterns that
/// need one are not kept.
fn escaped(letter: u8) -> Option<u8> {
    match letter {
        b'"' | b'\\' | b'/' => Some(letter),
        b'b' => Some(0x08),
        b'f' => Some(0x0C),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        _ => None,
    }
}

/// A string being written.
struct Text {
    chars: u64,
    min: u64,
    max: u64,
    at: InText,
    then: Option<Id>,
    pattern: Option<(usize, StateID)>,
}
