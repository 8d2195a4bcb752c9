//! The allocator of blocks, and sequences over it, beside a simple model of both.

use proptest::prelude::*;

use crate::omni::kv::{Blocks, KvStore, Sequence};

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
    let (k, _) = store.layer(0);
    let at = |p: usize| (sequence.table()[p / BLOCK] as usize * BLOCK + p % BLOCK) * WIDTH;
    (0..sequence.len()).map(|p| k[at(p)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn sequences_hold_what_was_written_and_share_nothing_that_changes(ops in prop::collection::vec(op(), 1..60)) {
        let mut store = KvStore::new(1, WIDTH, BLOCK, COUNT);
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
