//! The passes: rows of several conversations through one network, and what comes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use causerie_kernels::ops::rope::Position;
use causerie_kernels::ops::sample::{self, Context, Params};
use causerie_model_api::{Sampling, SessionId};

use super::OmniEngine;
use super::conversation::Conversation;
use super::early::Listening;
use super::hearing::Ear;
use super::prompt::{Medium, Row};
use super::schedule::Pass;
use super::turn::{Speech, Stage};
use crate::cascade::{constrained, fits};
use crate::omni::decoder::{Deepstack, Input, Segment};
use crate::omni::kv::Sequence;
use crate::omni::talker::{Opening, Prompt as TalkerPrompt, ROLE_TOKENS};
use crate::omni::trace::Trace;
use crate::omni::vision::{self, Seen};

/// Decisions inside a frame are numbered apart from those of other frames.
const DRAWS_PER_FRAME: u64 = 64;
/// Keeps the draws of the talker apart from those of the thinker.
const TALKER_SEED: u64 = 0x5EED_0F7A_1CE2_0001;

/// One conversation's part in a pass.
struct Share {
    session: SessionId,
    rows: usize,
    /// Whether what follows the last row is wanted.
    last: bool,
}

/// Rows of a pass through the thinker.
#[derive(Default)]
struct Gathered {
    embeddings: Vec<f32>,
    positions: Vec<Position>,
    /// Rows that are pictures.
    pictures: Vec<usize>,
    /// What the vision tower adds to them, for each of the first layers.
    deepstack: Vec<Vec<f32>>,
}

impl Gathered {
    /// Appends another conversation's rows.
    fn append(&mut self, other: Self) {
        let first = self.positions.len();
        self.pictures.extend(other.pictures.iter().map(|row| first + row));
        self.embeddings.extend(other.embeddings);
        self.positions.extend(other.positions);
        self.deepstack.resize(self.deepstack.len().max(other.deepstack.len()), Vec::new());
        for (all, layer) in self.deepstack.iter_mut().zip(other.deepstack) {
            all.extend(layer);
        }
    }

    /// Appends row `row` of a picture.
    fn sight(&mut self, seen: &Seen, row: usize, width: usize) {
        let of = |rows: &[f32]| rows[row * width..][..width].to_vec();
        self.pictures.push(self.positions.len());
        self.embeddings.extend(of(&seen.tokens));
        self.deepstack.resize(seen.deepstack.len(), Vec::new());
        for (all, layer) in self.deepstack.iter_mut().zip(&seen.deepstack) {
            all.extend(of(layer));
        }
    }
}

impl OmniEngine {
    /// A second of an utterance through the audio tower.
    pub(super) fn hear(&mut self, pass: &Pass) {
        let (tower, config) = (&self.omni.audio, &self.omni.config.thinker.audio);
        let ear = Ear { pool: &self.pool, mel: &self.mel, loudest: self.loudest };
        for (session, _) in &pass.shares {
            let Some(conversation) = self.sessions.get_mut(session) else { continue };
            if let Some(hearing) = conversation.hearing() {
                if hearing.finish(&ear, tower, config) {
                    conversation.heard(self.omni.config.thinker.text.hidden);
                }
            } else if let Some(Listening { hearing, .. }) = &mut conversation.listening {
                let rows = hearing.rows.len();
                hearing.go_on(&ear, tower, config, &conversation.audio);
                conversation.stale |= hearing.rows.len() > rows;
            }
        }
    }

    /// A picture through the vision tower.
    pub(super) fn look(&mut self, pass: &Pass) {
        let config = &self.omni.config.thinker.vision;
        for (session, _) in &pass.shares {
            let Some(conversation) = self.sessions.get_mut(session) else { continue };
            let Some((sight, picture)) = conversation.eye.unseen.pop_front() else { continue };
            let mut seen = Seen::default();
            let done = vision::patches(config, &picture, sight.grid).and_then(|patches| {
                self.omni.vision.see(&self.pool, &mut self.buffers.vision, &patches.values, patches.grid, &mut seen)
            });
            match done {
                Ok(()) => _ = conversation.eye.seen.insert(sight.name, Arc::new(seen)),
                // Its turn fails, for want of what was seen.
                Err(error) => conversation.fail_front(error.to_string()),
            }
        }
    }

