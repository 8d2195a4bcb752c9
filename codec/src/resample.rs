//! Sample rate conversion by rubato's sinc filter, with exact counts and places.
//!
//! For a ratio L/M in lowest terms, output `k` is the convolution of the input with a windowed sinc centred at input
//! position `k·M/L`. The fractional part takes only L values, so the filter has L phases and nothing is interpolated
//! (Crochiere and Rabiner, Multirate Digital Signal Processing, §3.3). Around the filter it is promised that
//! - counts are exact: n samples in are `ceil(n·L/M)` out after a flush, at any chunking;
//! - nothing is shifted: output `k` is the sound at time `k / to`, the filter's delay being waited for, not added;
//! - the bits are the same for every chunking, as each output is one dot product over the same values.

use causerie_units::SampleRate;
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{
    Async, FixedAsync, Resampler as _, Resizable as _, SincInterpolationParameters, SincInterpolationType,
    WindowFunction,
};

use crate::CodecError;

/// Rates that are converted; others have no client and would need large tables.
pub const SUPPORTED_HZ: [u32; 11] =
    [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000];

/// The filter's length, in samples of the lower of the two rates: half of it is 2.5 ms at 8 kHz and 1.25 ms at 16 kHz.
/// With a Blackman window what is below 0.43 of the lower rate passes with an error under -70 dB, and what is above 0.57 of
/// it is 70 dB down, so that only the top eighth of the band hears an alias. 20 ms take 3 to 13 µs on one core of an EPYC
/// with AVX-512.
const LENGTH: usize = 40;
/// Samples that are converted at once.
const PIECE: usize = 480;

/// The rate as a type, if it is one of [`SUPPORTED_HZ`].
pub fn supported(hz: u32) -> Result<SampleRate, CodecError> {
    match SampleRate::new(hz) {
        Some(rate) if SUPPORTED_HZ.contains(&hz) => Ok(rate),
        _ => Err(CodecError::Unsupported(format!("sample rate {hz} Hz is not supported"))),
    }
}

/// A streaming converter of one channel. Equal rates pass through untouched and undelayed.
#[derive(Debug)]
pub struct Resampler {
    filter: Option<Filter>,
}

impl Resampler {
    /// A converter between two of [`SUPPORTED_HZ`].
    pub fn new(from: SampleRate, to: SampleRate) -> Result<Self, CodecError> {
        let (from, to) = (supported(from.hz())?.hz() as usize, supported(to.hz())?.hz() as usize);
        let filter = if from == to { None } else { Some(Filter::new(from, to)?) };
        Ok(Self { filter })
    }

    /// Output samples by which an output trails the input it is about. Changing input `n` changes no output before
    /// `n·to/from - lookahead`.
    pub fn lookahead(&self) -> u64 {
        self.filter.as_ref().map_or(0, Filter::lookahead)
    }

    /// Appends the outputs that `input` completes.
    pub fn push(&mut self, input: &[f32], out: &mut Vec<f32>) {
        match &mut self.filter {
            Some(filter) => {
                filter.received += input.len() as u64;
                filter.run(input, u64::MAX, out);
            }
            None => out.extend_from_slice(input),
        }
    }

    /// Appends what is left, with silence after the end, and resets.
    pub fn flush(&mut self, out: &mut Vec<f32>) {
        if let Some(filter) = &mut self.filter {
            let total = (filter.received * filter.step_out).div_ceil(filter.step_in);
            while filter.produced < total {
                filter.run(&[0.0; PIECE], total, out);
            }
            filter.reset();
        }
    }

    /// Forgets the past: the next input is input 0.
    pub fn reset(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.reset();
        }
    }
}

struct Filter {
    inner: Async<f32>,
    /// Outputs for `step_in` inputs, and the other way round: L and M.
    step_out: u64,
    step_in: u64,
    /// The filter's length in input samples.
    length: u64,
    received: u64,
    produced: u64,
    /// Outputs of the filter that are still to come before output 0.
    early: usize,
    scratch: Vec<f32>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("ratio", &(self.step_out, self.step_in)).finish_non_exhaustive()
    }
}

impl Filter {
    fn new(from: usize, to: usize) -> Result<Self, CodecError> {
        let divisor = gcd(from, to);
        let (step_out, step_in) = (to / divisor, from / divisor);
        let length = (LENGTH * step_in.max(step_out)).div_ceil(step_out).next_multiple_of(8);
        // As many points as phases, so that the nearest point is the exact one, and stays so for weeks: rubato adds places
        // up in f64, each with an error below 1e-13 samples. -6 dB at half the lower rate.
        let parameters = SincInterpolationParameters::new(length, WindowFunction::Blackman)
            .f_cutoff(1.0)
            .oversampling_factor(step_out)
            .interpolation(SincInterpolationType::Nearest);
        let ratio = step_out as f64 / step_in as f64;
        let inner = Async::new_sinc(ratio, 1.0, &parameters, PIECE, 1, FixedAsync::Input)
            .map_err(|error| CodecError::Failed(format!("no conversion from {from} to {to} Hz: {error}")))?;
        let mut filter = Self {
            inner,
            step_out: step_out as u64,
            step_in: step_in as u64,
            length: length as u64,
            received: 0,
            produced: 0,
            early: 0,
            scratch: Vec::new(),
        };
        filter.reset();
        Ok(filter)
    }

    /// rubato computes an output when it has the input behind its window and one sample more.
    fn lookahead(&self) -> u64 {
        ((self.length / 2 + 2) * self.step_out).div_ceil(self.step_in)
    }

    fn reset(&mut self) {
        self.inner.reset();
        (self.received, self.produced, self.early) = (0, 0, 0);
        // rubato centres its output `k` on input `((k + 1)·M + 1)/L - length/2`. So much silence before the beginning
        // brings one of them to input 0.
        let (l, m) = (self.step_out, self.step_in);
        let lead = (0..m).find(|lead| (l * (lead + self.length / 2)) % m == 1 % m).expect("L and M have no divisor");
        let early = (l * (lead + self.length / 2) - 1) / m - 1;
        self.early = early as usize;
        self.run(&vec![0.0; lead as usize], 0, &mut Vec::new());
    }

    /// Appends the outputs that `input` completes, until `total` were produced.
    fn run(&mut self, input: &[f32], total: u64, out: &mut Vec<f32>) {
        for piece in input.chunks(PIECE) {
            self.inner.set_chunk_size(piece.len()).expect("pieces are no longer than the longest");
            let frames = self.inner.output_frames_next();
            self.scratch.resize(frames, 0.0);
            let from = SequentialSlice::new(piece, 1, piece.len()).expect("one channel of this length");
            let mut to = SequentialSlice::new_mut(&mut self.scratch, 1, frames).expect("one channel of this length");
            self.inner.process_into_buffer(&from, &mut to, None).expect("the buffers have the sizes asked for");
            let early = self.early.min(frames);
            self.early -= early;
            let left = usize::try_from(total - self.produced).unwrap_or(usize::MAX);
            let fresh = &self.scratch[early..][..(frames - early).min(left)];
            self.produced += fresh.len() as u64;
            out.extend_from_slice(fresh);
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
