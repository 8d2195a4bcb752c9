//! What a model needs before it is loaded: a pure function from its configuration and an operator's wishes to sizes, or to
//! the error that it does not fit.
//!
//! Weights are counted tensor by tensor, as the loader places them. Keys and values are blocks for every conversation's
//! window; buffers are an upper bound from the largest pass.

use std::fmt;

use causerie_kernels::ops::linear::NarrowType;
use causerie_kernels::ops::paged_attention::Visible;

use super::OmniError;
use super::config::{AudioConfig, Code2WavConfig, Config, FeedForwardConfig, TalkerConfig, TextConfig, VisionConfig};
use super::decoder::layout;
use super::kv::{KvType, Layout};
use super::load::Placement;

/// Positions in a block of keys and values.
pub const BLOCK: usize = 16;

/// What an operator wishes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wishes {
    /// How weights are kept.
    pub weights: Placement,
    /// How keys and values are kept.
    pub kv: KvType,
    /// Bytes of the device's memory; `None` where the system decides.
    pub device: Option<u64>,
    /// Tokens of a prompt and its reply.
    pub window: usize,
    /// Conversations at once.
    pub sessions: usize,
    /// Frames of a reply, at most: the talker remembers its prompt and as many.
    pub frames: usize,
    /// Prompt rows of a pass.
    pub rows: usize,
    /// Which of the keys in the window the thinker's rows see.
    pub visible: Visible,
}

/// What a part of the model or of its memory needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Parameters; 0 for what is no weights.
    pub parameters: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What is needed in all.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What was wished for.
    pub wishes: Wishes,
    /// Weights, part by part.
    pub weights: Vec<Part>,
    /// The thinker's keys and values.
    pub thinker: Layout,
    /// The talker's keys and values.
    pub talker: Layout,
    /// Everything else.
    pub memory: Vec<Part>,
    /// Conversations that the device has memory for: what admission may let in.
    pub room: Option<usize>,
}

impl Plan {
    /// Plans for a model of that shape.
    ///
    /// # Errors
    /// [`OmniError::Window`] for a window beyond what the model's positions reach, [`OmniError::Fit`] if the device has not
    /// the memory.
    pub fn new(config: &Config, wishes: Wishes) -> Result<Self, OmniError> {
        let reach = config.thinker.text.reach();
        if wishes.window > reach {
            return Err(OmniError::Window { window: wishes.window, reach });
        }
        let mut plan = Self::of(config, wishes);
        let Some(device) = wishes.device else { return Ok(plan) };
        // Every conversation needs as much as the one before it.
        let each = Self::of(config, Wishes { sessions: wishes.sessions + 1, ..wishes }).bytes() - plan.bytes();
        let shared = plan.bytes() - wishes.sessions as u64 * each;
        plan.room = Some(usize::try_from(device.saturating_sub(shared) / each.max(1)).unwrap_or(usize::MAX));
        if plan.bytes() > device {
            return Err(OmniError::Fit { needed: plan.bytes(), device, report: plan.to_string() });
        }
        Ok(plan)
    }

    /// Whether it fits or not.
    fn of(config: &Config, wishes: Wishes) -> Self {
        let kept = match wishes.visible {
            Visible::All => wishes.window,
            // The rows of a pass, and a block at either end of the sinks and of the window.
            Visible::Recent { window, sinks } => wishes.window.min(window + sinks + wishes.rows + 4 * BLOCK),
        };
        let blocks = |positions: usize| wishes.sessions * positions.div_ceil(BLOCK);
        let spoken = wishes.window + wishes.frames;
        Self {
            wishes,
            weights: weights(config, wishes.weights),
            thinker: layout(&config.thinker.text, wishes.kv, BLOCK, blocks(kept)),
            talker: layout(&config.talker.text, wishes.kv, BLOCK, blocks(spoken)),
            memory: memory(config, &wishes),
            room: None,
        }
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.iter().map(|part| part.bytes).sum()
    }

