//! The safe face of a device: typed memory, and launches that are checked and counted.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};

use half::bf16;

use super::check::{Checks, Findings};
use super::{Address, Device, DeviceError, Properties};

/// Most threads of a block on every device.
const MAX_THREADS: u32 = 1024;
/// Most arguments of a kernel.
const MAX_ARGUMENTS: usize = 32;

/// A device, shared by the buffers on it.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
}

struct Inner {
    device: Box<dyn Device>,
    launches: Mutex<BTreeMap<&'static str, u64>>,
    /// What comparing with references has found, where that is done.
    findings: Option<Mutex<Findings>>,
}

/// One launch, as a device gets it.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether all blocks have to be in flight at once.
    pub cooperative: bool,
    /// The arguments in the kernel's order.
    pub args: &'a Args<'a>,
}

impl<'a> Launch<'a> {
    /// Blocks of `threads` in a row, without dynamic shared memory.
    ///
    /// # Panics
    /// If a dimension of the grid is no `u32`.
    pub fn new(kernel: &'static str, blocks: [usize; 3], threads: u32, args: &'a Args<'a>) -> Self {
        let grid = blocks.map(|n| u32::try_from(n).expect("grids are smaller than 2^32"));
        Self { kernel, grid, block: [threads, 1, 1], shared_bytes: 0, cooperative: false, args }
    }
}

/// Arguments of a launch, each in a slot of its own, as `cuLaunchKernel` takes them.
#[derive(Debug, Default)]
pub struct Args<'a> {
    slots: [u64; MAX_ARGUMENTS],
    sizes: [usize; MAX_ARGUMENTS],
    count: usize,
    buffers: PhantomData<&'a ()>,
}

impl<'a> Args<'a> {
    /// No arguments yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(mut self, bytes: &[u8]) -> Self {
        assert!(self.count < MAX_ARGUMENTS, "a kernel has at most {MAX_ARGUMENTS} arguments");
        let mut slot = [0; 8];
        slot[..bytes.len()].copy_from_slice(bytes);
        self.slots[self.count] = u64::from_ne_bytes(slot);
        self.sizes[self.count] = bytes.len();
        self.count += 1;
        self
    }

    /// A pointer that is read.
    #[must_use]
    pub fn input<T>(self, slice: Slice<'a, T>) -> Self {
        self.push(&slice.address.0.to_ne_bytes())
    }

    /// A pointer that is read, or null.
    #[must_use]
    pub fn optional_input<T>(self, slice: Option<Slice<'a, T>>) -> Self {
        self.push(&slice.map_or(0, |slice| slice.address.0).to_ne_bytes())
    }

    /// A pointer that is written, or null.
    #[must_use]
    pub fn optional_output<T>(self, slice: Option<&mut SliceMut<'_, T>>) -> Self {
        self.push(&slice.map_or(0, |slice| slice.address.0).to_ne_bytes())
    }

    /// A pointer that is written, and perhaps read.
    #[must_use]
    pub fn output<T>(self, slice: &mut SliceMut<'_, T>) -> Self {
        self.push(&slice.address.0.to_ne_bytes())
    }

    /// An `int`.
    ///
    /// # Panics
    /// If the value does not fit.
    #[must_use]
    pub fn size(self, value: usize) -> Self {
        let value = i32::try_from(value).expect("sizes of kernels fit an int");
        self.push(&value.to_ne_bytes())
    }

    /// A `float`.
    #[must_use]
    pub fn float(self, value: f32) -> Self {
        self.push(&value.to_ne_bytes())
    }

    /// An `unsigned long long`.
    #[must_use]
    pub fn long(self, value: u64) -> Self {
        self.push(&value.to_ne_bytes())
    }

    /// Bytes of each argument.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes[..self.count]
    }

    /// A pointer to each argument.
    pub fn pointers(&self) -> [*mut c_void; MAX_ARGUMENTS] {
        // Launches read through these and do not write.
        self.slots.each_ref().map(|slot| std::ptr::from_ref(slot).cast_mut().cast())
    }
}

impl Gpu {
    /// Takes a device.
    pub fn new(device: impl Device + 'static) -> Self {
        Self::with(device, None)
    }

    /// Takes a device whose every result is compared with what the op's reference makes of the same inputs. Slow: for tests.
    pub fn verifying(device: impl Device + 'static) -> Self {
        Self::with(device, Some(Mutex::default()))
    }

    fn with(device: impl Device + 'static, findings: Option<Mutex<Findings>>) -> Self {
        Self { inner: Arc::new(Inner { device: Box::new(device), launches: Mutex::default(), findings }) }
    }

