//! A GPU on this processor, for tests: kernels compiled by g++ against `kernels/emu`, one fiber a thread.
//!
//! It takes the launches of a driver and refuses what a driver would refuse, and what a GPU would leave undefined
//! (divergent barriers, lanes that are not there, copies nobody waited for). Memory is the allocator's, exactly as long as
//! asked for and filled with bytes that are not a number, so that address sanitizers see every access outside.
//!
//! It says nothing about time, about coalescing or bank conflicts, or about the order in which other blocks see writes.

mod build;
pub mod planted;
#[cfg(test)]
mod tests;

pub use build::{Sanitizer, build, sources};
pub use planted::planted;

use std::alloc::{Layout, alloc, dealloc};
use std::error::Error as _;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use libloading::Library;

use super::{Address, Device, DeviceError, Launch, Properties};

/// Alignment of device memory.
const ALIGNMENT: usize = 256;
/// Bytes of an error's text.
const ERROR_BYTES: usize = 800;

/// As `CuemuShape` in `emu/abi.cpp`.
#[repr(C)]
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u64,
    seed: u64,
    cooperative: u32,
}

type LaunchFn = unsafe extern "C" fn(
    *const c_char,
    *const Shape,
    *mut *mut c_void,
    *const usize,
    usize,
    *mut c_char,
    usize,
) -> c_int;
type CountFn = unsafe extern "C" fn() -> u64;
type NameFn = unsafe extern "C" fn(u64) -> *const c_char;

/// The emulated device.
pub struct Emulator {
    launch: LaunchFn,
    kernels: Vec<String>,
    seed: u64,
    properties: Properties,
    /// Keeps the functions above in memory.
    _library: Library,
}

impl Emulator {
    /// The kernels of all ops, built if that has not been done yet. The seed orders threads and blocks; 0 lets them take
    /// turns.
    ///
    /// # Errors
    /// If g++ is not there or refuses a source.
    pub fn of_all_ops(seed: u64) -> Result<Self, DeviceError> {
        Self::open(&build(&sources()?, Sanitizer::from_environment())?, seed)
    }

    /// A library that [`build`] made.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn open(library: &Path, seed: u64) -> Result<Self, DeviceError> {
        let refused = |error: libloading::Error| {
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            DeviceError::Emulator(format!("{}: {why}", library.display()))
        };
        // SAFETY: `build` made the library; its constructors only fill the list of kernels.
        let library = unsafe { Library::new(library) }.map_err(refused)?;
        // SAFETY: the functions have these types in `emu/abi.cpp`.
        let (launch, count, name) = unsafe {
            (
                *library.get::<LaunchFn>(b"cuemu_launch\0").map_err(refused)?,
                *library.get::<CountFn>(b"cuemu_kernels\0").map_err(refused)?,
                *library.get::<NameFn>(b"cuemu_kernel_name\0").map_err(refused)?,
            )
        };
        // SAFETY: indices below the count have a name, which is a literal.
        let kernels = unsafe { (0..count()).map(|i| CStr::from_ptr(name(i)).to_string_lossy().into_owned()).collect() };
        let properties = Properties {
            name: "the emulator".into(),
            capability: (8, 0),
            // Few, so that ops which fill a device split their work at the sizes of the tests as well.
            multiprocessors: 4,
            // What sm_80 has at most.
            shared_bytes: 163 << 10,
        };
        Ok(Self { launch, kernels, seed, properties, _library: library })
    }

    /// The kernels' names.
    pub fn kernels(&self) -> &[String] {
        &self.kernels
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, ALIGNMENT).ok()
}

impl Device for Emulator {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        let full = || DeviceError::OutOfMemory {
            device: self.properties.name.clone(),
            wanted: bytes as u64,
            free: 0,
            total: 0,
        };
        let layout = layout(bytes).filter(|layout| layout.size() > 0).ok_or_else(full)?;
        // SAFETY: the layout is not empty.
        let at = unsafe { alloc(layout) };
        if at.is_null() {
            return Err(full());
        }
        // SAFETY: just allocated with this size.
        unsafe { at.write_bytes(0xff, bytes) };
        Ok(Address(at as u64))
    }

    unsafe fn free(&self, address: Address, bytes: usize) {
        if let Some(layout) = layout(bytes) {
            // SAFETY: allocated above with the same layout; launches are over when they return.
            unsafe { dealloc(address.0 as *mut u8, layout) }
        }
    }

    unsafe fn write(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        // SAFETY: as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn read(&self, from: Address, bytes: &mut [u8]) -> Result<(), DeviceError> {
        // SAFETY: as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        let shape = Shape {
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes.into(),
            seed: self.seed,
            cooperative: launch.cooperative.into(),
        };
        let name = CString::new(launch.kernel).map_err(|_| DeviceError::Launch("with a zero in its name".into()))?;
        let (mut pointers, sizes) = (launch.args.pointers(), launch.args.sizes());
        let mut error = [0_u8; ERROR_BYTES];
        // SAFETY: the library checks count and sizes of the arguments; the rest is the caller's promise.
        let failed = unsafe {
            (self.launch)(
                name.as_ptr(),
                &raw const shape,
                pointers.as_mut_ptr(),
                sizes.as_ptr(),
                sizes.len(),
                error.as_mut_ptr().cast(),
                ERROR_BYTES,
            )
        };
        if failed == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&error).map(CStr::to_string_lossy).unwrap_or_default();
        Err(DeviceError::Launch(text.into_owned()))
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}
