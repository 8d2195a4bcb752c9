use super::{Pairing, Rope, Turns, reference};

#[test]
fn rows_inside_wider_rows_agree_with_the_reference() {
    for pairing in [Pairing::Adjacent, Pairing::Halves] {
        for (heads, head_dim, dims, stride) in [(1, 2, 2, 2), (3, 8, 8, 30), (2, 64, 64, 128), (2, 12, 6, 24)] {
            let positions = [0, 1, 7, 4099];
            let x: Vec<f32> = (0..positions.len() * stride).map(|i| (i as f32 * 0.61).sin()).collect();
            let mut expected = x.clone();
            for (row, &position) in expected.chunks_mut(stride).zip(&positions) {
                for head in row[..heads * head_dim].chunks_mut(head_dim) {
                    reference::rope(&mut head[..dims], position, 1e4, pairing);
                }
            }
            let (rope, mut turns, mut y) = (Rope::new(dims, 1e4, None, pairing), Turns::default(), x);
            rope.turns(positions, &mut turns);
            rope.apply(&turns, &mut y, stride, heads, head_dim);
            for (i, (a, b)) in y.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() < 3e-7, "{pairing:?} {heads}×{head_dim} at {i}: {a} is not {b}");
            }
        }
    }
}

#[test]
fn scores_depend_on_the_distance_alone() {
    let rope = Rope::new(16, 1e4, None, Pairing::Halves);
    let score = |p: usize, q: usize| {
        let (mut a, mut b) = ([0.5, -0.25, 0.125, 1.0].repeat(4), [1.0, 0.75, -0.5, 0.25].repeat(4));
        let mut turns = Turns::default();
        rope.turns([p], &mut turns);
        rope.apply(&turns, &mut a, 16, 1, 16);
        rope.turns([q], &mut turns);
        rope.apply(&turns, &mut b, 16, 1, 16);
        a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>()
    };
    assert!((score(5, 2) - score(105, 102)).abs() < 1e-5);
    assert!((score(5, 2) - score(5, 3)).abs() > 1e-3);
}

#[test]
fn factors_divide_the_speeds() {
    let (plain, halved) =
        (Rope::new(4, 100.0, None, Pairing::Halves), Rope::new(4, 100.0, Some(&[2.0, 2.0]), Pairing::Halves));
    let (mut a, mut b) = (Turns::default(), Turns::default());
    plain.turns([3], &mut a);
    halved.turns([6], &mut b);
    assert_eq!(a.values, b.values);
}

#[test]
fn each_pair_follows_its_own_coordinate() {
    let rope = Rope::new(8, 1e4, None, Pairing::Halves).with_axes(vec![0, 1, 2, 0]);
    let (mut turns, mut one) = (Turns::default(), Turns::default());
    rope.turns_of([[3.0, 5.0, 7.5]], &mut turns);
    for (pair, position) in [3.0, 5.0, 7.5, 3.0].into_iter().enumerate() {
        Rope::new(8, 1e4, None, Pairing::Halves).turns_of([[position; 3]], &mut one);
        assert_eq!(turns.values[pair], one.values[pair], "pair {pair}");
    }
}

#[test]
fn a_magnitude_scales_what_is_turned() {
    let rope = Rope::new(4, 100.0, None, Pairing::Halves).with_magnitude(1.5);
    let (mut turns, mut x) = (Turns::default(), [1.0, -2.0, 0.5, 3.0]);
    rope.turns([0], &mut turns);
    rope.apply(&turns, &mut x, 4, 1, 4);
    assert_eq!(x, [1.5, -3.0, 0.75, 4.5]);
}
