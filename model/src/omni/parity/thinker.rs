//! Cases of the thinker: a prompt, perhaps with media, and every state on the way to the logits.

use causerie_kernels::Pool;
use causerie_kernels::ops::linear;

use super::{Case, Computed};
use crate::omni::audio::AudioStream;
use crate::omni::decoder::{Deepstack, Input, Scratch, Segment};
use crate::omni::kv::{KvStore, Sequence};
use crate::omni::positions::{Grid, Positions, Video, VideoWithSound, positions};
use crate::omni::trace::Trace;
use crate::omni::vision::{self, Seen};
use crate::omni::{Omni, OmniError};

/// Small, so that a case spans several.
const BLOCK: usize = 16;

/// A prompt in the thinker's memory, for going on from there.
pub(super) struct Prompted {
    pub(super) computed: Computed,
    pub(super) tokens: Vec<u32>,
    pub(super) positions: Positions,
    pub(super) images: Vec<Grid>,
    pub(super) videos: Vec<Video>,
    pub(super) store: KvStore,
    pub(super) sequence: Sequence,
    pub(super) scratch: Scratch,
    /// Logits of every row.
    pub(super) logits: Vec<f32>,
    /// The states of the layer that the talker takes, at the placeholders of media.
    pub(super) media: Vec<f32>,
}

/// Runs a case's prompt, with room for `more` tokens behind it.
pub(super) fn prompt(pool: &Pool, omni: &Omni, case: &Case, more: usize) -> Result<Prompted, OmniError> {
    let config = &omni.config.thinker;
    let tokens = case.tokens("in.input_ids")?;
    let mut computed = Computed::new();
    let mut embeddings = Vec::new();
    omni.thinker.embed(&tokens, &mut embeddings)?;
    let places = |of: &[u32]| (0..tokens.len()).filter(|i| of.contains(&tokens[*i])).collect::<Vec<_>>();
    let width = config.text.hidden;

    if case.has("in.input_features") {
        let heard = hear(pool, omni, case)?;
        scatter(&mut embeddings, width, &places(&[config.media.audio]), &heard)?;
        computed.insert("audio_embeds".into(), heard);
    }
    let mut seen = Seen::default();
    let (images, image_patches) = grids(case, "in.image_grid_thw", "in.pixel_values")?;
    let (grids, video_patches) = grids(case, "in.video_grid_thw", "in.pixel_values_videos")?;
    if !images.is_empty() && !grids.is_empty() {
        return Err(OmniError::Input("a case with both images and videos is not known here".into()));
    }
    let mut scratch = vision::Scratch::default();
    let values = config.vision.patch_values();
    for (grids, mut patches) in [(&images, image_patches.as_slice()), (&grids, video_patches.as_slice())] {
        for grid in grids {
            let (these, rest) = patches.split_at((grid.patches() * values).min(patches.len()));
            omni.vision.see(pool, &mut scratch, these, *grid, &mut seen)?;
            patches = rest;
        }
    }
    let pictures = places(&[config.media.image, config.media.video]);
    if !seen.tokens.is_empty() {
        scatter(&mut embeddings, width, &pictures, &seen.tokens)?;
        computed.insert("vision_embeds".into(), seen.tokens);
        computed.insert("vision_deepstack".into(), seen.deepstack.concat());
    }
    let seconds = if case.has("in.video_second_per_grid") { case.floats("in.video_second_per_grid")? } else { vec![] };
    let videos: Vec<Video> = grids
        .iter()
        .enumerate()
        .map(|(i, grid)| Video {
            grid: *grid,
            seconds_per_grid: seconds.get(i).map_or(1.0, |s| f64::from(*s)),
            since: None,
        })
        .collect();

    let positions = positions(config, &tokens, &images, &videos, VideoWithSound::Merged)?;
    let axes = (0..3).flat_map(|axis| positions.of.iter().map(move |p| p[axis] as f32));
    computed.insert("position_ids".into(), axes.collect());
    computed.insert("rope_delta".into(), vec![(positions.next - tokens.len() as f64) as f32]);

    let mut store = omni.thinker.decoder.store(BLOCK, (tokens.len() + more).div_ceil(BLOCK));
    let (mut scratch, mut sequence) = (Scratch::default(), Sequence::default());
    let input = Input {
        embeddings: &embeddings,
        positions: &positions.of,
        deepstack: Deepstack { rows: &pictures, layers: &seen.deepstack },
        keep: Some(omni.config.talker.accept_hidden_layer),
    };
    let mut segments = [Segment { sequence: &mut sequence, rows: tokens.len() }];
    let trace = Trace::into(&mut computed);
    omni.thinker.decoder.forward(pool, &mut scratch, &mut store, &mut segments, &input, trace)?;
    let mut logits = Vec::new();
    omni.thinker.logits(pool, &mut linear::Scratch::default(), &scratch.hidden, &mut logits);
    let kept = |row: &usize| &scratch.kept[row * width..(row + 1) * width];
    let media = [config.media.audio, config.media.image, config.media.video];
    let media = places(&media).iter().flat_map(kept).copied().collect();
    Ok(Prompted { computed, tokens, positions, images, videos, store, sequence, scratch, logits, media })
}

pub(super) fn compute(pool: &Pool, omni: &Omni, case: &Case) -> Result<Prompted, OmniError> {
    let mut prompted = prompt(pool, omni, case, 0)?;
    prompted.computed.insert("logits".into(), prompted.logits.clone());
    Ok(prompted)
}

/// The audio tower's tokens of the recorded mel frames, which are `[mels, frames]`.
fn hear(pool: &Pool, omni: &Omni, case: &Case) -> Result<Vec<f32>, OmniError> {
    let mel = case.floats("in.input_features")?;
    let mels = omni.config.thinker.audio.mels;
    let frames = mel.len() / mels;
    let turned: Vec<f32> = (0..mel.len()).map(|i| mel[i % mels * frames + i / mels]).collect();
    let (mut stream, mut tokens) = (AudioStream::default(), Vec::new());
    stream.push(&mut omni.audio.on(pool), &turned, &mut tokens)?;
    stream.flush(&mut omni.audio.on(pool), &mut tokens)?;
    Ok(tokens)
}

fn grids(case: &Case, grids: &str, patches: &str) -> Result<(Vec<Grid>, Vec<f32>), OmniError> {
    if !case.has(grids) {
        return Ok((Vec::new(), Vec::new()));
    }
    let sides = case.tokens(grids)?;
    let grid = |s: &[u32; 3]| Grid { frames: s[0] as usize, height: s[1] as usize, width: s[2] as usize };
    Ok((sides.as_chunks::<3>().0.iter().map(grid).collect(), case.floats(patches)?))
}

/// Puts rows of a tower in the place of their placeholders.
fn scatter(embeddings: &mut [f32], width: usize, places: &[usize], rows: &[f32]) -> Result<(), OmniError> {
    if places.len() * width != rows.len() {
        let problem = format!("{} placeholders for {} rows of media", places.len(), rows.len() / width);
        return Err(OmniError::Input(problem));
    }
    for (place, row) in places.iter().zip(rows.chunks_exact(width)) {
        embeddings[place * width..(place + 1) * width].copy_from_slice(row);
    }
    Ok(())
}
