use super::philox::philox;
use super::{Context, Params, Scratch, argmax, reference, uniform};

fn sample(logits: &mut [f32], params: &Params, context: Context<'_>, seed: u64, position: u64) -> u32 {
    super::sample(&mut Scratch::default(), logits, params, context, seed, position)
}

#[test]
fn the_generator_gives_its_published_answers() {
    // Known answers of the authors' distribution (kat_vectors, philox4x32 10).
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    assert_eq!(
        philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

#[test]
fn frequencies_follow_the_reference() {
    let logits: Vec<f32> = (0..40).map(|i| 3.0 * (i as f32 * 1.7).sin()).collect();
    let base = Params { temperature: 0.8, ..Params::default() };
    let cases = [
        base,
        Params { temperature: 0.0, ..base },
        Params { top_k: 5, ..base },
        Params { top_k: 1, ..base },
        Params { top_p: 0.7, ..base },
        Params { top_p: 0.0, ..base },
        Params { min_p: 0.3, ..base },
        Params { top_k: 9, top_p: 0.9, min_p: 0.05, temperature: 1.3, ..base },
        Params { repetition: 1.5, presence: 0.5, frequency: 0.25, ..base },
    ];
    let context = Context { seen: &[2, 3, 17, 2, 999], reply: &[1, 6, 6, 10] };
    for params in cases {
        let expected = reference::probabilities(&logits, &params, context);
        const DRAWS: u64 = 20_000;
        let mut counts = vec![0_u32; logits.len()];
        for position in 0..DRAWS {
            counts[sample(&mut logits.clone(), &params, context, 7, position) as usize] += 1;
        }
        for (token, (&count, &p)) in counts.iter().zip(&expected).enumerate() {
            let deviation = f64::from(count) - p * DRAWS as f64;
            // Five standard deviations; what has no probability is never drawn.
            assert!(deviation.abs() <= 5.0 * (p * (1.0 - p) * DRAWS as f64).sqrt(), "{params:?} {token}: {count}, {p}");
        }
    }
}

#[test]
fn a_draw_depends_on_seed_and_position_alone() {
    let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.01).sin()).collect();
    let params = Params { temperature: 1.0, ..Params::default() };
    let draw = |seed, position| sample(&mut logits.clone(), &params, Context::default(), seed, position);
    assert_eq!(draw(1, 5), draw(1, 5));
    assert!((0..50).any(|p| draw(1, p) != draw(2, p)));
    assert!((0..50).any(|p| draw(1, p) != draw(1, p + 1)));
    assert!((0..1000).map(|p| uniform(3, p)).all(|u| (0.0..1.0).contains(&u)));
}

#[test]
fn the_first_of_equals_is_the_largest() {
    let mut x = vec![-1.0; 300];
    assert_eq!(argmax(&x), (0, -1.0));
    x[131] = 4.0;
    x[297] = 4.0;
    x[0] = f32::NAN;
    assert_eq!(argmax(&x), (131, 4.0));
    assert_eq!(sample(&mut [f32::NAN; 3], &Params::default(), Context::default(), 0, 0), 0);
    let warm = Params { temperature: 1.0, ..Params::default() };
    assert_eq!(sample(&mut [f32::NAN, 1.0, f32::NEG_INFINITY], &warm, Context::default(), 0, 0), 1);
}
