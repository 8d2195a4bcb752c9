//! Dispatch to the kernel of `embedding.cu`.

use half::bf16;

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
}

/// Sums a row of each table, times `scale`. ids: `[tokens, tables]`. y: `[tokens, h]`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn embedding_sum<'a>(
    gpu: &Gpu,
    ids: Slice<'a, i32>,
    tables: &'a Tables,
    scale: f32,
    y: &mut SliceMut<'a, bf16>,
) -> Result<(), DeviceError> {
    let (count, h) = (tables.sizes.len(), tables.h);
    let tokens = ids.len() / count;
    assert!(ids.len() == tokens * count && y.len() == tokens * h, "embedding: {} ids → {}", ids.len(), y.len());
    if tokens == 0 {
        return Ok(());
    }
    let args = Args::new().input(ids).input(tables.rows.all()).input(tables.offsets.all()).input(tables.sizes.all());
    let args = args.output(y).size(count).size(h).float(scale);
    let launch = Launch::new("embedding_sum", [tokens, 1, 1], 256, &args);
    // SAFETY: the arguments are the kernel's; ids outside of a table are not followed, and lengths were checked.
    unsafe { gpu.launch(&launch) }
}
