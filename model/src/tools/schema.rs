//! JSON Schema as shapes that an acceptor can follow byte by byte.
//!
//! Kept: `type` (one or several), `enum`, `const`, `properties`, `required`, `additionalProperties` of objects without
//! `properties`, `items`, `minItems`, `maxItems`, `minLength`, `maxLength`, `pattern`, `minimum`, `maximum` and their
//! exclusive forms, `anyOf`, `oneOf`, `allOf` of one, and `$ref` into the same schema, recursive ones too. What else a
//! schema says (formats, multiples, conditions) is left to the model, which reads it in its prompt, and to the function;
//! so is a pattern that is none or is too large, the least length beside a pattern, and a range that nothing is in.
//!
//! Schemas come from clients and are read on the engine's thread, so that every table has a bound.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::number::Range;
use super::pattern::Pattern;

/// Index of a shape.
pub(super) type Id = u32;

/// Shapes inside shapes; deeper ones are free. Bounds the work on a schema from outside.
const MAX_DEPTH: usize = 32;

/// Shapes of one conversation; what is beyond them is free. Bounds the work on references.
const MAX_SHAPES: usize = 16_384;

/// Different patterns of one conversation; what is beyond them is free. Bounds the time that they take to prepare.
const MAX_PATTERNS: usize = 32;

/// Shapes of one union that are kept apart; a value that fits only a later one is refused. Bounds the work on unions of
/// unions.
const MAX_CHOICES: usize = 256;

/// What a value must look like.
#[derive(Debug, PartialEq)]
pub(super) enum Shape {
    /// Any JSON value.
    Any,
    Object {
        /// Keys as JSON strings, the shape of their values, and whether they must be there.
        properties: Vec<Property>,
        /// The shape of values of other keys; `None` allows no other keys.
        rest: Option<Id>,
    },
    Array {
        items: Id,
        min: u64,
        max: u64,
    },
    Text {
        min: u64,
        max: u64,
        /// Index of a [`Pattern`], which says what `min` would.
        pattern: Option<usize>,
    },
    Number(Range),
    /// One of these, as JSON text.
    Words(Vec<String>),
    /// Any of these, which are no unions themselves.
    Union(Vec<Id>),
}

#[derive(Debug, PartialEq)]
pub(super) struct Property {
    pub(super) key: String,
    pub(super) shape: Id,
    pub(super) required: bool,
}

/// Most properties of one object that are kept apart; an object with more is free.
pub(super) const MAX_PROPERTIES: usize = 128;

/// All shapes; the first is [`Shape::Any`].
pub(super) struct Shapes {
    shapes: Vec<Shape>,
    /// Patterns by their text; `None` stands for those that are not kept.
    patterns: Vec<(String, Option<Pattern>)>,
}

pub(super) const ANY: Id = 0;

impl Shapes {
    pub(super) fn new() -> Self {
        Self { shapes: vec![Shape::Any], patterns: Vec::new() }
    }

    pub(super) fn get(&self, id: Id) -> &Shape {
        &self.shapes[id as usize]
    }

    pub(super) fn pattern(&self, index: usize) -> &Pattern {
        self.patterns[index].1.as_ref().expect("shapes refer only to patterns that are kept")
    }

    /// The index of a pattern; `None` if it is not kept.
    fn add_pattern(&mut self, text: &str) -> Option<usize> {
        let known = self.patterns.iter().position(|(known, _)| known == text);
        let index = match known {
            Some(index) => index,
            None if self.patterns.len() >= MAX_PATTERNS => return None,
            None => {
                self.patterns.push((text.to_owned(), Pattern::new(text)));
                self.patterns.len() - 1
            }
        };
        self.patterns[index].1.is_some().then_some(index)
    }

    fn add(&mut self, shape: Shape) -> Id {
        if self.shapes.len() >= MAX_SHAPES {
            return ANY;
        }
        self.shapes.push(shape);
        Id::try_from(self.shapes.len() - 1).expect("there are at most MAX_SHAPES")
    }

