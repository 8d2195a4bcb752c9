//! JSON in protobuf clothes: `google.protobuf.Value` to JSON and back, and `Schema` to JSON Schema.

use causerie_proto::v1;
use prost_types::value::Kind;
use serde_json::{Map, Number, Value, json};

/// Greatest magnitude below which every whole number has a double of its own.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A protobuf value as JSON. NaN and infinities, which JSON does not have, become null.
pub(super) fn json_of_value(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(b)) => Value::Bool(*b),
        Some(Kind::NumberValue(n)) => number(*n),
        Some(Kind::StringValue(s)) => Value::String(s.clone()),
        Some(Kind::StructValue(s)) => json_of_struct(s),
        Some(Kind::ListValue(l)) => Value::Array(l.values.iter().map(json_of_value).collect()),
    }
}

/// A protobuf struct as a JSON object.
pub(crate) fn json_of_struct(fields: &prost_types::Struct) -> Value {
    Value::Object(fields.fields.iter().map(|(name, value)| (name.clone(), json_of_value(value))).collect())
}

/// A JSON object as a protobuf struct; `None` if it is not an object.
pub(super) fn struct_of_json(value: &Value) -> Option<prost_types::Struct> {
    let object = value.as_object()?;
    Some(prost_types::Struct { fields: object.iter().map(|(k, v)| (k.clone(), value_of_json(v))).collect() })
}

