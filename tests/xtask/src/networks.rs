//! The networks by themselves, without a server: the language model beside llama.cpp (in turns, so that both meet the
//! same weather), the recogniser and the voice.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use causerie_codec::wav;
use causerie_kernels::Pool;
use causerie_model::cascade::DEFAULT_LM;
use causerie_model::lm::{Lm, Scratch, Segment};
use causerie_model::speech::Speech;
use causerie_model::whisper::{Options, Progress, Whisper};
use causerie_units::SampleRate;
use clap::Args;

use crate::{machine, table};

/// Prompt tokens that are timed.
const PROMPT: usize = 128;
/// Tokens in one pass, as the engine has it.
const CHUNK: usize = 32;
/// Tokens that are decoded one by one.
const DECODED: usize = 24;

/// What is said to time the voice.
const SENTENCES: [&str; 6] = [
    "The capital of France is Paris.",
    "To get green, you mix blue and yellow.",
    "It takes about eight minutes for light to travel from the sun to the earth.",
    "Hamlet was written by William Shakespeare around the year sixteen hundred.",
    "Place the egg in a pot of water, bring it to a boil, and let it simmer for ten minutes.",
    "Yes.",
];

/// What to measure, and with what.
#[derive(Args)]
pub(crate) struct NetworksArgs {
    /// Folder of the models.
    #[arg(long, env = "CAUSERIE_MODELS")]
    models: Option<PathBuf>,
    /// WAV files of utterances for the recogniser; those under 7 s count.
    utterances: Vec<PathBuf>,
    /// Folder with node-llama-cpp installed; without it, llama.cpp is not measured.
    #[arg(long)]
    llama: Option<PathBuf>,
    /// Times that each side is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Measures and prints one table for each unit.
pub(crate) fn networks(args: &NetworksArgs) -> anyhow::Result<()> {
    let models = causerie_gateway::models::Folder::resolve(args.models.as_deref()).path().to_owned();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{}", machine::line());
    if let Some(load) = machine::load() {
        println!("load of the last minute: {load:.2}; {threads} threads\n");
    }
    let pool = Pool::new(threads);
    language_model(args, &models, &pool)?;
    println!("\n{}", table::head("milliseconds"));
    recogniser(args, &models, &pool)?;
    voice(&models)
}

fn language_model(args: &NetworksArgs, models: &Path, pool: &Pool) -> anyhow::Result<()> {
    let path = models.join(DEFAULT_LM);
    let (mut ours, mut peer) = (Speeds::default(), Speeds::default());
    let mut loads = Vec::new();
    for _ in 0..args.rounds {
        let begun = Instant::now();
        let lm = Lm::load(pool, &path)?;
        loads.push(begun.elapsed().as_secs_f64() * 1e3);
        ours.add(time_ours(&lm, pool));
        drop(lm);
        if let Some(folder) = &args.llama {
            peer.add(time_llama(folder, &path)?);
        }
    }
    println!("{}", table::head("tokens a second"));
    println!("{}", table::row("prefill of 128 tokens", &ours.prefill));
    println!("{}", table::row("    llama.cpp", &peer.prefill));
    println!("{}", table::row("decode of 24 tokens", &ours.decode));
    println!("{}", table::row("    llama.cpp", &peer.decode));
    println!("\n{}", table::head("milliseconds"));
    println!("{}", table::row("language model: load with warm files", &loads));
    Ok(())
}

#[derive(Default)]
struct Speeds {
    prefill: Vec<f64>,
    decode: Vec<f64>,
}

impl Speeds {
    fn add(&mut self, (prefill, decode): (f64, f64)) {
        self.prefill.push(prefill);
        self.decode.push(decode);
    }
}

/// Prefill and decode, in tokens a second.
fn time_ours(lm: &Lm, pool: &Pool) -> (f64, f64) {
    let mut prompt = lm.tokenizer().encode(&"The quick brown fox jumps over the lazy dog. ".repeat(20), false);
    prompt.truncate(PROMPT);
    let (mut cache, mut scratch) = (lm.new_cache(), Scratch::default());
    let begun = Instant::now();
    for chunk in prompt.chunks(CHUNK) {
        lm.forward(pool, &mut scratch, &mut [Segment { cache: &mut cache, tokens: chunk, want_logits: false }]);
    }
    let prefill = prompt.len() as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for token in &prompt[..DECODED] {
        lm.forward(pool, &mut scratch, &mut [Segment { cache: &mut cache, tokens: &[*token], want_logits: true }]);
    }
    (prefill, DECODED as f64 / begun.elapsed().as_secs_f64())
}

/// The same by llama.cpp, through its published package for Node.
fn time_llama(folder: &Path, model: &Path) -> anyhow::Result<(f64, f64)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/llama.mjs");
    let copy = folder.join("llama.mjs");
    std::fs::copy(script, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    let output = Command::new("node")
        .args([Path::new("llama.mjs"), model])
        .args([PROMPT.to_string(), DECODED.to_string()])
        .current_dir(folder)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run node")?;
    let text = String::from_utf8(output.stdout)?;
    let speeds: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match speeds[..] {
        [prefill, decode] if output.status.success() => Ok((prefill, decode)),
        _ => bail!("llama.cpp printed {text:?}"),
    }
}

fn recogniser(args: &NetworksArgs, models: &Path, pool: &Pool) -> anyhow::Result<()> {
    let whisper = Whisper::load(pool, &models.join("whisper/base"))?;
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for path in &args.utterances {
        let pcm = wav::read_at(path, SampleRate::HZ_16000)?;
        let times = match pcm.len() as f32 / 16_000.0 {
            0.0..5.0 => &mut short,
            5.0..7.0 => &mut long,
            _ => continue,
        };
        for _ in 0..args.rounds {
            let begun = Instant::now();
            let options = Options { language: Some("en".into()), ..Options::default() };
            let mut pass = whisper.begin(pcm.clone(), options);
            while let Progress::More = pass.step(&whisper, pool) {}
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    println!("{}", table::row("Whisper base: utterances under 5 s", &short));
    println!("{}", table::row("Whisper base: utterances of 5 to 7 s", &long));
    Ok(())
}

fn voice(models: &Path) -> anyhow::Result<()> {
    let speech = Speech::load(&models.join("hibari"))?;
    let (mut times, mut spent, mut said) = (Vec::new(), 0.0, 0.0);
    // The first is not counted: it pays for the runtime's set-up.
    for (i, sentence) in std::iter::once(&SENTENCES[0]).chain(&SENTENCES).enumerate() {
        let mut pcm = Vec::new();
        let begun = Instant::now();
        speech.synthesize(sentence, "", 1.0, &mut pcm)?;
        let took = begun.elapsed().as_secs_f64();
        if i > 0 {
            times.push(took * 1e3);
            spent += took;
            said += pcm.len() as f64 / 24_000.0;
        }
    }
    println!("{}", table::row("voice: a clause on one thread", &times));
    println!("    {:.1} s of speech, real-time factor {:.4}", said, spent / said);
    Ok(())
}
