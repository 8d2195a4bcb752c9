//! G.711 µ-law and A-law (ITU-T G.711, 11/88), by table for decoding.
//!
//! Samples are 16-bit: the 14-bit µ-law and 13-bit A-law values of the recommendation, shifted to full scale.

/// Added to the magnitude before its segment is found (33 of the recommendation, at 16 bits).
const MULAW_BIAS: i32 = 33 << 2;
/// Largest magnitude that µ-law has a code for.
const MULAW_CLIP: i32 = 8159 << 2;

/// The sample of every µ-law code.
pub static MULAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = mulaw_decode(code as u8);
        code += 1;
    }
    table
};
/// The sample of every A-law code.
pub static ALAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = alaw_decode(code as u8);
        code += 1;
    }
    table
};

/// The µ-law code nearest to a sample.
pub fn encode_mulaw(sample: i16) -> u8 {
    let sample = i32::from(sample);
    let magnitude = sample.abs().min(MULAW_CLIP) + MULAW_BIAS;
    // The bias puts the magnitude at 2^7 or above; the position of its top bit is the segment.
    let segment = (magnitude.ilog2() - 7).min(7);
    let step = (magnitude >> (segment + 3)) & 0x0f;
    let sign = if sample < 0 { 0x80 } else { 0 };
    !(sign | (segment as u8) << 4 | step as u8)
}

/// The A-law code nearest to a sample.
pub fn encode_alaw(sample: i16) -> u8 {
    // Negative values mirror around -1/2, as the recommendation's decision values do.
    let magnitude = if sample < 0 { !sample } else { sample } as i32;
    let (segment, step) = match magnitude {
        0..256 => (0, magnitude >> 4),
        _ => {
            let segment = magnitude.ilog2() - 7;
            (segment, (magnitude >> (segment + 3)) & 0x0f)
        }
    };
    let sign = if sample < 0 { 0 } else { 0x80 };
    (sign | (segment as u8) << 4 | step as u8) ^ 0x55
}

const fn mulaw_decode(code: u8) -> i16 {
    let code = !code;
    let segment = (code >> 4) & 7;
    let step = (code & 0x0f) as i32;
    let magnitude = (((step << 3) + MULAW_BIAS) << segment) - MULAW_BIAS;
    (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

const fn alaw_decode(code: u8) -> i16 {
    let code = code ^ 0x55;
    let segment = (code >> 4) & 7;
    let step = (code & 0x0f) as i32;
    let magnitude = match segment {
        0 => (step << 4) + 8,
        _ => ((step << 4) + 0x108) << (segment - 1),
    };
    (if code & 0x80 == 0 { -magnitude } else { magnitude }) as i16
}
