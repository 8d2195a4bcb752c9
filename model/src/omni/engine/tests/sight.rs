use causerie_model_api::{Content, MediaResolution, Origin, Picture, Usage};

use super::*;
use crate::omni::config::Config;
use crate::omni::engine::early::MAX_FRAMES;
use crate::omni::engine::form::End;
use crate::omni::engine::history::{Entry, Piece};
use crate::omni::engine::media::Sight;

/// A picture of its own for every `seed`; `side` pixels are `side / 32` tokens in both directions.
fn picture(seed: u32, side: u32) -> Picture {
    let rgb: Vec<u8> = (0..side * side * 3).map(|i| ((i * 7 + i / 96 * seed) % 256) as u8).collect();
    Picture::new(side, side, rgb, MediaResolution::Low).unwrap()
}

fn frame(e: &mut OmniEngine, at: u64, seed: u32) {
    e.submit(Request::Frame { session: S, at: InputSamples(at), picture: picture(seed, 64) }).unwrap();
}

fn show(e: &mut OmniEngine, turn: u64, shown: Option<Picture>) {
    let mut content = vec![Content::Text("what is this?".into())];
    content.extend(shown.map(Content::Picture));
    e.submit(Request::Append { session: S, items: vec![Item { role: Role::User, content }] }).unwrap();
    e.submit(Request::Start { session: S, turn: TurnId(turn), cause: Cause::History }).unwrap();
}

fn usage(reply: &Reply) -> Usage {
    match reply.done {
        Some(Event::Done { usage, .. }) => usage,
        _ => panic!("the turn never ended: {reply:?}"),
    }
}

#[test]
fn what_is_shown_makes_a_difference() {
    let answer = |shown: Option<Picture>| {
        let mut e = engine(1);
        assert!(e.capabilities().video_in);
        open(&mut e, S, config(1));
        show(&mut e, 1, shown);
        reply(&settle(&mut e), 1)
    };
    let [none, one, two] = [None, Some(picture(1, 64)), Some(picture(2, 64))].map(answer);
    assert_eq!([&none, &one, &two].map(|r| usage(r).prompt_video), [0, 4, 4]);
    assert!(one.pcm != none.pcm && one.pcm != two.pcm && one.text != none.text);
    assert_eq!(usage(&one).prompt_text, usage(&none).prompt_text + 2, "two tokens around the picture");
    assert!(answer(Some(picture(1, 64))) == one);
}

#[test]
fn a_picture_read_early_in_chunks_is_the_same_picture() {
    let answer = |early: bool| {
        let mut e = engine(1);
        open(&mut e, S, config(4));
        // 64 tokens: two passes at the least.
        let content = vec![Content::Picture(picture(3, 256)), Content::Text("well?".into())];
        e.submit(Request::Append { session: S, items: vec![Item { role: Role::User, content }] }).unwrap();
        if early {
            assert_eq!(settle(&mut e), [Event::Opened]);
        }
        e.submit(Request::Start { session: S, turn: TurnId(1), cause: Cause::History }).unwrap();
        let reply = reply(&settle(&mut e), 1);
        (usage(&reply), Reply { done: None, ..reply })
    };
    let ((late, at_once), (early, before)) = (answer(false), answer(true));
    assert_eq!((late.prompt_video, early.prompt_video), (64, 64));
    assert_eq!(late.cached, 0);
    assert!(early.cached > 64, "{early:?}");
    assert!(at_once == before);
}

#[test]
fn frames_are_seen_by_the_turn_that_ends_after_them() {
    let spoken = |frames: &[(u64, u32)]| {
        let mut e = engine(1);
        open(&mut e, S, config(2));
        tone(&mut e, S, 0, 20_000);
        frames.iter().for_each(|(at, seed)| frame(&mut e, *at, *seed));
        tone(&mut e, S, 20_000, 20_000);
        settle(&mut e);
        let cause = Cause::Utterance { from: InputSamples(4_000), until: InputSamples(24_000) };
        e.submit(Request::Start { session: S, turn: TurnId(1), cause }).unwrap();
        let first = reply(&settle(&mut e), 1);
        show(&mut e, 2, None);
        (first, usage(&reply(&settle(&mut e), 2)).prompt_video)
    };
    let (blind, _) = spoken(&[]);
    let (seeing, all) = spoken(&[(1_000, 1), (17_000, 2), (33_000, 3)]);
    assert_eq!((usage(&blind).prompt_video, usage(&seeing).prompt_video), (0, 8));
    assert_eq!(all, 12, "the third frame came after the first turn and stands before the second");
    assert!(blind.pcm != seeing.pcm);
}