    /// Rows of prompts and words of answers through the thinker.
    pub(super) fn think(&mut self, pass: &Pass) {
        let (mut shares, mut gathered) = (Vec::new(), Gathered::default());
        for &(session, rows) in &pass.shares {
            match self.thinker_rows(session, rows) {
                // The prompt waits for room.
                Ok(None) => {}
                Ok(Some((share, rows))) => {
                    gathered.append(rows);
                    shares.push(share);
                }
                Err(error) => {
                    if let Some(conversation) = self.sessions.get_mut(&session) {
                        conversation.fail_front(error);
                    }
                }
            }
        }
        if shares.is_empty() {
            return;
        }
        let keep = Some(self.omni.config.talker.accept_hidden_layer);
        let Gathered { embeddings, positions, pictures, deepstack } = &gathered;
        let deepstack = Deepstack { rows: pictures, layers: deepstack };
        let input = Input { embeddings, positions, deepstack, keep };
        let sequence = |conversation: &mut Conversation| std::mem::take(&mut conversation.memory.sequence);
        let mut sequences: Vec<Sequence> =
            shares.iter().filter_map(|share| Some(sequence(self.sessions.get_mut(&share.session)?))).collect();
        let mut segments: Vec<Segment<'_>> =
            sequences.iter_mut().zip(&shares).map(|(sequence, share)| Segment { sequence, rows: share.rows }).collect();
        let (store, scratch) = (&mut self.thinker.store, &mut self.thinker.scratch);
        let done = self.omni.thinker.decoder.forward(&self.pool, scratch, store, &mut segments, &input, Trace::off());
        // Room was made before, so that nothing can fail here; if it does, the words are not drawn from old states.
        let width = self.omni.config.thinker.text.hidden;
        let mut finals = Vec::new();
        let mut end = 0;
        for (share, sequence) in shares.iter().zip(sequences) {
            let Some(conversation) = self.sessions.get_mut(&share.session) else { continue };
            conversation.memory.sequence = sequence;
            if let Err(error) = &done {
                conversation.fail_front(error.to_string());
                continue;
            }
            let kept = &scratch.kept[end * width..(end + share.rows) * width];
            ran(conversation, kept, width);
            if conversation.is_beginning() {
                self.prefixes.keep(store, &conversation.memory);
            }
            end += share.rows;
            if share.last {
                finals.extend_from_slice(&scratch.hidden[(end - 1) * width..end * width]);
            }
        }
        if done.is_ok() && !finals.is_empty() {
            let (linear, logits) = (&mut self.buffers.linear, &mut self.buffers.logits);
            self.omni.thinker.logits(&self.pool, linear, &finals, logits);
            self.draw_words(shares.iter().filter(|share| share.last).map(|share| share.session).collect());
        }
    }

