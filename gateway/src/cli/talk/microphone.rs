//! The sending side: utterances cut into 20 ms pieces and sent by absolute deadlines, with silence between them, as a
//! sound card would.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use causerie_proto::v1::{Blob, ClientContent, ClientMessage, RealtimeInput, client_message::MessageType};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{message, text_content};

/// Sample rate of what is sent.
const RATE: usize = 16_000;

/// Samples of a piece.
const PIECE: usize = RATE / 50;

/// Time of a piece.
const PIECE_TIME: Duration = Duration::from_millis(20);

/// A window is speech if its level is within this of the loudest window's: the usual distance between voice and room.
const SPEECH_BELOW_PEAK_DB: f32 = 35.0;

/// When to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// When the sound would have been heard.
    Speech,
    /// At once, with a mark at the end of each utterance.
    Fast,
}

/// Something to say.
pub(super) struct Utterance {
    kind: Kind,
    /// Told when the last sample of speech was spoken (at the pace of speech: when it was due), or the text was sent.
    pub(super) spoken: Option<oneshot::Sender<std::time::Instant>>,
}

enum Kind {
    /// Samples, the next one to send, and the end of speech among them.
    Audio {
        samples: Vec<f32>,
        next: usize,
        speech_end: usize,
    },
    Text(String),
}

impl Utterance {
    /// Samples at 16 kHz.
    pub(super) fn audio(samples: Vec<f32>) -> Self {
        let speech_end = speech_end(&samples);
        Self { kind: Kind::Audio { samples, next: 0, speech_end }, spoken: None }
    }

    /// Typed words.
    pub(super) fn text(text: String) -> Self {
        Self { kind: Kind::Text(text), spoken: None }
    }
}

/// Says what comes from `utterances` until that channel is closed. Silence is sent between utterances once the first
/// sound was, unless the pace is fast.
pub(super) async fn speak(pace: Pace, mut utterances: Receiver<Utterance>, outbox: Sender<ClientMessage>) {
    // The time of sample 0, and samples sent since.
    let mut origin: Option<Instant> = None;
    let mut sent = 0_usize;
    let mut current: Option<Utterance> = None;
    loop {
        if current.is_none() {
            current = match utterances.try_recv() {
                Ok(utterance) => Some(utterance),
                Err(mpsc::error::TryRecvError::Disconnected) => return,
                // Nobody listens to a microphone that was never opened.
                Err(mpsc::error::TryRecvError::Empty) if origin.is_none() || pace == Pace::Fast => {
                    match utterances.recv().await {
                        Some(utterance) => Some(utterance),
                        None => return,
                    }
                }
                Err(mpsc::error::TryRecvError::Empty) => None,
            };
        }
        let mut piece = [0.0; PIECE];
        let mut speech_ends_at = None;
        let mut done = false;
        match &mut current {
            Some(Utterance { kind: Kind::Text(text), spoken }) => {
                let content = ClientContent { turns: vec![text_content(std::mem::take(text))], turn_complete: true };
                if outbox.send(message(MessageType::ClientContent(content))).await.is_err() {
                    return;
                }
                tell(spoken, Instant::now());
                current = None;
                continue;
            }
            Some(Utterance { kind: Kind::Audio { samples, next, speech_end }, .. }) => {
                let end = samples.len().min(*next + PIECE);
                piece[..end - *next].copy_from_slice(&samples[*next..end]);
                speech_ends_at = (*next..end).contains(&(*speech_end - 1)).then(|| *speech_end - *next);
                done = end == samples.len();
                *next = end;
            }
            None => {}
        }
        let begin = *origin.get_or_insert_with(Instant::now);
        if pace == Pace::Speech {
            // A piece exists once its last sample was heard.
            tokio::time::sleep_until(begin + time_of(sent + PIECE)).await;
        }
        if outbox.send(audio(&piece)).await.is_err() {
            return;
        }
        if let (Some(offset), Some(utterance)) = (speech_ends_at, &mut current) {
            let at = if pace == Pace::Speech { begin + time_of(sent + offset) } else { Instant::now() };
            tell(&mut utterance.spoken, at);
        }
        sent += PIECE;
        if done {
            current = None;
            if pace == Pace::Fast && outbox.send(end_mark()).await.is_err() {
                return;
            }
        }
    }
}

