//! JSON Schema as shapes that an acceptor can follow byte by byte.
//!
//! Kept: `type` (one or several), `enum`, `const`, `properties`, `required`, `additionalProperties` of objects without
//! `properties`, `items`, `minItems`, `maxItems`, `minLength`, `maxLength`, `anyOf`, `oneOf`, a minimum of zero or more
//! (no sign). What else a schema says (patterns, formats, ranges, references) is left to the model, which reads it in
//! its prompt, and to the function.

use serde_json::{Map, Value};

/// Index of a shape.
pub(super) type Id = u32;

/// Shapes inside shapes; deeper ones are free. Bounds the work on a schema from outside.
const MAX_DEPTH: usize = 32;

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
    },
    Number {
        integer: bool,
        signed: bool,
    },
    /// One of these, as JSON text.
    Words(Vec<String>),
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
pub(super) struct Shapes(pub(super) Vec<Shape>);

pub(super) const ANY: Id = 0;

impl Shapes {
    pub(super) fn new() -> Self {
        Self(vec![Shape::Any])
    }

    fn add(&mut self, shape: Shape) -> Id {
        self.0.push(shape);
        Id::try_from(self.0.len() - 1).expect("a schema is bounded by the message that it came in")
    }

    /// The shape of a function's arguments, which are an object whatever the schema says.
    pub(super) fn arguments(&mut self, schema: &Value) -> Id {
        let id = self.read(schema, 0);
        match &self.0[id as usize] {
            Shape::Object { .. } => id,
            _ => self.add(Shape::Object { properties: Vec::new(), rest: Some(ANY) }),
        }
    }

    fn read(&mut self, schema: &Value, depth: usize) -> Id {
        let Some(schema) = schema.as_object().filter(|_| depth < MAX_DEPTH) else { return ANY };
        if let Some(words) = words(schema) {
            return self.add(Shape::Words(words));
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

    fn of_kind(&mut self, kind: &str, schema: &Map<String, Value>, depth: usize) -> Id {
        let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
        match kind {
            "object" => self.object(schema, depth),
            "array" => {
                let items = schema.get("items").map_or(ANY, |items| self.read(items, depth + 1));
                let min = limit("minItems").unwrap_or(0);
                self.add(Shape::Array { items, min, max: limit("maxItems").unwrap_or(u64::MAX).max(min) })
            }
            "string" => {
                let min = limit("minLength").unwrap_or(0);
                self.add(Shape::Text { min, max: limit("maxLength").unwrap_or(u64::MAX).max(min) })
            }
            "number" | "integer" => {
                let signed = schema.get("minimum").and_then(Value::as_f64).is_none_or(|least| least < 0.0);
                self.add(Shape::Number { integer: kind == "integer", signed })
            }
            "boolean" => self.add(Shape::Words(vec!["true".into(), "false".into()])),
            "null" => self.add(Shape::Words(vec!["null".into()])),
            _ => ANY,
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Id {
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
