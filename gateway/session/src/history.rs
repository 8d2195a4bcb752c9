//! What has been said, as the listener heard it. Bounded: at the bound the oldest entry goes.

use std::collections::VecDeque;

use causerie_model_api::{Content, Item};

/// Entries kept.
const MAX_ITEMS: usize = 4_096;

/// Bytes of text kept.
const MAX_BYTES: usize = 4 << 20;

#[derive(Default)]
pub(crate) struct History {
    items: VecDeque<(u64, Item)>,
    bytes: usize,
    next: u64,
}

/// A place in the history that stays valid while entries come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl History {
    /// Appends an entry.
    pub(crate) fn push(&mut self, item: Item) -> Place {
        let place = self.reserve();
        self.put(place, item);
        place
    }

    /// A place for an entry that will be known later.
    pub(crate) fn reserve(&mut self) -> Place {
        self.next += 1;
        Place(self.next)
    }

    /// Fills a reserved place.
    pub(crate) fn put(&mut self, place: Place, item: Item) {
        self.bytes += bytes(&item);
        let at = self.items.partition_point(|(id, _)| *id <= place.0);
        self.items.insert(at, (place.0, item));
        while self.items.len() > MAX_ITEMS || (self.bytes > MAX_BYTES && self.items.len() > 1) {
            if let Some((_, item)) = self.items.pop_front() {
                self.bytes -= bytes(&item);
            }
        }
    }

    /// Takes an entry back.
    pub(crate) fn remove(&mut self, place: Place) {
        if let Some(at) = self.items.iter().position(|(id, _)| *id == place.0)
            && let Some((_, item)) = self.items.remove(at)
        {
            self.bytes -= bytes(&item);
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Item> {
        self.items.iter().map(|(_, item)| item)
    }
}

/// Bytes of text in an entry.
pub(crate) fn bytes(item: &Item) -> usize {
    let of = |content: &Content| match content {
        Content::Text(text) => text.len(),
        Content::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.len(),
        Content::ToolResult { call, name, value } => call.len() + name.len() + value.len(),
    };
    item.content.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use causerie_model_api::Role;

    use super::*;

    fn texts(history: &History) -> Vec<&str> {
        history
            .iter()
            .map(|item| match &item.content[0] {
                Content::Text(text) => text.as_str(),
                _ => "?",
            })
            .collect()
    }

    #[test]
    fn places_keep_the_order_of_what_was_said() {
        let mut history = History::default();
        history.push(Item::text(Role::User, "a"));
        let reply = history.reserve();
        let c = history.push(Item::text(Role::User, "c"));
        history.put(reply, Item::text(Role::Model, "b"));
        assert_eq!(texts(&history), ["a", "b", "c"]);
        history.remove(c);
        history.remove(c);
        assert_eq!(texts(&history), ["a", "b"]);
        assert_eq!(history.bytes, 2);
    }

    #[test]
    fn the_oldest_goes_at_the_bound() {
        let mut history = History::default();
        for i in 0..MAX_ITEMS + 3 {
            history.push(Item::text(Role::User, i.to_string()));
        }
        assert_eq!(history.iter().count(), MAX_ITEMS);
        assert_eq!(texts(&history)[0], "3");
    }
}
