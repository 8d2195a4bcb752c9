//! What is done for a conversation before a turn is begun: pictures are looked at as they come, speech is heard while it
//! goes on, and the thinker reads what is certain to stand in the next prompt.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use causerie_model_api::{Item, Picture, Role};

use super::conversation::Conversation;
use super::form::{End, Form};
use super::hearing::Hearing;
use super::history::{Entry, Piece};
use super::media::{Clip, Sight};
use super::prefixes::Prefixes;
use super::prompt::Prompt;
use crate::omni::config::{Config, VisionConfig};
use crate::omni::kv::KvStore;
use crate::omni::vision::Seen;

/// Frames of live video that wait for a turn, at most, if they fit into half of the context. When one more comes, every
/// other of them goes: what is left still spans the time since the last turn.
pub(super) const MAX_FRAMES: usize = 32;
/// Pictures that wait for the tower, at most, and bytes of their pixels. While there are more, frames go unseen; the history
/// bounds the pictures that somebody sends.
const MAX_UNSEEN: usize = 64;
const MAX_UNSEEN_BYTES: usize = 64 << 20;

/// Speech that goes on.
pub(super) struct Listening {
    /// Its first sample, as the session knows it.
    pub(super) from: u64,
    pub(super) hearing: Hearing,
}

/// What a conversation sees.
#[derive(Default)]
pub(super) struct Eye {
    /// Frames that no turn has had, oldest first.
    pub(super) frames: Vec<Arc<Sight>>,
    /// Pictures that have not gone through the tower.
    pub(super) unseen: VecDeque<(Arc<Sight>, Picture)>,
    /// What the tower made of the others, by their names.
    pub(super) seen: BTreeMap<u64, Arc<Seen>>,
}

impl Eye {
    /// The turn that ends at `until` has had the frames before it.
    pub(super) fn forget_before(&mut self, until: u64) {
        self.frames.retain(|frame| frame.at.is_none_or(|at| at >= until));
    }

    /// Whether one more frame may wait for the tower.
    fn has_room(&self) -> bool {
        let bytes: usize = self.unseen.iter().map(|(_, picture)| picture.rgb().len()).sum();
        self.unseen.len() < MAX_UNSEEN && bytes < MAX_UNSEEN_BYTES
    }

    /// A picture that the tower can read is looked at, unless the same was.
    fn look(&mut self, config: &VisionConfig, picture: &Picture, at: Option<u64>) -> Option<Arc<Sight>> {
        // Whoever decodes pictures refuses what the tower cannot read.
        let sight = Sight::new(config, picture, at).ok()?;
        let known = self.seen.contains_key(&sight.name) || self.unseen.iter().any(|(s, _)| s.name == sight.name);
        if !known {
            self.unseen.push_back((Arc::clone(&sight), picture.clone()));
        }
        Some(sight)
    }
}

impl Conversation {
    /// Somebody speaks since `from`.
    pub(super) fn listen(&mut self, from: u64) {
        if self.listening.as_ref().is_none_or(|listening| listening.from != from) {
            self.listening = Some(Listening { from, hearing: Hearing::new(from) });
        }
    }

    /// Takes a frame of live video.
    pub(super) fn frame(&mut self, config: &VisionConfig, at: u64, picture: Picture) {
        // Frames that take more than half of the context leave no room for what is said about them.
        let tokens: usize = self.eye.frames.iter().map(|frame| frame.tokens).sum();
        if self.eye.frames.len() >= MAX_FRAMES || 2 * tokens > self.context {
            let mut index = 0;
            self.eye.frames.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.forget_unseen();
            self.forget_unneeded();
        }
        if self.eye.has_room()
            && let Some(sight) = self.eye.look(config, &picture, Some(at))
        {
            self.eye.frames.push(sight);
        }
    }

    /// Takes items for the history; what was seen before them stands before what the user says.
    pub(super) fn append(&mut self, config: &VisionConfig, items: Vec<Item>) {
        let user = items.iter().any(|item| item.role == Role::User);
        let frames = if user { std::mem::take(&mut self.eye.frames) } else { Vec::new() };
        let eye = &mut self.eye;
        self.history.append(items, frames, &mut |picture| eye.look(config, picture, None));
    }

