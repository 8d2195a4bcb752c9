//! The vision tower: patches of a picture to tokens, and features for the thinker's first layers (deepstack, arXiv
//! 2406.04334).
//!
//! A grid of patches covers two frames. Grids do not see each other, so a video goes through grid by grid. Rows are in the
//! order of the blocks of `merge × merge` patches that become one token.

mod picture;

use causerie_kernels::Pool;
use causerie_kernels::ops::gelu::gelu;
use causerie_kernels::ops::gelu_tanh::gelu_tanh;
use causerie_kernels::ops::rope::{Pairing, Rope, Turns};

use super::OmniError;
use super::config::VisionConfig;
use super::layers::{Linear, Norm};
use super::load::Loader;
use super::positions::Grid;
use super::tower::{self, Form, Layer, Names};

pub use picture::{Patches, grid, patches};

/// Epsilon of its layer norms: that of the reference implementation, not in the configuration.
pub(super) const NORM_EPS: f32 = 1e-6;
/// Base of the angles: likewise.
const ROPE_BASE: f64 = 10_000.0;

/// The tower's weights.
pub(super) struct VisionTower {
    config: VisionConfig,
    patches: Linear,
    /// `[side, side, hidden]`.
    positions: Vec<f32>,
    rope: Rope,
    layers: Vec<Layer>,
    merger: Merger,
    /// One for each entry of the configuration's `deepstack`.
    deepstack: Vec<Merger>,
}

/// What the checkpoint calls the parts of its layers.
pub(super) const NAMES: Names = Names {
    attention_norm: "norm1",
    qkv: &["attn.qkv"],
    output: "attn.proj",
    feed_forward_norm: "norm2",
    up: "mlp.linear_fc1",
    down: "mlp.linear_fc2",
};

/// Makes one token of `merge × merge` patches.
struct Merger {
    /// Of patches, or of joined patches (deepstack).
    norm: Norm,
    layers: [Linear; 2],
}

/// What the tower makes of a picture or video.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// `[tokens, output]`: the rows of the placeholders.
    pub tokens: Vec<f32>,
    /// The same for each of the thinker's first layers.
    pub deepstack: Vec<Vec<f32>>,
}

/// Buffers reused from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    rows: tower::Scratch,
    turns: Turns,
}

impl VisionTower {
    pub(super) fn load(loader: &Loader<'_>, config: &VisionConfig) -> Result<Self, OmniError> {
        let name = |part: &str| format!("thinker.visual.{part}");
        let VisionConfig { hidden, channels, frames, patch, side, .. } = *config;
        let shape = [hidden, channels, frames, patch, patch];
        let values = loader.read(&name("patch_embed.proj.weight"), &shape)?;
        let weights = loader.pack(hidden, config.patch_values(), &values)?;
        let bias = loader.vector(&name("patch_embed.proj.bias"), hidden)?;
        let deepstack = 0..config.deepstack.len();
        Ok(Self {
            patches: Linear::of(weights, Some(bias)),
            positions: loader.values(&name("pos_embed.weight"), &[side * side, hidden])?,
            rope: rope(hidden / config.heads),
            layers: (0..config.layers)
                .map(|i| Layer::load(loader, &name(&format!("blocks.{i}")), &NAMES, (hidden, config.inner), NORM_EPS))
                .collect::<Result<_, _>>()?,
            merger: Merger::load(loader, &name("merger"), config, false)?,
            deepstack: deepstack
                .map(|i| Merger::load(loader, &name(&format!("merger_list.{i}")), config, true))
                .collect::<Result<_, _>>()?,
            config: config.clone(),
        })
    }

    /// Appends what is seen in `patches`, `[frames · height · width, channels · frames · patch · patch]`, to `seen`.
    ///
    /// # Errors
    /// [`OmniError::Input`] if the grid is empty, its sides are not multiples of `merge`, or there are not as many patches.
    pub(super) fn see(
        &self,
        pool: &Pool,
        s: &mut Scratch,
        patches: &[f32],
        grid: Grid,
        seen: &mut Seen,
    ) -> Result<(), OmniError> {
        check(&self.config, patches, grid)?;
        seen.deepstack.resize(self.deepstack.len(), Vec::new());
        let one = Grid { frames: 1, ..grid };
        for patches in patches.chunks_exact(one.patches() * self.config.patch_values()) {
            self.see_grid(pool, s, patches, one, seen);
        }
        Ok(())
    }