    /// Bytes of everything.
    pub fn bytes(&self) -> u64 {
        let memory: u64 = self.memory.iter().map(|part| part.bytes).sum();
        self.weight_bytes() + self.thinker.bytes() + self.talker.bytes() + memory
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let Wishes { weights, kv, window, sessions, .. } = self.wishes;
        writeln!(f, "weights in {weights}, keys and values in {kv}, {sessions} × {window} tokens")?;
        for Part { name, parameters, bytes } in &self.weights {
            writeln!(f, "  {name:<28} {:>9.3} GiB {:>9.1} M", gib(*bytes), *parameters as f64 / 1e6)?;
        }
        for (name, layout) in [("keys and values, thinker", self.thinker), ("keys and values, talker", self.talker)] {
            let position = layout.position_bytes() as f64 / 1024.0;
            writeln!(f, "  {name:<28} {:>9.3} GiB {position:>9.1} KiB a token", gib(layout.bytes()))?;
        }
        for Part { name, bytes, .. } in &self.memory {
            writeln!(f, "  {name:<28} {:>9.3} GiB", gib(*bytes))?;
        }
        write!(f, "  {:<28} {:>9.3} GiB", "in all", gib(self.bytes()))?;
        match self.wishes.device.zip(self.room) {
            Some((device, room)) => write!(f, " of {:.3}, room for {room} conversations", gib(device)),
            None => Ok(()),
        }
    }
}

/// Counts tensors for one placement.
struct Counter {
    placement: Placement,
    parameters: u64,
    bytes: u64,
}

impl Counter {
    fn add(&mut self, kind: Option<NarrowType>, times: usize, n: usize, k: usize) {
        let (times, n, k) = (times as u64, n as u64, k as u64);
        let add = |sum: &mut u64, one: u64| *sum = sum.saturating_add(times.saturating_mul(one));
        add(&mut self.parameters, n.saturating_mul(k));
        add(&mut self.bytes, kind.map_or((4 * n).saturating_mul(k), |kind| kind.bytes(n, k)));
    }

    /// `times` matrices of a decoder's layers.
    fn layer(&mut self, times: usize, n: usize, k: usize) {
        self.add(self.placement.of(true), times, n, k);
    }

    /// `times` other matrices.
    fn matrix(&mut self, times: usize, n: usize, k: usize) {
        self.add(self.placement.of(false), times, n, k);
    }

    /// `times` layers `x Wᵀ + b` outside of the decoders.
    fn linear(&mut self, times: usize, n: usize, k: usize) {
        self.matrix(times, n, k);
        self.floats(times * n);
    }

    /// What is always kept in 32-bit floats.
    fn floats(&mut self, n: usize) {
        self.add(None, 1, n, 1);
    }

    fn decoder(&mut self, config: &TextConfig) {
        let TextConfig { hidden, layers, head_dim, .. } = *config;
        let (q, kv) = (config.q_width(), config.kv_width());
        self.layer(layers, q, hidden);
        self.layer(2 * layers, kv, hidden);
        self.layer(layers, hidden, q);
        self.floats(layers * 2 * (hidden + head_dim) + hidden);
        let mut expert = |times: usize, inner: usize| {
            self.layer(2 * times, inner, hidden);
            self.layer(times, hidden, inner);
        };
        match config.feed_forward {
            FeedForwardConfig::Dense { inner } => expert(layers, inner),
            FeedForwardConfig::Experts { experts, inner, shared, .. } => {
                expert(layers * experts, inner);
                if let Some(inner) = shared {
                    expert(layers, inner);
                    self.matrix(layers, 1, hidden);
                }
                self.matrix(layers, experts, hidden);
            }
        }
    }

    fn audio(&mut self, config: &AudioConfig) {
        let AudioConfig { layers, inner, hidden, channels, output, .. } = *config;
        self.floats(9 * channels * (1 + 2 * channels) + 3 * channels);
        let bands = (0..3).fold(config.mels, |bands, _| bands.div_ceil(2));
        self.matrix(1, hidden, channels * bands);
        self.linear(4 * layers, hidden, hidden);
        self.linear(layers, inner, hidden);
        self.linear(layers, hidden, inner);
        self.floats((4 * layers + 2) * hidden);
        self.linear(1, hidden, hidden);
        self.linear(1, output, hidden);
    }

    fn vision(&mut self, config: &VisionConfig) {
        let VisionConfig { layers, hidden, inner, merge, output, side, .. } = *config;
        self.linear(1, hidden, config.patch_values());
        self.floats(side * side * hidden);
        self.linear(layers, 3 * hidden, hidden);
        self.linear(layers, hidden, hidden);
        self.linear(layers, inner, hidden);
        self.linear(layers, hidden, inner);
        self.floats(4 * layers * hidden);
        let width = merge * merge * hidden;
        let mergers = 1 + config.deepstack.len();
        self.linear(mergers, width, width);
        self.linear(mergers, output, width);
        self.floats(2 * hidden + 2 * width * config.deepstack.len());
    }

    fn talker(&mut self, config: &TalkerConfig) {
        let hidden = config.text.hidden;
        self.decoder(&config.text);
        self.matrix(2, config.text.vocabulary, hidden);
        self.linear(2, config.projection, config.thinker_hidden);
        self.linear(2, hidden, config.projection);
    }