/// Sends raw 16-bit audio as it comes from a pipe, until the pipe ends.
pub(super) async fn pipe(mut source: impl Read + Send + 'static, outbox: Sender<ClientMessage>) {
    // Two seconds; when the server takes no more, the pipe is read no further.
    let (pieces, mut incoming) = mpsc::channel::<Vec<u8>>(100);
    // Reading blocks, so it has a thread. It ends with the pipe, or at the first piece that nobody wants.
    std::thread::spawn(move || {
        loop {
            let mut piece = Vec::with_capacity(2 * PIECE);
            let wanted = 2 * PIECE as u64;
            match source.by_ref().take(wanted).read_to_end(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(count) => piece.truncate(count & !1),
            }
            if pieces.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    while let Some(piece) = incoming.recv().await {
        if outbox.send(blob(piece.into())).await.is_err() {
            return;
        }
    }
    // A failure here means that the server ended the stream first; the receiving side says why.
    let _ = outbox.send(end_mark()).await;
}

fn tell(spoken: &mut Option<oneshot::Sender<std::time::Instant>>, at: Instant) {
    if let Some(spoken) = spoken.take() {
        // Nobody listens any more when the conversation has failed.
        let _ = spoken.send(at.into_std());
    }
}

fn time_of(samples: usize) -> Duration {
    PIECE_TIME * (samples / PIECE) as u32 + PIECE_TIME * (samples % PIECE) as u32 / PIECE as u32
}

fn audio(samples: &[f32]) -> ClientMessage {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| ((sample * 32_767.0).round() as i16).to_le_bytes()).collect();
    blob(bytes.into())
}

fn blob(data: Bytes) -> ClientMessage {
    let audio = Blob { mime_type: format!("audio/pcm;rate={RATE}"), data };
    message(MessageType::RealtimeInput(RealtimeInput { audio: Some(audio), ..RealtimeInput::default() }))
}

fn end_mark() -> ClientMessage {
    message(MessageType::RealtimeInput(RealtimeInput { audio_stream_end: Some(true), ..RealtimeInput::default() }))
}

/// One past the last sample of speech: the end of the last 10 ms window that is not much quieter than the loudest.
fn speech_end(samples: &[f32]) -> usize {
    let window = RATE / 100;
    let levels: Vec<f32> = samples.chunks(window).map(causerie_codec::level::rms_db).collect();
    let loudest = levels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let last = levels.iter().rposition(|&level| level >= loudest - SPEECH_BELOW_PEAK_DB);
    last.map_or(samples.len(), |index| samples.len().min((index + 1) * window))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(seconds: f32, amplitude: f32) -> Vec<f32> {
        (0..(seconds * RATE as f32) as usize).map(|n| amplitude * (n as f32 * 0.2).sin()).collect()
    }

    #[test]
    fn speech_ends_where_the_sound_does_and_not_where_the_noise_does() {
        for (tail, expected) in [(vec![], 16_000), (vec![0.0; 8_000], 16_000), (tone(0.5, 0.003), 16_000)] {
            let samples = [tone(1.0, 0.5), tail].concat();
            assert_eq!(speech_end(&samples), expected);
        }
        assert_eq!(speech_end(&[0.0; 100]), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_leave_when_their_last_sample_was_heard() {
        let (speak_to, utterances) = mpsc::channel(1);
        let (outbox, mut sent) = mpsc::channel(4);
        let start = Instant::now();
        let (spoken, mut heard) = oneshot::channel();
        let mut utterance = Utterance::audio([tone(0.09, 0.5), vec![0.0; 160]].concat());
        utterance.spoken = Some(spoken);
        speak_to.send(utterance).await.unwrap();
        let task = tokio::spawn(speak(Pace::Speech, utterances, outbox));
        for index in 1..=8 {
            let Some(MessageType::RealtimeInput(input)) = sent.recv().await.unwrap().message_type else {
                panic!("not audio")
            };
            let blob = input.audio.unwrap();
            assert_eq!(blob.data.len(), 2 * PIECE);
            // Five pieces of speech, then silence goes on.
            assert_eq!(blob.data.iter().any(|&byte| byte != 0), index <= 5, "piece {index}");
            let at = start.elapsed();
            let due = PIECE_TIME * index;
            // Timers have a resolution of a millisecond.
            assert!(at >= due && at <= due + Duration::from_millis(1), "piece {index} left at {at:?}");
        }
        // The silence at the end of the utterance is not speech.
        assert_eq!(heard.try_recv().unwrap(), (start + Duration::from_millis(90)).into_std());
        drop(speak_to);
        while sent.recv().await.is_some() {}
        task.await.unwrap();
    }

    #[tokio::test]
    async fn fast_speech_has_a_mark_at_its_end_and_no_silence() {
        let (speak_to, utterances) = mpsc::channel(1);
        let (outbox, mut sent) = mpsc::channel(64);
        speak_to.send(Utterance::audio(tone(0.1, 0.5))).await.unwrap();
        drop(speak_to);
        speak(Pace::Fast, utterances, outbox).await;
        let mut kinds = Vec::new();
        while let Some(message) = sent.recv().await {
            let Some(MessageType::RealtimeInput(input)) = message.message_type else { panic!("not realtime input") };
            kinds.push((input.audio.is_some(), input.audio_stream_end));
        }
        let mut expected = vec![(true, None); 5];
        expected.push((false, Some(true)));
        assert_eq!(kinds, expected);
    }

    #[tokio::test]
    async fn a_pipe_is_sent_whole() {
        let bytes: Vec<u8> = (0..2000_u32).map(|n| n as u8).collect();
        let (outbox, mut sent) = mpsc::channel(64);
        pipe(std::io::Cursor::new(bytes.clone()), outbox).await;
        let mut got = Vec::new();
        let mut ended = false;
        while let Some(message) = sent.recv().await {
            let Some(MessageType::RealtimeInput(input)) = message.message_type else { panic!("not realtime input") };
            got.extend(input.audio.iter().flat_map(|blob| blob.data.clone()));
            ended |= input.audio_stream_end == Some(true);
        }
        assert_eq!(got, bytes);
        assert!(ended);
    }
}
