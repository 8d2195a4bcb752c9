//! The real models: a server with the cascade, a voice that asks, and an ear that judges the answers.

use std::path::PathBuf;

use causerie_codec::resample::Resampler;
use causerie_gateway::config::Config;
use causerie_gateway::engines;
use causerie_gateway::models::Folder;
use causerie_gateway::serve::{Running, Server};
use causerie_kernels::Pool;
use causerie_model::speech::Speech;
use causerie_model::whisper::{Options, Progress, Whisper};
use causerie_model_api::{INPUT_RATE, OUTPUT_RATE};
use causerie_units::SampleRate;

use crate::wer::normalise;

/// Files without which nothing here can be done.
const NEEDED: [&str; 5] = [
    "lm/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    "whisper/base/model.bin",
    "hibari/hibari.onnx",
    "silero/silero_vad_16k_op15.onnx",
    "smart-turn/smart-turn-v3.2-cpu.onnx",
];

/// Whether the models are there. Says so when they are not.
///
/// # Panics
/// They are not there and `CAUSERIE_REQUIRE_MODELS` is 1.
pub fn available() -> bool {
    let folder = folder();
    let absent: Vec<&str> = NEEDED.into_iter().filter(|file| !folder.join(file).exists()).collect();
    if absent.is_empty() {
        return true;
    }
    skip(&format!("model files are absent ({}): run `causerie models pull`", absent.join(", ")));
    false
}

/// Says why a test is not run.
///
/// # Panics
/// It must be: `CAUSERIE_REQUIRE_MODELS` is 1.
pub fn skip(why: &str) {
    assert!(std::env::var("CAUSERIE_REQUIRE_MODELS").map_or(true, |v| v != "1"), "{why}");
    println!("skipped: {why}");
}

/// 16-bit little-endian bytes as samples.
pub fn samples_of(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0).collect()
}

/// Speech at [`OUTPUT_RATE`] as it is heard at [`INPUT_RATE`].
fn for_ears(pcm: &[f32]) -> Vec<f32> {
    let mut resampler = Resampler::new(rate(OUTPUT_RATE), rate(INPUT_RATE)).expect("rates of speech");
    let mut out = Vec::new();
    resampler.push(pcm, &mut out);
    resampler.flush(&mut out);
    out
}

/// Where the models are.
pub fn folder() -> PathBuf {
    let chosen = std::env::var_os("CAUSERIE_MODELS").map(PathBuf::from);
    Folder::resolve(chosen.as_deref()).path().to_owned()
}

/// Starts a server with the cascade.
pub async fn start() -> Running {
    let config = Config {
        listen: "127.0.0.1:0".into(),
        http: "127.0.0.1:0".into(),
        models: Some(folder()),
        // The test transcribes and speaks on the server's own runtime, which makes it late.
        max_lag_ms: 60_000,
        ..Config::default()
    };
    let detector = engines::detector(&config).expect("the detector is there");
    Server::start(&config, engines::engine(&config), detector).await.expect("the server starts")
}

/// A person who asks and listens.
pub struct Person {
    voice: Speech,
    ears: Whisper,
    pool: Pool,
}

impl Person {
    /// Loads voice and ears.
    pub fn new() -> Self {
        let pool = Pool::new(1);
        let voice = Speech::load(&folder().join("hibari")).expect("the voice is there");
        let ears = Whisper::load(&pool, &folder().join("whisper/base")).expect("the recogniser is there");
        Self { voice, ears, pool }
    }

    /// Speech at [`INPUT_RATE`], and where in it each word ends: bytes of the text, samples.
    pub fn say(&self, text: &str) -> (Vec<f32>, Vec<(usize, usize)>) {
        let mut pcm = Vec::new();
        let spoken = self.voice.synthesize(text, "", 1.0, &mut pcm).expect("it can be said");
        let words = spoken.words.iter().map(|(byte, at)| (*byte, at * INPUT_RATE as usize / OUTPUT_RATE as usize));
        (for_ears(&pcm), words.collect())
    }

    /// [`Person::say`] between silence, as a microphone gives it.
    pub fn ask(&self, text: &str) -> Vec<f32> {
        let (speech, _) = self.say(text);
        [silence(300), speech, silence(1_500)].concat()
    }

    /// What 16-bit samples at [`OUTPUT_RATE`] say, as words in small letters.
    pub fn listen(&self, audio: &[u8]) -> String {
        let pcm = for_ears(&samples_of(audio));
        let mut pass = self.ears.begin(pcm, Options { language: Some("en".into()), ..Options::default() });
        loop {
            if let Progress::Done(transcript) = pass.step(&self.ears, &self.pool) {
                return normalise(&transcript.text).join(" ");
            }
        }
    }
}

impl Default for Person {
    fn default() -> Self {
        Self::new()
    }
}

fn rate(hz: u32) -> SampleRate {
    SampleRate::new(hz).expect("not zero")
}

/// Samples of silence at [`INPUT_RATE`].
pub fn silence(ms: usize) -> Vec<f32> {
    vec![0.0; ms * INPUT_RATE as usize / 1000]
}

/// Whether `words` has `wanted` as whole words.
pub fn says(words: &str, wanted: &str) -> bool {
    let wanted = normalise(wanted).join(" ");
    format!(" {words} ").contains(&format!(" {wanted} "))
}

/// Numbers for tests that ask something new in each run. The seed is printed; `CAUSERIE_SEED` repeats a run.
pub struct Draw(u64);

impl Draw {
    /// From `CAUSERIE_SEED`, or the clock.
    pub fn new() -> Self {
        let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_secs());
        let seed = std::env::var("CAUSERIE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(clock);
        println!("CAUSERIE_SEED={seed}");
        Self(seed)
    }

    /// A number below `bound` (SplitMix64).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    /// One of several.
    pub fn one_of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

impl Default for Draw {
    fn default() -> Self {
        Self::new()
    }
}