    fn predictor(&mut self, config: &TalkerConfig) {
        self.decoder(&config.predictor);
        self.matrix(2 * (config.code_groups - 1), config.predictor.vocabulary, config.predictor.hidden);
    }

    fn code2wav(&mut self, config: &Code2WavConfig) {
        let Code2WavConfig { hidden, inner, layers, channels, .. } = *config;
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        self.floats(config.quantizers * config.codebook * hidden);
        self.matrix(layers, q, hidden);
        self.matrix(2 * layers, kv, hidden);
        self.matrix(layers, hidden, q);
        self.matrix(2 * layers, inner, hidden);
        self.matrix(layers, hidden, inner);
        self.floats((4 * layers + 1) * hidden);
        for ratio in &config.ratios {
            self.floats(hidden * hidden * ratio + hidden + 7 * hidden + hidden + 3 * hidden);
            self.linear(1, 4 * hidden, hidden);
            self.linear(1, hidden, 4 * hidden);
        }
        let convolution = |c_out: usize, c_in: usize, kernel: usize| c_out * c_in * kernel + c_out;
        self.floats(convolution(channels, hidden, 7));
        for (block, rate) in config.rates.iter().enumerate() {
            let (wide, half) = (channels >> block, channels >> (block + 1));
            self.floats(2 * wide + convolution(half, wide, 2 * rate));
            self.floats(3 * (4 * half + convolution(half, half, 7) + convolution(half, half, 1)));
        }
        let last = channels >> config.rates.len();
        self.floats(2 * last + convolution(1, last, 7));
    }
}

fn weights(config: &Config, placement: Placement) -> Vec<Part> {
    type Walk = fn(&mut Counter, &Config);
    let parts: [(&'static str, Walk); 7] = [
        ("thinker", |c, config| c.decoder(&config.thinker.text)),
        ("thinker, words", |c, config| c.matrix(2, config.thinker.text.vocabulary, config.thinker.text.hidden)),
        ("audio tower", |c, config| c.audio(&config.thinker.audio)),
        ("vision tower", |c, config| c.vision(&config.thinker.vision)),
        ("talker", |c, config| c.talker(&config.talker)),
        ("code predictor", |c, config| c.predictor(&config.talker)),
        ("code2wav", |c, config| c.code2wav(&config.code2wav)),
    ];
    let count = |(name, walk): (&'static str, Walk)| {
        let mut counter = Counter { placement, parameters: 0, bytes: 0 };
        walk(&mut counter, config);
        Part { name, parameters: counter.parameters, bytes: counter.bytes }
    };
    parts.into_iter().map(count).collect()
}

/// What is neither weights nor blocks: the code predictor's frame, the vocoder's streams, and buffers of passes.
fn memory(config: &Config, wishes: &Wishes) -> Vec<Part> {
    const FLOAT: u64 = size_of::<f32>() as u64;
    let sessions = wishes.sessions as u64;
    let predictor = layout(&config.talker.predictor, KvType::F32, config.talker.code_groups, wishes.sessions);
    let code2wav = &config.code2wav;
    let window = 2 * code2wav.layers * code2wav.window * code2wav.kv_heads * code2wav.head_dim;
    // A frame's samples in the channels of every stage, several times over: what convolutions hold and buffers need.
    let samples: usize = code2wav
        .rates
        .iter()
        .enumerate()
        .map(|(i, _)| code2wav.rates[..=i].iter().product::<usize>() * (code2wav.channels >> (i + 1)))
        .sum();
    let ratio: usize = code2wav.ratios.iter().product();
    let voice = (window + 8 * 7 * ratio * samples.max(code2wav.hidden)) as u64 * FLOAT;
    let text = &config.thinker.text;
    let inner = match text.feed_forward {
        FeedForwardConfig::Dense { inner } => inner,
        FeedForwardConfig::Experts { top_k, inner, .. } => top_k * inner,
    };
    let row = 8 * text.hidden + 3 * text.q_width() + 4 * text.kv_width() + 3 * inner;
    let rows = wishes.rows + wishes.sessions;
    let buffers = (rows * row) as u64 * FLOAT + sessions * text.vocabulary as u64 * FLOAT;
    vec![
        Part { name: "frames of the predictor", parameters: 0, bytes: predictor.bytes() },
        Part { name: "streams of the vocoder", parameters: 0, bytes: sessions * voice },
        Part { name: "buffers", parameters: 0, bytes: buffers },
    ]
}
