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
use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use libloading::Library;

use super::{Address, Args, Device, DeviceError, Launch, Properties};

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
    recordings: Mutex<Recordings>,
    /// Moments that somebody marked.
    marks: Mutex<Vec<Instant>>,
    /// Launches until the device is lost.
    lasts: Arc<AtomicU64>,
    /// Bytes of memory in all, and those that are free.
    memory: (u64, AtomicU64),
    /// Keeps the functions above in memory.
    _library: Library,
}

/// What a driver would make graphs of.
#[derive(Default)]
struct Recordings {
    /// What is being written down.
    now: Option<Vec<Action>>,
    all: BTreeMap<u64, Vec<Action>>,
    count: u64,
}

enum Action {
    Launch { kernel: &'static str, shape: Shape, args: Box<Args<'static>> },
    Copy { from: Address, to: Address, bytes: usize },
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
        let (recordings, lasts) = (Mutex::default(), Arc::new(AtomicU64::new(u64::MAX)));
        let memory = (u64::MAX, AtomicU64::new(u64::MAX));
        let marks = Mutex::default();
        Ok(Self { launch, kernels, seed, properties, recordings, marks, lasts, memory, _library: library })
    }

    /// The device has so many bytes of memory.
    #[must_use]
    pub fn with_memory(self, bytes: u64) -> Self {
        Self { memory: (bytes, AtomicU64::new(bytes)), ..self }
    }

    /// The device is lost after so many launches, and stays lost.
    #[must_use]
    pub fn lost_after(self, launches: u64) -> Self {
        self.counting_down(Arc::new(AtomicU64::new(launches)))
    }

    /// As [`Emulator::lost_after`], with a count that somebody else may change as well.
    #[must_use]
    pub fn counting_down(self, lasts: Arc<AtomicU64>) -> Self {
        Self { lasts, ..self }
    }

    /// Runs a kernel, unless the device is lost.
    unsafe fn run(&self, kernel: &str, shape: &Shape, args: &Args<'_>) -> Result<(), DeviceError> {
        let left = self.lasts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        self.alive(left.is_ok())?;
        let name = CString::new(kernel).map_err(|_| DeviceError::Launch("with a zero in its name".into()))?;
        let (mut pointers, sizes) = (args.pointers(), args.sizes());
        let mut error = [0_u8; ERROR_BYTES];
        // SAFETY: the library checks count and sizes of the arguments; the rest is the caller's promise.
        let failed = unsafe {
            (self.launch)(
                name.as_ptr(),
                std::ptr::from_ref(shape),
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

    fn alive(&self, alive: bool) -> Result<(), DeviceError> {
        let lost = || DeviceError::Lost {
            device: self.properties.name.clone(),
            call: "launch",
            code: 719,
            what: "it was told to be lost here",
        };
        alive.then_some(()).ok_or_else(lost)
    }

    /// Whether it was not lost.
    fn live(&self) -> Result<(), DeviceError> {
        self.alive(self.lasts.load(Ordering::Relaxed) > 0)
    }

    fn recordings(&self) -> MutexGuard<'_, Recordings> {
        self.recordings.lock().unwrap_or_else(PoisonError::into_inner)
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
            free: self.memory.1.load(Ordering::Relaxed),
            total: self.memory.0,
        };
        self.live()?;
        let layout = layout(bytes).filter(|layout| layout.size() > 0).ok_or_else(full)?;
        let fits = |free: u64| free.checked_sub(bytes as u64);
        self.memory.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| full())?;
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
            self.memory.1.fetch_add(bytes as u64, Ordering::Relaxed);
            // SAFETY: allocated above with the same layout; launches are over when they return.
            unsafe { dealloc(address.0 as *mut u8, layout) }
        }
    }

    unsafe fn write(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        self.live()?;
        // SAFETY: as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn read(&self, from: Address, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.live()?;
        // SAFETY: as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError> {
        self.live()?;
        if let Some(actions) = &mut self.recordings().now {
            actions.push(Action::Copy { from, to, bytes });
            return Ok(());
        }
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
        if let Some(actions) = &mut self.recordings().now {
            let args = Box::new(launch.args.kept());
            actions.push(Action::Launch { kernel: launch.kernel, shape, args });
            return Ok(());
        }
        // SAFETY: as the caller promises.
        unsafe { self.run(launch.kernel, &shape, launch.args) }
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.live()
    }

    fn mark(&self) -> Result<u64, DeviceError> {
        self.live()?;
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.push(Instant::now());
        Ok(marks.len() as u64 - 1)
    }

    /// Of this processor, which says nothing about a GPU.
    fn between(&self, from: u64, to: u64) -> Result<f64, DeviceError> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |mark: u64| marks.get(mark as usize).copied();
        let passed = at(to).zip(at(from)).map(|(to, from)| to.duration_since(from).as_secs_f64() * 1e3);
        passed.ok_or_else(|| DeviceError::Emulator("there is no such moment".into()))
    }

    unsafe fn zero(&self, at: Address, bytes: usize) -> Result<(), DeviceError> {
        self.live()?;
        // SAFETY: as the caller promises.
        unsafe { (at.0 as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    fn begin_recording(&self) -> Result<(), DeviceError> {
        self.live()?;
        match self.recordings().now.replace(Vec::new()) {
            None => Ok(()),
            Some(_) => Err(DeviceError::Recording("another recording".into())),
        }
    }

    fn end_recording(&self) -> Result<u64, DeviceError> {
        let mut recordings = self.recordings();
        let nothing = || DeviceError::Recording("nothing was begun".into());
        let actions = recordings.now.take().ok_or_else(nothing)?;
        recordings.count += 1;
        let id = recordings.count;
        recordings.all.insert(id, actions);
        Ok(id)
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), DeviceError> {
        let recordings = self.recordings();
        for action in recordings.all.get(&recording).into_iter().flatten() {
            match action {
                // SAFETY: as the caller promises.
                Action::Launch { kernel, shape, args } => unsafe { self.run(kernel, shape, args)? },
                // SAFETY: likewise.
                Action::Copy { from, to, bytes } => unsafe {
                    std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, *bytes);
                },
            }
        }
        Ok(())
    }

    fn forget(&self, recording: u64) {
        self.recordings().all.remove(&recording);
    }
}