    /// The shape of a function's arguments, which are an object whatever the schema says.
    pub(super) fn arguments(&mut self, schema: &Value) -> Id {
        let before = self.shapes.len();
        let id = Reader { shapes: self, root: schema, references: HashMap::new() }.read(schema, 0);
        self.flatten(before);
        let id = match self.get(id) {
            Shape::Union(shapes) if shapes.len() == 1 => shapes[0],
            _ => id,
        };
        match self.get(id) {
            Shape::Object { .. } => id,
            _ => {
                // A place of its own even when there is no more room: it replaces nothing but the first of this schema.
                self.shapes.push(Shape::Object { properties: Vec::new(), rest: Some(ANY) });
                Id::try_from(self.shapes.len() - 1).expect("there are few functions")
            }
        }
    }

    /// Makes unions from `from` on lists of what is no union, so that references that lead only to each other lead
    /// nowhere.
    fn flatten(&mut self, from: usize) {
        let mut flat = Vec::new();
        // Which union has last been here.
        let mut seen = vec![ANY as usize; self.shapes.len()];
        for union in from..self.shapes.len() {
            if !matches!(self.shapes[union], Shape::Union(_)) {
                continue;
            }
            let (mut choices, mut open, mut left) = (Vec::new(), vec![union], 4 * MAX_CHOICES);
            while let Some(id) = open.pop().filter(|_| choices.len() < MAX_CHOICES) {
                if std::mem::replace(&mut seen[id], union) == union {
                    continue;
                }
                match &self.shapes[id] {
                    Shape::Union(shapes) => {
                        let shapes = &shapes[..shapes.len().min(left)];
                        left -= shapes.len();
                        open.extend(shapes.iter().rev().map(|id| *id as usize));
                    }
                    _ => choices.push(id as Id),
                }
            }
            // What refers only to itself says nothing.
            flat.push((union, if choices.is_empty() { vec![ANY] } else { choices }));
        }
        for (union, choices) in flat {
            self.shapes[union] = Shape::Union(choices);
        }
    }
}

/// Reads one schema.
struct Reader<'a> {
    shapes: &'a mut Shapes,
    root: &'a Value,
    /// Shapes of the references that were met, which may refer to themselves.
    references: HashMap<&'a str, Id>,
}

impl<'a> Reader<'a> {
    fn add(&mut self, shape: Shape) -> Id {
        self.shapes.add(shape)
    }

    /// What a pointer into the schema leads to; anything, if it leads nowhere or out of it.
    fn reference(&mut self, pointer: &'a str, depth: usize) -> Id {
        if let Some(id) = self.references.get(pointer) {
            return *id;
        }
        let Some(target) = pointer.strip_prefix('#').and_then(|path| self.root.pointer(path)) else { return ANY };
        let id = self.add(Shape::Any);
        if id != ANY {
            self.references.insert(pointer, id);
            let target = self.read(target, depth + 1);
            self.shapes.shapes[id as usize] = Shape::Union(vec![target]);
        }
        id
    }

