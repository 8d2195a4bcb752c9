//! What the op means.

/// Ids and weights of the `top_k` likeliest experts of each token, or of those that are given.
pub fn top_k(
    logits: &[f32],
    experts: usize,
    top_k: usize,
    normalise: bool,
    given: Option<&[i32]>,
) -> (Vec<i32>, Vec<f32>) {
    let (mut ids, mut weights) = (Vec::new(), Vec::new());
    for (token, logits) in logits.chunks(experts).enumerate() {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let p: Vec<f64> = logits.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).collect();
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
        order.truncate(top_k);
        if let Some(given) = given {
            order = given[token * top_k..(token + 1) * top_k].iter().map(|&id| id as usize).collect();
        }
        let sum: f64 = if normalise { order.iter().map(|&e| p[e]).sum() } else { p.iter().sum() };
        ids.extend(order.iter().map(|&e| e as i32));
        weights.extend(order.iter().map(|&e| (p[e] / sum) as f32));
    }
    (ids, weights)
}
