//! The vocoder: codec frames to sound, 1920 samples a frame at 24 kHz, as a stream without seams.
//!
//! A small transformer with a sliding window, two upsampling stages (arXiv 2201.03545), and a decoder of transposed and
//! dilated convolutions (arXiv 2306.06546). All of it is causal but for one row of look-ahead in each transposed
//! convolution of the decoder, so that the first frame gives 1365 samples and every later one 1920; the last 555 samples
//! of a stream, which would need a frame more, are not given, as in the reference implementation.

mod decoder;
mod transformer;
mod upsample;

use causerie_kernels::Pool;
use causerie_kernels::ops::linear;

use self::decoder::Decoder;
use self::transformer::Transformer;
use self::upsample::Upsample;
use super::OmniError;
use super::config::Code2WavConfig;
use super::load::Loader;

/// The vocoder's weights.
pub(super) struct Code2Wav {
    config: Code2WavConfig,
    /// `[quantizers · codebook, hidden]`.
    codes: Vec<f32>,
    transformer: Transformer,
    upsample: Vec<Upsample>,
    decoder: Decoder,
}

/// What one stream remembers: keys of a window, and the inputs that convolutions still need.
pub struct Voice {
    transformer: transformer::State,
    upsample: Vec<upsample::State>,
    decoder: decoder::State,
    scratch: Scratch,
}

/// Buffers reused from call to call. Stages read `x` and leave their result there.
#[derive(Default)]
struct Scratch {
    linear: linear::Scratch,
    columns: Vec<f32>,
    x: Vec<f32>,
    next: Vec<f32>,
    normed: Vec<f32>,
    inner: Vec<f32>,
}

impl Code2Wav {
    pub(super) fn load(loader: &Loader<'_>, config: &Code2WavConfig) -> Result<Self, OmniError> {
        let rows = config.quantizers * config.codebook;
        let upsample = config.ratios.iter().enumerate();
        Ok(Self {
            codes: loader.values("code2wav.code_embedding.weight", &[rows, config.hidden])?,
            transformer: Transformer::load(loader, config)?,
            upsample: upsample
                .map(|(i, ratio)| Upsample::load(loader, &format!("code2wav.upsample.{i}"), config.hidden, *ratio))
                .collect::<Result<_, _>>()?,
            decoder: Decoder::load(loader, config)?,
            config: config.clone(),
        })
    }

    /// A stream that has heard nothing yet.
    pub(super) fn voice(&self) -> Voice {
        Voice {
            transformer: self.transformer.state(),
            upsample: self.upsample.iter().map(Upsample::state).collect(),
            decoder: self.decoder.state(),
            scratch: Scratch::default(),
        }
    }

    /// Takes whole frames, `[frames, quantizers]`, and appends their samples to `pcm`.
    ///
    /// # Errors
    /// [`OmniError::Input`] for a code outside of its codebook, or a frame that is not whole.
    pub(super) fn push(
        &self,
        pool: &Pool,
        voice: &mut Voice,
        frames: &[u32],
        pcm: &mut Vec<f32>,
    ) -> Result<(), OmniError> {
        let Code2WavConfig { codebook, quantizers, hidden, .. } = self.config;
        if let Some(code) = frames.iter().find(|code| **code as usize >= codebook) {
            return Err(OmniError::Input(format!("code {code} is outside of a codebook of {codebook}")));
        }
        if !frames.len().is_multiple_of(quantizers) {
            return Err(OmniError::Input(format!("{} codes are not frames of {quantizers}", frames.len())));
        }
        let Voice { transformer, upsample, decoder, scratch } = voice;
        let x = &mut scratch.x;
        x.clear();
        x.resize(frames.len() / quantizers * hidden, 0.0);
        for (frame, row) in frames.chunks_exact(quantizers).zip(x.chunks_exact_mut(hidden)) {
            for (group, code) in frame.iter().enumerate() {
                let entry = &self.codes[(group * codebook + *code as usize) * hidden..][..hidden];
                row.iter_mut().zip(entry).for_each(|(x, e)| *x += e);
            }
            row.iter_mut().for_each(|x| *x /= quantizers as f32);
        }
        self.transformer.forward(pool, transformer, scratch);
        for (stage, state) in self.upsample.iter().zip(upsample) {
            stage.forward(pool, state, scratch);
        }
        self.decoder.forward(pool, decoder, scratch);
        pcm.extend(scratch.x.iter().map(|sample| sample.clamp(-1.0, 1.0)));
        Ok(())
    }
}
