//! What a hidden thought gains and costs: questions to calculate, typed, answered by the cascade without thinking and
//! with budgets. Half of the questions are drawn from a seed, half are fixed word problems with known answers.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use causerie_kernels::ops::sample::uniform;
use causerie_model::cascade::{self, Options};
use causerie_model_api::{
    Cause, Engine, Event, Item, Modality, Request, Role, SessionConfig, SessionId, Thinking, TurnId, Usage,
};
use clap::Args;

use crate::{machine, table};

/// Options of `cargo xtask thinking`.
#[derive(Args)]
pub(crate) struct ThinkingArgs {
    /// Folder of the models.
    #[arg(long, value_name = "DIR", env = "CAUSERIE_MODELS")]
    models: Option<PathBuf>,
    /// What the questions are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Budgets to measure; -1 leaves it to the question.
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, default_value = "0,48,128,-1")]
    budgets: Vec<i64>,
    /// Show every answer.
    #[arg(long)]
    verbose: bool,
}

/// Questions to which an answer that holds the second word is right.
const FIXED: [(&str, &str); 15] = [
    ("A farmer has 17 sheep. All but 9 run away. How many are left?", "9"),
    ("Tom is twice as old as Ann. Ann is 7. How old will Tom be in five years?", "19"),
    ("I have 3 boxes with 12 eggs each. 5 eggs break. How many are whole?", "31"),
    ("A rectangle is 8 meters long and 5 meters wide. What is its perimeter?", "26"),
    ("If a car drives 60 kilometers per hour for two and a half hours, how far does it go?", "150"),
    ("A jacket costs 80 dollars and is reduced by 25 percent. What does it cost now?", "60"),
    ("There are 24 students. A third play football, and half of the rest play tennis. How many play tennis?", "8"),
    ("Anna has 15 apples. She gives 4 to Ben and buys 7 more, then eats 2. How many has she?", "16"),
    ("A pack has 8 batteries. A lamp needs 3. How many lamps can I fill from two packs?", "5"),
    ("Yesterday was Tuesday. What day is the day after tomorrow?", "Friday"),
    ("Sam is taller than Joe, and Joe is taller than Max. Who is the shortest?", "Max"),
    ("A bus has 30 people. At the first stop 12 get off and 7 get on, then 5 get off. How many are on it?", "20"),
    ("How many minutes are there in three and a quarter hours?", "195"),
    ("What is the capital of France?", "Paris"),
    ("How many days has a leap year?", "366"),
];

struct Question {
    text: String,
    answer: String,
}

fn questions(seed: u64) -> Vec<Question> {
    let mut drawn = 0;
    let mut between = |least: u64, most: u64| {
        drawn += 1;
        least + (uniform(seed, drawn) * (most - least + 1) as f64) as u64
    };
    let mut questions: Vec<Question> =
        FIXED.iter().map(|(text, answer)| Question { text: (*text).into(), answer: (*answer).into() }).collect();
    for kind in 0..15 {
        let (text, answer) = match kind % 4 {
            0 => {
                let (a, b) = (between(12, 99), between(12, 99));
                (format!("What is {a} times {b}?"), a * b)
            }
            1 => {
                let (a, b, c) = (between(20, 400), between(20, 400), between(3, 19));
                (format!("What is {a} plus {b} minus {c}?"), a + b - c)
            }
            2 => {
                let (n, price, book) = (between(3, 9), between(3, 12), between(2, 9));
                let text = format!(
                    "A shop sells pens for {price} dollars each. I buy {n} pens and a book for {book} dollars. How \
                     much do I pay?"
                );
                (text, n * price + book)
            }
            _ => {
                let (a, b) = (between(3, 9), between(20, 60));
                (format!("{} sweets are shared by {a} children. How many does each get?", a * b), b)
            }
        };
        questions.push(Question { text, answer: answer.to_string() });
    }
    questions
}

struct Answered {
    text: String,
    usage: Usage,
    first_ms: f64,
    whole_ms: f64,
}

