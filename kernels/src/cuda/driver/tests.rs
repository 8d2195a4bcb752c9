//! What goes wrong with devices, on a driver that does as it is told.

use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::Mutex;

use super::calls::{Calls, Code, Described, Event, Function, Graph, Module};
use super::images::{Compiled, Image};
use super::{Driver, Plan};
use crate::cuda::{Args, DeviceError, Gpu, Launch};

/// A driver without a device: memory is addresses, launches are written down.
#[derive(Default)]
struct Fake {
    version: u32,
    devices: Vec<Described>,
    /// Images that the device refuses, by their first byte, and with what.
    refuses: Vec<(u8, Code)>,
    opening: Option<Code>,
    /// Bytes that are free.
    free: Mutex<u64>,
    /// Called names; the call after which a code is returned for ever.
    log: Mutex<Vec<String>>,
    fails: Mutex<Option<(&'static str, Code)>>,
}

impl Fake {
    fn make(&self, call: &'static str) -> Result<(), Code> {
        self.log.lock().unwrap().push(call.to_owned());
        match *self.fails.lock().unwrap() {
            Some((failing, code)) if failing == call => Err(code),
            _ => Ok(()),
        }
    }
}

impl Calls for &'static Fake {
    fn version(&self) -> Result<u32, Code> {
        Ok(self.version)
    }
    fn count(&self) -> Result<usize, Code> {
        Ok(self.devices.len())
    }
    fn describe(&self, device: usize) -> Result<Described, Code> {
        Ok(self.devices[device].clone())
    }
    fn open(&self, _: usize) -> Result<(), Code> {
        self.opening.map_or(Ok(()), Err)
    }
    fn memory(&self) -> Result<(u64, u64), Code> {
        Ok((*self.free.lock().unwrap(), self.devices[0].memory))
    }
    fn allocate(&self, bytes: usize) -> Result<u64, Code> {
        self.make("allocate")?;
        let mut free = self.free.lock().unwrap();
        *free = free.checked_sub(bytes as u64).ok_or(Code::OUT_OF_MEMORY)?;
        Ok(0x1000 + *free)
    }
    unsafe fn free(&self, _: u64) -> Result<(), Code> {
        self.make("free")
    }
    unsafe fn write(&self, _: u64, _: &[u8]) -> Result<(), Code> {
        self.make("write")
    }
    unsafe fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Code> {
        self.make("read")
    }
    unsafe fn copy(&self, _: u64, _: u64, _: usize) -> Result<(), Code> {
        self.make("copy")
    }
    fn load(&self, image: &[u8]) -> Result<Module, Code> {
        self.log.lock().unwrap().push(format!("load {}", image[0]));
        match self.refuses.iter().find(|(first, _)| *first == image[0]) {
            Some((_, code)) => Err(*code),
            None => Ok(Module(image[0].into())),
        }
    }
    fn function(&self, module: Module, name: &CStr) -> Result<Function, Code> {
        // Modules have one kernel each.
        if name.to_bytes() == format!("kernel_{}", module.0 % 10).as_bytes() {
            return Ok(Function(module.0));
        }
        Err(Code::NOT_FOUND)
    }
    fn allow_shared(&self, _: Function, _: u32) -> Result<(), Code> {
        self.make("allow_shared")
    }
    unsafe fn launch(&self, _: Function, launch: &Launch<'_>) -> Result<(), Code> {
        self.make("launch")?;
        self.log.lock().unwrap().push(launch.kernel.to_owned());
        Ok(())
    }
    fn synchronize(&self) -> Result<(), Code> {
        self.make("synchronize")
    }
    unsafe fn zero(&self, _: u64, _: usize) -> Result<(), Code> {
        self.make("zero")
    }
    fn mark(&self) -> Result<Event, Code> {
        self.make("mark").map(|()| Event(1))
    }
    fn between(&self, _: Event, _: Event) -> Result<f64, Code> {
        self.make("between").map(|()| 2.5)
    }
    fn begin_capture(&self) -> Result<(), Code> {
        self.make("begin_capture")
    }
    fn end_capture(&self) -> Result<Graph, Code> {
        self.make("end_capture").map(|()| Graph(7))
    }
    unsafe fn run(&self, _: Graph) -> Result<(), Code> {
        self.make("run")
    }
    fn destroy(&self, _: Graph) -> Result<(), Code> {
        self.make("destroy")
    }
}

const fn image(source: &'static str, code: Compiled, bytes: &'static [u8]) -> Image {
    Image { source, code, bytes }
}

/// Two sources, each for two architectures and as PTX.
const IMAGES: [Image; 6] = [
    image("first", Compiled::Ptx(8, 0), &[11]),
    image("first", Compiled::Sm(8, 0), &[21]),
    image("first", Compiled::Sm(9, 0), &[31]),
    image("second", Compiled::Sm(8, 0), &[22]),
    image("second", Compiled::Sm(9, 0), &[32]),
    image("second", Compiled::Ptx(8, 0), &[12]),
];

