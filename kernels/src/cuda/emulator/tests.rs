//! Conformance of the emulator: what a GPU defines comes out so, whatever the order of threads; mistakes are caught.

use std::path::Path;

use half::bf16;

use super::{Emulator, Sanitizer, build};
use crate::cuda::{Args, Buffer, DeviceError, Gpu, Launch};

const SEEDS: [u64; 6] = [0, 1, 2, 3, 0xdead_beef, u64::MAX];

fn gpu(file: &str, seed: u64) -> Gpu {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("emu/conformance").join(file);
    Gpu::new(Emulator::open(&build(&[source], Sanitizer::None).unwrap(), seed).unwrap())
}

/// A launch of a kernel whose arguments fit.
fn run(gpu: &Gpu, kernel: &'static str, blocks: u32, threads: u32, args: &Args<'_>) -> Result<(), DeviceError> {
    shaped(gpu, kernel, [blocks, 1, 1], [threads, 1, 1], 0, args)
}

fn shaped(
    gpu: &Gpu,
    kernel: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    args: &Args<'_>,
) -> Result<(), DeviceError> {
    let launch = Launch { kernel, grid, block, shared_bytes, cooperative: false, args };
    // SAFETY: the tests give the conformance kernels the buffers that they are written for.
    unsafe { gpu.launch(&launch) }
}

fn filled<T: crate::cuda::gpu::Element>(gpu: &Gpu, value: T, len: usize) -> Buffer<T> {
    gpu.upload(&vec![value; len]).unwrap()
}

#[test]
fn lanes_that_return_are_not_waited_for() {
    for seed in SEEDS {
        let gpu = gpu("defined.cu", seed);
        for keep in [1, 2, 20, 31, 32] {
            let mut out = filled(&gpu, 0_i32, 64);
            run(&gpu, "early_exit", 1, 64, &Args::new().output(&mut out.all_mut()).size(keep)).unwrap();
            let expected = u32::MAX >> (32 - keep);
            for (i, &votes) in out.read().unwrap().iter().enumerate() {
                let expected = if i % 32 < keep { expected as i32 } else { 0 };
                assert_eq!(votes, expected, "seed {seed}, {keep} lanes, thread {i}");
            }
        }
    }
}

#[test]
fn parts_of_a_warp_work_on_their_own() {
    let mut x: Vec<f32> = (0..32_u8).map(f32::from).collect();
    for _ in 0..3 {
        let all: f32 = x.iter().sum();
        let part = |lanes: std::ops::Range<usize>| x[lanes].iter().sum::<f32>();
        let (half, third, fourth) = (part(0..16), part(16..24), part(24..32));
        for (i, x) in x.iter_mut().enumerate() {
            *x += all + [half, half, third, fourth][i / 8];
        }
    }
    for seed in SEEDS {
        let gpu = gpu("defined.cu", seed);
        let mut out = filled(&gpu, 0.0_f32, 32);
        run(&gpu, "partial_masks", 1, 32, &Args::new().output(&mut out.all_mut())).unwrap();
        assert_eq!(out.read().unwrap(), x, "seed {seed}");
    }
}

#[test]
fn lanes_see_each_other() {
    for seed in SEEDS {
        let gpu = gpu("defined.cu", seed);
        let mut out = filled(&gpu, 0_i32, 32 * 7);
        run(&gpu, "lanes", 1, 32, &Args::new().output(&mut out.all_mut())).unwrap();
        let every_third = (0..32).step_by(3).fold(0, |bits, lane| bits | 1_u32 << lane) as i32;
        for (lane, got) in out.read().unwrap().chunks(7).enumerate() {
            let l = lane as i32;
            let up = if l >= 3 { l - 3 } else { l };
            let down = if l + 3 < 32 { l + 3 } else { l };
            assert_eq!(got, [l / 2 * 3, (l ^ 5) * 3, up * 3, down * 3, every_third, 1, 0], "seed {seed}, lane {lane}");
        }
    }
}

