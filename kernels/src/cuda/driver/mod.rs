//! A GPU behind NVIDIA's driver, which is loaded when a device is asked for and not before: the same binary starts where
//! there is none.
//!
//! [`Driver`] decides (which device will do, which image of the kernels fits, what an error means); [`calls`] is the list of
//! driver calls that it makes, with the real ones behind it or, in tests, a driver that fails as it is told to.
//!
//! Everything is launched on one stream, in order. An error that leaves the context unusable makes the device lost, and
//! every later call says so.

mod calls;
mod images;
mod lock;
#[cfg(feature = "cuda")]
mod real;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

use calls::{Calls, Code, Described, Event, Function, Graph, Module};
use images::{IMAGES, Image};
use lock::Exclusive;

use super::{Address, Device, DeviceError, Launch, Properties};

/// The oldest driver whose calls are used, as it numbers itself: CUDA 12.0.
const OLDEST_DRIVER: u32 = 12_000;
/// The oldest device that has all the instructions of the portable kernels.
const OLDEST_DEVICE: (u32, u32) = (8, 0);
/// Dynamic shared memory that a kernel may have without asking.
const UNASKED_SHARED_BYTES: u32 = 48 << 10;

/// What is wanted of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Which of the machine's devices.
    pub index: usize,
    /// Bytes of weights, caches and buffers.
    pub bytes: u64,
}

/// A device behind the driver.
pub struct Driver<C = Box<dyn Calls>> {
    calls: C,
    properties: Properties,
    modules: Vec<Module>,
    functions: Mutex<HashMap<&'static str, Function>>,
    /// The call after which the device was lost, and its code.
    lost: Mutex<Option<(&'static str, Code)>>,
    /// Kept as long as the device is in use.
    _exclusive: Exclusive,
}

impl Driver {
    /// Takes a device of this machine.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`], [`DeviceError::OldDriver`], [`DeviceError::NoDevice`], [`DeviceError::TooOld`],
    /// [`DeviceError::TooSmall`], [`DeviceError::InUse`] or [`DeviceError::NoImage`]: each says what to do about it.
    #[cfg(feature = "cuda")]
    pub fn open(plan: Plan) -> Result<Self, DeviceError> {
        Self::with(Box::new(real::Real::load()?), plan, IMAGES, &std::env::temp_dir())
    }

    /// As above; this program was built without the driver's calls.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`].
    #[cfg(not(feature = "cuda"))]
    pub fn open(_: Plan) -> Result<Self, DeviceError> {
        Err(DeviceError::NoDriver("this program was built without the feature `cuda`".into()))
    }
}

impl<C: Calls> Driver<C> {
    fn with(calls: C, plan: Plan, images: &[Image], locks: &std::path::Path) -> Result<Self, DeviceError> {
        let asking =
            |call: &'static str| move |code: Code| DeviceError::Driver { call, code: code.0, what: code.what() };
        let version = calls.version().map_err(asking("cuDriverGetVersion"))?;
        if version < OLDEST_DRIVER {
            return Err(DeviceError::OldDriver { found: version, oldest: OLDEST_DRIVER });
        }
        let count = calls.count().map_err(asking("cuDeviceGetCount"))?;
        if plan.index >= count {
            return Err(DeviceError::NoDevice { index: plan.index, count });
        }
        let Described { name, uuid, capability, multiprocessors, shared_bytes, memory } =
            calls.describe(plan.index).map_err(asking("cuDeviceGetAttribute"))?;
        if capability < OLDEST_DEVICE {
            return Err(DeviceError::TooOld { device: name, capability, oldest: OLDEST_DEVICE });
        }
        if memory < plan.bytes {
            return Err(DeviceError::TooSmall { device: name, wanted: plan.bytes, total: memory });
        }
        let exclusive = Exclusive::take(locks, &uuid, &name)?;
        calls.open(plan.index).map_err(|code| match code {
            Code::DEVICE_UNAVAILABLE => DeviceError::InUse { device: name.clone() },
            code => asking("cuDevicePrimaryCtxRetain")(code),
        })?;
        let modules = load(&calls, images, &name, capability)?;
        let properties = Properties { name, capability, multiprocessors, shared_bytes };
        let (functions, lost) = (Mutex::default(), Mutex::default());
        Ok(Self { calls, properties, modules, functions, lost, _exclusive: exclusive })
    }

    /// Makes a call unless the device is lost, and says what its error means.
    fn call<T>(&self, name: &'static str, make: impl FnOnce(&C) -> Result<T, Code>) -> Result<T, DeviceError> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((call, code)) = *lost {
            return Err(self.lost(call, code));
        }
        make(&self.calls).map_err(|code| {
            if code.is_lost() {
                *lost = Some((name, code));
                return self.lost(name, code);
            }
            DeviceError::Driver { call: name, code: code.0, what: code.what() }
        })
    }

    fn lost(&self, call: &'static str, code: Code) -> DeviceError {
        DeviceError::Lost { device: self.properties.name.clone(), call, code: code.0, what: code.what() }
    }

