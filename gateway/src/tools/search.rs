//! What the result of a search says of its sources. Search functions answer in many shapes; all have addresses.

use causerie_session::{Grounding, Source};
use serde_json::Value;

/// Sources of one search.
const MAX_SOURCES: usize = 20;
/// Objects inside objects that are looked into.
const MAX_DEPTH: usize = 16;

/// Keys of addresses and titles, the surest first.
const ADDRESSES: [&str; 4] = ["url", "uri", "link", "href"];
const TITLES: [&str; 3] = ["title", "name", "heading"];

/// What was asked and what was found.
pub(super) fn grounding(asked: &Value, found: &Value) -> Grounding {
    let texts = asked.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str());
    let mut sources = Vec::new();
    walk(found, 0, &mut sources);
    Grounding { queries: texts.take(1).map(str::to_owned).collect(), sources }
}

fn walk(value: &Value, depth: usize, sources: &mut Vec<Source>) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(object) => {
            let text = |keys: &[&str]| keys.iter().find_map(|key| object.get(*key).and_then(Value::as_str));
            if let Some(uri) = text(&ADDRESSES).filter(|uri| is_address(uri)) {
                add(uri, text(&TITLES).unwrap_or_default(), sources);
            }
            object.values().for_each(|value| walk(value, depth + 1, sources));
        }
        Value::Array(items) => items.iter().for_each(|value| walk(value, depth + 1, sources)),
        Value::String(text) => in_text(text, sources),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Addresses inside a text, without what the text puts around them.
fn in_text(text: &str, sources: &mut Vec<Source>) {
    let ends = |c: char| c.is_whitespace() || "<>()[]{}\"'`".contains(c);
    for word in text.split(ends).filter(|word| is_address(word)) {
        add(word.trim_end_matches(['.', ',', ';', ':', '!', '?']), "", sources);
    }
}

fn is_address(text: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

fn add(uri: &str, title: &str, sources: &mut Vec<Source>) {
    if sources.len() < MAX_SOURCES && !sources.iter().any(|source| source.uri == uri) {
        sources.push(Source { uri: uri.to_owned(), title: title.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sources_are_found_in_any_shape() {
        let want = [("https://a.example/x", "A"), ("http://b.example", "")];
        for found in [
            json!({"results": [{"url": "https://a.example/x", "title": "A"}, {"link": "http://b.example"}]}),
            json!([{"uri": "https://a.example/x", "name": "A", "text": "see http://b.example, and more"}]),
            json!({"web": {"hits": {"0": {"href": "https://a.example/x", "title": "A"}}}, "output": "(http://b.example)"}),
        ] {
            let Grounding { queries, sources } = grounding(&json!({"query": "letters", "count": 3}), &found);
            assert_eq!(queries, ["letters"]);
            let got: Vec<_> = sources.iter().map(|source| (source.uri.as_str(), source.title.as_str())).collect();
            assert_eq!(got, want, "{found}");
        }
    }

    #[test]
    fn what_has_no_sources_has_none_and_many_are_cut() {
        for found in [json!(null), json!({"url": "ftp://a"}), json!("https://"), json!({"error": "no"})] {
            assert_eq!(grounding(&json!([]), &found), Grounding::default(), "{found}");
        }
        let many: Vec<Value> = (0..100).map(|n| json!({"url": format!("https://a.example/{n}")})).collect();
        assert_eq!(grounding(&json!({}), &json!(many)).sources.len(), MAX_SOURCES);
        let deep = (0..1_000).fold(json!({"url": "https://a.example"}), |value, _| json!([value]));
        assert!(grounding(&json!({}), &deep).sources.is_empty());
    }
}