#[test]
fn barriers_and_both_kinds_of_shared_memory_hold() {
    for seed in SEEDS {
        let gpu = gpu("defined.cu", seed);
        for threads in [1_u32, 31, 96, 256] {
            let input: Vec<i32> = (0..3 * threads as i32).map(|i| i * i).collect();
            let (given, mut out) = (gpu.upload(&input).unwrap(), filled(&gpu, 0_i32, input.len()));
            let args = Args::new().input(given.all()).output(&mut out.all_mut());
            shaped(&gpu, "reverse", [3, 1, 1], [threads, 1, 1], 4 * threads, &args).unwrap();
            let expected = input
                .chunks(threads as usize)
                .flat_map(|block| block.iter().zip(block.iter().rev()).map(|(a, b)| a + b).collect::<Vec<_>>());
            assert_eq!(out.read().unwrap(), expected.collect::<Vec<_>>(), "seed {seed}, {threads} threads");
        }
    }
}

#[test]
fn every_thread_of_every_block_runs_once() {
    for seed in SEEDS {
        let gpu = gpu("defined.cu", seed);
        let (mut sum, mut greatest) = (filled(&gpu, 0_i32, 1), filled(&gpu, 0_i32, 1));
        let args = Args::new().output(&mut sum.all_mut()).output(&mut greatest.all_mut());
        shaped(&gpu, "coordinates", [3, 2, 2], [4, 3, 5], 0, &args).unwrap();
        let mut expected = 0;
        for (z, y, x) in (0..5).flat_map(|z| (0..3).flat_map(move |y| (0..4).map(move |x| (z, y, x)))) {
            for block in [0, 1, 2, 10, 11, 12] {
                expected += 2 * (x + 10 * y + 100 * z + 1000 * block);
            }
        }
        assert_eq!(sum.read().unwrap(), [expected], "seed {seed}");
        assert_eq!(greatest.read().unwrap(), [3 + 20 + 400 + 12_000]);
    }
}

#[test]
fn matrices_are_multiplied() {
    // Small integers: exact in bf16 and in any order of sums.
    let values =
        |n: i32, step: i32| -> Vec<bf16> { (0..n).map(|i| bf16::from_f32(((i * step) % 17 - 8) as f32)).collect() };
    let (a, b) = (values(256, 5), values(128, 7));
    for seed in SEEDS {
        let gpu = gpu("defined.cu", seed);
        let (on_a, on_b, mut d) = (gpu.upload(&a).unwrap(), gpu.upload(&b).unwrap(), filled(&gpu, f32::NAN, 128));
        let args = Args::new().input(on_a.all()).input(on_b.all()).output(&mut d.all_mut());
        run(&gpu, "tensor", 1, 32, &args).unwrap();
        for (i, got) in d.read().unwrap().into_iter().enumerate() {
            let expected: f32 = (0..16).map(|k| a[i / 8 * 16 + k].to_f32() * b[k * 8 + i % 8].to_f32()).sum();
            assert_eq!(got, expected, "seed {seed}, element {i}");
        }
    }
}

#[test]
fn copies_arrive_at_the_wait() {
    const STAGES: usize = 7;
    let input: Vec<f32> = (0..STAGES * 128).map(|i| i as f32).collect();
    for seed in SEEDS {
        let gpu = gpu("defined.cu", seed);
        let (given, mut out) = (gpu.upload(&input).unwrap(), filled(&gpu, f32::NAN, input.len()));
        run(&gpu, "pipeline", 1, 32, &Args::new().input(given.all()).output(&mut out.all_mut()).size(STAGES)).unwrap();
        for (at, got) in out.read().unwrap().into_iter().enumerate() {
            let (stage, lane, i) = (at / 128, at / 4 % 32, at % 4);
            let source = (stage * 32 + 31 - lane) * 4 + i;
            let expected = if stage == STAGES - 1 && i >= 2 { 0.0 } else { input[source] };
            assert_eq!(got, expected, "seed {seed}, stage {stage}, lane {lane}");
        }
    }
}

