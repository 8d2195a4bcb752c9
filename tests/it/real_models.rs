//! Conversations with the real models: spoken questions, and answers judged by what they say when they are heard.
//!
//! Audio is sent as fast as it is taken: endpoints are decided in media time, so nothing here waits for a clock other
//! than the reply's own.

use std::ffi::OsStr;

use causerie_model_api::Modality;
use causerie_proto::v1;
use causerie_tests::python;
use causerie_tests::real::{Draw, Person, available, samples_of, says, silence, skip, start};
use causerie_tests::service::{Call, Turn, connect, setup};
use causerie_tests::wer::normalise;
use tonic::transport::Channel;

/// Names that are spelled as they sound, so that a wrong one is a mistake and not a spelling.
const NAMES: [&str; 8] = ["Peter", "Anna", "David", "Maria", "Robert", "Linda", "Daniel", "Martin"];

async fn open(channel: &Channel) -> Call {
    Call::begin(channel, setup(Modality::Audio)).await.0
}

/// Asks one question and returns the turn, and the words of the answer as they were heard.
async fn ask(call: &mut Call, person: &Person, question: &str) -> (Turn, String) {
    call.speak(&person.ask(question)).await;
    let turn = call.turn().await;
    let answer = person.listen(&turn.audio);
    println!("asked {question:?}, heard {:?}, said {:?}, judged {answer:?}", turn.heard, turn.said);
    assert!(turn.warnings.is_empty() && turn.errors.is_empty(), "{turn:?}");
    assert_eq!(turn.reason, Some(v1::TurnEndReason::Stop), "{turn:?}");
    (turn, answer)
}

