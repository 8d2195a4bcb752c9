//! What the op means.

/// In place; sums are not rounded.
pub fn scatter(x: &[f32], ids: &[i32], h: usize, add: bool, y: &mut [f32]) {
    for (x, &id) in x.chunks(h).zip(ids) {
        let Some(y) = usize::try_from(id).ok().and_then(|id| y.get_mut(id * h..(id + 1) * h)) else { continue };
        y.iter_mut().zip(x).for_each(|(y, x)| *y = if add { *y + x } else { *x });
    }
}