#[test]
fn blocks_of_a_cooperative_grid_wait_for_each_other() {
    const N: usize = 1000;
    let mut expected: Vec<f32> = (0..N).map(|i| ((i * i) % 64) as f32).collect();
    let start = expected.clone();
    for _ in 0..6 {
        let old = expected.clone();
        for i in 0..N {
            expected[i] = 0.5 * (old[i] + old[(i + 1) % N]);
        }
    }
    for seed in [0, 7] {
        let gpu = gpu("defined.cu", seed);
        let (mut x, mut y) = (gpu.upload(&start).unwrap(), filled(&gpu, 0.0_f32, N));
        let mut arrived = filled(&gpu, 0_i32, 1);
        let args = Args::new().output(&mut x.all_mut()).output(&mut y.all_mut()).size(N).size(6);
        let args = args.output(&mut arrived.all_mut());
        let launch = Launch {
            kernel: "cooperative",
            grid: [5, 1, 1],
            block: [64, 1, 1],
            shared_bytes: 0,
            cooperative: true,
            args: &args,
        };
        // SAFETY: the kernel stays inside of the first `N` values.
        unsafe { gpu.launch(&launch) }.unwrap();
        assert_eq!(x.read().unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn a_missing_barrier_shows_with_most_seeds() {
    let wrong = (1..=8).filter(|&seed| {
        let gpu = gpu("undefined.cu", seed);
        let mut out = filled(&gpu, 0_i32, 64);
        run(&gpu, "missing_barrier", 1, 64, &Args::new().output(&mut out.all_mut())).unwrap();
        out.read().unwrap().iter().enumerate().any(|(i, &v)| v != (i as i32 + 17) % 64)
    });
    assert!(wrong.count() >= 6);
}

#[test]
fn a_wait_that_is_too_shallow_reads_old_values() {
    let gpu = gpu("undefined.cu", 0);
    let (given, mut out) = (filled(&gpu, 5.0_f32, 256), filled(&gpu, 0.0_f32, 32));
    run(&gpu, "shallow_wait", 1, 32, &Args::new().input(given.all()).output(&mut out.all_mut())).unwrap();
    assert_eq!(out.read().unwrap(), [-1.0; 32]);
}

#[test]
fn what_a_gpu_leaves_undefined_is_an_error() {
    let cases = [
        ("divergent_barrier", 64, "divergent __syncthreads"),
        ("barrier_after_return", 64, "__syncthreads at line"),
        ("divergent_warp", 32, "divergent warp"),
        ("lane_outside_mask", 32, "not in its own mask"),
        ("absent_source", 32, "does not take part"),
        ("different_masks", 32, "masks"),
        ("half_a_tensor", 32, "needs a warp of 32 lanes"),
        ("deadlock", 32, "deadlock"),
        ("spins_for_ever", 32, "polls for ever"),
    ];
    for seed in [0, 5] {
        let gpu = gpu("undefined.cu", seed);
        for (kernel, threads, message) in cases {
            let mut out = filled(&gpu, 0_i32, 64);
            let result = run(&gpu, kernel, 1, threads, &Args::new().output(&mut out.all_mut()));
            let error = result.expect_err(kernel).to_string();
            assert!(error.contains(message) && error.contains(kernel), "{kernel}, seed {seed}: {error}");
        }
        let given = filled(&gpu, 0.0_f32, 128);
        for (kernel, message) in [("copy_without_wait", "never waited for"), ("misaligned_copy", "not aligned")] {
            let mut out = filled(&gpu, 0.0_f32, 32);
            let args = Args::new().input(given.all()).output(&mut out.all_mut());
            let error = run(&gpu, kernel, 1, 32, &args).unwrap_err().to_string();
            assert!(error.contains(message), "{kernel}, seed {seed}: {error}");
        }
    }
}

#[test]
fn launches_that_do_not_fit_the_kernel_are_refused() {
    let gpu = gpu("defined.cu", 0);
    let mut out = filled(&gpu, 0_i32, 64);
    let mut out = out.all_mut();
    let cases = [
        ("no_such_kernel", 1, 32, Args::new().output(&mut out), "no such kernel"),
        ("lanes", 1, 32, Args::new(), "0 arguments, not 1"),
        ("lanes", 1, 32, Args::new().size(1), "argument 0 has 4 bytes, not 8"),
        ("lanes", 1, 64, Args::new().output(&mut out), "where the bound is 32"),
        ("lanes", 0, 32, Args::new().output(&mut out), "a grid of"),
        ("lanes", 1, 2048, Args::new().output(&mut out), "a block of"),
    ];
    for (kernel, blocks, threads, args, message) in &cases {
        let error = run(&gpu, kernel, *blocks, *threads, args).unwrap_err().to_string();
        assert!(error.contains(message), "{kernel}: {error}");
    }
    let error = shaped(&gpu, "lanes", [1; 3], [32, 1, 1], 1 << 20, &Args::new().output(&mut out)).unwrap_err();
    assert!(error.to_string().contains("bytes of shared memory"), "{error}");
    assert!(gpu.launches().is_empty(), "what was refused is not counted");
}
