//! One table of shapes, run for every type on every backend that this machine has.

use proptest::prelude::*;

use super::activations::Activations;
use super::format::{pack_six_bit_scales, six_bit_scales};
use super::{INT4_GROUP, NarrowType, Scratch, WeightType, Weights, linear, reference};
use crate::Pool;
use crate::dispatch::Backend;

/// splitmix64: <https://prng.di.unimi.it/splitmix64.c>.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// −1…1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// What weights and activations are made of.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Random,
    /// Every bit of every quant set (or none), activations of one magnitude: the largest sums there are.
    Ones(f32),
    Zeros(f32),
    /// The same with activations that change their sign with the weights' index.
    Alternating,
}

const FILLS: [Fill; 6] =
    [Fill::Random, Fill::Ones(1.0), Fill::Ones(-1.0), Fill::Zeros(1.0), Fill::Zeros(-1.0), Fill::Alternating];

/// A matrix as a file would have it.
fn weights(random: &mut Random, fill: Fill, kind: WeightType, n: usize, k: usize) -> Vec<u8> {
    let mut bytes = vec![0; n * kind.row_bytes(k).unwrap()];
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        for byte in block.iter_mut() {
            *byte = match fill {
                Fill::Random => random.next() as u8,
                Fill::Ones(_) => 0xff,
                Fill::Zeros(_) => 0,
                Fill::Alternating => 0x80,
            };
        }
        let mut half = |at: usize, largest: f32| {
            let value = if matches!(fill, Fill::Random) { random.float() * largest } else { largest };
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
        };
        match kind {
            WeightType::F32 => block.copy_from_slice(&random.float().to_le_bytes()),
            WeightType::F16 => half(0, 1.0),
            WeightType::Q8_0 => half(0, 0.01),
            WeightType::Q4_0 => half(0, 0.1),
            WeightType::Q4_1 | WeightType::Q4K => {
                half(0, 0.1);
                half(2, 0.3);
            }
            WeightType::Q6K => half(208, 0.003),
        }
    }
    bytes
}

fn activations(random: &mut Random, fill: Fill, m: usize, k: usize) -> Vec<f32> {
    (0..m * k)
        .map(|index| match fill {
            // Some blocks are a thousand times larger, some are nothing at all. Super-blocks have eight blocks: with five
            // sizes, each of the eight is large in some row.
            Fill::Random => random.float() * [1.0, 1000.0, 0.0, 0.01, 1.0][index / 32 % 5],
            Fill::Ones(x) | Fill::Zeros(x) => x,
            Fill::Alternating => 1.0 - 2.0 * (index % 2) as f32,
        })
        .collect()
}

/// What the reference gives, and how far a float result may be from it: `[m, n]` each.
struct Expected {
    values: Vec<f32>,
    tolerance: Vec<f32>,
}

/// The reference for activations `x`; `slack` is added to `|x|` where the fast version may see other activations.
fn expected(x: &[f32], slack: &[f32], m: usize, kind: WeightType, n: usize, bytes: &[u8], bias: &[f32]) -> Expected {
    let k = x.len() / m;
    let mut values = vec![0.0; m * n];
    reference::linear(x, m, kind, n, bytes, Some(bias), &mut values);
    let mut tolerance = vec![0.0; m * n];
    let mut row = vec![0.0; k];
    for o in 0..n {
        let size = bytes.len() / n;
        kind.dequantise_row(&bytes[o * size..(o + 1) * size], &mut row);
        for i in 0..m {
            // The parts of a weight (scale times quant, minimum) may cancel, so rounding is relative to their magnitudes,
            // of which the largest weight of a block is a measure. A sum of k floats may lose half a bit each time.
            let mut sum = f64::from(bias[o].abs()) * 1e-6;
            for (c, row) in row.chunks(32.min(k)).enumerate() {
                let largest = f64::from(row.iter().fold(0.0_f32, |a, b| a.max(b.abs())));
                let rounding = largest * 2.0 * (k as f64).sqrt().max(4.0) * f64::from(f32::EPSILON);
                for (j, weight) in row.iter().enumerate() {
                    let at = i * k + c * 32.min(k) + j;
                    sum += f64::from(slack[at]) * f64::from(weight.abs()) + f64::from(x[at].abs()) * rounding;
                }
            }
            tolerance[i * n + o] = sum as f32 + 1e-30;
        }
    }
    Expected { values, tolerance }
}

