//! The driver's calls, as far as they are made here.

use std::ffi::CStr;

use crate::cuda::Launch;

/// A loaded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module(pub(super) usize);

/// A kernel in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(pub(super) usize);

/// A moment that was marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub(super) usize);

/// Launches that were captured, ready to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph(pub(super) usize);

/// What a device says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// What no other has.
    pub uuid: [u8; 16],
    /// Major and minor compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Most dynamic shared memory of a block, for kernels that ask.
    pub shared_bytes: u32,
    /// Bytes of its memory.
    pub memory: u64,
}

/// An error of the driver, by its number (`CUresult`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub i32);

impl Code {
    pub(super) const OUT_OF_MEMORY: Self = Self(2);
    pub(super) const DEVICE_UNAVAILABLE: Self = Self(46);
    pub(super) const NOT_FOUND: Self = Self(500);

    /// Whether another image may still fit: none for the device, none that is valid, no compiler for PTX, or PTX newer than
    /// the driver.
    pub(super) fn is_unfit(self) -> bool {
        matches!(self.0, 200 | 209 | 218 | 220..=223)
    }

    /// Whether the context is unusable from now on.
    pub(super) fn is_lost(self) -> bool {
        matches!(self.0, 4 | 201 | 214 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 999)
    }

    /// What it means.
    pub(super) fn what(self) -> &'static str {
        match self.0 {
            1 => "an invalid value",
            2 => "out of memory",
            4 => "the driver is shutting down",
            46 => "the device is unavailable",
            100 => "no device",
            200 => "an invalid image",
            201 => "an invalid context",
            209 => "no code for this device",
            214 => "an uncorrectable memory error",
            218 => "invalid PTX",
            220..=222 => "the driver cannot compile this PTX",
            223 => "PTX cannot be compiled at run time here",
            500 => "not found",
            700 => "an access outside of memory",
            701 => "too many resources for a launch",
            702 => "a kernel that did not end in time",
            709 => "the context is destroyed",
            710 => "an assertion in a kernel",
            714..=718 => "a kernel that ran astray",
            719 => "a kernel that failed",
            721 => "a failure outside of this process",
            900..=908 => "launches that cannot be captured",
            _ => "an error",
        }
    }
}

/// The calls. Those that copy or launch are in order, on one stream.
pub trait Calls: Send + Sync {
    /// The driver's version: 13000 is CUDA 13.0.
    ///
    /// # Errors
    /// The driver's, as for all that follow.
    fn version(&self) -> Result<u32, Code>;
    /// Devices.
    fn count(&self) -> Result<usize, Code>;
    /// What a device says of itself.
    fn describe(&self, device: usize) -> Result<Described, Code>;
    /// Takes the device.
    fn open(&self, device: usize) -> Result<(), Code>;
    /// Free and total bytes of memory.
    fn memory(&self) -> Result<(u64, u64), Code>;
    /// Memory, aligned to 256 bytes.
    fn allocate(&self, bytes: usize) -> Result<u64, Code>;
    /// Gives memory back.
    ///
    /// # Safety
    /// As [`Device::free`](crate::cuda::Device::free).
    unsafe fn free(&self, address: u64) -> Result<(), Code>;
    /// Copies to the device.
    ///
    /// # Safety
    /// As [`Device::write`](crate::cuda::Device::write).
    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Code>;
    /// Copies from the device, when all before is done.
    ///
    /// # Safety
    /// As [`Device::read`](crate::cuda::Device::read).
    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), Code>;
    /// Copies on the device.
    ///
    /// # Safety
    /// As [`Device::copy`](crate::cuda::Device::copy).
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Code>;
    /// Loads an image: machine code, or PTX that ends with a zero.
    fn load(&self, image: &[u8]) -> Result<Module, Code>;
    /// A kernel by its name.
    fn function(&self, module: Module, name: &CStr) -> Result<Function, Code>;
    /// Lets a kernel be launched with as much dynamic shared memory.
    fn allow_shared(&self, function: Function, bytes: u32) -> Result<(), Code>;
    /// Starts a kernel.
    ///
    /// # Safety
    /// As [`Device::launch`](crate::cuda::Device::launch).
    unsafe fn launch(&self, function: Function, launch: &Launch<'_>) -> Result<(), Code>;
    /// Waits for all that was started.
    fn synchronize(&self) -> Result<(), Code>;
    /// Makes bytes zero, in order with what was started.
    ///
    /// # Safety
    /// As [`Device::zero`](crate::cuda::Device::zero).
    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<(), Code>;
    /// A moment in the order of what was started.
    fn mark(&self) -> Result<Event, Code>;
    /// Milliseconds from one moment to a later one, once that has come. Both are given up.
    fn between(&self, from: Event, to: Event) -> Result<f64, Code>;
    /// From here on starts and copies are written down.
    fn begin_capture(&self) -> Result<(), Code>;
    /// What was written down, ready to be run.
    fn end_capture(&self) -> Result<Graph, Code>;
    /// Runs it.
    ///
    /// # Safety
    /// As [`Device::replay`](crate::cuda::Device::replay).
    unsafe fn run(&self, graph: Graph) -> Result<(), Code>;
    /// Gives it up.
    fn destroy(&self, graph: Graph) -> Result<(), Code>;
}

