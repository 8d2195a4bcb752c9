//! What the op means.

/// A table is (its first row, its rows) in `table`.
pub fn embedding_sum(
    ids: &[i32],
    table: &[f32],
    (offsets, sizes): (&[i32], &[i32]),
    h: usize,
    scale: f32,
    addend: Option<&[f32]>,
) -> Vec<f32> {
    let mut y = Vec::new();
    for (token, ids) in ids.chunks(sizes.len()).enumerate() {
        for c in 0..h {
            let mut sum = 0.0;
            for (g, &id) in ids.iter().enumerate() {
                if (0..sizes[g]).contains(&id) {
                    sum += f64::from(table[(offsets[g] + id) as usize * h + c]);
                }
            }
            sum *= f64::from(scale);
            y.push((sum + addend.map_or(0.0, |addend| f64::from(addend[token * h + c]))) as f32);
        }
    }
    y
}
