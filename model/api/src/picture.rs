//! What an engine sees.

use std::fmt;
use std::sync::Arc;

/// A decoded picture. Cloning one copies no pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Arc<[u8]>,
    resolution: MediaResolution,
}

/// How closely pictures are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaResolution {
    /// 64 tokens at most, and two around them.
    Low,
    /// 256 tokens at most, and two around them.
    #[default]
    Medium,
    /// 1,024 tokens at most, and two around them.
    High,
}

impl MediaResolution {
    /// Tokens of a picture, without the two around them.
    pub fn tokens(self) -> usize {
        match self {
            Self::Low => 64,
            Self::Medium => 256,
            Self::High => 1_024,
        }
    }

    /// Pixels of a picture that are worth keeping: twice as many along each side as an engine looks at, in tokens of 32 by
    /// 32. Of means of boxes that are so small nobody sees a difference when they are resized once more.
    pub fn pixels(self) -> u64 {
        4 * 32 * 32 * self.tokens() as u64
    }
}

impl Picture {
    /// One side to the other, at most: what lies beyond is no picture but a line.
    pub const MAX_RATIO: u32 = 200;

    /// A picture of `width × height` pixels of three bytes, row after row. `None` for one without pixels, of a shape
    /// beyond [`Picture::MAX_RATIO`], or if `rgb` has not as many pixels.
    pub fn new(width: u32, height: u32, rgb: impl Into<Arc<[u8]>>, resolution: MediaResolution) -> Option<Self> {
        let rgb = rgb.into();
        let bytes = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
        let fits = bytes > 0 && width.max(height) <= width.min(height).saturating_mul(Self::MAX_RATIO);
        (fits && bytes == rgb.len()).then_some(Self { width, height, rgb, resolution })
    }

    /// Pixels of a row.
    pub fn width(&self) -> usize {
        self.width as usize
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height as usize
    }

    /// `[height, width, 3]`: red, green, blue.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// How closely it is to be looked at.
    pub fn resolution(&self) -> MediaResolution {
        self.resolution
    }
}

impl fmt::Debug for Picture {
    /// The size alone: what it shows is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({} × {}, {:?})", self.width, self.height, self.resolution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_pixels_that_its_sides_say() {
        let picture = |width, height, bytes| Picture::new(width, height, vec![0; bytes], MediaResolution::Low);
        assert!(picture(2, 3, 18).is_some());
        for (width, height, bytes) in [(0, 3, 0), (201, 1, 603), (2, 3, 17), (2, 3, 19), (u32::MAX, u32::MAX, 3)] {
            assert!(picture(width, height, bytes).is_none(), "{width} × {height} in {bytes} bytes");
        }
    }
}