    fn see_grid(&self, pool: &Pool, s: &mut Scratch, patches: &[f32], grid: Grid, seen: &mut Seen) {
        let Scratch { rows: s, turns } = s;
        self.patches.apply(pool, &mut s.linear, patches, &mut s.x);
        let places: Vec<(usize, usize)> = places(grid, self.config.merge).collect();
        for (&(row, column), x) in places.iter().zip(s.x.chunks_exact_mut(self.config.hidden)) {
            position(&self.positions, self.config.side, (row, column), grid, x);
        }
        self.rope.turns_of(places.iter().map(|&(row, column)| [0.0, row as f64, column as f64]), turns);
        let form = Form { heads: self.config.heads, rope: Some((&self.rope, turns)), activation: gelu_tanh };
        for (index, layer) in self.layers.iter().enumerate() {
            layer.forward(pool, s, &form);
            if let Some(entry) = self.config.deepstack.iter().position(|&layer| layer == index) {
                self.deepstack[entry].apply(pool, s);
                seen.deepstack[entry].extend_from_slice(&s.out);
            }
        }
        self.merger.apply(pool, s);
        seen.tokens.extend_from_slice(&s.out);
    }
}

/// Whether there are patches for a grid, and it is one that becomes tokens.
pub(super) fn check(config: &VisionConfig, patches: &[f32], grid: Grid) -> Result<(), OmniError> {
    let (merge, values) = (config.merge, config.patch_values());
    let Grid { frames, height, width } = grid;
    let fits = [height, width].iter().all(|side| *side > 0 && side.is_multiple_of(merge)) && frames > 0;
    if !fits || patches.len() != grid.patches() * values {
        let count = patches.len() / values;
        return Err(OmniError::Input(format!("{count} patches for a grid of {frames} × {height} × {width}")));
    }
    Ok(())
}

/// Adds the value of `table`, `[side, side, x.len()]`, at a place between its entries; the corners of the picture are those of
/// the table.
pub(super) fn position(table: &[f32], side: usize, (row, column): (usize, usize), grid: Grid, x: &mut [f32]) {
    let place = |at: usize, of: usize| {
        let exact = at as f64 * (side - 1) as f64 / of.saturating_sub(1).max(1) as f64;
        let first = exact.floor() as usize;
        (first, (first + 1).min(side - 1), (exact - exact.floor()) as f32)
    };
    let (top, bottom, down) = place(row, grid.height);
    let (left, right, along) = place(column, grid.width);
    for (corner, weight) in [
        ((top, left), (1.0 - down) * (1.0 - along)),
        ((top, right), (1.0 - down) * along),
        ((bottom, left), down * (1.0 - along)),
        ((bottom, right), down * along),
    ] {
        let entry = &table[(corner.0 * side + corner.1) * x.len()..][..x.len()];
        x.iter_mut().zip(entry).for_each(|(x, p)| *x += weight * p);
    }
}

impl Merger {
    fn load(loader: &Loader<'_>, name: &str, config: &VisionConfig, joined: bool) -> Result<Self, OmniError> {
        let width = config.merge * config.merge * config.hidden;
        let normed = if joined { width } else { config.hidden };
        Ok(Self {
            norm: Norm::load(loader, &format!("{name}.ln_q"), normed, NORM_EPS)?,
            layers: [
                Linear::load(loader, &format!("{name}.mlp.0"), width, width)?,
                Linear::load(loader, &format!("{name}.mlp.2"), config.output, width)?,
            ],
        })
    }

    /// From the patches in `s.x` to tokens in `s.out`. Patches of a token follow each other, so joining them moves nothing.
    fn apply(&self, pool: &Pool, s: &mut tower::Scratch) {
        self.norm.apply(pool, &s.x, &mut s.normed);
        self.layers[0].apply(pool, &mut s.linear, &s.normed, &mut s.next);
        gelu(pool, &mut s.next);
        self.layers[1].apply(pool, &mut s.linear, &s.next, &mut s.out);
    }
}

/// (row, column) of each patch of a grid, in the order of the rows.
pub(super) fn places(grid: Grid, merge: usize) -> impl Iterator<Item = (usize, usize)> {
    let columns = grid.width / merge;
    (0..grid.height * grid.width).map(move |i| {
        let (block, inside) = (i / (merge * merge), i % (merge * merge));
        (block / columns * merge + inside / merge, block % columns * merge + inside % merge)
    })
}

/// The first half of the pairs follows the row, the second the column, at the same speeds.
pub(super) fn rope(head_dim: usize) -> Rope {
    let quarter = head_dim / 4;
    let speed = |pair: usize| ROPE_BASE.powf(-2.0 * (pair % quarter) as f64 / (head_dim / 2) as f64);
    let axes = (0..2 * quarter).map(|pair| if pair < quarter { 1 } else { 2 }).collect();
    Rope::from_speeds((0..2 * quarter).map(speed).collect(), Pairing::Halves).with_axes(axes)
}
