//! The passes: rows of several conversations through one network, and what comes of them.

use std::sync::Arc;

use causerie_kernels::ops::sample::{self, Context, Params};
use causerie_model_api::{Sampling, SessionId};

use super::OmniEngine;
use super::conversation::Conversation;
use super::early::Listening;
use super::hearing::Ear;
use super::networks::{Ahead, FrameDraw, Networks, Rows, Spoken, Talking, Thinking, Ways, Wish};
use super::prompt::{Medium, Row};
use super::schedule::Pass;
use super::turn::{Speech, Stage};
use crate::cascade::{constrained, fits};
use crate::omni::OmniError;
use crate::omni::config::Config;
use crate::omni::kv::Sequence;
use crate::omni::talker::{Opening, Prompt as TalkerPrompt, ROLE_TOKENS};
use crate::omni::vision::{self, Seen};

/// Decisions inside a frame are numbered apart from those of other frames.
const DRAWS_PER_FRAME: u64 = 64;
/// Keeps the draws of the talker apart from those of the thinker.
const TALKER_SEED: u64 = 0x5EED_0F7A_1CE2_0001;

/// One conversation's part in a pass through the thinker.
struct Share {
    session: SessionId,
    rows: Rows,
    decodes: bool,
    wish: Option<Wish>,
}

impl Rows {
    /// Appends row `row` of a picture.
    fn sight(&mut self, seen: &Seen, row: usize, width: usize) {
        let of = |rows: &[f32]| rows[row * width..][..width].to_vec();
        self.pictures.push(self.tokens.len());
        self.media.extend(of(&seen.tokens));
        self.deepstack.resize(seen.deepstack.len(), Vec::new());
        for (all, layer) in self.deepstack.iter_mut().zip(&seen.deepstack) {
            all.extend(of(layer));
        }
    }
}

impl OmniEngine {
    /// What went wrong in a pass ends the turns of those who took part in it, or all that the engine does.
    fn trouble(&mut self, sessions: &[SessionId], error: &OmniError) {
        if matches!(error, OmniError::Device(error) if !error.is_passing()) {
            self.lost = Some(error.to_string());
            return;
        }
        for session in sessions {
            if let Some(conversation) = self.sessions.get_mut(session) {
                conversation.fail_front(error.to_string());
            }
        }
    }

    /// A second of an utterance through the audio tower.
    pub(super) fn hear(&mut self, pass: &Pass) {
        for (session, _) in &pass.shares {
            let (tower, config) = (&mut *self.networks, &self.config.thinker.audio);
            let ear = Ear { pool: &self.pool, mel: &self.mel, loudest: self.loudest };
            let Some(conversation) = self.sessions.get_mut(session) else { continue };
            let done = if let Some(hearing) = conversation.hearing() {
                hearing.finish(&ear, tower, config).map(|over| {
                    if over {
                        conversation.heard(self.config.thinker.text.hidden);
                    }
                })
            } else if let Some(Listening { hearing, .. }) = &mut conversation.listening {
                let rows = hearing.rows.len();
                let done = hearing.go_on(&ear, tower, config, &conversation.audio);
                conversation.stale |= hearing.rows.len() > rows;
                done
            } else {
                Ok(())
            };
            if let Err(error) = done {
                self.trouble(&[*session], &error);
            }
        }
    }

    /// A picture through the vision tower.
    pub(super) fn look(&mut self, pass: &Pass) {
        let config = &self.config.thinker.vision;
        for (session, _) in &pass.shares {
            let Some(conversation) = self.sessions.get_mut(session) else { continue };
            let Some((sight, picture)) = conversation.eye.unseen.pop_front() else { continue };
            let mut seen = Seen::default();
            let patches = vision::patches(config, &picture, sight.grid);
            match patches.and_then(|patches| self.networks.see(&patches, &mut seen)) {
                Ok(()) => _ = conversation.eye.seen.insert(sight.name, Arc::new(seen)),
                // Its turn fails, for want of what was seen.
                Err(error) => return self.trouble(&[*session], &error),
            }
        }
    }

