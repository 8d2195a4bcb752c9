//! A conversation as the model was trained to see it: the chat template that comes with the weights, in Jinja.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

/// Ends a prompt inside an open turn; a noncharacter, so that no text contains it by right.
const CUT: char = '\u{FDD1}';

/// What most instruct models use, for files without a template.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// One entry of a conversation, as templates know it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The words, or a tool's result.
    pub content: String,
    /// Functions that the assistant called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The function that a tool's result is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The call that a tool's result answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// An entry of words alone.
    pub fn text(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into(), ..Self::default() }
    }
}

/// A function call, as templates know it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolCall {
    /// Its identity.
    pub id: String,
    /// Always `function`.
    pub r#type: &'static str,
    /// What is called.
    pub function: Function,
}

impl ToolCall {
    /// A call of the function `name`.
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: serde_json::Value) -> Self {
        Self { id: id.into(), r#type: "function", function: Function { name: name.into(), arguments } }
    }
}

/// What is called, and with what.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// A JSON object.
    pub arguments: serde_json::Value,
}

/// Where a prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where the assistant's reply begins.
    Reply,
    /// Where the assistant begins to think, for templates that know thoughts; else as [`End::Reply`].
    Thought,
    /// Right after the content of the last message, which may go on.
    Open,
}

/// A chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    tools: bool,
    bos: String,
    eos: String,
}

const NAME: &str = "tokenizer.chat_template";

impl ChatTemplate {
    /// Compiles a template; ChatML if there is none. `bos` and `eos` are the texts of these tokens.
    ///
    /// # Errors
    /// The engine's own, with the line, if it is not sound.
    pub fn new(source: Option<&str>, bos: String, eos: String) -> Result<Self, Error> {
        let mut environment = Environment::new();
        // As in the library that the templates are written for.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format, std::time::SystemTime::now()));
        environment.add_filter("tojson", to_json);
        // A template is somebody else's program: a loop that does not end ends here.
        environment.set_fuel(Some(10_000_000));
        environment.add_template_owned(NAME, source.unwrap_or(CHATML).to_owned())?;
        let mut template = Self { environment, tools: true, bos, eos };
        template.tools = template.shows_tools();
        Ok(template)
    }

    /// Whether the template writes the tools that it is given.
    fn shows_tools(&self) -> bool {
        const PROBE: &str = "probe_of_tools";
        let tool = serde_json::json!({
            "type": "function",
            "function": { "name": PROBE, "description": "", "parameters": { "type": "object", "properties": {} } },
        });
        let messages = [Message::text("system", "s"), Message::text("user", "u")];
        self.render(&messages, &[tool], End::Reply).is_ok_and(|text| text.contains(PROBE))
    }

    /// A conversation with tools for a template that knows none: the functions are described in the instruction, in the
    /// form that most models of today were trained on (that of Hermes), and calls and results are text.
    fn without_tools(messages: &[Message], tools: &[serde_json::Value]) -> Vec<Message> {
        let mut plain: Vec<Message> = Vec::with_capacity(messages.len() + 1);
        for message in messages {
            let mut content = message.content.clone();
            for call in &message.tool_calls {
                let call = serde_json::json!({"name": call.function.name, "arguments": call.function.arguments});
                content.push_str(&format!("\n<tool_call>\n{call}\n</tool_call>"));
            }
            let role = if message.role == "tool" { "user" } else { &message.role };
            if message.role == "tool" {
                content = format!("<tool_response>\n{content}\n</tool_response>");
            }
            match plain.last_mut() {
                // Templates of this kind insist that speakers take turns.
                Some(last) if message.role == "tool" && last.role == "user" => last.content += &format!("\n{content}"),
                _ => plain.push(Message::text(role, content.trim_start())),
            }
        }
        if !tools.is_empty() {
            let list: Vec<String> = tools.iter().map(serde_json::Value::to_string).collect();
            let instruction = format!(
                "You may call functions. They are described in <tools></tools>:\n<tools>\n{}\n</tools>\nTo call one, \
                 answer with JSON in tags and nothing else:\n<tool_call>\n{{\"name\": \"function\", \"arguments\": \
                 {{}}}}\n</tool_call>",
                list.join("\n")
            );
            match plain.first_mut().filter(|first| first.role == "system") {
                Some(system) => system.content += &format!("\n\n{instruction}"),
                None => plain.insert(0, Message::text("system", instruction)),
            }
        }
        plain
    }

