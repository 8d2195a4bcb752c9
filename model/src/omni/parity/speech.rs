//! Cases of speech: the likeliest words, the likeliest codes, the sound.

use causerie_kernels::Pool;
use causerie_kernels::ops::linear;
use causerie_kernels::ops::sample::{self, Context, Params, argmax};

use super::thinker::{Prompted, prompt};
use super::{Case, Computed};
use crate::omni::decoder::{Deepstack, Input, Scratch, Segment};
use crate::omni::kv::Sequence;
use crate::omni::talker::{self, Opening, Prompt};
use crate::omni::trace::Trace;
use crate::omni::{Omni, OmniError};

/// The voice of the recorded speech.
const SPEAKER: &str = "ethan";
/// The penalty on codes that were spoken before.
const REPETITION: f32 = 1.05;
const BLOCK: usize = 16;

/// The sound of recorded codes.
pub(super) fn vocode(pool: &Pool, omni: &Omni, case: &Case) -> Result<Computed, OmniError> {
    let groups = omni.config.code2wav.quantizers;
    let codes = case.tokens("codes")?;
    let frames = codes.len() / groups;
    let turned: Vec<u32> = (0..codes.len()).map(|i| codes[i % groups * frames + i / groups]).collect();
    Ok(Computed::from([("wav".into(), sound(pool, omni, &turned)?)]))
}

/// The sound of `[frames, groups]`.
fn sound(pool: &Pool, omni: &Omni, frames: &[u32]) -> Result<Vec<f32>, OmniError> {
    let mut pcm = Vec::new();
    omni.code2wav.push(pool, &mut omni.code2wav.voice(), frames, &mut pcm)?;
    Ok(pcm)
}

/// Answers the prompt of `source` with as many words and frames as were recorded.
pub(super) fn speak(pool: &Pool, omni: &Omni, source: &Case, case: &Case) -> Result<Computed, OmniError> {
    let length = case.dimensions("out.sequences")?.iter().product::<usize>();
    let steps = case.dimensions("out.talker_logits")?[0];
    let mut prompted = prompt(pool, omni, source, length)?;
    let words = think(pool, omni, &mut prompted, length)?;
    let mut computed = Computed::new();
    let sequence: Vec<f32> = prompted.tokens.iter().chain(&words).map(|t| *t as f32).collect();
    computed.insert("sequences".into(), sequence);

    // The last token of a sequence is never spoken, be it an end or not.
    let (first, rest) = words[..words.len().saturating_sub(1)].split_first().unwrap_or((&omni.config.ids.tts_eos, &[]));
    let speaker = omni.config.talker.speakers.iter().find(|(name, _)| name == SPEAKER);
    let speaker = speaker.ok_or_else(|| OmniError::Input(format!("there is no voice {SPEAKER}")))?.1;
    let Prompted { tokens, media, images, videos, .. } = &prompted;
    let opening = Opening::new(
        &omni.config,
        &mut omni.projections(pool),
        &Prompt { tokens, media, images, videos },
        speaker,
        *first,
    )?;
    let axes = (0..3).flat_map(|axis| opening.positions.iter().map(move |p| p[axis] as f32));
    computed.insert("talker_prefill_position_ids".into(), axes.collect());
    let frames = talk(pool, omni, opening, rest, steps, &mut computed)?;

    let groups = omni.config.talker.code_groups;
    let count = frames.len() / groups;
    let codes = (0..frames.len()).map(|i| frames[i % count * groups + i / count] as f32);
    computed.insert("codes".into(), codes.collect());
    computed.insert("wav".into(), sound(pool, omni, &frames)?);
    Ok(computed)
}