#[tokio::test]
async fn spoken_questions_get_the_right_answers() {
    if !available() {
        return;
    }
    let mut draw = Draw::new();
    let person = Person::new();
    let server = start().await;
    let channel = connect(server.grpc_addr).await;

    let (a, b) = (2 + draw.below(11), 2 + draw.below(11));
    let (c, d) = (10 + draw.below(20), 1 + draw.below(9));
    let name = draw.one_of(&NAMES);
    let questions = [
        ("What is the capital of France?".to_owned(), "Paris".to_owned()),
        ("Which planet is known as the red planet?".to_owned(), "Mars".to_owned()),
        (format!("What is {a} plus {b}?"), (a + b).to_string()),
        (format!("How much is {c} plus {d}?"), (c + d).to_string()),
        (format!("My name is {name}. What is my name?"), name.to_owned()),
    ];
    let mut wrong = Vec::new();
    for (question, fact) in &questions {
        let mut call = open(&channel).await;
        let (turn, answer) = ask(&mut call, &person, question).await;
        if !says(&answer, fact) {
            wrong.push(format!(
                "{question} heard as {:?}, answered {:?}, heard back as {answer:?}",
                turn.heard, turn.said
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_second_turn_knows_the_first() {
    if !available() {
        return;
    }
    let mut draw = Draw::new();
    let (name, colour) = (draw.one_of(&NAMES), draw.one_of(&["red", "blue", "green", "yellow"]));
    let person = Person::new();
    let server = start().await;
    let channel = connect(server.grpc_addr).await;
    let mut call = open(&channel).await;
    ask(&mut call, &person, &format!("My brother is called {name}, and his car is {colour}.")).await;
    let (turn, answer) = ask(&mut call, &person, "What colour is my brother's car?").await;
    assert!(says(&answer, colour), "{:?}, heard back as {answer:?}", turn.said);
    call.half_close();
    assert!(call.next().await.expect("it ends with OK").is_none());
}

#[tokio::test]
async fn four_conversations_at_once_are_answered_each_for_itself() {
    if !available() {
        return;
    }
    const CAPITALS: [(&str, &str); 4] =
        [("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome"), ("Germany", "Berlin")];
    let person = Person::new();
    let server = start().await;
    let channel = connect(server.grpc_addr).await;
    let mut asked = Vec::new();
    for (country, _) in CAPITALS {
        let call = open(&channel).await;
        call.speak(&person.ask(&format!("What is the capital of {country}?"))).await;
        asked.push(call);
    }
    // Each is read by a task of its own: unread speech of one would fill the connection that all share.
    let answers: Vec<_> = asked.into_iter().map(|mut call| tokio::spawn(async move { call.turn().await })).collect();
    let mut wrong = Vec::new();
    for (answer, (country, capital)) in answers.into_iter().zip(CAPITALS) {
        let turn = answer.await.expect("the turn ends");
        let answer = person.listen(&turn.audio);
        println!("{country}: heard {:?}, said {:?}, judged {answer:?}", turn.heard, turn.said);
        let others = CAPITALS.iter().filter(|(_, other)| *other != capital && says(&answer, other)).count();
        if !says(&answer, capital) || others > 0 {
            wrong.push(format!("{country}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_question_with_pauses_is_answered_once_and_whole() {
    if !available() {
        return;
    }
    let person = Person::new();
    let server = start().await;
    let channel = connect(server.grpc_addr).await;
    let question = "Please tell me what is the capital city of France?";
    let (speech, words) = person.say(question);
    let mut pcm = silence(300);
    let mut from = 0;
    for (after, pause) in [("tell me", 150), ("what is", 300), ("capital city", 500)] {
        let byte = question.find(after).expect("it is in the question") + after.len();
        let (_, at) = *words.iter().find(|(b, _)| *b >= byte).expect("the word ends somewhere");
        pcm.extend_from_slice(&speech[from..at]);
        pcm.extend(silence(pause));
        from = at;
    }
    pcm.extend_from_slice(&speech[from..]);
    pcm.extend(silence(1_500));

    let mut call = open(&channel).await;
    call.speak(&pcm).await;
    let turn = call.turn().await;
    let answer = person.listen(&turn.audio);
    println!("heard {:?}, said {:?}, judged {answer:?}", turn.heard, turn.said);
    let heard = normalise(&turn.heard).join(" ");
    assert!(says(&heard, "capital city of France"), "{heard}");
    assert!(says(&answer, "Paris"), "{answer}");
    call.half_close();
    let (end, rest) = call.end().await;
    end.expect("it ends with OK");
    assert!(rest.audio.is_empty() && !rest.complete, "it was answered a second time: {rest:?}");
}

#[tokio::test]
async fn recordings_of_people_are_heard_and_typed_questions_answered() {
    if !available() {
        return;
    }
    let recording = std::path::Path::new("/usr/share/pocketsphinx/test/data/goforward.raw");
    let Ok(bytes) = std::fs::read(recording) else {
        return skip("pocketsphinx-testdata is absent");
    };
    let speech = samples_of(&bytes);
    let server = start().await;
    let channel = connect(server.grpc_addr).await;
    let mut call = open(&channel).await;
    call.speak(&[speech, silence(1_500)].concat()).await;
    let turn = call.turn().await;
    assert_eq!(normalise(&turn.heard).join(" "), "go forward ten meters");

    let (mut typed, _) = Call::begin(&channel, setup(Modality::Text)).await;
    typed.say("What is the capital of Spain? Answer with one word.").await;
    let turn = typed.turn().await;
    assert!(turn.text.contains("Madrid"), "{turn:?}");
    assert!(turn.audio.is_empty());
}

#[tokio::test]
async fn googles_published_client_is_answered() {
    let Some(python) = python::interpreter("google-ai-generativelanguage").filter(|_| available()) else { return };
    let person = Person::new();
    let folder = std::env::temp_dir().join(format!("causerie-google-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder of our own");
    let question = folder.join("question.wav");
    python::record(&question, &person.ask("What is the capital of France?"));
    let server = start().await;
    let address = server.grpc_addr.to_string();
    let seen = python::run(&python, "google_client.py", [OsStr::new(&address), question.as_os_str()]).await;
    for version in ["v1beta", "v1alpha"] {
        let text = seen[version]["text"].as_str().expect("a text turn").to_lowercase();
        assert!(text.contains("madrid"), "{version}: {text}");
        let audio = std::fs::read(seen[version]["audio_file"].as_str().expect("an audio turn")).expect("a file");
        assert!(says(&person.listen(&audio), "Paris"), "{version}: {}", person.listen(&audio));
    }
    let heard = seen["v1beta"]["heard"].as_str().expect("a transcript").to_lowercase();
    assert!(heard.contains("capital of france"), "{heard}");
    std::fs::remove_dir_all(&folder).expect("our own folder");
}

#[tokio::test]
async fn what_is_said_to_others_is_left_unanswered_if_the_client_wants_that() {
    if !available() {
        return;
    }
    let person = Person::new();
    let server = start().await;
    let channel = connect(server.grpc_addr).await;
    let proactivity = Some(v1::Proactivity { proactive_audio: Some(true) });
    let (mut call, _) = Call::begin(&channel, v1::Setup { proactivity, ..setup(Modality::Audio) }).await;
    call.speak(&person.ask("Passengers are reminded to keep their luggage with them.")).await;
    let turn = call.turn().await;
    println!("heard {:?}, said {:?}", turn.heard, turn.said);
    assert_eq!(turn.reason, Some(v1::TurnEndReason::NotAddressed), "{turn:?}");
    assert!(turn.heard.to_lowercase().contains("luggage") && turn.audio.is_empty() && turn.said.is_empty(), "{turn:?}");
    let (turn, answer) = ask(&mut call, &person, "What is the capital of France?").await;
    assert!(says(&answer, "Paris"), "{:?}, heard back as {answer:?}", turn.said);
}