    /// The prompt for a conversation. `tools` are function declarations as JSON schemas, of the form
    /// `{"type": "function", "function": {…}}`.
    ///
    /// # Errors
    /// If the template refuses the conversation, or fails.
    pub fn render(&self, messages: &[Message], tools: &[serde_json::Value], end: End) -> Result<String, Error> {
        let uses_tools = !tools.is_empty() || messages.iter().any(|m| m.role == "tool" || !m.tool_calls.is_empty());
        if uses_tools && !self.tools {
            return self.render(&Self::without_tools(messages, tools), &[], end);
        }
        let template = self.environment.get_template(NAME)?;
        let tools = if tools.is_empty() { Value::UNDEFINED } else { Value::from(Serde(tools)) };
        let render = |messages: &[Message], reply: bool| {
            template.render(context! {
                messages => Value::from(Serde(messages)),
                tools => tools,
                add_generation_prompt => reply,
                bos_token => &self.bos,
                eos_token => &self.eos,
                // Models that can think before they speak are asked not to unless it is wanted: it delays the voice.
                enable_thinking => end == End::Thought,
            })
        };
        if end != End::Open {
            return render(messages, true);
        }
        let mut marked = messages.to_vec();
        if let Some(last) = marked.last_mut() {
            last.content.retain(|c| c != CUT);
            last.content.push(CUT);
        }
        let mut text = render(&marked, false)?;
        let cut = text.rfind(CUT).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, "the template does not write the content of the last message")
        })?;
        text.truncate(cut);
        Ok(text)
    }
}

/// Changes every string of a JSON value, keys of objects included.
pub(crate) fn map_strings(value: &mut serde_json::Value, change: &dyn Fn(&str) -> String) {
    match value {
        serde_json::Value::String(text) => *text = change(text),
        serde_json::Value::Array(values) => values.iter_mut().for_each(|value| map_strings(value, change)),
        serde_json::Value::Object(entries) => {
            let changed = std::mem::take(entries).into_iter().map(|(key, mut value)| {
                map_strings(&mut value, change);
                (change(&key), value)
            });
            *entries = changed.collect();
        }
        _ => {}
    }
}

/// JSON as Python writes it, which is what models were trained on: a blank after `,` and `:`, letters as they are, and
/// keys in the order of their declaration.
fn to_json(value: &Value) -> Result<Value, Error> {
    struct Python;
    impl serde_json::ser::Formatter for Python {
        fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W, first: bool) -> std::io::Result<()> {
            if first { Ok(()) } else { w.write_all(b", ") }
        }
        fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, w: &mut W, first: bool) -> std::io::Result<()> {
            if first { Ok(()) } else { w.write_all(b", ") }
        }
        fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> std::io::Result<()> {
            w.write_all(b": ")
        }
    }
    let mut bytes = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Python))
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(Value::from_safe_string(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The few directives that templates use; others stay as they are. The calendar is that of Howard Hinnant's
/// "chrono-compatible low-level date algorithms".
fn strftime(format: &str, now: std::time::SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let seconds = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);

    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('B') => out.push_str(month_name),
            Some('b') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(day_name),
            Some('a') => out.push_str(&day_name[..3]),
            Some('H') => out.push_str(&format!("{:02}", of_day / 3_600)),
            Some('M') => out.push_str(&format!("{:02}", of_day / 60 % 60)),
            Some('S') => out.push_str(&format!("{:02}", of_day % 60)),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests;
