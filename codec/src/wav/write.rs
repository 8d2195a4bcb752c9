//! Writing 16-bit mono WAV files as the sound comes.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use causerie_units::SampleRate;

use crate::pcm;

/// Bytes before the first sample.
const HEADER_BYTES: u32 = 44;

/// A 16-bit mono WAV being written. The sizes in its header are set by [`finish`](Self::finish); until then they say
/// "unknown", which readers of streams understand.
pub struct Writer<W: Write + Seek> {
    out: W,
    data_bytes: u64,
}

impl Writer<BufWriter<File>> {
    /// Creates or truncates a file.
    pub fn create(path: impl AsRef<Path>, rate: SampleRate) -> io::Result<Self> {
        Self::new(BufWriter::new(File::create(path)?), rate)
    }
}

impl<W: Write + Seek> Writer<W> {
    /// Writes the header.
    pub fn new(mut out: W, rate: SampleRate) -> io::Result<Self> {
        out.write_all(&header(rate, u32::MAX))?;
        Ok(Self { out, data_bytes: 0 })
    }

    /// Appends samples.
    pub fn push(&mut self, samples: &[f32]) -> io::Result<()> {
        for &sample in samples {
            self.out.write_all(&pcm::to_i16(sample).to_le_bytes())?;
        }
        self.data_bytes += 2 * samples.len() as u64;
        Ok(())
    }

    /// Sets the sizes, flushes and hands back what was written to. Past 4 GiB the sizes stay "unknown".
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(data) = u32::try_from(self.data_bytes).ok().filter(|&data| data < u32::MAX - HEADER_BYTES) {
            self.out.seek(SeekFrom::Start(4))?;
            self.out.write_all(&(HEADER_BYTES - 8 + data).to_le_bytes())?;
            self.out.seek(SeekFrom::Start(u64::from(HEADER_BYTES) - 4))?;
            self.out.write_all(&data.to_le_bytes())?;
            self.out.seek(SeekFrom::End(0))?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn header(rate: SampleRate, data_bytes: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    header.extend(b"RIFF");
    header.extend(data_bytes.to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16u32.to_le_bytes());
    header.extend(1u16.to_le_bytes()); // PCM
    header.extend(1u16.to_le_bytes()); // channels
    header.extend(rate.hz().to_le_bytes());
    header.extend((2 * rate.hz()).to_le_bytes()); // bytes a second
    header.extend(2u16.to_le_bytes()); // bytes a frame
    header.extend(16u16.to_le_bytes()); // bits a sample
    header.extend(b"data");
    header.extend(data_bytes.to_le_bytes());
    header
}
