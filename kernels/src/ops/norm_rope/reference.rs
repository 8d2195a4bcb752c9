//! What the op means.

/// (cosine, sine) of all pairs of a row; `speeds` in radians a position, `axes` empty for the first.
pub fn turns(position: [f64; 3], speeds: &[f64], axes: &[u8], magnitude: f32) -> Vec<f32> {
    let turn = |(pair, speed): (usize, &f64)| {
        let (sin, cos) = (position[axes.get(pair).map_or(0, |&axis| usize::from(axis))] * speed).sin_cos();
        [cos as f32 * magnitude, sin as f32 * magnitude]
    };
    speeds.iter().enumerate().flat_map(turn).collect()
}

/// One head, normalised if there is a weight and turned if there are turns. Rounded where the kernel keeps bf16.
pub fn head(x: &[f32], gamma: Option<&[f32]>, turns: Option<&[f32]>, eps: f32, round: fn(f32) -> f32) -> Vec<f32> {
    let mut x = x.to_vec();
    if let Some(gamma) = gamma {
        let mean = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        x.iter_mut().zip(gamma).for_each(|(x, gamma)| *x = round(round((f64::from(*x) * scale) as f32) * gamma));
    }
    if let Some(turns) = turns {
        let half = x.len() / 2;
        for (pair, turn) in turns.chunks(2).enumerate() {
            let (a, b) = (x[pair], x[pair + half]);
            x[pair] = a * turn[0] - b * turn[1];
            x[pair + half] = a * turn[1] + b * turn[0];
        }
    }
    x
}
