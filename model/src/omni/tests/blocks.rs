//! The allocator of blocks, and sequences over it, beside a simple model of both.

use proptest::prelude::*;

use causerie_kernels::Pool;
use causerie_kernels::ops::paged_attention::{Sequence as Paged, Shape, Visible};

use crate::omni::kv::{Blocks, KvStore, KvType, Layout, Sequence};

const BLOCK: usize = 4;
const WIDTH: usize = 2;
const COUNT: usize = 12;

#[derive(Clone, Debug)]
enum Op {
    /// Append so many positions to a sequence.
    Grow(usize, usize),
    Cut(usize, usize),
    /// Make the second a copy of the first's beginning.
    Fork(usize, usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0_usize..3, 1_usize..9).prop_map(|(s, n)| Op::Grow(s, n)),
        (0_usize..3, 0_usize..20).prop_map(|(s, n)| Op::Cut(s, n)),
        (0_usize..3, 0_usize..3, 0_usize..20).prop_map(|(a, b, n)| Op::Fork(a, b, n)),
    ]
}

/// Values of the positions that a sequence holds.
fn held(store: &KvStore, sequence: &Sequence) -> Vec<f32> {
    (0..sequence.len()).map(|p| store.key(0, LAYOUT.place(sequence.table(), p))).collect()
}

const LAYOUT: Layout = Layout { kind: KvType::F32, layers: 1, width: WIDTH, block: BLOCK, blocks: COUNT };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn sequences_hold_what_was_written_and_share_nothing_that_changes(ops in prop::collection::vec(op(), 1..60)) {
        let mut store = KvStore::new(LAYOUT, Visible::All);
        let mut sequences: [Sequence; 3] = Default::default();
        let mut model: [Vec<f32>; 3] = Default::default();
        let mut next = 0.0;
        for op in ops {
            match op {
                Op::Grow(s, n) => {
                    let free = store.blocks().free();
                    match store.reserve(&mut sequences[s], n) {
                        Ok(()) => {
                            let values: Vec<f32> = (0..n).map(|i| next + i as f32).collect();
                            next += n as f32;
                            let rows: Vec<f32> = values.iter().flat_map(|v| [*v; WIDTH]).collect();
                            store.write(0, &sequences[s], &rows, &rows);
                            store.advance(&mut sequences[s], n);
                            model[s].extend(values);
                        }
                        Err(_) => prop_assert_eq!(store.blocks().free(), free, "a refusal takes nothing"),
                    }
                }
                Op::Cut(s, n) => {
                    store.truncate(&mut sequences[s], n);
                    model[s].truncate(n);
                }
                Op::Fork(a, b, n) if a != b => {
                    store.release(&mut sequences[b]);
                    sequences[b] = store.fork(&sequences[a], n);
                    model[b] = model[a][..n.min(model[a].len())].to_vec();
                }
                Op::Fork(..) => {}
            }
            for (sequence, model) in sequences.iter().zip(&model) {
                prop_assert_eq!(&held(&store, sequence), model);
            }
            // Every block is free or held by as many sequences as have it in their tables.
            let blocks = store.blocks();
            let holders = |b: u32| sequences.iter().filter(|s| s.table().contains(&b)).count() as u32;
            let taken = (0..COUNT as u32).filter(|b| holders(*b) > 0).count();
            prop_assert!((0..COUNT as u32).all(|b| blocks.holders(b) == holders(b)));
            prop_assert_eq!(blocks.free() + taken, COUNT);
        }
        sequences.iter_mut().for_each(|sequence| store.release(sequence));
        prop_assert_eq!(store.blocks().free(), COUNT);
    }
}