#[test]
fn a_speaker_who_goes_on_is_seen_as_if_there_had_been_no_pause() {
    let run = |proposals: bool| {
        let mut e = engine(1);
        open(&mut e, S, config(6));
        e.submit(Request::Listen { session: S, from: InputSamples(0) }).unwrap();
        tone(&mut e, S, 0, 16_000);
        frame(&mut e, 8_000, 1);
        if proposals {
            let (from, until) = (InputSamples(0), InputSamples(15_000));
            e.submit(Request::Propose { session: S, turn: TurnId(1), from, until }).unwrap();
            settle(&mut e);
            e.submit(Request::Commit { session: S, turn: TurnId(1) }).unwrap();
            settle(&mut e);
            let heard_until = OutputSamples(0);
            e.submit(Request::Cancel { session: S, turn: TurnId(1), heard_until }).unwrap();
            e.submit(Request::Listen { session: S, from: InputSamples(0) }).unwrap();
        }
        tone(&mut e, S, 16_000, 16_000);
        frame(&mut e, 24_000, 2);
        let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(32_000) };
        e.submit(Request::Start { session: S, turn: TurnId(2), cause }).unwrap();
        let reply = reply(&settle(&mut e), 2);
        (usage(&reply).prompt_video, Reply { done: None, ..reply })
    };
    let (plain, taken_back) = (run(false), run(true));
    assert_eq!(plain.0, 8);
    assert!(plain == taken_back);
}

#[test]
fn frames_that_wait_are_thinned_out_and_not_kept_for_ever() {
    let mut e = engine(1);
    open(&mut e, S, config(3));
    for second in 0..200 {
        frame(&mut e, second * 16_000, second as u32);
        if second % 7 == 0 {
            settle(&mut e);
        }
        let eye = &e.sessions[&S].eye;
        assert!(eye.frames.len() <= MAX_FRAMES && eye.unseen.len() <= MAX_FRAMES && eye.seen.len() <= 2 * MAX_FRAMES);
    }
    settle(&mut e);
    let eye = &e.sessions[&S].eye;
    let at: Vec<u64> = eye.frames.iter().filter_map(|frame| frame.at).collect();
    assert!(at.is_sorted() && at[0] < 60 * 16_000 && *at.last().unwrap() == 199 * 16_000, "{at:?}");
    assert!(eye.unseen.is_empty());
    // All frames that are left are in the prompt, and what was seen of the others is forgotten with it.
    say(&mut e, S, 1, "and?");
    settle(&mut e);
    assert!(e.sessions[&S].eye.seen.len() <= MAX_FRAMES);
}

#[test]
fn frames_of_a_turn_on_trial_are_looked_at_although_others_come() {
    let mut e = OmniEngine::load(&Options { context: 1_024, ..options(1) }).unwrap();
    open(&mut e, S, config(3));
    tone(&mut e, S, 0, 32_000);
    for i in 0..MAX_FRAMES as u64 {
        frame(&mut e, i * 500, i as u32);
    }
    let (from, until) = (InputSamples(0), InputSamples(24_000));
    e.submit(Request::Propose { session: S, turn: TurnId(1), from, until }).unwrap();
    while e.sessions[&S].turns[0].heard.is_none() {
        e.step(&mut |_, _| {});
    }
    assert!(!e.sessions[&S].eye.unseen.is_empty());
    frame(&mut e, 30_000, 99);
    e.submit(Request::Commit { session: S, turn: TurnId(1) }).unwrap();
    assert_eq!(usage(&reply(&settle(&mut e), 1)).prompt_video, 4 * MAX_FRAMES as u32);
}