/// The worst element, if it is out of tolerance.
fn compare(got: &[f32], expected: &Expected) -> Result<f32, String> {
    let error = |i: usize| (got[i] - expected.values[i]).abs() / expected.tolerance[i];
    let worst = (0..got.len()).max_by(|&a, &b| error(a).total_cmp(&error(b))).unwrap_or(0);
    if error(worst) <= 1.0 {
        return Ok(error(worst));
    }
    Err(format!(
        "element {worst}: {} instead of {}, {} tolerances of {} away",
        got[worst],
        expected.values[worst],
        error(worst),
        expected.tolerance[worst]
    ))
}

fn backends() -> impl Iterator<Item = Backend> {
    Backend::ALL.into_iter().filter(|backend| backend.available())
}

#[test]
fn every_backend_agrees_with_the_reference() {
    let pool = Pool::new(2);
    let mut random = Random(1);
    let mut failures = Vec::new();
    for kind in WeightType::ALL {
        let step = kind.block_len();
        let float = matches!(kind, WeightType::F32 | WeightType::F16);
        let widths = if float { [1, 5, 64, 257] } else { [step, 2 * step, 3 * step, 7 * step] };
        let mut worst: Vec<(Backend, f32)> = backends().map(|backend| (backend, 0.0)).collect();
        for k in widths {
            for n in [1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 67] {
                for m in [1, 2, 3, 5, 8, 17] {
                    // Extremes do not depend on the shape: they are tried on some of the shapes.
                    let fills = if !float && n <= 9 && m <= 2 { &FILLS[..] } else { &FILLS[..1] };
                    for &fill in fills {
                        let bytes = weights(&mut random, fill, kind, n, k);
                        let x = activations(&mut random, fill, m, k);
                        let bias: Vec<f32> = (0..n).map(|_| random.float()).collect();
                        let mut seen = x.clone();
                        let mut slack = vec![0.0; m * k];
                        if !float {
                            seen = quantised(&x, m, k);
                            // What rounding to 127 steps may change.
                            for (slack, x) in slack.chunks_mut(32).zip(x.chunks(32)) {
                                slack.fill(x.iter().fold(0.0_f32, |a, b| a.max(b.abs())) / 253.9);
                            }
                        }
                        let exact = expected(&seen, &vec![0.0; m * k], m, kind, n, &bytes, &bias);
                        let loose = expected(&x, &slack, m, kind, n, &bytes, &bias);
                        for (backend, worst) in &mut worst {
                            let packed = Weights::pack_for(*backend, &pool, kind, n, k, &bytes).unwrap();
                            let mut y = vec![f32::NAN; m * n];
                            linear(&pool, &mut Scratch::default(), &x, m, &packed, Some(&bias), &mut y);
                            for (what, expected) in [("same activations", &exact), ("float activations", &loose)] {
                                match compare(&y, expected) {
                                    Ok(error) if what == "same activations" => *worst = worst.max(error),
                                    Ok(_) => {}
                                    Err(error) => failures.push(format!(
                                        "{backend:?} {kind:?} m={m} n={n} k={k} {fill:?}, {what}: {error}"
                                    )),
                                }
                            }
                        }
                    }
                }
            }
        }
        for (backend, worst) in worst {
            println!("{backend:?} {kind:?}: at most {worst:.3} tolerances away");
        }
    }
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures[..failures.len().min(20)].join("\n"));
}

/// Activations as the integer kernels see them.
fn quantised(x: &[f32], m: usize, k: usize) -> Vec<f32> {
    let mut activations = Activations::default();
    activations.quantise(&Pool::new(1), x, m, k);
    (0..m * k).map(|i| f32::from(activations.quants[i]) * activations.scales[i / 32]).collect()
}

#[test]
fn quantised_activations_are_near_and_their_sums_are_theirs() {
    let mut random = Random(2);
    let mut x: Vec<f32> = activations(&mut random, Fill::Random, 3, 256);
    x[5] = f32::NAN;
    x[64] = 1e-38;
    x[96..128].fill(-1e38);
    let mut q = Activations::default();
    // A longer call before must leave no trace.
    q.quantise(&Pool::new(2), &vec![1.0; 16 * 4096], 16, 4096);
    q.quantise(&Pool::new(2), &x, 3, 256);
    assert_eq!((q.quants.len(), q.scales.len(), q.sums.len(), q.offsets.len()), (768, 24, 24, 48));
    for (i, &x) in x.iter().enumerate() {
        let (quant, scale) = (f32::from(q.quants[i]), q.scales[i / 32]);
        let x = if x.is_nan() { 0.0 } else { x };
        assert!(
            q.quants[i] > -128 && (quant * scale - x).abs() <= scale * 0.5001 + 1e-30,
            "{i}: {quant} × {scale}, {x}"
        );
    }
    for block in 0..24 {
        let quants = &q.quants[block * 32..block * 32 + 32];
        let sum = |half: usize, pair: usize| -> i32 {
            let these = quants[16 * half..16 * half + 16].iter().enumerate().filter(|(i, _)| i % 4 / 2 == pair);
            these.map(|(_, &quant)| i32::from(quant)).sum()
        };
        for half in 0..2 {
            assert_eq!(q.offsets[2 * block + half], [0, 1].map(|pair| (-32 * sum(half, pair)) as i16));
        }
        let total: i32 = quants.iter().map(|&quant| i32::from(quant)).sum();
        assert_eq!(q.sums[block], total as f32 * q.scales[block]);
    }
}

