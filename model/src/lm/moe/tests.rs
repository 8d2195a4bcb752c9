use causerie_kernels::ops::linear::WeightType;

use super::*;

const HIDDEN: usize = 12;
const INNER: usize = 20;

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn pack(values: &[f32], n: usize, k: usize) -> Weights {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Weights::pack(&Pool::new(1), WeightType::F32, n, k, &bytes).unwrap()
}

/// The weights of an expert, as floats.
struct Plain {
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

impl Plain {
    fn new(seed: u64) -> Self {
        let [gate, up, down] = [0, 1, 2].map(|i| noise(seed * 3 + i, HIDDEN * INNER));
        Self { gate, up, down }
    }

    fn expert(&self) -> Expert {
        Expert {
            gate: pack(&self.gate, INNER, HIDDEN),
            up: pack(&self.up, INNER, HIDDEN),
            down: pack(&self.down, HIDDEN, INNER),
        }
    }

    fn forward(&self, x: &[f32]) -> Vec<f64> {
        let inner: Vec<f64> = (0..INNER)
            .map(|i| {
                let (gate, up) = (dot(&self.gate[i * HIDDEN..], x), dot(&self.up[i * HIDDEN..], x));
                gate / (1.0 + (-gate).exp()) * up
            })
            .collect();
        let down = |o: usize| self.down[o * INNER..].iter().zip(&inner).map(|(w, x)| f64::from(*w) * x).sum();
        (0..HIDDEN).map(down).collect()
    }
}

fn dot(w: &[f32], x: &[f32]) -> f64 {
    w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum()
}

#[test]
fn a_sparse_layer_is_what_its_formula_says() {
    let experts: Vec<Plain> = (1..=7).map(Plain::new).collect();
    let (shared, router, gate) = (Plain::new(50), noise(60, 7 * HIDDEN), noise(61, HIDDEN));
    let (m, x) = (9, noise(70, 9 * HIDDEN));
    for (top_k, normalise, with_shared, gated) in
        [(1, false, false, false), (2, true, false, false), (3, true, true, true), (7, false, true, false)]
    {
        let layer = FeedForward {
            experts: experts.iter().map(Plain::expert).collect(),
            router: Some(Router { weights: pack(&router, 7, HIDDEN), top_k, normalise }),
            shared: with_shared
                .then(|| Shared { expert: shared.expert(), gate: gated.then(|| pack(&gate, 1, HIDDEN)) }),
        };
        let start = noise(80, m * HIDDEN);
        let run = |x: &[f32], rows: std::ops::Range<usize>| {
            let mut y = start[rows.start * HIDDEN..rows.end * HIDDEN].to_vec();
            layer.forward(
                &Pool::new(2),
                &mut linear::Scratch::default(),
                &mut Scratch::default(),
                x,
                rows.len(),
                &mut y,
            );
            y
        };
        let y = run(&x, 0..m);
        for (r, x) in x.chunks(HIDDEN).enumerate() {
            let logits: Vec<f64> = (0..7).map(|e| dot(&router[e * HIDDEN..], x)).collect();
            let total: f64 = logits.iter().map(|l| l.exp()).sum();
            let p: Vec<f64> = logits.iter().map(|l| l.exp() / total).collect();
            let mut order: Vec<usize> = (0..7).collect();
            order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
            let chosen = &order[..top_k];
            let scale = if normalise { chosen.iter().map(|&e| p[e]).sum::<f64>() } else { 1.0 };
            let mut expected: Vec<f64> = start[r * HIDDEN..(r + 1) * HIDDEN].iter().map(|&v| f64::from(v)).collect();
            let mut add = |plain: &Plain, weight: f64| {
                expected.iter_mut().zip(plain.forward(x)).for_each(|(y, out)| *y += weight * out);
            };
            chosen.iter().for_each(|&e| add(&experts[e], p[e] / scale));
            if with_shared {
                add(&shared, if gated { 1.0 / (1.0 + (-dot(&gate, x)).exp()) } else { 1.0 });
            }
            for (i, (a, b)) in y[r * HIDDEN..].iter().zip(&expected).enumerate() {
                assert!((f64::from(*a) - b).abs() < 2e-4, "top {top_k}, row {r} at {i}: {a} is not {b}");
            }
            assert!(run(x, r..r + 1) == y[r * HIDDEN..(r + 1) * HIDDEN], "row {r} alone");
        }
    }
}

#[test]
fn a_dense_layer_is_one_expert() {
    let (plain, x) = (Plain::new(1), noise(2, HIDDEN));
    let mut y = vec![0.0; HIDDEN];
    let layer = FeedForward::dense(plain.expert());
    layer.forward(&Pool::new(1), &mut linear::Scratch::default(), &mut Scratch::default(), &x, 1, &mut y);
    for (a, b) in y.iter().zip(plain.forward(&x)) {
        assert!((f64::from(*a) - b).abs() < 1e-4, "{a} is not {b}");
    }
}