/// A device like an H200; each has a name of its own, so that tests do not lock each other out.
fn fake(id: u8) -> Fake {
    let described = Described {
        name: format!("fake {id}"),
        uuid: [id; 16],
        capability: (9, 0),
        multiprocessors: 132,
        shared_bytes: 227 << 10,
        memory: 1 << 20,
    };
    Fake { version: 13_000, devices: vec![described], free: Mutex::new(1 << 20), ..Fake::default() }
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("causerie-driver-tests-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn open(fake: Fake) -> (&'static Fake, Result<Driver<&'static Fake>, DeviceError>) {
    open_for(fake, Plan::default())
}

fn open_for(fake: Fake, plan: Plan) -> (&'static Fake, Result<Driver<&'static Fake>, DeviceError>) {
    let fake: &'static Fake = Box::leak(Box::new(fake));
    (fake, Driver::with(fake, plan, &IMAGES, &folder()))
}

fn refusal(fake: Fake, plan: Plan) -> DeviceError {
    open_for(fake, plan).1.err().expect("the device is refused")
}

#[test]
fn a_machine_without_a_driver_is_told_so() {
    // Where there is one, there is a device, or a word about its absence.
    match Driver::open(Plan { index: 1_000, ..Plan::default() }) {
        Err(error @ DeviceError::NoDriver(_)) => assert!(error.to_string().contains("driver"), "{error}"),
        Err(DeviceError::NoDevice { .. } | DeviceError::OldDriver { .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("there is no such device"),
    }
}

#[test]
fn what_cannot_run_the_kernels_is_refused_by_name() {
    let old = Fake { version: 11_040, ..fake(1) };
    assert_eq!(refusal(old, Plan::default()), DeviceError::OldDriver { found: 11_040, oldest: 12_000 });
    let other = Plan { index: 3, ..Plan::default() };
    assert_eq!(refusal(fake(1), other), DeviceError::NoDevice { index: 3, count: 1 });
    let mut turing = fake(1);
    turing.devices[0].capability = (7, 5);
    let error = refusal(turing, Plan::default());
    assert_eq!(error.to_string(), "fake 1 has compute capability 7.5; the kernels need 8.0");
    let large = Plan { bytes: (1 << 20) + 1, ..Plan::default() };
    let error = refusal(fake(1), large);
    assert_eq!(
        error.to_string(),
        "1048577 bytes are planned and fake 1 has 1048576: a smaller model or context may fit"
    );
}

#[test]
fn a_device_is_one_engines_alone() {
    let (_, first) = open(fake(2));
    assert!(first.is_ok());
    assert_eq!(refusal(fake(2), Plan::default()), DeviceError::InUse { device: "fake 2".into() });
    drop(first);
    assert!(open(fake(2)).1.is_ok());
    let taken = Fake { opening: Some(Code::DEVICE_UNAVAILABLE), ..fake(3) };
    assert_eq!(refusal(taken, Plan::default()), DeviceError::InUse { device: "fake 3".into() });
}

#[test]
fn machine_code_that_does_not_fit_gives_way_to_ptx() {
    let (fake_, driver) = open(fake(4));
    assert!(driver.is_ok());
    assert_eq!(*fake_.log.lock().unwrap(), ["load 31", "load 32"], "machine code for the device comes first");

    let no_code = Code(209);
    let (fake_, driver) = open(Fake { refuses: vec![(31, no_code)], ..fake(5) });
    assert!(driver.is_ok());
    assert_eq!(*fake_.log.lock().unwrap(), ["load 31", "load 11", "load 32"]);

    // Blackwell: no machine code at all.
    let mut newer = fake(6);
    newer.devices[0].capability = (10, 0);
    let (fake_, driver) = open(newer);
    assert!(driver.is_ok());
    assert_eq!(*fake_.log.lock().unwrap(), ["load 11", "load 12"]);

    let error = refusal(Fake { refuses: vec![(31, no_code), (11, Code(222))], ..fake(7) }, Plan::default());
    let said = "first cannot be run on fake 7: sm_90: no code for this device; PTX of compute_80: the driver cannot compile this PTX";
    assert_eq!(error.to_string(), said);
    // Another error is not taken for an image that does not fit.
    let error = refusal(Fake { refuses: vec![(31, Code(2))], ..fake(8) }, Plan::default());
    assert!(matches!(error, DeviceError::Driver { call: "cuModuleLoadData", code: 2, .. }), "{error}");
}

#[test]
fn memory_that_runs_out_is_counted() {
    let gpu = Gpu::new(open(fake(9)).1.unwrap());
    let kept = gpu.allocate::<u8>(1 << 19).unwrap();
    let error = gpu.allocate::<u8>((1 << 19) + 8).err().unwrap();
    let (wanted, free, total) = ((1 << 19) + 8, 1 << 19, 1 << 20);
    assert_eq!(error, DeviceError::OutOfMemory { device: "fake 9".into(), wanted, free, total });
    drop(kept);
    assert!(gpu.allocate::<u8>(8).is_ok(), "the device goes on");
}

fn launch(gpu: &Gpu, kernel: &'static str) -> Result<(), DeviceError> {
    // SAFETY: the fake runs nothing.
    unsafe { gpu.launch(&Launch::new(kernel, [1, 1, 1], 32, &Args::new())) }
}

#[test]
fn kernels_are_found_in_their_module_once() {
    let (fake_, driver) = open(fake(10));
    let gpu = Gpu::new(driver.unwrap());
    launch(&gpu, "kernel_2").unwrap();
    launch(&gpu, "kernel_2").unwrap();
    let calls = fake_.log.lock().unwrap()[2..].to_vec();
    assert_eq!(calls, ["allow_shared", "launch", "kernel_2", "launch", "kernel_2"]);
    let error = launch(&gpu, "kernel_3").unwrap_err();
    assert_eq!(error.to_string(), "kernel kernel_3 is in none of the images that fit this device");
}

#[test]
fn a_launch_that_is_refused_is_not_the_end() {
    let (fake_, driver) = open(fake(11));
    let gpu = Gpu::new(driver.unwrap());
    *fake_.fails.lock().unwrap() = Some(("launch", Code(701)));
    let error = launch(&gpu, "kernel_1").unwrap_err();
    assert_eq!(error.to_string(), "kernel kernel_1: too many resources for a launch (701)");
    *fake_.fails.lock().unwrap() = None;
    launch(&gpu, "kernel_1").unwrap();
}

#[test]
fn a_lost_device_stays_lost() {
    let (fake_, driver) = open(fake(12));
    let gpu = Gpu::new(driver.unwrap());
    let buffer = gpu.upload(&[1.0_f32; 4]).unwrap();
    *fake_.fails.lock().unwrap() = Some(("synchronize", Code(719)));
    let lost = gpu.synchronize().unwrap_err();
    assert_eq!(lost.to_string(), "fake 12 is lost: cuStreamSynchronize says a kernel that failed (719)");
    // The driver would go on; nothing is sent to it any more, and everybody hears the same.
    *fake_.fails.lock().unwrap() = None;
    fake_.log.lock().unwrap().clear();
    assert_eq!(launch(&gpu, "kernel_1").unwrap_err(), lost);
    assert_eq!(buffer.read().unwrap_err(), lost);
    assert_eq!(gpu.allocate::<f32>(1).err().unwrap(), lost);
    drop(buffer);
    assert!(fake_.log.lock().unwrap().is_empty(), "{:?}", fake_.log);
}

#[test]
fn launches_are_captured_into_a_graph_that_runs_and_is_given_up() {
    let (fake_, driver) = open(fake(13));
    let gpu = Gpu::new(driver.unwrap());
    launch(&gpu, "kernel_1").unwrap();
    fake_.log.lock().unwrap().clear();
    let recording = gpu.record(|| launch(&gpu, "kernel_1")).unwrap();
    recording.replay().unwrap();
    recording.replay().unwrap();
    drop(recording);
    let calls = ["begin_capture", "launch", "kernel_1", "end_capture", "run", "run", "destroy"];
    assert_eq!(*fake_.log.lock().unwrap(), calls);
    // A graph that cannot be made is an error, and the device goes on.
    *fake_.fails.lock().unwrap() = Some(("end_capture", Code(901)));
    let error = gpu.record(|| launch(&gpu, "kernel_1")).err().unwrap();
    assert_eq!(error.to_string(), "cuStreamEndCapture: launches that cannot be captured (901)");
    *fake_.fails.lock().unwrap() = None;
    launch(&gpu, "kernel_1").unwrap();
    // One that is lost while it runs is.
    let recording = gpu.record(|| launch(&gpu, "kernel_1")).unwrap();
    *fake_.fails.lock().unwrap() = Some(("run", Code(700)));
    assert!(matches!(recording.replay().unwrap_err(), DeviceError::Lost { call: "cuGraphLaunch", .. }));
    *fake_.fails.lock().unwrap() = None;
    assert!(matches!(recording.replay().unwrap_err(), DeviceError::Lost { .. }));
}

#[test]
fn images_fit_by_their_numbers() {
    let fits = |code: Compiled| [(8, 0), (8, 9), (9, 0), (10, 0)].map(|capability| code.may_fit(capability));
    assert_eq!(fits(Compiled::Sm(8, 0)), [true, true, false, false]);
    assert_eq!(fits(Compiled::Sm(9, 0)), [false, false, true, false]);
    assert_eq!(fits(Compiled::Ptx(8, 0)), [true; 4]);
}
