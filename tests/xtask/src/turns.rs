//! Turn taking on recordings, with the real detectors and the real session in virtual time: how soon after its end an
//! utterance is answered and how many are cut off, how soon an interrupted reply falls silent at a listener behind a
//! network, and what interrupts it that should not.
//!
//! Nothing waits for the clock, so the figures do not depend on the machine; the time that the networks take is a line
//! of its own. Interruptions are judged by their length alone: no words are recognised here, which would decide sooner
//! about stop words and spare nods.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use causerie_codec::wav;
use causerie_model::smart_turn::SmartTurn;
use causerie_model::vad::{Vad, VadStream};
use causerie_model_api::{
    Capabilities, Content, Event, FinishReason, OutputSamples, Request, Role, SessionId, TurnId, Usage, Voice,
};
use causerie_session::{Input, Output, ServerEvent, Session, Settings, Setup, Timing};
use causerie_units::{MediaTime, SampleRate};
use clap::Args;
use serde_json::Value;

use crate::{machine, table};

/// Silence that a recording is followed by.
const AFTER_MS: usize = 2_000;
/// Length of a client's packets of audio: what is said is heard at the end of its packet.
const PACKET_MS: u64 = 20;
/// Of a reply, when somebody speaks into it.
const INTO_MS: usize = 2_000;
/// Length of a reply, and of each of its words.
const REPLY_MS: u64 = 30_000;
const WORD_MS: u64 = 300;
/// Each interruption is tried so often, each time a little later against the packets, the windows and the pieces.
const TRIES: usize = 10;
const LATER_MS: usize = 37;
/// Pieces of the reply are on no clock that its listener's packets and windows are on.
const PHASE_MS: u64 = 7;
/// The way to the listener takes between these, in milliseconds.
const JITTER: (u64, u64) = (20, 80);

/// Options of `cargo xtask turns`.
#[derive(Args)]
pub(crate) struct TurnsArgs {
    /// Folder of the models.
    #[arg(long, env = "CAUSERIE_MODELS")]
    models: Option<PathBuf>,
    /// Folder of the recordings, as `tests/xtask/clips.py` makes it.
    clips: PathBuf,
    /// Leave out the ends of turns.
    #[arg(long)]
    interruptions: bool,
}

struct Clip {
    kind: String,
    voice: String,
    pcm: Vec<f32>,
    /// Of the pause in which it was cut, in milliseconds.
    pause: Option<f64>,
}

struct Networks {
    vad: Vad,
    turn: SmartTurn,
}

/// Runs `cargo xtask turns`.
pub(crate) fn turns(args: &TurnsArgs) -> anyhow::Result<()> {
    let models = causerie_gateway::models::Folder::resolve(args.models.as_deref()).path().to_owned();
    let networks =
        Networks { vad: Vad::load(&models.join("silero"))?, turn: SmartTurn::load(&models.join("smart-turn"))? };
    let clips = read(&args.clips)?;
    println!("\n{}", machine::line());
    println!("{} recordings, in virtual time\n", clips.len());
    if !args.interruptions {
        endpoints(&networks, &clips)?;
    }
    interruptions(&networks, &clips)
}

fn read(folder: &Path) -> anyhow::Result<Vec<Clip>> {
    let list = folder.join("labels.json");
    let labels = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let labels: Value = serde_json::from_str(&labels)?;
    let items = labels["items"].as_array().context("the list has no items")?;
    items
        .iter()
        .map(|item| {
            let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
            let path = folder.join(text("file"));
            let pcm = wav::read_at(&path, SampleRate::HZ_16000).with_context(|| format!("{}", path.display()))?;
            Ok(Clip { kind: text("kind"), voice: text("voice"), pcm, pause: item["pause_ms"].as_f64() })
        })
        .collect()
}

/// First and last sample of what is within 32 dB of the loudest, in pieces of 10 ms.
fn speech(pcm: &[f32]) -> (usize, usize) {
    let powers: Vec<f32> = pcm.chunks_exact(160).map(|piece| piece.iter().map(|x| x * x).sum()).collect();
    let least = powers.iter().copied().fold(0.0, f32::max) * 10f32.powf(-3.2);
    let loud = |power: &f32| *power > least;
    let first = powers.iter().position(loud).unwrap_or(0);
    let last = powers.iter().rposition(loud).unwrap_or(0);
    (first * 160, (last + 1) * 160)
}