impl<T: Calls + ?Sized> Calls for Box<T> {
    fn version(&self) -> Result<u32, Code> {
        (**self).version()
    }
    fn count(&self) -> Result<usize, Code> {
        (**self).count()
    }
    fn describe(&self, device: usize) -> Result<Described, Code> {
        (**self).describe(device)
    }
    fn open(&self, device: usize) -> Result<(), Code> {
        (**self).open(device)
    }
    fn memory(&self) -> Result<(u64, u64), Code> {
        (**self).memory()
    }
    fn allocate(&self, bytes: usize) -> Result<u64, Code> {
        (**self).allocate(bytes)
    }
    unsafe fn free(&self, address: u64) -> Result<(), Code> {
        // SAFETY: as the caller promises.
        unsafe { (**self).free(address) }
    }
    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Code> {
        // SAFETY: as the caller promises.
        unsafe { (**self).write(to, bytes) }
    }
    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), Code> {
        // SAFETY: as the caller promises.
        unsafe { (**self).read(from, bytes) }
    }
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Code> {
        // SAFETY: as the caller promises.
        unsafe { (**self).copy(from, to, bytes) }
    }
    fn load(&self, image: &[u8]) -> Result<Module, Code> {
        (**self).load(image)
    }
    fn function(&self, module: Module, name: &CStr) -> Result<Function, Code> {
        (**self).function(module, name)
    }
    fn allow_shared(&self, function: Function, bytes: u32) -> Result<(), Code> {
        (**self).allow_shared(function, bytes)
    }
    unsafe fn launch(&self, function: Function, launch: &Launch<'_>) -> Result<(), Code> {
        // SAFETY: as the caller promises.
        unsafe { (**self).launch(function, launch) }
    }
    fn synchronize(&self) -> Result<(), Code> {
        (**self).synchronize()
    }
    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<(), Code> {
        // SAFETY: as the caller promises.
        unsafe { (**self).zero(at, bytes) }
    }
    fn mark(&self) -> Result<Event, Code> {
        (**self).mark()
    }
    fn between(&self, from: Event, to: Event) -> Result<f64, Code> {
        (**self).between(from, to)
    }
    fn begin_capture(&self) -> Result<(), Code> {
        (**self).begin_capture()
    }
    fn end_capture(&self) -> Result<Graph, Code> {
        (**self).end_capture()
    }
    unsafe fn run(&self, graph: Graph) -> Result<(), Code> {
        // SAFETY: as the caller promises.
        unsafe { (**self).run(graph) }
    }
    fn destroy(&self, graph: Graph) -> Result<(), Code> {
        (**self).destroy(graph)
    }
}
