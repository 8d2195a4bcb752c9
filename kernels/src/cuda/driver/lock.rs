//! One engine a device: a file that is locked as long as the device is in use, by this process or another. The system gives
//! it back when a process ends, however it ends.

use std::fs::File;
use std::path::Path;

use crate::cuda::DeviceError;

/// A device that nobody else of ours uses.
#[derive(Debug)]
pub(super) struct Exclusive {
    _file: File,
}

impl Exclusive {
    /// Takes the device with that identity; the file is in `folder`.
    pub(super) fn take(folder: &Path, uuid: &[u8; 16], name: &str) -> Result<Self, DeviceError> {
        let identity: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("causerie-gpu-{identity}.lock"));
        let in_use = || DeviceError::InUse { device: name.to_owned() };
        // A file of another user cannot be opened, and means the same.
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(|_| in_use())?;
        file.try_lock().map_err(|_| in_use())?;
        Ok(Self { _file: file })
    }
}
