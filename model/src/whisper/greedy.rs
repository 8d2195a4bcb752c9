//! Choosing tokens: the likeliest that is allowed, and when to stop.

use super::tokenizer::Vocabulary;

/// Which tokens are allowed.
pub(super) struct Rules {
    end_of_text: u32,
    /// What is added to logits: 0 where a token is allowed, negative infinity where it is not.
    mask: Vec<f32>,
    /// Not allowed as the first token.
    begin: Vec<u32>,
}

/// A token and the logarithm of its probability among the allowed ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    pub(super) token: u32,
    pub(super) logprob: f32,
}

/// Tokens so much less likely (e^-20) add nothing to a sum that could be seen.
const NEGLIGIBLE: f32 = 20.0;

impl Rules {
    /// Text without the tokens in `suppressed`, and the end of the text; neither timestamps nor instructions.
    pub(super) fn new(vocabulary: &Vocabulary, suppressed: &[u32], begin: &[u32]) -> Self {
        let end_of_text = vocabulary.special.end_of_text;
        let mut mask = vec![0.0; end_of_text as usize + 1];
        for &token in suppressed.iter().filter(|&&token| token < end_of_text) {
            mask[token as usize] = f32::NEG_INFINITY;
        }
        Self { end_of_text, mask, begin: begin.to_vec() }
    }

    /// The likeliest allowed token; the end of the text if no logit is a number. Overwrites the logits.
    pub(super) fn choose(&self, logits: &mut [f32], is_first: bool) -> Choice {
        let logits = self.allow(logits, is_first);
        let max = max(logits);
        match logits.iter().position(|&logit| logit == max && max > f32::NEG_INFINITY) {
            Some(token) => Choice { token: token as u32, logprob: -sum_of_exp(logits, max).ln() },
            None => Choice { token: self.end_of_text, logprob: 0.0 },
        }
    }

    /// The `count` likeliest allowed tokens, the likeliest first. Overwrites the logits.
    pub(super) fn likeliest(&self, logits: &mut [f32], is_first: bool, count: usize) -> Vec<Choice> {
        let logits = self.allow(logits, is_first);
        let (first, mut choices) = (max(logits), Vec::with_capacity(count));
        let total = sum_of_exp(logits, first).ln();
        for _ in 0..count {
            let max = max(logits);
            let Some(token) = logits.iter().position(|&logit| logit == max && max > f32::NEG_INFINITY) else { break };
            choices.push(Choice { token: token as u32, logprob: max - first - total });
            logits[token] = f32::NEG_INFINITY;
        }
        choices
    }

    /// Takes away what is not allowed.
    fn allow<'a>(&self, logits: &'a mut [f32], is_first: bool) -> &'a mut [f32] {
        let len = logits.len().min(self.mask.len());
        let logits = &mut logits[..len];
        logits.iter_mut().zip(&self.mask).for_each(|(logit, mask)| *logit += mask);
        if is_first {
            for &token in &self.begin {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        logits
    }

    /// Whether a token ends the transcript.
    pub(super) fn ends(&self, token: u32) -> bool {
        token == self.end_of_text
    }
}

/// The greatest value; what is no number is passed over.
fn max(values: &[f32]) -> f32 {
    // Several running maxima, which the compiler keeps in one register.
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (blocks, rest) = values.as_chunks::<16>();
    let mut maxima = [f32::NEG_INFINITY; 16];
    for block in blocks {
        for (max, &value) in maxima.iter_mut().zip(block) {
            *max = greater(*max, value);
        }
    }
    maxima.iter().chain(rest).copied().fold(f32::NEG_INFINITY, greater)
}

fn sum_of_exp(logits: &[f32], max: f32) -> f32 {
    logits.iter().filter(|&&logit| logit > max - NEGLIGIBLE).map(|logit| (logit - max).exp()).sum()
}

/// The softmax probability of `token`.
pub(super) fn probability(logits: &[f32], token: u32) -> f32 {
    let max = max(logits);
    logits.get(token as usize).map_or(0.0, |logit| (logit - max).exp() / sum_of_exp(logits, max))
}

/// The longest phrase whose repetition is recognised, in tokens.
const MAX_PERIOD: usize = 32;
/// A phrase is a loop when it comes this many times in a row and fills [`LOOP_TOKENS`]. People say "no, no, no, no".
const MIN_REPEATS: usize = 3;
const LOOP_TOKENS: usize = 12;

