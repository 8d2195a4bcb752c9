//! Spoken questions asked of a running server through `causerie talk --json`, at the pace of speech.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::{machine, table};

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// The server's gRPC address.
    #[arg(long, value_name = "URL")]
    server: String,
    /// The server's process, for its memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Folder of the questions' WAV files, named as in the list.
    #[arg(long, value_name = "DIR")]
    questions: PathBuf,
    /// The list of questions.
    #[arg(long, value_name = "FILE", default_value = "examples/audio/questions.tsv")]
    list: PathBuf,
    /// Callers at once in the second measurement; 1 leaves it out.
    #[arg(long, default_value_t = 2)]
    callers: usize,
    /// How often all questions are asked.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Write every turn as a line of JSON here.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// The client.
    #[arg(long, value_name = "FILE", default_value = "target/release/causerie")]
    causerie: PathBuf,
}

/// One line of the list.
struct Question {
    name: String,
    /// An answer that holds one of these, in lower case, is right.
    answers: Vec<String>,
}

/// What a turn of `causerie talk --json` said.
struct Answer {
    turn: Value,
    right: bool,
}

/// Runs `cargo xtask bench`.
pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    let list = fs::read_to_string(&args.list).with_context(|| format!("cannot read {}", args.list.display()))?;
    let questions = parse(&list)?;
    println!("\n{}", machine::line());
    if let Some(load) = machine::load() {
        println!("load of the last minute: {load:.2}; other work on the machine disturbs what follows");
    }
    println!("{} questions at the pace of speech, each in a conversation of its own\n", questions.len());
    println!("{}", table::head("milliseconds"));
    let mut all = Vec::new();
    for callers in [1, args.callers] {
        if callers == 1 && !all.is_empty() {
            break;
        }
        let answers = ask_all(args, &questions, callers)?;
        report(callers, &answers);
        all.extend(answers);
    }
    if let Some(pid) = args.pid {
        memory(args, pid)?;
    }
    let wrong: Vec<_> = all.iter().filter(|answer| !answer.right).map(|answer| &answer.turn).collect();
    for turn in wrong {
        println!("not right: {} -> {} -> {}", turn["input"], turn["input_transcript"], turn["output_transcript"]);
    }
    if let Some(path) = &args.save {
        let lines: String = all.iter().map(|answer| format!("{}\n", answer.turn)).collect();
        fs::write(path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The server's memory after the questions, and after a conversation that begins with an instruction of 4,000 tokens.
fn memory(args: &BenchArgs, pid: u32) -> anyhow::Result<()> {
    let Some(before) = machine::peak_rss_mb(pid) else { return Ok(()) };
    // Ten tokens a sentence.
    let instruction = "The quick brown fox jumps over the lazy dog. ".repeat(400);
    let turn = last_turn(args, &["--instruction", &instruction, "--text", "Which animal jumps?"])?;
    let (tokens, after) = (&turn["usage"]["prompt_tokens"], machine::peak_rss_mb(pid).unwrap_or(0.0));
    println!("\nserver's peak resident memory: {before:.0} MB; {after:.0} MB with a conversation of {tokens} tokens");
    Ok(())
}

fn parse(list: &str) -> anyhow::Result<Vec<Question>> {
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [name, _, answers] => {
                Ok(Question { name: name.to_owned(), answers: answers.split('|').map(str::to_owned).collect() })
            }
            _ => bail!("the list of questions has a line that is not three fields: {line:?}"),
        })
        .collect()
}

/// Asks every question, `callers` at a time, each with another one.
fn ask_all(args: &BenchArgs, questions: &[Question], callers: usize) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for _ in 0..args.rounds {
        for group in questions.chunks(callers) {
            let group: Vec<anyhow::Result<Answer>> = std::thread::scope(|scope| {
                let calls: Vec<_> = group.iter().map(|question| scope.spawn(|| ask(args, question))).collect();
                calls.into_iter().map(|call| call.join().unwrap_or_else(|_| bail!("a caller panicked"))).collect()
            });
            answers.extend(group.into_iter().collect::<anyhow::Result<Vec<_>>>()?);
        }
    }
    Ok(answers)
}

fn ask(args: &BenchArgs, question: &Question) -> anyhow::Result<Answer> {
    let input = args.questions.join(&question.name).with_extension("wav");
    let turn = last_turn(args, &[input])?;
    let said = turn["output_transcript"].as_str().unwrap_or_default().to_lowercase();
    let right = question.answers.iter().any(|answer| has_words(&said, answer));
    Ok(Answer { turn, right })
}

/// Whether `words` occur in `text` between things that are not letters or digits.
fn has_words(text: &str, words: &str) -> bool {
    let edge = |at: Option<char>| at.is_none_or(|it| !it.is_alphanumeric());
    text.match_indices(words)
        .any(|(at, _)| edge(text[..at].chars().next_back()) && edge(text[at + words.len()..].chars().next()))
}

/// The last turn of a call with these arguments of `causerie talk`.
fn last_turn<A: AsRef<OsStr>>(args: &BenchArgs, call: &[A]) -> anyhow::Result<Value> {
    let output = Command::new(&args.causerie)
        .args(["talk", "--json", "--server", &args.server])
        .args(call)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", args.causerie.display()))?;
    if !output.status.success() {
        bail!("the call failed: {}", output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().next_back().context("no turn came")?;
    Ok(serde_json::from_str(last)?)
}

/// The table of one measurement.
fn report(callers: usize, answers: &[Answer]) {
    let figures = |path: &str| -> Vec<f64> {
        answers.iter().filter_map(|answer| answer.turn.pointer(path).and_then(Value::as_f64)).collect()
    };
    let who = if callers == 1 { "one caller".to_owned() } else { format!("{callers} callers at once") };
    println!("{}", table::row(&format!("{who}: speech end to first voice heard"), &figures("/first_voiced_ms")));
    for step in ["endpoint", "transcript_final", "first_token", "first_audio_generated", "first_audio_sent"] {
        println!("{}", table::row(&format!("    {step}"), &figures(&format!("/waterfall/{step}_ms"))));
    }
    let dry = answers.iter().filter(|answer| answer.turn["ran_dry"].as_u64().unwrap_or(0) > 0).count();
    let right = answers.iter().filter(|answer| answer.right).count();
    println!("    {right} of {} answers right, {dry} ran dry at a listener with 200 ms in hand", answers.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let questions = parse("# a comment\nsum\tWhat is one plus one?\ttwo|2\n").unwrap();
        assert_eq!((questions[0].name.as_str(), questions[0].answers.len()), ("sum", 2));
        assert!(parse("sum\tWhat?\n").is_err());
        let shipped = parse(include_str!("../../../examples/audio/questions.tsv")).unwrap();
        assert_eq!(shipped.len(), 20);
    }

    #[test]
    fn an_answer_is_whole_words() {
        assert!(has_words("it is 42.", "42"));
        assert!(!has_words("it is 142.", "42"));
        assert!(has_words("the symbol is au", "au"));
        assert!(!has_words("aurum, perhaps", "au"));
        assert!(has_words("aurum, or au!", "au"));
    }
}