    fn read(&mut self, schema: &'a Value, depth: usize) -> Id {
        let Some(schema) = schema.as_object().filter(|_| depth < MAX_DEPTH) else { return ANY };
        if let Some(pointer) = schema.get("$ref").and_then(Value::as_str) {
            return self.reference(pointer, depth);
        }
        if let Some(words) = words(schema) {
            return self.add(Shape::Words(words));
        }
        // Of several that all hold, each would forbid what only the others allow.
        if let Some([only]) = schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice)
            && !schema.contains_key("properties")
        {
            return self.read(only, depth + 1);
        }
        for name in ["anyOf", "oneOf"] {
            if let Some(shapes) = schema.get(name).and_then(Value::as_array).filter(|shapes| !shapes.is_empty()) {
                let shapes = shapes.iter().map(|shape| self.read(shape, depth + 1)).collect();
                return self.add(Shape::Union(shapes));
            }
        }
        let kinds: Vec<&str> = match schema.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ if schema.contains_key("properties") => vec!["object"],
            _ if schema.contains_key("items") => vec!["array"],
            _ => return ANY,
        };
        let mut shapes: Vec<Id> = kinds.iter().map(|kind| self.of_kind(kind, schema, depth)).collect();
        match shapes.len() {
            0 => ANY,
            1 => shapes.remove(0),
            _ => self.add(Shape::Union(shapes)),
        }
    }

    fn of_kind(&mut self, kind: &str, schema: &'a Map<String, Value>, depth: usize) -> Id {
        let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
        match kind {
            "object" => self.object(schema, depth),
            "array" => {
                let items = schema.get("items").map_or(ANY, |items| self.read(items, depth + 1));
                let min = limit("minItems").unwrap_or(0);
                self.add(Shape::Array { items, min, max: limit("maxItems").unwrap_or(u64::MAX).max(min) })
            }
            "string" => {
                let (min, max) = (limit("minLength").unwrap_or(0), limit("maxLength").unwrap_or(u64::MAX));
                let pattern = schema.get("pattern").and_then(Value::as_str);
                let pattern = pattern.and_then(|text| self.shapes.add_pattern(text));
                self.add(match pattern.map(|index| (index, self.shapes.pattern(index))) {
                    None => Shape::Text { min, max: max.max(min), pattern: None },
                    Some((index, pattern)) => {
                        let max = if u64::from(pattern.needs(pattern.start())) > max { u64::MAX } else { max };
                        Shape::Text { min: 0, max, pattern: Some(index) }
                    }
                })
            }
            "number" | "integer" => self.add(Shape::Number(range(schema, kind == "integer"))),
            "boolean" => self.add(Shape::Words(vec!["true".into(), "false".into()])),
            "null" => self.add(Shape::Words(vec!["null".into()])),
            _ => ANY,
        }
    }

    fn object(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Id {
        let declared = schema.get("properties").and_then(Value::as_object);
        let Some(declared) = declared.filter(|declared| declared.len() <= MAX_PROPERTIES) else {
            let rest = match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => None,
                Some(rest) => Some(self.read(rest, depth + 1)),
                None => Some(ANY),
            };
            return self.add(Shape::Object { properties: Vec::new(), rest });
        };
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = declared
            .iter()
            .map(|(name, shape)| Property {
                key: Value::String(name.clone()).to_string(),
                shape: self.read(shape, depth + 1),
                required: required.contains(&name.as_str()),
            })
            .collect();
        self.add(Shape::Object { properties, rest: None })
    }
}

/// The numbers that a schema allows; all when it allows none that can be written.
fn range(schema: &Map<String, Value>, integer: bool) -> Range {
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    // Older schemas say with a flag that the limit itself is excluded.
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool) == Some(true);
    let above = |x: f64| if integer { x.floor() + 1.0 } else { x.next_up() };
    let below = |x: f64| if integer { x.ceil() - 1.0 } else { x.next_down() };
    let least = limit("minimum").map(|x| if flag("exclusiveMinimum") { above(x) } else { x });
    let most = limit("maximum").map(|x| if flag("exclusiveMaximum") { below(x) } else { x });
    let low = [least, limit("exclusiveMinimum").map(above)].into_iter().flatten().fold(f64::NEG_INFINITY, f64::max);
    let high = [most, limit("exclusiveMaximum").map(below)].into_iter().flatten().fold(f64::INFINITY, f64::min);
    let range = Range { integer, low, high };
    if range.can_be_met() { range } else { Range { integer, ..Range::ALL } }
}

/// The values that a schema lists. One that may be null besides may be null.
fn words(schema: &Map<String, Value>) -> Option<Vec<String>> {
    if let Some(value) = schema.get("const") {
        return Some(vec![value.to_string()]);
    }
    let values = schema.get("enum")?.as_array().filter(|values| !values.is_empty())?;
    let mut words: Vec<String> = values.iter().map(Value::to_string).collect();
    let nullable = schema.get("type").and_then(Value::as_array).is_some_and(|kinds| kinds.iter().any(|k| k == "null"));
    if nullable && !words.iter().any(|word| word == "null") {
        words.push("null".into());
    }
    Some(words)
}
