//! The feed-forward layer: a router that sends each token to a few experts, and perhaps an expert that all tokens share.
//!
//! A dense feed-forward layer is the case of one expert and no router. For the others, with `p = softmax(x Rᵀ)`:
//! `y = Σ_{e ∈ top_k(p)} w_e · expert_e(x) + σ(x g) · shared(x)`, where `w` is p, divided by the sum over the chosen ones
//! if the model normalises (arXiv 2401.06066; Qwen MoE models).

use causerie_kernels::Pool;
use causerie_kernels::ops::linear::{self, Weights, linear};
use causerie_kernels::ops::softmax;
use causerie_kernels::ops::swiglu::swiglu;

use super::decoder::resize;

/// A feed-forward layer.
pub(crate) struct FeedForward {
    pub(crate) experts: Vec<Expert>,
    pub(crate) router: Option<Router>,
    pub(crate) shared: Option<Shared>,
}

/// One gated two-layer network: `down(silu(gate(x)) * up(x))`.
pub(crate) struct Expert {
    pub(crate) gate: Weights,
    pub(crate) up: Weights,
    pub(crate) down: Weights,
}

/// Chooses experts.
pub(crate) struct Router {
    /// `[experts, hidden]`.
    pub(crate) weights: Weights,
    /// Experts a token.
    pub(crate) top_k: usize,
    /// Whether the weights of the chosen ones are made to sum to one.
    pub(crate) normalise: bool,
}

/// The expert of all tokens.
pub(crate) struct Shared {
    pub(crate) expert: Expert,
    /// `[1, hidden]`: how much it counts; always one without.
    pub(crate) gate: Option<Weights>,
}

/// Buffers reused from layer to layer.
#[derive(Default)]
pub(crate) struct Scratch {
    gate: Vec<f32>,
    up: Vec<f32>,
    logits: Vec<f32>,
    gathered: Vec<f32>,
    out: Vec<f32>,
    /// (expert, row, weight), by expert and then by row.
    routes: Vec<(u32, u32, f32)>,
    order: Vec<u32>,
}

impl FeedForward {
    /// A dense layer.
    pub(crate) fn dense(expert: Expert) -> Self {
        Self { experts: vec![expert], router: None, shared: None }
    }

    /// Adds the layer's output for `m` rows of `x` to `residual`. A row's result does not depend on the other rows: its
    /// experts are added in the order of their numbers.
    pub(crate) fn forward(
        &self,
        pool: &Pool,
        linear_scratch: &mut linear::Scratch,
        scratch: &mut Scratch,
        x: &[f32],
        m: usize,
        residual: &mut [f32],
    ) {
        let Some(router) = &self.router else {
            let Scratch { gate, up, out, .. } = scratch;
            self.experts[0].forward(pool, linear_scratch, gate, up, x, m, out);
            add(residual, out);
            return;
        };
        scratch.route(pool, linear_scratch, router, x, m);
        let Scratch { gate, up, logits, gathered, out, routes, .. } = scratch;
        let hidden = x.len() / m.max(1);
        let row = |r: u32| r as usize * hidden..(r as usize + 1) * hidden;
        for routes in routes.chunk_by(|a, b| a.0 == b.0) {
            gathered.clear();
            routes.iter().for_each(|&(_, r, _)| gathered.extend_from_slice(&x[row(r)]));
            let expert = &self.experts[routes[0].0 as usize];
            expert.forward(pool, linear_scratch, gate, up, gathered, routes.len(), out);
            for (&(_, r, weight), out) in routes.iter().zip(out.chunks_exact(hidden)) {
                residual[row(r)].iter_mut().zip(out).for_each(|(y, out)| *y += weight * out);
            }
        }
        if let Some(shared) = &self.shared {
            shared.expert.forward(pool, linear_scratch, gate, up, x, m, out);
            if let Some(weights) = &shared.gate {
                resize(logits, m);
                linear(pool, linear_scratch, x, m, weights, None, logits);
                for (out, logit) in out.chunks_exact_mut(hidden).zip(logits.iter()) {
                    let sigmoid = 1.0 / (1.0 + (-logit).exp());
                    out.iter_mut().for_each(|v| *v *= sigmoid);
                }
            }
            add(residual, out);
        }
    }
}

impl Scratch {
    /// Fills `routes`.
    fn route(&mut self, pool: &Pool, linear_scratch: &mut linear::Scratch, router: &Router, x: &[f32], m: usize) {
        let experts = router.weights.n();
        resize(&mut self.logits, m * experts);
        linear(pool, linear_scratch, x, m, &router.weights, None, &mut self.logits);
        self.routes.clear();
        for (r, p) in self.logits.chunks_exact_mut(experts).enumerate() {
            softmax::row(p);
            self.order.clear();
            self.order.extend(0..experts as u32);
            // Of equally likely experts the first ones are taken, whatever the algorithm of the sort.
            self.order.sort_unstable_by(|&a, &b| p[b as usize].total_cmp(&p[a as usize]).then(a.cmp(&b)));
            let chosen = &self.order[..router.top_k.min(experts)];
            let sum: f32 = chosen.iter().map(|&e| p[e as usize]).sum();
            let scale = if router.normalise { 1.0 / sum } else { 1.0 };
            self.routes.extend(chosen.iter().map(|&e| (e, r as u32, p[e as usize] * scale)));
        }
        self.routes.sort_unstable_by_key(|&(expert, row, _)| (expert, row));
    }
}

impl Expert {
    #[allow(clippy::too_many_arguments)] // The op's operands and the buffers it borrows.
    fn forward(
        &self,
        pool: &Pool,
        scratch: &mut linear::Scratch,
        gate: &mut Vec<f32>,
        up: &mut Vec<f32>,
        x: &[f32],
        m: usize,
        out: &mut Vec<f32>,
    ) {
        resize(gate, m * self.gate.n());
        resize(up, m * self.up.n());
        resize(out, m * self.down.n());
        linear(pool, scratch, x, m, &self.gate, None, gate);
        linear(pool, scratch, x, m, &self.up, None, up);
        swiglu(pool, gate, up);
        linear(pool, scratch, gate, m, &self.down, None, out);
    }
}

/// `y += x`.
pub(crate) fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

#[cfg(test)]
mod tests;