/// A row's result is the same to the bit alone, among others, on other threads, and in a stack.
#[test]
fn a_row_depends_on_nothing_but_itself() {
    let mut random = Random(3);
    let (one, three) = (Pool::new(1), Pool::new(3));
    for backend in backends() {
        for kind in WeightType::ALL {
            let (m, n, k) = (17, 41, 512);
            let bytes = weights(&mut random, Fill::Random, kind, n, k);
            let other = weights(&mut random, Fill::Random, WeightType::Q6K, 19, k);
            let x = activations(&mut random, Fill::Random, m, k);
            let pack = |kind, n, bytes| Weights::pack_for(backend, &three, kind, n, k, bytes).unwrap();
            let packed = pack(kind, n, &bytes);
            let mut scratch = Scratch::default();
            let mut whole = vec![0.0; m * n];
            linear(&one, &mut scratch, &x, m, &packed, None, &mut whole);
            let mut again = vec![0.0; m * n];
            linear(&three, &mut scratch, &x, m, &packed, None, &mut again);
            assert!(whole == again, "{backend:?} {kind:?}: threads");
            let mut row = vec![0.0; n];
            for i in 0..m {
                linear(&three, &mut scratch, &x[i * k..(i + 1) * k], 1, &packed, None, &mut row);
                assert!(row == whole[i * n..(i + 1) * n], "{backend:?} {kind:?}: row {i} alone");
            }
            let stack = Weights::stack([pack(WeightType::Q6K, 19, &other), packed]).unwrap();
            let mut stacked = vec![0.0; m * (19 + n)];
            linear(&three, &mut scratch, &x, m, &stack, None, &mut stacked);
            for (stacked, whole) in stacked.chunks(19 + n).zip(whole.chunks(n)) {
                assert!(stacked[19..] == *whole, "{backend:?} {kind:?}: stacked");
            }
        }
    }
}

#[test]
fn packing_loses_nothing() {
    let pool = Pool::new(2);
    let mut random = Random(4);
    for backend in backends() {
        for kind in WeightType::ALL {
            let (n, k) = (37, 512);
            let bytes = weights(&mut random, Fill::Random, kind, n, k);
            let stack = [1, 2].map(|_| Weights::pack_for(backend, &pool, kind, n, k, &bytes).unwrap());
            let packed = Weights::stack(stack).unwrap();
            assert_eq!((packed.n(), packed.k()), (2 * n, k));
            let (mut row, mut same) = (vec![0.0; k], vec![0.0; k]);
            for (index, bytes) in bytes.chunks(bytes.len() / n).enumerate() {
                assert!(packed.parts[0].file_row(index) == bytes, "{backend:?} {kind:?}: row {index}");
                kind.dequantise_row(bytes, &mut same);
                packed.row(n + index, &mut row);
                assert!(row == same, "{backend:?} {kind:?}: row {index} as floats");
            }
        }
    }
}

