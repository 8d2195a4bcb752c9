//! The angles of positions: three coordinates interleaved over the pairs (arXiv 2409.12191, interleaved as in Qwen3-VL),
//! and YaRN for contexts longer than the trained one (arXiv 2309.00071).

use causerie_kernels::ops::rope::{Pairing, Rope};

use super::config::{RopeConfig, Scaling};

/// Turns over the trained context above which a pair keeps its speed, and below which it is slowed down by the whole
/// factor (YaRN's β and α for the Llama family, which the Qwen releases use too).
const KEPT_TURNS: f64 = 32.0;
const SLOWED_TURNS: f64 = 1.0;

/// The angles of a decoder with heads of `head_dim` values.
pub(super) fn rope(config: &RopeConfig, head_dim: usize) -> Rope {
    let pairs = head_dim / 2;
    let plain = |pair: usize| config.base.powf(-2.0 * pair as f64 / head_dim as f64);
    let rope = match config.scaling {
        Scaling::None => Rope::from_speeds((0..pairs).map(plain).collect(), Pairing::Halves),
        Scaling::Yarn { factor, trained } => {
            // The pair that turns so many times in the trained context.
            let pair_of = |turns: f64| {
                head_dim as f64 * (trained as f64 / (turns * std::f64::consts::TAU)).ln() / (2.0 * config.base.ln())
            };
            let low = pair_of(KEPT_TURNS).floor().max(0.0);
            let high = pair_of(SLOWED_TURNS).ceil().min(head_dim as f64 - 1.0);
            let speed = |pair: usize| {
                let slowed = ((pair as f64 - low) / (high - low).max(1e-3)).clamp(0.0, 1.0);
                plain(pair) * (1.0 - slowed + slowed / factor)
            };
            let magnitude = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
            Rope::from_speeds((0..pairs).map(speed).collect(), Pairing::Halves).with_magnitude(magnitude as f32)
        }
    };
    match config.sections {
        None => rope,
        Some(sections) => rope.with_axes(axes(sections, pairs)),
    }
}

/// Pairs 1, 4, 7, … follow the height and 2, 5, 8, … the width, as many as their sections say; the others the time.
fn axes(sections: [usize; 3], pairs: usize) -> Vec<u8> {
    let axis = |pair: usize| match pair % 3 {
        1 if pair < 3 * sections[1] => 1,
        2 if pair < 3 * sections[2] => 2,
        _ => 0,
    };
    (0..pairs).map(axis).collect()
}

#[cfg(test)]
mod tests {
    use causerie_kernels::ops::rope::Turns;

    use super::{RopeConfig, Scaling, axes, rope};

    #[test]
    fn the_released_sections_leave_the_slowest_pairs_to_time() {
        let axes = axes([24, 20, 20], 64);
        assert_eq!(axes[..7], [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(axes[57..], [0, 1, 2, 0, 0, 0, 0]);
        assert_eq!([0, 1, 2].map(|axis| axes.iter().filter(|&&a| a == axis).count()), [24, 20, 20]);
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_slows_down_slow_ones() {
        let config = |scaling| RopeConfig { base: 1e6, sections: None, scaling };
        let head = |scaling, position: usize| {
            let rope = rope(&config(scaling), 128);
            let (mut turns, mut x) = (Turns::default(), [vec![1.0f32; 64], vec![0.0; 64]].concat());
            rope.turns([position], &mut turns);
            rope.apply(&turns, &mut x, 128, 1, 128);
            (0..64).map(|pair| x[64 + pair].atan2(x[pair])).collect::<Vec<_>>()
        };
        let yarn = Scaling::Yarn { factor: 4.0, trained: 32_768 };
        let (plain, scaled, far) = (head(Scaling::None, 3), head(yarn, 3), head(yarn, 12));
        assert!((plain[0] - scaled[0]).abs() < 1e-6, "{} {}", plain[0], scaled[0]);
        assert!((plain[63] - far[63]).abs() < 1e-9, "{} {}", plain[63], far[63]);
        assert!(plain[32] > 1.01 * scaled[32] && 3.99 * scaled[32] > plain[32]);
    }

    /// Speeds and magnitude as the reference implementation computes them (transformers 5.23.0, `ROPE_INIT_FUNCTIONS["yarn"]`,
    /// heads of 128 values, a base of 1e6).
    #[test]
    fn yarn_is_that_of_the_reference() {
        const PAIRS: [usize; 11] = [0, 10, 20, 22, 25, 30, 35, 39, 40, 45, 63];
        let cases = [
            (
                4.0,
                32_768,
                1.138_629_4,
                [
                    1.0,
                    0.115_478_2,
                    0.013_335_215,
                    0.008_659_643,
                    0.004_131_738,
                    1.064_361e-3,
                    2.462_584e-4,
                    6.490_394e-5,
                    4.445_698_5e-5,
                    1.510_740_9e-5,
                    3.102_344_4e-7,
                ],
            ),
            (
                16.0,
                65_536,
                1.277_258_9,
                [
                    1.0,
                    0.115_478_2,
                    0.013_335_215,
                    0.008_659_643,
                    0.004_531_584,
                    1.200_236_8e-3,
                    2.635_734_3e-4,
                    6.247_005e-5,
                    4.053_431e-5,
                    3.776_852_3e-6,
                    7.755_861e-8,
                ],
            ),
        ];
        for (factor, trained, magnitude, speeds) in cases {
            let scaling = Scaling::Yarn { factor, trained };
            let rope = rope(&RopeConfig { base: 1e6, sections: None, scaling }, 128);
            let (mut turns, mut x) = (Turns::default(), [vec![1.0_f32; 64], vec![0.0; 64]].concat());
            rope.turns([1], &mut turns);
            rope.apply(&turns, &mut x, 128, 1, 128);
            for (pair, speed) in PAIRS.into_iter().zip(speeds) {
                let (angle, length) = (x[64 + pair].atan2(x[pair]), x[64 + pair].hypot(x[pair]));
                assert!((angle - speed).abs() < 1e-5 * speed, "factor {factor}, pair {pair}: {angle} for {speed}");
                assert!((length - magnitude).abs() < 1e-5, "factor {factor}: {length} for {magnitude}");
            }
        }
    }
}
