//! From a picture to patches: sides that are whole tokens, bicubic resizing as Pillow does it, values from -1 to 1, in the
//! order that the tower reads. Equal to the reference implementation's image processor.

use causerie_model_api::Picture;

use super::places;
use crate::omni::OmniError;
use crate::omni::config::VisionConfig;
use crate::omni::positions::Grid;

/// The fewest pixels that a picture is enlarged to, for tokens of 32 × 32: the released checkpoints' `min_pixels`.
const MIN_PIXELS: usize = 3_136;
const MIN_PIXELS_TOKEN: usize = 32 * 32;

/// A picture as the tower reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// How many there are.
    pub grid: Grid,
    /// `[height · width, channels · frames · patch · patch]`.
    pub values: Vec<f32>,
}

/// How many patches a picture of that size becomes when it may have `tokens` tokens. Its frame fills a grid of its own.
///
/// # Errors
/// [`OmniError::Input`] if one side is much longer than the other.
pub fn grid(config: &VisionConfig, width: usize, height: usize, tokens: usize) -> Result<Grid, OmniError> {
    let side = config.patch * config.merge;
    let least = MIN_PIXELS * side * side / MIN_PIXELS_TOKEN;
    let (width, height) = whole_tokens(width, height, side, least, tokens * side * side)?;
    Ok(Grid { frames: 1, height: height / config.patch, width: width / config.patch })
}

/// Cuts a picture into the patches of its `grid`. Where a patch spans several frames, all show the picture.
///
/// # Errors
/// [`OmniError::Input`] if the tower does not read three channels.
pub fn patches(config: &VisionConfig, picture: &Picture, grid: Grid) -> Result<Patches, OmniError> {
    if config.channels != 3 {
        return Err(OmniError::Input(format!("the tower reads {} channels, pictures have 3", config.channels)));
    }
    let (width, height) = (grid.width * config.patch, grid.height * config.patch);
    let resized = resize(picture, width, height);
    let mut values = Vec::with_capacity(grid.patches() * config.patch_values());
    for (row, column) in places(grid, config.merge) {
        for channel in 0..3 {
            for _ in 0..config.frames {
                for y in row * config.patch..(row + 1) * config.patch {
                    let line = &resized[(y * width + column * config.patch) * 3..][..config.patch * 3];
                    // The reference scales and shifts in this order.
                    values.extend(line.iter().skip(channel).step_by(3).map(|v| (f32::from(*v) / 255.0 - 0.5) / 0.5));
                }
            }
        }
    }
    Ok(Patches { grid, values })
}

/// The sides nearest to a picture's that are multiples of `side`, with the ratio about kept and the area between `least`
/// and `most`.
fn whole_tokens(
    width: usize,
    height: usize,
    side: usize,
    least: usize,
    most: usize,
) -> Result<(usize, usize), OmniError> {
    let (short, long) = (width.min(height), width.max(height));
    if short == 0 || long > short.saturating_mul(Picture::MAX_RATIO as usize) {
        let problem = format!("a picture of {width} × {height} pixels: one side is far longer than the other");
        return Err(OmniError::Input(problem));
    }
    let (w, h, unit) = (width as f64, height as f64, side as f64);
    let rounded = |x: f64| (x / unit).round_ties_even() * unit;
    let area = rounded(w) * rounded(h);
    let sides = if area > most as f64 {
        let shrink = (w * h / most as f64).sqrt();
        let fit = |x: f64| ((x / shrink / unit).floor() * unit).max(unit);
        // A narrow picture's short side cannot shrink below one token: the long one makes up for it, which the reference
        // leaves out.
        let (w, h) = (fit(w), fit(h));
        let longest = |other: f64| ((most as f64 / other / unit).floor() * unit).max(unit);
        (w.min(longest(h)), h.min(longest(w)))
    } else if area < least as f64 {
        let grow = (least as f64 / (w * h)).sqrt();
        let fit = |x: f64| (x * grow / unit).ceil() * unit;
        (fit(w), fit(h))
    } else {
        (rounded(w), rounded(h))
    };
    Ok((sides.0 as usize, sides.1 as usize))
}

/// Bicubic with the filter widened where the picture shrinks: along the rows first, rounded to bytes between the two. (From
/// 13.0.0 on Pillow takes the columns first for some shapes, which rounds a little otherwise.)
fn resize(picture: &Picture, width: usize, height: usize) -> Vec<u8> {
    let (from_width, from_height) = (picture.width(), picture.height());
    let lines = if width == from_width {
        picture.rgb().to_vec()
    } else {
        let taps = taps(from_width, width);
        let mut out = Vec::with_capacity(from_height * width * 3);
        for line in picture.rgb().chunks_exact(from_width * 3) {
            for Taps { first, weights } in &taps {
                for channel in 0..3 {
                    let pixels = line[first * 3 + channel..].iter().step_by(3);
                    out.push(rounded(weights.iter().zip(pixels).map(|(w, v)| w * i64::from(*v)).sum()));
                }
            }
        }
        out
    };
    if height == from_height {
        return lines;
    }
    let mut out = Vec::with_capacity(height * width * 3);
    for Taps { first, weights } in taps(from_height, height) {
        for column in 0..width * 3 {
            let pixels = lines[first * width * 3 + column..].iter().step_by(width * 3);
            out.push(rounded(weights.iter().zip(pixels).map(|(w, v)| w * i64::from(*v)).sum()));
        }
    }
    out
}

