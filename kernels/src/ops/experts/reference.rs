//! What the op means.

/// Offsets, rows and places.
pub fn permutation(ids: &[i32], experts: usize, top_k: usize) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
    let mut slots: Vec<usize> = (0..ids.len()).collect();
    slots.sort_by_key(|&slot| (ids[slot], slot));
    let offsets = (0..=experts as i32).map(|e| ids.iter().filter(|&&id| id < e).count() as i32).collect();
    let mut places = vec![0; ids.len()];
    for (position, &slot) in slots.iter().enumerate() {
        places[slot] = position as i32;
    }
    (offsets, slots.iter().map(|slot| (slot / top_k) as i32).collect(), places)
}

/// What is added to the experts' results.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addends<'a> {
    /// A shared expert's results `[tokens, h]`, and the logit of each token's gate.
    pub shared: Option<(&'a [f32], &'a [f32])>,
    /// `[tokens, h]`.
    pub residual: Option<&'a [f32]>,
}

/// `Σ_j weights[t, j] x[places[t, j]] + σ(gate[t]) shared[t] + residual[t]`.
pub fn combine(x: &[f32], places: &[i32], weights: &[f32], addends: Addends<'_>, top_k: usize, h: usize) -> Vec<f32> {
    let mut y = Vec::new();
    for (t, (places, weights)) in places.chunks(top_k).zip(weights.chunks(top_k)).enumerate() {
        for c in 0..h {
            let terms = places.iter().zip(weights).map(|(p, w)| f64::from(*w) * f64::from(x[*p as usize * h + c]));
            let mut sum: f64 = terms.sum();
            if let Some((shared, gates)) = addends.shared {
                sum += f64::from(shared[t * h + c]) / (1.0 + (-f64::from(gates[t])).exp());
            }
            sum += addends.residual.map_or(0.0, |residual| f64::from(residual[t * h + c]));
            y.push(sum as f32);
        }
    }
    y
}