fn value_of_json(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.iter().map(value_of_json).collect() })
        }
        Value::Object(object) => Kind::StructValue(prost_types::Struct {
            fields: object.iter().map(|(k, v)| (k.clone(), value_of_json(v))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

/// A number as JSON: whole ones without a fraction, so that the model sees `3` and not `3.0`.
fn number(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() <= MAX_EXACT {
        return Value::Number(Number::from(n as i64));
    }
    Number::from_f64(n).map_or(Value::Null, Value::Number)
}

/// A `Schema` as JSON Schema.
///
/// # Errors
/// The dotted field that has a value outside its enum.
pub(super) fn json_schema(schema: &v1::Schema) -> Result<Value, String> {
    let mut out = Map::new();
    let kind = v1::Type::try_from(schema.r#type).map_err(|_| "type".to_owned())?;
    let name = match kind {
        v1::Type::Unspecified => None,
        v1::Type::String => Some("string"),
        v1::Type::Number => Some("number"),
        v1::Type::Integer => Some("integer"),
        v1::Type::Boolean => Some("boolean"),
        v1::Type::Array => Some("array"),
        v1::Type::Object => Some("object"),
        v1::Type::Null => Some("null"),
    };
    if let Some(name) = name {
        out.insert("type".into(), if schema.nullable { json!([name, "null"]) } else { json!(name) });
    }
    for (name, text) in [
        ("title", &schema.title),
        ("format", &schema.format),
        ("description", &schema.description),
        ("pattern", &schema.pattern),
    ] {
        // The format `enum` only says that `enum` is there.
        let says_nothing = text.is_empty() || (name == "format" && text == "enum");
        if !says_nothing {
            out.insert(name.into(), json!(text));
        }
    }
    if !schema.r#enum.is_empty() {
        out.insert("enum".into(), json!(schema.r#enum));
    }
    if let Some(items) = &schema.items {
        out.insert("items".into(), json_schema(items).map_err(|field| format!("items.{field}"))?);
    }
    if !schema.properties.is_empty() {
        out.insert("properties".into(), Value::Object(properties(schema)?));
    }
    if !schema.required.is_empty() {
        out.insert("required".into(), json!(schema.required));
    }
    for (name, limit) in [
        ("minProperties", schema.min_properties),
        ("maxProperties", schema.max_properties),
        ("minLength", schema.min_length),
        ("maxLength", schema.max_length),
        ("minItems", schema.min_items),
        ("maxItems", schema.max_items),
    ] {
        if limit != 0 {
            out.insert(name.into(), json!(limit));
        }
    }
    for (name, limit) in [("minimum", schema.minimum), ("maximum", schema.maximum)] {
        if let Some(limit) = limit {
            out.insert(name.into(), number(limit));
        }
    }
    if !schema.any_of.is_empty() {
        let shapes: Result<Vec<Value>, String> = schema
            .any_of
            .iter()
            .enumerate()
            .map(|(i, shape)| json_schema(shape).map_err(|field| format!("any_of[{i}].{field}")))
            .collect();
        out.insert("anyOf".into(), Value::Array(shapes?));
    }
    if let Some(default) = &schema.default {
        out.insert("default".into(), json_of_value(default));
    }
    if let Some(example) = &schema.example {
        out.insert("examples".into(), json!([json_of_value(example)]));
    }
    Ok(Value::Object(out))
}

/// The properties in the order that was asked for, those not named behind them by name: on the wire they have no order,
/// and equal tools must make equal prompts.
fn properties(schema: &v1::Schema) -> Result<Map<String, Value>, String> {
    let mut names: Vec<&String> = schema.properties.keys().collect();
    let place = |name: &String| schema.property_ordering.iter().position(|n| n == name).unwrap_or(usize::MAX);
    names.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    names
        .into_iter()
        .map(|name| {
            let shape = json_schema(&schema.properties[name]).map_err(|field| format!("properties[{name}].{field}"))?;
            Ok((name.clone(), shape))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i32>().prop_map(|n| json!(n)),
            (-1.0e9..1.0e9f64).prop_map(number),
            "[a-zé\"\\\\]{0,8}".prop_map(Value::String),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn json_survives_the_round_trip(value in prop::collection::btree_map("[a-z]{1,4}", any_json(), 0..4)) {
            let value = Value::Object(value.into_iter().collect());
            let there = struct_of_json(&value).expect("it is an object");
            prop_assert_eq!(json_of_struct(&there), value);
        }
    }

    #[test]
    fn a_schema_becomes_json_schema() {
        let string = v1::Schema { r#type: v1::Type::String as i32, ..Default::default() };
        let schema = v1::Schema {
            r#type: v1::Type::Object as i32,
            properties: [
                ("city".to_owned(), v1::Schema { description: "where".into(), max_length: 40, ..string.clone() }),
                (
                    "unit".to_owned(),
                    v1::Schema {
                        format: "enum".into(),
                        r#enum: vec!["c".into(), "f".into()],
                        nullable: true,
                        ..string.clone()
                    },
                ),
                (
                    "days".to_owned(),
                    v1::Schema {
                        r#type: v1::Type::Array as i32,
                        items: Some(Box::new(v1::Schema {
                            r#type: v1::Type::Integer as i32,
                            minimum: Some(1.0),
                            ..Default::default()
                        })),
                        ..Default::default()
                    },
                ),
            ]
            .into(),
            required: vec!["city".into()],
            ..Default::default()
        };
        assert_eq!(
            json_schema(&schema),
            Ok(json!({
                "type": "object",
                "properties": {
                    "unit": {"type": ["string", "null"], "enum": ["c", "f"]},
                    "city": {"type": "string", "description": "where", "maxLength": 40},
                    "days": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                },
                "required": ["city"],
            }))
        );
    }

    #[test]
    fn equal_schemas_make_equal_text() {
        let text = |ordering: &[&str]| {
            let string = v1::Schema { r#type: v1::Type::String as i32, ..Default::default() };
            let properties = ('a'..='h').map(|name| (name.to_string(), string.clone())).collect();
            let property_ordering = ordering.iter().map(|name| (*name).to_owned()).collect();
            let schema = v1::Schema { properties, property_ordering, ..Default::default() };
            json_schema(&schema).expect("every type is known").to_string()
        };
        // A map that is built anew is iterated in another order.
        assert_eq!(text(&[]), text(&[]));
        assert_eq!(text(&["h", "a"]), text(&["h", "a"]));
    }

    #[test]
    fn an_unknown_type_is_named() {
        let schema =
            v1::Schema { items: Some(Box::new(v1::Schema { r#type: 99, ..Default::default() })), ..Default::default() };
        assert_eq!(json_schema(&schema), Err("items.type".to_owned()));
    }
}