#[test]
fn packed_weights_are_hardly_larger_than_the_file() {
    let pool = Pool::new(1);
    for kind in WeightType::ALL {
        let bytes = vec![0; 256 * kind.row_bytes(1536).unwrap()];
        let packed = Weights::pack(&pool, kind, 256, 1536, &bytes).unwrap();
        // Q8_0 keeps its quants aligned, Q4_0 is stored with a minimum.
        let most = match kind {
            WeightType::Q8_0 => 1.06,
            WeightType::Q4_0 => 1.12,
            _ => 1.03,
        };
        let ratio = packed.bytes() as f64 / bytes.len() as f64;
        assert!(ratio <= most, "{kind:?}: {ratio}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let pool = Pool::new(1);
    let refuse = |kind, n, k, len| Weights::pack(&pool, kind, n, k, &vec![0; len]).unwrap_err().to_string();
    assert_eq!(refuse(WeightType::Q4K, 2, 256, 287), "287 bytes are not 2 × 256 Q4K weights");
    assert_eq!(refuse(WeightType::F32, 0, 4, 0), "0 bytes are not 0 × 4 F32 weights");
    assert_eq!(refuse(WeightType::F32, usize::MAX, 4, 16), format!("16 bytes are not {} × 4 F32 weights", usize::MAX));
    assert_eq!(refuse(WeightType::Q6K, 1, 576, 1), "a row of 576 weights is not a whole number of Q6K blocks of 256");
    let narrow = Weights::pack(&pool, WeightType::F32, 1, 3, &[0; 12]).unwrap();
    let wide = Weights::pack(&pool, WeightType::F32, 1, 4, &[0; 16]).unwrap();
    assert!(Weights::stack([narrow, wide]).unwrap_err().to_string().starts_with("a matrix of width 4 on"));
    assert!(Weights::stack([]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn six_bit_scales_come_back(packed in any::<[u8; 12]>()) {
        let (scales, mins) = six_bit_scales(&packed);
        prop_assert!(scales.iter().chain(&mins).all(|&value| value < 64));
        prop_assert_eq!(pack_six_bit_scales(scales, mins), packed);
    }
}

/// Narrowed weights of random size: wide rows, rows of one value, rows of zeros.
fn wide_weights(random: &mut Random, n: usize, k: usize) -> Vec<f32> {
    let size = |row: usize| [0.02, 3.0, 0.0, 1e-4][row % 4];
    (0..n * k).map(|i| random.float() * size(i / k)).collect()
}

#[test]
fn narrowed_weights_are_as_near_as_their_bits_allow() {
    let mut random = Random(5);
    for (n, k) in [(1, 1), (3, 7), (17, 128), (33, 300), (40, 513)] {
        let weights = wide_weights(&mut random, n, k);
        for kind in NarrowType::ALL {
            let narrow = Weights::narrow(&Pool::new(1), kind, n, k, &weights).unwrap();
            assert_eq!(narrow.bytes() as u64, kind.bytes(n as u64, k as u64));
            let mut row = vec![0.0; k];
            for index in 0..n {
                narrow.row(index, &mut row);
                let from = &weights[index * k..][..k];
                let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                for (c, (got, want)) in row.iter().zip(from).enumerate() {
                    let bound = match kind {
                        NarrowType::Bf16 => want.abs() / 256.0,
                        NarrowType::Fp8 => (want.abs() / 16.0).max(largest(from) / 448.0 / 1_000.0),
                        NarrowType::Int4 => largest(from.chunks(INT4_GROUP).nth(c / INT4_GROUP).unwrap()) / 13.8,
                    };
                    assert!((got - want).abs() <= bound + 1e-30, "{kind:?} [{index}, {c}]: {got} for {want}");
                }
            }
        }
    }
}

#[test]
fn narrowed_weights_multiply_as_the_floats_that_they_mean() {
    let mut random = Random(6);
    for backend in Backend::ALL.into_iter().filter(|backend| backend.available()) {
        for (n, k) in [(1, 1), (8, 5), (31, 128), (32, 129), (65, 260)] {
            let weights = wide_weights(&mut random, n, k);
            for kind in NarrowType::ALL {
                let pool = Pool::new(2);
                let narrow = Weights::narrow_for(backend, &pool, kind, n, k, &weights).unwrap();
                let mut wide = vec![0.0; n * k];
                wide.chunks_exact_mut(k).enumerate().for_each(|(i, row)| narrow.row(i, row));
                let bytes: Vec<u8> = wide.iter().flat_map(|v| v.to_le_bytes()).collect();
                let floats = Weights::pack_for(backend, &pool, WeightType::F32, n, k, &bytes).unwrap();
                let bias: Vec<f32> = (0..n).map(|_| random.float()).collect();
                for m in [1, 2, 7] {
                    let x: Vec<f32> = (0..m * k).map(|_| random.float()).collect();
                    let product = |w: &Weights, x: &[f32], m: usize| {
                        let mut y = vec![0.0; m * n];
                        linear(&pool, &mut Scratch::default(), x, m, w, Some(&bias), &mut y);
                        y
                    };
                    let y = product(&narrow, &x, m);
                    assert!(y == product(&floats, &x, m), "{backend:?} {kind:?} {m} × {n} × {k}");
                    assert!(y[..n] == product(&narrow, &x[..k], 1), "a row does not depend on the others");
                }
            }
        }
    }
    let malformed = Weights::narrow(&Pool::new(1), NarrowType::Fp8, 2, 3, &[0.0; 5]);
    assert!(matches!(malformed, Err(crate::KernelError::Malformed(_))));
}
