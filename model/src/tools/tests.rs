//! Whatever conforms is accepted, whatever is accepted conforms, and nothing of a call is spoken.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Acceptor, Grammar, Piece, Scanner};

fn weather() -> Value {
    json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 3},
        },
        "required": ["city", "unit"],
    })
}

fn takes(acceptor: &Acceptor, text: &str) -> bool {
    let mut acceptor = acceptor.clone();
    text.bytes().all(|byte| acceptor.push(byte)) && acceptor.complete()
}

fn accepts(schema: &Value, arguments: &str) -> bool {
    let grammar = Grammar::new([("f", schema)]);
    takes(&Acceptor::new(&grammar), &format!("{{\"name\": \"f\", \"arguments\": {arguments}}}"))
}

#[test]
fn arguments_have_the_declared_shape() {
    let nested = json!({"type": "object", "properties": {
        "a": {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]},
        "n": {"type": "number"}, "e": {"enum": [1, 12, "x", null]},
        "o": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "free": {}, "u": {"type": ["string", "null"], "enum": ["s"]},
    }});
    let none = json!({"type": "object", "properties": {}});
    let cases = [
        (&weather(), r#"{"city": "Rome", "unit": "celsius"}"#, true),
        (&weather(), "{\n  \"unit\" : \"fahrenheit\",\n  \"city\" : \"Zürich \\u00e9\\n\"\n}", true),
        (&weather(), r#"{"city":"Rome","unit":"celsius","days":[1,20]}"#, true),
        (&weather(), r#"{"city":"Rome","unit":"celsius","days":[]}"#, true),
        (&weather(), r#"{"city": "Rome"}"#, false),
        (&weather(), r#"{"city": "Rome", "unit": "kelvin"}"#, false),
        (&weather(), r#"{"city": "Rome", "unit": "celsius",}"#, false),
        (&weather(), r#"{"city": "Rome", "unit": "celsius", "city": "Oslo"}"#, false),
        (&weather(), r#"{"city": "Rome", "unit": "celsius", "wind": 1}"#, false),
        (&weather(), r#"{"city": 7, "unit": "celsius"}"#, false),
        (&weather(), r#"{"city": "123456789012345678901", "unit": "celsius"}"#, false),
        (&weather(), r#"{"city": "\ud83d", "unit": "celsius"}"#, false),
        (&weather(), r#"{"city":"Rome","unit":"celsius","days":[1,2,3,4]}"#, false),
        (&weather(), r#"{"city":"Rome","unit":"celsius","days":[-1]}"#, false),
        (&weather(), r#"{"city":"Rome","unit":"celsius","days":[1.5]}"#, false),
        (&nested, r#"{"a": 5, "n": -0.5e-7, "e": 12}"#, true),
        (&nested, r#"{"a": null, "e": 1}"#, true),
        (&nested, r#"{"e": null, "a": "x"}"#, true),
        (&nested, r#"{"e": 2}"#, false),
        (&nested, r#"{"n": 01}"#, false),
        (&nested, r#"{"n": 1e400}"#, false),
        (&nested, r#"{"u": null}"#, true),
        (&nested, r#"{"o": {"k": true, "l": false}}"#, true),
        (&nested, r#"{"o": {"k": 1}}"#, false),
        (&nested, r#"{"free": [{"x": [null, true, 1, "s"]}, {}]}"#, true),
        (&nested, r#"{"free": t rue}"#, false),
        (&none, "{}", true),
        (&none, r#"{"x": 1}"#, false),
        (&json!({"type": "object"}), r#"{"x": {"y": 1}}"#, true),
        (&json!({}), r#"{"x": 1}"#, true),
        (&json!({"type": "string"}), r#""x""#, false),
    ];
    for (schema, arguments, want) in cases {
        assert_eq!(accepts(schema, arguments), want, "{arguments} for {schema}");
    }
}

#[test]
fn names_are_those_that_were_declared() {
    let free = json!({"type": "object"});
    let grammar = Grammar::new([("get_time", &free), ("get_timer", &weather())]);
    let acceptor = Acceptor::new(&grammar);
    assert!(takes(&acceptor, r#"{"name": "get_time", "arguments": {}}"#));
    assert!(takes(&acceptor, r#"{"function": "get_time", "parameters": {"a": 1}}"#));
    assert!(!takes(&acceptor, r#"{"name": "get_timer", "arguments": {}}"#), "each has its own arguments");
    assert!(!takes(&acceptor, r#"{"name": "get", "arguments": {}}"#));
    assert!(acceptor.accepts(b" {\"name"));
    assert!(!acceptor.accepts(b"Hello") && !acceptor.accepts(b"{\"n\"") && !acceptor.accepts(b""));
}

fn scan(text: &str, chunk: usize) -> Vec<Piece> {
    let clock = json!({"type": "object", "properties": {}});
    let grammar = Grammar::new([("get_weather", &weather()), ("clock", &clock)]);
    let mut scanner = Scanner::new(Some(grammar));
    let mut out = Vec::new();
    let letters: Vec<char> = text.chars().collect();
    for chunk in letters.chunks(chunk) {
        let mut pieces = Vec::new();
        scanner.push(&chunk.iter().collect::<String>(), &mut pieces);
        out.extend(pieces);
    }
    scanner.finish(&mut out);
    let mut joined: Vec<Piece> = Vec::new();
    for piece in out {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(last)), Piece::Text(text)) => last.push_str(&text),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

fn call(name: &str, arguments: &str) -> Piece {
    Piece::Call { name: name.into(), arguments: arguments.into() }
}

fn wrong(name: &str, arguments: &str) -> Piece {
    Piece::Wrong { name: name.into(), arguments: arguments.into() }
}

fn said(text: &str) -> Piece {
    Piece::Text(text.into())
}

#[test]
fn calls_are_found_in_every_dress() {
    let rome = r#"{"city":"Rome","unit":"celsius"}"#;
    let plain = format!("{{\"name\": \"get_weather\", \"arguments\": {rome}}}");
    let loose = format!("{{\"arguments\": {rome}, \"name\": \"get_weather\"}}");
    let clock = r#"{"name": "clock", "arguments": {}}"#;
    let one = || vec![call("get_weather", rome)];
    let two = || vec![call("get_weather", rome), call("clock", "{}")];
    let after = |text: &str| vec![said(text), call("get_weather", rome)];
    let cases = [
        (plain.clone(), one()),
        (format!("<tool_call>\n{plain}\n</tool_call>"), one()),
        (format!("<tools>\n{plain}\n</tools>"), one()),
        (format!("```json\n{plain}\n```"), one()),
        (format!("```\n{plain}\n```\n"), one()),
        (loose.clone(), one()),
        (format!("```json\n{loose}\n```"), one()),
        (format!("[{plain}, {clock}]"), two()),
        (format!("{plain}\n{clock}"), two()),
        (format!("<tool_call>\n{plain}\n</tool_call>\n<tool_call>\n{clock}\n</tool_call>"), two()),
        (format!("```json\n{plain}\n```\n```json\n{clock}\n```"), two()),
        (format!("Let me look.\n{plain}"), after("Let me look.\n")),
        (format!("Let me look. <tool_call>{plain}"), after("Let me look. ")),
        (format!("{plain} It is warm."), vec![call("get_weather", rome), said(" It is warm.")]),
        ("Five < six, and {x} is `a`.".into(), vec![said("Five < six, and {x} is `a`.")]),
        ("{\"name\": \"Alice\", \"age\": 3}".into(), vec![said("{\"name\": \"Alice\", \"age\": 3}")]),
        ("{\"name\": \"get_weather\", \"arguments\": {}}".into(), vec![wrong("get_weather", "{}")]),
        (
            "```json\n{\"name\": \"multiply\", \"arguments\": {\"a\": 7}}\n```".into(),
            vec![wrong("multiply", "{\"a\":7}")],
        ),
        ("<tools>\n{\"type\": \"function\"}\n</tools>".into(), vec![wrong("", "{}")]),
        (format!("{{{plain}}}"), one()),
        (format!("```json\n{{{plain}}}\n```"), one()),
        ("{{x}} and {{{y}}}".into(), vec![said("{{x}} and {{{y}}}")]),
        ("```python\nprint({})\n```".into(), vec![said("```python\nprint({})\n```")]),
        ("<tool_call>\n{\"name\": \"get_wea".into(), vec![]),
        ("a <tool".into(), vec![said("a <tool")]),
        (String::new(), vec![]),
    ];
    for (text, want) in cases {
        for chunk in [1, 3, 1000] {
            assert_eq!(scan(&text, chunk), want, "{text:?} in pieces of {chunk}");
        }
    }
}

#[test]
fn a_call_that_has_begun_is_constrained() {
    let grammar = Grammar::new([("get_weather", &weather())]);
    let mut scanner = Scanner::new(Some(grammar));
    let mut out = Vec::new();
    scanner.push("Sure. {\"name\": \"get", &mut out);
    assert!(scanner.constraint().is_none(), "it may be anything");
    let mut scanner = Scanner::new(Some(Grammar::new([("get_weather", &weather())])));
    scanner.push("{\"name\": \"get_weather\"", &mut out);
    let constraint = scanner.constraint().expect("the name says it");
    assert!(constraint.accepts(b", \"arg") && !constraint.accepts(b", \"city"));
    let mut scanner = Scanner::new(Some(Grammar::new([("get_weather", &weather())])));
    scanner.push("<tool_call>", &mut out);
    assert!(scanner.constraint().is_some());
}

#[test]
fn ranges_patterns_and_references_hold() {
    let schema = json!({
        "type": "object",
        "properties": {
            "hour": {"type": "integer", "minimum": 0, "maximum": 23},
            "floor": {"type": "integer", "minimum": -3, "exclusiveMaximum": 12},
            "share": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
            "year": {"type": "integer", "minimum": 1995, "maximum": 2026},
            "never": {"type": "integer", "minimum": 5, "maximum": 4},
            "date": {"type": "string", "pattern": "^\\d{4}-(0[1-9]|1[0-2])-\\d{2}$"},
            "word": {"type": "string", "pattern": "[ä\\n\"]", "maxLength": 4},
            "odd": {"type": "string", "pattern": "(["},
            "place": {"$ref": "#/$defs/place"},
            "also": {"allOf": [{"$ref": "#/$defs/place"}], "description": "once more"},
            "both": {"allOf": [{"$ref": "#/$defs/place"}, {"properties": {"zip": {}}}]},
            "lost": {"$ref": "#/$defs/nowhere"},
            "self": {"$ref": "#/properties/self"},
            "tree": {"$ref": "#/$defs/tree"},
        },
        "$defs": {
            "place": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]},
            "tree": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}]},
        },
    });
    let good = [
        ("hour", vec!["0", "7", "19", "23"]),
        ("floor", vec!["-3", "11"]),
        ("share", vec!["0", "0.999"]),
        ("year", vec!["1995", "2000", "2026"]),
        ("never", vec!["1", "-7", "99"]),
        ("date", vec![r#""2026-11-25""#]),
        ("word", vec![r#""ä""#, r#""xä""#, r#""\n""#, r#""a\"b""#]),
        ("odd", vec![r#""(""#]),
        ("place", vec![r#"{"city": "Oslo"}"#]),
        ("also", vec![r#"{"city": "Rome"}"#]),
        ("both", vec![r#"{"city": "Bonn", "zip": 1}"#]),
        ("lost", vec!["1", r#"{"a": []}"#]),
        ("self", vec!["7"]),
        ("tree", vec!["null", "[]", "[null, [null, []]]"]),
    ];
    let bad = [
        ("hour", vec!["24", "-1", "70", "230", "1.5", "1e1"]),
        ("floor", vec!["-4", "12"]),
        ("share", vec!["1", "-0.1", "0.1e1"]),
        ("year", vec!["1994", "2027", "200", "20000", "195"]),
        ("date", vec![r#""2026-13-25""#, r#""26-11-25""#, r#""2026-11-25 ""#, r#""""#, r#""2026-1١-25""#]),
        ("word", vec![r#""a""#, r#""""#, r#""abcdä""#, r#""\u00e4""#]),
        ("place", vec!["{}", r#"{"city": "Bonn"}"#, "7"]),
        ("also", vec!["{}"]),
        ("tree", vec!["1", "[1]", "[[], [], []]", "[[7]]"]),
    ];
    for (cases, want) in [(&good[..], true), (&bad[..], false)] {
        for (name, values) in cases {
            for value in values {
                assert_eq!(accepts(&schema, &format!("{{\"{name}\": {value}}}")), want, "{name}: {value}");
            }
        }
    }
}

#[test]
fn a_string_with_a_pattern_can_always_be_ended() {
    let cases = [
        (
            json!({"type": "string", "pattern": "^[a-z]+-(é|日本)$", "maxLength": 4}),
            vec![r#""a-é""#, r#""ab-é""#, r#""a-日本""#],
        ),
        (json!({"type": "string", "pattern": "^\"x*\n$", "maxLength": 3}), vec![r#""\"x\n""#]),
        // A pattern that the length excludes is worth more than the length, and the least length is left to the function.
        (json!({"type": "string", "pattern": "^abcde$", "maxLength": 3}), vec![r#""abcde""#]),
        (json!({"type": "string", "pattern": "^ab$", "minLength": 3}), vec![r#""ab""#]),
    ];
    for (schema, good) in cases {
        let schema = json!({"type": "object", "properties": {"x": schema}, "required": ["x"]});
        let grammar = Grammar::new([("f", &schema)]);
        for seed in 0..200_usize {
            let mut acceptor = Acceptor::new(&grammar);
            assert!(r#"{"name":"f","arguments":{"x":"#.bytes().all(|byte| acceptor.push(byte)));
            let mut written = Vec::new();
            while written.len() < 1_000 && !acceptor.accepts(b"}") {
                let mut allowed: Vec<u8> = (0..=255).filter(|b| acceptor.accepts(&[*b])).collect();
                allowed.retain(|byte| !byte.is_ascii_whitespace());
                assert!(!allowed.is_empty(), "stuck after {:?} in {schema}", String::from_utf8_lossy(&written));
                let byte = allowed[(seed + seed / 7 * written.len()) % allowed.len()];
                acceptor.push(byte);
                written.push(byte);
            }
        }
        for value in good {
            assert!(accepts(&schema, &format!("{{\"x\": {value}}}")), "{value} in {schema}");
        }
    }
}

#[test]
fn references_without_end_and_large_patterns_are_bounded() {
    let names: Vec<String> = (0..10).map(|n| format!("d{n}")).collect();
    let mut definitions = serde_json::Map::new();
    for (n, name) in names.iter().enumerate() {
        let next = format!("#/$defs/d{}", (n + 1) % names.len());
        definitions.insert(name.clone(), json!({"anyOf": [{"$ref": next}, {"$ref": next}, {"type": "null"}]}));
    }
    let schema = json!({
        "type": "object",
        "properties": {
            "x": {"$ref": "#/$defs/d0"},
            "y": {"type": "string", "pattern": "(a|b)*a(a|b){30}"},
            "z": {"anyOf": (0..1_000).map(|n| json!({"$ref": format!("#/$defs/d{}", n % 10)})).collect::<Vec<_>>()},
        },
        "$defs": definitions,
    });
    assert!(accepts(&schema, r#"{"x": null, "y": "free, as the pattern is too large"}"#));
    assert!(!accepts(&schema, r#"{"x": 1}"#));
    assert!(accepts(&schema, r#"{"z": null}"#));
    let patterns: serde_json::Map<String, Value> =
        (0..40).map(|n| (format!("p{n}"), json!({"type": "string", "pattern": format!("^{n}$")}))).collect();
    let patterns = json!({"type": "object", "properties": patterns});
    let kept = (0..40).filter(|n| !accepts(&patterns, &format!("{{\"p{n}\": \"other\"}}"))).count();
    assert_eq!(kept, 32, "further patterns are left to the function");
    assert!(accepts(&json!({"$ref": "#"}), r#"{"anything": 1}"#));
    assert!(accepts(&json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {}}}}), "{}"));
}

#[test]
fn a_hundred_functions_are_told_apart() {
    let schema = weather();
    let names: Vec<String> = (0..100).map(|n| format!("function_{n}")).collect();
    let grammar = Grammar::new(names.iter().map(|name| (name.as_str(), &schema)));
    for name in &names {
        let call = format!(r#"{{"name": "{name}", "arguments": {{"city": "Rome", "unit": "celsius"}}}}"#);
        assert!(takes(&Acceptor::new(&grammar), &call), "{name}");
    }
    assert!(!takes(&Acceptor::new(&grammar), r#"{"name": "function_100", "arguments": {}}"#));
}

/// A schema and a value that conforms to it.
fn schema_and_value() -> impl Strategy<Value = (Value, Value)> {
    let leaf = prop_oneof![
        "[a-zé\"\\\\\u{1F600}]{0,6}".prop_map(|s| (json!({"type": "string", "maxLength": 6}), json!(s))),
        any::<i32>().prop_map(|n| (json!({"type": "integer"}), json!(n))),
        (-1.0e6..1.0e6f64).prop_map(|n| (json!({"type": "number"}), json!((n * 8.0).round() / 8.0))),
        any::<bool>().prop_map(|b| (json!({"type": "boolean"}), json!(b))),
        Just((json!({"type": "null"}), Value::Null)),
        (0..3_usize).prop_map(|i| {
            let words = [json!("one"), json!(1), json!(12)];
            (json!({"enum": words}), words[i].clone())
        }),
        Just((json!({}), json!({"free": [1, {}]}))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0..4_usize).prop_map(|((s, v), n)| {
                (json!({"type": "array", "items": s, "minItems": n.min(1)}), Value::Array(vec![v; n]))
            }),
            (inner.clone(), inner.clone(), any::<bool>()).prop_map(|((s, v), (other, _), first)| {
                let shapes = if first { json!([s, other]) } else { json!([other, s]) };
                (json!({"anyOf": shapes}), v)
            }),
            prop::collection::btree_map("[a-c]{1,2}", (inner, any::<bool>(), any::<bool>()), 0..4).prop_map(|m| {
                let properties: serde_json::Map<_, _> =
                    m.iter().map(|(k, ((s, _), ..))| (k.clone(), s.clone())).collect();
                let required: Vec<_> = m.iter().filter(|(_, (_, r, _))| *r).map(|(k, _)| k.clone()).collect();
                let there = m.into_iter().filter(|(_, (_, r, p))| *r || *p);
                let value: serde_json::Map<_, _> = there.map(|(k, ((_, v), ..))| (k, v)).collect();
                (json!({"type": "object", "properties": properties, "required": required}), Value::Object(value))
            }),
        ]
    })
}

/// What schemas of [`schema_and_value`] mean, said anew.
fn conforms(schema: &Value, value: &Value) -> bool {
    if let Some(words) = schema.get("enum") {
        return words.as_array().unwrap().contains(value);
    }
    if let Some(shapes) = schema.get("anyOf") {
        return shapes.as_array().unwrap().iter().any(|s| conforms(s, value));
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => value.as_str().is_some_and(|s| s.chars().count() <= 6),
        Some("integer") => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.as_array().is_some_and(|items| {
            items.len() as u64 >= schema["minItems"].as_u64().unwrap()
                && items.iter().all(|i| conforms(&schema["items"], i))
        }),
        Some("object") => value.as_object().is_some_and(|object| {
            object.iter().all(|(k, v)| schema["properties"].get(k).is_some_and(|s| conforms(s, v)))
                && schema["required"].as_array().unwrap().iter().all(|k| object.contains_key(k.as_str().unwrap()))
        }),
        _ => true,
    }
}

fn arguments_of((schema, value): (Value, Value)) -> (Value, Value) {
    let wrapped = json!({"type": "object", "properties": {"x": schema}, "required": ["x"]});
    (wrapped, json!({"x": value}))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_conforms_is_accepted((schema, value) in schema_and_value().prop_map(arguments_of)) {
        prop_assert!(conforms(&schema, &value), "the test's own word");
        prop_assert!(accepts(&schema, &value.to_string()), "{} for {}", value, schema);
        prop_assert!(accepts(&schema, &serde_json::to_string_pretty(&value).unwrap()), "{} for {}", value, schema);
    }

    /// Any walk along allowed bytes can go on, and what it ends with conforms.
    #[test]
    fn what_is_accepted_conforms(
        (schema, _) in schema_and_value().prop_map(arguments_of),
        choices in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let grammar = Grammar::new([("f", &schema)]);
        let mut acceptor = Acceptor::new(&grammar);
        let mut written = Vec::new();
        for choice in choices {
            if acceptor.complete() {
                break;
            }
            let allowed: Vec<u8> = (0..=255).filter(|b| acceptor.accepts(&[*b])).collect();
            prop_assert!(!allowed.is_empty(), "stuck after {:?}", String::from_utf8_lossy(&written));
            // Structure more often than letters, or strings would hardly end.
            let structure: Vec<u8> = allowed.iter().copied().filter(|b| b"}],:\"{".contains(b)).collect();
            let from = if choice % 4 > 0 && !structure.is_empty() { &structure } else { &allowed };
            let byte = from[choice as usize / 4 % from.len()];
            prop_assert!(acceptor.push(byte));
            written.push(byte);
        }
        if acceptor.complete() {
            let call: Value = serde_json::from_slice(&written).expect("it is JSON");
            let arguments = call.get("arguments").or(call.get("parameters")).expect("it has arguments");
            prop_assert!(conforms(&schema, arguments), "{} for {}", call, schema);
        }
    }

    /// Any text comes out whole or as calls, however it is cut.
    #[test]
    fn cuts_do_not_change_what_is_found(
        parts in prop::collection::vec(prop::sample::select(vec![
            "<tool_call>", "</tool_call>", "```json\n", "```", "{", "}", "[", "\n", " ", "word. ", "\"name\"", ": ",
            "\"clock\"", ", ", "\"arguments\"", "{}", "{\"name\": \"clock\", \"arguments\": {}}", "<tools>", "é",
        ]), 0..12),
        chunk in 1..9_usize,
    ) {
        let text: String = parts.concat();
        prop_assert_eq!(scan(&text, chunk), scan(&text, 1));
        if !text.contains(['{', '<', '`', '[']) {
            let want = if text.is_empty() { vec![] } else { vec![said(&text)] };
            prop_assert_eq!(scan(&text, 1), want);
        }
    }
}
