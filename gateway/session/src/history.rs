//! What has been said, as the listener heard it, and what of it is forgotten to make room: whole turns, oldest first.

use std::collections::VecDeque;

use causerie_model_api::{Content, Item, Origin, Picture, Role};

/// Entries kept.
pub(crate) const MAX_ITEMS: usize = 4_096;

/// Text that one message may bring, and how many times that is kept.
const MAX_CONTENT_BYTES: usize = 1 << 20;
const CONTENTS_KEPT: usize = 4;

/// Bytes of text that are more than a token in any language. The engine makes tokens of all that is kept before it knows
/// that it is too much, and others wait meanwhile (1.2 s for 4 MiB, 2026-11, two cores), so that no more is kept than a
/// context could ever hold a part of.
const BYTES_A_TOKEN: usize = 8;

/// A short context takes this all the same: what does not fit is forgotten, not refused.
const MIN_CONTENT_BYTES: usize = 64 << 10;

/// Most bytes of text that are kept where one message may bring so many.
pub(crate) fn max_bytes(max_content_bytes: usize) -> usize {
    max_content_bytes * CONTENTS_KEPT
}

/// Most bytes of text that one message may bring where the model has a context of so many tokens (0: not known).
pub(crate) fn max_content_bytes(context_tokens: u32) -> usize {
    match context_tokens as usize {
        0 => MAX_CONTENT_BYTES,
        tokens => (tokens * BYTES_A_TOKEN).clamp(MIN_CONTENT_BYTES, MAX_CONTENT_BYTES),
    }
}

/// Bytes of pixels that one message may bring, and that are kept.
pub(crate) const MAX_PIXEL_BYTES: usize = 16 << 20;

/// What an entry weighs beside its text: the marks of a chat template, in bytes of text that take as many tokens.
const ENTRY_WEIGHT: usize = 16;

/// Bytes of text that a token of a picture weighs.
const TOKEN: usize = 4;

/// What even the smallest picture counts for in [`MAX_PIXEL_BYTES`]: about what an engine makes of it.
const LEAST_PICTURE: usize = 64 << 10;

/// What an utterance weighs that the engine does not put into words: 4 s at 25 tokens.
const SOUND_WEIGHT: usize = 400;

pub(crate) struct History {
    max_content_bytes: usize,
    entries: VecDeque<Entry>,
    /// Of text.
    bytes: usize,
    /// Bytes of pixels.
    pixels: usize,
    weight: usize,
    next: u64,
    /// Items that the engine was given so far.
    given: u64,
    /// How often it has changed.
    revision: u64,
}

struct Entry {
    place: u64,
    item: Item,
    /// Its name for the engine, if it has one.
    origin: Option<Origin>,
}

