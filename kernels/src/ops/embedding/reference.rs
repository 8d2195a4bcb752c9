//! What the op means.

/// `tables`: rows of each; `table`: all rows.
pub fn embedding_sum(ids: &[i32], table: &[f32], tables: &[usize], h: usize, scale: f32) -> Vec<f32> {
    let mut y = Vec::new();
    for ids in ids.chunks(tables.len()) {
        for c in 0..h {
            let (mut first, mut sum) = (0, 0.0);
            for (&id, &rows) in ids.iter().zip(tables) {
                if let Ok(id) = usize::try_from(id)
                    && id < rows
                {
                    sum += f64::from(table[(first + id) * h + c]);
                }
                first += rows;
            }
            y.push((sum * f64::from(scale)) as f32);
        }
    }
    y
}
