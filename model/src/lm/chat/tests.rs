use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(Some(source), "<s>".into(), "</s>".into()).unwrap()
}

#[test]
fn chatml_is_the_fallback() {
    let chat = ChatTemplate::new(None, String::new(), String::new()).unwrap();
    let messages = [Message::text("system", "Talk."), Message::text("user", "Hi")];
    let head = "<|im_start|>system\nTalk.<|im_end|>\n<|im_start|>user\nHi";
    assert_eq!(chat.render(&messages, &[], End::Open).unwrap(), head);
    let whole = format!("{head}<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(chat.render(&messages, &[], End::Reply).unwrap(), whole);
}

#[test]
fn templates_see_tools_calls_and_results() {
    let chat = template(
        "{%- if tools is defined and tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif -%}\
         {%- for m in messages %}[{{ m['role'] }}]{{ m.content.strip() }}{% if m.tool_calls %}\
         {%- for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% endif %}\
         {%- endfor %}{{ eos_token }}",
    );
    let tools =
        [json!({"type": "function", "function": {"name": "weather", "parameters": {"b": 1, "a": ["é", "<'>"]}}})];
    let call = ToolCall::new("1", "weather", json!({"city": "Paris", "day": 2}));
    let messages = [
        Message::text("user", "  rain? "),
        Message { tool_calls: vec![call], ..Message::text("assistant", "") },
        Message {
            name: Some("weather".into()),
            tool_call_id: Some("1".into()),
            ..Message::text("tool", "{\"rain\":true}")
        },
    ];
    assert_eq!(
        chat.render(&messages, &tools, End::Reply).unwrap(),
        "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {\"b\": 1, \"a\": [\"é\", \"<'>\"]}}}\n\
         [user]rain?[assistant]weather{\"city\": \"Paris\", \"day\": 2}[tool]{\"rain\":true}</s>"
    );
    assert!(!chat.render(&messages, &[], End::Reply).unwrap().contains("type"));
}

#[test]
fn templates_may_refuse_and_may_not_run_for_ever() {
    let refusing = template("{% if messages[0].role != 'user' %}{{ raise_exception('users first') }}{% endif %}");
    let error = refusing.render(&[Message::text("system", "x")], &[], End::Reply).unwrap_err();
    assert!(error.to_string().contains("users first"), "{error}");
    let endless = template("{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}");
    assert!(endless.render(&[], &[], End::Reply).is_err());
    assert!(ChatTemplate::new(Some("{% if %}"), String::new(), String::new()).is_err());
    // One that does not show the message cannot be cut inside it.
    assert!(template("hello").render(&[Message::text("user", "x")], &[], End::Open).is_err());
}

#[test]
fn dates_are_those_of_the_calendar() {
    let at = |seconds| strftime("%Y-%m-%d %H:%M:%S %A %B %a %b %% %Q", UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(at(0), "1970-01-01 00:00:00 Thursday January Thu Jan % %Q");
    assert_eq!(at(951_827_696), "2000-02-29 12:34:56 Tuesday February Tue Feb % %Q");
    assert_eq!(at(4_107_542_399), "2100-02-28 23:59:59 Sunday February Sun Feb % %Q");
}