    /// Rows of prompts and words of answers through the thinker.
    pub(super) fn think(&mut self, pass: &Pass) {
        let mut shares = Vec::new();
        for &(session, rows) in &pass.shares {
            match self.thinker_rows(session, rows) {
                // The prompt waits for room.
                Ok(None) => {}
                Ok(Some(share)) => shares.push(share),
                Err(error) => self.trouble(&[session], &error),
            }
        }
        if shares.is_empty() {
            return;
        }
        shares.sort_by_key(|share| !share.decodes);
        let sessions: Vec<SessionId> = shares.iter().map(|share| share.session).collect();
        let sequence = |conversation: &mut Conversation| std::mem::take(&mut conversation.memory.sequence);
        let mut sequences: Vec<Sequence> =
            sessions.iter().filter_map(|session| Some(sequence(self.sessions.get_mut(session)?))).collect();
        let mut thinking: Vec<Thinking<'_>> = sequences
            .iter_mut()
            .zip(shares)
            .map(|(sequence, Share { rows, decodes, wish, .. })| Thinking { sequence, rows, decodes, wish })
            .collect();
        let store = &mut self.thinker.store;
        let done = self.networks.think(store, &mut thinking);
        for (session, sequence) in sessions.iter().zip(sequences) {
            let Some(conversation) = self.sessions.get_mut(session) else { continue };
            conversation.memory.sequence = sequence;
            if done.is_err() {
                // What ran of the rows is forgotten with them.
                conversation.memory.pending.clear();
                store.truncate(&mut conversation.memory.sequence, conversation.memory.rows.len());
            }
        }
        let outcomes = match done {
            Ok(outcomes) => outcomes,
            Err(error) => return self.trouble(&sessions, &error),
        };
        let mut ahead = Vec::new();
        for (session, outcome) in sessions.into_iter().zip(outcomes) {
            let Some(conversation) = self.sessions.get_mut(&session) else { continue };
            conversation.memory.states.extend(outcome.states);
            let memory = &mut conversation.memory;
            memory.rows.append(&mut memory.pending);
            if conversation.is_beginning() {
                self.prefixes.keep(&mut self.thinker.store, &conversation.memory);
            }
            ahead.push((session, outcome.ahead));
        }
        for (session, ahead) in ahead {
            let drawn = match ahead {
                Ahead::Unknown => continue,
                Ahead::Word(word) => Ok(word),
                Ahead::Logits(index) => self.draw_word(session, index),
            };
            match drawn {
                Ok(word) => self.take_word(session, word),
                Err(error) => self.trouble(&[session], &error),
            }
        }
    }

    /// Gathers a conversation's next rows, after making room for them: of its first turn, or of its draft. `None` when there
    /// are none now.
    fn thinker_rows(&mut self, session: SessionId, rows: usize) -> Result<Option<Share>, OmniError> {
        let mut into = Rows::default();
        let width = self.config.thinker.text.hidden;
        let gone = || OmniError::Input("the turn is gone".into());
        let conversation = self.sessions.get_mut(&session).ok_or_else(gone)?;
        let limit = self.context - conversation.max_words(self.generation.max_words);
        let memory = (&mut self.thinker.store, &mut self.prefixes);
        if !conversation.prepare_prompt(&self.config, &self.form, memory, limit).map_err(OmniError::Input)? {
            return Ok(None);
        }
        let turn = conversation.turns.front();
        let prompt = match turn {
            Some(turn) => turn.prompt.as_ref(),
            None => conversation.draft.as_ref(),
        };
        let prompt = prompt.ok_or_else(gone)?;
        let held = conversation.memory.rows.len();
        let (next, last, decodes) = match turn.map(|turn| &turn.stage) {
            Some(Stage::Decode(word)) => {
                let position = prompt.next + (held - prompt.rows.len()) as f64;
                (vec![(Row::Token(*word), [position; 3])], true, true)
            }
            _ => {
                let end = (held + rows).min(prompt.rows.len());
                let rows = prompt.rows[held..end].iter().copied().zip(prompt.positions[held..end].iter().copied());
                (rows.collect(), turn.is_some() && end == prompt.rows.len(), false)
            }
        };
        let (store, sequence) = (&mut self.thinker.store, &mut conversation.memory.sequence);
        if store.reserve(sequence, next.len()).is_err() {
            self.prefixes.forget(store);
            store.reserve(sequence, next.len())?;
        }
        for (index, (row, position)) in next.iter().enumerate() {
            match (row, prompt.medium(held + index)) {
                (Row::Token(token), _) => into.tokens.push(Some(*token)),
                (_, Some((Medium::Sound(clip), row))) => {
                    into.media.extend_from_slice(&clip.rows[row * width..][..width]);
                    into.tokens.push(None);
                }
                (_, Some((Medium::Sight(sight), row))) => {
                    into.sight(conversation.eye.seen.get(&sight.name).ok_or_else(gone)?, row, width);
                    into.tokens.push(None);
                }
                (_, None) => return Err(gone()),
            }
            into.positions.push(*position);
        }
        let wish = turn.filter(|_| last).map(|turn| {
            if turn.scanner.constraint().is_some() && turn.reply.thought.is_none() {
                return Wish::Logits;
            }
            let params = with_wishes(self.generation.thinker, &conversation.config.sampling);
            let (seed, place) = (word_seed(conversation, turn.reply.id.0), turn.drawn.len() as u64);
            Wish::Draw { params, seed, place, drawn: turn.drawn.clone() }
        });
        conversation.memory.pending = next;
        Ok(Some(Share { session, rows: into, decodes, wish }))
    }