    /// Gathers a conversation's next rows, after making room for them: of its first turn, or of its draft. `None` when there
    /// are none now.
    fn thinker_rows(&mut self, session: SessionId, rows: usize) -> Result<Option<(Share, Gathered)>, String> {
        let mut into = Gathered::default();
        let width = self.omni.config.thinker.text.hidden;
        let gone = || "the turn is gone".to_owned();
        let conversation = self.sessions.get_mut(&session).ok_or_else(gone)?;
        let limit = self.context - conversation.max_words(self.generation.max_words);
        let memory = (&mut self.thinker.store, &mut self.prefixes);
        if !conversation.prepare_prompt(&self.omni.config, &self.form, memory, limit)? {
            return Ok(None);
        }
        let turn = conversation.turns.front();
        let prompt = match turn {
            Some(turn) => turn.prompt.as_ref(),
            None => conversation.draft.as_ref(),
        };
        let prompt = prompt.ok_or_else(gone)?;
        let held = conversation.memory.rows.len();
        let (next, last) = match turn.map(|turn| &turn.stage) {
            Some(Stage::Decode(word)) => {
                let position = prompt.next + (held - prompt.rows.len()) as f64;
                (vec![(Row::Token(*word), [position; 3])], true)
            }
            _ => {
                let end = (held + rows).min(prompt.rows.len());
                let rows = prompt.rows[held..end].iter().copied().zip(prompt.positions[held..end].iter().copied());
                (rows.collect(), turn.is_some() && end == prompt.rows.len())
            }
        };
        let (store, sequence) = (&mut self.thinker.store, &mut conversation.memory.sequence);
        if store.reserve(sequence, next.len()).is_err() {
            self.prefixes.forget(store);
            store.reserve(sequence, next.len()).map_err(|e| e.to_string())?;
        }
        for (index, (row, position)) in next.iter().enumerate() {
            match (row, prompt.medium(held + index)) {
                (Row::Token(token), _) => {
                    self.omni.thinker.embed(&[*token], &mut into.embeddings).map_err(|e| e.to_string())?;
                }
                (_, Some((Medium::Sound(clip), row))) => {
                    into.embeddings.extend_from_slice(&clip.rows[row * width..][..width]);
                }
                (_, Some((Medium::Sight(sight), row))) => {
                    into.sight(conversation.eye.seen.get(&sight.name).ok_or_else(gone)?, row, width);
                }
                (_, None) => return Err(gone()),
            }
            into.positions.push(*position);
        }
        let rows = next.len();
        conversation.memory.pending = next;
        Ok(Some((Share { session, rows, last }, into)))
    }

    /// Draws the next word of every conversation whose logits are there.
    fn draw_words(&mut self, sessions: Vec<SessionId>) {
        let vocabulary = self.omni.config.thinker.text.vocabulary;
        for (session, logits) in sessions.into_iter().zip(self.buffers.logits.chunks_exact_mut(vocabulary)) {
            let Some(conversation) = self.sessions.get_mut(&session) else { continue };
            let params = with_wishes(self.generation.thinker, &conversation.config.sampling);
            let most = conversation.max_words(self.generation.max_words);
            let Some(turn) = conversation.turns.front() else { continue };
            let seed = conversation.seed ^ turn.id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let (tokenizer, place) = (&self.form.tokenizer, turn.drawn.len() as u64);
            let sampler = &mut self.buffers.sampler;
            let word = match turn.scanner.constraint().filter(|_| turn.thought.is_none()) {
                None => {
                    let context = Context { seen: &turn.drawn, reply: &turn.drawn };
                    sample::sample(sampler, logits, &params, context, seed, place)
                }
                Some(acceptor) => {
                    let pending = turn.detokenizer.pending();
                    let fits = |token| fits(tokenizer, acceptor, pending, token);
                    constrained(sampler, logits, &params, (seed, place), fits)
                }
            };
            #[cfg(test)]
            let word = self.script.pop_front().unwrap_or(word);
            let memory = (&mut self.thinker.store, self.omni.config.thinker.text.hidden);
            conversation.drawn(&self.form, memory, self.omni.config.ids.im_end, word, most);
        }
    }

