//! The safe face of a device: typed memory, and launches that are checked and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    launches: Mutex<Counts>,
    /// Allocations that the device was asked for.
    allocations: AtomicU64,
    /// Whether what is given back is kept for who asks next.
    keeps: AtomicBool,
    /// Whether steps that could be recorded are launched one by one all the same.
    singly: AtomicBool,
    /// What is kept, by its bytes.
    kept: Mutex<BTreeMap<usize, Vec<Address>>>,
    /// Allocations in use: their bytes, and the recordings that name them.
    live: Mutex<BTreeMap<u64, (usize, Vec<u64>)>>,
    recording: Mutex<Option<Draft>>,
    /// Recordings that name memory which was given back, by number: a device may use its names for them again.
    broken: Mutex<BTreeSet<u64>>,
    /// Recordings so far.
    recordings: AtomicU64,
    /// Whether results are compared with references, and what that has found.
    verifies: AtomicBool,
    findings: Mutex<Findings>,
}

/// Launches of each kernel.
type Counts = BTreeMap<&'static str, u64>;

/// What is being recorded.
#[derive(Default)]
struct Draft {
    launches: Counts,
    addresses: BTreeSet<u64>,
    /// What was asked for meanwhile and cannot be recorded.
    trouble: Option<&'static str>,
}

impl Inner {
    /// Gives all memory that is kept back to the device; whether there was any.
    fn give_back_kept(&self) -> bool {
        let kept = std::mem::take(&mut *lock(&self.kept));
        let some = kept.values().any(|addresses| !addresses.is_empty());
        for (bytes, addresses) in kept {
            for address in addresses {
                // SAFETY: allocated with this size, and given back by its last owner.
                unsafe { self.device.free(address, bytes) }
            }
        }
        some
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.give_back_kept();
    }
}

/// Of memory that is kept, sizes are rounded up to one of eight in each doubling, so that few are not used again.
fn class(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 16).max(256);
    bytes.next_multiple_of(step)
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
    /// A bit for each that is a pointer.
    pointers: u32,
    buffers: PhantomData<&'a ()>,
}