/// A conversation in which the microphone hears `pcm` at the pace of speech.
struct Run<'a> {
    networks: &'a Networks,
    session: Session,
    pcm: Vec<f32>,
    now: Duration,
    /// When the utterance was taken to be over.
    committed: Vec<Duration>,
    /// Speech that left: when, from which sample of the reply, how many.
    sent: Vec<(Duration, u64, u64)>,
    interrupted: Option<Duration>,
    /// What the session thinks was heard of the interrupted reply.
    heard: u64,
    judged: Vec<f64>,
    events: Vec<Input>,
}

impl<'a> Run<'a> {
    fn new(networks: &'a Networks, timing: Timing, pcm: Vec<f32>) -> anyhow::Result<Self> {
        let capabilities = Capabilities {
            audio_in: true,
            audio_out: true,
            voices: vec![Voice { name: "v".into(), language: "en-US".into(), gender: "female".into() }],
            ..Capabilities::default()
        };
        let settings = Settings { id: SessionId(1), name: String::new(), model: String::new(), timing };
        let session = Session::open(Setup::default(), &capabilities, settings, MediaTime::ZERO)
            .map_err(|problem| anyhow::anyhow!(problem.message))?;
        Ok(Self {
            networks,
            session,
            pcm,
            now: Duration::ZERO,
            committed: Vec::new(),
            sent: Vec::new(),
            interrupted: None,
            heard: 0,
            judged: Vec::new(),
            events: Vec::new(),
        })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut stream = VadStream::new();
        let mut windows = Vec::new();
        stream.push(&self.networks.vad, &self.pcm, |p, from, to| windows.push((p, from, to)));
        for (probability, from, to) in windows {
            self.pass(Duration::from_millis(to.0.div_ceil(PACKET_MS * 16) * PACKET_MS))?;
            self.take(Input::Received { until: to })?;
            self.take(Input::Voice { probability, from, to })?;
        }
        Ok(())
    }

    /// Lets time pass, waking the session when it asks for it.
    fn pass(&mut self, until: Duration) -> anyhow::Result<()> {
        loop {
            self.drain()?;
            match self.session.poll_output() {
                Output::Wait(due) if due.as_duration() <= until => {
                    self.now = self.now.max(due.as_duration());
                    self.take(Input::Tick)?;
                }
                _ => break,
            }
        }
        self.now = until;
        Ok(())
    }

    fn take(&mut self, input: Input) -> anyhow::Result<()> {
        self.session.handle_input(MediaTime::ZERO + self.now, input);
        self.drain()
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        loop {
            match self.session.poll_output() {
                Output::Wait(_) | Output::Close(_) => match self.events.pop() {
                    Some(event) => self.session.handle_input(MediaTime::ZERO + self.now, event),
                    None => return Ok(()),
                },
                Output::Judge { from, until } => {
                    let sample = |at: u64| self.pcm.get(at as usize).copied().unwrap_or(0.0);
                    let pcm: Vec<f32> = (from.0..until.0).map(sample).collect();
                    let begun = Instant::now();
                    let probability = Some(self.networks.turn.finished(&pcm)?);
                    self.judged.push(begun.elapsed().as_secs_f64() * 1e3);
                    self.events.push(Input::Completion { until, probability });
                }
                Output::Engine(Request::Commit { .. }) => self.committed.push(self.now),
                Output::Engine(Request::Cancel { turn, heard_until, .. }) => {
                    self.heard = heard_until.0;
                    let text_until = words(heard_until.0 / (WORD_MS * 24)).len();
                    let event = Event::Truncated { turn, text_until, usage: Usage::default() };
                    self.events.push(Input::Engine(event));
                }
                Output::Client(ServerEvent::Audio { start, pcm, .. }) => {
                    self.sent.push((self.now, start.0, pcm.len() as u64));
                }
                Output::Client(ServerEvent::Interrupted) => {
                    self.interrupted.get_or_insert(self.now);
                }
                Output::Engine(_)
                | Output::Client(_)
                | Output::RunTool(_)
                | Output::StopTool(_)
                | Output::Snapshot(_) => {}
            }
        }
    }

    /// What the history has of the reply.
    fn said(&self) -> String {
        let mut said = self.session.history().filter(|item| item.role == Role::Model).flat_map(|item| &item.content);
        said.find_map(|content| if let Content::Text(text) = content { Some(text.clone()) } else { None })
            .unwrap_or_default()
    }

