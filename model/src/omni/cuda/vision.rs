//! The vision tower on a device: patches of a picture to tokens, and features for the thinker's first layers.
//!
//! The table of positions is resampled on the host, once for each picture: it depends on the picture's shape alone.

use causerie_kernels::cuda::{Buffer, Gpu, Slice};
use causerie_kernels::ops::gemm::cuda::Activation;
use causerie_kernels::ops::norm_rope::cuda::{Angles, Heads, norm_rope_append};
use causerie_kernels::ops::paged_attention::Visible;
use causerie_kernels::ops::paged_attention::cuda::{Batch, Rows, Shape, rows_attention};
use half::bf16;

use super::tower::{Layer, apply, norm};
use super::weights::{Linear, Norm, Uploader};
use crate::omni::OmniError;
use crate::omni::config::VisionConfig;
use crate::omni::positions::Grid;
use crate::omni::vision::{NAMES, NORM_EPS, Seen, check, places, position, rope};

/// The tower's weights.
pub struct VisionTower {
    config: VisionConfig,
    patches: Linear,
    /// `[side, side, hidden]`, on the host.
    positions: Vec<f32>,
    angles: Angles,
    layers: Vec<Layer>,
    merger: Merger,
    /// One for each entry of the configuration's `deepstack`.
    deepstack: Vec<Merger>,
}

/// Makes one token of `merge × merge` patches, which follow each other: joining them moves nothing.
struct Merger {
    /// Of patches, or of joined patches (deepstack).
    norm: Norm,
    layers: [Linear; 2],
}

impl VisionTower {
    pub(super) fn load(up: &Uploader<'_>, config: &VisionConfig) -> Result<Self, OmniError> {
        let name = |part: &str| format!("thinker.visual.{part}");
        let VisionConfig { hidden, channels, frames, patch, side, .. } = *config;
        let weights = up.tensor(&name("patch_embed.proj.weight"), &[hidden, channels, frames, patch, patch])?;
        let bias = up.tensor(&name("patch_embed.proj.bias"), &[hidden])?;
        let deepstack = 0..config.deepstack.len();
        Ok(Self {
            patches: Linear { weights, bias, n: hidden, k: config.patch_values() },
            positions: up.values(&name("pos_embed.weight"), &[side * side, hidden])?,
            angles: Angles::new(up.gpu, rope(hidden / config.heads))?,
            layers: (0..config.layers)
                .map(|i| Layer::load(up, &name(&format!("blocks.{i}")), &NAMES, (hidden, config.inner)))
                .collect::<Result<_, _>>()?,
            merger: Merger::load(up, &name("merger"), config, false)?,
            deepstack: deepstack
                .map(|i| Merger::load(up, &name(&format!("merger_list.{i}")), config, true))
                .collect::<Result<_, _>>()?,
            config: config.clone(),
        })
    }

    /// Appends what is seen in `patches`, `[frames · height · width, patch values]`, to `seen`.
    ///
    /// # Errors
    /// [`OmniError::Input`] for a grid that does not fit the patches, or [`OmniError::Device`].
    pub fn see(&self, gpu: &Gpu, patches: &[f32], grid: Grid, seen: &mut Seen) -> Result<(), OmniError> {
        check(&self.config, patches, grid)?;
        seen.deepstack.resize(self.deepstack.len(), Vec::new());
        let one = Grid { frames: 1, ..grid };
        for patches in patches.chunks_exact(one.patches() * self.config.patch_values()) {
            self.see_grid(gpu, patches, one, seen)?;
        }
        Ok(())
    }

    fn see_grid(&self, gpu: &Gpu, patches: &[f32], grid: Grid, seen: &mut Seen) -> Result<(), OmniError> {
        let VisionConfig { hidden, heads, merge, side, .. } = self.config;
        let (n, head_dim) = (grid.patches(), hidden / heads);
        let places: Vec<(usize, usize)> = places(grid, merge).collect();
        let mut table = vec![0.0; n * hidden];
        for (row, &place) in table.chunks_exact_mut(hidden).zip(&places) {
            position(&self.positions, side, place, grid, row);
        }
        let (input, table) = (upload(gpu, patches)?, upload(gpu, &table)?);
        let mut x = apply(gpu, &self.patches, input.all(), Activation::None, Some(table.all()))?;
        let axis = |of: fn(&(usize, usize)) -> f32| places.iter().map(of);
        let axes = vec![0.0; n].into_iter().chain(axis(|p| p.0 as f32)).chain(axis(|p| p.1 as f32));
        let axes = gpu.upload(&axes.collect::<Vec<f32>>())?;
        let mut turns = gpu.allocate(n * 2 * self.angles.pairs())?;
        self.angles.turns(gpu, axes.all(), &mut turns.all_mut())?;
        let slots = gpu.upload(&(0..n as i32).collect::<Vec<_>>())?;
        let batch = Batch::blocks(gpu, &[n])?;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = Shape { heads, kv_heads: heads, head_dim, scale, visible: Visible::All };
        let of_heads = Heads { heads, kv_heads: heads, head_dim };
        let buffer = || gpu.allocate::<bf16>(n * hidden);
        let (mut q, mut k, mut v) = (buffer()?, buffer()?, buffer()?);
        // The keys of a picture are few next to its rows: they need not be shared out.
        let mut shares = gpu.allocate(0)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(gpu, x.all(), (NORM_EPS, Activation::GeluTanh), |qkv, attended| {
                let (mut q_, mut k_, mut v_) = (q.all_mut(), k.all_mut(), v.all_mut());
                norm_rope_append(gpu, qkv, None, turns.all(), slots.all(), of_heads, &mut q_, &mut k_, &mut v_)?;
                let rows = Rows { k: k.all(), v: v.all(), row_stride: hidden };
                let attended = &mut attended.all_mut();
                Ok(rows_attention(gpu, &shape, q.all(), rows, &batch, &mut shares.all_mut(), attended)?)
            })?;
            if let Some(entry) = self.config.deepstack.iter().position(|&layer| layer == index) {
                seen.deepstack[entry].extend(self.deepstack[entry].apply(gpu, x.all())?);
            }
        }
        seen.tokens.extend(self.merger.apply(gpu, x.all())?);
        Ok(())
    }
}

fn upload(gpu: &Gpu, values: &[f32]) -> Result<Buffer<bf16>, OmniError> {
    Ok(gpu.upload(&values.iter().map(|&value| bf16::from_f32(value)).collect::<Vec<_>>())?)
}

impl Merger {
    fn load(up: &Uploader<'_>, name: &str, config: &VisionConfig, joined: bool) -> Result<Self, OmniError> {
        let width = config.merge * config.merge * config.hidden;
        Ok(Self {
            norm: up.norm(&format!("{name}.ln_q"), if joined { width } else { config.hidden })?,
            layers: [
                up.linear(&format!("{name}.mlp.0"), width, width)?,
                up.linear(&format!("{name}.mlp.2"), config.output, width)?,
            ],
        })
    }

    fn apply(&self, gpu: &Gpu, x: Slice<'_, bf16>) -> Result<Vec<f32>, OmniError> {
        let normed = norm(gpu, &self.norm, x, NORM_EPS)?;
        let inner = apply(gpu, &self.layers[0], normed.all(), Activation::Gelu, None)?;
        let y = apply(gpu, &self.layers[1], inner.all(), Activation::None, None)?;
        Ok(y.read()?.into_iter().map(bf16::to_f32).collect())
    }
}
