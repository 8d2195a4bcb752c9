//! Dispatch to the kernel of `embedding.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, Buffer, DeviceError, Gpu, Launch, Slice, SliceMut};

/// Tables behind each other on a device.
pub struct Tables {
    rows: Buffer<bf16>,
    offsets: Buffer<i32>,
    sizes: Buffer<i32>,
    h: usize,
}

impl Tables {
    /// Takes the rows of all tables, of which table g has `sizes[g]`.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    ///
    /// # Panics
    /// If `rows` is not as many rows of `h` values, or h is not a multiple of 8.
    pub fn new(gpu: &Gpu, rows: Buffer<bf16>, sizes: &[usize], h: usize) -> Result<Self, DeviceError> {
        let total: usize = sizes.iter().sum();
        assert!(h > 0 && h.is_multiple_of(8), "embedding: rows of {h}");
        assert!(rows.len() == total * h && i32::try_from(total).is_ok(), "embedding: {total} rows of {h}");
        let ints: Vec<i32> = sizes.iter().map(|&size| size as i32).collect();
        let starts: Vec<i32> = ints.iter().scan(0, |next, size| Some(std::mem::replace(next, *next + size))).collect();
        Ok(Self { rows, offsets: gpu.upload(&starts)?, sizes: gpu.upload(&ints)?, h })
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.h
    }

    /// All of the tables.
    pub fn all(&self) -> Selected<'_> {
        self.some(0, self.sizes.len())
    }

    /// `count` of the tables, from `first` on.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn some(&self, first: usize, count: usize) -> Selected<'_> {
        let range = first..first + count;
        Selected {
            tables: self,
            offsets: self.offsets.all().range(range.clone()),
            sizes: self.sizes.all().range(range),
        }
    }
}

/// Some of the tables.
#[derive(Clone, Copy)]
pub struct Selected<'a> {
    tables: &'a Tables,
    offsets: Slice<'a, i32>,
    sizes: Slice<'a, i32>,
}

/// Which row of each table.
#[derive(Clone, Copy, Debug)]
pub enum Ids<'a> {
    /// `[tokens, tables]`.
    ByToken(Slice<'a, i32>),
    /// `[tables, tokens]`.
    ByTable(Slice<'a, i32>),
}

impl<'a> From<Slice<'a, i32>> for Ids<'a> {
    fn from(slice: Slice<'a, i32>) -> Self {
        Self::ByToken(slice)
    }
}

/// Sums a row of each table, times `scale`, and the addend. addend, y: `[tokens, h]`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn embedding_sum<'a>(
    gpu: &Gpu,
    ids: impl Into<Ids<'a>>,
    tables: Selected<'a>,
    scale: f32,
    addend: Option<Slice<'a, bf16>>,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let (count, h, rows) = (tables.sizes.len(), tables.tables.h, tables.tables.rows.all());
    let (by_table, ids) = match ids.into() {
        Ids::ByToken(ids) => (false, ids),
        Ids::ByTable(ids) => (true, ids),
    };
    let tokens = ids.len() / count;
    let (token_stride, table_stride) = if by_table { (1, tokens) } else { (count, 1) };
    assert!(ids.len() == tokens * count && y.len() == tokens * h, "embedding: {} ids → {}", ids.len(), y.len());
    assert!(addend.is_none_or(|addend| addend.len() == y.len()), "embedding: an addend of another shape");
    if tokens == 0 {
        return Ok(());
    }
    let args = Args::new().input(ids).input(rows).input(tables.offsets).input(tables.sizes);
    let args =
        args.optional_input(addend).output(y).size(count).size(token_stride).size(table_stride).size(h).float(scale);
    let launch = Launch::new("embedding_sum", [tokens, 1, 1], 256, &args);
    // SAFETY: the arguments are the kernel's; ids outside of a table are not followed, and lengths were checked.
    unsafe { gpu.launch(&launch)? };
    gpu.verify("embedding", |checks| {
        let ids = gpu.fetch(ids)?;
        let at = |i: usize| i / count * token_stride + i % count * table_stride;
        let ids: Vec<i32> = (0..ids.len()).map(|i| ids[at(i)]).collect();
        let (table, offsets, sizes) = (gpu.widened(rows)?, gpu.fetch(tables.offsets)?, gpu.fetch(tables.sizes)?);
        let addend = gpu.widened_if(addend)?;
        let tolerance = Tolerance::bf16().summing(count + 1, greatest(&table));
        let expected = reference::embedding_sum(&ids, &table, (&offsets, &sizes), h, scale, addend.as_deref());
        checks.close("y", &gpu.fetch(y.as_slice())?, &expected, tolerance);
        Ok(())
    })
}