    /// What the device offers.
    pub fn properties(&self) -> &Properties {
        self.inner.device.properties()
    }

    /// Memory for `len` values, which are not defined yet.
    ///
    /// # Errors
    /// If there is not enough, or the device is lost.
    pub fn allocate<T: Element>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        let address = match bytes_of::<T>(len) {
            0 => Address(0),
            bytes => self.inner.device.allocate(bytes)?,
        };
        Ok(Buffer { gpu: self.clone(), address, len, element: PhantomData })
    }

    /// Memory with these values.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    pub fn upload<T: Element>(&self, values: &[T]) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = self.allocate(values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// Starts a kernel behind what was launched before, and counts it.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and it stays inside of the slices that they are made of.
    ///
    /// # Errors
    /// If the shape cannot be launched, or as [`Device::launch`].
    pub(crate) unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        let refuse = |why: String| Err(DeviceError::Launch(format!("{}: {why}", launch.kernel)));
        let Launch { grid, block, shared_bytes, .. } = *launch;
        if grid.contains(&0) || grid[1] > 65_535 || grid[2] > 65_535 {
            return refuse(format!("a grid of {grid:?} blocks"));
        }
        if !(1..=MAX_THREADS).contains(&block.iter().product()) {
            return refuse(format!("a block of {block:?} threads"));
        }
        if shared_bytes > self.properties().shared_bytes {
            let most = self.properties().shared_bytes;
            return refuse(format!("{shared_bytes} bytes of shared memory where a block has at most {most}"));
        }
        // SAFETY: as the caller promises.
        unsafe { self.inner.device.launch(launch)? };
        *self.counts().entry(launch.kernel).or_default() += 1;
        Ok(())
    }

    /// Waits until all that was launched is done.
    ///
    /// # Errors
    /// What became of it.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.inner.device.synchronize()
    }

    /// Launches of each kernel so far: the proof that nothing was computed elsewhere.
    pub fn launches(&self) -> BTreeMap<&'static str, u64> {
        self.counts().clone()
    }

    /// Copies values on the device, behind what was launched before.
    ///
    /// # Errors
    /// If the device is lost.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn copy<T: Element>(&self, from: Slice<'_, T>, to: &mut SliceMut<'_, T>) -> Result<(), DeviceError> {
        assert_eq!(from.len, to.len, "values to copy on a device");
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: both slices lie inside allocations; a slice that is written is no part of one that is read.
        unsafe { self.inner.device.copy(from.address, to.address, bytes_of::<T>(from.len)) }
    }

    /// Copies values here, once everything launched before is done.
    ///
    /// # Errors
    /// If something launched before failed, or the device is lost.
    pub fn fetch<T: Element>(&self, slice: Slice<'_, T>) -> Result<Vec<T>, DeviceError> {
        // SAFETY: every bit pattern is a value of `T`, zeros too.
        let mut values = vec![unsafe { std::mem::zeroed::<T>() }; slice.len];
        if !values.is_empty() {
            let size = size_of_val(values.as_slice());
            // SAFETY: every bit pattern is a value of `T`, so its bytes may be written.
            let bytes = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size) };
            // SAFETY: a slice lies inside an allocation.
            unsafe { self.inner.device.read(slice.address, bytes)? };
        }
        Ok(values)
    }

    /// As [`Gpu::fetch`], as the references take them.
    pub(crate) fn widened(&self, slice: Slice<'_, bf16>) -> Result<Vec<f32>, DeviceError> {
        Ok(self.fetch(slice)?.into_iter().map(bf16::to_f32).collect())
    }

    /// As [`Gpu::widened`], of an operand that may be absent.
    pub(crate) fn widened_if(&self, slice: Option<Slice<'_, bf16>>) -> Result<Option<Vec<f32>>, DeviceError> {
        slice.map(|slice| self.widened(slice)).transpose()
    }

    /// What an op is about to overwrite, for [`Gpu::verify`]; nothing where nobody compares.
    pub(crate) fn before(&self, slice: Option<Slice<'_, bf16>>) -> Result<Option<Vec<f32>>, DeviceError> {
        self.widened_if(slice.filter(|_| self.inner.findings.is_some()))
    }

    /// Compares an op's result with its reference, where that is asked for. `compare` reads inputs and results.
    pub(crate) fn verify(
        &self,
        op: &'static str,
        compare: impl FnOnce(&mut Checks) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let Some(findings) = &self.inner.findings else { return Ok(()) };
        let mut checks = Checks::default();
        compare(&mut checks)?;
        findings.lock().unwrap_or_else(PoisonError::into_inner).add(op, checks);
        Ok(())
    }

    /// What comparing has found since the last call; nothing if nobody compares.
    pub fn findings(&self) -> Findings {
        let findings = self.inner.findings.as_ref();
        findings
            .map_or_else(Findings::default, |f| std::mem::take(&mut *f.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, u64>> {
        // A count is whole whoever panicked while holding it.
        self.inner.launches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A type that kernels know, without padding and valid for every bit pattern.
pub trait Element: Copy + Send + Sync + private::Sealed + 'static {}

mod private {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($t:ty)*) => { $(impl private::Sealed for $t {} impl Element for $t {})* };
}
elements!(bf16 f32 i32 u32 u8);

fn bytes_of<T>(len: usize) -> usize {
    len.checked_mul(size_of::<T>()).expect("a buffer is smaller than the address space")
}

/// Values in a device's memory.
pub struct Buffer<T> {
    gpu: Gpu,
    address: Address,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, to be read.
    pub fn all(&self) -> Slice<'_, T> {
        Slice { address: self.address, len: self.len, buffer: PhantomData }
    }

    /// All of it, to be written.
    pub fn all_mut(&mut self) -> SliceMut<'_, T> {
        SliceMut { address: self.address, len: self.len, buffer: PhantomData }
    }

    /// Some of it, to be read.
    ///
    /// # Panics
    /// If it is not inside.
    pub fn range(&self, range: impl RangeBounds<usize>) -> Slice<'_, T> {
        self.all().range(range)
    }

    /// Some of it, to be written.
    ///
    /// # Panics
    /// If it is not inside.
    pub fn range_mut(&mut self, range: impl RangeBounds<usize>) -> SliceMut<'_, T> {
        let (address, len) = part::<T>(self.address, self.len, range);
        SliceMut { address, len, buffer: PhantomData }
    }

    /// Replaces all values.
    ///
    /// # Errors
    /// If the device is lost.
    ///
    /// # Panics
    /// If there are not as many values.
    pub fn write(&mut self, values: &[T]) -> Result<(), DeviceError> {
        assert_eq!(values.len(), self.len, "values for a buffer");
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: `T` has no padding, so its bytes may be read.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        // SAFETY: the buffer is an allocation of that size.
        unsafe { self.gpu.inner.device.write(self.address, bytes) }
    }

    /// Copies all values here, once everything launched before is done.
    ///
    /// # Errors
    /// If something launched before failed, or the device is lost.
    pub fn read(&self) -> Result<Vec<T>, DeviceError> {
        self.gpu.fetch(self.all())
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated with this size. Devices run what is launched in order, and free after it.
            unsafe { self.gpu.inner.device.free(self.address, bytes_of::<T>(self.len)) }
        }
    }
}

