//! The form of a dialogue: the chat template that comes with the checkpoint, in Jinja, filled with words, calls of functions
//! and places for media.

use std::path::{Path, PathBuf};

use causerie_model_api::{Role, SessionConfig, ToolCall};
use serde_json::Value;

use super::LoadError;
use super::history::{Entry, Piece};
use super::prompt::{Medium, Prompt};
use crate::cascade::{Thoughts, declaration};
use crate::lm::chat::map_strings;
use crate::lm::{self, ChatTemplate, Message, Tokenizer};
use crate::omni::config::Config;

/// Stands in a template's words where media belong; a noncharacter, so that no text contains it by right.
const MEDIA: char = '\u{FDD2}';

/// How a prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With the opening of an answer.
    Answer,
    /// With the opening of an answer that begins with a thought.
    Thought,
    /// Inside the last entry, which may go on.
    Open,
}

/// Words and their form.
pub(super) struct Form {
    pub(super) tokenizer: Tokenizer,
    pub(super) thoughts: Thoughts,
    chat: ChatTemplate,
}

impl Form {
    /// Reads the vocabulary and the template of the folder `dir`: `chat_template.jinja`, or `chat_template` in
    /// `chat_template.json` or `tokenizer_config.json`. Without one it is ChatML.
    ///
    /// # Errors
    /// [`LoadError`] naming the file that is not what it should be.
    pub(super) fn read(dir: &Path, config: &Config) -> Result<Self, LoadError> {
        let tokenizer = Tokenizer::read_folder(dir)?;
        let vocabulary = config.thinker.text.vocabulary;
        if tokenizer.len() > vocabulary {
            return Err(LoadError::Vocabulary { tokens: tokenizer.len(), vocabulary });
        }
        let tokens = tokenizer.len();
        // Of the talker's words only the ids are used.
        let mut named = config.named_ids().into_iter().filter(|(field, _)| !field.starts_with("tts_"));
        if let Some((field, token)) = named.find(|(_, token)| *token as usize >= tokens) {
            return Err(LoadError::Unwritten { field, token, tokens });
        }
        let (path, source) = match template(dir)? {
            Some((path, source)) => (path, source),
            None => (dir.join("chat_template.json"), chatml(config, &tokenizer)),
        };
        let ids = &config.ids;
        let chat = ChatTemplate::new(Some(&source), String::new(), tokenizer.text_of(ids.im_end))
            .map_err(|error| LoadError::Template { path, problem: error.to_string() })?;
        Ok(Self { thoughts: Thoughts::of(&tokenizer), tokenizer, chat })
    }

