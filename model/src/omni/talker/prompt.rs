//! What the talker hears before it speaks.

use causerie_kernels::Pool;
use causerie_kernels::ops::rope::Position;

use super::Scratch;
use crate::lm::moe::add;
use crate::omni::config::Config;
use crate::omni::positions::{Grid, Video, VideoWithSound, positions};
use crate::omni::{Omni, OmniError};

/// Rows that open an answer.
const OPENING_ROWS: usize = 9;
/// Tokens that open an answer in the thinker's prompt: `<|im_start|>`, `assistant`, a line break.
pub(in crate::omni) const ROLE_TOKENS: usize = 3;
/// The row of the opening from which codec ids are added.
const CODEC_FROM: usize = 3;

/// A conversation as the thinker saw it.
pub(in crate::omni) struct Prompt<'a> {
    /// The thinker's prompt: turns, the last of which is the assistant's, just opened.
    pub(in crate::omni) tokens: &'a [u32],
    /// The thinker's states after `accept_hidden_layer` layers at the placeholders of media, in order.
    pub(in crate::omni) media: &'a [f32],
    /// Pictures in the prompt.
    pub(in crate::omni) images: &'a [Grid],
    /// Videos in the prompt.
    pub(in crate::omni) videos: &'a [Video],
}

/// The rows before the first frame.
pub(in crate::omni) struct Opening {
    /// `[rows, hidden]`.
    pub(in crate::omni) rows: Vec<f32>,
    /// One a row.
    pub(in crate::omni) positions: Vec<Position>,
    /// The position of the first frame.
    pub(in crate::omni) next: f64,
}

/// Makes the talker's rows, wherever its weights are.
pub(in crate::omni) trait Projections {
    /// Of words, `[words, hidden]`.
    ///
    /// # Errors
    /// [`OmniError::Token`] for one outside of the vocabulary, or [`OmniError::Device`].
    fn words(&mut self, words: &[u32]) -> Result<Vec<f32>, OmniError>;

    /// Of the thinker's states at the places of media.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    fn states(&mut self, states: &[f32]) -> Result<Vec<f32>, OmniError>;

    /// Of codes of the first codebook, or of special ids.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    fn codes(&mut self, codes: &[u32]) -> Result<Vec<f32>, OmniError>;
}

/// Weights in the memory of this processor, on a pool.
pub(in crate::omni) struct OnPool<'a> {
    omni: &'a Omni,
    pool: &'a Pool,
    scratch: Scratch,
}

impl Omni {
    /// The talker's projections on a pool.
    pub(in crate::omni) fn projections<'a>(&'a self, pool: &'a Pool) -> OnPool<'a> {
        OnPool { omni: self, pool, scratch: Scratch::default() }
    }
}

impl Projections for OnPool<'_> {
    fn words(&mut self, words: &[u32]) -> Result<Vec<f32>, OmniError> {
        let (mut embeddings, mut rows) = (Vec::new(), Vec::new());
        self.omni.thinker.embed(words, &mut embeddings)?;
        self.omni.talker.project_text(self.pool, &mut self.scratch, &embeddings, &mut rows);
        Ok(rows)
    }

    fn states(&mut self, states: &[f32]) -> Result<Vec<f32>, OmniError> {
        let mut rows = Vec::new();
        self.omni.talker.project_hidden(self.pool, &mut self.scratch, states, &mut rows);
        Ok(rows)
    }

    fn codes(&mut self, codes: &[u32]) -> Result<Vec<f32>, OmniError> {
        let width = self.omni.talker.config.text.hidden;
        let mut rows = vec![0.0; codes.len() * width];
        for (row, code) in rows.chunks_exact_mut(width).zip(codes) {
            self.omni.talker.add_code(&mut self.scratch, *code, row);
        }
        Ok(rows)
    }
}