/// Asks one question in a conversation of its own. Time counts from the question, with the instruction prefilled.
fn ask(engine: &mut dyn Engine, session: SessionId, budget: Option<u32>, question: &str) -> anyhow::Result<Answered> {
    let thinking = Thinking { budget, include_thoughts: false };
    let config = Box::new(SessionConfig { modality: Modality::Text, thinking, ..SessionConfig::default() });
    let busy = |_| anyhow::anyhow!("the engine is busy");
    engine.submit(Request::Open { session, config, history: Vec::new() }).map_err(busy)?;
    let mut opened = false;
    while !opened {
        engine.step(&mut |_, event| opened |= event == Event::Opened);
    }
    let begun = Instant::now();
    let elapsed = || begun.elapsed().as_secs_f64() * 1e3;
    let items = vec![Item::text(Role::User, question)];
    engine.submit(Request::Append { session, items }).map_err(busy)?;
    engine.submit(Request::Start { session, turn: TurnId(1), cause: Cause::History }).map_err(busy)?;
    let (mut text, mut first_ms, mut done, mut failed) = (String::new(), None, None, None);
    while done.is_none() && failed.is_none() {
        engine.step(&mut |_, event| match event {
            Event::Text { delta, .. } => {
                first_ms.get_or_insert_with(elapsed);
                text.push_str(&delta);
            }
            Event::Done { usage, .. } => done = Some(usage),
            Event::Failed { error, .. } => failed = Some(error),
            _ => {}
        });
    }
    engine.submit(Request::Close { session }).map_err(busy)?;
    match (done, failed) {
        (Some(usage), _) => {
            Ok(Answered { text, usage, first_ms: first_ms.unwrap_or_else(elapsed), whole_ms: elapsed() })
        }
        (None, failed) => bail!("{question}: {}", failed.unwrap_or_default()),
    }
}

/// Whether an answer holds a word: not as part of a longer number.
fn holds(answer: &str, word: &str) -> bool {
    let answer = answer.replace(',', "");
    answer.match_indices(word).any(|(at, _)| {
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        !digit(answer[..at].chars().next_back()) && !digit(answer[at + word.len()..].chars().next())
    })
}

/// Runs `cargo xtask thinking`.
pub(crate) fn thinking(args: &ThinkingArgs) -> anyhow::Result<()> {
    let folder = causerie_gateway::models::Folder::resolve(args.models.as_deref()).path().to_owned();
    let mut engine = cascade::load(&Options::new(folder)).context("the models are needed")?;
    let questions = questions(args.seed);
    println!("\n{}", machine::line());
    println!("{} typed questions, seed {}, each in a conversation of its own\n", questions.len(), args.seed);
    println!("{}", table::head("milliseconds"));
    let mut session = 0;
    for budget in &args.budgets {
        let name = match budget {
            0 => "no thinking".to_owned(),
            -1 => "left to the question".to_owned(),
            budget => format!("budget {budget}"),
        };
        let mut answers = Vec::new();
        for question in &questions {
            session += 1;
            let answered = ask(engine.as_mut(), SessionId(session), u32::try_from(*budget).ok(), &question.text)?;
            let right = holds(&answered.text, &question.answer);
            if args.verbose {
                println!("{name}: {} {right} {:?} {:?}", question.text, question.answer, answered.text);
            }
            answers.push((right, answered));
        }
        let right = answers.iter().filter(|(right, _)| *right).count();
        let mean = |of: &dyn Fn(&Answered) -> f64| {
            answers.iter().map(|(_, answered)| of(answered)).sum::<f64>() / answers.len().max(1) as f64
        };
        let column = |of: fn(&Answered) -> f64| answers.iter().map(|(_, answered)| of(answered)).collect::<Vec<_>>();
        println!("{}", table::row(&format!("{name}: first word"), &column(|a| a.first_ms)));
        println!("{}", table::row(&format!("{name}: whole answer"), &column(|a| a.whole_ms)));
        println!(
            "{name}: {right} of {} right, {:.0} tokens of thought and {:.0} of answer on average",
            answers.len(),
            mean(&|a| f64::from(a.usage.thoughts)),
            mean(&|a| f64::from(a.usage.response_text)),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_whole() {
        assert!(holds("That is 1,643 dollars.", "1643") && holds("It is 9.", "9"));
        assert!(!holds("It is 19.", "9") && !holds("It is 95", "9") && !holds("", "9"));
    }

    #[test]
    fn equal_seeds_ask_equal_questions() {
        let texts = |seed| questions(seed).into_iter().map(|q| q.text).collect::<Vec<_>>();
        assert_eq!(texts(1), texts(1));
        assert_ne!(texts(1), texts(2));
        assert_eq!(texts(1).len(), 30);
    }
}
