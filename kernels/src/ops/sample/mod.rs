//! Drawing a token from logits: penalties, temperature, top-k, top-p, min-p, and a draw that depends only on the logits,
//! the seed and the position.
//!
//! logits: `[vocabulary]` f32. The order is that of most servers: penalties on the logits, then the temperature, then the
//! cuts on the probabilities that it gives, each on what the one before has left.

pub(crate) mod cases;
pub mod cuda;
mod philox;
pub mod reference;
#[cfg(test)]
mod tests;

pub use philox::uniform;

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// 0 takes the likeliest.
    pub temperature: f32,
    /// Keep the k likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest that together have this probability; 1 keeps all.
    pub top_p: f32,
    /// Drop what is less likely than this times the likeliest; 0 drops nothing.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 is off.
    pub repetition: f32,
    /// Subtracted once from tokens of the reply.
    pub presence: f32,
    /// Subtracted for each occurrence in the reply.
    pub frequency: f32,
}

impl Default for Params {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition: 1.0, presence: 0.0, frequency: 0.0 }
    }
}

/// What was said before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Tokens that the repetition penalty is about, in any order, repeated or not. The reply is not implied.
    pub seen: &'a [u32],
    /// Tokens of the reply, which the presence and frequency penalties are about.
    pub reply: &'a [u32],
}

/// Tokens less likely than this power of e below the likeliest are out of reach of a draw of 53 bits.
const REACH: f32 = 40.0;

/// Buffers reused from draw to draw.
#[derive(Default)]
pub struct Scratch {
    candidates: Vec<(f32, u32)>,
    tokens: Vec<u32>,
}

/// Lowers the logits of tokens that occurred.
fn penalise(tokens: &mut Vec<u32>, logits: &mut [f32], params: &Params, context: Context<'_>) {
    if params.repetition != 1.0 {
        tokens.clear();
        tokens.extend_from_slice(context.seen);
        tokens.sort_unstable();
        for token in tokens.chunk_by(|a, b| a == b).map(|equal| equal[0]) {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / params.repetition } else { *logit * params.repetition };
            }
        }
    }
    if params.presence != 0.0 || params.frequency != 0.0 {
        tokens.clear();
        tokens.extend_from_slice(context.reply);
        tokens.sort_unstable();
        for equal in tokens.chunk_by(|a, b| a == b) {
            if let Some(logit) = logits.get_mut(equal[0] as usize) {
                *logit -= params.presence + params.frequency * equal.len() as f32;
            }
        }
    }
}

/// Draws a token. `logits` is changed by the penalties. Entries that are not numbers are never drawn; if there is no
/// number at all, token 0 is.
pub fn sample(
    scratch: &mut Scratch,
    logits: &mut [f32],
    params: &Params,
    context: Context<'_>,
    seed: u64,
    position: u64,
) -> u32 {
    let Scratch { candidates, tokens } = scratch;
    penalise(tokens, logits, params, context);
    let (best, max) = argmax(logits);
    // An infinite logit leaves no room for chance either.
    if params.temperature <= 0.0 || params.top_k == 1 || !max.is_finite() {
        return best;
    }
    let reach = max - REACH * params.temperature;
    candidates.clear();
    candidates.extend(logits.iter().zip(0..).filter(|(logit, _)| **logit >= reach).map(|(&logit, id)| (logit, id)));
    let by_likelihood = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if params.top_k > 0 && params.top_k < candidates.len() {
        candidates.select_nth_unstable_by(params.top_k - 1, by_likelihood);
        candidates.truncate(params.top_k);
    }
    candidates.sort_unstable_by(by_likelihood);

    let weight = |logit: f32| f64::from((logit - max) / params.temperature).exp();
    if params.top_p < 1.0 {
        let total: f64 = candidates.iter().map(|c| weight(c.0)).sum();
        let mut before = 0.0;
        let enough = f64::from(params.top_p.max(0.0)) * total;
        let keep = candidates.iter().take_while(|c| {
            let needed = before < enough;
            before += weight(c.0);
            needed
        });
        let keep = keep.count().max(1);
        candidates.truncate(keep);
    }
    if params.min_p > 0.0 {
        let keep = candidates.partition_point(|c| weight(c.0) >= f64::from(params.min_p));
        candidates.truncate(keep.max(1));
    }
    let total: f64 = candidates.iter().map(|c| weight(c.0)).sum();
    let mut left = uniform(seed, position) * total;
    for (logit, id) in candidates.iter() {
        left -= weight(*logit);
        if left < 0.0 {
            return *id;
        }
    }
    candidates.last().map_or(best, |c| c.1)
}

/// The largest logit and the first token that has it.
pub fn argmax(logits: &[f32]) -> (u32, f32) {
    /// Wide enough for vectors; the winner is looked for only in blocks that improve.
    const BLOCK: usize = 64;
    let (mut best, mut max) = (0, f32::NEG_INFINITY);
    for (block, values) in logits.chunks(BLOCK).enumerate() {
        let mut lanes = [f32::NEG_INFINITY; 8];
        for eight in values.chunks(8) {
            for (lane, &v) in lanes.iter_mut().zip(eight) {
                *lane = if v > *lane { v } else { *lane };
            }
        }
        if lanes.iter().any(|&v| v > max) {
            for (i, &v) in values.iter().enumerate() {
                if v > max {
                    (best, max) = ((block * BLOCK + i) as u32, v);
                }
            }
        }
    }
    (best, max)
}
