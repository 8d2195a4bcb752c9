//! Rotary position embedding (arXiv 2104.09864): pairs of a head's values are turned by angles that grow with position.
//!
//! x: `[m, heads, head_dim]` f32 inside rows of `row_stride`. Pair i of a head at position p is turned by
//! `p · base^(-2 i / dims) / factor_i`. Values past `dims` stay as they are.
//!
//! A position may have several coordinates (time, height, width; arXiv 2409.12191 §2.1): pair i then takes the
//! coordinate that [`Rope::with_axes`] gives it. Coordinates may be fractions.

pub mod reference;
#[cfg(test)]
mod tests;

/// Which values of a head form pair `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `2 i` and `2 i + 1` ("norm"; GGUF files of the Llama family).
    Adjacent,
    /// `i` and `i + dims / 2` ("neox"; Qwen and most others).
    Halves,
}

/// Coordinates of a position: time, height, width. Words have the same number three times.
pub type Position = [f64; 3];

/// The speeds of the pairs.
#[derive(Clone, Debug)]
pub struct Rope {
    speeds: Vec<f64>,
    /// Which coordinate turns a pair; empty if there is only one.
    axes: Vec<u8>,
    pairing: Pairing,
    /// Cosines and sines are multiplied by it.
    magnitude: f32,
}

/// Cosines and sines for a list of positions: shared by all layers of a pass.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// `[positions, dims / 2]` of (cosine, sine).
    values: Vec<(f32, f32)>,
}

impl Rope {
    /// Turns the first `dims` values of a head. `factors`, one a pair, divide the speeds (long-context scaling).
    ///
    /// # Panics
    /// If `dims` is odd or there are not `dims / 2` factors.
    pub fn new(dims: usize, base: f32, factors: Option<&[f32]>, pairing: Pairing) -> Self {
        assert!(dims.is_multiple_of(2), "rope: {dims} dimensions are not pairs");
        assert!(factors.is_none_or(|f| f.len() == dims / 2), "rope: {factors:?} for {dims} dimensions");
        let speed = |i: usize| {
            f64::from(base).powf(-2.0 * i as f64 / dims as f64) / factors.map_or(1.0, |factors| f64::from(factors[i]))
        };
        Self::from_speeds((0..dims / 2).map(speed).collect(), pairing)
    }

    /// Turns as many pairs as there are speeds, in radians a position.
    pub fn from_speeds(speeds: Vec<f64>, pairing: Pairing) -> Self {
        Self { speeds, axes: Vec::new(), pairing, magnitude: 1.0 }
    }

    /// Gives each pair the coordinate of the position that turns it: 0 is time, 1 height, 2 width.
    ///
    /// # Panics
    /// If there is not one axis a pair, or there is no such axis.
    #[must_use]
    pub fn with_axes(mut self, axes: Vec<u8>) -> Self {
        assert!(axes.len() == self.speeds.len() && axes.iter().all(|&axis| axis < 3), "rope: axes {axes:?}");
        self.axes = axes;
        self
    }

    /// Multiplies what is turned by `magnitude` as well (long-context scaling; arXiv 2309.00071 §3.4).
    #[must_use]
    pub fn with_magnitude(mut self, magnitude: f32) -> Self {
        self.magnitude = magnitude;
        self
    }

    /// Radians a position, of each pair.
    pub fn speeds(&self) -> &[f64] {
        &self.speeds
    }

    /// Which coordinate turns a pair; empty if there is only one.
    pub fn axes(&self) -> &[u8] {
        &self.axes
    }

    /// What is turned is multiplied by it.
    pub fn magnitude(&self) -> f32 {
        self.magnitude
    }

    /// Which values are pairs.
    pub fn pairing(&self) -> Pairing {
        self.pairing
    }

    /// Computes the angles of `positions`, in the order of the rows they are for.
    pub fn turns(&self, positions: impl IntoIterator<Item = usize>, turns: &mut Turns) {
        self.turns_of(positions.into_iter().map(|position| [position as f64; 3]), turns);
    }

    /// As [`Rope::turns`], for positions of several coordinates.
    pub fn turns_of(&self, positions: impl IntoIterator<Item = Position>, turns: &mut Turns) {
        turns.values.clear();
        for position in positions {
            turns.values.extend(self.speeds.iter().enumerate().map(|(pair, speed)| {
                let axis = self.axes.get(pair).copied().unwrap_or(0);
                let (sin, cos) = (position[usize::from(axis)] * speed).sin_cos();
                (cos as f32 * self.magnitude, sin as f32 * self.magnitude)
            }));
        }
    }

    /// Turns every head of every row of `x`, in place.
    ///
    /// # Panics
    /// If `x` does not hold a row for each of the turns, or a head is shorter than the turned dimensions.
    pub fn apply(&self, turns: &Turns, x: &mut [f32], row_stride: usize, heads: usize, head_dim: usize) {
        let pairs = self.speeds.len();
        assert!(heads * head_dim <= row_stride && 2 * pairs <= head_dim, "rope: {heads} × {head_dim} in {row_stride}");
        if pairs == 0 {
            return;
        }
        let rows = turns.values.len() / pairs;
        assert!(
            rows == 0 || x.len() >= (rows - 1) * row_stride + heads * head_dim,
            "rope: {} for {rows} rows",
            x.len()
        );
        for (row, turns) in x.chunks_mut(row_stride.max(1)).zip(turns.values.chunks_exact(pairs)) {
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
                match self.pairing {
                    Pairing::Adjacent => {
                        for ([a, b], turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                            turn_pair(a, b, *turn);
                        }
                    }
                    Pairing::Halves => {
                        let (first, second) = head.split_at_mut(pairs);
                        for ((a, b), turn) in first.iter_mut().zip(second).zip(turns) {
                            turn_pair(a, b, *turn);
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn turn_pair(a: &mut f32, b: &mut f32, (cos, sin): (f32, f32)) {
    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
}
