//! How loud.

/// Level of digital silence, so that no caller meets minus infinity.
pub const SILENCE_DB: f32 = -120.0;

/// Root mean square in dB relative to full scale (a square wave of amplitude 1 is 0 dB); not under [`SILENCE_DB`].
pub fn rms_db(samples: &[f32]) -> f32 {
    if samples.is_empty() {
        return SILENCE_DB;
    }
    let sum: f64 = samples.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    decibels((sum / samples.len() as f64).sqrt())
}

/// Largest magnitude in dB relative to full scale; not under [`SILENCE_DB`].
pub fn peak_db(samples: &[f32]) -> f32 {
    decibels(f64::from(samples.iter().fold(0.0f32, |peak, x| peak.max(x.abs()))))
}

fn decibels(amplitude: f64) -> f32 {
    ((20.0 * amplitude.log10()) as f32).max(SILENCE_DB)
}