    /// A long reply begins, asked for in writing.
    fn reply(&mut self) -> anyhow::Result<()> {
        self.take(Input::RealtimeText("Tell me a story.".into()))?;
        let turn = TurnId(1);
        let count = REPLY_MS / WORD_MS;
        self.take(Input::Engine(Event::Text { turn, delta: words(count) }))?;
        for n in 0..count {
            let (start, pcm) = (OutputSamples(n * WORD_MS * 24), vec![0.1; (WORD_MS * 24) as usize]);
            self.take(Input::Engine(Event::Audio { turn, start, pcm, text_until: words(n + 1).len() }))?;
        }
        self.take(Input::Engine(Event::Done { turn, reason: FinishReason::Stop, usage: Usage::default() }))
    }
}

/// The first so many words of the reply.
fn words(count: u64) -> String {
    (1..=count).map(|n| format!("word{n} ")).collect()
}

/// After how much silence utterances are over, and how many are over too soon.
fn endpoints(networks: &Networks, clips: &[Clip]) -> anyhow::Result<()> {
    let sensed = Timing::default();
    let rules = [
        ("judged: 500 ms, 1200 ms when unfinished", sensed),
        ("500 ms for all", Timing { judge_after: None, ..sensed }),
        ("1200 ms for all", Timing { judge_after: None, hangover: sensed.hangover_unfinished, ..sensed }),
    ];
    let mut judged = Vec::new();
    println!("{}", table::head("milliseconds from the end of speech to the answer"));
    for (name, timing) in rules {
        let (mut delays, mut cuts) = (Vec::new(), std::collections::BTreeMap::<&str, [usize; 3]>::new());
        for clip in clips.iter().filter(|clip| clip.kind.starts_with("turn/")) {
            let end = speech(&clip.pcm).1;
            let mut pcm = clip.pcm.clone();
            pcm.resize(pcm.len() + AFTER_MS * 16, 0.0);
            let mut run = Run::new(networks, timing, pcm)?;
            run.run()?;
            judged.extend(std::mem::take(&mut run.judged));
            // Speech begins again within sentences too: the last end is the one of the recording.
            let delay = run.committed.last().map(|at| at.as_secs_f64() * 1e3 - end as f64 / 16.0);
            if clip.kind == "turn/complete" {
                delays.extend(delay);
            } else {
                let counts = cuts.entry(&clip.kind[5..]).or_default();
                counts[0] += 1;
                counts[1] += usize::from(delay.is_some_and(|delay| delay < 1_000.0));
                counts[2] += usize::from(delay.zip(clip.pause).is_some_and(|(delay, pause)| delay < pause));
            }
        }
        println!("{}", table::row(name, &delays));
        let cut = |(kind, [all, second, _]): (&&str, &[usize; 3])| format!("{second} of {all} {kind}");
        let cuts_text: Vec<String> = cuts.iter().map(cut).collect();
        println!("    cut off by a pause of 1 s: {}", cuts_text.join(", "));
        if let Some([all, _, real]) = cuts.get("comma") {
            println!("    cut off by their real comma pause: {real} of {all}");
        }
    }
    println!("{}", table::row("one judgement, on this machine", &judged));
    Ok(())
}

