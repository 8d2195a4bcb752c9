//! One transcription in progress.

use std::collections::VecDeque;
use std::ops::Range;

use causerie_kernels::Pool;

use super::beam::{self, Beam, Hypothesis};
use super::decoder::Cache;
use super::greedy::{doubled, loop_start, probability};
use super::layers::Buffers;
use super::{SAMPLE_RATE, Whisper, window};

/// Audio shorter than this has no word in it.
const MIN_SAMPLES: usize = SAMPLE_RATE as usize / 10;
/// Audio without a sample above this (-80 dB) is silence, and not listened to.
const SILENCE: f32 = 1e-4;
/// A text is taken for noise if nobody speaks with at least this probability,
const MIN_NO_SPEECH: f32 = 0.5;
/// and the average of its log-probabilities is below this. Measured with base: of 45 noises, tones and clicks all were
/// below -0.6 and above 0.55; of 80 spoken clips, noisy ones down to 0 dB among them, none had more than 0.3. If
/// somebody does speak, a short text below this is searched for again, more widely.
const MAX_NOISE_LOGPROB: f32 = -0.5;
/// Tokens of a draft that are checked at once: more would make a quantum too long.
const DRAFT_BATCH: usize = 8;
/// Tokens of a text, beside those for each second. A transcript that reaches its cap is cut there.
const BASE_TOKENS: usize = 12;
/// Fast English has 7 tokens a second with its punctuation.
const ENGLISH_TOKENS_PER_SECOND: usize = 10;
/// A text that says everything twice is one that was said once, if it would have been said faster than this.
const MAX_TOKENS_PER_SECOND: usize = 5;
/// Scripts that the vocabulary knows less well have a token for a letter, or three.
const TOKENS_PER_SECOND: usize = 30;
/// Times that a segment is listened to, each with more room behind it than before.
const ATTEMPTS: usize = 2;

/// How to transcribe.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// BCP-47 tag of the spoken language; `None`, or one that the model does not know, lets it find out.
    pub language: Option<String>,
    /// Text tokens of an earlier transcript of the beginning of the same audio. They do not change the result: as far
    /// as the model would choose them again they are confirmed many at once, which is faster than one by one.
    pub draft: Vec<u32>,
}

/// What one quantum brought.
#[derive(Debug)]
pub enum Progress {
    /// There is more to do.
    More,
    /// The transcription is complete; further steps do nothing and return an empty transcript.
    Done(Transcript),
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    /// Trimmed text; empty when nobody spoke.
    pub text: String,
    /// Its tokens, for [`Options::draft`].
    pub tokens: Vec<u32>,
    /// Tag of its language; empty when nothing was listened to.
    pub language: String,
    /// Average of the logarithms of the tokens' probabilities; nearer to 0 is surer.
    pub avg_logprob: f32,
    /// Probability that nobody speaks.
    pub no_speech: f32,
}

/// One transcription in progress. Owns its buffers; [`Pass::step`] does one quantum.
pub struct Pass {
    pcm: Vec<f32>,
    segments: VecDeque<Range<usize>>,
    /// Tag and token, once known.
    language: Option<(&'static str, u32)>,
    draft: Vec<u32>,
    attempt: usize,
    stage: Stage,
    buffers: Buffers,
    /// What the running stage works on: mel, or the encoder's rows.
    x: Vec<f32>,
    cache: Cache,
    logits: Vec<f32>,
    /// The text of the running segment.
    text: Text,
    /// The search for a better one.
    beam: Option<Beam>,
    /// That of the finished ones.
    transcript: Transcript,
    /// Tokens that its average is over.
    counted: usize,
}

/// What the next quantum does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    LogMel,
    Embed,
    Attention(usize),
    FeedForward(usize),
    Hear,
    DetectLanguage,
    Decode,
    Search,
}

/// The text of one segment.
#[derive(Default)]
struct Text {
    /// Instructions that the decoder has not seen yet.
    instructions: Vec<u32>,
    /// How many there are, those seen included.
    prompt: usize,
    /// All but the last have been seen.
    tokens: Vec<u32>,
    logprob: f32,
    no_speech: f32,
}

/// What a quantum of decoding brought.
enum Decoded {
    More,
    Complete,
    /// The text goes round in circles; with the phrase said once it has so many tokens.
    Loop(usize),
}