/// A place in the history that stays valid while entries come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl History {
    /// An empty one, by what a message may bring.
    pub(crate) fn new(max_content_bytes: usize) -> Self {
        Self {
            max_content_bytes,
            entries: VecDeque::new(),
            bytes: 0,
            pixels: 0,
            weight: 0,
            next: 0,
            given: 0,
            revision: 0,
        }
    }

    /// Most bytes of text that one message may bring.
    pub(crate) fn max_content_bytes(&self) -> usize {
        self.max_content_bytes
    }

    fn max_bytes(&self) -> usize {
        max_bytes(self.max_content_bytes)
    }

    /// Appends an entry that the engine makes by itself.
    pub(crate) fn push(&mut self, item: Item) -> Place {
        let place = self.reserve();
        self.put(place, item, None);
        place
    }

    /// Appends an entry that the engine is given.
    pub(crate) fn give(&mut self, item: Item) {
        let place = self.reserve();
        self.put(place, item, Some(Origin::Given(self.given)));
        self.given += 1;
    }

    /// A place for an entry that will be known later.
    pub(crate) fn reserve(&mut self) -> Place {
        self.next += 1;
        Place(self.next)
    }

    /// Fills a reserved place.
    pub(crate) fn put(&mut self, place: Place, item: Item, origin: Option<Origin>) {
        self.revision += 1;
        self.bytes += bytes(&item);
        self.pixels += pixels(&item);
        self.weight += weight(&item);
        let at = self.entries.partition_point(|entry| entry.place <= place.0);
        self.entries.insert(at, Entry { place: place.0, item, origin });
    }

    /// Takes an entry back.
    pub(crate) fn remove(&mut self, place: Place) {
        if let Some(at) = self.entries.iter().position(|entry| entry.place == place.0)
            && let Some(entry) = self.entries.remove(at)
        {
            self.revision += 1;
            self.bytes -= bytes(&entry.item);
            self.pixels -= pixels(&entry.item);
            self.weight -= weight(&entry.item);
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Item> {
        self.entries.iter().map(|entry| &entry.item)
    }

    /// Something that belongs to the history and is kept elsewhere has changed.
    pub(crate) fn touch(&mut self) {
        self.revision += 1;
    }

    /// A number that changes with every change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether everything that was said is known in words, and no content has pictures.
    pub(crate) fn is_written(&self) -> bool {
        let shows = |content: &Content| matches!(content, Content::Picture(_));
        self.entries.iter().all(|entry| !entry.item.content.is_empty() && !entry.item.content.iter().any(shows))
    }

    /// How much room it takes, in a unit of its own: about bytes of text.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Whether there is more than is kept.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() > MAX_ITEMS || self.bytes > self.max_bytes() || self.pixels > MAX_PIXEL_BYTES
    }

    /// Forgets the oldest turns until what is left weighs `keep` or less, but never the last one; at least one goes. The
    /// entry with which the history begins then, or `None` if nothing may go.
    pub(crate) fn forget(&mut self, keep: usize) -> Option<Origin> {
        let begins =
            |at: usize| self.entries[at].item.role == Role::User && self.entries[at - 1].item.role != Role::User;
        // Where no turn begins, entries that belong together are parted rather than nothing forgotten.
        let turn = self.cut(keep, begins).or_else(|| self.cut(keep, |_| true));
        let (at, origin) = turn?;
        self.revision += 1;
        for entry in self.entries.drain(..at) {
            self.bytes -= bytes(&entry.item);
            self.pixels -= pixels(&entry.item);
            self.weight -= weight(&entry.item);
        }
        Some(origin)
    }

    /// The first entry of those that have a name and are `allowed` from which on `keep` is not exceeded, else the last.
    fn cut(&self, keep: usize, allowed: impl Fn(usize) -> bool) -> Option<(usize, Origin)> {
        let mut left = self.weight;
        let mut last = None;
        for at in 1..self.entries.len() {
            left -= weight(&self.entries[at - 1].item);
            if let Some(origin) = self.entries[at].origin.filter(|_| allowed(at)) {
                last = Some((at, origin));
                if left <= keep {
                    break;
                }
            }
        }
        last
    }

    /// Forgets a quarter, where there is more than is kept.
    pub(crate) fn forget_bound(&mut self) -> Option<Origin> {
        // Pixels take more bytes than they weigh.
        let by_bytes = if self.pixels > MAX_PIXEL_BYTES { self.weight } else { self.max_bytes() } / 4 * 3;
        let by_count = self.weight / self.entries.len().max(1) * (MAX_ITEMS / 4 * 3);
        self.forget(by_bytes.min(by_count))
    }
}

fn weight(item: &Item) -> usize {
    let pictures: usize =
        item.content.iter().map(|content| picture(content, |p| p.resolution().tokens() * TOKEN)).sum();
    ENTRY_WEIGHT + pictures + if item.content.is_empty() { SOUND_WEIGHT } else { bytes(item) }
}

fn picture(content: &Content, of: impl Fn(&Picture) -> usize) -> usize {
    if let Content::Picture(picture) = content { of(picture) } else { 0 }
}