    /// A conversation as rows.
    ///
    /// # Errors
    /// A message for people if the template refuses the conversation.
    pub(super) fn prompt<'e>(
        &self,
        config: &Config,
        session: &SessionConfig,
        entries: impl Iterator<Item = &'e Entry>,
        end: End,
    ) -> Result<Prompt, String> {
        let mut media = Vec::new();
        let mut messages = Vec::new();
        if !session.system_instruction.is_empty() {
            messages.push(Message::text("system", self.words(&session.system_instruction)));
        }
        let mut entries = entries.peekable();
        while let Some(entry) = entries.next() {
            let open = end == End::Open && entries.peek().is_none();
            messages.push(self.message(config, entry, open, &mut media));
        }
        if messages.is_empty() && end == End::Open {
            return Ok(Prompt::default());
        }
        let mut tools: Vec<Value> = session.tools.iter().map(declaration).collect();
        tools.iter_mut().for_each(|tool| map_strings(tool, &|text: &str| self.words(text)));
        let lm_end = match end {
            End::Answer => lm::End::Reply,
            End::Thought => lm::End::Thought,
            End::Open => lm::End::Open,
        };
        let text =
            self.chat.render(&messages, &tools, lm_end).map_err(|e| format!("the model's chat template: {e}"))?;
        let mut prompt = Prompt::default();
        let mut media = media.into_iter();
        for (index, words) in text.split(MEDIA).enumerate() {
            if index > 0 {
                prompt.medium_rows(media.next().ok_or("the chat template repeats what was heard or seen")?);
            }
            prompt.tokens(&self.tokenizer.encode(words, true));
        }
        if media.next().is_some() {
            return Err("the chat template leaves out what was heard or seen".into());
        }
        prompt.place(config).map_err(|e| e.to_string())?;
        Ok(prompt)
    }

    /// What somebody says is never more than words.
    fn words(&self, text: &str) -> String {
        self.tokenizer.guard(&text.replace(MEDIA, ""))
    }

    fn message(&self, config: &Config, entry: &Entry, open: bool, media: &mut Vec<Medium>) -> Message {
        let role = match entry.role {
            Role::User => "user",
            Role::Model => "assistant",
            Role::Tool => "tool",
        };
        let mut message = Message::text(role, "");
        let ids = &config.thinker.media;
        let mut around = |content: &mut String, start: u32, medium: Medium, end: Option<u32>| {
            content.push_str(&self.tokenizer.text_of(start));
            content.push(MEDIA);
            content.push_str(&end.map_or(String::new(), |end| self.tokenizer.text_of(end)));
            media.push(medium);
        };
        for (index, piece) in entry.pieces.iter().enumerate() {
            let content = &mut message.content;
            match piece {
                Piece::Text(text) => content.push_str(&self.words(text)),
                Piece::Sound(clip) => {
                    let goes_on = open && index + 1 == entry.pieces.len();
                    let end = (!goes_on).then_some(ids.audio_end);
                    around(content, ids.audio_start, Medium::Sound(clip.clone()), end);
                }
                Piece::Sight(sight) => {
                    around(content, ids.vision_start, Medium::Sight(sight.clone()), Some(ids.vision_end));
                }
                Piece::Call(ToolCall { id, name, arguments }) => {
                    let mut arguments: Value =
                        serde_json::from_str(arguments).unwrap_or_else(|_| Value::from(arguments.clone()));
                    map_strings(&mut arguments, &|text: &str| self.words(text));
                    message.tool_calls.push(lm::ToolCall::new(id, self.words(name), arguments));
                }
                Piece::Result { call, name, value } => {
                    content.push_str(&self.words(value));
                    message.name = Some(self.words(name));
                    message.tool_call_id = Some(call.clone());
                }
            }
        }
        message
    }
}

/// The template of a folder, if there is one, and where it is.
fn template(dir: &Path) -> Result<Option<(PathBuf, String)>, LoadError> {
    for name in ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"] {
        let path = dir.join(name);
        if path.exists()
            && let Some(source) = read(&path)?
        {
            return Ok(Some((path, source)));
        }
    }
    Ok(None)
}

/// The template in a file: all of it, or a field of JSON.
fn read(path: &Path) -> Result<Option<String>, LoadError> {
    let wrong = |problem: String| LoadError::Template { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    if path.extension().is_none_or(|extension| extension != "json") {
        return Ok(Some(text));
    }
    let file: Value = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    match &file["chat_template"] {
        Value::Null => Ok(None),
        Value::String(source) => Ok(Some(source.clone())),
        // Several by name: the default one.
        Value::Array(all) => {
            let default = all.iter().find(|one| one["name"] == "default");
            let source = default.and_then(|one| one["template"].as_str());
            source.map(|source| Some(source.to_owned())).ok_or_else(|| wrong("has no default template".into()))
        }
        other => Err(wrong(format!("chat_template is {other}"))),
    }
}

/// ChatML in the words that the configuration's tokens stand for.
fn chatml(config: &Config, tokenizer: &Tokenizer) -> String {
    let text = |token: u32| tokenizer.text_of(token);
    let ids = &config.ids;
    let (start, end) = (text(ids.im_start), text(ids.im_end));
    let (system, user, assistant) = (text(ids.system), text(ids.user), text(ids.assistant));
    format!(
        "{{% for m in messages %}}{start}{{% if m.role == 'system' %}}{system}{{% elif m.role == 'assistant' %}}{assistant}\
         {{% else %}}{user}{{% endif %}}{{{{ '\\n' + m.content }}}}{end}{{{{ '\\n' }}}}{{% endfor %}}\
         {{% if add_generation_prompt %}}{start}{assistant}{{{{ '\\n' }}}}{{% endif %}}"
    )
}