impl Pass {
    pub(super) fn new(whisper: &Whisper, mut pcm: Vec<f32>, options: Options) -> Self {
        pcm.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = 0.0);
        let segments = window::segments(&pcm).into();
        let language = options.language.and_then(|tag| whisper.vocabulary.language(&tag));
        let mut pass = Self {
            pcm,
            segments,
            language,
            draft: options.draft,
            attempt: 0,
            stage: Stage::LogMel,
            buffers: Buffers::default(),
            x: Vec::new(),
            cache: Cache::default(),
            logits: Vec::new(),
            text: Text::default(),
            beam: None,
            transcript: Transcript { no_speech: 1.0, ..Transcript::default() },
            counted: 0,
        };
        pass.skip_silence();
        pass
    }

    /// Does one quantum of work.
    pub fn step(&mut self, whisper: &Whisper, pool: &Pool) -> Progress {
        let Some(segment) = self.segments.front().cloned() else {
            return Progress::Done(std::mem::take(&mut self.transcript));
        };
        let Whisper { encoder, decoder, .. } = whisper;
        let rows = whisper.plan.rows(segment.len(), self.attempt, encoder.max_rows());
        let buffers = &mut self.buffers;
        self.stage = match self.stage {
            Stage::LogMel => {
                self.x = encoder.log_mel(pool, &self.pcm[segment], rows);
                Stage::Embed
            }
            Stage::Embed => {
                self.x = encoder.embed(pool, buffers, &self.x);
                Stage::Attention(0)
            }
            Stage::Attention(layer) => {
                encoder.attention(pool, buffers, layer, &mut self.x);
                Stage::FeedForward(layer)
            }
            Stage::FeedForward(layer) => {
                encoder.feed_forward(pool, buffers, layer, &mut self.x);
                if layer + 1 < encoder.layers.len() {
                    Stage::Attention(layer + 1)
                } else {
                    self.x = encoder.finish(pool, &self.x);
                    self.cache = Cache::default();
                    Stage::Hear
                }
            }
            Stage::Hear => {
                if decoder.hear(pool, buffers, &mut self.cache, &self.x) {
                    self.begin_text(whisper)
                } else {
                    Stage::Hear
                }
            }
            Stage::DetectLanguage => {
                self.detect_language(whisper, pool);
                Stage::Decode
            }
            Stage::Decode => match self.decode(whisper, pool, segment.len()) {
                Decoded::More => Stage::Decode,
                Decoded::Loop(_) if self.attempt + 1 < ATTEMPTS && rows < encoder.max_rows() => {
                    self.attempt += 1;
                    Stage::LogMel
                }
                Decoded::Loop(len) => {
                    self.text.tokens.truncate(len);
                    self.finish_segment(whisper)
                }
                Decoded::Complete if self.is_unsure() => {
                    let Text { tokens, logprob, .. } = &mut self.text;
                    self.beam = Some(Beam::new(Hypothesis { tokens: std::mem::take(tokens), logprob: *logprob }));
                    Stage::Search
                }
                Decoded::Complete => self.finish_segment(whisper),
            },
            Stage::Search => {
                if self.search(whisper, pool) {
                    Stage::Search
                } else {
                    self.finish_segment(whisper)
                }
            }
        };
        Progress::More
    }

    /// Drops segments in which there is nothing to hear.
    fn skip_silence(&mut self) {
        let is_silent = |pcm: &[f32]| pcm.len() < MIN_SAMPLES || pcm.iter().all(|v| v.abs() < SILENCE);
        while self.segments.front().is_some_and(|segment| is_silent(&self.pcm[segment.clone()])) {
            self.segments.pop_front();
        }
    }

    fn begin_text(&mut self, whisper: &Whisper) -> Stage {
        self.text = Text::default();
        if self.language.is_none() && !whisper.vocabulary.choices().is_empty() {
            return Stage::DetectLanguage;
        }
        self.text.instructions.push(whisper.vocabulary.special.start_of_transcript);
        self.instruct(whisper);
        Stage::Decode
    }

    /// Language and task, for models that have a choice.
    fn instruct(&mut self, whisper: &Whisper) {
        let special = whisper.vocabulary.special;
        let task = self.language.into_iter().flat_map(|(_, language)| [language, special.transcribe]);
        self.text.instructions.extend(task);
        self.text.instructions.push(special.no_timestamps);
        self.text.prompt = self.cache.len() + self.text.instructions.len();
    }

    fn detect_language(&mut self, whisper: &Whisper, pool: &Pool) {
        let special = whisper.vocabulary.special;
        let start = [special.start_of_transcript];
        whisper.decoder.forward(pool, &mut self.buffers, &mut self.cache, &start, &[0], &mut self.logits);
        self.text.no_speech = probability(&self.logits, special.no_speech);
        let logits = &self.logits;
        let choices = whisper.vocabulary.choices().iter().copied();
        self.language = choices.max_by(|a, b| logits[a.1 as usize].total_cmp(&logits[b.1 as usize]));
        self.instruct(whisper);
    }

    /// Feeds the instructions or the last token, and as much of the draft as fits a quantum.
    fn decode(&mut self, whisper: &Whisper, pool: &Pool, samples: usize) -> Decoded {
        let special = whisper.vocabulary.special;
        let cap = self.cap(whisper, samples);
        let text = &mut self.text;
        let mut fed = std::mem::take(&mut text.instructions);
        fed.extend(text.tokens.last());
        let last = fed.len() - 1;
        let draft = self.draft.get(text.tokens.len()..).unwrap_or_default().iter().copied();
        let room = DRAFT_BATCH.min(cap - text.tokens.len());
        fed.extend(draft.take_while(|&token| token < special.end_of_text).take(room));
        let starts = fed[0] == special.start_of_transcript;
        let wanted: Vec<usize> = starts.then_some(0).into_iter().chain(last..fed.len()).collect();
        whisper.decoder.forward(pool, &mut self.buffers, &mut self.cache, &fed, &wanted, &mut self.logits);

        let width = self.logits.len() / wanted.len();
        let mut rows = self.logits.chunks_exact_mut(width);
        if starts && let Some(logits) = rows.next() {
            text.no_speech = probability(logits, special.no_speech);
        }
        for (logits, next) in rows.zip(last + 1..) {
            let choice = whisper.rules.choose(logits, text.tokens.is_empty());
            text.logprob += choice.logprob;
            if whisper.rules.ends(choice.token) {
                let fast = text.tokens.len() * SAMPLE_RATE as usize > MAX_TOKENS_PER_SECOND * samples;
                return doubled(&text.tokens).filter(|_| fast).map_or(Decoded::Complete, Decoded::Loop);
            }
            if self.draft.get(text.tokens.len()).is_some_and(|&drafted| drafted != choice.token) {
                self.draft.clear();
            }
            text.tokens.push(choice.token);
            if text.tokens.len() >= cap {
                return Decoded::Complete;
            }
            if let Some(len) = loop_start(&text.tokens) {
                return Decoded::Loop(len);
            }
            if fed.get(next) != Some(&choice.token) {
                break;
            }
        }
        // What was fed behind a wrong guess is forgotten.
        self.cache.truncate(text.prompt + text.tokens.len() - 1);
        Decoded::More
    }

    /// Whether the text is somebody's and short, and its tokens are unlikely.
    fn is_unsure(&self) -> bool {
        let text = &self.text;
        (1..=beam::MAX_TOKENS).contains(&text.tokens.len())
            && text.no_speech < MIN_NO_SPEECH
            && text.logprob / ((text.tokens.len() + 1) as f32) < MAX_NOISE_LOGPROB
    }

    /// Continues one beginning of the search. Whether there is more to do.
    ///
    /// Its tokens are fed again, all at once, which for so few is about as fast as one, and needs no second cache.
    fn search(&mut self, whisper: &Whisper, pool: &Pool) -> bool {
        let Some(mut beam) = self.beam.take() else { return false };
        let Some(beginning) = beam.next() else {
            Hypothesis { tokens: self.text.tokens, logprob: self.text.logprob } = beam.finish();
            return false;
        };
        let fed: Vec<u32> = [whisper.vocabulary.special.no_timestamps].iter().chain(beginning).copied().collect();
        self.cache.truncate(self.text.prompt - 1);
        let last = fed.len() - 1;
        whisper.decoder.forward(pool, &mut self.buffers, &mut self.cache, &fed, &[last], &mut self.logits);
        let choices = whisper.rules.likeliest(&mut self.logits, last == 0, beam::WIDTH);
        beam.push(&choices, |token| whisper.rules.ends(token));
        self.beam = Some(beam);
        true
    }

    /// Tokens that the text of so many samples may have.
    fn cap(&self, whisper: &Whisper, samples: usize) -> usize {
        let is_english = self.language.is_none_or(|(tag, _)| tag == "en");
        let rate = if is_english { ENGLISH_TOKENS_PER_SECOND } else { TOKENS_PER_SECOND };
        let by_length = BASE_TOKENS + rate * samples.div_ceil(SAMPLE_RATE as usize);
        by_length.min(whisper.decoder.max_tokens() - self.text.prompt)
    }

    /// Adds the segment's text to the transcript and goes on to the next.
    fn finish_segment(&mut self, whisper: &Whisper) -> Stage {
        let text = std::mem::take(&mut self.text);
        self.draft = self.draft.strip_prefix(&*text.tokens).unwrap_or_default().to_vec();
        // The end of the text was chosen too.
        let counted = text.tokens.len() + 1;
        let out = &mut self.transcript;
        let total = out.avg_logprob * self.counted as f32 + text.logprob;
        self.counted += counted;
        out.avg_logprob = total / self.counted as f32;
        out.no_speech = out.no_speech.min(text.no_speech);
        self.language.map_or("en", |(tag, _)| tag).clone_into(&mut out.language);
        let is_noise = text.no_speech >= MIN_NO_SPEECH && text.logprob / (counted as f32) < MAX_NOISE_LOGPROB;
        let said = whisper.vocabulary.text(&text.tokens);
        if !is_noise && !said.trim().is_empty() {
            if !out.text.is_empty() {
                out.text.push(' ');
            }
            out.text.push_str(said.trim());
            out.tokens.extend(text.tokens);
        }
        self.attempt = 0;
        self.segments.pop_front();
        self.skip_silence();
        Stage::LogMel
    }
}