    /// The history is to be answered: what was seen is part of it.
    pub(super) fn enter_frames(&mut self) {
        let frames = std::mem::take(&mut self.eye.frames);
        self.history.append(Vec::new(), frames, &mut |_| None);
    }

    /// The frames that belong to the utterance `from..until`: of its earlier part, if it was answered too soon, and since.
    pub(super) fn frames(&self, from: u64, until: u64) -> Vec<Arc<Sight>> {
        let mut frames = self.history.frames_since(from);
        let waiting = self.eye.frames.iter().filter(|frame| frame.at.is_some_and(|at| at < until));
        frames.extend(waiting.map(Arc::clone));
        frames
    }

    /// Drops what is not to be looked at any more.
    pub(super) fn forget_unseen(&mut self) {
        let heard = self.turns.iter().filter_map(|turn| turn.heard.as_ref()).flat_map(names);
        let wanted = self.eye.frames.iter().chain(self.history.sights()).map(|sight| sight.name);
        let wanted: BTreeSet<u64> = wanted.chain(heard).collect();
        self.eye.unseen.retain(|(sight, _)| wanted.contains(&sight.name));
    }

    /// Drops what was seen and stands neither in the history nor in a prompt, nor waits for a turn.
    pub(super) fn forget_unneeded(&mut self) {
        let heard = self.turns.iter().filter_map(|turn| turn.heard.as_ref()).flat_map(names);
        let prompts = self.turns.iter().filter_map(|turn| turn.prompt.as_ref()).chain(&self.draft);
        let prompts = prompts.flat_map(Prompt::sights).map(|sight| sight.name);
        let wanted = self.eye.frames.iter().chain(self.history.sights()).map(|sight| sight.name);
        let wanted: BTreeSet<u64> = wanted.chain(heard).chain(prompts).collect();
        self.eye.seen.retain(|name, _| wanted.contains(name));
    }

    /// Whether the memory holds the instruction and nothing else: a beginning that others may share.
    pub(super) fn is_beginning(&self) -> bool {
        let drafted = self.draft.as_ref().is_some_and(|draft| draft.rows.len() == self.memory.rows.len());
        drafted && self.turns.is_empty() && self.history.entries().next().is_none()
    }

    /// Makes the draft anew if anything has changed and no turn is at work: what is certain to stand in the next prompt, as
    /// long as it fits into `limit` rows. The memory is cut to what agrees with it, unless it holds all of it.
    pub(super) fn refresh_draft(
        &mut self,
        config: &Config,
        form: &Form,
        (store, prefixes): (&mut KvStore, &mut Prefixes),
        limit: usize,
    ) {
        if !self.stale || !self.turns.is_empty() || !self.eye.unseen.is_empty() {
            return;
        }
        (self.stale, self.draft) = (false, None);
        let from = self.listening.as_ref().map_or(u64::MAX, |listening| listening.from);
        let mut pieces: Vec<Piece> = self.frames(from, u64::MAX).into_iter().map(Piece::Sight).collect();
        if let Some(Listening { hearing, .. }) = self.listening.as_ref().filter(|l| !l.hearing.rows.is_empty()) {
            pieces.push(Piece::Sound(Clip::new(hearing.rows.clone(), config.thinker.text.hidden).into()));
        }
        let open = (!pieces.is_empty()).then_some(Entry { role: Role::User, pieces });
        let entries = self.history.entries().take(self.history.before(from)).chain(&open);
        // A template that cannot end in the middle, or refuses the conversation: its turn will tell.
        let Ok(draft) = form.prompt(config, &self.config, entries, End::Open) else { return };
        prefixes.lend(store, &mut self.memory, &draft);
        let common = self.memory.common(&draft);
        if draft.rows.len() > limit || common == draft.rows.len() {
            return;
        }
        self.memory.truncate(store, common, config.thinker.text.hidden);
        self.draft = Some(draft);
    }
}

fn names(entry: &Entry) -> impl Iterator<Item = u64> {
    entry.pieces.iter().filter_map(|piece| if let Piece::Sight(sight) = piece { Some(sight.name) } else { None })
}
