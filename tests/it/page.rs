//! The page to talk to the server, in a headless Chromium.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use causerie_model_api::INPUT_RATE;
use causerie_tests::python;
use causerie_tests::real::{Person, available, silence};
use causerie_tests::scripted::tone;
use causerie_tests::service::{config, start};
use serde_json::Value;

/// A folder for one test's recording and pictures. It stays: pictures are there to be looked at.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/page").join(name);
    std::fs::create_dir_all(&folder).expect("a folder of our own");
    folder
}

/// What the browser saw, or nothing where there is no browser.
async fn browse(what: &str, server: SocketAddr, recording: &[f32]) -> Option<Value> {
    let python = python::interpreter("playwright")?;
    let folder = folder(what);
    let question = folder.join("question.wav");
    python::record(&question, recording);
    let server = server.to_string();
    let arguments = [OsStr::new(what), OsStr::new(&server), question.as_os_str(), folder.as_os_str()];
    let seen = python::run(&python, "page.py", arguments).await;
    assert_eq!(seen["complaints"], Value::Array(Vec::new()), "the browser complains of nothing");
    assert!(seen["overflow"].as_i64() <= Some(0), "a narrow window needs no sideways scrolling: {}", seen["overflow"]);
    Some(seen)
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
}

#[tokio::test]
async fn a_question_spoken_to_the_page_is_answered_aloud() {
    if !available() {
        return;
    }
    let server = causerie_tests::real::start().await;
    let question = Person::new().ask("What is the capital of France?");
    let recording = [silence(1_000), question, silence(2_000)].concat();
    let Some(seen) = browse("spoken", server.http_addr, &recording).await else { return };
    assert!(texts(&seen["user"]).join(" ").to_lowercase().contains("capital of france"), "{seen}");
    assert!(texts(&seen["model"]).join(" ").contains("Paris"), "{seen}");
    let loud = seen["played"].as_array().expect("levels").iter().filter(|level| level.as_f64() > Some(0.05)).count();
    assert!(loud >= 10, "half a second of speech at least: {loud} of 50 ms");
    let rows = seen["rows"].as_array().expect("bars");
    assert!(rows.iter().any(|row| row[0] == "heard") && rows.len() >= 5, "{rows:?}");
    for row in rows {
        let (left, width) = (row[1].as_f64().expect("a number"), row[2].as_f64().expect("a number"));
        assert!(left >= 0.0 && width >= 0.0 && left + width < 100.01, "a bar leaves its track: {row}");
    }
}

#[tokio::test]
async fn the_page_can_be_used_by_keyboard_and_without_a_microphone() {
    let server = start(&config()).await;
    let Some(seen) = browse("typed", server.http_addr, &tone(INPUT_RATE, 0, INPUT_RATE as usize)).await else { return };
    assert!(seen["refused"].as_str().expect("a notice").contains("not allowed"), "{seen}");
    assert_eq!(texts(&seen["user"]), ["<b>not bold</b>"]);
    assert_eq!(texts(&seen["model"]), ["You said: <b>not bold</b>"]);
    assert_eq!(seen["markup"], 0);
    assert_eq!(seen["hushed"][0], "interrupted");
    assert!(seen["hushed"][1].as_u64() < Some(100), "{seen}");
    assert_eq!(seen["written"], "You said: written");
    assert_eq!(seen["kept"], "TEXT");
}

#[tokio::test]
async fn a_conversation_outlives_its_connection() {
    let server = start(&config()).await;
    let recording = tone(INPUT_RATE, 0, INPUT_RATE as usize);
    let Some(seen) = browse("dropped", server.http_addr, &recording).await else { return };
    let recalled = texts(&seen["model"]).into_iter().filter(|said| *said == "hello say 100 words").count();
    assert_eq!(recalled, 2, "by its handle, and by what the page has on it: {seen}");
    assert_eq!(seen["notice"], false, "nothing is left to complain of");
    assert_eq!(seen["connections"], 4, "whoever ends the conversation is not connected again");
}

#[tokio::test]
async fn an_engine_that_sees_gets_a_picture_a_second_of_the_camera() {
    let server = crate::omni::start(&crate::omni::config()).await;
    let Some(seen) = browse("looked", server.http_addr, &silence(1_000)).await else { return };
    assert_eq!((&seen["preview"], &seen["closed"]), (&Value::Bool(true), &Value::Bool(true)), "{seen}");
    for picture in seen["pictures"].as_array().expect("pictures") {
        assert_eq!(picture[0], "image/jpeg");
        assert!(picture[1].as_u64() > Some(1_000), "an empty picture: {seen}");
    }
    let tokens: Vec<_> = seen["tokens"].as_array().expect("counts").iter().filter_map(Value::as_u64).collect();
    assert!(tokens.iter().any(|tokens| *tokens > 0), "nothing was seen: {seen}");
}
