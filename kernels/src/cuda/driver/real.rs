//! The driver's own calls, through `cudarc`, which finds its library when the first of them is made.
//!
//! Not run yet: no device was at hand where this was written.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use cudarc::driver::sys;

use super::calls::{Calls, Code, Described, Event, Function, Graph, Module};
use crate::cuda::{DeviceError, Launch};

/// The library, loaded and initialised, and the device that was opened.
pub(super) struct Real {
    context: OnceLock<Context>,
}

struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: contexts and streams of the driver may be used from any thread; every call makes the context the thread's.
unsafe impl Send for Context {}
// SAFETY: as above; the driver locks.
unsafe impl Sync for Context {}

fn check(result: sys::CUresult) -> Result<(), Code> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        code => Err(Code(code as i32)),
    }
}

impl Real {
    /// Loads the driver's library.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`].
    pub(super) fn load() -> Result<Self, DeviceError> {
        // SAFETY: this loads the driver's library, whose constructors are the driver's affair.
        if !unsafe { sys::is_culib_present() } {
            return Err(DeviceError::NoDriver("there is no library libcuda.so.1".into()));
        }
        // SAFETY: the first call, as the driver demands.
        check(unsafe { sys::cuInit(0) }).map_err(|code| match code.0 {
            100 => DeviceError::NoDevice { index: 0, count: 0 },
            _ => DeviceError::NoDriver(format!("cuInit says {} ({})", code.what(), code.0)),
        })?;
        Ok(Self { context: OnceLock::new() })
    }

    /// The open device, current on this thread.
    fn current(&self) -> Result<&Context, Code> {
        let context = self.context.get().ok_or(Code(201))?;
        // SAFETY: the context was retained and is released when this is dropped.
        check(unsafe { sys::cuCtxSetCurrent(context.context) })?;
        Ok(context)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if let Some(context) = self.context.get() {
            // SAFETY: both were made by `open`, and nothing uses them any more.
            unsafe {
                let _ = sys::cuStreamDestroy_v2(context.stream);
                let _ = sys::cuDevicePrimaryCtxRelease_v2(context.device);
            }
        }
    }
}

