//! Whether speech is meant for the model, which may keep silent otherwise.
//!
//! The language model is asked for one word about the sentence alone. Of six wordings tried on the default model this one
//! was right about all of 12 sentences for an assistant and 10 of 12 for others; those that let it choose between "me"
//! and "else", or name whom it was said to, were right about half of the others (2026-11-25).

use causerie_model_api::{Content, Item, Role, SessionConfig};

/// The instruction for the question.
pub(super) const INSTRUCTION: &str =
    "You are a helpful assistant with a voice. You hear what is said in a room and answer briefly.";

/// The question about a sentence.
pub(super) fn question(sentence: &str) -> String {
    let sentence = sentence.replace('"', "'");
    format!(
        "A microphone in a room heard this: \"{sentence}\"\nIs it a request or remark to a voice assistant? Answer yes or \
         no."
    )
}

/// The tokens that an answer to it begins with.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub(super) yes: Vec<u32>,
    pub(super) no: Vec<u32>,
}

impl Choice {
    /// The likelier of the two, as the first of its tokens; of equals, yes.
    pub(super) fn of(&self, logits: &[f32]) -> u32 {
        let best = |tokens: &[u32]| {
            tokens.iter().filter_map(|token| logits.get(*token as usize)).copied().fold(f32::NEG_INFINITY, f32::max)
        };
        let tokens = if best(&self.no) > best(&self.yes) { &self.no } else { &self.yes };
        tokens.first().copied().unwrap_or_default()
    }
}

/// Whether it has to be asked. An answer to the model's own question is for the model.
pub(super) fn doubtful(config: &SessionConfig, history: &[Item]) -> bool {
    let asked = history.last().is_some_and(|item| {
        let text = |content: &Content| matches!(content, Content::Text(text) if text.trim_end().ends_with('?'));
        item.role == Role::Model && item.content.last().is_some_and(text)
    });
    config.proactive && !asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_a_question_is_not_doubted() {
        let config = SessionConfig { proactive: true, ..SessionConfig::default() };
        let said = |text: &str| vec![Item::text(Role::Model, text)];
        assert!(doubtful(&config, &[]));
        assert!(doubtful(&config, &said("It is done.")));
        assert!(!doubtful(&config, &said("For how many? ")));
        assert!(!doubtful(&SessionConfig::default(), &[]));
    }

    #[test]
    fn the_likelier_word_counts_in_whatever_spelling() {
        let choice = Choice { yes: vec![1, 2], no: vec![3, 9] };
        assert_eq!(choice.of(&[9.0, 0.0, 4.0, 3.0]), 1);
        assert_eq!(choice.of(&[9.0, 0.0, 2.0, 3.0]), 3);
        assert_eq!(choice.of(&[0.0; 4]), 1);
    }
}