    /// Draws a conversation's next word from its logits.
    fn draw_word(&mut self, session: SessionId, index: usize) -> Result<u32, OmniError> {
        let gone = || OmniError::Input("the turn is gone".into());
        let logits = self.networks.logits(index)?;
        let conversation = self.sessions.get(&session).ok_or_else(gone)?;
        let turn = conversation.turns.front().ok_or_else(gone)?;
        let params = with_wishes(self.generation.thinker, &conversation.config.sampling);
        let (seed, place) = (word_seed(conversation, turn.reply.id.0), turn.drawn.len() as u64);
        let (tokenizer, sampler) = (&self.form.tokenizer, &mut self.sampler);
        Ok(match turn.scanner.constraint().filter(|_| turn.reply.thought.is_none()) {
            None => {
                let context = Context { seen: &turn.drawn, reply: &turn.drawn };
                sample::sample(sampler, logits, &params, context, seed, place)
            }
            Some(acceptor) => {
                let pending = turn.detokenizer.pending();
                let fits = |token| fits(tokenizer, acceptor, pending, token);
                constrained(sampler, logits, &params, (seed, place), fits)
            }
        })
    }

    /// A conversation's next word is drawn.
    fn take_word(&mut self, session: SessionId, word: u32) {
        let Some(conversation) = self.sessions.get_mut(&session) else { return };
        let most = conversation.max_words(self.generation.max_words);
        #[cfg(test)]
        let word = self.script.pop_front().unwrap_or(word);
        let memory = (&mut self.thinker.store, self.config.thinker.text.hidden);
        conversation.drawn(&self.form, memory, self.config.ids.im_end, word, most);
    }

    /// Rows of openings and one row of each answer through the talker; every frame that comes of it becomes sound.
    pub(super) fn talk(&mut self, pass: &Pass) {
        let mut shares = Vec::new();
        for &(session, rows) in &pass.shares {
            match self.talker_rows(session, rows) {
                Ok((rows, draw)) => shares.push((session, rows, draw)),
                Err(error) => self.trouble(&[session], &error),
            }
        }
        if shares.is_empty() {
            return;
        }
        shares.sort_by_key(|(_, rows, _)| matches!(rows, Spoken::Opening { .. }));
        let sessions: Vec<SessionId> = shares.iter().map(|share| share.0).collect();
        let mut sequences: Vec<Sequence> = sessions
            .iter()
            .filter_map(|session| {
                let turn = self.sessions.get_mut(session)?.turns.front_mut()?;
                Some(std::mem::take(&mut turn.speech.as_mut()?.sequence))
            })
            .collect();
        let mut talking: Vec<Talking<'_>> = sequences
            .iter_mut()
            .zip(shares)
            .map(|(sequence, (_, rows, draw))| Talking { sequence, rows, draw })
            .collect();
        let ways = Ways { first: self.generation.talker, others: self.generation.predictor };
        let done = self.networks.talk(&mut self.talker.store, &ways, &mut talking);
        for (session, sequence) in sessions.iter().zip(sequences) {
            let turn = self.sessions.get_mut(session).and_then(|conversation| conversation.turns.front_mut());
            if let Some(speech) = turn.and_then(|turn| turn.speech.as_mut()) {
                speech.sequence = sequence;
            }
        }
        let frames = match done {
            Ok(frames) => frames,
            Err(error) => return self.trouble(&sessions, &error),
        };
        for (session, frame) in sessions.into_iter().zip(frames) {
            if let Some(frame) = frame
                && let Err(error) = self.take_frame(session, frame)
            {
                self.trouble(&[session], &error);
            }
        }
    }