/// Bytes of pixels in an entry.
pub(crate) fn pixels(item: &Item) -> usize {
    item.content.iter().map(|content| picture(content, |p| p.rgb().len().max(LEAST_PICTURE))).sum()
}

/// Bytes of text in an entry.
pub(crate) fn bytes(item: &Item) -> usize {
    let of = |content: &Content| match content {
        Content::Text(text) => text.len(),
        Content::Picture(_) => 0,
        Content::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.len(),
        Content::ToolResult { call, name, value } => call.len() + name.len() + value.len(),
    };
    item.content.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use causerie_model_api::{InputSamples, MediaResolution};

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
        let mut history = History::new(max_content_bytes(0));
        history.push(Item::text(Role::User, "a"));
        let reply = history.reserve();
        let c = history.push(Item::text(Role::User, "c"));
        history.put(reply, Item::text(Role::Model, "b"), None);
        assert_eq!(texts(&history), ["a", "b", "c"]);
        history.remove(c);
        history.remove(c);
        assert_eq!(texts(&history), ["a", "b"]);
        assert_eq!((history.bytes, history.weight), (2, 2 + 2 * ENTRY_WEIGHT));
    }

    #[test]
    fn whole_turns_are_forgotten() {
        let mut history = History::new(max_content_bytes(0));
        let long = "x".repeat(100 - ENTRY_WEIGHT);
        history.give(Item::text(Role::User, long.as_str()));
        history.give(Item::text(Role::User, long.as_str()));
        history.push(Item::text(Role::Model, long.as_str()));
        let place = history.reserve();
        history.put(place, Item::text(Role::User, "q"), Some(Origin::Utterance(InputSamples(7))));
        history.push(Item::text(Role::Model, long.as_str()));
        history.give(Item::text(Role::User, "r"));
        history.push(Item::text(Role::Model, "s"));
        assert_eq!(history.weight(), 400 + 3 * (1 + ENTRY_WEIGHT));
        assert_eq!(history.forget(300), Some(Origin::Utterance(InputSamples(7))), "a turn has two entries of its user");
        assert_eq!(history.iter().count(), 4);
        assert_eq!(history.forget(0), Some(Origin::Given(2)));
        assert_eq!(texts(&history), ["r", "s"]);
        assert_eq!(history.forget(0), None, "the last turn stays");
        history.push(Item::text(Role::Tool, "t"));
        history.give(Item::text(Role::Model, "u"));
        assert_eq!(history.forget(0), Some(Origin::Given(3)), "what is no turn goes as well, if it must");
    }

    #[test]
    fn pictures_count_by_their_pixels_and_weigh_by_their_tokens() {
        let mut history = History::new(max_content_bytes(0));
        let mut given = 0;
        while !history.is_full() {
            let rgb = vec![0_u8; 30_000];
            let picture = Picture::new(100, 100, rgb, MediaResolution::Low).expect("it has pixels");
            history.give(Item { role: Role::User, content: vec![Content::Picture(picture)] });
            history.give(Item::text(Role::Model, "yes"));
            given += 1;
        }
        assert_eq!(given, MAX_PIXEL_BYTES / LEAST_PICTURE + 1);
        assert_eq!(history.weight(), given * (64 * TOKEN + 3 + 2 * ENTRY_WEIGHT));
        assert!(history.forget_bound().is_some() && !history.is_full());
    }

    #[test]
    fn a_full_history_is_forgotten_by_a_quarter() {
        let mut history = History::new(max_content_bytes(0));
        for i in 0..=MAX_ITEMS {
            assert!(!history.is_full());
            history.give(Item::text(if i % 2 == 0 { Role::User } else { Role::Model }, "four"));
        }
        assert!(history.is_full());
        assert_eq!(history.forget_bound(), Some(Origin::Given(1_026)));
        assert_eq!(history.iter().count(), MAX_ITEMS / 4 * 3 - 1);
    }
}
