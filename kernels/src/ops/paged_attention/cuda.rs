//! Dispatch to the kernels of `paged_attention.cu`.

use half::bf16;

use super::{Sequence, Visible, reference};
use crate::cuda::{Args, Buffer, DeviceError, Gpu, Launch, Slice, SliceMut};

/// Keys in a block of memory.
pub const BLOCK: usize = 16;
/// Longest head.
pub const MAX_HEAD_DIM: usize = 128;
/// Keys below which a share of them is not worth a block of its own. By arithmetic: two tiles. Not measured yet.
const LEAST_SHARE: usize = 64;
/// Rows (queries times the heads that share keys) of a tile of one warp, and of four.
const ROWS: [usize; 2] = [16, 64];

/// The sequences of a pass, on a device. Where they lie does not change from pass to pass, so that a launch that was
/// recorded with one pass serves the next.
pub struct Batch {
    /// `[sequences, 4]`: first row of q, queries, keys, first page or row.
    sequences: Buffer<i32>,
    pages: Option<Buffer<i32>>,
    /// The same, for the reference: table (or first row), keys, queries.
    known: Vec<(Vec<u32>, usize, usize)>,
    rows: usize,
    shares: Shares,
}

/// Into how many shares the keys of a sequence go, each of which is a block's. Sums are in another order for another number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shares {
    /// As many as fill the device, with all sequences together.
    #[default]
    Filling,
    /// So many, whatever the company.
    Fixed(usize),
}

impl Batch {
    /// Sequences over memory in blocks.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    ///
    /// # Panics
    /// If there are none, or one has more queries than keys or more keys than its blocks hold.
    pub fn paged(gpu: &Gpu, sequences: &[Sequence<'_>]) -> Result<Self, DeviceError> {
        let pages = sequences.iter().map(|sequence| sequence.table.len()).sum();
        let mut batch = Self::with_room(gpu, sequences.len(), pages)?;
        batch.set(gpu, sequences, Shares::Filling)?;
        Ok(batch)
    }

    /// Room for so many sequences that have so many pages together; [`Batch::set`] follows.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    pub fn with_room(gpu: &Gpu, sequences: usize, pages: usize) -> Result<Self, DeviceError> {
        let (sequences, pages) = (gpu.allocate(4 * sequences)?, Some(gpu.allocate(pages)?));
        Ok(Self { sequences, pages, known: Vec::new(), rows: 0, shares: Shares::Filling })
    }

    /// Other sequences over memory in blocks. A block of `u32::MAX` is one that no query sees.
    ///
    /// # Errors
    /// As [`Gpu::write`].
    ///
    /// # Panics
    /// As [`Batch::paged`], or if there are more than there is room for.
    pub fn set(&mut self, gpu: &Gpu, sequences: &[Sequence<'_>], shares: Shares) -> Result<(), DeviceError> {
        let (mut pages, mut numbers, mut rows) = (Vec::new(), Vec::new(), 0);
        for Sequence { table, keys, queries } in sequences {
            assert!(queries <= keys && *keys <= table.len() * BLOCK, "{queries} queries, {keys} keys, {table:?}");
            numbers.extend([rows, *queries, *keys, pages.len()].map(|n| n as i32));
            // Of a tile of keys some may be of a block that is gone: any memory will do, they count for nothing.
            pages.extend(table.iter().map(|&page| if page == u32::MAX { 0 } else { page as i32 }));
            rows += queries;
        }
        assert!(rows > 0, "paged_attention: no queries");
        gpu.write(&mut self.sequences.range_mut(..numbers.len()), &numbers)?;
        if let Some(all) = &mut self.pages {
            gpu.write(&mut all.range_mut(..pages.len()), &pages)?;
        }
        self.known.clear();
        self.known.extend(sequences.iter().map(|s| (s.table.to_vec(), s.keys, s.queries)));
        (self.rows, self.shares) = (rows, shares);
        Ok(())
    }

    /// Blocks of rows one after another, each of which sees its own block, in both directions.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    ///
    /// # Panics
    /// If there are none.
    pub fn blocks(gpu: &Gpu, lengths: &[usize]) -> Result<Self, DeviceError> {
        let (mut numbers, mut known, mut rows) = (Vec::new(), Vec::new(), 0);
        for &length in lengths {
            numbers.extend([rows, length, length, rows].map(|n| n as i32));
            known.push((vec![rows as u32], length, length));
            rows += length;
        }
        assert!(rows > 0, "paged_attention: no queries");
        Ok(Self { sequences: gpu.upload(&numbers)?, pages: None, known, rows, shares: Shares::Filling })
    }

    /// Rows of q of all sequences.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// What all sequences of a pass have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Heads of q and out.
    pub heads: usize,
    /// Heads of k and v; divides `heads`.
    pub kv_heads: usize,
    /// Values of one head, a multiple of 8.
    pub head_dim: usize,
    /// Usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Which of the keys up to its own a query sees.
    pub visible: Visible,
}

/// Keys and values: those of row j begin `j · row_stride` values behind the first.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// From the first key on.
    pub k: Slice<'a, bf16>,
    /// From the first value on.
    pub v: Slice<'a, bf16>,
    /// Values from one row to the next.
    pub row_stride: usize,
}