    /// Gathers a conversation's next rows for the talker, after making room for them, and how the frame behind them is drawn.
    fn talker_rows(&mut self, session: SessionId, rows: usize) -> Result<(Spoken, Option<FrameDraw>), OmniError> {
        let gone = || OmniError::Input("the turn is gone".into());
        let width = self.config.talker.text.hidden;
        let conversation = self.sessions.get_mut(&session).ok_or_else(gone)?;
        if conversation.turns.front().is_some_and(|turn| turn.speech.is_none()) {
            let speech = open(&mut *self.networks, &self.config, conversation)?;
            conversation.turns.front_mut().ok_or_else(gone)?.speech = Some(speech);
        }
        let seed = conversation.seed;
        let turn = conversation.turns.front_mut().ok_or_else(gone)?;
        // Parts of a turn draw apart.
        let part = (turn.reply.id.0 << 8) + turn.reply.parts as u64;
        let seed = TALKER_SEED ^ seed ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let ids = &self.config.ids;
        let word =
            turn.speech.as_ref().and_then(|s| turn.word_after(s.codes.len().checked_sub(1)?, ids.tts_eos, ids.tts_pad));
        let speech = turn.speech.as_mut().ok_or_else(gone)?;
        let place = speech.codes.len() as u64 * DRAWS_PER_FRAME;
        let draw = FrameDraw { seed, place, codes: speech.codes.clone() };
        let opening = speech.positions.len();
        if opening > 0 {
            let count = rows.min(opening);
            self.talker.store.reserve(&mut speech.sequence, count)?;
            let rows = speech.rows.drain(..count * width).collect();
            let positions = speech.positions.drain(..count).collect();
            return Ok((Spoken::Opening { rows, positions }, (count == opening).then_some(draw)));
        }
        let word = word.ok_or_else(|| OmniError::Input("the talker has no word to say".into()))?;
        self.talker.store.reserve(&mut speech.sequence, 1)?;
        let position = [speech.next; 3];
        speech.next += 1.0;
        Ok((Spoken::Frame { codes: speech.frame.clone(), word, position }, Some(draw)))
    }

    /// Makes sound of a conversation's next frame, or takes its speech to be over.
    fn take_frame(&mut self, session: SessionId, frame: Vec<u32>) -> Result<(), OmniError> {
        let Some(conversation) = self.sessions.get_mut(&session) else { return Ok(()) };
        let Some(turn) = conversation.turns.front_mut() else { return Ok(()) };
        let Some(speech) = turn.speech.as_mut() else { return Ok(()) };
        let number = speech.codes.len();
        let first = frame.first().copied().filter(|code| *code != self.config.talker.ids.eos);
        let Some(code) = first.filter(|_| number < self.generation.max_frames) else {
            speech.ended = true;
            conversation.settle(0);
            return Ok(());
        };
        speech.codes.push(code);
        let mut pcm = Vec::new();
        self.networks.speak(&mut speech.voice, &frame, &mut pcm)?;
        speech.frame = frame;
        turn.spoke(number, pcm, &mut conversation.out);
        Ok(())
    }
}

/// What the words of a turn are drawn with.
fn word_seed(conversation: &Conversation, turn: u64) -> u64 {
    conversation.seed ^ turn.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The talker's side of the first turn, whose first word is there.
fn open(networks: &mut dyn Networks, config: &Config, conversation: &Conversation) -> Result<Speech, OmniError> {
    let missing = |what: &str| OmniError::Input(what.into());
    let turn = conversation.turns.front().ok_or_else(|| missing("the turn is gone"))?;
    let first = turn.prompt.as_ref().zip(turn.words.first());
    let (prompt, first) = first.ok_or_else(|| missing("there is nothing to say yet"))?;
    let mut tokens = prompt.token_ids(config);
    // What the answer begins with besides its role, such as a thought, is not for the talker.
    let answer = tokens.iter().rposition(|token| *token == config.ids.im_start);
    tokens.truncate(answer.map_or(tokens.len(), |start| start + ROLE_TOKENS));
    let (images, videos) = prompt.pictures();
    let speakers = &config.talker.speakers;
    let voice = speakers.iter().find(|(name, _)| *name == conversation.config.voice);
    let speaker = voice.or_else(|| speakers.iter().find(|(name, _)| name == super::DEFAULT_VOICE)).or(speakers.first());
    let speaker = speaker.ok_or_else(|| missing("the model has no voice"))?.1;
    let heard = TalkerPrompt { tokens: &tokens, media: &conversation.memory.states, images: &images, videos: &videos };
    let opening = Opening::new(config, networks, &heard, speaker, *first)?;
    Ok(Speech {
        sequence: Sequence::default(),
        rows: opening.rows,
        positions: opening.positions,
        next: opening.next,
        frame: Vec::new(),
        codes: Vec::new(),
        voice: networks.voice()?,
        ended: false,
    })
}

/// The checkpoint's way of drawing, changed where a conversation wishes so.
fn with_wishes(params: Params, wishes: &Sampling) -> Params {
    Params {
        temperature: wishes.temperature.unwrap_or(params.temperature),
        top_k: wishes.top_k.map_or(params.top_k, |k| k as usize),
        top_p: wishes.top_p.unwrap_or(params.top_p),
        min_p: wishes.min_p.unwrap_or(params.min_p),
        repetition: wishes.repetition_penalty.unwrap_or(params.repetition),
        presence: wishes.presence_penalty.unwrap_or(params.presence),
        frequency: wishes.frequency_penalty.unwrap_or(params.frequency),
    }
}