/// The likeliest words, up to a sequence of `length` tokens.
fn think(pool: &Pool, omni: &Omni, prompted: &mut Prompted, length: usize) -> Result<Vec<u32>, OmniError> {
    let vocabulary = omni.config.thinker.text.vocabulary;
    let (mut words, mut logits) = (Vec::new(), prompted.logits[prompted.logits.len() - vocabulary..].to_vec());
    loop {
        let word = argmax(&logits).0;
        words.push(word);
        if word == omni.config.ids.im_end || prompted.tokens.len() + words.len() >= length {
            return Ok(words);
        }
        let mut embedding = Vec::new();
        omni.thinker.embed(&[word], &mut embedding)?;
        let position = prompted.positions.next + (words.len() - 1) as f64;
        let input =
            Input { embeddings: &embedding, positions: &[[position; 3]], deepstack: Deepstack::default(), keep: None };
        let mut segments = [Segment { sequence: &mut prompted.sequence, rows: 1 }];
        let (scratch, store) = (&mut prompted.scratch, &mut prompted.store);
        omni.thinker.decoder.forward(pool, scratch, store, &mut segments, &input, Trace::off())?;
        omni.thinker.logits(pool, &mut linear::Scratch::default(), &scratch.hidden, &mut logits);
    }
}

/// The likeliest frames, `[frames, groups]`, after at most `steps` decisions.
fn talk(
    pool: &Pool,
    omni: &Omni,
    opening: Opening,
    words: &[u32],
    steps: usize,
    computed: &mut Computed,
) -> Result<Vec<u32>, OmniError> {
    let talker = &omni.talker;
    let (width, ids) = (talker.config().text.hidden, &omni.config.ids);
    let mut buffers = talker::Scratch::default();
    let mut embeddings = Vec::new();
    omni.thinker.embed(&[words, &[ids.tts_eos, ids.tts_pad]].concat(), &mut embeddings)?;
    let mut text = Vec::new();
    talker.project_text(pool, &mut buffers, &embeddings, &mut text);
    let words: Vec<&[f32]> = text.chunks_exact(width).collect();

    let mut store = talker.decoder.store(BLOCK, (opening.positions.len() + steps).div_ceil(BLOCK));
    let (mut scratch, mut sequence) = (Scratch::default(), Sequence::default());
    let mut frames_of_predictor = talker.predictor.frames(1);
    let (mut rows, mut positions) = (opening.rows, opening.positions);
    let (mut history, mut frames, mut logits) = (Vec::new(), Vec::new(), Vec::new());
    let mut record = |name: &str, values: &[f32]| {
        computed.entry(name.to_owned()).or_default().extend_from_slice(values);
    };
    record("talker_prefill_embeds", &rows);
    for step in 0..steps {
        let mut segments = [Segment { sequence: &mut sequence, rows: positions.len() }];
        let input = Input { embeddings: &rows, positions: &positions, deepstack: Deepstack::default(), keep: None };
        talker.decoder.forward(pool, &mut scratch, &mut store, &mut segments, &input, Trace::off())?;
        if step == 0 {
            record("talker_prefill_hidden", &scratch.hidden);
        }
        let state = scratch.hidden[scratch.hidden.len() - width..].to_vec();
        talker.logits(pool, &mut buffers, &state, &mut logits);
        record("talker_logits", &logits);
        talker.suppress(&mut logits);
        let params = Params { repetition: REPETITION, ..Params::default() };
        let context = Context { seen: &history, reply: &[] };
        let code = sample::sample(&mut sample::Scratch::default(), &mut logits, &params, context, 0, 0);
        history.push(code);
        if code == talker.config().ids.eos || step + 1 == steps {
            break;
        }
        let mut start = [state, vec![0.0; width]].concat();
        talker.add_code(&mut buffers, code, &mut start[width..]);
        let mut frame = vec![code];
        talker.predictor.complete(pool, &mut frames_of_predictor, &start, &mut |_, _, logits| {
            record("predictor_logits", logits);
            frame.push(argmax(logits).0);
            frame[frame.len() - 1]
        })?;
        rows = vec![0.0; width];
        talker.next_row(&mut buffers, &frame, words[step.min(words.len() - 1)], &mut rows);
        record("talker_step_embeds", &rows);
        positions = vec![[opening.next + step as f64; 3]];
        frames.extend(frame);
    }
    Ok(frames)
}
