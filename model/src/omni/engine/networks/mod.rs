//! The networks as the engine uses them, wherever they are: rows of several conversations in, words, frames and sounds out.
//!
//! What is drawn is drawn where the logits are. A conversation whose words have to fit a grammar, or that wishes for what a
//! device cannot do, is given its logits instead, and draws itself.

mod cpu;
mod device;

use causerie_kernels::ops::rope::Position;
use causerie_kernels::ops::sample::Params;

use crate::omni::audio::Tower;
use crate::omni::kv::{KvStore, Sequence};
use crate::omni::talker::Projections;
use crate::omni::vision::{Patches, Seen};
use crate::omni::{OmniError, code2wav, cuda};

pub(super) use cpu::OnCpu;
pub(super) use device::{OnDevice, Sizes};

/// The networks. The audio tower and the talker's projections are [`Tower`] and [`Projections`].
pub(super) trait Networks: Tower + Projections + Send {
    /// Runs rows of conversations through the thinker: those that decode first, then those of prompts. One outcome for each.
    ///
    /// # Errors
    /// [`OmniError`]; what the sequences hold is not known then.
    fn think(&mut self, store: &mut KvStore, shares: &mut [Thinking<'_>]) -> Result<Vec<Outcome>, OmniError>;

    /// The logits of an [`Ahead::Logits`], until the next pass.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    fn logits(&mut self, index: usize) -> Result<&mut [f32], OmniError>;

    /// Appends what is seen in `patches` to `seen`.
    ///
    /// # Errors
    /// [`OmniError::Input`] for patches that the tower cannot read, or [`OmniError::Device`].
    fn see(&mut self, patches: &Patches, seen: &mut Seen) -> Result<(), OmniError>;

    /// Runs rows of answers through the talker: those of frames first, then those of openings. For each that draws, the codes
    /// of its next frame, or the end of speech alone.
    ///
    /// # Errors
    /// As [`Networks::think`].
    fn talk(
        &mut self,
        store: &mut KvStore,
        ways: &Ways,
        shares: &mut [Talking<'_>],
    ) -> Result<Vec<Option<Vec<u32>>>, OmniError>;

    /// A stream of sound that has heard nothing yet.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    fn voice(&mut self) -> Result<Voice, OmniError>;

    /// Appends the samples of a frame to `pcm`.
    ///
    /// # Errors
    /// [`OmniError`].
    fn speak(&mut self, voice: &mut Voice, frame: &[u32], pcm: &mut Vec<f32>) -> Result<(), OmniError>;

    /// Bytes of the weights.
    #[cfg(test)]
    fn bytes(&self) -> u64;
}

/// A conversation's part in a pass through the thinker.
pub(super) struct Thinking<'a> {
    /// What came before. The rows are appended.
    pub(super) sequence: &'a mut Sequence,
    pub(super) rows: Rows,
    /// Whether this is the word before the next, and not a part of a prompt.
    pub(super) decodes: bool,
    /// How the word behind the last row is drawn, if it is wanted.
    pub(super) wish: Option<Wish>,
}

/// Rows of one conversation for the thinker.
#[derive(Default)]
pub(super) struct Rows {
    /// One a row; `None` for media.
    pub(super) tokens: Vec<Option<u32>>,
    /// One a row.
    pub(super) positions: Vec<Position>,
    /// The rows of media, `[media, hidden]`.
    pub(super) media: Vec<f32>,
    /// Rows that are pictures.
    pub(super) pictures: Vec<usize>,
    /// What the vision tower adds to them, for each of the first layers.
    pub(super) deepstack: Vec<Vec<f32>>,
}

/// How a word is drawn.
pub(super) enum Wish {
    /// By the conversation, from logits.
    Logits,
    /// Like this.
    Draw { params: Params, seed: u64, place: u64, drawn: Vec<u32> },
}

/// What came of a conversation's rows.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The states that the talker may want of the rows of media, `[media, hidden]`.
    pub(super) states: Vec<f32>,
    /// What follows the last row.
    pub(super) ahead: Ahead,
}

/// What follows a conversation's last row.
#[derive(Debug, Default)]
pub(super) enum Ahead {
    /// Nobody wants to know.
    #[default]
    Unknown,
    /// A word.
    Word(u32),
    /// Logits, by their number.
    Logits(usize),
}

/// How all frames are drawn.
#[derive(Clone, Copy)]
pub(super) struct Ways {
    /// Of their first codes.
    pub(super) first: Params,
    /// Of the others.
    pub(super) others: Params,
}

/// An answer's part in a pass through the talker.
pub(super) struct Talking<'a> {
    /// What came before. The rows are appended.
    pub(super) sequence: &'a mut Sequence,
    pub(super) rows: Spoken,
    /// How the frame behind the last row is drawn, if it is wanted.
    pub(super) draw: Option<FrameDraw>,
}

/// Rows of one answer.
pub(super) enum Spoken {
    /// The one that follows a frame.
    Frame { codes: Vec<u32>, word: u32, position: Position },
    /// Some of those before the first frame, `[rows, hidden]`.
    Opening { rows: Vec<f32>, positions: Vec<Position> },
}

impl Spoken {
    /// How many rows.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Frame { .. } => 1,
            Self::Opening { positions, .. } => positions.len(),
        }
    }
}

/// The random numbers of a frame: its codes have those from `place` on.
pub(super) struct FrameDraw {
    pub(super) seed: u64,
    pub(super) place: u64,
    /// First codes of the frames before.
    pub(super) codes: Vec<u32>,
}

/// What a stream of sound remembers.
pub(super) enum Voice {
    Cpu(Box<code2wav::Voice>),
    Device(Box<cuda::code2wav::Voice>),
}

/// A voice that was made by other networks.
fn stranger() -> OmniError {
    OmniError::Input("this voice belongs to another device".into())
}
