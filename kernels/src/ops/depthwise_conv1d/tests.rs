use super::{depthwise_conv1d, reference};
use crate::Pool;
use crate::ops::testing::{assert_close, noise};

#[test]
fn any_chunking_agrees_with_the_reference() {
    for (t, channels, kernel) in [(1, 1, 1), (20, 3, 7), (5, 8, 7), (600, 32, 7)] {
        let (x, w, bias) = (noise(1, t * channels), noise(2, channels * kernel), noise(3, channels));
        let want = reference::depthwise_conv1d(&x, &w, &bias);
        for (chunk, threads) in [(1, 1), (3, 2), (t, 3)] {
            let mut history = vec![0.0; (kernel - 1) * channels];
            let mut got = Vec::new();
            for x in x.chunks(chunk * channels) {
                let mut y = vec![f32::NAN; x.len()];
                depthwise_conv1d(&Pool::new(threads), &mut history, x, &w, &bias, &mut y);
                got.extend(y);
            }
            assert_close(&got, &want, 2e-6, &format!("{t} {channels} {kernel} by {chunk}"));
        }
    }
}
