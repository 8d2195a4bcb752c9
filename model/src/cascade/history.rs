//! What was said, as the language model is told of it.

use causerie_model_api::{Content, Item, Role, TurnId};

/// Items with where they came from, so that a taken-back utterance or an interrupted reply can be corrected.
#[derive(Default)]
pub(super) struct History {
    items: Vec<Item>,
    origins: Vec<Origin>,
}

#[derive(Clone, Copy, PartialEq)]
enum Origin {
    Given,
    Utterance { from: u64 },
    Reply(TurnId),
}

impl History {
    /// Oldest first.
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Items that the session gives.
    pub(super) fn append(&mut self, items: Vec<Item>) {
        self.origins.resize(self.origins.len() + items.len(), Origin::Given);
        self.items.extend(items);
    }

    /// An utterance that began at input sample `from`. It replaces what was heard of it before: a speaker who goes on
    /// after a pause is heard again from the beginning.
    pub(super) fn heard(&mut self, from: u64, text: &str) {
        self.forget_since(from);
        self.push(Item::text(Role::User, text), Origin::Utterance { from });
    }

    /// The history as it is before an utterance that begins at `from` is entered.
    pub(super) fn before(&self, from: u64) -> &[Item] {
        let keep = self.covered(from).unwrap_or(self.items.len());
        &self.items[..keep]
    }

    /// The reply of a turn.
    pub(super) fn reply(&mut self, turn: TurnId, text: &str) {
        if !text.trim().is_empty() {
            self.push(Item::text(Role::Model, text.trim()), Origin::Reply(turn));
        }
    }

    /// Keeps only the first `bytes` of a turn's reply; with none left the item goes.
    pub(super) fn truncate_reply(&mut self, turn: TurnId, full: &str, bytes: usize) {
        let Some(index) = self.origins.iter().rposition(|o| *o == Origin::Reply(turn)) else { return };
        let kept = full.get(..bytes).unwrap_or(full).trim();
        if kept.is_empty() {
            self.items.remove(index);
            self.origins.remove(index);
        } else {
            self.items[index].content = vec![Content::Text(kept.to_owned())];
        }
    }

    /// Forgets the oldest entries, down to half, but never less than the last one. Returns whether anything went.
    pub(super) fn forget_older_half(&mut self) -> bool {
        let mut drop = self.items.len() / 2;
        // A history that begins with a reply or a tool's result reads as if the model had begun to talk.
        while drop > 0 && drop < self.items.len() && self.items[drop].role != Role::User {
            drop += 1;
        }
        if drop == 0 || drop >= self.items.len() {
            return false;
        }
        self.items.drain(..drop);
        self.origins.drain(..drop);
        true
    }

    fn push(&mut self, item: Item, origin: Origin) {
        self.items.push(item);
        self.origins.push(origin);
    }

    /// Index of the first entry that came from an utterance beginning at `from` or later.
    fn covered(&self, from: u64) -> Option<usize> {
        self.origins.iter().position(|o| matches!(o, Origin::Utterance { from: f } if *f >= from))
    }

    fn forget_since(&mut self, from: u64) {
        if let Some(index) = self.covered(from) {
            self.items.truncate(index);
            self.origins.truncate(index);
        }
    }
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
        h.reply(TurnId(1), "hi");
        h.heard(100, "what is");
        assert_eq!(h.before(100).len(), 2);
        h.heard(100, "what is the time");
        assert_eq!(texts(&h), ["hello", "hi", "what is the time"]);
    }

    #[test]
    fn a_reply_keeps_what_was_heard() {
        let mut h = History::default();
        h.heard(0, "tell me");
        h.reply(TurnId(1), "once upon a time");
        h.truncate_reply(TurnId(1), "once upon a time", 10);
        assert_eq!(texts(&h), ["tell me", "once upon"]);
        h.truncate_reply(TurnId(1), "once upon a time", 0);
        assert_eq!(texts(&h), ["tell me"]);
        h.truncate_reply(TurnId(7), "never said", 0);
        assert_eq!(h.items().len(), 1);
    }

    #[test]
    fn the_older_half_goes_by_whole_turns() {
        let mut h = History::default();
        for i in 0..3 {
            h.heard(i * 10, "q");
            h.reply(TurnId(i), "a");
        }
        assert!(h.forget_older_half());
        assert_eq!(texts(&h), ["q", "a"]);
        assert!(!h.forget_older_half());
        assert_eq!(h.items().len(), 2);
    }
}
