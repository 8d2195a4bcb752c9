//! How well the cascade tells speech that is meant for it from speech that is not, and what asking itself costs. The
//! sentences are spoken by its own voice and heard like any other; none of them chose the wording of the question.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use causerie_codec::resample::Resampler;
use causerie_model::cascade::{self, Options};
use causerie_model::speech::Speech;
use causerie_model_api::{
    Cause, Engine, Event, FinishReason, INPUT_RATE, InputSamples, Modality, OUTPUT_RATE, Request, SessionConfig,
    SessionId, TurnId,
};
use causerie_units::SampleRate;
use clap::Args;

use crate::{machine, table};

/// Options of `cargo xtask addressed`.
#[derive(Args)]
pub(crate) struct AddressedArgs {
    /// Folder of the models.
    #[arg(long, value_name = "DIR", env = "CAUSERIE_MODELS")]
    models: Option<PathBuf>,
}

/// For an assistant.
const ADDRESSED: [&str; 20] = [
    "How far away is the moon?",
    "Please add milk and bread to my shopping list.",
    "What time does the museum close today?",
    "Give me a recipe for pancakes.",
    "How do you say thank you in Japanese?",
    "Can you explain how a rainbow is made?",
    "Turn the volume down a little.",
    "Who wrote Romeo and Juliet?",
    "I need some help with my homework.",
    "Set an alarm for half past six.",
    "Could you say that again, but slower?",
    "What is the square root of eighty one?",
    "Find me a good Italian restaurant nearby.",
    "Tell me something about the Roman Empire.",
    "Will I need an umbrella tomorrow?",
    "Okay, and how much does that cost?",
    "Good morning, how are you?",
    "Never mind, forget it.",
    "Play the next song.",
    "What is the fastest animal on land?",
];

/// For somebody else, or nobody.
const OTHERS: [&str; 20] = [
    "Grandma, would you like some more tea?",
    "I told him that we would be late, but he did not listen.",
    "Daniel, take your shoes off before you come in.",
    "Good evening, and welcome to the nine o'clock news.",
    "Passengers are reminded to keep their luggage with them.",
    "Sorry, I have to take this call, hello, Martin?",
    "She said that the meeting was moved to Thursday.",
    "Come on, Lucy, we have to go to school.",
    "Well, in my opinion the second film was better than the first.",
    "And he shoots, and it is a goal for the home team!",
    "Where on earth did I leave my glasses?",
    "Darling, the neighbours are at the door.",
    "This offer is only valid while stocks last.",
    "Doctor, my knee still hurts when I walk.",
    "Two coffees and a croissant, please, to take away.",
    "Don't pull the cat's tail, Emma.",
    "As I was saying, the budget for next year is smaller.",
    "Have you met my sister, she is over there.",
    "Waiter, this soup is cold.",
    "Be quiet, the baby is asleep.",
];

struct Heard {
    addressed: bool,
    /// From the transcript to the first word, or to the decision that there is none.
    decided_ms: f64,
}

/// Says a sentence to the engine, in a conversation of its own.
fn say(engine: &mut dyn Engine, session: SessionId, pcm: &[f32], proactive: bool) -> anyhow::Result<Heard> {
    let config =
        SessionConfig { modality: Modality::Text, proactive, max_output_tokens: Some(4), ..Default::default() };
    let busy = |_| anyhow::anyhow!("the engine is busy");
    engine.submit(Request::Open { session, config: Box::new(config), history: Vec::new() }).map_err(busy)?;
    let mut opened = false;
    while !opened {
        engine.step(&mut |_, event| opened |= event == Event::Opened);
    }
    engine.submit(Request::Audio { session, at: InputSamples(0), pcm: pcm.to_vec() }).map_err(busy)?;
    let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(pcm.len() as u64) };
    engine.submit(Request::Start { session, turn: TurnId(1), cause }).map_err(busy)?;
    let (mut heard, mut decided, mut done, mut failed) = (None, None, None, None);
    while done.is_none() && failed.is_none() {
        engine.step(&mut |_, event| match event {
            Event::Heard { .. } => heard = Some(Instant::now()),
            Event::Text { .. } => {
                decided.get_or_insert_with(Instant::now);
            }
            Event::Done { reason, .. } => {
                decided.get_or_insert_with(Instant::now);
                done = Some(reason);
            }
            Event::Failed { error, .. } => failed = Some(error),
            _ => {}
        });
    }
    engine.submit(Request::Close { session }).map_err(busy)?;
    match (heard, decided, done) {
        (Some(heard), Some(decided), Some(reason)) => {
            let decided_ms = (decided - heard).as_secs_f64() * 1e3;
            Ok(Heard { addressed: reason != FinishReason::NotAddressed, decided_ms })
        }
        _ => bail!("{}", failed.unwrap_or_default()),
    }
}

/// Runs `cargo xtask addressed`.
pub(crate) fn addressed(args: &AddressedArgs) -> anyhow::Result<()> {
    let folder = causerie_gateway::models::Folder::resolve(args.models.as_deref()).path().to_owned();
    let voice = Speech::load(&folder.join("hibari")).context("the models are needed")?;
    let mut engine = cascade::load(&Options::new(folder)).context("the models are needed")?;
    println!("\n{}", machine::line());
    println!("sentences spoken by the engine's own voice, each in a conversation of its own\n");
    println!("{}", table::head("milliseconds from transcript to first word"));
    let mut session = 0;
    for proactive in [false, true] {
        let mut times = Vec::new();
        for (sentences, meant) in [(ADDRESSED, true), (OTHERS, false)] {
            let mut right = 0;
            for sentence in sentences {
                session += 1;
                let mut pcm = Vec::new();
                voice.synthesize(sentence, "", 1.0, &mut pcm)?;
                let pcm = for_ears(&pcm)?;
                let heard = say(engine.as_mut(), SessionId(session), &pcm, proactive)?;
                right += usize::from(heard.addressed == meant);
                if proactive && heard.addressed != meant {
                    println!("{}: {sentence}", if meant { "left unanswered" } else { "answered" });
                }
                if heard.addressed {
                    times.push(heard.decided_ms);
                }
            }
            if proactive {
                let whom = if meant { "an assistant" } else { "somebody else" };
                println!("said to {whom}: {right} of {} right", sentences.len());
            }
        }
        println!("{}", table::row(if proactive { "with the question" } else { "without" }, &times));
    }
    Ok(())
}

fn for_ears(pcm: &[f32]) -> anyhow::Result<Vec<f32>> {
    let rate = |hertz| SampleRate::new(hertz).context("a rate");
    let mut resampler = Resampler::new(rate(OUTPUT_RATE)?, rate(INPUT_RATE)?)?;
    let mut out = Vec::new();
    resampler.push(pcm, &mut out);
    resampler.flush(&mut out);
    Ok(out)
}
