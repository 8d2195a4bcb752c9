//! Functions and the real models: what is asked for is called with the right arguments, and the answer has the result.

use causerie_model_api::Modality;
use causerie_proto::v1::{self, client_message::MessageType as ToServer};
use causerie_tests::real::{Draw, Person, available, says, start};
use causerie_tests::service::{Call, connect, setup};
use prost_types::value::Kind;

const CITIES: [&str; 6] = ["Paris", "London", "Berlin", "Madrid", "Rome", "Tokyo"];

fn text_schema(description: &str) -> v1::Schema {
    v1::Schema { r#type: v1::Type::String as i32, description: description.into(), ..Default::default() }
}

fn weather() -> v1::Tool {
    let unit = v1::Schema { r#enum: vec!["celsius".into(), "fahrenheit".into()], ..text_schema("unit of the answer") };
    let parameters = v1::Schema {
        r#type: v1::Type::Object as i32,
        properties: [("city".to_owned(), text_schema("name of the city")), ("unit".to_owned(), unit)].into(),
        required: vec!["city".into(), "unit".into()],
        ..Default::default()
    };
    let get_weather = v1::FunctionDeclaration {
        name: "get_weather".into(),
        description: "Current weather in a city".into(),
        parameters: Some(parameters),
        ..Default::default()
    };
    v1::Tool { function_declarations: vec![get_weather], ..Default::default() }
}

fn text_of<'a>(call: &'a v1::FunctionCall, name: &str) -> &'a str {
    match call.args.as_ref().and_then(|args| args.fields.get(name)).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text,
        other => panic!("{name} is {other:?} in {call:?}"),
    }
}

fn response(call: &v1::FunctionCall, result: &[(&str, Kind)]) -> ToServer {
    let fields = result.iter().map(|(k, v)| ((*k).to_owned(), prost_types::Value { kind: Some(v.clone()) })).collect();
    let response = v1::FunctionResponse {
        id: call.id.clone(),
        name: call.name.clone(),
        response: Some(prost_types::Struct { fields }),
        ..Default::default()
    };
    ToServer::ToolResponse(v1::ToolResponse { function_responses: vec![response] })
}

#[tokio::test]
async fn a_typed_question_is_answered_with_what_the_function_says() {
    if !available() {
        return;
    }
    let mut draw = Draw::new();
    let server = start().await;
    let channel = connect(server.grpc_addr).await;
    let mut wrong = Vec::new();
    for unit in ["celsius", "fahrenheit"] {
        let (city, degrees) = (draw.one_of(&CITIES), 31 + draw.below(60));
        let (mut call, _) = Call::begin(&channel, v1::Setup { tools: vec![weather()], ..setup(Modality::Text) }).await;
        call.say(&format!("How warm is it in {city} right now, in degrees {unit}?")).await;
        let asked = call.function_call().await;
        println!("asked about {city} in {unit}: {asked:?}");
        assert_eq!((asked.name.as_str(), text_of(&asked, "city")), ("get_weather", city));
        assert_eq!(text_of(&asked, "unit"), unit);
        call.send(response(&asked, &[("temperature", Kind::NumberValue(degrees as f64))])).await;
        let turn = call.turn().await;
        println!("{degrees} degrees: {:?} {:?}", turn.text, turn.usage);
        assert!(turn.warnings.is_empty(), "{turn:?}");
        if !turn.text.contains(&degrees.to_string()) || turn.text.contains('{') {
            wrong.push(format!("{degrees} degrees in {city}: {:?}", turn.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn thoughts_are_sent_apart_from_the_answer() {
    if !available() {
        return;
    }
    let mut draw = Draw::new();
    let (boxes, eggs, broken) = (3 + draw.below(4), 10 + draw.below(3), 1 + draw.below(5));
    let server = start().await;
    let channel = connect(server.grpc_addr).await;
    let mut wire = setup(Modality::Text);
    let generation = wire.generation_config.as_mut().expect("it has one");
    generation.thinking_config = Some(v1::ThinkingConfig { include_thoughts: Some(true), thinking_budget: Some(96) });
    let (mut call, opened) = Call::begin(&channel, wire).await;
    assert!(opened.capabilities.expect("they are told").thinking);
    call.say(&format!("I have {boxes} boxes with {eggs} eggs each. {broken} eggs break. How many are whole?")).await;
    let turn = call.turn().await;
    println!("thought {:?}, said {:?}, {:?}", turn.thoughts, turn.text, turn.usage);
    let usage = turn.usage.expect("it is told");
    assert!(turn.thoughts.contains(&boxes.to_string()), "{:?}", turn.thoughts);
    assert!((1..=96).contains(&usage.thoughts_token_count), "{usage:?}");
    assert!(turn.text.contains(&(boxes * eggs - broken).to_string()), "{:?}", turn.text);
}

#[tokio::test]
async fn a_spoken_question_is_answered_with_what_the_function_says() {
    if !available() {
        return;
    }
    let mut draw = Draw::new();
    let person = Person::new();
    let server = start().await;
    let channel = connect(server.grpc_addr).await;
    let (city, degrees) = (draw.one_of(&CITIES), 31 + draw.below(60));
    let (mut call, _) = Call::begin(&channel, v1::Setup { tools: vec![weather()], ..setup(Modality::Audio) }).await;
    call.speak(&person.ask(&format!("What is the temperature in {city} in fahrenheit?"))).await;
    let asked = call.function_call().await;
    println!("asked about {city}: {asked:?}");
    assert_eq!((text_of(&asked, "city"), text_of(&asked, "unit")), (city, "fahrenheit"));
    call.send(response(&asked, &[("temperature", Kind::NumberValue(degrees as f64))])).await;
    let turn = call.turn().await;
    let answer = person.listen(&turn.audio);
    println!("said {:?}, judged {answer:?}", turn.said);
    assert!(says(&answer, &degrees.to_string()), "{:?}, heard back as {answer:?}", turn.said);
    assert!(!turn.said.contains('{'), "{:?}", turn.said);
}
