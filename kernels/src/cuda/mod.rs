//! The GPU side: one seam, [`Device`], with a driver behind it or an emulator.
//!
//! Each op has its kernels in `ops/<op>/<op>.cu` and its dispatch in `ops/<op>/cuda.rs`, which computes grids, workspace
//! sizes and arguments against a [`Gpu`]. All of that is the same code whichever device is behind: the emulator takes the
//! very arguments that the driver would.
//!
//! - [`Gpu`], [`Buffer`], [`Slice`], [`SliceMut`]: memory with types and lengths, launches that are checked and counted.
//! - [`emulator`]: the kernels compiled by g++ and run on this processor, for tests.
//! - [`driver`]: a GPU behind NVIDIA's driver.
//! - [`check`]: every op's case table, run on any device and compared with the op's reference.

pub mod check;
pub mod driver;
pub mod emulator;
mod gpu;
#[cfg(test)]
mod recordings;

pub use gpu::{Args, Buffer, Element, Gpu, Launch, Recording, Slice, SliceMut};

/// An address in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Address(pub u64);

/// What a device offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Its name, for messages.
    pub name: String,
    /// Major and minor compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors: blocks that should be in flight at least.
    pub multiprocessors: u32,
    /// Most dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// Something that runs kernels. [`Gpu`] is the safe face of it.
pub trait Device: Send + Sync {
    /// What it offers.
    fn properties(&self) -> &Properties;

    /// Memory of `bytes` bytes, more than 0, aligned to 256. What is in it is not defined.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], or that the device is lost.
    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError>;

    /// Gives memory back.
    ///
    /// # Safety
    /// `address` is from [`Device::allocate`] of this device with this size, and nothing that was launched uses it.
    unsafe fn free(&self, address: Address, bytes: usize);

    /// Copies to the device, after what was launched before.
    ///
    /// # Safety
    /// `bytes.len()` bytes lie inside one allocation from `to` on.
    ///
    /// # Errors
    /// That the device is lost.
    unsafe fn write(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies from the device, after what was launched before.
    ///
    /// # Safety
    /// `bytes.len()` bytes lie inside one allocation from `from` on.
    ///
    /// # Errors
    /// That the device is lost.
    unsafe fn read(&self, from: Address, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies on the device, after what was launched before.
    ///
    /// # Safety
    /// `bytes` bytes lie inside one allocation from `from` on, and inside one from `to` on, and do not overlap.
    ///
    /// # Errors
    /// That the device is lost.
    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError>;

    /// Starts a kernel behind what was launched before.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and it stays inside of the memory that they name.
    ///
    /// # Errors
    /// [`DeviceError::Launch`] if the device refuses it, or that the device is lost.
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceError>;

    /// Waits until all that was launched is done.
    ///
    /// # Errors
    /// What became of it.
    fn synchronize(&self) -> Result<(), DeviceError>;

    /// A moment: when what was launched before is done.
    ///
    /// # Errors
    /// That the device is lost.
    fn mark(&self) -> Result<u64, DeviceError>;

    /// Milliseconds from one moment to a later one, once that has come. Both are forgotten.
    ///
    /// # Errors
    /// What became of what was launched before them.
    fn between(&self, from: u64, to: u64) -> Result<f64, DeviceError>;

    /// Makes bytes zero, after what was launched before.
    ///
    /// # Safety
    /// `bytes` bytes lie inside one allocation from `at` on.
    ///
    /// # Errors
    /// That the device is lost.
    unsafe fn zero(&self, at: Address, bytes: usize) -> Result<(), DeviceError>;

    /// From here on launches and copies are written down and not run. Nothing else is asked of the device meanwhile;
    /// [`Gpu::record`] sees to it.
    ///
    /// # Errors
    /// That the device is lost, or records already.
    fn begin_recording(&self) -> Result<(), DeviceError>;

    /// The number of what was written down.
    ///
    /// # Errors
    /// That the device is lost, or cannot run what was written down.
    fn end_recording(&self) -> Result<u64, DeviceError>;

    /// Runs all of a recording behind what was launched before, with the arguments that it was recorded with.
    ///
    /// # Safety
    /// What its launches and copies were promised holds now as well.
    ///
    /// # Errors
    /// As [`Device::launch`].
    unsafe fn replay(&self, recording: u64) -> Result<(), DeviceError>;

    /// Gives a recording up.
    fn forget(&self, recording: u64);
}

/// Why a device cannot be had, or can no longer be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The allocation does not fit.
    #[error("{wanted} bytes do not fit into the memory of {device}: {free} of {total} bytes are free")]
    OutOfMemory {
        /// Which device.
        device: String,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes that it has.
        total: u64,
    },
    /// There is no driver.
    #[error("there is no NVIDIA driver to run on: {0}")]
    NoDriver(String),
    /// The driver is older than the calls that are made.
    #[error("the NVIDIA driver knows CUDA {}.{}; {}.{} is needed", .found / 1000, .found % 1000 / 10, .oldest / 1000, .oldest % 1000 / 10)]
    OldDriver {
        /// Its version, as it numbers itself.
        found: u32,
        /// The oldest that will do.
        oldest: u32,
    },
    /// The machine has not as many devices.
    #[error("there is no GPU {index}: the driver knows of {count}")]
    NoDevice {
        /// Which was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The device lacks instructions.
    #[error("{device} has compute capability {}.{}; the kernels need {}.{}", .capability.0, .capability.1, .oldest.0, .oldest.1)]
    TooOld {
        /// Which device.
        device: String,
        /// What it has.
        capability: (u32, u32),
        /// The oldest that will do.
        oldest: (u32, u32),
    },
    /// The device has less memory than is planned.
    #[error("{wanted} bytes are planned and {device} has {total}: a smaller model or context may fit")]
    TooSmall {
        /// Which device.
        device: String,
        /// Bytes planned.
        wanted: u64,
        /// Bytes that it has.
        total: u64,
    },
    /// Another engine uses the device.
    #[error("{device} is in use by another engine")]
    InUse {
        /// Which device.
        device: String,
    },
    /// None of the images of some kernels runs on the device.
    #[error("{source_name} cannot be run on {device}: {why}")]
    NoImage {
        /// Which device.
        device: String,
        /// Which kernels.
        source_name: String,
        /// What was tried.
        why: String,
    },
    /// The device is unusable until the process starts again.
    #[error("{device} is lost: {call} says {what} ({code})")]
    Lost {
        /// Which device.
        device: String,
        /// The call that said so.
        call: &'static str,
        /// The driver's number.
        code: i32,
        /// What it means.
        what: &'static str,
    },
    /// Any other error of the driver.
    #[error("{call}: {what} ({code})")]
    Driver {
        /// The call.
        call: &'static str,
        /// The driver's number.
        code: i32,
        /// What it means.
        what: &'static str,
    },
    /// A launch was refused, or went wrong in a way that names the kernel.
    #[error("kernel {0}")]
    Launch(String),
    /// What was asked for cannot be part of a recording, whose launches run again and again.
    #[error("a recording of launches cannot hold this: {0}")]
    Recording(String),
    /// The emulator cannot be built or opened.
    #[error("the emulator cannot be had: {0}")]
    Emulator(String),
}

impl DeviceError {
    /// Whether the device may go on: only more memory was wanted than there is.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. })
    }
}