impl<'a> Args<'a> {
    /// The same, for whoever sees to it that the buffers live.
    pub(super) fn kept(&self) -> Args<'static> {
        Args { slots: self.slots, sizes: self.sizes, count: self.count, pointers: self.pointers, buffers: PhantomData }
    }

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

    fn address(mut self, address: Address) -> Self {
        self.pointers |= 1 << self.count;
        self.push(&address.0.to_ne_bytes())
    }

    /// Those that are pointers.
    fn addresses(&self) -> impl Iterator<Item = u64> {
        (0..self.count).filter(|i| self.pointers >> i & 1 == 1).map(|i| self.slots[i]).filter(|address| *address != 0)
    }

    /// A pointer that is read.
    #[must_use]
    pub fn input<T>(self, slice: Slice<'a, T>) -> Self {
        self.address(slice.address)
    }

    /// A pointer that is read, or null.
    #[must_use]
    pub fn optional_input<T>(self, slice: Option<Slice<'a, T>>) -> Self {
        self.address(slice.map_or(Address(0), |slice| slice.address))
    }

    /// A pointer that is written, or null.
    #[must_use]
    pub fn optional_output<T>(self, slice: Option<&mut SliceMut<'_, T>>) -> Self {
        self.address(slice.map_or(Address(0), |slice| slice.address))
    }

    /// A pointer that is written, and perhaps read.
    #[must_use]
    pub fn output<T>(self, slice: &mut SliceMut<'_, T>) -> Self {
        self.address(slice.address)
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
        Self::with(device, false)
    }

    /// Takes a device whose every result is compared with what the op's reference makes of the same inputs. Slow: for tests.
    pub fn verifying(device: impl Device + 'static) -> Self {
        Self::with(device, true)
    }

    fn with(device: impl Device + 'static, verifies: bool) -> Self {
        let inner = Inner {
            device: Box::new(device),
            launches: Mutex::default(),
            allocations: AtomicU64::new(0),
            keeps: AtomicBool::new(false),
            singly: AtomicBool::new(false),
            kept: Mutex::default(),
            live: Mutex::default(),
            recording: Mutex::default(),
            broken: Mutex::default(),
            recordings: AtomicU64::new(0),
            verifies: AtomicBool::new(verifies),
            findings: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// From here on memory that is given back is kept, and whoever asks for as much gets it: what is done again and again
    /// asks the device for memory the first time only. Whatever was launched before has used it when the next owner does,
    /// because a device does one thing after another.
    pub fn keep_memory(&self) {
        self.inner.keeps.store(true, Ordering::Relaxed);
    }

    /// From here on nothing is recorded ([`Gpu::step`]): an error is then that of the launch which it comes from.
    pub fn launch_singly(&self) {
        self.inner.singly.store(true, Ordering::Relaxed);
    }

    /// Launches a step that comes again and again: as it was recorded the first time, if it was.
    ///
    /// # Errors
    /// As [`Gpu::record`] and [`Recording::replay`].
    pub fn step<E: From<DeviceError>>(
        &self,
        recording: &mut Option<Recording>,
        mut launch: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(recording) = recording {
            return Ok(recording.replay()?);
        }
        // Kernels are looked up when they are launched first, which is not to happen while launches are recorded.
        launch()?;
        if !self.inner.singly.load(Ordering::Relaxed) {
            *recording = Some(self.record(launch)?);
        }
        Ok(())
    }

    /// Allocations that the device was asked for so far.
    pub fn allocations(&self) -> u64 {
        self.inner.allocations.load(Ordering::Relaxed)
    }

    /// Refuses what cannot be part of a recording.
    fn not_recorded(&self, what: &'static str) -> Result<(), DeviceError> {
        match &mut *lock(&self.inner.recording) {
            None => Ok(()),
            Some(draft) => {
                draft.trouble.get_or_insert(what);
                Err(DeviceError::Recording(what.to_owned()))
            }
        }
    }

    /// Records what `launch` launches and copies, without running it. It may neither allocate nor give back memory, read,
    /// write nor wait, so that all of it can run again as it is: what differs from run to run lies in buffers.
    ///
    /// # Errors
    /// Those of `launch`, [`DeviceError::Recording`] if it does what it may not, or that the device is lost.
    pub fn record<E: From<DeviceError>>(&self, launch: impl FnOnce() -> Result<(), E>) -> Result<Recording, E> {
        self.not_recorded("another recording")?;
        self.inner.device.begin_recording()?;
        *lock(&self.inner.recording) = Some(Default::default());
        let launched = launch();
        let draft = lock(&self.inner.recording).take().unwrap_or_default();
        let ended = self.inner.device.end_recording();
        let number = self.inner.recordings.fetch_add(1, Ordering::Relaxed);
        let ended = ended.map(|id| Recording { gpu: self.clone(), id, number, launches: draft.launches });
        launched?;
        if let Ok(recording) = &ended {
            let mut live = lock(&self.inner.live);
            for address in draft.addresses {
                if let Some((_, (_, recordings))) = live.range_mut(..=address).next_back() {
                    recordings.push(recording.number);
                }
            }
        }
        match draft.trouble {
            Some(what) => Err(DeviceError::Recording(what.to_owned()).into()),
            None => Ok(ended?),
        }
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
        self.not_recorded("an allocation")?;
        let mut bytes = bytes_of::<T>(len);
        let mut address = Address(0);
        if bytes > 0 {
            let keeps = self.inner.keeps.load(Ordering::Relaxed);
            bytes = if keeps { class(bytes) } else { bytes };
            let kept = if keeps { lock(&self.inner.kept).get_mut(&bytes).and_then(Vec::pop) } else { None };
            address = match kept {
                Some(address) => address,
                None => {
                    self.inner.allocations.fetch_add(1, Ordering::Relaxed);
                    match self.inner.device.allocate(bytes) {
                        // What is kept is of other sizes.
                        Err(DeviceError::OutOfMemory { .. }) if self.inner.give_back_kept() => {
                            self.inner.device.allocate(bytes)?
                        }
                        allocated => allocated?,
                    }
                }
            };
            lock(&self.inner.live).insert(address.0, (bytes, Vec::new()));
        }
        Ok(Buffer { gpu: self.clone(), address, len, bytes, element: PhantomData })
    }

    /// Memory with zeros.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    pub fn zeros<T: Element>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        let buffer = self.allocate(len)?;
        if len > 0 {
            // SAFETY: the buffer is an allocation of at least that size.
            unsafe { self.inner.device.zero(buffer.address, bytes_of::<T>(len))? };
        }
        Ok(buffer)
    }

    /// Replaces values.
    ///
    /// # Errors
    /// If the device is lost.
    ///
    /// # Panics
    /// If there are not as many values.
    pub fn write<T: Element>(&self, to: &mut SliceMut<'_, T>, values: &[T]) -> Result<(), DeviceError> {
        assert_eq!(values.len(), to.len, "values for a buffer");
        if values.is_empty() {
            return Ok(());
        }
        self.not_recorded("a write")?;
        // SAFETY: `T` has no padding, so its bytes may be read.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        // SAFETY: a slice lies inside an allocation.
        unsafe { self.inner.device.write(to.address, bytes) }
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
        match &mut *lock(&self.inner.recording) {
            Some(draft) => {
                *draft.launches.entry(launch.kernel).or_default() += 1;
                draft.addresses.extend(launch.args.addresses());
            }
            None => *lock(&self.inner.launches).entry(launch.kernel).or_default() += 1,
        }
        Ok(())
    }

    /// Makes values zero, behind what was launched before.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn clear<T: Element>(&self, slice: &mut SliceMut<'_, T>) -> Result<(), DeviceError> {
        self.not_recorded("clearing")?;
        if slice.is_empty() {
            return Ok(());
        }
        // SAFETY: a slice lies inside an allocation.
        unsafe { self.inner.device.zero(slice.address, bytes_of::<T>(slice.len)) }
    }

    /// A moment: when what was launched before is done.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn mark(&self) -> Result<u64, DeviceError> {
        self.not_recorded("a moment")?;
        self.inner.device.mark()
    }

    /// Milliseconds from one moment to a later one, once that has come. Both are forgotten.
    ///
    /// # Errors
    /// What became of what was launched before them.
    pub fn between(&self, from: u64, to: u64) -> Result<f64, DeviceError> {
        self.not_recorded("waiting")?;
        self.inner.device.between(from, to)
    }

    /// Waits until all that was launched is done.
    ///
    /// # Errors
    /// What became of it.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.not_recorded("waiting")?;
        self.inner.device.synchronize()
    }

    /// Launches of each kernel so far: the proof that nothing was computed elsewhere.
    pub fn launches(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.inner.launches).clone()
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
        if let Some(draft) = &mut *lock(&self.inner.recording) {
            draft.addresses.extend([from.address.0, to.address.0]);
        }
        // SAFETY: both slices lie inside allocations; a slice that is written is no part of one that is read.
        unsafe { self.inner.device.copy(from.address, to.address, bytes_of::<T>(from.len)) }
    }

    /// Copies `count` values inside of a buffer, behind what was launched before.
    ///
    /// # Errors
    /// If the device is lost.
    ///
    /// # Panics
    /// If the places are not inside, or overlap.
    pub fn copy_within<T: Element>(
        &self,
        buffer: &mut Buffer<T>,
        from: usize,
        to: usize,
        count: usize,
    ) -> Result<(), DeviceError> {
        assert!(from + count <= to || to + count <= from, "{count} values from {from} to {to} on a device");
        let from = buffer.range(from..from + count).address;
        let to = buffer.range_mut(to..to + count);
        let from: Slice<'_, T> = Slice { address: from, len: count, buffer: PhantomData };
        self.copy(from, &mut SliceMut { address: to.address, len: count, buffer: PhantomData })
    }

    /// Copies values here, once everything launched before is done.
    ///
    /// # Errors
    /// If something launched before failed, or the device is lost.
    pub fn fetch<T: Element>(&self, slice: Slice<'_, T>) -> Result<Vec<T>, DeviceError> {
        // SAFETY: every bit pattern is a value of `T`, zeros too.
        let mut values = vec![unsafe { std::mem::zeroed::<T>() }; slice.len];
        self.not_recorded("a read")?;
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
        self.widened_if(slice.filter(|_| self.compares()))
    }

    /// Whether results are compared: never those of a recording, which has none yet.
    fn compares(&self) -> bool {
        self.inner.verifies.load(Ordering::Relaxed) && lock(&self.inner.recording).is_none()
    }

    /// From here on results are compared with references, or not.
    pub fn verify_results(&self, verify: bool) {
        self.inner.verifies.store(verify, Ordering::Relaxed);
    }

    /// Compares an op's result with its reference, where that is asked for. `compare` reads inputs and results.
    pub(crate) fn verify(
        &self,
        op: &'static str,
        compare: impl FnOnce(&mut Checks) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        if !self.compares() {
            return Ok(());
        }
        let mut checks = Checks::default();
        compare(&mut checks)?;
        lock(&self.inner.findings).add(op, checks);
        Ok(())
    }

    /// What comparing has found since the last call; nothing if nobody compares.
    pub fn findings(&self) -> Findings {
        std::mem::take(&mut *lock(&self.inner.findings))
    }
}