#[test]
fn what_is_forgotten_before_it_was_seen_is_not_looked_at() {
    let mut e = engine(1);
    open(&mut e, S, config(3));
    for seed in 0..3 {
        let content = vec![Content::Picture(picture(seed, 64))];
        e.submit(Request::Append { session: S, items: vec![Item { role: Role::User, content }] }).unwrap();
    }
    e.submit(Request::Forget { session: S, before: Some(Origin::Given(2)) }).unwrap();
    assert_eq!(e.sessions[&S].eye.unseen.len(), 1);
}

#[test]
fn frames_that_wait_for_the_tower_have_a_bound_in_bytes() {
    let mut e = OmniEngine::load(&Options { context: 4_096, ..options(1) }).unwrap();
    open(&mut e, S, config(3));
    for i in 0..20 {
        let mut rgb = vec![0; 2_000 * 2_000 * 3];
        rgb[0] = i as u8;
        let picture = Picture::new(2_000, 2_000, rgb, MediaResolution::Low).unwrap();
        e.submit(Request::Frame { session: S, at: InputSamples(i * 16_000), picture }).unwrap();
    }
    assert_eq!(e.sessions[&S].eye.unseen.len(), 6, "64 MiB of frames of 12 MB");
}

#[test]
fn what_the_session_forgets_is_not_kept() {
    let mut e = engine(1);
    open(&mut e, S, config(3));
    for seed in 0..9 {
        let content = vec![Content::Picture(picture(seed, 128))];
        e.submit(Request::Append { session: S, items: vec![Item { role: Role::User, content }] }).unwrap();
    }
    settle(&mut e);
    assert_eq!(e.sessions[&S].eye.seen.len(), 9);
    e.submit(Request::Forget { session: S, before: Some(Origin::Given(7)) }).unwrap();
    assert_eq!((e.sessions[&S].eye.seen.len(), e.sessions[&S].history.entries().count()), (2, 2));
    say(&mut e, S, 1, "and?");
    assert_eq!(usage(&reply(&settle(&mut e), 1)).prompt_video, 2 * 16);
}

#[test]
fn each_frame_is_a_grid_of_its_own_on_the_clock_of_the_input() {
    let e = engine(1);
    let config: &Config = &e.config;
    let sight = |seed, at| Piece::Sight(Sight::new(&config.thinker.vision, &picture(seed, 256), at).unwrap());
    let text = Piece::Text("x".into());
    // Two frames a second apart, one a minute later, and a picture that was sent.
    let pieces = vec![sight(1, Some(0)), sight(2, Some(16_000)), sight(3, Some(61 * 16_000)), text, sight(4, None)];
    let entry = Entry { role: Role::User, pieces };
    let session = SessionConfig::default();
    let prompt = e.form.prompt(config, &session, [&entry].into_iter(), End::Answer).unwrap();
    assert_eq!(prompt.media_rows(), (0, 4 * 64));
    let tokens = prompt.token_ids(config);
    let first = |token: u32, skip: usize| tokens.iter().enumerate().filter(|(_, t)| **t == token).nth(skip).unwrap().0;
    let media = &config.thinker.media;
    let starts = [0, 64, 128].map(|skip| first(media.video, skip));
    assert_eq!(starts[1] - starts[0], 66, "64 tokens and two around them");
    let time = starts.map(|row| prompt.positions[row][0]);
    let second = config.thinker.positions_per_second;
    assert_eq!(time[1] - time[0], second, "a second");
    assert_eq!(time[2] - time[1], 30.0 * second, "the longest pause");
    let (a, b) = (prompt.positions[starts[0] + 9], prompt.positions[starts[0]]);
    assert_eq!([a[0] - b[0], a[1] - b[1], a[2] - b[2]], [0.0, 1.0, 1.0], "the second row and column of eight");
    assert_eq!(tokens.iter().filter(|t| **t == media.image).count(), 64);
}
