//! What may be recorded and what may not, on the emulated device.

use super::emulator::Emulator;
use super::{DeviceError, Gpu};
use crate::ops::scatter::cuda::scatter;
use half::bf16;

const WIDTH: usize = 8;

fn gpu() -> Gpu {
    Gpu::new(Emulator::of_all_ops(1).unwrap())
}

fn rows(values: &[f32]) -> Vec<bf16> {
    values.iter().flat_map(|&value| [bf16::from_f32(value); WIDTH]).collect()
}

fn firsts(all: &[bf16]) -> Vec<f32> {
    all.chunks(WIDTH).map(|row| row[0].to_f32()).collect()
}

#[test]
fn a_recording_runs_on_what_its_buffers_hold_then() {
    let gpu = gpu();
    let mut x = gpu.upload(&rows(&[1.0, 2.0])).unwrap();
    let (mut ids, mut y) = (gpu.upload(&[2, 0]).unwrap(), gpu.upload(&rows(&[9.0; 3])).unwrap());
    let mut copy = gpu.zeros::<bf16>(3 * WIDTH).unwrap();
    let recording = gpu
        .record(|| {
            scatter(&gpu, x.all(), ids.all(), WIDTH, false, &mut y.all_mut())?;
            gpu.copy(y.all(), &mut copy.all_mut())
        })
        .unwrap();
    assert_eq!(firsts(&y.read().unwrap()), [9.0; 3], "nothing runs while it is recorded");
    assert!(gpu.launches().is_empty());
    recording.replay().unwrap();
    assert_eq!(firsts(&copy.read().unwrap()), [2.0, 9.0, 1.0]);
    x.write(&rows(&[3.0, 4.0])).unwrap();
    ids.write(&[1, 2]).unwrap();
    recording.replay().unwrap();
    assert_eq!(firsts(&copy.read().unwrap()), [2.0, 3.0, 4.0]);
    assert_eq!(gpu.launches()["scatter"], 2);
    assert_eq!(recording.launches()["scatter"], 1);
}

#[test]
fn what_would_not_be_the_same_again_is_refused_by_name() {
    let gpu = gpu();
    let mut buffer = gpu.zeros::<f32>(4).unwrap();
    let refused = |what: &str, result: Result<(), DeviceError>| {
        let error = result.unwrap_err();
        assert!(matches!(&error, DeviceError::Recording(why) if why.contains(what)), "{error}");
    };
    let record = |launch: &mut dyn FnMut() -> Result<(), DeviceError>| gpu.record(launch).map(drop);
    refused("allocation", record(&mut || gpu.allocate::<f32>(1).map(drop)));
    refused("write", record(&mut || buffer.write(&[0.0; 4])));
    refused("read", record(&mut || buffer.read().map(drop)));
    refused("waiting", record(&mut || gpu.synchronize()));
    refused("clearing", record(&mut || gpu.clear(&mut buffer.all_mut())));
    refused("another recording", record(&mut || gpu.record(|| Ok::<_, DeviceError>(())).map(drop)));
    // Also if whoever launches does not mind the error.
    let careless = &mut || {
        let _ = buffer.write(&[0.0; 4]);
        Ok(())
    };
    refused("write", record(careless));
    let mut given = Some(gpu.zeros::<f32>(4).unwrap());
    let giving = &mut || {
        drop(given.take());
        Ok(())
    };
    refused("given back", record(giving));
    // And afterwards everything goes on.
    buffer.write(&[1.0; 4]).unwrap();
    assert_eq!(buffer.read().unwrap(), [1.0; 4]);
}

#[test]
fn a_recording_whose_memory_is_gone_is_not_run() {
    let gpu = gpu();
    gpu.keep_memory();
    let (x, ids) = (gpu.upload(&rows(&[1.0])).unwrap(), gpu.upload(&[0]).unwrap());
    let mut y = gpu.upload(&rows(&[9.0, 9.0])).unwrap();
    let recording = gpu.record(|| scatter(&gpu, x.all(), ids.all(), WIDTH, false, &mut y.all_mut())).unwrap();
    recording.replay().unwrap();
    drop(x);
    let error = recording.replay().unwrap_err();
    assert!(matches!(error, DeviceError::Recording(_)), "{error}");
    // The memory is somebody else's now, and the recording is not that one's.
    let asked = gpu.allocations();
    let x = gpu.upload(&rows(&[5.0])).unwrap();
    assert_eq!(gpu.allocations(), asked, "it was kept");
    assert!(recording.replay().is_err());
    drop(recording);
    let recording = gpu.record(|| scatter(&gpu, x.all(), ids.all(), WIDTH, false, &mut y.all_mut())).unwrap();
    recording.replay().unwrap();
    assert_eq!(firsts(&y.read().unwrap()), [5.0, 9.0]);
}

#[test]
fn memory_that_is_kept_is_given_back_before_there_is_none() {
    let gpu = Gpu::new(Emulator::of_all_ops(1).unwrap().with_memory(1 << 20));
    gpu.keep_memory();
    drop(gpu.allocate::<u8>(700 << 10).unwrap());
    let held = gpu.allocate::<u8>(900 << 10).unwrap();
    // Nothing is kept now.
    assert!(matches!(gpu.allocate::<u8>(700 << 10), Err(DeviceError::OutOfMemory { .. })));
    drop(held);
    gpu.allocate::<u8>(900 << 10).unwrap();
}

#[test]
fn a_step_is_launched_once_and_then_run_as_it_was_recorded() {
    for singly in [false, true] {
        let gpu = gpu();
        if singly {
            gpu.launch_singly();
        }
        let (x, mut ids) = (gpu.upload(&rows(&[1.0])).unwrap(), gpu.upload(&[0]).unwrap());
        let mut y = gpu.upload(&rows(&[0.0; 3])).unwrap();
        let (mut recording, mut calls) = (None, 0);
        for place in 0..3 {
            ids.write(&[place]).unwrap();
            gpu.step(&mut recording, || {
                calls += 1;
                scatter(&gpu, x.all(), ids.all(), WIDTH, true, &mut y.all_mut())
            })
            .unwrap();
        }
        assert_eq!(firsts(&y.read().unwrap()), [1.0; 3]);
        assert_eq!((calls, gpu.launches()["scatter"]), (if singly { 3 } else { 2 }, 3));
    }
}

#[test]
fn a_device_that_is_lost_stays_lost() {
    let gpu = Gpu::new(Emulator::of_all_ops(1).unwrap().lost_after(1));
    let (x, ids) = (gpu.upload(&rows(&[1.0])).unwrap(), gpu.upload(&[0]).unwrap());
    let mut y = gpu.upload(&rows(&[0.0])).unwrap();
    scatter(&gpu, x.all(), ids.all(), WIDTH, false, &mut y.all_mut()).unwrap();
    let lost = scatter(&gpu, x.all(), ids.all(), WIDTH, false, &mut y.all_mut()).unwrap_err();
    assert!(matches!(lost, DeviceError::Lost { .. }), "{lost}");
    assert_eq!(y.read().unwrap_err(), lost);
    assert_eq!(gpu.synchronize().unwrap_err(), lost);
    assert_eq!(gpu.upload(&[0_u8]).err().unwrap(), lost);
}