/// Causal attention over memory in blocks of [`BLOCK`]. q, out: `[rows, heads, head_dim]`. k, v: `[blocks, BLOCK, kv_heads,
/// head_dim]`. `shares`: room for the results of sequences whose keys are shared out; where it is too small they are not.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
#[allow(clippy::too_many_arguments)] // The op's operands.
pub fn paged_attention<'a>(
    gpu: &Gpu,
    shape: &Shape,
    q: Slice<'a, bf16>,
    k: Slice<'a, bf16>,
    v: Slice<'a, bf16>,
    batch: &'a Batch,
    shares: &mut SliceMut<'_, f32>,
    out: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let row_stride = shape.kv_heads * shape.head_dim;
    assert!(batch.pages.is_some() && k.len().is_multiple_of(BLOCK * row_stride), "{} keys for {shape:?}", k.len());
    attend(gpu, shape, (q, shape.heads * shape.head_dim), Rows { k, v, row_stride }, batch, shares, out)
}

/// Attention inside of blocks of rows, in both directions. qkv: `[rows, heads + 2 kv_heads, head_dim]`. out: `[rows, heads,
/// head_dim]`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn block_attention<'a>(
    gpu: &Gpu,
    shape: &Shape,
    qkv: Slice<'a, bf16>,
    batch: &'a Batch,
    shares: &mut SliceMut<'_, f32>,
    out: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let Shape { heads, kv_heads, head_dim, .. } = *shape;
    let row_stride = (heads + 2 * kv_heads) * head_dim;
    assert!(batch.pages.is_none() && qkv.len() == batch.rows * row_stride, "{} values for {shape:?}", qkv.len());
    let (k, v) = (qkv.range(heads * head_dim..), qkv.range((heads + kv_heads) * head_dim..));
    attend(gpu, shape, (qkv, row_stride), Rows { k, v, row_stride }, batch, shares, out)
}

/// As [`block_attention`], with queries, keys and values apart. q, out: `[rows, heads, head_dim]`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn rows_attention<'a>(
    gpu: &Gpu,
    shape: &Shape,
    q: Slice<'a, bf16>,
    keys: Rows<'a>,
    batch: &'a Batch,
    shares: &mut SliceMut<'_, f32>,
    out: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let width = shape.heads * shape.head_dim;
    assert!(batch.pages.is_none() && q.len() == batch.rows * width, "{} values for {shape:?}", q.len());
    assert!(keys.k.len() >= batch.rows * keys.row_stride && keys.v.len() >= keys.k.len(), "keys of {shape:?}");
    attend(gpu, shape, (q, width), keys, batch, shares, out)
}

