//! The case table of the kernel, and its run on a device.

use super::Params;
use super::cuda::{Draw, Draws, sample_tokens, words};
use crate::cuda::Gpu;
use crate::cuda::check::Report;

const BASE: Params =
    Params { temperature: 0.8, top_k: 50, top_p: 1.0, min_p: 0.0, repetition: 1.0, presence: 0.0, frequency: 0.0 };

/// Vocabulary, how coarse its logits are (0: not at all; ties otherwise), and how tokens are drawn.
const CASES: [(usize, f32, Params); 10] = [
    (1, 0.0, BASE),
    (40, 0.0, Params { top_k: 5, ..BASE }),
    (40, 1.0, Params { top_k: 7, ..BASE }),
    (1000, 0.5, Params { top_k: 3, ..BASE }),
    (1088, 0.0, Params { repetition: 1.05, temperature: 0.9, ..BASE }),
    (2048, 0.0, Params { top_p: 0.8, ..BASE }),
    (2048, 0.25, Params { top_k: 1024, min_p: 0.3, top_p: 0.9, ..BASE }),
    (3072, 0.0, Params { temperature: 0.0, repetition: 1.5, top_k: 0, ..BASE }),
    (515, 0.0, Params { top_k: 1, ..BASE }),
    (152_064, 0.0, Params { temperature: 1.3, top_p: 0.95, ..BASE }),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (vocabulary, step, params) in CASES {
        report.case(gpu, format_args!("{vocabulary} tokens in steps of {step}, {params:?}"), |noise| {
            let rows = if vocabulary > 10_000 { 1 } else { 5 };
            let mut logits = noise.f32s(rows * vocabulary, 8.0);
            if step > 0.0 {
                logits.iter_mut().for_each(|x| *x = (*x / step).round() * step);
            }
            if rows > 1 && vocabulary > 1 {
                (logits[1], logits[vocabulary]) = (f32::NAN, f32::INFINITY);
                logits[2 * vocabulary..3 * vocabulary].fill(f32::NEG_INFINITY);
            }
            let draws: Vec<Draw> =
                (0..rows as u64).map(|row| Draw { params, seed: noise.bits(), position: row << 33 | 5 }).collect();
            let draws = Draws::new(gpu, &draws)?;
            // An eighth of all tokens, each.
            let mut bits =
                |n: usize| (0..n).map(|_| (noise.bits() & noise.bits() & noise.bits()) as u32).collect::<Vec<_>>();
            let seen = gpu.upload(&bits(rows * words(vocabulary)))?;
            let banned = gpu.upload(&bits(words(vocabulary)))?;
            let (logits, mut tokens) = (gpu.upload(&logits)?, gpu.allocate(rows)?);
            sample_tokens(gpu, logits.all(), draws.all(), None, None, &mut tokens.all_mut())?;
            let (seen, banned) = (Some(seen.all()), Some(banned.all()));
            sample_tokens(gpu, logits.all(), draws.all(), seen, banned, &mut tokens.all_mut())
        });
    }
}