/// A part of a [`Buffer`] that is read.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a, T> {
    address: Address,
    len: usize,
    buffer: PhantomData<&'a [T]>,
}

/// A part of a [`Buffer`] that is written.
#[derive(Debug)]
pub struct SliceMut<'a, T> {
    address: Address,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

fn part<T>(address: Address, len: usize, range: impl RangeBounds<usize>) -> (Address, usize) {
    let from = match range.start_bound() {
        Bound::Included(&at) => at,
        Bound::Excluded(&at) => at + 1,
        Bound::Unbounded => 0,
    };
    let until = match range.end_bound() {
        Bound::Included(&at) => at + 1,
        Bound::Excluded(&at) => at,
        Bound::Unbounded => len,
    };
    assert!(from <= until && until <= len, "{from}..{until} of {len} values on a device");
    (Address(address.0 + bytes_of::<T>(from) as u64), until - from)
}

impl<'a, T> Slice<'a, T> {
    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Some of the values.
    ///
    /// # Panics
    /// If they are not inside.
    #[must_use]
    pub fn range(&self, range: impl RangeBounds<usize>) -> Slice<'a, T> {
        let (address, len) = part::<T>(self.address, self.len, range);
        Slice { address, len, buffer: PhantomData }
    }
}

impl<T> SliceMut<'_, T> {
    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same, for a shorter time.
    pub fn reborrow(&mut self) -> SliceMut<'_, T> {
        SliceMut { address: self.address, len: self.len, buffer: PhantomData }
    }

    /// Some of the values.
    ///
    /// # Panics
    /// If they are not inside.
    pub fn range(&mut self, range: impl RangeBounds<usize>) -> SliceMut<'_, T> {
        let (address, len) = part::<T>(self.address, self.len, range);
        SliceMut { address, len, buffer: PhantomData }
    }

    /// The same values, to be read.
    pub fn as_slice(&self) -> Slice<'_, T> {
        Slice { address: self.address, len: self.len, buffer: PhantomData }
    }
}
