//! Pictures: JPEG and PNG to pixels. Sides are read and checked before anything is decoded.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Limits};

use crate::CodecError;

/// Bytes of an encoded picture, at most.
pub const MAX_PICTURE_BYTES: usize = 8 << 20;
/// Pixels of a side, at most.
pub const MAX_PICTURE_SIDE: u32 = 8_192;
/// Pixels of a picture, at most: those of a camera of 16 megapixels.
pub const MAX_PICTURE_PIXELS: u64 = 1 << 24;
/// One side to the other, at most: what lies beyond is no picture but a line.
pub const MAX_PICTURE_RATIO: u32 = 200;
/// Bytes that a decoder may use beside the pixels.
const MAX_WORK_BYTES: u64 = 256 << 20;

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height, width, 3]`: red, green, blue.
    pub rgb: Vec<u8>,
}

impl Pixels {
    /// The same with at most `most` pixels: boxes of pixels become their mean. What is small enough stays as it is.
    #[must_use]
    pub fn reduced(self, most: u64) -> Self {
        let sides = |factor: u32| (self.width.div_ceil(factor), self.height.div_ceil(factor));
        let fits = |factor: &u32| {
            let (width, height) = sides(*factor);
            u64::from(width) * u64::from(height) <= most
        };
        let factor = (1..self.width.max(self.height)).find(fits).unwrap_or(self.width.max(self.height));
        if factor <= 1 {
            return self;
        }
        let (width, height) = sides(factor);
        let (factor, row) = (factor as usize, self.width as usize * 3);
        let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
        let mut sums = vec![[0_u32; 3]; width as usize];
        for lines in self.rgb.chunks(factor * row) {
            sums.fill([0; 3]);
            for line in lines.chunks_exact(row) {
                for (sum, pixels) in sums.iter_mut().zip(line.chunks(factor * 3)) {
                    for pixel in pixels.as_chunks::<3>().0 {
                        sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u32::from(*value));
                    }
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                let columns = factor.min(self.width as usize - i * factor);
                let pixels = (columns * lines.len() / row) as u32;
                rgb.extend(sum.map(|sum| ((sum + pixels / 2) / pixels) as u8));
            }
        }
        Self { width, height, rgb }
    }
}

/// Decodes a picture of the MIME type `mime`, turned as its camera was held. What is transparent is black.
///
/// # Errors
/// [`CodecError::Unsupported`] for other types, [`CodecError::Limit`] for what is too large, [`CodecError::Malformed`] for
/// bytes that are no such picture, [`CodecError::Failed`] if the decoder panics.
pub fn decode_picture(mime: &str, bytes: &[u8]) -> Result<Pixels, CodecError> {
    let kind = mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let format = match kind.as_str() {
        "image/jpeg" | "image/jpg" => ImageFormat::Jpeg,
        "image/png" => ImageFormat::Png,
        _ => {
            let mut shown = kind;
            shown.truncate(shown.char_indices().nth(64).map_or(shown.len(), |(at, _)| at));
            return Err(CodecError::Unsupported(format!("{shown:?} is not supported; send image/jpeg or image/png")));
        }
    };
    if bytes.len() > MAX_PICTURE_BYTES {
        let message = format!("a picture of {} bytes is larger than {MAX_PICTURE_BYTES}", bytes.len());
        return Err(CodecError::Limit(message));
    }
    catch_unwind(AssertUnwindSafe(|| decode(format, bytes)))
        .unwrap_or_else(|_| Err(CodecError::Failed("the decoder of pictures failed".into())))
}

fn decode(format: ImageFormat, bytes: &[u8]) -> Result<Pixels, CodecError> {
    let broken = |error: ImageError| match error {
        // The decoder itself is bounded, for what a small picture's file may hold besides its pixels.
        ImageError::Limits(_) => CodecError::Limit(format!(
            "the picture is larger than {MAX_PICTURE_PIXELS} pixels, or takes too much memory"
        )),
        error => CodecError::Malformed(format!("the picture cannot be read: {error}")),
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_WORK_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > MAX_PICTURE_SIDE || pixels > MAX_PICTURE_PIXELS {
        return Err(CodecError::Limit(format!(
            "a picture of {width} × {height} pixels is larger than {MAX_PICTURE_PIXELS} pixels with sides of {MAX_PICTURE_SIDE}"
        )));
    }
    if pixels == 0 || width.max(height) > width.min(height) * MAX_PICTURE_RATIO {
        return Err(CodecError::Malformed(format!(
            "a picture of {width} × {height} pixels: one side is more than {MAX_PICTURE_RATIO} times the other"
        )));
    }
    let orientation = decoder.orientation().map_err(broken)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    let rgb = match &picture {
        DynamicImage::ImageRgb8(_) | DynamicImage::ImageLuma8(_) => picture.into_rgb8().into_raw(),
        _ => over_black(&picture.into_rgba8()),
    };
    Ok(Pixels { width, height, rgb })
}

fn over_black(picture: &image::RgbaImage) -> Vec<u8> {
    let lit = |value: u8, alpha: u8| ((u32::from(value) * u32::from(alpha) + 127) / 255) as u8;
    picture.pixels().flat_map(|pixel| [0, 1, 2].map(|channel| lit(pixel[channel], pixel[3]))).collect()
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder as _};
    use proptest::prelude::*;

    use super::*;

    fn png(width: u32, height: u32, color: ExtendedColorType, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(pixels, width, height, color).unwrap();
        bytes
    }

    fn gradient(width: u32, height: u32) -> Vec<u8> {
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8 * 3, y as u8 * 5, 90])).collect()
    }

    #[test]
    fn pictures_of_both_kinds_are_decoded() {
        let rgb = gradient(40, 24);
        let exact = decode_picture("image/png", &png(40, 24, ExtendedColorType::Rgb8, &rgb)).unwrap();
        assert_eq!(exact, Pixels { width: 40, height: 24, rgb: rgb.clone() });
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, 95).encode(&rgb, 40, 24, ExtendedColorType::Rgb8).unwrap();
        let close = decode_picture("Image/JPEG; q=1", &jpeg).unwrap();
        assert_eq!((close.width, close.height), (40, 24));
        let off = close.rgb.iter().zip(&rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(off < 12, "off by {off}");
    }

    #[test]
    fn grey_and_transparent_pictures_become_red_green_and_blue() {
        let grey = decode_picture("image/png", &png(2, 1, ExtendedColorType::L8, &[7, 200])).unwrap();
        assert_eq!(grey.rgb, [7, 7, 7, 200, 200, 200]);
        let rgba = [100, 50, 20, 255, 100, 50, 20, 0, 100, 50, 20, 128];
        let clear = decode_picture("image/png", &png(3, 1, ExtendedColorType::Rgba8, &rgba)).unwrap();
        assert_eq!(clear.rgb, [100, 50, 20, 0, 0, 0, 50, 25, 10]);
        let one = decode_picture("image/png", &png(1, 1, ExtendedColorType::Rgb8, &[1, 2, 3])).unwrap();
        assert_eq!((one.width, one.height), (1, 1));
    }

    #[test]
    fn a_reduced_picture_is_made_of_means() {
        let of = |width: u32, height: u32, values: &[u8]| {
            let rgb = values.iter().flat_map(|value| [*value, 255 - value, 9]).collect();
            Pixels { width, height, rgb }
        };
        let picture = of(5, 3, &[0, 2, 10, 20, 7, 4, 6, 30, 40, 9, 100, 200, 50, 52, 255]);
        assert_eq!(picture.clone().reduced(15), picture);
        // The last column and the last line have no more to be the mean of.
        assert_eq!(picture.clone().reduced(14), of(3, 2, &[3, 25, 8, 150, 51, 255]));
        assert_eq!(picture.clone().reduced(0).rgb.len(), 3);
        let line = of(1, 4, &[1, 3, 8, 10]);
        assert_eq!(line.reduced(2), of(1, 2, &[2, 9]));
    }

    proptest! {
        #[test]
        fn a_reduced_picture_keeps_its_shape(width in 1_u32..90, height in 1_u32..90, most in 1_u64..3_000) {
            let picture = Pixels { width, height, rgb: gradient(width, height) };
            let reduced = picture.clone().reduced(most);
            let pixels = u64::from(reduced.width) * u64::from(reduced.height);
            prop_assert!(pixels <= most && reduced.rgb.len() as u64 == pixels * 3);
            let whole = u64::from(width) * u64::from(height);
            prop_assert!(whole > most || reduced == picture);
            let sides = |factor: u32| (width.div_ceil(factor), height.div_ceil(factor));
            let fits = |&factor: &u32| u64::from(sides(factor).0) * u64::from(sides(factor).1) <= most;
            let least = (1..=90).find(fits).expect("one pixel fits");
            prop_assert_eq!((reduced.width, reduced.height), sides(least));
        }
    }

    /// The head of a PNG that promises that size and holds nothing.
    fn promise(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = png(1, 1, ExtendedColorType::Rgb8, &[0; 3]);
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn crc(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
    }

    #[test]
    fn what_cannot_be_seen_is_named() {
        let error = |mime: &str, bytes: &[u8]| decode_picture(mime, bytes).unwrap_err();
        for (width, height) in [(16_384, 16_384), (8_193, 1_000), (u32::MAX >> 1, u32::MAX >> 1), (5_000, 5_000)] {
            let large = error("image/png", &promise(width, height));
            assert!(matches!(&large, CodecError::Limit(m) if m.contains("larger than 16777216")), "{large}");
        }
        let line = error("image/png", &promise(201, 1));
        assert!(matches!(&line, CodecError::Malformed(m) if m.contains("201 × 1")), "{line}");
        let heavy = error("image/jpeg", &vec![0; MAX_PICTURE_BYTES + 1]);
        assert!(matches!(heavy, CodecError::Limit(_)), "{heavy}");
        for mime in ["image/gif", "video/mp4", "", "image/svg+xml"] {
            assert!(matches!(error(mime, b"x"), CodecError::Unsupported(_)), "{mime}");
        }
        let whole = png(9, 9, ExtendedColorType::Rgb8, &gradient(9, 9));
        for bytes in [&b""[..], b"\xFF\xD8\xFF", &whole[..30], &whole[..whole.len() / 2]] {
            for mime in ["image/png", "image/jpeg"] {
                assert!(matches!(error(mime, bytes), CodecError::Malformed(_)), "{} bytes as {mime}", bytes.len());
            }
        }
    }
}
