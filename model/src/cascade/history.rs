//! What was said, as the language model is told of it.

use causerie_model_api::{Content, InputSamples, Item, Origin as Named, Role, ToolCall, TurnId};

use crate::reply::Book;

/// Items with where they came from, so that a taken-back utterance or an interrupted reply can be corrected.
#[derive(Default)]
pub(super) struct History {
    items: Vec<Item>,
    origins: Vec<Origin>,
    /// Items that the session gave so far.
    given: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Origin {
    /// The user's side.
    Named(Named),
    Result,
    /// These bytes of the turn's text, and the calls made after them.
    Reply {
        turn: TurnId,
        from: usize,
        until: usize,
    },
}

impl History {
    /// Oldest first.
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Items that the session gives.
    pub(super) fn append(&mut self, items: Vec<Item>) {
        for item in items {
            self.push(item, Origin::Named(Named::Given(self.given)));
            self.given += 1;
        }
    }

    /// An utterance that began at input sample `from`. It replaces what was heard of it before: a speaker who goes on
    /// after a pause is heard again from the beginning.
    pub(super) fn heard(&mut self, from: u64, text: &str) {
        self.forget_since(from);
        self.push(Item::text(Role::User, text), Origin::Named(utterance(from)));
    }

    /// The history as it is before an utterance that begins at `from` is entered.
    pub(super) fn before(&self, from: u64) -> &[Item] {
        let keep = self.covered(from).unwrap_or(self.items.len());
        &self.items[..keep]
    }

    /// Forgets what came before an entry.
    pub(super) fn forget(&mut self, before: Named) {
        let keep = self.first(before).unwrap_or(0);
        self.items.drain(..keep);
        self.origins.drain(..keep);
    }

    fn push(&mut self, item: Item, origin: Origin) {
        self.items.push(item);
        self.origins.push(origin);
    }

    /// Index of the first entry that came from an utterance beginning at `from` or later.
    fn covered(&self, from: u64) -> Option<usize> {
        self.first(utterance(from))
    }

    /// Index of the first entry that reaches a named one.
    fn first(&self, named: Named) -> Option<usize> {
        self.origins.iter().position(|origin| matches!(origin, Origin::Named(own) if own.reaches(named)))
    }

    fn forget_since(&mut self, from: u64) {
        if let Some(index) = self.covered(from) {
            self.items.truncate(index);
            self.origins.truncate(index);
        }
    }
}

impl Book for History {
    fn reply(&mut self, turn: TurnId, text: &str, from: usize, calls: Vec<ToolCall>) {
        let content = reply_content(&text[from..], calls);
        if !content.is_empty() {
            self.push(Item { role: Role::Model, content }, Origin::Reply { turn, from, until: text.len() });
        }
    }

    fn result(&mut self, call: String, name: String, value: String) {
        let content = vec![Content::ToolResult { call, name, value }];
        self.push(Item { role: Role::Tool, content }, Origin::Result);
    }

    fn truncate_reply(&mut self, of: TurnId, full: &str, bytes: usize) {
        for index in (0..self.items.len()).rev() {
            let Origin::Reply { turn, from, until } = self.origins[index] else { continue };
            if turn != of || until <= bytes {
                continue;
            }
            let calls = std::mem::take(&mut self.items[index].content).into_iter();
            let calls =
                calls.filter_map(|content| if let Content::ToolCall(call) = content { Some(call) } else { None });
            let content = reply_content(full.get(from..bytes.max(from)).unwrap_or_default(), calls.collect());
            if content.is_empty() {
                self.items.remove(index);
                self.origins.remove(index);
            } else {
                self.items[index].content = content;
                self.origins[index] = Origin::Reply { turn, from, until: bytes.max(from) };
            }
        }
    }
}

fn utterance(from: u64) -> Named {
    Named::Utterance(InputSamples(from))
}

fn reply_content(text: &str, calls: Vec<ToolCall>) -> Vec<Content> {
    let text = Some(text.trim()).filter(|text| !text.is_empty()).map(|text| Content::Text(text.to_owned()));
    text.into_iter().chain(calls.into_iter().map(Content::ToolCall)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(h: &History) -> Vec<String> {
        h.items()
            .iter()
            .map(|i| match &i.content[0] {
                Content::Text(t) => t.clone(),
                _ => String::new(),
            })
            .collect()
    }

    #[test]
    fn an_utterance_that_goes_on_replaces_its_beginning() {
        let mut h = History::default();
        h.heard(0, "hello");
        h.reply(TurnId(1), "hi", 0, Vec::new());
        h.heard(100, "what is");
        assert_eq!(h.before(100).len(), 2);
        h.heard(100, "what is the time");
        assert_eq!(texts(&h), ["hello", "hi", "what is the time"]);
    }

    #[test]
    fn a_reply_keeps_what_was_heard() {
        let mut h = History::default();
        h.heard(0, "tell me");
        h.reply(TurnId(1), "once upon a time", 0, Vec::new());
        h.truncate_reply(TurnId(1), "once upon a time", 10);
        assert_eq!(texts(&h), ["tell me", "once upon"]);
        h.truncate_reply(TurnId(1), "once upon a time", 0);
        assert_eq!(texts(&h), ["tell me"]);
        h.truncate_reply(TurnId(7), "never said", 0);
        assert_eq!(h.items().len(), 1);
    }

    #[test]
    fn calls_stay_when_the_words_around_them_were_not_heard() {
        let mut h = History::default();
        let call = ToolCall { id: "1".into(), name: "f".into(), arguments: "{}".into() };
        h.reply(TurnId(1), "let me look. ", 0, vec![call.clone()]);
        h.result("1".into(), "f".into(), "7".into());
        h.reply(TurnId(1), "let me look. it is seven", 13, Vec::new());
        let mut half = vec![h.items()[0].clone(), h.items()[1].clone(), Item::text(Role::Model, "it is")];
        h.truncate_reply(TurnId(1), "let me look. it is seven", 18);
        assert_eq!(h.items(), half);
        h.truncate_reply(TurnId(1), "let me look. it is seven", 6);
        half.truncate(2);
        half[0].content = vec![Content::Text("let me".into()), Content::ToolCall(call.clone())];
        assert_eq!(h.items(), half);
        h.truncate_reply(TurnId(1), "let me look. it is seven", 0);
        half[0].content.remove(0);
        assert_eq!(h.items(), half);
    }

    #[test]
    fn what_came_before_an_entry_is_forgotten() {
        let mut h = History::default();
        h.append(vec![Item::text(Role::User, "0"), Item::text(Role::Model, "1"), Item::text(Role::User, "2")]);
        for i in 0..3 {
            h.heard(i * 10, "q");
            h.reply(TurnId(i), "a", 0, Vec::new());
        }
        h.append(vec![Item::text(Role::User, "3")]);
        h.forget(Named::Given(2));
        assert_eq!(texts(&h), ["2", "q", "a", "q", "a", "q", "a", "3"]);
        h.forget(Named::Given(2));
        assert_eq!(h.items().len(), 8);
        // The utterance is gone, and the next one is the first that is left.
        h.forget(Named::Utterance(InputSamples(5)));
        assert_eq!(texts(&h), ["q", "a", "q", "a", "3"]);
        h.forget(Named::Utterance(InputSamples(99)));
        assert_eq!(h.items().len(), 5);
        h.forget(Named::Given(3));
        assert_eq!(texts(&h), ["3"]);
    }
}