#[test]
fn a_pool_without_room_says_how_much_is_left() {
    let mut blocks = Blocks::new(3);
    let mut table = Vec::new();
    blocks.take(2, &mut table).unwrap();
    let error = blocks.take(2, &mut table).unwrap_err();
    assert_eq!(error.to_string(), "2 blocks of memory are needed, 1 are free");
    assert_eq!(table.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Under a window, every row finds all that it sees, and nothing else is kept.
    #[test]
    fn a_window_keeps_what_rows_see_and_gives_back_the_rest(
        window in 1_usize..20,
        sinks in 0_usize..9,
        ops in prop::collection::vec((any::<bool>(), 0_usize..50), 1..60),
    ) {
        let visible = Visible::Recent { window, sinks };
        let layout = Layout { blocks: 40, ..LAYOUT };
        let mut store = KvStore::new(layout, visible);
        let mut sequence = Sequence::default();
        let mut model: Vec<f32> = Vec::new();
        let mut next = 0.0;
        for (grow, n) in ops {
            if grow {
                let n = n % 7 + 1;
                store.reserve(&mut sequence, n).unwrap();
                for _ in 0..n {
                    next += 1.0;
                    store.write(0, &sequence, &[next; WIDTH], &[next; WIDTH]);
                    store.advance(&mut sequence, 1);
                    model.push(next);
                }
                let (_, from) = visible.of(sequence.len() - n);
                let most = sinks.div_ceil(BLOCK) + (sequence.len() - from).div_ceil(BLOCK) + 1;
                prop_assert!(40 - store.blocks().free() <= most, "{} of {most}", 40 - store.blocks().free());
            } else {
                let asked = n.min(model.len());
                let left = store.truncate(&mut sequence, n);
                prop_assert!(left == sequence.len() && left <= asked);
                model.truncate(left);
            }
            // What the next row would see is there, as it was written.
            let (sinks, from) = visible.of(sequence.len());
            for p in (0..sinks).chain(from..sequence.len()) {
                prop_assert_eq!(store.key(0, layout.place(sequence.table(), p)), model[p]);
            }
        }
        store.release(&mut sequence);
        prop_assert_eq!(store.blocks().free(), 40);
    }
}

/// The windows of a 30 B model on one H200: what lies beyond 2³¹ is addressed.
#[test]
fn a_million_positions_are_addressed() {
    const WINDOW: usize = 1 << 20;
    let layout = Layout { kind: KvType::Fp8, layers: 48, width: 512, block: 16, blocks: 2 * WINDOW / 16 };
    assert_eq!(layout.position_bytes(), 48 << 10);
    assert_eq!(layout.bytes(), 2 * (48 << 30));
    let mut blocks = Blocks::new(layout.blocks);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    // Two sequences that grow in turn, so that their blocks lie among each other.
    for _ in 0..WINDOW / 16 {
        blocks.take(1, &mut first).unwrap();
        blocks.take(1, &mut second).unwrap();
    }
    assert!(blocks.take(1, &mut first).is_err());
    let last = layout.place(&second, WINDOW - 1);
    assert!(last + 512 <= layout.blocks * layout.block * layout.width, "inside of its layer");
    let of_all = 47 * 2 * (layout.blocks * layout.block * layout.width) as u64 + last as u64;
    assert!(of_all > 1 << 31 && of_all < layout.bytes());
    // No two positions share a place.
    let mut places: Vec<usize> = first.iter().chain(&second).map(|b| *b as usize).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), layout.blocks);
    first.into_iter().chain(second).for_each(|block| blocks.give_back(block));
    assert_eq!(blocks.free(), layout.blocks);
}

/// Keys of a whole window, in blocks that lie among those of another: attention finds the one that answers, wherever it is.
#[test]
fn one_key_in_a_million_is_found() {
    const WINDOW: usize = 1 << 20;
    const PIECE: usize = 1 << 16;
    let layout = Layout { kind: KvType::Fp8, layers: 1, width: 4, block: 16, blocks: 2 * WINDOW / 16 };
    let mut store = KvStore::new(layout, Visible::All);
    let mut sequences: [Sequence; 2] = Default::default();
    let needles = [[0, 700_001, WINDOW - 1], [15, 16, 999_983]];
    for piece in 0..WINDOW / PIECE {
        for (sequence, needles) in sequences.iter_mut().zip(needles) {
            let (mut k, mut v) = (vec![0.0; PIECE * 4], vec![0.25; PIECE * 4]);
            for (axis, needle) in needles.into_iter().enumerate().filter(|(_, needle)| needle / PIECE == piece) {
                k[needle % PIECE * 4 + axis] = 16.0;
                v[needle % PIECE * 4..][..4].fill(1.0 + axis as f32);
            }
            store.reserve(sequence, PIECE).unwrap();
            store.write(0, sequence, &k, &v);
            store.advance(sequence, PIECE);
        }
    }
    assert_eq!((store.blocks().free(), sequences[1].table().len()), (0, WINDOW / 16));
    let shape = Shape { heads: 1, kv_heads: 1, head_dim: 4, block: 16, scale: 0.5, visible: Visible::All };
    let paged = sequences.each_ref().map(|s| Paged { table: s.table(), keys: WINDOW, queries: 1 });
    for axis in 0..4 {
        let mut q = [0.0; 8];
        (q[axis], q[4 + axis]) = (16.0, 16.0);
        let mut out = [0.0; 8];
        store.attend(&Pool::new(2), 0, &shape, &q, &paged, &mut out);
        // The fourth asks for what is nowhere, and gets the mean.
        let expected = if axis < 3 { 1.0 + axis as f32 } else { 0.25 };
        assert!(out.iter().all(|x| (x - expected).abs() < 1e-4), "axis {axis}: {out:?}");
    }
}