impl Opening {
    /// The user's turns of `prompt`, and the opening of an answer by `speaker` that begins with the word `first`.
    ///
    /// # Errors
    /// [`OmniError::Input`] if the prompt does not end with the opening of an answer, or as [`Projections`].
    pub(in crate::omni) fn new(
        config: &Config,
        projections: &mut dyn Projections,
        prompt: &Prompt<'_>,
        speaker: u32,
        first: u32,
    ) -> Result<Self, OmniError> {
        let (users, answer) = turns(config, prompt.tokens)?;
        let mut rows = user_rows(config, projections, prompt, &users)?;
        rows.extend(opening_rows(config, projections, answer, speaker, first)?);

        let mut ids: Vec<u32> = users.iter().flat_map(|turn| &prompt.tokens[turn.clone()]).copied().collect();
        ids.extend([config.ids.tts_pad; OPENING_ROWS]);
        let counted = VideoWithSound::Counted;
        let places = positions(&config.thinker, &ids, prompt.images, prompt.videos, counted)?;
        Ok(Self { rows, positions: places.of, next: places.next })
    }
}

/// The ranges of the user's turns, and the tokens that open the answer.
fn turns<'t>(config: &Config, tokens: &'t [u32]) -> Result<(Vec<std::ops::Range<usize>>, &'t [u32]), OmniError> {
    let ids = &config.ids;
    let starts: Vec<usize> = (0..tokens.len()).filter(|&i| tokens[i] == ids.im_start).collect();
    let role = |start: usize| tokens.get(start + 1).copied();
    let opens = |start: &usize| role(*start) == Some(ids.assistant) && start + ROLE_TOKENS == tokens.len();
    let last = starts.last().copied().filter(opens);
    let last = last.ok_or_else(|| OmniError::Input("the prompt does not end with the opening of an answer".into()))?;
    let turns = starts.windows(2).map(|pair| pair[0]..pair[1]);
    Ok((turns.filter(|turn| role(turn.start) == Some(ids.user)).collect(), &tokens[last..]))
}

fn user_rows(
    config: &Config,
    projections: &mut dyn Projections,
    prompt: &Prompt<'_>,
    users: &[std::ops::Range<usize>],
) -> Result<Vec<f32>, OmniError> {
    let width = config.talker.text.hidden;
    let (mut states, mut media) = (Vec::new(), prompt.media.chunks_exact(config.talker.thinker_hidden));
    let (mut words, mut is_media) = (Vec::new(), Vec::new());
    for (at, &token) in prompt.tokens.iter().enumerate() {
        let placeholder = config.thinker.media.is_placeholder(token);
        // States are in the order of the whole prompt, of which only the user's turns are taken.
        let state = if placeholder { media.next() } else { None };
        if users.iter().any(|turn| turn.contains(&at)) {
            is_media.push(placeholder);
            match state {
                Some(state) => states.extend_from_slice(state),
                None if placeholder => return Err(OmniError::Input("a placeholder has no state".into())),
                None => words.push(token),
            }
        }
    }
    let (text, heard) = (projections.words(&words)?, projections.states(&states)?);
    let (mut text, mut heard) = (text.chunks_exact(width), heard.chunks_exact(width));
    let row = |media: bool| if media { heard.next() } else { text.next() };
    Ok(is_media.into_iter().filter_map(row).flatten().copied().collect())
}

/// Words on the one side, codec ids on the other, added up.
fn opening_rows(
    config: &Config,
    projections: &mut dyn Projections,
    answer: &[u32],
    speaker: u32,
    first: u32,
) -> Result<Vec<f32>, OmniError> {
    let (ids, codec) = (&config.ids, &config.talker.ids);
    let mut rows = projections.words(&[answer, &[ids.tts_pad; 4], &[ids.tts_bos, first]].concat())?;
    let codes = [codec.nothink, codec.think_bos, codec.think_eos, speaker, codec.pad, codec.bos];
    add(&mut rows[CODEC_FROM * config.talker.text.hidden..], &projections.codes(&codes)?);
    Ok(rows)
}