    /// Rows of openings and one row of each answer through the talker; every frame that comes of it becomes sound.
    pub(super) fn talk(&mut self, pass: &Pass) {
        let (mut shares, mut embeddings, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for &(session, rows) in &pass.shares {
            match self.talker_rows(session, rows, &mut embeddings, &mut positions) {
                Ok(share) => shares.push(share),
                Err(error) => {
                    if let Some(conversation) = self.sessions.get_mut(&session) {
                        conversation.fail_front(error);
                    }
                }
            }
        }
        if shares.is_empty() {
            return;
        }
        let input =
            Input { embeddings: &embeddings, positions: &positions, deepstack: Deepstack::default(), keep: None };
        let mut sequences: Vec<Sequence> = shares
            .iter()
            .filter_map(|share| {
                let turn = self.sessions.get_mut(&share.session)?.turns.front_mut()?;
                Some(std::mem::take(&mut turn.speech.as_mut()?.sequence))
            })
            .collect();
        let mut segments: Vec<Segment<'_>> =
            sequences.iter_mut().zip(&shares).map(|(sequence, share)| Segment { sequence, rows: share.rows }).collect();
        let (store, scratch) = (&mut self.talker.store, &mut self.talker.scratch);
        let done = self.omni.talker.decoder.forward(&self.pool, scratch, store, &mut segments, &input, Trace::off());
        let width = self.omni.config.talker.text.hidden;
        let (mut end, mut states, mut speakers) = (0, Vec::new(), Vec::new());
        for (share, sequence) in shares.iter().zip(sequences) {
            let Some(conversation) = self.sessions.get_mut(&share.session) else { continue };
            let Some(speech) = conversation.turns.front_mut().and_then(|turn| turn.speech.as_mut()) else { continue };
            speech.sequence = sequence;
            if let Err(error) = &done {
                conversation.fail_front(error.to_string());
                continue;
            }
            end += share.rows;
            if share.last {
                states.extend_from_slice(&scratch.hidden[(end - 1) * width..end * width]);
                speakers.push(share.session);
            }
        }
        if done.is_ok() && !speakers.is_empty() {
            self.draw_frames(&speakers, &states);
        }
    }

    /// Appends a conversation's next rows for the talker, after making room for them.
    fn talker_rows(
        &mut self,
        session: SessionId,
        rows: usize,
        embeddings: &mut Vec<f32>,
        positions: &mut Vec<[f64; 3]>,
    ) -> Result<Share, String> {
        let gone = || "the turn is gone".to_owned();
        let width = self.omni.config.talker.text.hidden;
        let conversation = self.sessions.get_mut(&session).ok_or_else(gone)?;
        if conversation.turns.front().is_some_and(|turn| turn.speech.is_none()) {
            let speech = open(&self.pool, &self.omni, conversation)?;
            conversation.turns.front_mut().ok_or_else(gone)?.speech = Some(speech);
        }
        let turn = conversation.turns.front_mut().ok_or_else(gone)?;
        let ids = &self.omni.config.ids;
        let word =
            turn.speech.as_ref().and_then(|s| turn.word_after(s.codes.len().checked_sub(1)?, ids.tts_eos, ids.tts_pad));
        let speech = turn.speech.as_mut().ok_or_else(gone)?;
        let opening = speech.positions.len();
        if opening > 0 {
            let rows = rows.min(opening);
            self.talker.store.reserve(&mut speech.sequence, rows).map_err(|e| e.to_string())?;
            embeddings.extend(speech.rows.drain(..rows * width));
            positions.extend(speech.positions.drain(..rows));
            return Ok(Share { session, rows, last: rows == opening });
        }
        let word = word.ok_or_else(|| "the talker has no word to say".to_owned())?;
        self.talker.store.reserve(&mut speech.sequence, 1).map_err(|e| e.to_string())?;
        let (mut embedding, mut projected) = (Vec::new(), Vec::new());
        self.omni.thinker.embed(&[word], &mut embedding).map_err(|e| e.to_string())?;
        self.omni.talker.project_text(&self.pool, &mut self.buffers.talker, &embedding, &mut projected);
        let at = embeddings.len();
        embeddings.resize(at + width, 0.0);
        self.omni.talker.next_row(&mut self.buffers.talker, &speech.frame, &projected, &mut embeddings[at..]);
        positions.push([speech.next; 3]);
        speech.next += 1.0;
        Ok(Share { session, rows: 1, last: true })
    }

    /// Draws a frame for each of `speakers` from the talker's states, and makes sound of it.
    fn draw_frames(&mut self, speakers: &[SessionId], states: &[f32]) {
        let talker = &self.omni.talker;
        let (width, vocabulary) = (self.omni.config.talker.text.hidden, self.omni.config.talker.text.vocabulary);
        talker.logits(&self.pool, &mut self.buffers.talker, states, &mut self.buffers.logits);
        let (mut starts, mut frames, mut seeds) = (Vec::new(), BTreeMap::new(), Vec::new());
        let rows = states.chunks_exact(width).zip(self.buffers.logits.chunks_exact_mut(vocabulary));
        for (session, (state, logits)) in speakers.iter().zip(rows) {
            let Some(conversation) = self.sessions.get_mut(session) else { continue };
            let Some(turn) = conversation.turns.front_mut() else { continue };
            // Parts of a turn draw apart.
            let part = (turn.id.0 << 8) + turn.parts as u64;
            let seed = TALKER_SEED ^ conversation.seed ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let Some(speech) = turn.speech.as_mut() else { continue };
            let frame = speech.codes.len();
            talker.suppress(logits);
            let context = Context { seen: &speech.codes, reply: &[] };
            let place = frame as u64 * DRAWS_PER_FRAME;
            let code = sample::sample(&mut self.buffers.sampler, logits, &self.generation.talker, context, seed, place);
            if code == self.omni.config.talker.ids.eos || frame >= self.generation.max_frames {
                speech.ended = true;
                conversation.settle(0);
                continue;
            }
            speech.codes.push(code);
            let at = starts.len();
            starts.resize(at + 2 * width, 0.0);
            starts[at..at + width].copy_from_slice(state);
            talker.add_code(&mut self.buffers.talker, code, &mut starts[at + width..]);
            frames.insert(*session, vec![code]);
            seeds.push((*session, seed, place));
        }
        let (sampler, params) = (&mut self.buffers.sampler, &self.generation.predictor);
        let completed = talker.predictor.complete(&self.pool, &mut self.frames, &starts, &mut |i, group, logits| {
            let (session, seed, place) = seeds[i];
            let code = sample::sample(sampler, logits, params, Context::default(), seed, place + 1 + group as u64);
            frames.entry(session).or_default().push(code);
            code
        });
        for (session, frame) in frames {
            let Some(conversation) = self.sessions.get_mut(&session) else { continue };
            let Some(turn) = conversation.turns.front_mut() else { continue };
            let Some(speech) = turn.speech.as_mut() else { continue };
            let mut pcm = Vec::new();
            let sound = self.omni.code2wav.push(&self.pool, &mut speech.voice, &frame, &mut pcm);
            if let Err(error) = completed.as_ref().and(sound.as_ref()) {
                conversation.fail_front(error.to_string());
                continue;
            }
            let number = speech.codes.len() - 1;
            speech.frame = frame;
            turn.spoke(number, pcm, &mut conversation.out);
        }
    }
}

/// The thinker has run a conversation's pending rows; `kept` are the states that the talker may want of them.
fn ran(conversation: &mut Conversation, kept: &[f32], width: usize) {
    let memory = &mut conversation.memory;
    for ((row, _), state) in memory.pending.iter().zip(kept.chunks_exact(width)) {
        if row.is_media() {
            memory.states.extend_from_slice(state);
        }
    }
    memory.rows.append(&mut memory.pending);
}

/// The talker's side of the first turn, whose first word is there.
fn open(
    pool: &causerie_kernels::Pool,
    omni: &crate::omni::Omni,
    conversation: &Conversation,
) -> Result<Speech, String> {
    let turn = conversation.turns.front().ok_or("the turn is gone")?;
    let (prompt, first) = turn.prompt.as_ref().zip(turn.reply.first()).ok_or("there is nothing to say yet")?;
    let mut tokens = prompt.token_ids(&omni.config);
    // What the answer begins with besides its role, such as a thought, is not for the talker.
    let answer = tokens.iter().rposition(|token| *token == omni.config.ids.im_start);
    tokens.truncate(answer.map_or(tokens.len(), |start| start + ROLE_TOKENS));
    let (images, videos) = prompt.pictures();
    let speakers = &omni.config.talker.speakers;
    let voice = speakers.iter().find(|(name, _)| *name == conversation.config.voice);
    let speaker = voice.or_else(|| speakers.iter().find(|(name, _)| name == super::DEFAULT_VOICE)).or(speakers.first());
    let speaker = speaker.ok_or("the model has no voice")?.1;
    let heard = TalkerPrompt { tokens: &tokens, media: &conversation.memory.states, images: &images, videos: &videos };
    let opening = Opening::new(pool, omni, &heard, speaker, *first).map_err(|e| e.to_string())?;
    Ok(Speech {
        sequence: Sequence::default(),
        rows: opening.rows,
        positions: opening.positions,
        next: opening.next,
        frame: Vec::new(),
        codes: Vec::new(),
        voice: omni.code2wav.voice(),
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
