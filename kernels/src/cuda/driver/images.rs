//! The kernels as this program carries them: machine code for some devices, and PTX, which a driver compiles for any newer
//! one. Empty where the program was built without nvcc.

use std::fmt::{self, Display};

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// One source of kernels, compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    /// The name of the source, without its ending.
    pub(super) source: &'static str,
    /// What it was compiled to.
    pub(super) code: Compiled,
    /// The file; PTX ends with a zero.
    pub(super) bytes: &'static [u8],
}

/// What a source was compiled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // Made by the build script, if there is an nvcc.
pub(super) enum Compiled {
    /// Machine code of one architecture, with its own instructions or without.
    Sm(u32, u32),
    /// PTX for a device as old as this one or newer.
    Ptx(u32, u32),
}

impl Compiled {
    /// Whether a device of that capability may take it: machine code runs on devices of the same major number.
    pub(super) fn may_fit(self, capability: (u32, u32)) -> bool {
        match self {
            Self::Sm(major, minor) => major == capability.0 && minor <= capability.1,
            Self::Ptx(major, minor) => (major, minor) <= capability,
        }
    }

    /// Smaller is better.
    pub(super) fn preference(self) -> u32 {
        match self {
            Self::Sm(major, minor) => 100 - (10 * major + minor).min(99),
            Self::Ptx(..) => 200,
        }
    }
}

impl Display for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sm(major, minor) => write!(f, "sm_{major}{minor}"),
            Self::Ptx(major, minor) => write!(f, "PTX of compute_{major}{minor}"),
        }
    }
}
