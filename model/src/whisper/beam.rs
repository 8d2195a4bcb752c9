//! A wider search for short texts that greedy decoding is unsure of.
//!
//! Words called out alone have no context that would correct a first token chosen wrongly ("7F clubs" for "seven of
//! clubs"). A [`Beam`] keeps the [`WIDTH`] likeliest beginnings of equal length. The measure is the sum of the
//! log-probabilities, not their average: an average prefers the text that says everything twice, as a short window
//! tempts the model to. Sums only fall, so the search is over when no beginning is better than the best whole text.

use super::greedy::Choice;

/// Beginnings that are kept. With 2, 3, 5 and 10 of them CTranslate2 finds the same texts in the recordings of the tests.
pub(super) const WIDTH: usize = 3;
/// Longer texts are left as they are: they have context, and the search would take long.
pub(super) const MAX_TOKENS: usize = 16;

/// A text or the beginning of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Hypothesis {
    pub(super) tokens: Vec<u32>,
    /// Sum over the tokens, and over the end where it has come.
    pub(super) logprob: f32,
}

/// A search in progress.
pub(super) struct Beam {
    /// All of the same length, the likeliest first.
    live: Vec<Hypothesis>,
    /// Those of them that have been continued.
    done: usize,
    /// Their continuations.
    grown: Vec<Hypothesis>,
    /// The best text that has ended.
    best: Hypothesis,
}

impl Beam {
    /// Begins to look for a better text than `best`.
    pub(super) fn new(best: Hypothesis) -> Self {
        Self { live: vec![Hypothesis::default()], done: 0, grown: Vec::new(), best }
    }

    /// The beginning to be continued next; `None` when the search is over.
    pub(super) fn next(&self) -> Option<&[u32]> {
        self.live.get(self.done).map(|hypothesis| &*hypothesis.tokens)
    }

    /// Takes the likeliest continuations of [`Beam::next`]; `ends` tells the end of a text from its tokens.
    pub(super) fn push(&mut self, choices: &[Choice], ends: impl Fn(u32) -> bool) {
        let Some(beginning) = self.live.get(self.done) else { return };
        for &Choice { token, logprob } in choices {
            let mut grown = Hypothesis { logprob: beginning.logprob + logprob, ..beginning.clone() };
            match (ends(token), grown.logprob > self.best.logprob) {
                (true, true) => self.best = grown,
                (false, true) if grown.tokens.len() < MAX_TOKENS => {
                    grown.tokens.push(token);
                    self.grown.push(grown);
                }
                _ => {}
            }
        }
        self.done += 1;
        if self.done == self.live.len() {
            self.grown.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
            self.grown.retain(|hypothesis| hypothesis.logprob > self.best.logprob);
            self.grown.truncate(WIDTH);
            self.live = std::mem::take(&mut self.grown);
            self.done = 0;
        }
    }

    /// The best text.
    pub(super) fn finish(self) -> Hypothesis {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u32 = 9;

    /// A beginning, and what follows it with which probability.
    type Row = (&'static [u32], &'static [(u32, f32)]);

    /// Searches a table of continuations; what is not in it ends, unlikely as it is.
    fn search(best: Hypothesis, table: &[Row]) -> (Hypothesis, usize) {
        let mut beam = Beam::new(best);
        let mut asked = 0;
        while let Some(tokens) = beam.next() {
            let row = table.iter().find(|(begin, _)| *begin == tokens).map_or(&[(END, 0.01)][..], |(_, row)| row);
            let choices: Vec<_> = row.iter().map(|&(token, p)| Choice { token, logprob: p.ln() }).collect();
            beam.push(&choices, |token| token == END);
            asked += 1;
        }
        (beam.finish(), asked)
    }

    #[test]
    fn a_text_that_begins_less_well_can_be_the_likeliest() {
        // Greedy takes 1, and is left with two continuations that are equally bad.
        let table: &[Row] = &[
            (&[], &[(1, 0.5), (2, 0.4), (3, 0.1)]),
            (&[1], &[(4, 0.2), (5, 0.2), (END, 0.1)]),
            (&[2], &[(4, 0.9), (5, 0.05)]),
            (&[2, 4], &[(END, 0.9)]),
            (&[1, 4], &[(END, 0.5)]),
        ];
        let greedy = Hypothesis { tokens: vec![1, 4], logprob: (0.5f32 * 0.2 * 0.5).ln() };
        let (found, asked) = search(greedy, table);
        assert_eq!(found.tokens, [2, 4]);
        assert!((found.logprob - (0.4f32 * 0.9 * 0.9).ln()).abs() < 1e-5);
        assert!(asked <= 1 + 2 * WIDTH, "{asked}");
    }

    #[test]
    fn what_is_sure_is_left_alone_and_the_search_ends() {
        let sure = Hypothesis { tokens: vec![1], logprob: -0.01 };
        let (found, asked) = search(sure.clone(), &[(&[], &[(1, 0.9), (2, 0.05), (3, 0.05)])]);
        assert_eq!((found, asked), (sure, 1), "no beginning is as likely as the whole text");
        // Something that never ends.
        let mut beam = Beam::new(Hypothesis { tokens: Vec::new(), logprob: f32::NEG_INFINITY });
        let mut asked = 0;
        while beam.next().is_some() {
            beam.push(&[1, 2, 3].map(|token| Choice { token, logprob: -1.0 }), |token| token == END);
            asked += 1;
        }
        assert_eq!(asked, 1 + WIDTH * MAX_TOKENS);
        assert!(beam.finish().tokens.is_empty());
    }
}