    fn function(&self, launch: &Launch<'_>) -> Result<Function, DeviceError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(launch.kernel) {
            return Ok(*function);
        }
        let name = CString::new(launch.kernel).map_err(|_| DeviceError::Launch("with a zero in its name".into()))?;
        for &module in &self.modules {
            let found = self.call("cuModuleGetFunction", |calls| match calls.function(module, &name) {
                Err(Code::NOT_FOUND) => Ok(None),
                other => other.map(Some),
            })?;
            if let Some(function) = found {
                if self.properties.shared_bytes > UNASKED_SHARED_BYTES {
                    let bytes = self.properties.shared_bytes;
                    self.call("cuFuncSetAttribute", |calls| calls.allow_shared(function, bytes))?;
                }
                functions.insert(launch.kernel, function);
                return Ok(function);
            }
        }
        Err(DeviceError::Launch(format!("{} is in none of the images that fit this device", launch.kernel)))
    }
}

/// Loads, for every source of kernels, the first image that the device takes: machine code for it, or PTX, which the driver
/// compiles.
fn load<C: Calls>(
    calls: &C,
    images: &[Image],
    device: &str,
    capability: (u32, u32),
) -> Result<Vec<Module>, DeviceError> {
    if images.is_empty() {
        return Err(DeviceError::NoImage {
            device: device.to_owned(),
            source_name: "any kernel".into(),
            why: "this program was built without nvcc".into(),
        });
    }
    let mut modules = Vec::new();
    let mut sources: Vec<&str> = images.iter().map(|image| image.source).collect();
    sources.sort_unstable();
    sources.dedup();
    for source in sources {
        let mut candidates: Vec<&Image> =
            images.iter().filter(|i| i.source == source && i.code.may_fit(capability)).collect();
        candidates.sort_by_key(|image| image.code.preference());
        let mut refused = Vec::new();
        let mut loaded = None;
        for image in candidates {
            match calls.load(image.bytes) {
                Ok(module) => {
                    loaded = Some(module);
                    break;
                }
                Err(code) if code.is_unfit() => refused.push(format!("{}: {}", image.code, code.what())),
                Err(code) => {
                    return Err(DeviceError::Driver { call: "cuModuleLoadData", code: code.0, what: code.what() });
                }
            }
        }
        let why = || if refused.is_empty() { "there is none for it".into() } else { refused.join("; ") };
        modules.push(loaded.ok_or_else(|| DeviceError::NoImage {
            device: device.to_owned(),
            source_name: source.to_owned(),
            why: why(),
        })?);
    }
    Ok(modules)
}

impl<C: Calls> Device for Driver<C> {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        let allocated = self.call("cuMemAlloc", |calls| match calls.allocate(bytes) {
            Err(Code::OUT_OF_MEMORY) => Ok(None),
            other => other.map(Some),
        })?;
        if let Some(address) = allocated {
            return Ok(Address(address));
        }
        let (free, total) = self.call("cuMemGetInfo", Calls::memory)?;
        Err(DeviceError::OutOfMemory { device: self.properties.name.clone(), wanted: bytes as u64, free, total })
    }

    unsafe fn free(&self, address: Address, _: usize) {
        // A device that is lost has lost its memory too, and nobody can be told here.
        // SAFETY: as the caller promises.
        let _ = self.call("cuMemFree", |calls| unsafe { calls.free(address.0) });
    }

    unsafe fn write(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        // SAFETY: as the caller promises.
        self.call("cuMemcpyHtoD", |calls| unsafe { calls.write(to.0, bytes) })
    }

    unsafe fn read(&self, from: Address, bytes: &mut [u8]) -> Result<(), DeviceError> {
        // SAFETY: as the caller promises.
        self.call("cuMemcpyDtoH", |calls| unsafe { calls.read(from.0, bytes) })
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: as the caller promises.
        self.call("cuMemcpyDtoD", |calls| unsafe { calls.copy(from.0, to.0, bytes) })
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        let function = self.function(launch)?;
        let launched = self.call("cuLaunchKernel", |calls| {
            // SAFETY: as the caller promises.
            match unsafe { calls.launch(function, launch) } {
                Err(code) if !code.is_lost() => Ok(Err(code)),
                other => other.map(Ok),
            }
        })?;
        launched.map_err(|code| DeviceError::Launch(format!("{}: {} ({})", launch.kernel, code.what(), code.0)))
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.call("cuStreamSynchronize", Calls::synchronize)
    }

    unsafe fn zero(&self, at: Address, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: as the caller promises.
        self.call("cuMemsetD8", |calls| unsafe { calls.zero(at.0, bytes) })
    }

    fn mark(&self) -> Result<u64, DeviceError> {
        self.call("cuEventRecord", Calls::mark).map(|event| event.0 as u64)
    }

    fn between(&self, from: u64, to: u64) -> Result<f64, DeviceError> {
        self.call("cuEventElapsedTime", |calls| calls.between(Event(from as usize), Event(to as usize)))
    }

    fn begin_recording(&self) -> Result<(), DeviceError> {
        self.call("cuStreamBeginCapture", Calls::begin_capture)
    }

    fn end_recording(&self) -> Result<u64, DeviceError> {
        self.call("cuStreamEndCapture", Calls::end_capture).map(|graph| graph.0 as u64)
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), DeviceError> {
        // SAFETY: as the caller promises.
        self.call("cuGraphLaunch", |calls| unsafe { calls.run(Graph(recording as usize)) })
    }

    fn forget(&self, recording: u64) {
        // With a device that is lost its graphs are lost too, and nobody can be told here.
        let _ = self.call("cuGraphExecDestroy", |calls| calls.destroy(Graph(recording as usize)));
    }
}