/// Binary digits behind the point of a weight, as in Pillow.
const DIGITS: u32 = 22;

/// What one output is made of: the first input, and the weights of it and those after it.
struct Taps {
    first: usize,
    weights: Vec<i64>,
}

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let reach = 2.0 * stretch;
    let tap = |output: usize| {
        let centre = (output as f64 + 0.5) * scale;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let last = ((centre + reach + 0.5) as usize).min(from);
        let weights: Vec<f64> = (first..last).map(|i| cubic((i as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        let weights = weights.iter().map(|w| (w / sum * f64::from(1 << DIGITS)).round() as i64).collect();
        Taps { first, weights }
    };
    (0..to).map(tap).collect()
}

/// Keys' cubic (1981) with a slope of −1/2.
fn cubic(x: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

fn rounded(sum: i64) -> u8 {
    ((sum + (1 << (DIGITS - 1))) >> DIGITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use causerie_model_api::MediaResolution;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::omni::config::Config;
    use crate::omni::parity::Case;
    use crate::omni::tests::tiny;

    fn vision() -> VisionConfig {
        Config::read(&tiny()).unwrap().thinker.vision
    }

    /// What make.py draws, too.
    fn drawn(width: usize, height: usize) -> Picture {
        let value = |i: usize| ((i * 31 + i / 7 * 17 + i / (3 * width) * 29) % 251) as u8;
        let rgb: Vec<u8> = (0..width * height * 3).map(value).collect();
        Picture::new(width as u32, height as u32, rgb, MediaResolution::High).unwrap()
    }

    #[test]
    fn patches_are_those_of_the_reference() {
        let case = Case::all(&tiny()).unwrap().into_iter().find(|case| case.name() == "image").unwrap();
        let [height, width, 3] = case.dimensions("in.rgb").unwrap()[..] else { panic!("a picture") };
        let rgb: Vec<u8> = case.tokens("in.rgb").unwrap().into_iter().map(|v| v as u8).collect();
        let picture = Picture::new(width as u32, height as u32, rgb, MediaResolution::High).unwrap();
        let config = vision();
        let grid = grid(&config, width, height, 1_024).unwrap();
        let sides: Vec<u32> = case.tokens("in.image_grid_thw").unwrap();
        assert_eq!(sides, [grid.frames as u32, grid.height as u32, grid.width as u32]);
        let patches = patches(&config, &picture, grid).unwrap().values;
        let expected = case.floats("in.pixel_values").unwrap();
        assert_eq!(patches.len(), expected.len());
        let off = patches.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "off by {off}");
    }

    #[test]
    fn resizing_and_sides_are_those_of_pillow_and_python() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/pictures/resized.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let number = |value: &Value| value.as_u64().unwrap() as usize;
        for case in golden["resized"].as_array().unwrap() {
            let [from, to] = [&case["from"], &case["to"]].map(|s| (number(&s[0]), number(&s[1])));
            let resized = resize(&drawn(from.0, from.1), to.0, to.1);
            let expected = case["rgb"].as_str().unwrap();
            let hex: String = resized.iter().map(|v| format!("{v:02x}")).collect();
            assert!(hex == expected, "{from:?} to {to:?}");
        }
        for case in golden["sides"].as_array().unwrap() {
            let [width, height, most, w, h] = [0, 1, 2, 3, 4].map(|i| number(&case[i]));
            let sides = whole_tokens(width, height, 32, MIN_PIXELS, most).unwrap();
            assert_eq!(sides, (w, h), "{width} × {height} in {most} pixels");
        }
    }

    #[test]
    fn pictures_of_any_shape_become_tokens_or_are_refused() {
        let config = vision();
        let tokens = |width, height, most| grid(&config, width, height, most).map(|grid| grid.tokens(config.merge));
        assert_eq!(tokens(1_280, 720, 64).unwrap(), 60);
        assert_eq!(tokens(640, 640, 64).unwrap(), 64);
        assert_eq!(tokens(640, 640, 256).unwrap(), 256);
        assert_eq!(tokens(1, 1, 64).unwrap(), 4);
        assert_eq!(tokens(16_384, 16_384, 64).unwrap(), 64);
        for (width, height) in [(0, 0), (0, 10), (10, 0), (201, 1), (1, 20_000)] {
            let refused = grid(&config, width, height, 64);
            assert!(matches!(refused, Err(OmniError::Input(_))), "{width} × {height}: {refused:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_picture_has_more_tokens_than_it_may(width in 1_usize..20_000, height in 1_usize..20_000, most in 16_usize..1_100) {
            let config = vision();
            let Ok(grid) = grid(&config, width, height, most) else {
                prop_assert!(width.max(height) > Picture::MAX_RATIO as usize * width.min(height));
                return Ok(());
            };
            prop_assert!(grid.tokens(config.merge) <= most.max(100), "{grid:?}");
            prop_assert!(grid.height.is_multiple_of(config.merge) && grid.width.is_multiple_of(config.merge));
        }
    }
}