fn attend<'a>(
    gpu: &Gpu,
    shape: &Shape,
    (q, q_stride): (Slice<'a, bf16>, usize),
    keys: Rows<'a>,
    batch: &'a Batch,
    shares: &mut SliceMut<'_, f32>,
    out: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let Shape { heads, kv_heads, head_dim, scale, visible } = *shape;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{shape:?}");
    assert!(head_dim.is_multiple_of(8) && (8..=MAX_HEAD_DIM).contains(&head_dim), "{shape:?}");
    // Of no keys but the sinks, a query would not see its own.
    assert!(!matches!(visible, Visible::Recent { window: 0, .. }), "{shape:?}: a window of its own key at least");
    assert!(out.len() == batch.rows * heads * head_dim, "{} values for {} rows of {shape:?}", out.len(), batch.rows);
    let longest = |of: fn(&(Vec<u32>, usize, usize)) -> usize| batch.known.iter().map(of).max().unwrap_or(0);
    let (most_keys, most_queries) = (longest(|s| s.1), longest(|s| s.2));

    let rows = most_queries * heads / kv_heads;
    let wide = usize::from(rows > ROWS[0]);
    let tiles = rows.div_ceil(ROWS[wide]);
    let blocks = tiles * kv_heads * batch.known.len();
    // Enough blocks to fill the device twice, as far as there are keys and room.
    let room = shares.len() / (batch.rows * heads * (head_dim + 2));
    let wanted = (2 * gpu.properties().multiprocessors as usize).div_ceil(blocks);
    let splits = match batch.shares {
        Shares::Filling => wanted.min(most_keys.div_ceil(LEAST_SHARE)).min(room).max(1),
        Shares::Fixed(splits) => {
            assert!(splits == 1 || (1..=room).contains(&splits), "{splits} shares where there is room for {room}");
            splits
        }
    };

    let kernel = match (head_dim <= 64, wide) {
        (true, 0) => "attention_64_rows16",
        (true, _) => "attention_64_rows64",
        (false, 0) => "attention_128_rows16",
        (false, _) => "attention_128_rows64",
    };
    let (window, sinks) = match visible {
        Visible::All => (0, 0),
        Visible::Recent { window, sinks } => (window, sinks),
    };
    let args = Args::new().input(q).input(keys.k).input(keys.v).optional_input(batch.pages.as_ref().map(Buffer::all));
    let args = args.input(batch.sequences.all()).output(out).output(shares);
    let args = args.size(q_stride).size(BLOCK * keys.row_stride).size(keys.row_stride).size(head_dim);
    let args = args.size(heads).size(kv_heads).size(head_dim).size(splits).size(usize::from(batch.pages.is_some()));
    let args = args.size(window).size(sinks).float(scale);
    let threads = 32 * (ROWS[wide] / ROWS[0]) as u32;
    // SAFETY: the arguments are the kernel's. It reads q, writes out and as many shares as there is room for, and reads keys
    // in the pages of the tables, which whoever hands out pages keeps inside.
    unsafe { gpu.launch(&Launch::new(kernel, [tiles, kv_heads * splits, batch.known.len()], threads, &args))? };
    if splits > 1 {
        let args = Args::new().output(shares).output(out).size(head_dim).size(splits);
        // SAFETY: as above; every row and head has `splits` shares.
        unsafe { gpu.launch(&Launch::new("attention_merge", [batch.rows * heads, 1, 1], 128, &args))? };
    }
    gpu.verify("paged_attention", |checks| {
        let (q, k, v) = (gpu.widened(q)?, gpu.widened(keys.k)?, gpu.widened(keys.v)?);
        let (mut expected, mut spread, mut row) = (Vec::new(), Vec::new(), 0);
        for (table, keys_of, queries) in &batch.known {
            for position in keys_of - queries..*keys_of {
                let sees = |j: usize| match (&batch.pages, visible) {
                    (None, _) => true,
                    (_, Visible::All) => j <= position,
                    (_, Visible::Recent { window, sinks }) => j <= position && (j < sinks || position - j < window),
                };
                let place = |j: usize| match batch.pages {
                    Some(_) => table[j / BLOCK] as usize * BLOCK + j % BLOCK,
                    None => table[0] as usize + j,
                };
                for h in 0..heads {
                    let at = |j: usize| place(j) * keys.row_stride + h * kv_heads / heads * head_dim;
                    let seen = (0..*keys_of).filter(|&j| sees(j));
                    let seen: Vec<_> = seen.map(|j| (&k[at(j)..][..head_dim], &v[at(j)..][..head_dim])).collect();
                    let (values, moved) =
                        reference::weigh(&q[row * q_stride + h * head_dim..][..head_dim], &seen, scale);
                    expected.extend(values);
                    spread.extend(moved);
                }
                row += 1;
            }
        }
        let allowed = |at: usize| expected[at].abs() / 128.0 + 4.0 * spread[at] + 1e-6;
        checks.within("out", &gpu.fetch(out.as_slice())?, &expected, allowed);
        Ok(())
    })
}
