//! Whether an agent that was interrupted knows how far it was heard: it counts, somebody asks into it which number was the
//! last, and what the listener's loudspeaker had played until then is transcribed and compared with the answer.
//!
//! The whole way with the real models: the question is spoken at the pace of speech, detected, and interrupts.

use std::time::Duration;

use anyhow::{Context as _, bail};
use causerie_model_api::{INPUT_RATE, Modality, OUTPUT_RATE};
use causerie_proto::v1::{self, server_message::MessageType as FromServer};
use causerie_tests::real::{self, Person};
use causerie_tests::service::{Call, audio, bytes_of, connect, setup};
use causerie_tests::wer::normalise;
use clap::Args;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::Channel;

use crate::machine;

const COUNT: &str = "Count from one to sixty, separated by commas, and say nothing else.";
const QUESTION: &str = "Stop. Which number did you say last?";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PIECE: Duration = Duration::from_millis(20);

/// Options of `cargo xtask recall`.
#[derive(Args)]
pub(crate) struct RecallArgs {
    /// Interruptions, each a little later than the one before.
    #[arg(long, default_value_t = 10)]
    times: u64,
}

/// What a listener heard of a reply, and what was answered.
struct Recalled {
    /// As the recogniser understands it.
    heard: String,
    answer: String,
}

/// Runs `cargo xtask recall`.
pub(crate) fn recall(args: &RecallArgs) -> anyhow::Result<()> {
    if !real::available() {
        bail!("the models are needed: `causerie models pull`");
    }
    println!("\n{}", machine::line());
    println!("{COUNT:?}, and spoken into it: {QUESTION:?}\n");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let person = Person::new();
        let server = real::start().await;
        let channel = connect(server.grpc_addr).await;
        let (mut exact, mut near) = (0, 0);
        for n in 0..args.times {
            let into = Duration::from_millis(2_000 + 330 * n);
            let Recalled { heard, answer } = interrupted(&channel, &person, into).await?;
            let (last, said) = (numbers(&heard).pop(), numbers(&answer).pop());
            exact += usize::from(last.is_some() && last == said);
            near += usize::from(last.zip(said).is_some_and(|(last, said)| last.abs_diff(said) == 1));
            println!("after {:.2} s heard {heard:?}; answered {answer:?}", into.as_secs_f64());
        }
        println!("\nof {} answers {exact} name the last number that was heard, {near} its neighbour", args.times);
        server.shutdown().await;
        Ok(())
    })
}

/// Has the agent count, and asks so long after its first sound.
async fn interrupted(channel: &Channel, person: &Person, into: Duration) -> anyhow::Result<Recalled> {
    let question = person.ask(QUESTION);
    let (mut call, _) = Call::begin(channel, setup(Modality::Audio)).await;
    call.say(COUNT).await;
    let mut pieces = question.chunks(INPUT_RATE as usize / 50);
    let (mut received, mut began, mut next) = (Vec::new(), None, None::<Instant>);
    // A loudspeaker plays from the first sound on, and drops what it has left when it is told to.
    let played = loop {
        let message = tokio::select! {
            message = timeout(PATIENCE, call.next()) => message??.context("the stream ended")?,
            () = until(next) => {
                if let Some(piece) = pieces.next() {
                    call.send(audio("audio/pcm;rate=16000", bytes_of(piece))).await;
                    next = next.map(|at| at + PIECE);
                } else {
                    next = None;
                }
                continue;
            }
        };
        let Some(FromServer::ServerContent(content)) = message.message_type else { continue };
        if content.interrupted {
            let began = began.context("it was interrupted before it spoke")?;
            break (Instant::now().duration_since(began).as_secs_f64() * f64::from(OUTPUT_RATE)) as usize * 2;
        }
        if content.turn_complete {
            bail!("nothing interrupted the reply");
        }
        let sound = sound(content);
        if !sound.is_empty() && began.is_none() {
            began = Some(Instant::now());
            next = Some(Instant::now() + into);
        }
        received.extend(sound);
    };
    // The rest of the question, at the pace at which it began.
    let rest = async {
        for piece in pieces {
            if let Some(at) = next.as_mut() {
                sleep_until(*at).await;
                *at += PIECE;
            }
            call.send(audio("audio/pcm;rate=16000", bytes_of(piece))).await;
        }
    };
    rest.await;
    // The end of the turn that was interrupted comes first.
    call.turn().await;
    let answer = call.turn().await.said;
    let heard = person.listen(&received[..played.min(received.len())]);
    Ok(Recalled { heard, answer })
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn sound(content: v1::ServerContent) -> Vec<u8> {
    let parts = content.model_turn.into_iter().flat_map(|turn| turn.parts);
    let blobs = parts.filter_map(|part| match part.data {
        Some(v1::part::Data::InlineData(blob)) => Some(blob.data),
        _ => None,
    });
    blobs.flatten().collect()
}

/// The numbers below a hundred in a text, in digits or in words.
fn numbers(text: &str) -> Vec<u32> {
    let spelled: Vec<Vec<String>> = (0..100).map(|number: u32| normalise(&number.to_string())).collect();
    let words = normalise(text);
    let mut rest = &words[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let here = (0_u32..).zip(&spelled).filter(|(_, number)| rest.starts_with(number));
        // "Twenty one" begins like "twenty".
        let longest = here.max_by_key(|(_, number)| number.len());
        found.extend(longest.map(|(number, _)| number));
        rest = &rest[longest.map_or(1, |(_, number)| number.len())..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_words_and_in_digits() {
        assert_eq!(numbers("One, two,three"), [1, 2, 3]);
        assert_eq!(numbers("nineteen, twenty, twenty-one, twenty two, 23"), [19, 20, 21, 22, 23]);
        assert_eq!(numbers("The last number was thirty one."), [31]);
        assert!(numbers("It said nothing.").is_empty());
    }
}