/// If `tokens` are one sentence twice, how many there are with it said once.
pub(super) fn doubled(tokens: &[u32]) -> Option<usize> {
    /// Shorter sentences are said twice on purpose.
    const SENTENCE: usize = 5;
    let half = tokens.len() / 2;
    let (first, second) = tokens.split_at(half);
    (half >= SENTENCE && first == second).then_some(half)
}

/// If the end of `tokens` goes round in circles, how many tokens there are with the phrase said once.
pub(super) fn loop_start(tokens: &[u32]) -> Option<usize> {
    (1..=MAX_PERIOD).find_map(|period| {
        let repeats = MIN_REPEATS.max(LOOP_TOKENS.div_ceil(period));
        let start = tokens.len().checked_sub(period * repeats)?;
        let tail = &tokens[start..];
        tail[period..].iter().zip(tail).all(|(a, b)| a == b).then(|| {
            // The loop may have begun before the tail that gave it away.
            let mut first = start;
            while first > 0 && tokens[first - 1] == tokens[first - 1 + period] {
                first -= 1;
            }
            first + period
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_said_twice_is_found() {
        assert_eq!(doubled(&[1, 2, 3, 4, 5, 1, 2, 3, 4, 5]), Some(5));
        assert_eq!(doubled(&[1, 2, 3, 4, 5, 1, 2, 3, 4, 6]), None);
        assert_eq!(doubled(&[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1]), None);
        assert_eq!(doubled(&[1, 2, 1, 2]), None);
    }

    #[test]
    fn loops_are_found_and_cut() {
        // Twelve tokens of one word.
        assert_eq!(loop_start(&[7; 11]), None);
        assert_eq!(loop_start(&[7; 12]), Some(1));
        let phrase = [1, 2, 3, 4, 5];
        let said: Vec<u32> = [9, 8].into_iter().chain(phrase.repeat(3)).collect();
        assert_eq!(loop_start(&said), Some(7));
        assert_eq!(loop_start(&said[..said.len() - 1]), None);
        // The end of a round may be missing; the phrase starts where the circle does.
        let said: Vec<u32> = [9, 8].into_iter().chain(phrase.repeat(3)).chain([1, 2]).collect();
        assert_eq!(loop_start(&said), Some(7));
        let counting: Vec<u32> = (0..200).collect();
        assert_eq!(loop_start(&counting), None);
        assert_eq!(loop_start(&[]), None);
    }

    fn rules() -> Rules {
        Rules { end_of_text: 3, mask: vec![0.0, f32::NEG_INFINITY, 0.0, 0.0], begin: vec![0, 3] }
    }

    #[test]
    fn the_likeliest_allowed_token_is_chosen() {
        let logits = vec![2.0f32, 9.0, 1.0, 0.0, 50.0];
        let choice = rules().choose(&mut logits.clone(), false);
        assert_eq!(choice.token, 0);
        let sum = 2f32.exp() + 1f32.exp() + 1.0;
        assert!((choice.logprob - (2f32.exp() / sum).ln()).abs() < 1e-6);
        let first = rules().choose(&mut logits.clone(), true);
        assert_eq!(first, Choice { token: 2, logprob: 0.0 });
        assert!(rules().ends(3));
    }

    #[test]
    fn the_likeliest_few_are_in_their_order() {
        let rules = Rules { mask: vec![0.0, f32::NEG_INFINITY, 0.0, 0.0], ..rules() };
        let choices = rules.likeliest(&mut [2.0, 9.0, 1.0, 3.0, 50.0], false, 2);
        assert_eq!(choices.iter().map(|choice| choice.token).collect::<Vec<_>>(), [3, 0]);
        let sum = 3f32.exp() + 2f32.exp() + 1f32.exp();
        assert!((choices[1].logprob - (2f32.exp() / sum).ln()).abs() < 1e-6);
        assert_eq!(rules.likeliest(&mut [f32::NAN; 5], false, 2), []);
        assert_eq!(rules.likeliest(&mut [0.0; 5], true, 9).len(), 1, "only what is allowed");
    }

    #[test]
    fn what_is_no_number_ends_the_text() {
        assert_eq!(rules().choose(&mut [f32::NAN; 5], false).token, 3);
    }

    #[test]
    fn probabilities_are_those_of_a_softmax() {
        assert!((probability(&[0.0, 1000.0, 1000.0], 2) - 0.5).abs() < 1e-6);
        assert_eq!(probability(&[0.0], 4), 0.0);
    }
}
