//! How much is thought before a reply.

use causerie_model_api::{Content, Item, Role, SessionConfig};

/// Tokens thought at most when the client leaves it to the model, and when it asks for more than this. Of the 30
/// questions of `cargo xtask thinking` (seed 1, default model) 25 are right with a budget of 128, in 57 tokens of thought
/// on average, 21 with 48, and 25 without: then the model reasons aloud, in 115 spoken tokens on average instead of 6
/// (2026-11-25, two cores of an EPYC).
const DEFAULT_BUDGET: u32 = 128;
const MAX_BUDGET: u32 = 1_024;

/// Numbers in words, as people say them; larger ones are made of these.
const NUMBERS: [&str; 22] = [
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "twenty", "thirty", "forty", "fifty", "hundred", "half", "twice", "third",
];

/// The budget for an answer to `words`; 0 is none.
pub(crate) fn thinking_budget(config: &SessionConfig, words: &str) -> u32 {
    match config.thinking.budget {
        Some(budget) => budget.min(MAX_BUDGET),
        None if deserves(words) => DEFAULT_BUDGET,
        None => 0,
    }
}

/// Whether a question is worth a thought, decided without the model: it takes two numbers to calculate. Everything else
/// is answered as soon by a model that has no time to lose.
fn deserves(words: &str) -> bool {
    let number = |word: &&str| {
        let word = word.to_lowercase();
        word.contains(|c: char| c.is_ascii_digit()) || NUMBERS.contains(&word.as_str())
    };
    words.split(|c: char| !c.is_alphanumeric()).filter(number).take(2).count() == 2
}

/// What the user said last.
pub(super) fn last_words(items: &[Item]) -> &str {
    let user = items.iter().rev().find(|item| item.role == Role::User);
    let text = user.and_then(|item| {
        item.content.iter().rev().find_map(|content| if let Content::Text(text) = content { Some(text) } else { None })
    });
    text.map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use causerie_model_api::Thinking;

    use super::*;

    #[test]
    fn the_client_decides_and_else_the_question() {
        let budget = |budget, words| {
            let thinking = Thinking { budget, include_thoughts: false };
            thinking_budget(&SessionConfig { thinking, ..SessionConfig::default() }, words)
        };
        assert_eq!(budget(Some(0), "What is 3 plus 4?"), 0);
        assert_eq!(budget(Some(7), "Hello."), 7);
        assert_eq!(budget(Some(u32::MAX), "Hello."), MAX_BUDGET);
        assert_eq!(budget(None, "What is 3 plus 4?"), DEFAULT_BUDGET);
        assert_eq!(budget(None, "Three boxes hold twelve eggs each."), DEFAULT_BUDGET);
        assert_eq!(budget(None, "Who was the 3rd president?"), 0);
        assert_eq!(budget(None, "Tell me a joke."), 0);
    }
}
