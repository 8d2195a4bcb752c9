//! What was said, as the thinker is told of it: words, and the sound of utterances itself.

use std::sync::Arc;

use causerie_model_api::{Content, InputSamples, Item, Origin as Named, Role, TurnId};

/// An utterance as the audio tower heard it.
#[derive(Debug, PartialEq)]
pub(super) struct Clip {
    /// Unique in the conversation.
    pub(super) id: u64,
    /// `[tokens, hidden]` of the thinker.
    pub(super) rows: Vec<f32>,
    /// Tokens.
    pub(super) tokens: usize,
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) role: Role,
    pub(super) pieces: Vec<Piece>,
}

/// A piece of an entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Sound(Arc<Clip>),
}

/// Entries with where they came from, so that a taken-back utterance or an interrupted reply can be corrected.
#[derive(Default)]
pub(super) struct History {
    entries: Vec<(Entry, Origin)>,
    /// Items that the session gave so far.
    given: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Origin {
    /// The user's side.
    Named(Named),
    Result,
    Reply(TurnId),
}

impl History {
    /// Oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(entry, _)| entry)
    }

    /// Items that the session gives.
    pub(super) fn append(&mut self, items: Vec<Item>) {
        for item in items {
            self.push(item, Origin::Named(Named::Given(self.given)));
            self.given += 1;
        }
    }

    /// The result of a call.
    pub(super) fn result(&mut self, call: String, name: String, value: String) {
        let content = vec![Content::ToolResult { call, name, value }];
        self.push(Item { role: Role::Tool, content }, Origin::Result);
    }

    /// A tool's result is told as what the user's side says.
    fn push(&mut self, Item { role, content }: Item, origin: Origin) {
        let text = |content: Content| match content {
            Content::Text(text) => Some(Piece::Text(text)),
            Content::ToolResult { name, value, .. } => Some(Piece::Text(format!("{name}: {value}"))),
            Content::ToolCall(_) => None,
        };
        let pieces: Vec<Piece> = content.into_iter().filter_map(text).collect();
        if !pieces.is_empty() {
            self.entries.push((Entry { role, pieces }, origin));
        }
    }

    /// An utterance that began at input sample `from`. It replaces what was heard of it before.
    pub(super) fn heard(&mut self, from: u64, clip: Arc<Clip>) {
        self.entries.truncate(self.before(from));
        let entry = Entry { role: Role::User, pieces: vec![Piece::Sound(clip)] };
        self.entries.push((entry, Origin::Named(utterance(from))));
    }

    /// How many entries there are before an utterance that begins at `from` is entered.
    pub(super) fn before(&self, from: u64) -> usize {
        self.first(utterance(from)).unwrap_or(self.entries.len())
    }

    /// The reply of a turn.
    pub(super) fn reply(&mut self, turn: TurnId, text: &str) {
        if !text.is_empty() {
            let entry = Entry { role: Role::Model, pieces: vec![Piece::Text(text.to_owned())] };
            self.entries.push((entry, Origin::Reply(turn)));
        }
    }

    /// Keeps only the first `bytes` of a turn's reply; with none left the entry goes.
    pub(super) fn truncate_reply(&mut self, turn: TurnId, full: &str, bytes: usize) {
        let Some(index) = self.entries.iter().rposition(|(_, origin)| *origin == Origin::Reply(turn)) else { return };
        match full.get(..bytes).unwrap_or(full) {
            "" => _ = self.entries.remove(index),
            kept => self.entries[index].0.pieces = vec![Piece::Text(kept.to_owned())],
        }
    }

    /// Forgets what came before an entry.
    pub(super) fn forget(&mut self, before: Named) {
        let keep = self.first(before).unwrap_or(0);
        self.entries.drain(..keep);
    }

    /// Index of the first entry that reaches a named one.
    fn first(&self, named: Named) -> Option<usize> {
        self.entries.iter().position(|(_, origin)| matches!(origin, Origin::Named(own) if own.reaches(named)))
    }
}

fn utterance(from: u64) -> Named {
    Named::Utterance(InputSamples(from))
}