impl Calls for Real {
    fn version(&self) -> Result<u32, Code> {
        let mut version: c_int = 0;
        // SAFETY: a valid place.
        check(unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
        Ok(version.unsigned_abs())
    }

    fn count(&self) -> Result<usize, Code> {
        let mut count: c_int = 0;
        // SAFETY: a valid place.
        check(unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn describe(&self, index: usize) -> Result<Described, Code> {
        use sys::CUdevice_attribute_enum as Attribute;
        let mut device: sys::CUdevice = 0;
        // SAFETY: a valid place; the caller has counted the devices.
        check(unsafe { sys::cuDeviceGet(&raw mut device, index as c_int) })?;
        let attribute = |attribute: Attribute| {
            let mut value: c_int = 0;
            // SAFETY: a valid place and device.
            check(unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) })?;
            Ok(value.unsigned_abs())
        };
        let mut name = [0_u8; 128];
        let mut uuid = sys::CUuuid_st { bytes: [0; 16] };
        let mut memory = 0_usize;
        // SAFETY: valid places and device, and the length of the name's.
        unsafe {
            check(sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device))?;
            check(sys::cuDeviceGetUuid_v2(&raw mut uuid, device))?;
            check(sys::cuDeviceTotalMem_v2(&raw mut memory, device))?;
        }
        let name = CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned());
        Ok(Described {
            name: name.unwrap_or_default(),
            // Characters of C have a sign on x86 and none on Arm.
            #[allow(clippy::unnecessary_cast)]
            uuid: uuid.bytes.map(|byte| byte as u8),
            capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            memory: memory as u64,
        })
    }

    fn open(&self, index: usize) -> Result<(), Code> {
        let (mut device, mut context, mut stream) = (0, null_mut(), null_mut());
        // SAFETY: valid places; the context is made current before the stream is made in it.
        unsafe {
            check(sys::cuDeviceGet(&raw mut device, index as c_int))?;
            check(sys::cuDevicePrimaryCtxRetain(&raw mut context, device))?;
            check(sys::cuCtxSetCurrent(context))?;
            // Without the legacy stream's habit of waiting for everybody.
            check(sys::cuStreamCreate(&raw mut stream, 1))?;
        }
        let _ = self.context.set(Context { device, context, stream });
        Ok(())
    }

    fn memory(&self) -> Result<(u64, u64), Code> {
        self.current()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: valid places.
        check(unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok((free as u64, total as u64))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Code> {
        self.current()?;
        let mut address = 0;
        // SAFETY: a valid place.
        check(unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) })?;
        Ok(address)
    }

    unsafe fn free(&self, address: u64) -> Result<(), Code> {
        self.current()?;
        // SAFETY: as the caller promises. The call waits for what was launched.
        check(unsafe { sys::cuMemFree_v2(address) })
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Code> {
        let stream = self.current()?.stream;
        // SAFETY: as the caller promises. The bytes are not pinned, so the driver has taken them when this returns.
        check(unsafe { sys::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), stream) })
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), Code> {
        let stream = self.current()?.stream;
        // SAFETY: as the caller promises; the bytes are there until the stream is done.
        unsafe {
            check(sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from, bytes.len(), stream))?;
            check(sys::cuStreamSynchronize(stream))
        }
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Code> {
        let stream = self.current()?.stream;
        // SAFETY: as the caller promises.
        check(unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream) })
    }

    fn load(&self, image: &[u8]) -> Result<Module, Code> {
        self.current()?;
        let mut module = null_mut();
        // SAFETY: a valid place; images say how long they are, and PTX ends with a zero.
        check(unsafe { sys::cuModuleLoadData(&raw mut module, image.as_ptr().cast::<c_void>()) })?;
        Ok(Module(module as usize))
    }

    fn function(&self, module: Module, name: &CStr) -> Result<Function, Code> {
        self.current()?;
        let mut function = null_mut();
        // SAFETY: the module was loaded and is never unloaded.
        check(unsafe { sys::cuModuleGetFunction(&raw mut function, module.0 as sys::CUmodule, name.as_ptr()) })?;
        Ok(Function(function as usize))
    }

    fn allow_shared(&self, function: Function, bytes: u32) -> Result<(), Code> {
        use sys::CUfunction_attribute_enum as Attribute;
        self.current()?;
        let (function, mut fixed) = (function.0 as sys::CUfunction, 0);
        // SAFETY: a function of a loaded module. What a kernel has of its own counts too.
        unsafe {
            let own = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
            check(sys::cuFuncGetAttribute(&raw mut fixed, own, function))?;
            let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            check(sys::cuFuncSetAttribute(function, most, bytes as c_int - fixed))
        }
    }

    unsafe fn launch(&self, function: Function, launch: &Launch<'_>) -> Result<(), Code> {
        let stream = self.current()?.stream;
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let (function, shared) = (function.0 as sys::CUfunction, launch.shared_bytes);
        let mut arguments = launch.args.pointers();
        // SAFETY: as the caller promises; the driver copies the arguments.
        check(unsafe {
            if launch.cooperative {
                let arguments = arguments.as_mut_ptr();
                sys::cuLaunchCooperativeKernel(function, gx, gy, gz, bx, by, bz, shared, stream, arguments)
            } else {
                let arguments = arguments.as_mut_ptr();
                sys::cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, arguments, null_mut())
            }
        })
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<(), Code> {
        let stream = self.current()?.stream;
        // SAFETY: as the caller promises.
        check(unsafe { sys::cuMemsetD8Async(at, 0, bytes, stream) })
    }

    fn mark(&self) -> Result<Event, Code> {
        let stream = self.current()?.stream;
        let mut event = null_mut();
        // SAFETY: a valid place, and the stream of the open device.
        unsafe {
            check(sys::cuEventCreate(&raw mut event, 0))?;
            check(sys::cuEventRecord(event, stream))?;
        }
        Ok(Event(event as usize))
    }

    fn between(&self, from: Event, to: Event) -> Result<f64, Code> {
        self.current()?;
        let (from, to, mut milliseconds) = (from.0 as sys::CUevent, to.0 as sys::CUevent, 0.0);
        // SAFETY: both were made by `mark`, in that order, and are not used any more.
        unsafe {
            check(sys::cuEventSynchronize(to))?;
            check(sys::cuEventElapsedTime_v2(&raw mut milliseconds, from, to))?;
            check(sys::cuEventDestroy_v2(from))?;
            check(sys::cuEventDestroy_v2(to))?;
        }
        Ok(f64::from(milliseconds))
    }

    fn begin_capture(&self) -> Result<(), Code> {
        let stream = self.current()?.stream;
        // This thread alone is kept from what a capture cannot hold.
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream of the open device.
        check(unsafe { sys::cuStreamBeginCapture_v2(stream, mode) })
    }

    fn end_capture(&self) -> Result<Graph, Code> {
        let stream = self.current()?.stream;
        let (mut graph, mut ready) = (null_mut(), null_mut());
        // SAFETY: valid places; the graph is not needed once it is made ready.
        unsafe {
            check(sys::cuStreamEndCapture(stream, &raw mut graph))?;
            let made = check(sys::cuGraphInstantiateWithFlags(&raw mut ready, graph, 0));
            check(sys::cuGraphDestroy(graph))?;
            made?;
        }
        Ok(Graph(ready as usize))
    }

    unsafe fn run(&self, graph: Graph) -> Result<(), Code> {
        let stream = self.current()?.stream;
        // SAFETY: as the caller promises.
        check(unsafe { sys::cuGraphLaunch(graph.0 as sys::CUgraphExec, stream) })
    }

    fn destroy(&self, graph: Graph) -> Result<(), Code> {
        self.current()?;
        // SAFETY: it was made by `end_capture` and is not used any more.
        check(unsafe { sys::cuGraphExecDestroy(graph.0 as sys::CUgraphExec) })
    }

    fn synchronize(&self) -> Result<(), Code> {
        let stream = self.current()?.stream;
        // SAFETY: the stream of the open device.
        check(unsafe { sys::cuStreamSynchronize(stream) })
    }
}
