//! The bodies of the fuzz targets: arbitrary bytes must give sound or an error, never a panic, and two splits of the
//! same bytes must give the same.

use crate::{AudioInput, CodecError, Container, Endian, InputFormat, OutputFormat, opus};
use causerie_units::SampleRate;

/// MIME types.
pub fn fuzz_mime(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = InputFormat::parse(&text);
    if let Ok(format) = OutputFormat::parse(&text) {
        assert_eq!(OutputFormat::parse(&format.mime()), Ok(format), "a format survives its own MIME type");
    }
}

/// Raw samples; the first byte chooses the format.
pub fn fuzz_raw(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let rate = if choice & 1 == 0 { SampleRate::HZ_8000 } else { SampleRate::HZ_48000 };
    let endian = if choice & 2 == 0 { Endian::Little } else { Endian::Big };
    split_in_two(match choice >> 2 & 3 {
        0 => InputFormat::Mulaw { rate },
        1 => InputFormat::Alaw { rate },
        _ => InputFormat::Pcm { rate, channels: 1 + usize::from(choice >> 5), endian },
    })(data);
}

/// WAV.
pub fn fuzz_wav(data: &[u8]) {
    split_in_two(InputFormat::Wav)(data);
}

/// Opus packets, each behind a byte of its length.
pub fn fuzz_opus(mut data: &[u8]) {
    let Ok(mut input) = AudioInput::open(&InputFormat::Opus) else { return };
    let mut pcm = Vec::new();
    while let Some((&length, rest)) = data.split_first() {
        let (packet, rest) = rest.split_at(rest.len().min(usize::from(length)));
        let before = pcm.len();
        let promised = opus::packet_samples(packet);
        match input.push(packet, &mut pcm) {
            Ok(()) if packet.is_empty() => assert_eq!(pcm.len(), before),
            Ok(()) => assert_eq!(Ok(pcm.len() - before), promised),
            Err(_) => assert_eq!(pcm.len(), before, "a bad packet yields nothing"),
        }
        data = rest;
    }
    assert!(pcm.iter().all(|sample| sample.is_finite()));
}

/// Containers; the first byte chooses which. The rest is best seeded with a real file.
pub fn fuzz_container(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let all = [Container::Flac, Container::Mp3, Container::Aac, Container::Ogg, Container::WebM, Container::Mp4];
    split_in_two(InputFormat::Container(all[usize::from(choice) % all.len()]))(data);
}

/// Pictures; the first byte chooses the kind. The rest is best seeded with a real file.
pub fn fuzz_picture(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let mime = if choice & 1 == 0 { "image/png" } else { "image/jpeg" };
    match crate::decode_picture(mime, data) {
        Ok(picture) => assert_eq!(picture.rgb.len(), picture.width as usize * picture.height as usize * 3),
        Err(error) => assert!(!matches!(error, CodecError::Failed(_)), "the decoder panicked"),
    }
}

/// Decodes whole and in two pieces.
fn split_in_two(format: InputFormat) -> impl Fn(&[u8]) {
    move |data| {
        let at = data.first().map_or(0, |&byte| usize::from(byte) * data.len() / 256);
        let whole = decode(&format, &[data]);
        let (first, second) = data.split_at(at);
        let split = decode(&format, &[first, second]);
        assert_eq!(whole.1, split.1, "the same end for every split");
        assert!(whole.0 == split.0, "the same sound for every split");
        assert!(whole.0.iter().all(|sample| sample.is_finite()));
    }
}

fn decode(format: &InputFormat, pieces: &[&[u8]]) -> (Vec<f32>, Result<(), CodecError>) {
    let mut pcm = Vec::new();
    let mut input = match AudioInput::open(format) {
        Ok(input) => input,
        Err(error) => return (pcm, Err(error)),
    };
    for piece in pieces {
        // The error is kept, and told again by the flush.
        let _ = input.push(piece, &mut pcm);
    }
    let end = input.flush(&mut pcm);
    (pcm, end)
}