/// What a listener behind a network hears of a reply into which somebody speaks.
fn interruptions(networks: &Networks, clips: &[Clip]) -> anyhow::Result<()> {
    let mut seed = 7u64;
    let (mut silent, mut last, mut decided, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut exact, mut different) = (0, Vec::new());
    let mut counts = std::collections::BTreeMap::<String, [usize; 3]>::new();
    for clip in clips.iter().filter(|clip| !clip.kind.starts_with("turn/")) {
        let tries = if clip.kind == "interrupt" { TRIES } else { 1 };
        for (n, into_ms) in (0..tries).map(|n| (n as u64, INTO_MS + n * LATER_MS)) {
            let mut pcm = vec![0.0; into_ms * 16];
            pcm.extend(&clip.pcm);
            pcm.resize(pcm.len() + AFTER_MS * 16, 0.0);
            let onset = (into_ms * 16 + speech(&clip.pcm).0) as f64 / 16.0;
            // A reply lasts as long as the longest recording.
            let mut run = Run::new(networks, Timing::default(), pcm)?;
            run.pass(Duration::from_millis(n * PHASE_MS))?;
            run.reply()?;
            run.run()?;
            let name = if clip.kind == "noise" { format!("noise, {}", clip.voice) } else { clip.kind.clone() };
            let counts = counts.entry(name).or_default();
            counts[0] += 1;
            counts[1] += usize::from(run.interrupted.is_some());
            counts[2] += usize::from(run.interrupted.is_none() && held(&run.sent));
            if clip.kind == "interrupt"
                && let Some(at) = run.interrupted
            {
                let (stopped, played) = listener(&run.sent, at, &mut seed);
                last.extend(run_out(&run.sent).map(|at| at - onset));
                silent.push(stopped - onset);
                decided.push(at.as_secs_f64() * 1e3 - onset);
                memory.push(played - run.heard as f64 / 24.0);
                let heard = words(played as u64 / WORD_MS);
                match run.said() {
                    said if said == heard.trim_end() => exact += 1,
                    said => different.push(format!("{said:?} instead of {heard:?}")),
                }
            }
        }
    }
    println!("\n{}", table::head("milliseconds from the onset of an interruption"));
    println!("{}", table::row("last of the reply played without a network", &last));
    println!("{}", table::row("the same at a listener 20 to 80 ms away", &silent));
    println!("{}", table::row("decided that it is one", &decided));
    println!("{}", table::row("played less what the history has as heard", &memory));
    println!(
        "\nwhat the model is told that it said: in {exact} the words that the listener heard to their end, and no more"
    );
    println!(
        "in {} something else{}",
        different.len(),
        different.first().map(|it| format!(": {it}")).unwrap_or_default()
    );
    println!("\nspoken into a reply: of so many, interrupted it, held it for a moment that a listener could notice");
    println!("(held ones that were interrupted are not counted as held)");
    for (name, [all, interrupted, held]) in counts {
        println!("    {name:<24} {all:>4} {interrupted:>4} {held:>4}");
    }
    Ok(())
}

/// When a listener without a network has heard all that was sent, in milliseconds.
fn run_out(sent: &[(Duration, u64, u64)]) -> Option<f64> {
    let ((begun, ..), (_, start, samples)) = (sent.first()?, sent.last()?);
    Some(begun.as_secs_f64() * 1e3 + (start + samples) as f64 / 24.0)
}

/// Whether a listener without a network had to wait for a piece that was there.
fn held(sent: &[(Duration, u64, u64)]) -> bool {
    let Some((begun, ..)) = sent.first() else { return false };
    sent.iter().any(|(at, start, _)| *at > *begun + SampleRate::HZ_24000.duration(*start))
}

/// When the last of what was sent was played, in milliseconds, by a listener whom pieces and the word `interrupted`
/// reach after a while each, in order, and how much of the reply that was.
fn listener(sent: &[(Duration, u64, u64)], interrupted: Duration, seed: &mut u64) -> (f64, f64) {
    let mut way = |at: Duration| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        at.as_secs_f64() * 1e3 + (JITTER.0 + (*seed >> 33) % (JITTER.1 - JITTER.0)) as f64
    };
    let (mut arrived, mut until, mut played) = (0.0f64, 0.0f64, 0.0f64);
    let mut pieces = Vec::new();
    for (at, _, samples) in sent.iter().filter(|(at, _, _)| *at <= interrupted) {
        arrived = way(*at).max(arrived);
        let begins = arrived.max(until);
        until = begins + *samples as f64 / 24.0;
        pieces.push((begins, until));
    }
    let dropped = way(interrupted).max(arrived);
    let mut stopped = 0.0;
    for (begins, ends) in pieces.into_iter().filter(|(begins, _)| *begins < dropped) {
        stopped = ends.min(dropped);
        played += stopped - begins;
    }
    (stopped, played)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_plays_what_comes_until_it_is_told_to_stop() {
        let ms = Duration::from_millis;
        let sent: Vec<_> = (0..10).map(|n| (ms(n * 40), n * 960, 960)).collect();
        let (stopped, played) = listener(&sent, ms(200), &mut 7);
        assert!((220.0..=340.0).contains(&stopped) && played <= 240.0, "{stopped} {played}");
        // Held long before: everything that came was played.
        let (stopped, played) = listener(&sent[..3], ms(900), &mut 7);
        assert!((100.0..=240.0).contains(&stopped), "{stopped}");
        assert_eq!(played, 120.0);
    }

    #[test]
    fn speech_is_where_it_is_loud() {
        let pcm = [vec![0.001; 1_600], vec![0.5; 3_200], vec![0.001; 1_600]].concat();
        assert_eq!(speech(&pcm), (1_600, 4_800));
    }
}
