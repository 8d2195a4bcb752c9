use super::*;
use crate::testing::golden;

const FRAMES: usize = 12;
const F0: [f32; FRAMES] = [0.0, 0.0, 110.0, 120.0, 130.0, 180.0, 240.0, 230.0, 90.0, 60.0, 0.0, 0.0];

fn part(a: f64, c: f64, level: f64) -> Vec<f32> {
    (0..BINS * FRAMES).map(|i| (level + (a * (i / FRAMES) as f64 + c * (i % FRAMES) as f64).sin()) as f32).collect()
}

fn render(lr_level: f64, noise: Option<Noise>) -> Vec<f32> {
    let (lh, theta) = (part(0.013, 0.7, -4.0), part(0.021, 0.3, 0.0));
    let (lr, phi) = (part(0.017, 0.5, lr_level), part(0.9, 1.3, 0.0));
    let ln = vec![-5.0; BINS * FRAMES];
    let spectrum = Spectrum { lh: &lh, theta: &theta, ln: &ln, lr: &lr, phi: &phi, f0: &F0 };
    let mut out = Vec::new();
    Renderer::new().render(&spectrum, noise, &mut out);
    out
}

#[test]
fn agrees_with_the_released_package() {
    let expected: Vec<f32> = serde_json::from_str(&golden("speech/dsp.json")).unwrap();
    let is = render(-6.0, None);
    assert_eq!(is.len(), FRAMES * HOP);
    let peak = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let (at, error) = expected
        .iter()
        .zip(is.iter().step_by(7))
        .map(|(a, b)| (a - b).abs())
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap();
    assert!(error < 1e-3 * peak, "sample {}: {} instead of {}", at * 7, is[at * 7], expected[at]);
}

#[test]
fn noise_is_reproducible_and_has_the_asked_level() {
    let noisy = render(-6.0, Some(Noise::new(1)));
    assert_eq!(noisy, render(-6.0, Some(Noise::new(1))));
    assert_ne!(noisy, render(-6.0, Some(Noise::new(2))));
    let mut noise = Noise::new(3);
    let mut power = [0.0f64; 2];
    for _ in 0..20_000 {
        let z = noise.complex();
        power[0] += f64::from(z.re * z.re) / 20_000.0;
        power[1] += f64::from(z.im * z.im) / 20_000.0;
    }
    assert!(power.iter().all(|p| (p - 1.0).abs() < 0.05), "{power:?}");
}

#[test]
fn pulses_have_the_asked_pitch_and_are_silent_where_it_is_none() {
    let source = pulses(&[0.0, 0.0, 0.0, 200.0, 200.0, 200.0, 200.0, 200.0]);
    assert!(source[..2 * HOP].iter().all(|x| *x == 0.0));
    let voiced = &source[4 * HOP..];
    let high: Vec<usize> = (1..voiced.len() - 1)
        .filter(|&n| voiced[n] > 20.0 && voiced[n] > voiced[n - 1] && voiced[n] >= voiced[n + 1])
        .collect();
    assert!(high.windows(2).all(|w| (w[1] - w[0]).abs_diff(120) <= 1), "{high:?}");
    assert!(high.len() >= 9);
}

#[test]
fn short_and_extreme_spectra_give_finite_samples() {
    for frames in 0..4 {
        let wild = vec![1e30f32; BINS * frames];
        let spectrum = Spectrum {
            lh: &wild,
            theta: &wild,
            ln: &wild,
            lr: &wild,
            phi: &vec![0.5; BINS * frames],
            f0: &vec![300.0; frames],
        };
        let mut out = Vec::new();
        Renderer::new().render(&spectrum, Some(Noise::new(1)), &mut out);
        assert_eq!(out.len(), frames * HOP);
        assert!(out.iter().all(|x| x.is_finite()));
    }
}