/// What is counted and kept here is whole whoever panicked while holding it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Launches and copies that run again as they were recorded, as long as the buffers that they name are there.
pub struct Recording {
    gpu: Gpu,
    /// The device's name for it.
    id: u64,
    number: u64,
    launches: Counts,
}

impl Recording {
    /// Runs all of it behind what was launched before, and counts it.
    ///
    /// # Errors
    /// [`DeviceError::Recording`] if a buffer that it names is not there any more, or that the device is lost.
    pub fn replay(&self) -> Result<(), DeviceError> {
        self.gpu.not_recorded("another recording")?;
        if lock(&self.gpu.inner.broken).contains(&self.number) {
            return Err(DeviceError::Recording("memory that is not there any more".into()));
        }
        // SAFETY: the buffers are there, and what ops were promised of their contents they are promised of every run.
        unsafe { self.gpu.inner.device.replay(self.id)? };
        let mut launches = lock(&self.gpu.inner.launches);
        self.launches.iter().for_each(|(kernel, count)| *launches.entry(kernel).or_default() += count);
        Ok(())
    }

    /// Launches of each kernel in it.
    pub fn launches(&self) -> &BTreeMap<&'static str, u64> {
        &self.launches
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let number = self.number;
        lock(&self.gpu.inner.live).values_mut().for_each(|(_, recordings)| recordings.retain(|it| *it != number));
        lock(&self.gpu.inner.broken).remove(&number);
        self.gpu.inner.device.forget(self.id);
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
    /// Of the allocation.
    bytes: usize,
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
        let gpu = self.gpu.clone();
        gpu.write(&mut self.all_mut(), values)
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
        if self.bytes == 0 {
            return;
        }
        // A recording that used it would use it again: whoever records is told.
        let _ = self.gpu.not_recorded("memory that is given back");
        if let Some((_, recordings)) = lock(&self.gpu.inner.live).remove(&self.address.0) {
            lock(&self.gpu.inner.broken).extend(recordings);
        }
        if self.gpu.inner.keeps.load(Ordering::Relaxed) {
            lock(&self.gpu.inner.kept).entry(self.bytes).or_default().push(self.address);
        } else {
            // SAFETY: allocated with this size. Devices run what is launched in order, and free after it.
            unsafe { self.gpu.inner.device.free(self.address, self.bytes) }
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
