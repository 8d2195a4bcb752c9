//! What was said, as the thinker is told of it: words, the sound of utterances itself, and what was seen.

use std::sync::Arc;

use causerie_model_api::{Content, InputSamples, Item, Origin as Named, Picture, Role, ToolCall, TurnId};

use super::media::{Clip, Sight};
use crate::reply::Book;

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
    Sight(Arc<Sight>),
    Call(ToolCall),
    Result { call: String, name: String, value: String },
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
    /// A call's result, or frames that no item followed.
    Unnamed,
    /// These bytes of the turn's text, and the calls made after them.
    Reply { turn: TurnId, from: usize, until: usize },
}

impl History {
    /// Oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(entry, _)| entry)
    }

    /// Items that the session gives, behind what was `seen` before. `look` makes a piece of a picture.
    pub(super) fn append(
        &mut self,
        items: Vec<Item>,
        mut seen: Vec<Arc<Sight>>,
        look: &mut dyn FnMut(&Picture) -> Option<Arc<Sight>>,
    ) {
        for Item { role, content } in items {
            let frames = if role == Role::User { std::mem::take(&mut seen) } else { Vec::new() };
            let mut pieces: Vec<Piece> = frames.into_iter().map(Piece::Sight).collect();
            for content in content {
                match content {
                    Content::Text(text) => pieces.push(Piece::Text(text)),
                    // The model shows nothing.
                    Content::Picture(picture) if role != Role::Model => pieces.extend(look(&picture).map(Piece::Sight)),
                    Content::ToolResult { call, name, value } => pieces.push(Piece::Result { call, name, value }),
                    Content::ToolCall(call) => pieces.push(Piece::Call(call)),
                    Content::Picture(_) => {}
                }
            }
            if !pieces.is_empty() {
                self.entries.push((Entry { role, pieces }, Origin::Named(Named::Given(self.given))));
            }
            self.given += 1;
        }
        if !seen.is_empty() {
            let pieces = seen.into_iter().map(Piece::Sight).collect();
            self.entries.push((Entry { role: Role::User, pieces }, Origin::Unnamed));
        }
    }

    /// An utterance that began at input sample `from`, with what was seen before its end. It replaces what was heard of it
    /// before.
    pub(super) fn heard(&mut self, from: u64, entry: Entry) {
        self.entries.truncate(self.before(from));
        self.entries.push((entry, Origin::Named(utterance(from))));
    }

    /// What the user wrote last, if that is the last that the user did.
    pub(super) fn last_words(&self) -> &str {
        let user = self.entries.iter().rev().find(|(entry, _)| entry.role == Role::User);
        let words = user.and_then(|(entry, _)| {
            entry.pieces.iter().rev().find_map(|piece| if let Piece::Text(text) = piece { Some(text) } else { None })
        });
        words.map_or("", String::as_str)
    }

    /// All pictures.
    pub(super) fn sights(&self) -> impl Iterator<Item = &Arc<Sight>> {
        sights(self.entries())
    }

    /// The frames that were seen with an utterance that began at `from` or later.
    pub(super) fn frames_since(&self, from: u64) -> Vec<Arc<Sight>> {
        let entries = self.entries().skip(self.before(from));
        sights(entries).filter(|sight| sight.at.is_some()).map(Arc::clone).collect()
    }

    /// How many entries there are before an utterance that begins at `from` is entered.
    pub(super) fn before(&self, from: u64) -> usize {
        self.first(utterance(from)).unwrap_or(self.entries.len())
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

impl Book for History {
    fn reply(&mut self, turn: TurnId, text: &str, from: usize, calls: Vec<ToolCall>) {
        let pieces = reply_pieces(&text[from..], calls);
        if !pieces.is_empty() {
            self.entries.push((Entry { role: Role::Model, pieces }, Origin::Reply { turn, from, until: text.len() }));
        }
    }

    fn result(&mut self, call: String, name: String, value: String) {
        let pieces = vec![Piece::Result { call, name, value }];
        self.entries.push((Entry { role: Role::Tool, pieces }, Origin::Unnamed));
    }

    fn truncate_reply(&mut self, of: TurnId, full: &str, bytes: usize) {
        for (entry, origin) in &mut self.entries {
            let Origin::Reply { turn, from, until } = *origin else { continue };
            if turn == of && until > bytes {
                let calls = std::mem::take(&mut entry.pieces).into_iter();
                let calls = calls.filter_map(|piece| if let Piece::Call(call) = piece { Some(call) } else { None });
                entry.pieces = reply_pieces(full.get(from..bytes.max(from)).unwrap_or_default(), calls.collect());
                *origin = Origin::Reply { turn, from, until: bytes.max(from) };
            }
        }
        self.entries.retain(|(entry, _)| !entry.pieces.is_empty());
    }
}

fn utterance(from: u64) -> Named {
    Named::Utterance(InputSamples(from))
}

fn sights<'e>(entries: impl Iterator<Item = &'e Entry>) -> impl Iterator<Item = &'e Arc<Sight>> {
    let pieces = entries.flat_map(|entry| &entry.pieces);
    pieces.filter_map(|piece| if let Piece::Sight(sight) = piece { Some(sight) } else { None })
}

fn reply_pieces(text: &str, calls: Vec<ToolCall>) -> Vec<Piece> {
    let text = Some(text).filter(|text| !text.is_empty()).map(|text| Piece::Text(text.to_owned()));
    text.into_iter().chain(calls.into_iter().map(Piece::Call)).collect()
}
