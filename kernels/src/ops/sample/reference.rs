//! What the op means: the probability of each token, all tokens sorted, nothing skipped.

use super::{Context, Params};

/// Probabilities by token; their sum is 1. A temperature of 0 gives one token everything.
pub fn probabilities(logits: &[f32], params: &Params, context: Context<'_>) -> Vec<f64> {
    let mut x: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    for (token, x) in x.iter_mut().enumerate() {
        let token = token as u32;
        if context.seen.contains(&token) {
            let penalty = f64::from(params.repetition);
            *x = if *x > 0.0 { *x / penalty } else { *x * penalty };
        }
        let count = context.reply.iter().filter(|&&t| t == token).count();
        if count > 0 {
            *x -= f64::from(params.presence) + f64::from(params.frequency) * count as f64;
        }
    }
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].total_cmp(&x[a]).then(a.cmp(&b)));
    let mut p = vec![0.0; x.len()];
    if params.temperature <= 0.0 {
        p[order[0]] = 1.0;
        return p;
    }
    if params.top_k > 0 {
        order.truncate(params.top_k);
    }
    let weight = |token: usize| ((x[token] - x[order[0]]) / f64::from(params.temperature)).exp();
    let total: f64 = order.iter().map(|&t| weight(t)).sum();
    let (mut before, mut kept) = (0.0, 0.0);
    for (rank, &token) in order.iter().enumerate() {
        let inside = params.top_p >= 1.0 || before < f64::from(params.top_p) * total;
        if rank == 0 || inside && weight(token) >= f64::from(params.min_p) {
            p[token] = weight(token);
            kept += weight(token);
        }
        before += weight(token);
    }
    p.iter().map(|p| p / kept).collect()
}
